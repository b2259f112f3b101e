"""How many samples of each frame to come were not received."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .frame_cutter import WaitingSamples

__all__ = ["MissingSamples"]

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]


class MissingSamples:
    """Counts by row and frame, in slots: frame k of a row (it covers positions k · hop to k · hop + size) is counted in
    slot k modulo the number of slots. ``waiting`` says which frame of each row comes next."""

    def __init__(self, size: int, hop: int, waiting: WaitingSamples) -> None:
        self._size, self._hop, self._waiting = size, hop, waiting
        self._count: I32 = np.zeros((0, 8), np.int32)  # (rows, slots)
        self._any = False  # whether anything was ever missing

    def grow(self, rows: int) -> None:
        more = rows - len(self._count)
        self._count = np.concatenate([self._count, np.zeros((more, self._count.shape[1]), np.int32)])

    def reset(self, row: int | I64) -> None:
        self._count[row] = 0

    def save(self, row: I64) -> I32:
        return self._count[row]

    def restore(self, row: I64, saved: I32) -> None:
        """``waiting`` has been restored before. There may be more slots by now."""
        slots, now = saved.shape[1], self._count.shape[1]
        frame = self._next_frame(row)[:, None] + np.arange(slots)
        self._count[row] = 0
        self._count[row[:, None], frame % now] = saved[np.arange(len(row))[:, None], frame % slots]

    def take_real(self, row: I64, position: I64) -> npt.NDArray[np.float32]:
        """The share of samples that were received, float32 (k,), of the frames at these positions; and forget it."""
        if not self._any:
            return np.ones(len(row), np.float32)
        slot = position // self._hop % self._count.shape[1]
        missing = self._count[row, slot]
        self._count[row, slot] = 0
        return np.asarray(1 - missing / np.float32(self._size), np.float32)

    def add(self, row: I64, begin: I64, end: I64) -> None:
        """Samples [begin, end) of rows were not received: count them for the frames they are in."""
        size, hop = self._size, self._hop
        there = end > begin
        if not there.any():
            return
        row, begin, end = row[there], begin[there], end[there]
        lowest = self._next_frame(row)
        first = np.maximum((begin - size) // hop + 1, lowest)
        last = (end - 1) // hop
        self._make_slots(int((last - lowest).max()) + 2)
        each = np.maximum(last - first + 1, 0)
        of = np.repeat(np.arange(len(row)), each)
        frame = first[of] + np.arange(len(of)) - np.repeat(np.cumsum(each) - each, each)
        count = np.minimum(end[of], frame * hop + size) - np.maximum(begin[of], frame * hop)
        np.add.at(self._count, (row[of], frame % self._count.shape[1]), count)
        self._any = True

    def _next_frame(self, row: I64) -> I64:
        return self._waiting.begin.take(row) // self._hop

    def _make_slots(self, needed: int) -> None:
        old = self._count.shape[1]
        if needed <= old:
            return
        slots = 1 << (needed - 1).bit_length()
        rows = np.arange(len(self._count))
        frame = self._next_frame(rows)[:, None] + np.arange(old)
        count = np.zeros((len(rows), slots), np.int32)
        count[rows[:, None], frame % slots] = self._count[rows[:, None], frame % old]
        self._count = count
