"""Which frames of 20 ms of each stream are silent, and how long it has been so, for all streams at once. Pure.

Frames stand on the grid of each stream's timeline, so what is found does not depend on how audio was cut into blocks.
A gap ends a frame; what was received of it counts.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .columns import Columns, column

__all__ = ["FRAMES_PER_S", "FramePieces", "SilentFrames"]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FRAMES_PER_S: Final = 50


class FramePieces(NamedTuple):
    """Parts of frames, columns (n,): those of a stream are adjacent and in order."""

    row: I64
    number: I64  # of the frame on the timeline
    energy: F64  # the sum of squares
    values: I64  # samples, those of all channels
    seconds: F64
    ends: Bools  # whether the frame ends here

    def take(self, some: I64 | Bools) -> FramePieces:
        return FramePieces._make(values[some] for values in self)


class SilentFrames(Columns):
    """A frame is silent when its mean square is below ``least``."""

    silent_s: F64 = column(np.float64)
    active_s: F64 = column(np.float64)
    now_s: F64 = column(np.float64)  # the present run of silence
    # the frame that is not complete
    number: I64 = column(np.int64)
    energy: F64 = column(np.float64)
    values: I64 = column(np.int64)
    seconds: F64 = column(np.float64)  # 0: there is none

    def __init__(self, rows: int, least: float) -> None:
        super().__init__(rows)
        self._least = least

    def add(self, pieces: FramePieces) -> None:
        """Take what came next."""
        pieces = _joined(pieces)
        row = pieces.row
        at = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        rows = row[at]
        begun = self.seconds[rows] > 0
        if begun.any():
            same = begun & (self.number[rows] == pieces.number[at])
            self._judge(self._part(rows[begun & ~same]))
            goes_on, its = at[same], rows[same]
            pieces.energy[goes_on] += self.energy[its]
            pieces.values[goes_on] += self.values[its]
            pieces.seconds[goes_on] += self.seconds[its]
            self.seconds[rows[begun]] = 0
        last = np.append(at[1:], len(row)) - 1
        kept = last[~pieces.ends[last]]
        if kept.size:
            its = row[kept]
            self.number[its], self.energy[its] = pieces.number[kept], pieces.energy[kept]
            self.values[its], self.seconds[its] = pieces.values[kept], pieces.seconds[kept]
            complete = np.ones(len(row), np.bool_)
            complete[kept] = False
            pieces = pieces.take(complete)
        self._judge(pieces)

    def finish(self, row: int) -> None:
        """The row's stream has ended."""
        if self.seconds[row] > 0:
            self._judge(self._part(np.array([row])))
            self.seconds[row] = 0

    def _part(self, rows: I64) -> FramePieces:
        """What there is of the frames that are not complete."""
        parts = (self.number[rows], self.energy[rows], self.values[rows], self.seconds[rows])
        return FramePieces(rows, *parts, np.ones(len(rows), np.bool_))

    def _judge(self, frames: FramePieces) -> None:
        row, seconds = frames.row, frames.seconds
        if not len(row):
            return
        silent = frames.energy < self._least * frames.values
        start = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        rows = row[start]
        order = np.arange(len(row))
        loud = np.maximum.reduceat(np.where(silent, -1, order), start)  # the last one that is not silent
        after = order > np.repeat(loud, np.diff(np.append(start, len(row))))
        self.now_s[rows] = self.now_s[rows] * (loud < 0) + np.add.reduceat(seconds * after, start)
        silence, whole = np.add.reduceat(seconds * silent, start), np.add.reduceat(seconds, start)
        self.silent_s[rows] += silence
        self.active_s[rows] += whole - silence


def _joined(pieces: FramePieces) -> FramePieces:
    """One piece for each frame; columns that may be written to."""
    row, number = pieces.row, pieces.number
    new = np.r_[True, (row[1:] != row[:-1]) | (number[1:] != number[:-1])]
    if new.all():
        return pieces
    start = np.flatnonzero(new)
    last = np.append(start[1:], len(row)) - 1
    energy, values, seconds = (np.add.reduceat(v, start) for v in (pieces.energy, pieces.values, pieces.seconds))
    return FramePieces(row[start], number[start], energy, values, seconds, pieces.ends[last])
