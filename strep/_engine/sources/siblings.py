"""Streams of plain RTP whose SSRC another stream of the same port has, too: their source addresses tell them apart.

The first one has the key that its port and SSRC make; a sibling's ``hi`` is its address's word. So packets are looked
up once, but for those that come from another address than the first one's, while there are siblings.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .key_table import KeyTable
from .keys import KIND_AUTO, kind_of

__all__ = ["Siblings"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


class Siblings:
    """``among`` bool, by row: whether the stream has the SSRC of others. Falsy while there are none."""

    def __init__(self, rows: int, table: KeyTable) -> None:
        self._table = table
        self._rows: dict[tuple[int, int], set[int]] = {}  # by port and tag: of siblings, without the first one
        self._key_of: dict[int, tuple[int, int]] = {}  # by row
        self.among = np.zeros(rows, np.bool_)

    def __bool__(self) -> bool:
        return bool(self._rows)

    def opened(self, rows: I64, hi: U64, lo: U64, tag: U64) -> None:
        """Streams have begun, and stand in the table."""
        self.among[rows] = False
        plain = kind_of(tag) == KIND_AUTO
        if not plain.any() or not (self._rows or hi[plain].any()):
            return
        for i in np.flatnonzero(plain).tolist():
            key = int(lo[i]), int(tag[i])
            if hi[i]:
                self._rows.setdefault(key, set()).add(int(rows[i]))
                self._key_of[int(rows[i])] = key
            if key in self._rows:
                first = self._table.find(np.zeros(1, np.uint64), lo[i : i + 1], tag[i : i + 1])
                self.among[first[first >= 0]] = True
                self.among[rows[i]] = True

    def closed(self, row: int) -> None:
        """A stream has ended."""
        self.among[row] = False
        key = self._key_of.pop(row, None)
        if key is not None:
            self._rows[key].discard(row)
            if not self._rows[key]:
                del self._rows[key]

    def of(self, port: int, tag: int) -> list[int]:
        """The rows of those siblings, ascending; without the first one."""
        return sorted(self._rows.get((port, tag), ()))

    def find(self, row: I64, strange: npt.NDArray[np.bool_], source: U64, lo: U64, tag: U64) -> I64:
        """Put the rows of siblings' packets into ``row``, which has been looked up without the address. ``strange``:
        packets without a stream, or of another address than its. Returns which packets are siblings'."""
        which = np.flatnonzero(strange & (kind_of(tag) == KIND_AUTO) & (source != 0))
        if which.size:
            found = self._table.find(source[which], lo[which], tag[which])
            which, found = which[found >= 0], found[found >= 0]
            row[which] = found
        return which
