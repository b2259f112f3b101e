"""Segments of speech, made of frames that are speech or not, for all streams at once. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .columns import Columns, Rows, column

__all__ = ["Segmenter"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Segmenter(Columns):
    """Tells who begins and who ends a segment, and when that was.

    A segment begins with ``start`` frames in a row that surely are speech. It ends with the last frame before
    ``hangover`` frames that are not (shorter pauses belong to it), or before a gap. Positions are those of frames of
    ``size`` samples.
    """

    talking: Bools = column(np.bool_)
    begin: I64 = column(np.int64)  # position of the present segment
    last: I64 = column(np.int64)  # position of its last frame so far
    run: npt.NDArray[np.int32] = column(np.int32)  # frames in a row that surely are speech
    next: I64 = column(np.int64)  # position of the frame that is expected

    def __init__(self, start: int, hangover: int, size: int) -> None:
        super().__init__()
        self._start, self._hangover, self._size = start, hangover, size

    def gaps(self, row: I64, rows: Rows, position: I64) -> list[int]:
        """Indices of the frames before which others are missing while a segment goes on: that segment has ended. Call
        it before :meth:`step`."""
        jumped = self.next[rows] != position
        self.next[rows] = position + self._size
        if not jumped.any():
            return []
        self.run[row[jumped]] = 0
        ended = np.flatnonzero(jumped & self.talking[rows])
        self.talking[row[ended]] = False
        return ended.tolist()

    def step(self, row: I64, rows: Rows, position: I64, surely: Bools, enough: Bools) -> tuple[Bools, I64, I64]:
        """Whether each frame is part of a segment; indices of the frames that began one, and that ended one.

        ``surely``: the frame may begin a segment · ``enough``: it may go on with one.
        """
        talking = self.talking[rows]
        run = self.run[rows]
        run += 1
        run *= surely
        self.run[rows] = run
        began = np.flatnonzero((run >= self._start) & ~talking)
        active = talking & enough
        active[began] = True
        last = np.where(active, position, self.last[rows])
        self.last[rows] = last
        last += self._hangover * self._size
        ended = np.flatnonzero(talking & (position >= last))
        if began.size:
            self.talking[row[began]] = True
            self.begin[row[began]] = position[began] - (self._start - 1) * self._size
        self.talking[row[ended]] = False
        return active, began, ended
