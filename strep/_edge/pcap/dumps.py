"""Files of RTP packets without frames around them: rtpdump (rtptools, Wireshark) and mjr (Janus)."""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np

from ..._model.addresses import MAPPED_PREFIX
from ..._model.exceptions import CaptureFileError
from .records import NO_TIME_NS, U8, Origin, Records

__all__ = ["walk_dump"]

_RECORDS_A_TURN: Final = 65_536
_RTPDUMP: Final = b"#!rtpplay1.0 "
_LONGEST_LINE: Final = 256
_MJR: Final = (b"MJR00001", b"MJR00002", b"MEETECHO")
_LATEST_S: Final = 1 << 32

_Row = tuple[int, int, int, int]  # at, captured, wire, arrival_ns


def walk_dump(data: U8, skipped: Counter[str]) -> Iterator[Records] | None:
    """The packets of a file; None: it is no such file. Raises CaptureFileError when it is one that holds no audio."""
    head = bytes(data[:_LONGEST_LINE])
    if head.startswith(_RTPDUMP):
        return _rtpdump(data, head, skipped)
    if head[:8] in _MJR:
        return _mjr(data, head[:8], skipped)
    return None


def _gathered(rows: Iterator[_Row], origin: Origin) -> Iterator[Records]:
    part: list[_Row] = []
    for row in rows:
        part.append(row)
        if len(part) >= _RECORDS_A_TURN:
            yield _records(part, origin)
            part = []
    if part:
        yield _records(part, origin)


def _records(rows: list[_Row], origin: Origin) -> Records:
    at, captured, wire, arrival_ns = (np.ascontiguousarray(column) for column in np.array(rows, np.int64).T)
    zero = np.zeros(len(rows), np.int64)
    return Records(at, captured, wire, arrival_ns, zero, zero, int(at[-1] + captured[-1]), origin)


def _rtpdump(data: U8, head: bytes, skipped: Counter[str]) -> Iterator[Records]:
    """A line with the address that was listened on; start (seconds, microseconds), source, port, 2 bytes of padding.
    Each packet: its length with these 8 bytes, its length on the wire (0: RTCP), milliseconds since the start."""
    match = re.match(rb"#!rtpplay1\.0 ([0-9A-Fa-f.:%\w]*)/(\d{1,5})\r?\n", head)
    if match is None or data.size < match.end() + 16:
        raise CaptureFileError("the file ends inside its rtpdump header, or that is damaged")
    at = match.end()
    second, micro, source, port = struct.unpack_from("!IIIH", data.data, at)
    origin = Origin(source | MAPPED_PREFIX, port, int(match[2]) & 0xFFFF)
    start_ns = second * 1_000_000_000 + min(micro, 999_999) * 1000

    def rows() -> Iterator[_Row]:
        here = at + 16
        while here + 8 <= data.size:
            length, wire, offset_ms = struct.unpack_from("!HHI", data.data, here)
            if length < 8 or here + length > data.size:
                skipped["bad_record" if length < 8 else "truncated_file"] += 1
                return
            captured = length - 8
            yield here + 8, captured, max(wire, captured), start_ns + offset_ms * 1_000_000
            here += length
        if here < data.size:
            skipped["truncated_file"] += 1

    return _gathered(rows(), origin)


def _mjr(data: U8, magic: bytes, skipped: Counter[str]) -> Iterator[Records]:
    """A header with JSON (since 2016), or "audio" or "video"; then packets, each behind MEETECHO and its length; in
    version 2 behind MEET, milliseconds since the first one, and its length."""
    if data.size < 10:
        raise CaptureFileError("the file ends inside its mjr header")
    size = struct.unpack_from("!H", data.data, 8)[0]
    about = bytes(data[10 : 10 + size])
    start_ns = 0
    if magic == b"MEETECHO":
        kind = about.decode("ascii", "replace")
    else:
        try:
            said = json.loads(about)
            kind = {"a": "audio", "v": "video", "d": "data"}.get(said["t"], str(said["t"]))
            since = said.get("u", said.get("s", 0))
            start_ns = int(since) * 1000 if isinstance(since, int) and 0 <= since < _LATEST_S * 1_000_000 else 0
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CaptureFileError(f"the header of the mjr file is damaged: {error}") from error
    if kind != "audio":
        raise CaptureFileError(f"the mjr file holds {kind[:20]!r}: only those of audio can be read")
    timed = magic == b"MJR00002"
    mark, header = (b"MEET", struct.Struct("!4sIH")) if timed else (b"MEETECHO", struct.Struct("!8sH"))

    def rows() -> Iterator[_Row]:
        here = 10 + size
        while here + header.size <= data.size:
            found, *offset, length = header.unpack_from(data.data, here)
            here += header.size
            if found != mark or here + length > data.size:
                skipped["bad_record" if found != mark else "truncated_file"] += 1
                return
            yield here, length, length, start_ns + offset[0] * 1_000_000 if timed else NO_TIME_NS
            here += length
        if here < data.size:
            skipped["truncated_file"] += 1

    return _gathered(rows(), Origin(MAPPED_PREFIX, 0, 0))
