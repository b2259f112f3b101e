"""IP fragments (RFC 791, RFC 8200) put together, within bounds. Rare enough to be looked at one by one."""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final

import numpy as np

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
    time, or before 1,024 newer packets, are counted as ``fragment`` in ``skipped``."""

    def __init__(self, skipped: Counter[str]) -> None:
        self._skipped = skipped
        self._open: OrderedDict[_Key, _Open] = OrderedDict()
        self.joined = 0

    def take(self, frames: Frames, rows: I64) -> Whole | None:
        """Rows whose layer is FRAGMENT, in the order of the file."""
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
        found.seen += 1
        found.parts.setdefault(offset, (wire, body[:wire]))
        if offset == 0:
            found.protocol = protocol
        if not more and found.total < 0:
            found.total = offset + wire
        payload = _together(found)
        if payload is None:
            return None
        del self._open[key]
        return _packet(header, found.protocol, payload, found.total)


def _together(found: _Open) -> bytes | None:
    """What was captured of the payload, up to where something is missing; None: not all fragments are there."""
    if found.total < 0 or 0 not in found.parts:
        return None
    reach = 0
    for offset in sorted(found.parts):
        if offset > reach:
            return None
        reach = max(reach, offset + found.parts[offset][0])
    if reach < found.total:
        return None
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
