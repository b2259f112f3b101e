"""Frames on their way through their layers, many at a time. Every length is checked before anything is read."""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["I64", "MOST_NAMES", "U8", "U64", "Bytes", "Frames", "Layer", "count_named"]

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

MOST_NAMES: Final = 64  # causes made of numbers in the file; what is beyond is "other"


class Layer(IntEnum):
    """What begins at a frame's place."""

    LOST = 0  # left out, and counted
    LINK = 1
    ETHERNET = 2
    ETHERTYPE = 3  # what ``kind``, an EtherType, says
    MPLS = 4
    PPPOE = 5
    PPP = 6
    IP = 7
    TRANSPORT = 8  # what ``kind``, an IP protocol, says
    GRE = 9
    UDP = 10
    HEP = 11
    DATAGRAM = 12  # nothing more: the payload of a datagram
    FRAGMENT = 13  # of an IP packet: to be put together


def count_named(counter: Counter[str], name: str, count: int) -> None:
    """Count under a name that a file may have made up: only so many names are kept."""
    counter[name if name in counter or len(counter) < MOST_NAMES else "other"] += count


class Bytes:
    """Reads fields at many places at once. Beyond the end of the data it reads its last byte: lengths are checked
    elsewhere."""

    def __init__(self, data: U8) -> None:
        self.data = data

    def u8(self, at: I64) -> I64:
        return self.data.take(at, mode="clip").astype(np.int64)

    def u16(self, at: I64) -> I64:
        return self.u8(at) << 8 | self.u8(at + 1)

    def u32(self, at: I64) -> I64:
        return self.u16(at) << 16 | self.u16(at + 2)

    def u64(self, at: I64) -> U64:
        return self.u32(at).astype(np.uint64) << np.uint64(32) | self.u32(at + 4).astype(np.uint64)


class Frames:
    """Columns of shape (n,). A frame's next layer begins at ``at``; its bytes end before ``end``. ``kind`` is what the
    layer before said of this one. ``arrival_ns`` and ``record`` are those of the frame. Addresses, ports and ``wire``,
    the bytes a datagram had, are known when its layer is DATAGRAM."""

    def __init__(
        self, data: U8, at: I64, end: I64, kind: I64, arrival_ns: I64, record: I64, skipped: Counter[str],
        encapsulated: Counter[str], layer: Layer = Layer.LINK,
    ) -> None:  # fmt: skip
        n = len(at)
        self.read = Bytes(data)
        self.at, self.end, self.kind = at.copy(), end.copy(), kind.copy()
        self.arrival_ns, self.record = arrival_ns, record
        self.layer = np.full(n, layer, np.uint8)
        self.fresh = np.full(n, layer == Layer.LINK)  # nothing of the frame has been read
        self.wire = np.zeros(n, np.int64)
        self.hi, self.lo = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
        self.to_hi, self.to_lo = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
        self.source_port, self.local_port = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.role = np.full(n, -1, np.int64)
        self.network = np.full(n, -1, np.int64)  # where the last IP header began
        self.skipped = skipped
        self.encapsulated = encapsulated

    def drop(self, rows: I64, cause: str) -> None:
        if rows.size:
            count_named(self.skipped, cause, rows.size)
            self.layer[rows] = Layer.LOST

    def drop_by_name(self, rows: I64, names: dict[int, str], unknown: str) -> None:
        """Leave rows out, each under the name of its kind."""
        if rows.size:
            kinds, counts = np.unique(self.kind[rows], return_counts=True)
            for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
                count_named(self.skipped, names.get(kind, unknown), count)
            self.layer[rows] = Layer.LOST

    def having(self, rows: I64, size: I64 | int) -> I64:
        """Those of ``rows`` that have ``size`` bytes more; the others are left out."""
        fits = self.at[rows] + size <= self.end[rows]
        if fits.all():
            return rows
        self.drop(rows[~fits], "short")
        return rows[fits]

    def go(self, rows: I64, layer: Layer, by: I64 | int) -> None:
        """``rows`` go ``by`` bytes on, where ``layer`` begins."""
        self.at[rows] += by
        self.layer[rows] = layer

    def enter(self, rows: I64, name: str) -> None:
        """Count what ``rows`` are packed into."""
        if rows.size:
            self.encapsulated[name] += rows.size
