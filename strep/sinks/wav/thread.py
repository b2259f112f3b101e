"""The thread that writes recordings: what waits for it, and how it ends in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..._model.blocks import BlockBatch
from ..._threads.worker_queue import WorkerQueue
from .silence_bound import SkippedGaps

if TYPE_CHECKING:
    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo
    from .disk import DiskState
    from .pending import PendingStreams

__all__ = ["WriterThread"]

_FILES_S: Final = 0.05  # for making and completing files between two batches: one turn
_MORE_TURNS: Final = 7  # when no stream has a file yet
# shares of the time that there is for the end: until when what waits is written, until when files are completed, and
# until when the thread is waited for
_WRITING_SHARE: Final = 0.7
_COMPLETING_SHARE: Final = 0.9
_WAITING_SHARE: Final = 0.95
_LATE_S: Final = 1.0  # for completing files, when the thread comes back after it was given up


class Writer(Protocol):
    """Does what the thread has to do: a WavWriter. Times are monotonic seconds."""

    in_hand: int

    @property
    def waiting_frames(self) -> int: ...

    @property
    def busy(self) -> bool: ...

    @property
    def share_without_file(self) -> float: ...

    @property
    def refused_streams(self) -> int: ...

    @property
    def patience_s(self) -> float | None: ...

    def write(self, batch: BlockBatch, now: float) -> None: ...

    def end(self, stream: StreamInfo, report: StreamReport, now: float) -> None: ...

    def skip(self, gaps: SkippedGaps) -> None: ...

    def work(self, until: float) -> None: ...

    def hurry(self) -> bool: ...

    def look_after(self, now: float, *, idle: bool) -> None: ...

    def close(self, now: float, until: float) -> int: ...


@dataclass(frozen=True, slots=True)
class _End:
    """A stream has ended."""

    stream: StreamInfo
    report: StreamReport


_Job = BlockBatch | SkippedGaps | _End


class WriterThread:
    """Takes batches and ends of streams, and lets ``writer`` write them. ``queue_bytes``: audio that may wait, with
    that in ``pending``. ``fault`` is told exceptions that were contained.

    ``failed``          why not everything was written; None: it was
    ``dropped_frames``  that found no room in the queue, or that there was no time for at the end
    """

    def __init__(
        self,
        writer: Writer,
        disk: DiskState,
        pending: PendingStreams,
        *,
        queue_bytes: int,
        fault: Callable[[Exception], object],
    ) -> None:
        self._writer = writer
        self._disk = disk
        self._pending = pending
        self._fault = fault
        self._last_skipped: SkippedGaps | None = None  # if it is the last in the queue
        self._complete_until_s = math.inf  # monotonic
        self._given_up = False
        self.failed: str | None = None
        self.dropped_frames = 0
        self._queue: WorkerQueue[_Job] = WorkerQueue(
            self._work,
            name="strep-wav",
            limit=queue_bytes,
            on_fault=fault,
            between=self._between,
            finish=self._end,
        )

    # --- called by the receiver -----------------------------------------------------------------------------------

    def put_blocks(self, batch: BlockBatch) -> None:
        """Never blocks. What finds no room counts as dropped; of its gaps account is kept all the same."""
        # encoded bytes and columns, as it is decoded when its turn comes; samples of packed codecs are more
        size = 2 * max(batch.payload.nbytes, int(batch.offset[-1]))
        if self._queue.put(batch, size, reserved=self._pending.size):
            self._last_skipped = None
            return
        self.dropped_frames += int(batch.frames.sum())
        if batch.gap_frames.any() and (self._last_skipped is None or not self._last_skipped.add(batch)):
            self._last_skipped = SkippedGaps()
            self._last_skipped.add(batch)
            self._queue.put(self._last_skipped)

    def put_end(self, stream: StreamInfo, report: StreamReport) -> None:
        self._last_skipped = None
        self._queue.put(_End(stream, report))

    def wait_for_room(self) -> None:
        """Block until the queue is at most half full, or the thread has ended."""
        self._queue.wait_for_room()

    @property
    def alive(self) -> bool:
        return self._queue.alive

    @property
    def idle(self) -> bool:
        """Whether there is nothing that could be done now."""
        return self._queue.idle and not self._writer.busy

    def close(self, timeout_s: float) -> bool:
        """Write what waits and complete all files, in no more than ``timeout_s``; what was not written then counts as
        dropped, to the frame. Returns False if the thread hangs in a system call: then the figures are final, whatever
        it does when it comes back."""
        self._complete_until_s = time.monotonic() + _COMPLETING_SHARE * timeout_s
        if self._given_up or self._queue.close(_WAITING_SHARE * timeout_s, work_s=_WRITING_SHARE * timeout_s):
            return True
        self._given_up = True
        self.failed = self.failed or f"the disk did not take everything within {timeout_s:g} s"
        left = self._queue.abandon()
        self.dropped_frames += self._writer.in_hand + self._writer.waiting_frames
        self.dropped_frames += self._pending.frames + _frames_of(left)
        return False

    # --- the thread -----------------------------------------------------------------------------------------------

    def _work(self, job: _Job) -> None:
        if isinstance(job, _End):
            self._writer.end(job.stream, job.report, time.monotonic())
        elif isinstance(job, SkippedGaps):
            self._writer.skip(job)
        else:
            self._make_room(job)
            try:
                self._writer.write(job, time.monotonic())
            finally:
                self._disk.lost(self._writer.in_hand)  # 0, but for a bug of ours
                self._writer.in_hand = 0

    def _between(self, had_job: bool) -> float | None:
        for _ in range(self._turns()):
            now = time.monotonic()
            if self._writer.busy:
                self._contained(self._writer.work, now + _FILES_S)
            self._contained(self._writer.look_after, now, idle=not had_job)
            if not self._writer.busy or self._closes:
                break
        return self._writer.patience_s

    def _turns(self) -> int:
        """How often files are made before the next batch is taken. The more streams have none, the longer those wait
        that have one. And the more waits for files, the longer batches stay in the queue, where they take half the
        memory; what finds no room there is lost."""
        return 1 + round(_MORE_TURNS * max(self._writer.share_without_file, self._pending.pressure))

    def _make_room(self, batch: BlockBatch) -> None:
        """Make files, as long as that goes, until all of a batch might wait for one. In the queue nothing is lost."""
        most = 2 * int(batch.offset[-1])
        now = time.monotonic()
        while not self._pending.has_room(most, len(batch)) and now < self._complete_until_s:
            if not self._writer.busy and not self._writer.hurry():
                break
            self._contained(self._writer.work, now + _FILES_S)
            self._contained(self._writer.look_after, now, idle=False)
            now = time.monotonic()

    @property
    def _closes(self) -> bool:
        return self._complete_until_s != math.inf

    def _end(self, left: list[_Job]) -> None:
        """The thread ends: what it did not begin is lost, but files are completed."""
        now = time.monotonic()
        if self._given_up:  # too late for the figures, but not for the files
            self._contained(self._writer.close, now, now + _LATE_S)
            return
        frames = _frames_of(left)
        self.dropped_frames += frames
        if frames:
            self.failed = self.failed or "the disk was too slow to take everything before the end"
        for job in left:
            if isinstance(job, _End):
                self._contained(self._writer.end, job.stream, job.report, now)
        unfinished = self._contained(self._writer.close, now, self._complete_until_s)
        problem = self._disk.problem
        if problem is not None and (unfinished or self._writer.refused_streams):
            self.failed = self.failed or problem
        elif unfinished:
            self.failed = self.failed or f"{unfinished} files were not completed before the end"

    def _contained(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """A bug here must not cost the other streams, nor the thread."""
        try:
            return work(*arguments, **named)
        except Exception as error:
            self._fault(error)
            return None


def _frames_of(jobs: Iterable[_Job]) -> int:
    return sum(int(job.frames.sum()) for job in jobs if isinstance(job, BlockBatch))
