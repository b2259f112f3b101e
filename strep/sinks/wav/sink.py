"""WAV files: one per stream, or one stereo file per call leg. Written by a thread, never by the event loop."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ..._model.exceptions import ConfigurationError
from ..._threads.incidents import Incidents
from ...resample import prepare
from ..base import BaseSink
from ..muting import MuteKeys
from .disk import DiskState
from .hold import Hold
from .legs import LegFiles, Sessions, parse_sessions
from .tree import WavTree
from .writer import WavWriter

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo

__all__ = ["WavSink"]

_WORK_S: Final = 0.05  # for new and finished files between two batches
# of the time that there is for the end
_WRITING: Final = 0.7
_FINISHING: Final = 0.9
_AT_MOST: Final = 0.95
_LATE_S: Final = 1.0
_HELD: Final = 4  # a fourth of the queue is for streams without files

_Job = tuple[Literal["blocks", "ended", "skipped"], Any]


class WavSink(BaseSink):
    """Writes what is received to ``DIR/<call_leg_id>/<leg>-<direction>.wav``; with layout "stereo" both directions of a
    leg to ``DIR/<call_leg_id>/<leg>.wav``, inbound left, outbound right; with layout "session" all legs of a session to
    ``DIR/<session>/session.wav``: A inbound, A outbound, B inbound, B outbound.

    ``layout``    "split", "stereo" or "session"
    ``sessions``  of layout "session": a mapping of call_leg_ids to names, whose legs stand in this order; or a function
    of StreamInfo that returns a name, or None. A single id has two legs by STREP's L bit. Legs without a session are
    written as stereo
    ``drift_correction``  of files that directions share: align them on the receiver's clock, to within 20 ms for as
    long as the call lasts, by frames put in or left out, in silence where there is some. Split files are never
    corrected: they are the streams' RTP time spans, to the sample
    ``encoding``  "pcm16", or "native": G.711 bytes as they came (split only); other codecs are written as pcm16, and
    what a G.711 stream brings in another codec is encoded as its file is
    ``rate``      resample to this rate (pcm16 only); None: each stream's own
    ``conceal``   short gaps are filled as ears want it (pcm16 only); False: they are silent
    ``queue_bytes``  audio that may wait for a slow disk (default 512 MiB); beyond it blocks are dropped, counted, and
    silent in the file
    ``mute_keys``  silence instead of DTMF digits (pcm16 only): the tones of card numbers and PINs are not written.
    Files then lag 0.1 s more behind
    ``shortest_s``  a stream gets its directory and file when it has lasted that long, by its packets' arrival or its
    audio, and nothing of it is missing then; or when it ends for another reason than falling silent. What falls silent
    sooner leaves no file, and is counted. 0: every stream has a file at once
    ``file_mode``, ``directory_mode``  of what is made, less the process's umask

    Unfinished files are named ``….part.wav``; they are valid at any moment, and a killed process leaves at most the
    last second out of them. Nothing is ever overwritten: a further file of the same name gets a number. Symlinks below
    the directory are not followed. Silence is no longer than the stream was there, or than its audio, and 2 s, whatever
    its timestamps say. Disk errors never reach the receiver: :meth:`report` tells them, and "disk_paused" and
    "disk_resumed" are told. Raises ConfigurationError for combinations that make no sense.
    """

    kind = "wav"
    inline = True  # only queues
    prompt = False

    def __init__(
        self,
        directory: str | PathLike[str],
        *,
        layout: Literal["split", "stereo", "session"] = "split",
        encoding: Literal["pcm16", "native"] = "pcm16",
        rate: int | None = None,
        conceal: bool = False,
        sessions: Sessions | None = None,
        drift_correction: bool = True,
        queue_bytes: int = 512 << 20,
        max_open_files: int | None = None,
        mute_keys: bool = False,
        shortest_s: float = 0.5,
        file_mode: int = 0o640,
        directory_mode: int = 0o750,
    ) -> None:
        if layout not in ("split", "stereo", "session"):
            raise ConfigurationError(f'layout {layout!r}: "split", "stereo" or "session"')
        if (layout == "session") != (sessions is not None):
            raise ConfigurationError('layout "session" and sessions belong together: give both, or neither')
        if encoding not in ("pcm16", "native"):
            raise ConfigurationError(f'encoding {encoding!r}: "pcm16" or "native"')
        if encoding == "native" and layout != "split":
            raise ConfigurationError(
                'encoding "native" keeps each stream\'s bytes, which may differ by direction: use layout "split"'
            )
        if encoding == "native" and rate is not None:
            raise ConfigurationError('encoding "native" cannot be resampled: leave the rate out, or use "pcm16"')
        if encoding == "native" and mute_keys:
            raise ConfigurationError('encoding "native" keeps the bytes as they came: use "pcm16" to mute keys')
        if encoding == "native" and conceal:
            raise ConfigurationError(
                'encoding "native" keeps the bytes that came, and of gaps none did: leave conceal out, or use "pcm16"'
            )
        if rate is not None and not 4000 <= rate <= 192_000:
            raise ConfigurationError(f"rate {rate}: choose 4000 to 192000 Hz, for example 16000")
        if not 0 <= shortest_s <= 60:
            raise ConfigurationError(f"shortest_s {shortest_s:g}: 0 to 60 s")
        for name, mode in (("file_mode", file_mode), ("directory_mode", directory_mode)):
            if not 0 <= mode <= 0o777:
                raise ConfigurationError(f"{name} {mode:#o}: permissions like 0o640")
        session_of = None if sessions is None else parse_sessions(sessions)
        if rate is not None or layout != "split":
            prepare()
        if conceal:
            self.concealment = "later"  # in the thread that writes
        self._incidents = Incidents(time.time_ns)
        self._tree = WavTree(
            Path(directory), max_open_files or _descriptor_budget(), file_mode=file_mode, directory_mode=directory_mode
        )
        self._disk = DiskState(lambda kind, text, data: self._incidents.tell(kind, text, **data))
        self._hold = Hold(shortest_s, queue_bytes // _HELD)
        self._mute = MuteKeys() if mute_keys else None
        legs = None
        if layout != "split":
            legs = LegFiles(self._tree, rate, corrected=drift_correction, sessions=session_of)
        self._unsettled: set[int] = set()  # serials of streams that have ended, but not their files
        self._writer = WavWriter(
            self._tree,
            self._disk,
            self._hold,
            native=encoding == "native",
            rate=rate,
            legs=legs,
            mute=self._mute,
            conceal=conceal,
            fault=lambda error, stream: self._incidents.fault("wav", error, stream=stream),
            settled=self._unsettled.discard,
        )
        self._jobs: deque[tuple[_Job, int]] = deque()
        self._queue_bytes = queue_bytes
        self._waiting = 0
        self._condition = threading.Condition()
        self._closing = False
        self._write_until = self._finish_until = float("inf")
        self._failed: str | None = None
        self._queue_dropped = 0
        self._last_report: dict[str, Any] | None = None  # once the thread is given up
        self._thread = threading.Thread(target=self._run, name="strep-wav", daemon=True)
        self._thread.start()

    @property
    def directory(self) -> Path:
        """The directory that files go to."""
        return self._tree.root

    # --- called by the receiver -----------------------------------------------------------------------------------

    def report_to(self, incidents: Incidents) -> None:
        self._incidents = incidents
        if self._mute is not None:
            self._mute.aside.incidents = incidents

    def blocks(self, batch: BlockBatch) -> None:
        # encoded bytes and columns, as it is decoded when its turn comes; samples of packed codecs are more
        size = 2 * max(batch.payload.nbytes, int(batch.offset[-1]))
        with self._condition:
            if self._waiting + self._hold.size + size > self._queue_bytes and self._jobs:
                self._queue_dropped += int(batch.frames.sum())
                if batch.gap_frames.any():
                    self._jobs.append((("skipped", batch), 0))
                return
            self._jobs.append((("blocks", batch), size))
            self._waiting += size
            self._condition.notify_all()

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        self._unsettled.add(stream.serial)
        with self._condition:
            self._jobs.append((("ended", (stream, report)), 0))
            self._condition.notify_all()

    def wait_for_room(self) -> None:
        """Block until the queue is at most half full (replays, which may wait)."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting <= self._queue_bytes // 2 or not self._thread.is_alive())

    def close(self, timeout_s: float) -> None:
        """Write what waits and complete all files, those first whose streams have lasted longest; as soon as that is
        done, and in no more than ``timeout_s``. What was not written then counts as dropped, to the frame."""
        now = time.monotonic()
        with self._condition:
            self._write_until = now + _WRITING * timeout_s
            self._finish_until = now + _FINISHING * timeout_s
            self._closing = True
            self._condition.notify_all()
        self._thread.join(_AT_MOST * timeout_s)
        with self._condition:
            if not self._thread.is_alive() or self._last_report is not None:
                return
            # it hangs in a system call: what it has not written it will not, whatever it does when it comes back
            self._failed = self._failed or f"the disk did not take everything within {timeout_s:g} s"
            left = self._writer.in_hand + self._hold.frames + _frames(self._jobs)
            self._jobs.clear()
            self._queue_dropped += left
            self._last_report = self.report()

    def report(self) -> dict[str, Any]:
        """Figures so far. ``problem``: what is wrong with the disk now, and ``paused`` whether something is; ``failed``
        is for good. ``errors`` counts by errno. ``short_streams`` fell silent before they had a file, and
        ``short_frames`` are theirs; ``refused_streams`` could not be given one. ``names_taken``: directories that are
        called otherwise, because a symlink or a file has their name."""
        if self._last_report is not None:
            return self._last_report
        writer = self._writer
        return {
            "kind": self.kind,
            "failed": self._failed,
            "problem": self._disk.problem,
            "paused": self._disk.problem is not None,
            "dropped_frames": self.dropped_frames,
            "refused_streams": writer.refused_streams,
            "short_streams": writer.short_streams,
            "short_frames": writer.short_frames,
            "files": self._tree.files,
            "names_taken": self._tree.folders.blocked,
            "errors": dict(self._disk.errors),
            **({"drift": dict(writer.drift_sums)} if writer.drift_sums else {}),
        }

    @property
    def dropped_frames(self) -> int:
        """Sample frames that are in no file, although they should be."""
        return self._disk.dropped_frames + self._queue_dropped

    def files(self, stream: StreamInfo) -> list[str]:
        return self._writer.names.get(stream.serial) or []

    def recording_directories(self) -> list[Path]:
        return [self.directory]

    def settled(self, stream: StreamInfo) -> bool:
        """Whether the files of a stream that has ended are complete: also those that it shares with others."""
        return stream.serial not in self._unsettled or not self._thread.is_alive()

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        """Of streams that are kept on the receiver's clock: what that took, in frames."""
        drift = self._writer.drift.get(stream.serial)
        return {} if drift is None else {"drift": drift}

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        _give_way()
        while self._turn():
            pass
        with self._condition:
            given_up = self._last_report is not None
            left = _frames(self._jobs)
            ends = [job[1] for job, _ in self._jobs if job[0] == "ended"]
            self._jobs.clear()
            self._waiting = 0
            self._queue_dropped += left
            self._condition.notify_all()
        if given_up:  # too late for the figures, but not for the files
            self._contained(self._writer.close, time.monotonic() + _LATE_S)
            return
        if left:
            self._failed = self._failed or "the disk was too slow to take everything before the end"
        for stream, report in ends:
            self._contained(self._writer.end, stream, report, time.monotonic())
        unfinished = self._contained(self._writer.close, self._finish_until)
        problem = self._disk.problem
        if problem is not None and (unfinished or self._writer.refused_streams):
            self._failed = self._failed or problem
        elif unfinished:
            self._failed = self._failed or f"{unfinished} files were not completed before the end"

    def _turn(self) -> bool:
        """One job, and what is to be done beside it; False: it is over."""
        writer = self._writer
        with self._condition:
            if not self._jobs and not self._closing:
                patience_s = writer.patience_s
                if patience_s != 0.0:
                    self._condition.wait(patience_s)
            closing = self._closing
            if self._last_report is not None or (closing and not self._jobs):
                return False
            now = time.monotonic()
            if closing and now > self._write_until:
                return False
            job, size = self._jobs.popleft() if self._jobs else (None, 0)
        if job is not None:
            if job[0] == "blocks":
                self._contained(writer.write, job[1], now)
                self._disk.lost(writer.in_hand)  # 0, but for a bug of ours
                writer.in_hand = 0
            elif job[0] == "ended":
                self._contained(writer.end, *job[1], now)
            else:
                self._contained(writer.skip, job[1])
            with self._condition:
                self._waiting -= size
                if not self._jobs or size:
                    self._condition.notify_all()
        if writer.busy and not closing:
            self._contained(writer.work, time.monotonic() + _WORK_S)
        if not closing:
            self._contained(writer.look_after, now, job is None)
        return True

    def _contained(self, work: Any, *arguments: Any) -> Any:
        """A bug here must not cost the other streams, nor the thread."""
        try:
            return work(*arguments)
        except Exception as error:
            self._incidents.fault("wav", error)
            return None


def _frames(jobs: deque[tuple[_Job, int]]) -> int:
    return sum(int(job[1].frames.sum()) for job, _ in jobs if job[0] == "blocks")


def _give_way() -> None:
    """Let the receiving thread go first where both want the same core (Linux: niceness is per thread)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)


def _descriptor_budget() -> int:
    """How many files may be open: the process's limit, raised as far as it may be, less what others need."""
    try:
        import resource
    except ImportError:  # Windows
        return 400
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(16, soft - 256) if soft != resource.RLIM_INFINITY else 1 << 20
