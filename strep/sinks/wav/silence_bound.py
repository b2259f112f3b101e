"""How much silence a stream may bring: no sender's timestamps make a file longer than its stream was there.

Audio costs its sender bytes; silence costs only a timestamp. So a stream's silence is never more than the time for
which it has been there, by the arrival of its packets, or than its audio if that is more (whoever sends faster than
real time loses packets too), and 2 s:

    silence <= max(arrival of this packet - arrival of the first, audio so far) + 2 s

What goes beyond is cut out of the gap that goes beyond it, and all that follows stands earlier by as much. A stream
with true timestamps is never touched: its silence is less than the time that it took.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from ..._model.types import Mask
from .batches import with_columns, without_beginnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._model.blocks import BlockBatch
    from ..._model.types import StreamInfo

__all__ = ["SLACK_S", "SilenceBound", "SkippedGaps"]

SLACK_S: Final = 2  # seconds of silence that every stream may bring

I64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class _SkippedGap:
    """All gaps of one stream in batches that were lost."""

    stream: StreamInfo
    frames: int  # of all of them
    position: int  # behind the last one
    arrival_ns: int  # of the packet behind the last one


class SkippedGaps:
    """Gaps of batches that were lost on their way to a file: they count as the silence that they are.

    Holds a row for each stream, however many batches :meth:`add` is given: a disk that hangs for an hour under lossy
    traffic costs no more memory. Gaps of one stream are then judged as one, by the arrival of the packet behind the
    last. From any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_serial: dict[int, _SkippedGap] = {}
        self._taken = False

    def __len__(self) -> int:
        return len(self._by_serial)

    def add(self, batch: BlockBatch) -> bool:
        """Enter a batch's gaps. False: :meth:`take` was called before, and these are not entered."""
        with self._lock:
            if self._taken:
                return False
            for i in batch.gap_frames.nonzero()[0].tolist():
                stream, frames = batch.streams[i], int(batch.gap_frames[i])
                position, arrival_ns = int(batch.position[i]), int(batch.arrival_ns[i])
                gap = self._by_serial.get(stream.serial)
                if gap is None:
                    self._by_serial[stream.serial] = _SkippedGap(stream, frames, position, arrival_ns)
                else:
                    gap.frames += frames
                    gap.position, gap.arrival_ns = position, arrival_ns
            return True

    def take(self) -> list[_SkippedGap]:
        """All that was entered; a row for each stream."""
        with self._lock:
            self._taken = True
            return list(self._by_serial.values())


@dataclass(slots=True)
class _Gaps:
    """Silence before blocks, or in them. int64 (k,) each: row of the stream, frames of silence, position of the block,
    arrival of its first packet."""

    streams: Sequence[StreamInfo]
    row: I64
    frames: I64
    position: I64
    arrival_ns: I64

    def take(self, some: slice) -> _Gaps:
        return _Gaps(self.streams[some], self.row[some], self.frames[some], self.position[some], self.arrival_ns[some])


class SilenceBound:
    """Keeps account by stream row; call :meth:`forget` when a stream has ended. ``cut_frames``: left out so far."""

    def __init__(self) -> None:
        self._silence = np.zeros(256, np.int64)  # in the file so far, in frames
        self._cut = np.zeros(256, np.int64)  # left out so far
        self._first_ns = np.full(256, -1, np.int64)  # -1: no gap so far
        self._rate = np.ones(256, np.int64)
        self._touched: set[int] = set()  # rows of which something was left out
        self.cut_frames = 0

    def forget(self, row: int) -> None:
        if row < len(self._cut):
            self._silence[row] = self._cut[row] = 0
            self._first_ns[row] = -1
            self._touched.discard(row)

    def apply(self, batch: BlockBatch) -> BlockBatch:
        """The batch itself, as a rule; or one whose blocks stand where they may."""
        silence = batch.gap_frames if batch.plain else batch.gap_frames + _made_up(batch)
        some = silence.nonzero()[0]
        if not some.size and not self._touched:
            return batch
        over: dict[int, int] = {}
        if some.size:
            streams = [batch.streams[i] for i in some.tolist()]
            gaps = _Gaps(streams, batch.index[some], silence[some], batch.position[some], batch.arrival_ns[some])
            over = {int(some[n]): excess for n, excess in self._enter(gaps).items()}
        if not over and (not self._touched or self._touched.isdisjoint(batch.index.tolist())):
            return batch
        return self._moved(batch, over)

    def skip(self, skipped: Sequence[_SkippedGap]) -> None:
        """Enter gaps of batches that are not written."""
        if skipped:
            columns = [(gap.stream.index, gap.frames, gap.position, gap.arrival_ns) for gap in skipped]
            row, frames, position, arrival_ns = np.array(columns, np.int64).T
            self._enter(_Gaps([gap.stream for gap in skipped], row, frames, position, arrival_ns))

    def _enter(self, gaps: _Gaps) -> dict[int, int]:
        """Enter silence; returns how much of which is too much, by its number."""
        rows, frames = gaps.row, gaps.frames
        self._meet(gaps)
        if bool((rows[1:] != rows[:-1]).all()):
            limit, before = self._limit(gaps), self._silence.take(rows)
            if (before + frames <= limit).all():
                self._silence[rows] = before + frames
                return {}
        over = {}
        for n, (row, own) in enumerate(zip(rows.tolist(), frames.tolist(), strict=True)):
            limit = self._limit(gaps.take(slice(n, n + 1)))
            excess = min(own, max(0, int(self._silence[row]) + own - int(limit[0])))
            self._silence[row] += own - excess
            if excess:
                self._cut[row] += excess
                self._touched.add(row)
                self.cut_frames += excess
                over[n] = excess
        return over

    def _limit(self, gaps: _Gaps) -> I64:
        """Frames of silence that there may be up to the end of each."""
        rows = gaps.row
        rate = self._rate.take(rows)
        there = (gaps.arrival_ns - self._first_ns.take(rows)) // 1000 * rate // 1_000_000
        audio = gaps.position - gaps.frames - self._silence.take(rows) - self._cut.take(rows)
        limit: I64 = np.maximum(there, audio) + SLACK_S * rate
        return limit

    def _meet(self, gaps: _Gaps) -> None:
        """See that there are rows for all, and that new ones know their stream."""
        rows = gaps.row
        last = int(rows.max())
        if last >= len(self._cut):
            more = max(len(self._cut), last + 1 - len(self._cut))
            self._silence = np.append(self._silence, np.zeros(more, np.int64))
            self._cut = np.append(self._cut, np.zeros(more, np.int64))
            self._first_ns = np.append(self._first_ns, np.full(more, -1, np.int64))
            self._rate = np.append(self._rate, np.ones(more, np.int64))
        for n in (self._first_ns.take(rows) < 0).nonzero()[0].tolist():
            stream = gaps.streams[n]
            self._first_ns[rows[n]] = stream.first_arrival_ns
            self._rate[rows[n]] = max(1, stream.sample_rate)

    def _moved(self, batch: BlockBatch, over: dict[int, int]) -> BlockBatch:
        """Blocks earlier by what was left out before them."""
        position, gap = batch.position.copy(), batch.gap_frames.copy()
        trim = np.zeros(len(batch), np.int64)
        later: dict[int, int] = {}  # by row: what is left out further on in this batch
        for i in range(len(batch) - 1, -1, -1):
            row = int(batch.index[i])
            if row not in self._touched:
                continue
            excess = over.get(i, 0)
            position[i] -= int(self._cut[row]) - later.get(row, 0)
            if excess:
                later[row] = later.get(row, 0) + excess
                gap[i] -= min(excess, int(gap[i]))
                trim[i] = max(0, excess - int(batch.gap_frames[i]))
                position[i] += trim[i]  # made-up frames are left out at the block's beginning
        moved = with_columns(batch, position=position, gap_frames=gap)
        return without_beginnings(moved, trim) if trim.any() else moved


def _made_up(batch: BlockBatch) -> I64:
    """Frames of each block that nobody sent."""
    made_up = np.zeros(len(batch), np.int64)
    marks = np.r_[0, np.cumsum(batch.mask != Mask.RECEIVED)]
    ends = np.cumsum(batch.frames)
    made_up[:] = marks[ends] - marks[ends - batch.frames]
    return made_up
