"""How much silence a stream may bring: no sender's timestamps make a file longer than its stream was there.

Audio costs whoever sends it its bytes; silence costs a timestamp. So a stream's silence is never more than the time it
has been there by the arrival of its packets, or than its audio if that is more (who sends faster than real time loses
packets too), and a little:

    silence <= max(arrival of this packet - arrival of the first, audio so far) + 2 s

What goes beyond is cut out of the gap where it does, and all that follows stands earlier by as much. A stream that
tells the truth is never touched: its silence is less than the time that it took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from ..._model.types import Mask
from .parts import changed, trimmed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._model.blocks import BlockBatch
    from ..._model.types import StreamInfo

__all__ = ["SLACK_S", "SilenceBound"]

SLACK_S: Final = 2

I64 = npt.NDArray[np.int64]


class SilenceBound:
    """Keeps account by stream row; call :meth:`forget` when a stream has ended."""

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
        over = self._take(batch, silence, some) if some.size else {}
        if not over and (not self._touched or self._touched.isdisjoint(batch.index.tolist())):
            return batch
        return self._moved(batch, over)

    def _take(self, batch: BlockBatch, silence: I64, some: I64) -> dict[int, int]:
        """Enter the silence before (and in) these blocks; by block how much of it is too much."""
        rows = batch.index[some]
        self._meet(batch.streams, rows, some)
        frames = silence[some]
        alone = bool((rows[1:] != rows[:-1]).all())
        if alone:
            limit, before = self._limit(batch, rows, some, frames), self._silence.take(rows)
            if (before + frames <= limit).all():
                self._silence[rows] = before + frames
                return {}
        over = {}
        for i, row, own in zip(some.tolist(), rows.tolist(), frames.tolist(), strict=True):
            one = slice(row, row + 1)
            limit = self._limit(batch, np.array([row]), np.array([i]), np.array([own]))
            excess = min(own, max(0, int(self._silence[row]) + own - int(limit[0])))
            self._silence[one] += own - excess
            if excess:
                self._cut[one] += excess
                self._touched.add(row)
                self.cut_frames += excess
                over[i] = excess
        return over

    def _limit(self, batch: BlockBatch, rows: I64, blocks: I64, silence: I64) -> I64:
        """Frames of silence that there may be up to these blocks."""
        rate = self._rate.take(rows)
        there = (batch.arrival_ns[blocks] - self._first_ns.take(rows)) // 1000 * rate // 1_000_000
        audio = batch.position[blocks] - silence - self._silence.take(rows) - self._cut.take(rows)
        limit: I64 = np.maximum(there, audio) + SLACK_S * rate
        return limit

    def _meet(self, streams: Sequence[StreamInfo], rows: I64, blocks: I64) -> None:
        last = int(rows.max())
        if last >= len(self._cut):
            more = max(len(self._cut), last + 1 - len(self._cut))
            self._silence = np.append(self._silence, np.zeros(more, np.int64))
            self._cut = np.append(self._cut, np.zeros(more, np.int64))
            self._first_ns = np.append(self._first_ns, np.full(more, -1, np.int64))
            self._rate = np.append(self._rate, np.ones(more, np.int64))
        for n in (self._first_ns.take(rows) < 0).nonzero()[0].tolist():
            stream = streams[int(blocks[n])]
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
        moved = changed(batch, position=position, gap_frames=gap)
        return trimmed(moved, trim) if trim.any() else moved


def _made_up(batch: BlockBatch) -> I64:
    """Frames of each block that nobody sent."""
    made_up = np.zeros(len(batch), np.int64)
    marks = np.r_[0, np.cumsum(batch.mask != Mask.RECEIVED)]
    ends = np.cumsum(batch.frames)
    made_up[:] = marks[ends] - marks[ends - batch.frames]
    return made_up
