"""Redundant copies (RFC 2198) that wait in slots of the jitter ring for packets that may not come.

Per stream (row), beside ``present`` of the ring: bit i of ``copies`` says that the slot of packet next+i holds a copy
of it that another packet brought. Where ``present`` has the bit too, the packet did not come in time, and the copy
stands in for it; ``late`` then says that it came after all. Example, packet 4 missing, 5 has brought a copy of it:

    next=3   present=0b1101   copies=0b0010    4 is still waited for
    next=4   present=0b111    copies=0b001     the deadline has passed: the copy is as good as the packet

So the packet itself wins when it comes in time, and what counts as lost, late or duplicate does not depend on copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Spares"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_ONE = np.uint64(1)


class Spares:
    def __init__(self, streams: int, note: Callable[[tuple[Any, Any, Any]], None]) -> None:
        """``note``: as that of ``Undo``."""
        self._note = note
        self.copies = np.zeros(streams, np.uint64)
        self.late = np.zeros(streams, np.uint64)
        self.used = False  # whether there has ever been a copy: what comes before that costs nothing

    def forget(self, rows: I64 | int) -> None:
        if self.used:
            self.copies[rows] = 0
            self.late[rows] = 0

    def put(self, rows: I64, bit: U64) -> None:
        """Copies were put into the slots of these packets (rows may be repeated)."""
        self.used = True
        self._note((self.copies, rows, self.copies[rows]))
        np.bitwise_or.at(self.copies, rows, bit)

    def replaced(self, rows: I64, bit: U64) -> None:
        """Packets came into their slots themselves (rows may be repeated)."""
        before = self.copies.take(rows)
        if (before & bit).any():
            self._note((self.copies, rows, before))
            np.bitwise_and.at(self.copies, rows, ~bit)

    def standing_in(self, rows: I64, present: U64) -> U64:
        """Bits of ``present`` that are copies' (rows may be repeated)."""
        return present & self.copies.take(rows) if self.used else np.zeros_like(present)

    def note_late(self, rows: I64, bit: U64) -> None:
        """Packets came for which copies stand in."""
        self._note((self.late, rows, self.late[rows]))
        np.bitwise_or.at(self.late, rows, bit)

    def fill(self, rows: I64, present: U64) -> U64:
        """``present`` of rows that begin with a hole, when copies stand in for what is missing in it."""
        hole = (present & (~present + _ONE)) - _ONE  # the bits below the lowest one
        return present | (self.copies.take(rows) & hole)

    def shift(self, rows: I64, count: U64) -> U64:
        """The first ``count`` (0 to 63) packets of rows (distinct) leave. Returns bits of those that came themselves,
        in time or late, the last one as bit 0."""
        came = (_ONE << count) - _ONE
        copies, late = self.copies.take(rows), self.late.take(rows)
        some = (copies | late).nonzero()[0]
        if some.size:
            self._note((self.copies, rows, copies))
            self._note((self.late, rows, late))
            self.copies[rows] = copies >> count
            self.late[rows] = late >> count
            absent = copies[some] & ~late[some] & came[some]
            came[some] &= ~(_reversed(absent) >> (np.uint64(64) - count[some]))
        return came


def _reversed(bits: U64) -> U64:
    """The 64 bits of each in reverse order."""
    by_byte = np.packbits(np.unpackbits(bits.byteswap().view(np.uint8), bitorder="little"), bitorder="big")
    return by_byte.view(np.uint64)
