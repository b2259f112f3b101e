"""Frames cut from dense tables of samples, and what waits of each stream for its next frame.

What is left over after a push waits in one row of a matrix per stream. New samples are laid behind it with one indexed
assignment for all streams, and frames are cut from the result as views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .assignments import Assignments
from .columns import Columns, column
from .strides import stretches

__all__ = ["BEFORE_ALL", "FrameCutter", "Piece", "WaitingSamples"]

I64 = npt.NDArray[np.int64]
Any2D = npt.NDArray[Any]

_SCALE: Final = np.float32(1 / 32_768)  # of int16 samples, to [-1, 1)
BEFORE_ALL: Final = -(1 << 60)  # a position before all others


class WaitingSamples(Columns):
    """What waits of each row for its next frame. Positions are in samples at the frames' rate."""

    pending: Any2D = column(np.float32)  # (rows, size): samples of the next frame
    begin: I64 = column(np.int64)  # position of the next frame
    fill: I64 = column(np.int64)  # its samples that are here; negative: so many samples are to be left out first
    covered: I64 = column(np.int64)  # all samples before this position have been in a frame
    last: I64 = column(np.int64, BEFORE_ALL)  # position of the last frame


@dataclass(slots=True)
class Piece:
    """Frames of a group of rows: the j-th ones of one push.

    ``pick``: indices of the frames' blocks, None: all blocks as they stand · ``table``: the matrix that the samples are
    columns of, from ``left`` on; None: they are a copy.
    """

    row: I64
    position: I64
    samples: Any2D
    pick: I64 | None
    table: Any2D | None = None
    left: int = 0


class FrameCutter:
    """Cuts frames of ``size`` samples that begin ``hop`` samples apart. A row is a stream."""

    def __init__(self, size: int, hop: int, dtype: np.dtype[Any]) -> None:
        self.size, self.hop, self.dtype = size, hop, dtype
        self.waiting = WaitingSamples(pending=np.zeros((0, size), dtype))

    def start(self, row: I64, first: I64) -> I64:
        """Let rows go on at these positions of the timeline. Returns where their next frames begin: on the grid, at or
        before ``first``, but behind the last frame."""
        waiting = self.waiting
        begin = np.maximum(first // self.hop * self.hop, waiting.last.take(row) + self.hop)
        waiting.begin[row] = begin
        waiting.fill[row] = first - begin
        waiting.covered[row] = np.maximum(begin, first)
        waiting.pending[row] = 0
        return begin

    def cut(
        self, dense: Any2D, row: I64, n: I64, chosen: I64 | None, pieces: list[list[Piece]], writes: Assignments
    ) -> None:
        """Lay rows of new samples (k, w), in the scale of int16, of which ``n`` (k,) are valid, behind what waits, and
        cut frames.

        The j-th frames of the rows are added to ``pieces[j]``, what is to be remembered to ``writes``. ``chosen``:
        indices of the rows' blocks (None: all blocks as they stand).
        """
        size, hop, waiting = self.size, self.hop, self.waiting
        fill = waiting.fill.take(row)
        pad = 0
        height, wide = dense.shape
        flat: Any2D | None = None
        if fill.any():
            # fill < 0: the frame begins that much later, in the data itself
            pad, width = max(0, -int(fill.min())), wide
            wide = pad + max(0, int(fill.max())) + width
            flat = np.empty(height * wide + size, self.dtype)
            table = flat[: height * wide].reshape(height, wide)
            here = min(max(0, int(fill.max())), size)
            table[:, pad : pad + here] = waiting.pending[row, :here]
            at = pad + fill
            if width and bool((at == at[0]).all()):
                self._lay(dense, table[:, int(at[0]) : int(at[0]) + width])
            elif width:
                stretches(flat, width)[np.arange(height) * wide + at] = self._lay(dense)
        else:
            table = self._lay(dense)
        there = fill + n
        count = np.maximum((there - size) // hop + 1, 0)
        most = int(count.max())
        begin = waiting.begin.take(row)
        fewest = int(count.min())
        for j in range(most):
            if len(pieces) <= j:
                pieces.append([])
            left = pad + j * hop
            if j < fewest:
                piece = Piece(row, begin + j * hop, table[:, left : left + size], chosen, table, left)
            else:
                some = np.flatnonzero(count > j)
                pick = some if chosen is None else chosen[some]
                piece = Piece(row[some], begin[some] + j * hop, table[some, left : left + size], pick)
            pieces[j].append(piece)
        moved = count * hop
        rest = there - moved
        longest = int(rest.max())
        if longest > 0:
            if most == fewest:
                first = pad + most * hop
                writes.add(waiting.pending, (row, slice(longest)), table[:, first : first + longest])
            else:
                if flat is None:  # a row with little left is read over its end
                    flat = np.concatenate([table.reshape(-1), np.zeros(size, self.dtype)])
                left_over = stretches(flat, longest)[np.arange(height) * wide + pad + moved]
                writes.add(waiting.pending, (row, slice(longest)), left_over)
        writes.add(waiting.fill, row, rest)
        if most:
            writes.add(waiting.begin, row, begin + moved)
            some = row
            last = begin + moved - hop
            if not fewest:
                cut = np.flatnonzero(count)
                some, last = row[cut], last[cut]
            writes.add(waiting.last, some, last)
            writes.add(waiting.covered, some, last + size)

    def _lay(self, dense: Any2D, out: Any2D | None = None) -> Any2D:
        """New samples as frames have them: float32 in [-1, 1), or as they are."""
        if self.dtype == np.float32:
            return np.multiply(dense, _SCALE, out=out, dtype=np.float32)
        if out is None:
            return dense
        out[:] = dense
        return out

    def finish(self, row: I64) -> Piece | None:
        """The frames that have begun, padded with zeros; None when nothing waits that was not in a frame yet."""
        waiting = self.waiting
        begin, fill = waiting.begin.take(row), waiting.fill.take(row)
        some = np.flatnonzero((fill > 0) & (begin + fill > waiting.covered.take(row)))
        if not some.size:
            return None
        mine = row[some]
        samples = waiting.pending[mine]
        samples[np.arange(self.size) >= fill[some][:, None]] = 0
        waiting.last[mine] = begin[some]
        return Piece(mine, begin[some], samples, some)
