"""Files from their making to their final name. Used by the thread that writes.

A file is made when its stream has lasted, and completed when all its streams have ended. Both can take long, or fail
for a while. So they wait in a heap, those first whose streams have most audio, and are done between batches: files that
are there already go on meanwhile.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..._threads.archive import Archive
from .columns import encoding_of
from .disk import DISK, NEW_FILES, DiskState
from .file import WavFormat
from .pending import PendingBlock, PendingStream, PendingStreams, lasted_ns
from .track import WavTrack

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo
    from .drift import DriftCorrector
    from .file import WavFile
    from .lanes import WavLanes
    from .shared import LegFiles
    from .tree import WavTree
    from .upkeep import FileUpkeep

__all__ = ["FileLifecycle"]

_CALL_NS: Final = 400_000_000  # of audio, or of a stream that has ended: not what sends a packet now and then
_PASSING_ENDS: Final = ("idle", "evicted")  # how streams end that may never have been calls


@dataclass(slots=True)
class _Completion:
    """A file whose streams have ended: it is to be completed and named."""

    file: WavFile
    serials: list[int]


class FileLifecycle:
    """``native``, ``rate``, ``legs`` as of :class:`WavWriter`. ``fault`` is told exceptions that were contained, and of
    which stream. ``settled`` is told the serials of streams whose files are complete, or that have none.

    ``tracks``  of the streams that have a file, by serial
    ``names``   of the files of streams that have ended, relative to the directory
    ``drift``, ``drift_sums``  what drift correction took, in frames
    """

    def __init__(
        self,
        tree: WavTree,
        disk: DiskState,
        pending: PendingStreams,
        upkeep: FileUpkeep,
        tracks: dict[int, WavTrack],
        *,
        native: bool,
        rate: int | None,
        legs: LegFiles | None,
        lanes: WavLanes | None,
        fault: Callable[[Exception, StreamInfo | None], object],
        settled: Callable[[int], object],
    ) -> None:
        self._tree = tree
        self._disk = disk
        self._pending = pending
        self._upkeep = upkeep
        self.tracks = tracks
        self._native = native
        self._rate = rate
        self._legs = legs
        self._lanes = lanes
        self._fault = fault
        self._settled = settled
        self._plain = legs is None and rate is None  # files hold blocks as they are
        self._due: list[tuple[int, int, PendingStream | _Completion]] = []  # a heap: most audio first
        self._number = 0  # of what was put there, so that equals stay in order
        self._stuck: list[PendingStream | _Completion] = []  # what failed, to be tried again
        self._retry_at = 0.0  # monotonic seconds: not before
        self._refused: set[int] = set()  # serials of streams that live and get no file
        self.names: Archive[list[str]] = Archive()
        self.drift: Archive[dict[str, Any]] = Archive()
        self.drift_sums: Counter[str] = Counter()
        self.refused_streams = 0
        self.short_streams = 0
        self.short_frames = 0

    # --- streams without a file -----------------------------------------------------------------------------------

    def refuses(self, stream: StreamInfo) -> bool:
        """Whether the stream gets no file any more."""
        return stream.serial in self._refused

    def keep(self, stream: StreamInfo, block: PendingBlock) -> None:
        """Keep a block of a stream that has no file yet; without room for it, it counts as lost."""
        if self._legs is not None:
            self._legs.meet(stream)
        try:
            due = self._pending.add(stream, block)
        except MemoryError:
            self._disk.lost(block.frames)
            return
        if due is not None:
            self._push(due, due.audio_ns)

    def keep_bytes(self, stream: StreamInfo, data: memoryview, at: int, frames: int, last_ns: int) -> None:
        """As :meth:`keep`, of a block that goes as it is into a file of its own: bytes, and where its samples begin."""
        try:
            due = self._pending.append(stream, data, at, frames, last_ns)
        except MemoryError:
            self._disk.lost(frames)
            return
        if due is not None:
            self._push(due, due.audio_ns)

    def end(self, stream: StreamInfo, report: StreamReport) -> None:
        """No more blocks of the stream come."""
        pending = self._pending.get(stream.serial)
        if pending is None:
            self._end_track(stream, report)
            return
        pending.report = report
        if self._pending.has_lasted(pending) or report.end not in _PASSING_ENDS:
            if not pending.due:
                pending.due = True
                self._push(pending, pending.audio_ns)
            return
        self._pending.remove(pending)
        self.short_streams += 1
        self.short_frames += pending.frames
        self._leave(stream)

    def hurry(self) -> bool:
        """Let all streams have their file that have none; False: those that are to have one are all due already."""
        early = [pending for pending in self._pending.all() if not pending.due]
        for pending in early:
            pending.due = True
            self._push(pending, pending.audio_ns)
        return bool(early)

    def _push(self, item: PendingStream | _Completion, audio_ns: int) -> None:
        self._number += 1
        heapq.heappush(self._due, (-audio_ns, self._number, item))

    # --- work -----------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Files are to be made or named that have not failed lately."""
        return bool(self._due)

    @property
    def waiting_calls(self) -> int:
        """How many, if those that come next are of streams that have audio all the time; else 0."""
        return len(self._due) if self._due and -self._due[0][0] >= _CALL_NS else 0

    @property
    def stuck(self) -> bool:
        """Files could not be made or named."""
        return bool(self._stuck)

    @property
    def busy(self) -> bool:
        """Files are to be made or named, and can be tried now."""
        return bool(self._due) or (bool(self._stuck) and time.monotonic() >= self._retry_at)

    def work(self, until: float, *, closing: bool = False) -> None:
        """Make and complete files until that (monotonic seconds)."""
        now = time.monotonic()
        if self._stuck and (closing or now >= self._retry_at):
            for item in self._stuck:
                self._push(item, item.audio_ns if isinstance(item, PendingStream) else 0)
            self._stuck.clear()
        while self._due and now < until:
            _, _, item = heapq.heappop(self._due)
            if isinstance(item, _Completion):
                self._complete(item, now)
            elif closing or (self._disk.is_due(NEW_FILES, now) and self._disk.is_due(DISK, now)):
                self._make(item, now)
            else:
                self._stuck.append(item)
            now = time.monotonic()

    def _make(self, pending: PendingStream, now: float) -> None:
        """Give a stream its file, with all that waited."""
        stream = pending.stream
        try:
            track = self._begin(pending)
        except OSError as error:
            self._retry_at = self._disk.failed(NEW_FILES, error, f"{self._tree.root}/{stream.name}", now)
            self._stuck.append(pending)
            return
        except Exception as error:
            self._fault(error, stream)
            self._give_up(pending)
            return
        self._disk.works(NEW_FILES)
        self._disk.works(DISK)
        self._pending.remove(pending)
        self.tracks[stream.serial] = track
        track.file.header_written_at = now
        if not self._plain:
            self._write_blocks(track, pending, now)
            self._upkeep.write_first_header(track.file, now)
        elif self._lanes is not None and pending.report is None:
            self._lanes.adopt(stream.index, track.file)
        if pending.report is not None:
            self._end_track(stream, pending.report)

    def _begin(self, pending: PendingStream) -> WavTrack:
        stream = pending.stream
        if self._legs is not None:
            return self._legs.begin(stream, pending.blocks[0].arrival_ns)
        format_ = WavFormat.of(encoding_of(stream, self._native), self._rate or stream.sample_rate, stream.channels)
        file = self._tree.create(stream.leg_name, stream.stem, format_)
        if self._plain:
            try:
                self._tree.begin(file, pending.pieces)
            except OSError:
                self._tree.discard(file)
                raise
        return WavTrack(self._tree, file, stream)

    def _write_blocks(self, track: WavTrack, pending: PendingStream, now: float) -> None:
        for block in pending.blocks:
            if now < track.file.retry_at:
                self._disk.lost(block.frames)
                continue
            try:
                track.write(block.samples, block.position, block.time_ns, block.arrival_ns)
            except OSError as error:
                self._upkeep.failed(track.file, error, now)
                self._disk.lost(block.frames)
            except Exception as error:
                self._fault(error, track.stream)
                self._disk.lost(block.frames)

    def _give_up(self, pending: PendingStream) -> None:
        """The stream gets no file."""
        self._pending.remove(pending)
        self._disk.lost(pending.frames)
        self.refused_streams += 1
        self._refused.add(pending.stream.serial)
        self._leave(pending.stream)

    # --- ends -----------------------------------------------------------------------------------------------------

    def _leave(self, stream: StreamInfo) -> None:
        """A stream that never had a file has ended."""
        last = self._legs.end(stream) if self._legs is not None else None
        self._note([stream.serial], [])
        if last is not None:
            self._push(_Completion(*last), 0)

    def _end_track(self, stream: StreamInfo, report: StreamReport) -> None:
        self._refused.discard(stream.serial)
        track = self.tracks.pop(stream.serial, None)
        if track is None:
            self._leave(stream)
            return
        if self._lanes is not None:
            self._lanes.release(stream.index, track.file)
        try:
            track.finish()
        except OSError as error:
            self._upkeep.failed(track.file, error, time.monotonic())
        except Exception as error:
            self._fault(error, stream)
        if track.drift is not None:
            self._note_drift(track.drift, report)
        last = (track.file, [stream.serial]) if self._legs is None else self._legs.end(stream)
        if last is not None:
            self._push(_Completion(*last), lasted_ns(report))

    def _note_drift(self, drift: DriftCorrector, report: StreamReport) -> None:
        counts = {"inserted": drift.inserted, "dropped": drift.dropped, "resampled": drift.resampled}
        self.drift_sums.update(counts)
        skew = None if report.skew_ppm is None else round(report.skew_ppm, 3)
        self.drift.add(report.stream.serial, {"skew_ppm": skew, **counts})

    def _complete(self, completion: _Completion, now: float) -> None:
        file = completion.file
        names: list[str] = []
        try:
            names = [self._tree.finish(file)]
        except FileNotFoundError as error:  # somebody has deleted it
            self._upkeep.failed(file, error, now)
            self._abandon(file)
        except OSError as error:
            self._upkeep.failed(file, error, now)
            self._retry_at = file.retry_at
            self._stuck.append(completion)
            return
        except Exception as error:
            self._fault(error, None)
            names = self._abandon(file)
        self._upkeep.completed(file)
        self._note(completion.serials, names)

    def _note(self, serials: list[int], names: list[str]) -> None:
        for serial in serials:
            if names:
                self.names.add(serial, names)
            self._settled(serial)

    def _abandon(self, file: WavFile) -> list[str]:
        """Leave a file as it is; returns its name, if it is there."""
        name = self._tree.abandon(file)
        self._disk.lost(len(file.rest) // file.format.frame_bytes)
        file.rest = b""
        return [name] if name else []

    def close(self, until: float) -> int:
        """Do until then (monotonic seconds) what can be done, count the rest, let everything go. Returns how many files
        are not complete."""
        self.hurry()  # it is not their doing that they end
        tried = -1
        while tried != len(self._stuck):  # what is complete has left room for others, perhaps
            tried = len(self._stuck)
            self.work(until, closing=True)
        left = [item for _, _, item in sorted(self._due, key=lambda entry: entry[:2])] + self._stuck
        self._due.clear()
        for pending in self._pending.all():
            self._give_up(pending)
        if self._lanes is not None:
            for track in self.tracks.values():
                self._lanes.release(track.stream.index, track.file)
            self._lanes.close()
        unfinished = [item for item in left if isinstance(item, _Completion)]
        unfinished += [_Completion(track.file, [track.stream.serial]) for track in self.tracks.values()]
        abandoned: dict[int, list[str]] = {}
        for item in unfinished:
            if id(item.file) not in abandoned:
                abandoned[id(item.file)] = self._abandon(item.file)
            self._note(item.serials, abandoned[id(item.file)])
        self.tracks.clear()
        self._tree.close()
        return len(abandoned)
