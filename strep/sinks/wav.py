"""WAV files: one per stream, or one stereo file per call leg. Written by a thread, never by the event loop."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time
from collections import Counter, deque
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from .._codecs import encode
from .._exceptions import ConfigurationError
from ..resample import prepare
from ._base import BaseSink
from ._mute import MuteKeys
from ._wavfile import WavFormat
from ._wavlanes import WavLanes
from ._wavlegs import LegFiles, Sessions, parse_sessions
from ._wavtrack import Track
from ._wavtree import WavFile, WavTree

if TYPE_CHECKING:
    from .._blocks import BlockBatch
    from .._drift import DriftCorrector
    from .._report import StreamReport
    from .._types import StreamInfo

__all__ = ["WavSink"]

_FLUSH_S: Final = 0.5  # how far a file's header may lag behind its samples
_PAUSE_S: Final = 1.0  # how long nothing is tried after the disk was full
_KEPT_NAMES: Final = 100_000  # streams whose files are still known after they ended, as their reports are

I16 = npt.NDArray[np.int16]
_Job = tuple[Literal["blocks", "ended"], Any]


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

    Unfinished files are named ``….part.wav``; they are valid at any moment, and a killed process leaves at most the
    last second out of them. Nothing is ever overwritten: a further file of the same name gets a number. Disk errors
    never reach the receiver: :meth:`report` tells them. Raises ConfigurationError for combinations that make no sense.
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
        session_of = None if sessions is None else parse_sessions(sessions)
        if rate is not None or layout != "split":
            prepare()
        self._native = encoding == "native"
        self._rate = rate
        self._mute = MuteKeys() if mute_keys else None
        if conceal:
            self.concealment = "later"  # in the thread that writes
        self._tree = WavTree(Path(directory), max_open_files or _descriptor_budget())
        self._jobs: deque[tuple[_Job, int]] = deque()
        self._queue_bytes = queue_bytes
        self._waiting = 0
        self._condition = threading.Condition()
        self._closing = False
        self._give_up_at = float("inf")
        self._legs: LegFiles | None = None
        if layout != "split":
            self._legs = LegFiles(self._tree, rate, corrected=drift_correction, sessions=session_of)
        self._tracks: dict[int, Track] = {}  # by serial
        self._refused: set[int] = set()
        self._done: dict[int, list[str]] = {}
        self._drift: dict[int, dict[str, Any]] = {}
        self._drift_sums: Counter[str] = Counter()
        self._lanes = WavLanes.of(self._tree)
        self._paused_until = 0.0
        self._failed: str | None = None
        self._errors: Counter[str] = Counter()
        self.dropped_frames = 0
        self.refused_streams = 0
        self._dirty: dict[int, WavFile] = {}
        self._thread = threading.Thread(target=self._run, name="strep-wav", daemon=True)
        self._thread.start()

    @property
    def directory(self) -> Path:
        return self._tree.root

    # --- called by the receiver -----------------------------------------------------------------------------------

    def blocks(self, batch: BlockBatch) -> None:
        # encoded bytes and columns, as it is decoded when its turn comes; samples of packed codecs are more
        size = 2 * max(batch.payload.nbytes, int(batch.offset[-1]))
        with self._condition:
            if self._waiting + size > self._queue_bytes and self._jobs:
                self.dropped_frames += int(batch.frames.sum())
                return
            self._jobs.append((("blocks", batch), size))
            self._waiting += size
            self._condition.notify_all()

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        with self._condition:
            self._jobs.append((("ended", (stream, report)), 0))
            self._condition.notify_all()

    def wait_for_room(self) -> None:
        """Block until the queue is at most half full (replays, which may wait)."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting <= self._queue_bytes // 2 or not self._thread.is_alive())

    def close(self, timeout_s: float) -> None:
        with self._condition:
            self._closing = True
            # leave time to complete what is open
            self._give_up_at = time.monotonic() + 0.8 * timeout_s
            self._condition.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._failed = self._failed or f"the disk did not take everything within {timeout_s:g} s"

    def report(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "failed": self._failed,
            "dropped_frames": self.dropped_frames,
            "refused_streams": self.refused_streams,
            "files": self._tree.files,
            "errors": dict(self._errors),
            **({"drift": dict(self._drift_sums)} if self._drift_sums else {}),
        }

    def files(self, stream: StreamInfo) -> list[str]:
        return self._done.get(stream.serial, [])

    def settled(self, stream: StreamInfo) -> bool:
        """Whether the files of a stream that has ended are complete: also those that it shares with others."""
        return stream.serial in self._done or not self._thread.is_alive()

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        """Of streams that are kept on the receiver's clock: what that took, in frames."""
        drift = self._drift.get(stream.serial)
        return {} if drift is None else {"drift": drift}

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        _give_way()
        while True:
            with self._condition:
                if not self._jobs and not self._closing:
                    lagging = self._dirty or (self._lanes is not None and self._lanes.lagging)
                    self._condition.wait(_FLUSH_S / 2 if lagging else None)
                job, size = self._jobs.popleft() if self._jobs else (None, 0)
            now = time.monotonic()
            if job is None:
                if self._closing and self._mute is not None:
                    for stream in self._mute.streams:
                        self._take_rest(stream, now)
                self._tell_all(now)
                if self._closing:
                    break
                continue
            if now > self._give_up_at:
                self._give_up(job, size)
                break
            try:
                if job[0] == "blocks":
                    self._take(job[1], now)
                else:
                    self._take_rest(job[1][0], now)
                    self._end(*job[1])
            except Exception as error:  # a bug here must not cost the other sinks or the process
                self._fail(error, 0)
            with self._condition:
                self._waiting -= size
                if not self._jobs or size:
                    self._condition.notify_all()
        self._finish_all()

    def _give_up(self, job: _Job | None, size: int) -> None:
        with self._condition:
            left = [job, *(j for j, _ in self._jobs)]
            self._jobs.clear()
            self._waiting = 0
            self._condition.notify_all()
        self.dropped_frames += sum(int(j[1].frames.sum()) for j in left if j is not None and j[0] == "blocks")
        self._failed = self._failed or "the disk was too slow to take everything before the end"

    def _fail(self, error: Exception, frames: int) -> None:
        self.dropped_frames += frames
        name = errno.errorcode.get(error.errno or 0, "?") if isinstance(error, OSError) else type(error).__name__
        self._errors[name] += 1
        self._failed = self._failed or f"{name}: {error}"
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            self._paused_until = time.monotonic() + _PAUSE_S

    def _take(self, batch: BlockBatch, now: float) -> None:
        if self._mute is None:
            self._write_batch(batch, now)
            return
        # first what is made up for lost packets, which may be of a digit
        muted = self._mute.process(batch.filled if self.concealment else batch)
        if muted is not None:
            self._write_batch(muted, now)

    def _take_rest(self, stream: StreamInfo, now: float) -> None:
        rest = self._mute.end(stream) if self._mute is not None else None
        if rest is not None:
            self._write_batch(rest, now)

    def _write_batch(self, batch: BlockBatch, now: float) -> None:
        if now < self._paused_until:
            self.dropped_frames += int(batch.frames.sum())
            return
        if self.concealment:
            batch = batch.filled
        simple = self._legs is None and self._rate is None
        chosen = self._lanes.write(batch, self._native, now) if simple and self._lanes is not None else None
        if chosen is not None and not chosen:
            return
        values: memoryview | I16
        if self._native:
            values, offset = batch.payload.data, batch.payload_offset.tolist()
        else:
            values, offset = batch.samples.view(np.uint8).data, (2 * batch.offset).tolist()
        position, time_ns = batch.position.tolist(), batch.time_ns.tolist()
        tracks, tree, dirty = self._tracks, self._tree, self._dirty
        for i in range(len(batch)) if chosen is None else chosen:
            stream = batch.streams[i]
            try:
                track = tracks.get(stream.serial)
                if track is None:
                    track = self._begin(stream)
                    if track is None:
                        self.dropped_frames += int(batch.frames[i])
                        continue
                file = track.file
                if self._lanes is not None:
                    self._lanes.sync(stream.index, file)
                if simple:
                    data = values[offset[i] : offset[i + 1]]
                    if self._native and (file.format.encoding == "pcm16" or _is_transcoded(batch, i)):
                        data = _encoded(stream, file.format, batch.samples[batch.offset[i] : batch.offset[i + 1]])
                    tree.write(file, data, position[i] * file.format.frame_bytes)
                else:
                    samples = batch.samples[offset[i] // 2 : offset[i + 1] // 2]
                    track.write(samples, position[i], time_ns[i])
                if now - file.told_at >= _FLUSH_S:
                    tree.tell(file, now)
                    dirty.pop(id(file), None)
                else:
                    dirty[id(file)] = file
                if self._lanes is not None and simple:
                    self._lanes.adopt(stream.index, file)
            except OSError as error:
                self._fail(error, int(batch.frames[i:].sum()) if self._paused_until > now else int(batch.frames[i]))
                if self._paused_until > now:
                    return

    def _begin(self, stream: StreamInfo) -> Track | None:
        """A stream's first block: its file. None when there is no descriptor for it."""
        if stream.serial in self._refused:
            return None
        try:
            track = self._begin_split(stream) if self._legs is None else self._legs.begin(stream)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._refused.add(stream.serial)
            self.refused_streams += 1
            self._errors[errno.errorcode[error.errno]] += 1
            return None
        self._tracks[stream.serial] = track
        return track

    def _begin_split(self, stream: StreamInfo) -> Track:
        codec = stream.codec.name if stream.codec else "L16"
        encoding = codec if self._native and codec in ("PCMU", "PCMA") else "pcm16"
        format_ = WavFormat(encoding, self._rate or stream.sample_rate, stream.channels)
        file = self._tree.create(stream.name, stream.stem, format_)
        return Track(self._tree, file, stream)

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        self._refused.discard(stream.serial)
        track = self._tracks.pop(stream.serial, None)
        if track is None:
            self._note_files([stream.serial], [])
            return
        if self._lanes is not None:
            self._lanes.release(stream.index, track.file)
        with self._disk_errors():
            track.finish()
        if track.drift is not None:
            self._note_drift(track.drift, report)
        serials = [stream.serial] if self._legs is None else self._legs.end(stream)
        if serials is not None:
            self._complete(track.file, serials)

    def _note_drift(self, drift: DriftCorrector, report: StreamReport) -> None:
        counts = {"inserted": drift.inserted, "dropped": drift.dropped, "resampled": drift.resampled}
        self._drift_sums.update(counts)
        skew = None if report.skew_ppm is None else round(report.skew_ppm, 3)
        self._drift[report.stream.serial] = {"skew_ppm": skew, **counts}
        while len(self._drift) > _KEPT_NAMES:
            del self._drift[next(iter(self._drift))]

    def _complete(self, file: WavFile, serials: list[int]) -> None:
        self._dirty.pop(id(file), None)
        try:
            name = self._tree.finish(file)
        except OSError as error:
            self._fail(error, 0)
            name = self._tree.abandon(file)
        self._note_files(serials, [name])

    def _note_files(self, serials: list[int], names: list[str]) -> None:
        for serial in serials:
            self._done.setdefault(serial, []).extend(names)
        while len(self._done) > _KEPT_NAMES:
            del self._done[next(iter(self._done))]

    def _tell_all(self, now: float) -> None:
        for file in list(self._dirty.values()):
            with self._disk_errors():
                self._tree.tell(file, now)
        self._dirty.clear()
        if self._lanes is not None:
            with self._disk_errors():
                self._lanes.tell_all(now)

    def _finish_all(self) -> None:
        """Files whose streams never ended (the receiver was not stopped in order) keep their partial names."""
        if self._lanes is not None:
            self._lanes.close()
        for serial, track in self._tracks.items():
            self._done.setdefault(serial, []).append(self._tree.abandon(track.file))
        self._tracks.clear()

    @contextlib.contextmanager
    def _disk_errors(self) -> Any:
        try:
            yield
        except OSError as error:
            self._fail(error, 0)


def _is_transcoded(batch: BlockBatch, block: int) -> bool:
    return batch.transcoded is not None and bool(batch.transcoded[block])


def _encoded(stream: StreamInfo, format_: WavFormat, samples: I16) -> memoryview:
    """Samples as a native file holds them: where the payload is another codec's."""
    if format_.encoding == "pcm16" or stream.codec is None:
        return samples.view(np.uint8).data
    return encode(stream.codec, samples).data


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
