"""IP fragments (RFC 791, RFC 8200) put together, within bounds. Rare enough to be looked at one by one."""

from __future__ import annotations

import heapq
import struct
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ..._model.time import TICK_NS
from .layers import I64, U8, Frames

__all__ = ["Fragments", "Whole"]

_MOST_OPEN: Final = 1024  # packets of which fragments are missing
_PATIENCE_NS: Final = 30_000_000_000
_LARGEST_BYTES: Final = 65_535
_FRAGMENT_HEADER: Final = 8

_Key = tuple[bytes, int, int]


@dataclass(slots=True)
class _Open:
    since_ns: int
    parts: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # by offset: bytes on the wire, those captured
    total: int = -1  # bytes of all, when the last one has come
    protocol: int = -1  # the first one says
    seen: int = 0
    reach: int = 0  # up to where nothing is missing
    ahead: list[tuple[int, int]] = field(default_factory=list)  # a heap: where fragments behind a hole begin and end

    def add(self, offset: int, wire: int, body: bytes) -> None:
        """The first of an offset counts. Cheap, however many there are and in whatever order they come."""
        self.seen += 1
        if offset in self.parts:
            return
        self.parts[offset] = wire, body
        heapq.heappush(self.ahead, (offset, offset + wire))
        while self.ahead and self.ahead[0][0] <= self.reach:
            self.reach = max(self.reach, heapq.heappop(self.ahead)[1])

    @property
    def whole(self) -> bool:
        return 0 <= self.total <= self.reach and 0 in self.parts


@dataclass(slots=True)
class Whole:
    """IP packets that were put together, one behind the other. Columns of shape (n,): where each begins and ends in
    ``data``, and the record and time of the fragment that completed it."""

    data: U8
    at: I64
    end: I64
    record: I64
    arrival_ns: I64


class Fragments:
    """``joined`` counts packets that were put together. Fragments whose others do not come within 30 s of the file's
    time, or before 1,024 newer packets, are counted as ``fragment`` in ``skipped``.

    ``most_a_tick``: so many fragments are looked at within 10 ms of arrival times, and the others are counted as
    ``fragment_flood``; None: all of them, as there is time for a file."""

    def __init__(self, skipped: Counter[str], most_a_tick: int | None = None) -> None:
        self._skipped = skipped
        self._most = most_a_tick
        self._tick, self._used = -1, 0  # the last tick, and how many were looked at in it
        self._open: OrderedDict[_Key, _Open] = OrderedDict()
        self.joined = 0

    def take(self, frames: Frames, rows: I64) -> Whole | None:
        """Rows whose layer is FRAGMENT, in the order of the file."""
        if self._most is not None:
            rows = self._some(rows, frames.arrival_ns[rows], self._most)
        data = frames.read.data
        packets: list[bytes] = []
        done: list[int] = []
        for row in rows.tolist():
            at, network, end = int(frames.at[row]), int(frames.network[row]), int(frames.end[row])
            header = bytes(data[network:at])
            here = bytes(data[at:end])
            packet = self._add(header, here, int(frames.wire[row]), int(frames.kind[row]), int(frames.arrival_ns[row]))
            if packet is not None:
                packets.append(packet)
                done.append(row)
        if not packets:
            return None
        self.joined += len(packets)
        size = np.array([len(packet) for packet in packets])
        end_at = np.cumsum(size)
        rows = np.array(done)
        joined = np.frombuffer(b"".join(packets), np.uint8)
        return Whole(joined, end_at - size, end_at, frames.record[rows], frames.arrival_ns[rows])

    def _some(self, rows: I64, arrival_ns: I64, most: int) -> I64:
        """Those of the rows that there is time for."""
        tick = np.maximum(np.maximum.accumulate(arrival_ns // TICK_NS), self._tick)
        number = np.arange(len(tick)) - np.searchsorted(tick, tick)
        number[tick == self._tick] += self._used
        self._tick, self._used = int(tick[-1]), int(number[-1]) + 1
        some = number < most
        if some.all():
            return rows
        self._skipped["fragment_flood"] += len(rows) - int(np.count_nonzero(some))
        return rows[some]

    def close(self) -> None:
        """Nothing more comes."""
        while self._open:
            self._give_up()

    def _give_up(self) -> None:
        _, oldest = self._open.popitem(last=False)
        self._skipped["fragment"] += oldest.seen

    def _add(self, header: bytes, body: bytes, wire: int, protocol: int, now_ns: int) -> bytes | None:
        if header[0] >> 4 == 4:
            number, flags = struct.unpack_from("!HH", header, 4)
            offset, more = (flags & 0x1FFF) * 8, flags >> 13 & 1
            key = (header[12:20], protocol, number)
        else:
            protocol, _, flags, number = struct.unpack_from("!BBHI", body)
            offset, more = flags & 0xFFF8, flags & 1
            body, wire = body[_FRAGMENT_HEADER:], wire - _FRAGMENT_HEADER
            key = (header[8:40], -1, number)
        if wire < 0 or offset + wire > _LARGEST_BYTES or (more and wire % 8):
            self._skipped["bad_fragment"] += 1
            return None
        found = self._open.get(key)
        if found is not None and abs(now_ns - found.since_ns) > _PATIENCE_NS:
            del self._open[key]
            self._skipped["fragment"] += found.seen
            found = None
        if found is None:
            if len(self._open) >= _MOST_OPEN:
                self._give_up()
            found = self._open[key] = _Open(now_ns)
        found.add(offset, wire, body[:wire])
        if offset == 0:
            found.protocol = protocol
        if not more and found.total < 0:
            found.total = offset + wire
        if not found.whole:
            return None
        del self._open[key]
        return _packet(header, found.protocol, _together(found), found.total)


def _together(found: _Open) -> bytes:
    """What was captured of the payload, up to where something is missing."""
    out = bytearray()
    for offset in sorted(found.parts):
        if offset > len(out):
            break  # the fragment before was cut when it was captured
        out += found.parts[offset][1][len(out) - offset :]
    return bytes(out[: found.total])


def _packet(header: bytes, protocol: int, payload: bytes, total: int) -> bytes:
    """An IP packet that never was one. Of options and extension headers nothing is kept."""
    if header[0] >> 4 == 4:
        size = min(20 + total, _LARGEST_BYTES)
        return struct.pack("!BBHHHBB", 0x45, 0, size, 0, 0, 64, protocol) + b"\0\0" + header[12:20] + payload
    return struct.pack("!IHBB", 6 << 28, total, protocol, 64) + header[8:40] + payload
