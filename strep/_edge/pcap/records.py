"""Where the records of a pcap or pcapng file are. Records of equal length are found in runs instead of one by one."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.exceptions import CaptureFileError

__all__ = ["NO_TIME_NS", "U8", "Origin", "Records", "gathered", "walk"]

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_Row = tuple[int, int, int, int, int, int]  # the columns of Records

NO_TIME_NS: Final = -1  # of a record that does not tell when it came
_RECORDS_A_TURN: Final = 65_536  # records given at a time
_BYTES_A_TURN: Final = 64 << 20
_LARGEST_RECORD_BYTES: Final = 1 << 18  # a longer one is damage
_RUN_LOOKED_AT: Final = 128  # records that may be of equal length; more once so many were
_SINGLE_RECORDS: Final = 64  # that are read one by one after a run that was too short to be worth it


@dataclass(frozen=True, slots=True)
class Origin:
    """Where packets come from that have no frames around them: an IPv4-mapped address and a port, and the local
    port."""

    source: int
    port: int
    local_port: int


@dataclass(slots=True)
class Records:
    """Captured frames. Columns of shape (n,), int64: ``at`` in the file, ``captured`` and ``wire`` bytes,
    ``arrival_ns`` (NO_TIME_NS: the file does not tell), ``link`` (LINKTYPE), ``interface`` by its number. ``end`` is
    how far the file has been read."""

    at: I64
    captured: I64
    wire: I64
    arrival_ns: I64
    link: I64
    interface: I64
    end: int
    origin: Origin | None = None  # given: these are no frames, but payloads of UDP


def gathered(parts: Iterator[Records]) -> Iterator[Records]:
    """The same, fewer and larger."""
    waiting: list[Records] = []
    for part in parts:
        waiting.append(part)
        bytes_of = part.end - int(waiting[0].at[0]) if len(waiting[0].at) else 0
        if sum(len(one.at) for one in waiting) >= _RECORDS_A_TURN // 2 or bytes_of >= _BYTES_A_TURN:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[Records]) -> Records:
    if len(parts) == 1:
        return parts[0]

    def column(name: str) -> I64:
        return np.concatenate([getattr(part, name) for part in parts])

    return Records(
        column("at"), column("captured"), column("wire"), column("arrival_ns"), column("link"), column("interface"),
        parts[-1].end, parts[0].origin,
    )  # fmt: skip


def walk(data: U8, skipped: Counter[str]) -> Iterator[Records]:
    """All records of a file. A damaged record is counted in ``skipped``, and ends the reading.

    Raises CaptureFileError when the file is neither pcap nor pcapng.
    """
    magic = bytes(data[:4])
    if magic in _PCAP:
        if data.size < 24:
            raise CaptureFileError("the file ends inside its pcap header")
        return _walk_pcap(data, *_PCAP[magic], skipped)
    if magic == b"\x0a\x0d\x0d\x0a":
        return _Pcapng(data, skipped).walk()
    what = "is empty" if not data.size else f"begins with {magic.hex()}"
    raise CaptureFileError(f"the file {what}: neither pcap nor pcapng, rtpdump or mjr")


_PCAP: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}


def _column(data: U8, order: str, at: int, count: int, stride: int) -> npt.NDArray[np.uint32]:
    return np.ndarray((count,), np.dtype(order + "u4"), data, at, (stride,))


def _walk_pcap(data: U8, order: str, unit_ns: int, skipped: Counter[str]) -> Iterator[Records]:
    link = struct.unpack_from(order + "I", data.data, 20)[0] & 0x0FFF_FFFF
    size, at, ahead = data.size, 24, _RUN_LOOKED_AT
    header, raw = struct.Struct(order + "IIII"), data.data
    while at + 16 <= size:
        parts: list[tuple[I64, I64]] = []
        count = 0
        while at + 16 <= size and count < _RECORDS_A_TURN:
            captured = header.unpack_from(raw, at)[2]
            if captured > _LARGEST_RECORD_BYTES or at + 16 + captured > size:
                skipped["truncated_file" if captured <= _LARGEST_RECORD_BYTES else "bad_record"] += 1
                size = at  # nothing after this can be trusted
                break
            stride = 16 + captured
            guess = min((size - at) // stride, _RECORDS_A_TURN - count, ahead)
            same = _column(data, order, at + 8, guess, stride) == captured
            run = guess if same.all() else int(np.argmin(same))
            ahead = ahead * 8 if run == guess else _RUN_LOOKED_AT
            starts = at + stride * np.arange(run)
            parts.append((starts, np.full(run, captured)))
            count += run
            at += stride * run
            if run < 8:
                one_by_one: list[int] = []
                sizes: list[int] = []
                while at + 16 <= size and len(sizes) < _SINGLE_RECORDS:
                    captured = header.unpack_from(raw, at)[2]
                    if captured > _LARGEST_RECORD_BYTES or at + 16 + captured > size:
                        break
                    one_by_one.append(at)
                    sizes.append(captured)
                    at += 16 + captured
                parts.append((np.array(one_by_one, np.int64), np.array(sizes, np.int64)))
                count += len(sizes)
        if not parts:
            return
        starts = np.concatenate([p[0] for p in parts])
        fields = _rows(data, starts, 16).view(order + "u4").astype(np.int64)
        yield Records(
            starts + 16,
            np.concatenate([p[1] for p in parts]),
            fields[:, 3],
            fields[:, 0] * 1_000_000_000 + fields[:, 1] * unit_ns,
            np.full(len(starts), link),
            np.zeros(len(starts), np.int64),
            at,
        )
    if at < size:
        skipped["truncated_file"] += 1


def _rows(data: U8, starts: I64, width: int) -> U8:
    """``width`` bytes from each of ``starts``, uint8 (n, width); all must lie in the data."""
    items = np.ndarray((max(data.size - width + 1, 0),), np.dtype((np.void, width)), data, 0, (1,))
    return items[starts].view(np.uint8).reshape(len(starts), width)


@dataclass(slots=True)
class _Interface:
    link: int
    units_a_second: int
    offset_s: int
    snap: int


class _Pcapng:
    """Block structure of pcapng (draft-ietf-opsawg-pcapng): sections, interfaces, packets; the rest is skipped."""

    def __init__(self, data: U8, skipped: Counter[str]) -> None:
        self._data = data
        self._bytes = data.data
        self._skipped = skipped
        self._order = "<"
        self._interfaces: list[_Interface] = []
        self._ahead = _RUN_LOOKED_AT

    def walk(self) -> Iterator[Records]:
        data, at = self._data, 0
        rows: list[_Row] = []
        while at + 12 <= data.size:
            kind = struct.unpack_from(self._order + "I", self._bytes, at)[0]
            if kind == 0x0A0D0D0A:
                mark = bytes(data[at + 8 : at + 12])
                if mark not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
                    self._skipped["bad_block"] += 1
                    break
                self._order = "<" if mark == b"\x4d\x3c\x2b\x1a" else ">"
                self._interfaces = []
            length = struct.unpack_from(self._order + "I", self._bytes, at + 4)[0]
            if length < 12 or length % 4 or at + length > data.size:
                self._skipped["truncated_file" if at + length > data.size else "bad_block"] += 1
                break
            if kind == 1:
                self._interface(at, length)
            elif kind == 6:
                run = self._run(at, length)
                if run >= 8:
                    if rows:
                        yield self._records(rows, at)
                        rows = []
                    yield self._enhanced_run(at, length, run)
                    at += length * run
                    continue
                self._enhanced(at, length, rows)
            elif kind == 3:
                self._simple(at, length, rows)
            elif kind == 2:
                self._obsolete(at, length, rows)
            at += length
            if len(rows) >= _RECORDS_A_TURN:
                yield self._records(rows, at)
                rows = []
        else:
            if at < data.size:
                self._skipped["truncated_file"] += 1
        if rows:
            yield self._records(rows, at)

    def _records(self, rows: list[_Row], end: int) -> Records:
        table = np.array(rows, np.int64)
        at, captured, wire, arrival_ns, link, interface = (np.ascontiguousarray(table[:, i]) for i in range(6))
        return Records(at, captured, wire, arrival_ns, link, interface, end)

    def _interface(self, at: int, length: int) -> None:
        if length < 20:
            self._skipped["bad_block"] += 1
            return
        link, snap = struct.unpack_from(self._order + "HxxI", self._bytes, at + 8)
        units, offset = 1_000_000, 0
        option, end = at + 16, at + length - 4
        while option + 4 <= end:
            code, size = struct.unpack_from(self._order + "HH", self._bytes, option)
            if code == 0 or option + 4 + size > end:
                break
            if code == 9 and size == 1:  # if_tsresol
                value = int(self._data[option + 4])
                units = 1 << (value & 0x7F) if value & 0x80 else 10 ** (value & 0x7F)
            elif code == 14 and size == 8:  # if_tsoffset
                offset = struct.unpack_from(self._order + "q", self._bytes, option + 4)[0]
            option += 4 + (size + 3) // 4 * 4
        self._interfaces.append(_Interface(link, max(units, 1), offset, snap))

    def _time_ns(self, interface: _Interface, high: int, low: int) -> int:
        stamp = (high << 32 | low) * 1_000_000_000 // interface.units_a_second + interface.offset_s * 1_000_000_000
        return min(max(stamp, 0), 1 << 62)

    def _packet(
        self, number: int, high: int, low: int, captured: int, wire: int, at: int, room: int, rows: list[_Row]
    ) -> None:
        if number >= len(self._interfaces):
            self._skipped["unknown_interface"] += 1
        elif captured > room:
            self._skipped["bad_block"] += 1
        else:
            interface = self._interfaces[number]
            rows.append((at, captured, wire, self._time_ns(interface, high, low), interface.link, number))

    def _enhanced(self, at: int, length: int, rows: list[_Row]) -> None:
        if length < 32:
            self._skipped["bad_block"] += 1
            return
        number, high, low, captured, wire = struct.unpack_from(self._order + "5I", self._bytes, at + 8)
        self._packet(number, high, low, captured, wire, at + 28, length - 32, rows)

    def _obsolete(self, at: int, length: int, rows: list[_Row]) -> None:
        if length < 32:
            self._skipped["bad_block"] += 1
            return
        number, high, low, captured, wire = struct.unpack_from(self._order + "HxxIIII", self._bytes, at + 8)
        self._packet(number, high, low, captured, wire, at + 28, length - 32, rows)

    def _simple(self, at: int, length: int, rows: list[_Row]) -> None:
        if length < 16 or not self._interfaces:
            self._skipped["bad_block"] += 1
            return
        wire = struct.unpack_from(self._order + "I", self._bytes, at + 8)[0]
        captured = min(wire, length - 16, self._interfaces[0].snap or wire)
        rows.append((at + 12, captured, wire, NO_TIME_NS, self._interfaces[0].link, 0))

    def _run(self, at: int, length: int) -> int:
        """How many enhanced packet blocks of the same length and captured length follow each other from here."""
        if length < 32:
            return 0
        data, order = self._data, self._order
        guess = min((data.size - at) // length, self._ahead)
        same = (_column(data, order, at, guess, length) == 6) & (_column(data, order, at + 4, guess, length) == length)
        captured = _column(data, order, at + 20, guess, length)
        number = _column(data, order, at + 8, guess, length)
        same &= (captured == captured[0]) & (number == number[0])
        if captured[0] > length - 32 or number[0] >= len(self._interfaces):
            return 0
        run = guess if same.all() else int(np.argmin(same))
        self._ahead = min(self._ahead * 8, _RECORDS_A_TURN) if run == guess else _RUN_LOOKED_AT
        return run

    def _enhanced_run(self, at: int, length: int, run: int) -> Records:
        data, order = self._data, self._order
        starts = at + length * np.arange(run)
        number = int(_column(data, order, at + 8, 1, length)[0])
        interface = self._interfaces[number]
        high = _column(data, order, at + 12, run, length).astype(np.uint64)
        low = _column(data, order, at + 16, run, length).astype(np.uint64)
        stamp = high << np.uint64(32) | low
        units = interface.units_a_second
        if 1_000_000_000 % units == 0 and int(stamp.max()) < (1 << 62) // (1_000_000_000 // units):
            ns = stamp.astype(np.int64) * (1_000_000_000 // units) + interface.offset_s * 1_000_000_000
        else:
            ns = np.array([self._time_ns(interface, int(s) >> 32, int(s) & 0xFFFF_FFFF) for s in stamp], np.int64)
        return Records(
            starts + 28,
            np.full(run, int(_column(data, order, at + 20, 1, length)[0])),
            _column(data, order, at + 24, run, length).astype(np.int64),
            ns,
            np.full(run, interface.link),
            np.full(run, number),
            at + length * run,
        )
