"""One datagram, readably: the reference that the vectorized parser is tested against, and the public parser."""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

from .._model.exceptions import ParseError
from .._model.types import DatagramKind, Direction, Leg
from .layout import (
    KEEPALIVE_BYTES,
    KEEPALIVE_LONGEST,
    STUN_COOKIE,
    STUN_HEADER,
    STUN_LAST,
    ZRTP_COOKIE,
    ZRTP_FIRST,
    ZRTP_HEADER,
    ZRTP_LAST,
    Status,
)

__all__ = ["Inspection", "Packet", "classify", "inspect_datagram", "parse_datagram"]


@dataclass(frozen=True, slots=True)
class Packet:
    """A parsed RTP packet and its STREP header, if it had one (then ``call_leg_id`` is not None)."""

    call_leg_id: uuid.UUID | None
    leg: Leg | None
    direction: Direction | None
    marker: bool
    payload_type: int
    sequence_number: int
    rtp_timestamp: int
    ssrc: int
    csrc: tuple[int, ...]
    extension: tuple[int, bytes] | None  # profile, data (RFC 3550 section 5.3.1)
    padding_length: int
    payload: bytes


@dataclass(slots=True)
class Inspection:
    """Everything that could be read of a datagram, and its status. What could not is 0."""

    kind: DatagramKind
    status: Status = Status.OK
    version: int = 0
    leg: int = 0
    direction: int = 0
    call_leg_id: int = 0
    header_length: int = 0
    marker: int = 0
    payload_type: int = 0
    sequence_number: int = 0
    rtp_timestamp: int = 0
    ssrc: int = 0
    payload_offset: int = 0
    payload_length: int = 0


def classify(data: bytes | bytearray | memoryview) -> DatagramKind:
    """What a datagram is by its first bytes (STREP magic, RFC 7983, RFC 5761, magic cookies)."""
    if len(data) <= KEEPALIVE_LONGEST and all(byte in KEEPALIVE_BYTES for byte in data):
        return DatagramKind.KEEPALIVE
    first = data[0]
    match first >> 6:
        case 0b11:
            return DatagramKind.STREP
        case 0b10:
            return DatagramKind.RTCP if len(data) > 1 and 192 <= data[1] <= 223 else DatagramKind.RTP
        case 0b01:
            return DatagramKind.SIP if ord("A") <= first <= ord("Z") else DatagramKind.OTHER
    cookie = int.from_bytes(data[4:8], "big")
    if first <= STUN_LAST and cookie == STUN_COOKIE and len(data) >= STUN_HEADER:
        return DatagramKind.STUN
    if ZRTP_FIRST <= first <= ZRTP_LAST and cookie == ZRTP_COOKIE and len(data) >= ZRTP_HEADER:
        return DatagramKind.ZRTP
    return DatagramKind.DTLS if 20 <= first <= 63 else DatagramKind.T38


_NOT_MEDIA = {
    DatagramKind.RTCP: Status.KIND_RTCP,
    DatagramKind.SIP: Status.KIND_SIP,
    DatagramKind.T38: Status.KIND_T38,
    DatagramKind.DTLS: Status.KIND_DTLS,
    DatagramKind.STUN: Status.KIND_STUN,
    DatagramKind.ZRTP: Status.KIND_ZRTP,
    DatagramKind.KEEPALIVE: Status.KIND_KEEPALIVE,
    DatagramKind.OTHER: Status.KIND_OTHER,
}


def inspect_datagram(data: bytes | bytearray | memoryview) -> Inspection:
    """Read as much of a datagram as there is. Never raises: if this raises anything, that is a bug."""
    found = Inspection(classify(data))
    if found.kind in _NOT_MEDIA:
        found.status = _NOT_MEDIA[found.kind]
        return found
    at = 0
    if found.kind is DatagramKind.STREP:
        found.version = data[0] >> 2 & 0b1111
        found.leg = data[0] >> 1 & 1
        found.direction = data[0] & 1
        if len(data) >= 2:
            found.header_length = data[1]
        if len(data) < 24:
            found.status = Status.STREP_SHORT
            return found
        found.call_leg_id = int.from_bytes(data[8:24], "big")
        if found.version != 1:
            found.status = Status.STREP_VERSION
            return found
        if found.header_length != 24:
            found.status = Status.STREP_HEADER_LENGTH
            return found
        at = 24
    _inspect_rtp(data, at, found)
    return found


def _inspect_rtp(data: bytes | bytearray | memoryview, at: int, found: Inspection) -> None:
    if len(data) < at + 12:
        found.status = Status.RTP_SHORT
        return
    first, second, sequence_number, rtp_timestamp, ssrc = struct.unpack_from("!BBHII", data, at)
    if first >> 6 != 2:
        found.status = Status.RTP_VERSION
        return
    if 192 <= second <= 223:  # RFC 5761: RTCP behind a STREP header
        found.status = Status.KIND_RTCP
        return
    found.marker = second >> 7
    found.payload_type = second & 0x7F
    found.sequence_number, found.rtp_timestamp, found.ssrc = sequence_number, rtp_timestamp, ssrc

    begin, end = at + 12 + 4 * (first & 0x0F), len(data)
    if begin > end:
        found.status = Status.RTP_CSRC
        return
    if first & 0x10:
        if begin + 4 > end:
            found.status = Status.RTP_EXTENSION
            return
        begin += 4 + 4 * struct.unpack_from("!H", data, begin + 2)[0]
        if begin > end:
            found.status = Status.RTP_EXTENSION
            return
    if first & 0x20:
        if begin == end or not 1 <= data[end - 1] <= end - begin:
            found.status = Status.RTP_PADDING
            return
        end -= data[end - 1]
    found.payload_offset, found.payload_length = begin, end - begin


def parse_datagram(data: bytes | bytearray | memoryview) -> Packet:
    """Parse one UDP payload: an RTP packet, with or without a STREP header.

    Raises ParseError (with ``.status``) for anything else, and nothing else.
    """
    found = inspect_datagram(data)
    if found.status is not Status.OK:
        raise ParseError(
            f"{len(data)} bytes of kind {found.kind.name}: {found.status.name.lower().replace('_', ' ')}", found.status
        )
    strep = found.kind is DatagramKind.STREP
    at = 24 if strep else 0
    count = data[at] & 0x0F
    after = at + 12 + 4 * count
    extension = None
    if data[at] & 0x10:
        profile, words = struct.unpack_from("!HH", data, after)
        extension = profile, bytes(data[after + 4 : after + 4 + 4 * words])
    end = found.payload_offset + found.payload_length
    return Packet(
        call_leg_id=uuid.UUID(int=found.call_leg_id) if strep else None,
        leg=Leg(found.leg) if strep else None,
        direction=Direction(found.direction) if strep else None,
        marker=bool(found.marker),
        payload_type=found.payload_type,
        sequence_number=found.sequence_number,
        rtp_timestamp=found.rtp_timestamp,
        ssrc=found.ssrc,
        csrc=struct.unpack_from(f"!{count}I", data, at + 12),
        extension=extension,
        padding_length=len(data) - end,
        payload=bytes(data[found.payload_offset : end]),
    )
