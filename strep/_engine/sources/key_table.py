"""160-bit keys → small integers, a whole batch at a time. Open addressing in numpy arrays."""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["KeyTable"]

U64 = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

# in place of a row, in a slot
_EMPTY: Final = -1
_REMOVED: Final = -2  # there was a key: a search goes on behind it
_FEWEST_SLOTS: Final = 1024
_NEXT_SLOT: Final = np.arange(1, 2)
_SLOTS_AHEAD: Final = np.arange(1, 9)  # that are looked at together when a key is in neither of its first two slots


class KeyTable:
    """Maps (hi, lo, tag), three uint64, to a row chosen by the caller, 0 ≤ row < capacity.

    All keys of a batch are probed together; the whole key is compared, so there are no false hits. The hash is seeded
    per table: who does not know the seed cannot make keys collide on purpose. The seed changes the speed only.
    """

    def __init__(self, capacity: int, seed: int | None = None) -> None:
        self._resize(_FEWEST_SLOTS)
        # np.zeros is lazily backed by the kernel: a table for 20,000 streams costs what is used of it
        self._hi = np.zeros(capacity, np.uint64)
        self._lo = np.zeros(capacity, np.uint64)
        self._tag = np.zeros(capacity, np.uint64)
        self._slot_of = np.zeros(capacity, np.int64)
        self._used = 0  # slots that are not empty: live and removed
        self._live = 0
        rng = np.random.default_rng(secrets.randbits(64) if seed is None else seed)
        k = rng.integers(1 << 62, 1 << 63, 4, dtype=np.uint64) | np.uint64(1)
        self._k1, self._k2, self._k3, self._k4 = k

    def __len__(self) -> int:
        return self._live

    def _resize(self, size: int) -> None:
        """Empty slots, a power of two; few enough that they stay in the core's cache."""
        self._size = size
        self._shift = np.uint64(64 - size.bit_length() + 1)
        self._slots = np.full(size, _EMPTY, np.int64)

    def _hash(self, hi: U64, lo: U64, tag: U64) -> npt.NDArray[np.int64]:
        h = hi * self._k1
        h ^= h >> np.uint64(32)
        h += lo
        h *= self._k2
        h ^= h >> np.uint64(29)
        h += tag
        h *= self._k3
        h ^= h >> np.uint64(32)
        h *= self._k4
        # once more: without, keys that differ in high bits alone fall together for some seeds
        h ^= h >> np.uint64(29)
        h *= self._k1
        h >>= self._shift
        place: npt.NDArray[np.int64] = h.view(np.int64)
        return place

    def find(self, hi: U64, lo: U64, tag: U64) -> Rows:
        """Rows of the keys, int64 shape (n,), -1 where a key is unknown."""
        if not self._live:
            return np.full(len(hi), -1, np.int64)
        place = self._hash(hi, lo, tag)
        row = self._slots.take(place)
        # negative rows (empty, removed) look at the first key; they are told apart below
        miss = self._hi.take(row, mode="clip")
        miss ^= hi
        miss |= self._lo.take(row, mode="clip") ^ lo
        miss |= self._tag.take(row, mode="clip") ^ tag
        unsure = miss != 0
        if row.min() < 0:
            unsure |= row < 0
        todo = unsure.nonzero()[0]
        if todo.size:
            todo = todo[row[todo] != _EMPTY]  # which is the answer
        if todo.size:
            row[todo] = self._search(place[todo], hi[todo], lo[todo], tag[todo], _NEXT_SLOT)
        return row

    def _search(self, place: Rows, hi: U64, lo: U64, tag: U64, ahead: Rows = _SLOTS_AHEAD) -> Rows:
        """Rows of keys that do not stand in the slots before: ``ahead`` are those of all of them that are looked at
        together. Most stand in the next one, so that is looked at alone."""
        row = self._slots.take((place[:, None] + ahead) & (self._size - 1))
        miss = self._hi.take(row, mode="clip") ^ hi[:, None]
        miss |= self._lo.take(row, mode="clip") ^ lo[:, None]
        miss |= self._tag.take(row, mode="clip") ^ tag[:, None]
        found: Rows = np.where((miss == 0) & (row >= 0), row, -1).max(axis=1)
        todo = (found < 0).nonzero()[0]
        if todo.size:
            todo = todo[(row[todo] != _EMPTY).all(axis=1)]
        if todo.size:
            found[todo] = self._search(place[todo] + len(ahead), hi[todo], lo[todo], tag[todo])
        return found

    def add(self, rows: Rows, hi: U64, lo: U64, tag: U64) -> None:
        """Enter keys that are not in the table, distinct among themselves, under the given rows."""
        if 4 * (self._used + len(rows)) > self._size:
            self._rebuild(self._live + len(rows))
        self._hi[rows] = hi
        self._lo[rows] = lo
        self._tag[rows] = tag
        self._place(rows)
        self._live += len(rows)

    def _place(self, rows: Rows) -> None:
        place = self._hash(self._hi[rows], self._lo[rows], self._tag[rows])
        todo = np.arange(len(rows))
        while todo.size:
            there = self._slots[place[todo]]
            free = there < 0
            tries = todo[free]
            self._slots[place[tries]] = rows[tries]
            # several keys may have tried for one slot: the one that is there has won
            won = self._slots[place[tries]] == rows[tries]
            done = tries[won]
            self._slot_of[rows[done]] = place[done]
            self._used += int(np.count_nonzero(there[free][won] == _EMPTY))
            todo = np.concatenate([todo[~free], tries[~won]])
            place[todo] = (place[todo] + 1) & (self._size - 1)

    def remove(self, rows: Rows) -> None:
        """Forget the keys of these rows."""
        self._slots[self._slot_of[rows]] = _REMOVED
        self._live -= len(rows)

    def _rebuild(self, streams: int) -> None:
        """Drop what was removed, and make room for ``streams``, an eighth of the slots."""
        live = self._slots[self._slots >= 0]
        size = self._size
        while size < 8 * streams:
            size *= 2
        self._resize(size)
        self._used = 0
        self._place(live)

    def clear(self) -> None:
        self._slots.fill(_EMPTY)
        self._used = 0
        self._live = 0

    def live(self) -> Rows:
        """The rows that have a key, ascending."""
        return np.sort(self._slots[self._slots >= 0])

    def keys(self, rows: Rows) -> tuple[U64, U64, U64]:
        """The three words of these rows' keys."""
        return self._hi[rows], self._lo[rows], self._tag[rows]

    def key(self, row: int) -> tuple[int, int, int]:
        return int(self._hi[row]), int(self._lo[row]), int(self._tag[row])
