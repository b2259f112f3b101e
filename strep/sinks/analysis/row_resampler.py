"""Resampling of many streams at once, by a matrix product.

Tiles of ``down`` input samples become ``up`` output samples. So a row always consumes a multiple of ``down`` samples,
and all rows are in phase. The filter and its alignment are those of :mod:`strep.resample`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from ...resample import polyphase
from .assignments import Assignments
from .columns import Columns, column
from .strides import stretches

__all__ = ["RowResampler"]

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
Any2D = npt.NDArray[Any]

_TILE_SAMPLES: Final = 32  # input samples that one row of the matrix product takes, at least
_CACHE_VALUES: Final = 60_000  # values of tiles in one product: they stay in the processor's cache


class _Inputs(Columns):
    """What is kept of each row's input."""

    kept: F32 = column(np.float32)  # (rows, samples): the look-back, then what waits
    waiting: I64 = column(np.int64)  # input samples behind the look-back that were not consumed


class RowResampler:
    """Brings rows of one input rate to the output rate, whichever is higher. Rates are in Hz.

    ``tail`` zeros behind a row's last sample bring out the rest of it. Raises ConfigurationError for a ratio that
    :class:`strep.Resampler` refuses.
    """

    def __init__(self, rate_in: int, rate: int, rows: int) -> None:
        self.up, self.down, taps, middle = polyphase(rate_in, rate)
        up, down = self.up, self.down
        # output q is the sum over j of x[j] * taps[q * down + middle - j * up]
        self._back = -(-(len(taps) - 1 - middle) // up)
        self._ahead = middle // up + 1
        self.tail = self._ahead + down
        self._periods = -(-_TILE_SAMPLES // down)
        self._step = self._periods * down
        window = self._back + self._step + self._ahead
        q = np.arange(self._periods * up)
        tap = q * down + middle - (np.arange(window)[:, None] - self._back) * up
        inside = (tap >= 0) & (tap < len(taps))
        matrix = np.where(inside, taps[np.where(inside, tap, 0)], 0).astype(np.float32)
        # where every input sample stands at the time of an output sample, this is it, but for the filter's gain: the
        # other taps are zeros of the sinc
        self._gain = np.float32(taps[middle]) if down == 1 else None
        if self._gain is not None:
            matrix = matrix[:, q % up != 0]
        self._matrix = np.ascontiguousarray(matrix)
        self._inputs = _Inputs(kept=np.zeros((0, self._back + self._ahead + down), np.float32))
        self._inputs.grow(rows)

    def grow(self, rows: int) -> None:
        self._inputs.grow(rows)

    def start(self, row: I64, zeros: I64) -> None:
        """Begin rows anew, as if so many zeros had come."""
        self._inputs.kept[row] = 0
        self._inputs.waiting[row] = zeros

    def save(self, row: I64) -> dict[str, npt.NDArray[Any]]:
        return self._inputs.save(row)

    def restore(self, row: I64, saved: dict[str, npt.NDArray[Any]]) -> None:
        self._inputs.restore(row, saved)

    def process(self, dense: Any2D, row: I64, n: I64, writes: Assignments) -> tuple[F32, I64]:
        """Resample (k, w) input samples of which ``n`` (k,) of each row are valid. Returns (k, w') output samples,
        float32 in the input's scale, and how many of each row are valid, (k,). What is to be remembered is added to
        ``writes``."""
        height, width = dense.shape
        inputs = self._inputs
        waiting = inputs.waiting.take(row)
        there = waiting + n
        take = np.maximum(there - self._ahead, 0) // self.down * self.down
        most = int(take.max())
        tiles = max(1, -(-most // self._step))
        window = len(self._matrix)
        kept = inputs.kept.shape[1]
        wide = max(kept + width, tiles * self._step + window - self._step, most + kept)
        flat = np.zeros(height * wide + kept, np.float32)
        table = flat[: height * wide].reshape(height, wide)
        table[:, :kept] = inputs.kept[row]
        lined_up = bool((waiting == waiting[0]).all())
        if lined_up:
            at = self._back + int(waiting[0])
            table[:, at : at + width] = dense
        else:
            stretches(flat, width)[np.arange(height) * wide + self._back + waiting] = dense
        step = flat.itemsize
        view = as_strided(table, (height, tiles, window), (wide * step, self._step * step, step))
        out = np.empty((height, tiles * self._periods * self.up), np.float32)
        rows = max(1, _CACHE_VALUES // (tiles * window))
        for begin in range(0, height, rows):
            self._fill(out[begin : begin + rows], view[begin : begin + rows], table[begin : begin + rows, self._back :])
        if lined_up and bool((take == most).all()):
            writes.add(inputs.kept, row, table[:, most : most + kept])
        else:
            writes.add(inputs.kept, row, stretches(flat, kept)[np.arange(height) * wide + take])
        writes.add(inputs.waiting, row, there - take)
        made = take // self.down * self.up
        return out[:, : most // self.down * self.up], made

    def _fill(self, out: F32, tiles: F32, now: F32) -> None:
        """Fill (k, w') output samples. ``tiles``: (k, number, window) the input that each of them takes. ``now``: the
        input from that sample on which stands at the time of the first output sample."""
        flat = tiles.reshape(-1, tiles.shape[2])
        if self._gain is None:
            np.matmul(flat, self._matrix, out=out.reshape(len(flat), -1))
            return
        between = (flat @ self._matrix).reshape(len(out), -1, self.up - 1)
        phases = out.reshape(between.shape[0], between.shape[1], self.up)
        np.multiply(now[:, : between.shape[1]], self._gain, out=phases[:, :, 0])
        if self.up == 2:
            phases[:, :, 1] = between[:, :, 0]
        else:
            phases[:, :, 1:] = between
