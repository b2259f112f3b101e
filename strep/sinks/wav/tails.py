"""Samples that wait to be written, so that files grow in few large pieces.

What a write takes on ext4 hardly depends on its size: bytes that wait for half a second cost a third less. A write
that ends inside a new block makes the kernel clear what is left of it, so what is behind the last full block waits
again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["FILE_BLOCK_BYTES", "TAIL_BYTES", "Tails"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

FILE_BLOCK_BYTES: Final = 4096
TAIL_BYTES: Final = 4 * FILE_BLOCK_BYTES  # of a file: a second of 8 kHz
_FEW: Final = 4  # rows that are copied one by one


class Tails:
    """``held``: how many bytes of each row wait, int64 (rows,)."""

    def __init__(self) -> None:
        self.held = np.zeros(0, np.int64)
        self._slab = np.zeros((0, TAIL_BYTES), np.uint8)

    def grow(self, rows: int) -> None:
        """Make room for so many rows."""
        old = len(self.held)
        held, slab = self.held, self._slab
        self.held = np.zeros(rows, np.int64)
        self._slab = np.zeros((rows, TAIL_BYTES), np.uint8)  # takes no memory before it is used
        self.held[:old] = held
        used = np.flatnonzero(held)
        self._slab[used] = slab[used]

    def address(self, rows: I64) -> U64:
        """Where in memory what these rows hold begins."""
        return np.uint64(self._slab.ctypes.data) + rows.astype(np.uint64) * np.uint64(TAIL_BYTES)

    def take(self, row: int) -> bytes:
        """What a row holds; it holds nothing afterwards."""
        rest = self._slab[row, : self.held[row]].tobytes()
        self.held[row] = 0
        return rest

    def put(self, row: int, rest: bytes) -> None:
        """Let a row hold this."""
        self._slab[row, : len(rest)] = np.frombuffer(rest, np.uint8)
        self.held[row] = len(rest)

    def append(self, rows: I64, data: U8, begin: I64, length: I64) -> None:
        """Let each row hold so many bytes of ``data`` more; they fit. No row comes twice."""
        to = rows * TAIL_BYTES + self.held.take(rows)
        slab = self._slab.reshape(-1)
        for size in np.unique(length).tolist():
            chosen = np.flatnonzero(length == size)
            if len(chosen) <= _FEW:
                for one in chosen.tolist():
                    at, there = int(begin[one]), int(to[one])
                    slab[there : there + size] = data[at : at + size]
            elif size:
                _items(slab, size)[to[chosen]] = _items(data, size)[begin[chosen]]
        self.held[rows] += length

    def replace(self, rows: I64, data: U8, begin: I64, length: I64) -> None:
        """Let each row hold so many bytes of ``data``, less than a block, and nothing else. No row comes twice."""
        self.held[rows] = length
        # a whole block is one copy; what is too much is never looked at
        inside = begin <= len(data) - FILE_BLOCK_BYTES
        if inside.any():
            to = rows[inside] * TAIL_BYTES
            _items(self._slab.reshape(-1), FILE_BLOCK_BYTES)[to] = _items(data, FILE_BLOCK_BYTES)[begin[inside]]
        for one in np.flatnonzero(~inside).tolist():
            at, size = int(begin[one]), int(length[one])
            self._slab[rows[one], :size] = data[at : at + size]


@lru_cache(maxsize=64)
def _item(size: int) -> np.dtype[np.void]:
    return np.dtype((np.void, size))


def _items(data: U8, size: int) -> npt.NDArray[np.void]:
    """Every run of ``size`` bytes of ``data`` as an item, which numpy copies in one piece."""
    return np.ndarray(len(data) - size + 1, _item(size), data, 0, (1,))
