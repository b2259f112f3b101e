"""Batches into files, each stream on its own. Used by the thread that writes.

Whatever goes wrong with a stream's block costs this block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .columns import BlockColumns, encoding_of
from .disk import DISK, DiskState
from .file import HEADER_INTERVAL_S
from .lanes import WavLanes
from .lifecycle import FileLifecycle
from .pending import PendingBlock, PendingStreams
from .silence_bound import SilenceBound, SkippedGaps
from .upkeep import FileUpkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo
    from .shared import LegFiles
    from .track import WavTrack
    from .treatment import Treatment
    from .tree import WavTree

__all__ = ["WavWriter"]


class WavWriter:
    """``native``: G.711 bytes are written as they came. ``rate``: of all files, None: each stream's own. ``legs``: of
    files that streams share; None: each has its own. ``fault`` hears of exceptions that were contained, and of which
    stream. ``settled`` is told the serials of streams whose files are complete, or that have none.

    ``files``    makes and completes them
    ``in_hand``  frames of the present batch that are neither written nor kept nor counted as lost
    """

    def __init__(
        self,
        tree: WavTree,
        disk: DiskState,
        pending: PendingStreams,
        treatment: Treatment,
        *,
        native: bool,
        rate: int | None,
        legs: LegFiles | None,
        fault: Callable[[Exception, StreamInfo | None], object],
        settled: Callable[[int], object],
    ) -> None:
        self._tree = tree
        self._disk = disk
        self._treatment = treatment
        self._native = native
        self._fault = fault
        self._plain = legs is None and rate is None  # files hold blocks as they are
        self._bound = SilenceBound()
        self._lanes = WavLanes.of(lambda: tree.evicted) if self._plain else None
        self._tracks: dict[int, WavTrack] = {}  # by serial
        self._upkeep = FileUpkeep(tree, disk, self._lanes, self._tracks)
        self.files = FileLifecycle(
            tree, disk, pending, self._upkeep, self._tracks,
            native=native, rate=rate, legs=legs, lanes=self._lanes, fault=fault, settled=settled,
        )  # fmt: skip
        self.in_hand = 0

    # --- blocks ---------------------------------------------------------------------------------------------------

    def write(self, batch: BlockBatch, now: float) -> None:
        """Write, or keep, or count every block."""
        self.in_hand = int(batch.frames.sum())
        ready = self._treatment.process(batch)
        if ready is not None:
            self._write(ready, now)
        self.in_hand = 0

    def end(self, stream: StreamInfo, report: StreamReport, now: float) -> None:
        """No more blocks of the stream come."""
        self._write_rest(stream, now)
        self._bound.forget(stream.index)
        self.files.end(stream, report)

    def skip(self, gaps: SkippedGaps) -> None:
        """Batches were lost before they came here: their gaps count all the same."""
        self._bound.skip(gaps.take())

    def _write_rest(self, stream: StreamInfo, now: float) -> None:
        rest = self._treatment.end(stream)
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
            columns = BlockColumns(batch, self._native)
        except Exception as error:
            self._fault(error, None)
            self._disk.lost(int(batch.frames[list(chosen)].sum()))
            return
        for i in chosen:
            stream, frames = batch.streams[i], columns.frames[i]
            try:
                self._write_block(columns, i, stream, now)
            except Exception as error:
                self._failed(error, stream, now)
                self._disk.lost(frames)
            self.in_hand -= frames

    def _write_block(self, columns: BlockColumns, i: int, stream: StreamInfo, now: float) -> None:
        track = self._tracks.get(stream.serial)
        if track is None:
            self._keep(columns, i, stream)
            return
        file = track.file
        if now < self._disk.paused_until or now < file.retry_at:
            self._disk.lost(columns.frames[i])
            return
        if self._lanes is not None:
            self._lanes.release(stream.index, file)
        if self._plain:
            data = columns.bytes_of(i, stream, file.format.encoding)
            self._tree.write(file, data, columns.position[i] * file.format.frame_bytes)
        else:
            track.write(columns.samples_of(i), columns.position[i], columns.time_ns[i], columns.arrival_ns[i])
        self._upkeep.wrote(file, now)
        if self._lanes is not None:
            self._lanes.adopt(stream.index, file)

    def _keep(self, columns: BlockColumns, i: int, stream: StreamInfo) -> None:
        """A block of a stream that has no file yet."""
        if self.files.refuses(stream):
            self._disk.lost(columns.frames[i])
            return
        frames, last_ns = columns.frames[i], columns.last_ns(i)
        if self._plain:
            encoding = encoding_of(stream, self._native)
            frame_bytes = stream.channels * (2 if encoding == "pcm16" else 1)
            data = columns.bytes_of(i, stream, encoding)
            self.files.keep_bytes(stream, data, columns.position[i] * frame_bytes, frames, last_ns)
            return
        block = PendingBlock(
            position=columns.position[i],
            frames=frames,
            time_ns=columns.time_ns[i],
            arrival_ns=columns.arrival_ns[i],
            last_ns=last_ns,
            samples=columns.samples_of(i).copy(),
        )
        self.files.keep(stream, block)

    def _failed(self, error: Exception, stream: StreamInfo, now: float) -> None:
        track = self._tracks.get(stream.serial)
        if not isinstance(error, OSError) or track is None:
            self._fault(error, stream)
            return
        if self._lanes is not None:
            self._lanes.release(stream.index, track.file)
        self._upkeep.failed(track.file, error, now)

    @property
    def waiting_frames(self) -> int:
        """Frames that were taken and wait for a block of the file system to be full."""
        return self._lanes.waiting_frames if self._lanes is not None else 0

    # --- in between -----------------------------------------------------------------------------------------------

    @property
    def patience_s(self) -> float | None:
        """How long to wait for something to do; None: for ever."""
        if self.files.waiting:
            return 0.0
        if self._upkeep.lags or self._disk.problem or self.files.stuck:
            return HEADER_INTERVAL_S / 2
        return HEADER_INTERVAL_S if self._tracks else None

    @property
    def busy(self) -> bool:
        """Whether there are files to be made or completed, and can be now: :meth:`work` does it."""
        return self.files.busy

    @property
    def share_without_file(self) -> float:
        """Of the calls that are to have a file now, 0 to 1."""
        waiting = self.files.waiting_calls
        return waiting / max(1, waiting + len(self._tracks))

    def work(self, until: float) -> None:
        """Make and complete files until that (monotonic seconds)."""
        self.files.work(until)

    def hurry(self) -> bool:
        """Let all streams have their file now, although they have not lasted; False: that changes nothing."""
        return self.files.hurry()

    @property
    def refused_streams(self) -> int:
        """Streams that could not be given a file."""
        return self.files.refused_streams

    def look_after(self, now: float, *, idle: bool) -> None:
        """Bring headers up to date, and see whether what did not work does again. ``idle``: nothing else is to do."""
        self._upkeep.look_after(now, idle=idle, stuck=self.files.stuck)

    def close(self, now: float, until: float) -> int:
        """Nothing more comes: do until then (monotonic seconds) what can be done, count the rest, let everything go.
        Returns how many files are not complete."""
        for stream in self._treatment.streams:
            self._write_rest(stream, now)
        return self.files.close(until)
