"""What the thread that writes WAV files does: batches into files, each stream on its own. Used by one thread.

Whatever goes wrong with a stream's block costs this block. New files are made, and finished ones named, for those first
whose streams have lasted longest; between batches, so that files that are there go on.
"""

from __future__ import annotations

import errno
import heapq
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..._codecs.g711 import encode
from ..._threads.archive import Archive
from ..muting import MuteKeys
from .bound import SilenceBound
from .disk import DISK, NEW_FILES, DiskState
from .file import WavFormat
from .hold import Hold, Piece, Waiting, lasted_ns
from .lanes import FLUSH_S, WavLanes
from .track import Track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo
    from .drift import DriftCorrector
    from .legs import LegFiles
    from .tree import WavFile, WavTree

__all__ = ["WavWriter"]

_PASSING: Final = ("idle", "evicted")  # why a stream that was nobody's call may have ended
_LOOKED_AT: Final = 64  # files that are looked for at once, whether they are still there

I16 = npt.NDArray[np.int16]


@dataclass(slots=True)
class _Complete:
    """A file whose streams have ended."""

    file: WavFile
    serials: list[int]


class WavWriter:
    """``fault`` hears of exceptions that were contained, and of which stream. ``settled`` is told the serials of
    streams whose files are complete, or that have none."""

    def __init__(
        self,
        tree: WavTree,
        disk: DiskState,
        hold: Hold,
        *,
        native: bool,
        rate: int | None,
        legs: LegFiles | None,
        mute: MuteKeys | None,
        conceal: bool,
        fault: Callable[[Exception, StreamInfo | None], object],
        settled: Callable[[int], object],
    ) -> None:
        self._tree = tree
        self._disk = disk
        self._hold = hold
        self._native = native
        self._rate = rate
        self._legs = legs
        self._mute = mute
        self._conceal = conceal
        self._fault = fault
        self._settled = settled
        self._simple = legs is None and rate is None
        self._bound = SilenceBound()
        self._lanes = WavLanes.of(tree) if self._simple else None
        self._tracks: dict[int, Track] = {}  # by serial
        self._dirty: dict[int, WavFile] = {}  # by id()
        self._aside: dict[int, WavFile] = {}  # likewise: files that could not be written
        self._todo: list[tuple[int, int, Waiting | _Complete]] = []  # a heap: most audio first
        self._stuck: list[Waiting | _Complete] = []  # what is tried again, at the earliest at:
        self._retry_at = 0.0
        self._refused: set[int] = set()  # serials of streams that live and get no file
        self._number = 0
        self._looked_at = 0
        self._idle_at = 0.0
        self.names: Archive[list[str]] = Archive()
        self.drift: Archive[dict[str, Any]] = Archive()
        self.drift_sums: Counter[str] = Counter()
        self.refused_streams = 0
        self.short_streams = 0
        self.short_frames = 0
        self.in_hand = 0  # frames of the present batch that are neither written nor kept nor counted

    # --- blocks ---------------------------------------------------------------------------------------------------

    def write(self, batch: BlockBatch, now: float) -> None:
        """Write, or keep, or count every block."""
        self.in_hand = int(batch.frames.sum())
        ready: BlockBatch | None = batch
        if self._conceal:
            try:
                ready = batch.filled
            except Exception as error:  # then it is written as it was received
                self._fault(error, None)
        if self._mute is not None and ready is not None:
            ready = self._muted(self._mute, ready)
        if ready is not None:
            self._write(ready, now)
        self.in_hand = 0

    def end(self, stream: StreamInfo, report: StreamReport, now: float) -> None:
        """No more blocks of the stream come."""
        if self._mute is not None:
            self._write_rest(self._mute, stream, now)
        self._bound.forget(stream.index)
        waiting = self._hold.get(stream.serial)
        if waiting is None:
            self._end_track(stream, report)
            return
        waiting.report = report
        if self._hold.has_lasted(waiting) or report.end not in _PASSING:
            if not waiting.due:
                waiting.due = True
                self._add(waiting, waiting.audio_ns)
            return
        self._hold.take(waiting)
        self.short_streams += 1
        self.short_frames += waiting.frames
        self._leave(stream)

    def skip(self, batch: BlockBatch) -> None:
        """A batch was lost before it came here: its gaps count all the same."""
        self._bound.apply(batch)

    def _muted(self, mute: MuteKeys, batch: BlockBatch) -> BlockBatch | None:
        before = mute.aside.dropped_frames
        try:
            ready = mute.process(batch)
        except Exception as error:  # there are no samples to look for keys in
            self._fault(error, None)
            self._disk.lost(int(batch.frames.sum()))
            return None
        self._disk.lost(mute.aside.dropped_frames - before)
        return ready

    def _write_rest(self, mute: MuteKeys, stream: StreamInfo, now: float) -> None:
        before = mute.aside.dropped_frames
        rest = mute.end(stream)
        self._disk.lost(mute.aside.dropped_frames - before)
        if rest is not None:
            self._write(rest, now)

    def _write(self, batch: BlockBatch, now: float) -> None:
        batch = self._bound.apply(batch)
        paused = now < self._disk.paused_until
        chosen: Iterable[int] = range(len(batch))
        if self._lanes is not None and not paused:
            try:
                left = self._lanes.write(batch, self._native, now)
            except Exception as error:  # block by block it will show whose fault it is
                self._fault(error, None)
            else:
                if self._lanes.wrote:
                    self._disk.works(DISK)
                if left is not None:
                    if not left:
                        return
                    chosen = left
                    self.in_hand = int(batch.frames[left].sum())
        try:
            values = _Values(batch, self._native)
        except Exception as error:
            self._fault(error, None)
            self._disk.lost(int(batch.frames[list(chosen)].sum()))
            return
        for i in chosen:
            stream, frames = batch.streams[i], values.frames[i]
            try:
                self._write_block(batch, values, i, stream, now)
            except Exception as error:
                self._failed(error, stream, now)
                self._disk.lost(frames)
            self.in_hand -= frames

    def _write_block(self, batch: BlockBatch, values: _Values, i: int, stream: StreamInfo, now: float) -> None:
        track = self._tracks.get(stream.serial)
        if track is None:
            self._keep(values, i, stream)
            return
        file = track.file
        if now < self._disk.paused_until or now < file.aside_until:
            self._disk.lost(values.frames[i])
            return
        if self._lanes is not None:
            self._lanes.sync(stream.index, file)
        if self._simple:
            data = values.bytes_of(i, stream, file.format.encoding)
            self._tree.write(file, data, values.position[i] * file.format.frame_bytes)
        else:
            track.write(values.samples_of(i), values.position[i], values.time_ns[i], values.arrival_ns[i])
        self._works(file)
        if now - file.told_at >= FLUSH_S:
            self._tree.tell(file, now)
            self._dirty.pop(id(file), None)
        else:
            self._dirty[id(file)] = file
        if self._lanes is not None:
            self._lanes.adopt(stream.index, file)

    def _failed(self, error: Exception, stream: StreamInfo, now: float) -> None:
        if not isinstance(error, OSError):
            self._fault(error, stream)
            return
        track = self._tracks.get(stream.serial)
        if track is None:
            self._fault(error, stream)
            return
        if self._lanes is not None:
            self._lanes.release(stream.index, track.file)
        self._put_aside(track.file, error, now)

    def _put_aside(self, file: WavFile, error: OSError, now: float) -> None:
        file.aside_until = self._disk.failed(id(file), error, f"{self._tree.root}/{file.folder}/{file.part}", now)
        self._aside[id(file)] = file

    def _works(self, file: WavFile) -> None:
        if file.aside_until:
            file.aside_until = 0.0
            self._aside.pop(id(file), None)
            self._disk.works(id(file))
            self._disk.works(DISK)

    # --- streams without a file -----------------------------------------------------------------------------------

    def _keep(self, values: _Values, i: int, stream: StreamInfo) -> None:
        if stream.serial in self._refused:
            self._disk.lost(values.frames[i])
            return
        samples: I16 | bytes
        if self._simple:
            samples = bytes(values.bytes_of(i, stream, self._encoding_of(stream)))
        else:
            samples = values.samples_of(i).copy()
        if self._legs is not None:
            self._legs.meet(stream)
        piece = Piece(
            values.position[i], values.frames[i], values.time_ns[i], values.arrival_ns[i], values.last_ns(i), samples
        )
        try:
            due = self._hold.add(stream, piece)
        except MemoryError:
            self._disk.lost(piece.frames)
            return
        if due is not None:
            self._add(due, due.audio_ns)

    def _encoding_of(self, stream: StreamInfo) -> str:
        codec = stream.codec.name if stream.codec else "L16"
        return codec if self._native and codec in ("PCMU", "PCMA") else "pcm16"

    def _add(self, item: Waiting | _Complete, lasted: int) -> None:
        self._number += 1
        heapq.heappush(self._todo, (-lasted, self._number, item))

    @property
    def busy(self) -> bool:
        """Files are to be made or named, and can be tried now."""
        return bool(self._todo) or (bool(self._stuck) and time.monotonic() >= self._retry_at)

    def work(self, until: float, *, closing: bool = False) -> None:
        """Make and complete files until that (monotonic seconds)."""
        now = time.monotonic()
        if self._stuck and (closing or now >= self._retry_at):
            for item in self._stuck:
                self._add(item, item.audio_ns if isinstance(item, Waiting) else 0)
            self._stuck.clear()
        while self._todo and now < until:
            _, _, item = heapq.heappop(self._todo)
            if isinstance(item, _Complete):
                self._complete(item, now)
            elif closing or (self._disk.is_due(NEW_FILES, now) and self._disk.is_due(DISK, now)):
                self._make(item, now)
            else:
                self._stuck.append(item)
            now = time.monotonic()

    def _make(self, waiting: Waiting, now: float) -> None:
        """Give a stream its file, with all that waited."""
        stream = waiting.stream
        try:
            track = self._begin(waiting)
        except OSError as error:
            self._retry_at = self._disk.failed(NEW_FILES, error, f"{self._tree.root}/{stream.name}", now)
            self._stuck.append(waiting)
            return
        except Exception as error:
            self._fault(error, stream)
            self._give_up(waiting)
            return
        self._disk.works(NEW_FILES)
        self._disk.works(DISK)
        self._hold.take(waiting)
        self._tracks[stream.serial] = track
        track.file.told_at = now
        if not self._simple:
            self._write_pieces(track, waiting, now)
            self._dirty[id(track.file)] = track.file
            self._tell(track.file, now)  # what waited is on disk as late as can be already
        elif self._lanes is not None and waiting.report is None:
            self._lanes.adopt(stream.index, track.file)
        if waiting.report is not None:
            self._end_track(stream, waiting.report)

    def _begin(self, waiting: Waiting) -> Track:
        stream = waiting.stream
        if self._legs is not None:
            return self._legs.begin(stream, waiting.pieces[0].arrival_ns)
        format_ = WavFormat(self._encoding_of(stream), self._rate or stream.sample_rate, stream.channels)
        file = self._tree.create(stream.name, stream.stem, format_)
        if self._simple:
            size = format_.frame_bytes
            try:
                self._tree.begin(file, [(p.position * size, p.samples) for p in waiting.pieces])  # type: ignore[misc]
            except OSError:
                self._tree.discard(file)
                raise
        return Track(self._tree, file, stream)

    def _write_pieces(self, track: Track, waiting: Waiting, now: float) -> None:
        for piece in waiting.pieces:
            if now < track.file.aside_until or isinstance(piece.samples, bytes):
                self._disk.lost(piece.frames)
                continue
            try:
                track.write(piece.samples, piece.position, piece.time_ns, piece.arrival_ns)
            except Exception as error:
                self._failed(error, track.stream, now)
                self._disk.lost(piece.frames)

    def _give_up(self, waiting: Waiting) -> None:
        """The stream gets no file."""
        self._hold.take(waiting)
        self._disk.lost(waiting.frames)
        self.refused_streams += 1
        self._refused.add(waiting.stream.serial)
        self._leave(waiting.stream)

    def _leave(self, stream: StreamInfo) -> None:
        """A stream that never had a file has ended."""
        last = self._legs.end(stream) if self._legs is not None else None
        self._note([stream.serial], [])
        if last is not None:
            self._add(_Complete(*last), 0)

    # --- ends -----------------------------------------------------------------------------------------------------

    def _end_track(self, stream: StreamInfo, report: StreamReport) -> None:
        self._refused.discard(stream.serial)
        track = self._tracks.pop(stream.serial, None)
        if track is None:
            self._leave(stream)
            return
        if self._lanes is not None:
            self._lanes.release(stream.index, track.file)
        try:
            track.finish()
        except OSError as error:
            self._put_aside(track.file, error, time.monotonic())
        except Exception as error:
            self._fault(error, stream)
        if track.drift is not None:
            self._note_drift(track.drift, report)
        last = (track.file, [stream.serial]) if self._legs is None else self._legs.end(stream)
        if last is not None:
            self._add(_Complete(*last), lasted_ns(report))

    def _note_drift(self, drift: DriftCorrector, report: StreamReport) -> None:
        counts = {"inserted": drift.inserted, "dropped": drift.dropped, "resampled": drift.resampled}
        self.drift_sums.update(counts)
        skew = None if report.skew_ppm is None else round(report.skew_ppm, 3)
        self.drift.add(report.stream.serial, {"skew_ppm": skew, **counts})

    def _complete(self, done: _Complete, now: float) -> None:
        file = done.file
        names: list[str] = []
        try:
            names = [self._tree.finish(file)]
        except FileNotFoundError as error:  # somebody has deleted it
            self._put_aside(file, error, now)
            self._tree.abandon(file)
        except OSError as error:
            self._put_aside(file, error, now)
            self._retry_at = file.aside_until
            self._stuck.append(done)
            return
        except Exception as error:
            self._fault(error, None)
            names = [name for name in [self._tree.abandon(file)] if name]
        self._aside.pop(id(file), None)
        self._disk.works(id(file))
        self._dirty.pop(id(file), None)
        self._note(done.serials, names)

    def _note(self, serials: list[int], names: list[str]) -> None:
        for serial in serials:
            if names:
                self.names.add(serial, names)
            self._settled(serial)

    # --- in between -----------------------------------------------------------------------------------------------

    @property
    def patience_s(self) -> float | None:
        """How long to wait for something to do; None: for ever."""
        if self._todo:
            return 0.0
        lagging = self._dirty or (self._lanes is not None and self._lanes.lagging)
        if lagging or self._disk.problem or self._stuck:
            return FLUSH_S / 2
        return FLUSH_S if self._tracks else None

    def look_after(self, now: float, idle: bool) -> None:
        """Bring headers up to date, and see whether what did not work does again. ``idle``: nothing else is to do."""
        if not idle and now - self._idle_at < FLUSH_S:
            return
        self._idle_at = now
        self._dirty = {key: file for key, file in self._dirty.items() if not self._tell(file, now)}
        if self._lanes is not None and idle:
            try:
                self._lanes.tell_all(now)
            except OSError as error:
                self._disk.failed(DISK, error, str(self._tree.root), now)
        self._find_gone(now)
        if self._disk.problem is not None:
            self._try_again(now)
            self._disk.look(now)

    def _tell(self, file: WavFile, now: float, *, anew: bool = False) -> bool:
        """Bring a header up to date; False: not now."""
        if now < max(file.aside_until, self._disk.paused_until):
            return False
        try:
            self._tree.tell(file, now, anew=anew)
        except OSError as error:
            self._put_aside(file, error, now)
            return False
        self._works(file)
        return True

    def _try_again(self, now: float) -> None:
        for file in list(self._aside.values()):
            self._tell(file, now, anew=True)
        for what in (DISK, NEW_FILES):
            if self._disk.has(what) and self._disk.is_due(what, now) and not self._stuck:
                try:
                    self._tree.folders.probe()
                except OSError as error:
                    self._disk.failed(what, error, str(self._tree.root), now)
                else:
                    self._disk.works(what)

    def _find_gone(self, now: float) -> None:
        """Look at some of the files, whether somebody has deleted them; make them again."""
        serials = list(self._tracks)[self._looked_at : self._looked_at + _LOOKED_AT]
        self._looked_at = self._looked_at + _LOOKED_AT if len(serials) == _LOOKED_AT else 0
        for track in [self._tracks[serial] for serial in serials]:
            file, stream = track.file, track.stream
            if self._lanes is not None:
                self._lanes.sync(stream.index, file)
            try:
                if file.aside_until or not self._tree.is_gone(file):
                    continue
                if self._lanes is not None:
                    self._lanes.release(stream.index, file)
                lost = (file.end - file.checked) // file.format.frame_bytes
                gone = FileNotFoundError(errno.ENOENT, "somebody has deleted a file that was being written")
                self._put_aside(file, gone, now)
                self._disk.lost(lost)
                self._tree.make_again(file)
                self._works(file)
            except OSError as error:
                self._put_aside(file, error, now)

    def close(self, until: float) -> int:
        """Nothing more comes: do until then (monotonic seconds) what can be done, count the rest, let everything go.
        Returns how many files are not complete."""
        if self._mute is not None:
            for stream in self._mute.streams:
                self._write_rest(self._mute, stream, time.monotonic())
        for waiting in self._hold.everyone():  # it is not their doing that they end
            if not waiting.due:
                waiting.due = True
                self._add(waiting, waiting.audio_ns)
        tried = -1
        while tried != len(self._stuck):  # what is complete has left room for others, perhaps
            tried = len(self._stuck)
            self.work(until, closing=True)
        left = [item for _, _, item in sorted(self._todo, key=lambda entry: entry[:2])] + self._stuck
        self._todo.clear()
        for waiting in self._hold.everyone():
            self._give_up(waiting)
        if self._lanes is not None:
            for track in self._tracks.values():
                self._lanes.release(track.stream.index, track.file)
            self._lanes.close()
        unfinished = [item for item in left if isinstance(item, _Complete)]
        unfinished += [_Complete(file, [t.stream.serial]) for t in self._tracks.values() for file in [t.file]]
        abandoned: dict[int, list[str]] = {}
        for item in unfinished:
            if id(item.file) not in abandoned:
                name = self._tree.abandon(item.file)
                abandoned[id(item.file)] = [name] if name else []
            self._note(item.serials, abandoned[id(item.file)])
        self._tracks.clear()
        self._tree.close()
        return len(abandoned)


class _Values:
    """A batch's columns as Python reads them fastest, one by one."""

    def __init__(self, batch: BlockBatch, native: bool) -> None:
        self._batch = batch
        self._native = native
        self.position: list[int] = batch.position.tolist()
        self.frames: list[int] = batch.frames.tolist()
        self.time_ns: list[int] = batch.time_ns.tolist()
        self.arrival_ns: list[int] = batch.arrival_ns.tolist()
        self._offset: list[int] = batch.offset.tolist()
        if native:
            self._payload = batch.payload.data
            self._payload_offset: list[int] = batch.payload_offset.tolist()
        else:
            _ = batch.samples  # decode now: should that fail, it fails for all

    def samples_of(self, i: int) -> I16:
        samples: I16 = self._batch.samples[self._offset[i] : self._offset[i + 1]]
        return samples

    def last_ns(self, i: int) -> int:
        """When the block's last packet came."""
        return int(self._batch.packet_arrival_ns[self._batch.packet_first[i + 1] - 1])

    def bytes_of(self, i: int, stream: StreamInfo, encoding: str) -> memoryview:
        """A block as a split file of that encoding holds it."""
        if self._native and encoding != "pcm16":
            transcoded = self._batch.transcoded
            if transcoded is None or not transcoded[i]:
                return self._payload[self._payload_offset[i] : self._payload_offset[i + 1]]
            if stream.codec is not None:
                return encode(stream.codec, self.samples_of(i)).data
        return self.samples_of(i).view(np.uint8).data


def _by_stream(batch: BlockBatch) -> list[tuple[StreamInfo, list[int]]]:
    found: dict[int, tuple[StreamInfo, list[int]]] = {}
    for i, stream in enumerate(batch.streams):
        found.setdefault(stream.serial, (stream, []))[1].append(i)
    return list(found.values())
