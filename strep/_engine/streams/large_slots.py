"""Slots for packets of more than 2,048 bytes, up to the largest that UDP carries: few streams have any.

All their sizes share one piece of memory of fixed size, of which streams are given parts by the buddy method: a part of
4 MiB is halved until it is as small as wanted, and halves that are both free become one again. Memory that no stream
has used yet is never touched, so it costs nothing; while no stream has a part, there is none.

      64 slots of 4,096 bytes    256 KiB: L16/48000/2 in packets of 20 ms
                  8,192          512 KiB
                 16,384            1 MiB: in packets of 60 ms
                 32,768            2 MiB
                 65,536            4 MiB: what is left of UDP
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .slots import SLOTS

__all__ = ["LARGE_BYTES", "LARGE_WIDTHS", "LargeSlots"]

U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

LARGE_BYTES: Final = 256 << 20  # for all streams of an engine
LARGE_WIDTHS: Final = (4096, 8192, 16_384, 32_768, 65_536)  # of slots
_TOP: Final = len(LARGE_WIDTHS) - 1
_HALF_FROM: Final = 3  # sizes from here on get at most half of it: no codec needs them, so they must not starve others


class LargeSlots:
    """``order`` is an index of LARGE_WIDTHS. ``most_bytes`` is rounded down to 4 MiB."""

    def __init__(self, most_bytes: int = LARGE_BYTES) -> None:
        whole = most_bytes // (SLOTS * LARGE_WIDTHS[_TOP])
        self._units = whole << _TOP  # parts of the smallest size
        # by order: the first units of parts that are free
        self._free: list[set[int]] = [set() for _ in LARGE_WIDTHS]
        self._free[_TOP] = {i << _TOP for i in range(whole)}
        self._largest_used = 0  # units, of the sizes that get half
        self._data = np.empty(0, np.uint8)
        self._meta = np.zeros((0, 2), np.uint64)

    def acquire(self, order: int) -> int:
        """Give a stream its slots: the first one's number among those of their size; -1: there is no room."""
        if order > _TOP:
            return -1
        size = 1 << order
        if order >= _HALF_FROM and 2 * (self._largest_used + size) > self._units:
            return -1
        found = next((k for k in range(order, _TOP + 1) if self._free[k]), None)
        if found is None:
            return -1
        if not self._data.size:
            unit = SLOTS * LARGE_WIDTHS[0]
            # one slot of each size more, for what nobody wants
            self._data = np.empty(self._units * unit + LARGE_WIDTHS[_TOP], np.uint8)
            self._meta = np.zeros((self._data.size // LARGE_WIDTHS[0], 2), np.uint64)
        unit = min(self._free[found])
        self._free[found].remove(unit)
        for k in range(found - 1, order - 1, -1):
            self._free[k].add(unit + (1 << k))
        self._largest_used += size * (order >= _HALF_FROM)
        return (unit >> order) * SLOTS

    def release(self, base: int, order: int) -> None:
        self._largest_used -= (1 << order) * (order >= _HALF_FROM)
        unit = base // SLOTS << order
        while order < _TOP and unit ^ (1 << order) in self._free[order]:
            self._free[order].remove(unit ^ (1 << order))
            unit &= ~(1 << order)
            order += 1
        self._free[order].add(unit)
        if len(self._free[_TOP]) << _TOP == self._units:
            self._data, self._meta = np.empty(0, np.uint8), np.zeros((0, 2), np.uint64)

    def held(self) -> tuple[list[set[int]], int, U8, U64]:
        """What :meth:`restore` goes back to."""
        return [set(units) for units in self._free], self._largest_used, self._data, self._meta

    def restore(self, held: tuple[list[set[int]], int, U8, U64]) -> None:
        """Undo what was acquired and released since."""
        self._free, self._largest_used, self._data, self._meta = held

    def data(self, order: int) -> U8:
        """uint8 (slots + 1, width): payloads. The last row is for what nobody wants."""
        return self._data.reshape(-1, LARGE_WIDTHS[order])

    def meta(self, order: int) -> U64:
        """uint64 (slots + 1, 2): as :class:`PacketSlots` has it."""
        return self._meta[:: 1 << order]
