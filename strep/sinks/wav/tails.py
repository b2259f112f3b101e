"""Samples that wait to be written, so that files grow in few large pieces.

What a write takes on ext4 hardly depends on its size: bytes that wait for half a second cost a third less. A write
that ends inside a new block makes the kernel clear what is left of it, so what is behind the last full block waits
again.

Nothing is copied meanwhile: samples wait where they were decoded, in the arrays of their batches. A file's pieces are
gathered by the system call that writes them. An array is let go when no piece of it waits any more.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["FILE_BLOCK_BYTES", "TAIL_BYTES", "Tails"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

FILE_BLOCK_BYTES: Final = 4096
TAIL_BYTES: Final = 4 * FILE_BLOCK_BYTES  # of a file: a second of 8 kHz
_PIECES: Final = 24  # of a row; more are made one. Half a second in batches of 20 ms


@dataclass(slots=True)
class _Source:
    """An array with pieces that wait: how many."""

    data: U8
    pieces: int


class Tails:
    """``held``: how many bytes of each row wait, int64 (rows,)."""

    def __init__(self) -> None:
        self.held = np.zeros(0, np.int64)
        self._count = np.zeros(0, np.int64)  # pieces of each row
        # of each row's pieces, in order: where they begin, how long they are, in which array they are
        self._address = np.zeros((0, _PIECES), np.uint64)
        self._length = np.zeros((0, _PIECES), np.int64)
        self._source = np.zeros((0, _PIECES), np.int64)
        self._sources: dict[int, _Source] = {}
        self._number = 0  # of the array that came last

    def grow(self, rows: int) -> None:
        """Make room for so many rows."""
        old = len(self.held)
        for name in ("held", "_count", "_address", "_length", "_source"):
            before = getattr(self, name)
            after = np.zeros((rows, *before.shape[1:]), before.dtype)
            after[:old] = before
            setattr(self, name, after)

    def pieces(self, rows: I64, more: U64 | None = None, more_length: I64 | None = None) -> tuple[U64, I64]:
        """What these rows hold, and behind it ``more_length`` bytes at ``more``: addresses and lengths as ``struct
        iovec``, uint64 (n, k, 2), and how many of each row's k count, int64 (n,)."""
        count = self._count.take(rows)
        width = int(count.max())
        found = np.zeros((len(rows), width + 1, 2), np.uint64)
        found[:, :width, 0] = self._address[rows, :width]
        found[:, :width, 1] = self._length[rows, :width]
        if more is not None and more_length is not None:
            each = np.arange(len(rows))
            found[each, count, 0] = more
            found[each, count, 1] = more_length
            count = count + 1
        return found, count

    def take(self, row: int) -> bytes:
        """What a row holds; it holds nothing afterwards."""
        n = int(self._count[row])
        columns = (self._address[row, :n], self._length[row, :n], self._source[row, :n])
        rest = []
        for address, length, number in zip(*(column.tolist() for column in columns), strict=True):
            rest.append(ctypes.string_at(address, length))
            self._let_go(number, 1)
        self.held[row] = self._count[row] = 0
        return b"".join(rest)

    def put(self, row: int, rest: bytes) -> None:
        """Let a row, which holds nothing, hold this."""
        data = np.frombuffer(rest, np.uint8)
        self.append(np.array([row]), data, np.zeros(1, np.int64), np.array([len(data)]))

    def append(self, rows: I64, data: U8, begin: I64, length: I64) -> None:
        """Let each row hold so many bytes of ``data`` more, from where they begin. No row comes twice. ``data`` must
        not change any more."""
        some = length > 0
        if not some.all():
            rows, begin, length = rows[some], begin[some], length[some]
        if not len(rows):
            return
        for row in rows[self._count.take(rows) == _PIECES].tolist():
            self.put(row, self.take(row))
        self._number += 1
        self._sources[self._number] = _Source(data, len(rows))
        count = self._count.take(rows)
        at = rows * _PIECES + count
        self._address.reshape(-1)[at] = np.uint64(data.ctypes.data) + begin.astype(np.uint64)
        self._length.reshape(-1)[at] = length
        self._source.reshape(-1)[at] = self._number
        self._count[rows] = count + 1
        self.held[rows] += length

    def clear(self, rows: I64) -> None:
        """Let these rows hold nothing. No row comes twice."""
        count = self._count.take(rows)
        width = int(count.max(initial=0))
        waited = self._source[rows, :width][np.arange(width) < count[:, None]]
        self.held[rows] = self._count[rows] = 0
        if not waited.size:
            return
        first = int(waited.min())
        for number, pieces in enumerate(np.bincount(waited - first).tolist(), first):
            if pieces:
                self._let_go(number, pieces)

    def _let_go(self, number: int, pieces: int) -> None:
        source = self._sources[number]
        source.pieces -= pieces
        if not source.pieces:
            del self._sources[number]
