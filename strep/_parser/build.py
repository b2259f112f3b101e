"""Writes packets: one datagram from fields, or the headers of a whole slab from columns."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError
from .._model.types import Direction, Leg
from .layout import RTP_FIXED, STREP_LENGTH, STREP_VERSION

__all__ = ["build_datagram", "write_headers"]


def build_datagram(
    *,
    payload: bytes,
    payload_type: int,
    sequence_number: int,
    rtp_timestamp: int,
    ssrc: int,
    marker: bool = False,
    call_leg_id: uuid.UUID | None = None,
    leg: Leg = Leg.A,
    direction: Direction = Direction.INBOUND,
    csrc: Sequence[int] = (),
    extension: tuple[int, bytes] | None = None,
    padding: int = 0,
) -> bytes:
    """An RTP packet, behind a STREP header when ``call_leg_id`` is given. :func:`parse_datagram` gives it back.

    Raises ConfigurationError for values that do not fit their fields.
    """
    for name, value, bits in (
        ("payload_type", payload_type, 7),
        ("sequence_number", sequence_number, 16),
        ("rtp_timestamp", rtp_timestamp, 32),
        ("ssrc", ssrc, 32),
        *(("csrc", c, 32) for c in csrc),
    ):
        if not 0 <= value < 1 << bits:
            raise ConfigurationError(f"{name} {value}: choose 0 to {(1 << bits) - 1}")
    if 64 <= payload_type <= 95 and marker:
        raise ConfigurationError(f"payload_type {payload_type} with the marker is RTCP to a receiver (RFC 5761)")
    if len(csrc) > 15:
        raise ConfigurationError(f"{len(csrc)} CSRCs: at most 15")
    if not 0 <= padding <= 255:
        raise ConfigurationError(f"padding {padding}: choose 0 to 255 bytes")
    first = 0x80 | (padding > 0) << 5 | (extension is not None) << 4 | len(csrc)
    parts = []
    if call_leg_id is not None:
        byte = 0xC0 | STREP_VERSION << 2 | leg << 1 | direction
        parts.append(struct.pack("!BB6x16s", byte, STREP_LENGTH, call_leg_id.bytes))
    second = marker << 7 | payload_type
    parts.append(struct.pack(f"!BBHII{len(csrc)}I", first, second, sequence_number, rtp_timestamp, ssrc, *csrc))
    if extension is not None:
        profile, data = extension
        if len(data) % 4 or len(data) > 4 * 0xFFFF or not 0 <= profile <= 0xFFFF:
            raise ConfigurationError(f"extension of {len(data)} bytes: whole 32-bit words, profile 0 to 65535")
        parts.append(struct.pack("!HH", profile, len(data) // 4) + data)
    parts.append(payload)
    if padding:
        parts.append(bytes(padding - 1) + bytes([padding]))
    return b"".join(parts)


def write_headers(
    slab: npt.NDArray[np.uint8],
    *,
    payload_type: npt.ArrayLike,
    sequence_number: npt.ArrayLike,
    rtp_timestamp: npt.ArrayLike,
    ssrc: npt.ArrayLike,
    marker: npt.ArrayLike = 0,
    strep: bool = True,
    call_leg_hi: npt.ArrayLike = 0,
    call_leg_lo: npt.ArrayLike = 0,
    leg: npt.ArrayLike = 0,
    direction: npt.ArrayLike = 0,
) -> int:
    """Write the headers of n packets into the rows of ``slab`` (uint8 (n, width)); returns how many bytes a header has.

    Every argument is a column of shape (n,) or one value for all.
    """
    n = len(slab)
    at = STREP_LENGTH if strep else 0
    words = np.zeros((n, (at + RTP_FIXED) // 4), ">u4")

    def column(values: npt.ArrayLike) -> npt.NDArray[np.uint64]:
        return np.asarray(values).astype(np.uint64)

    if strep:
        words[:, 0] = 0xC0180000 | STREP_VERSION << 26 | column(leg) << 25 | column(direction) << 24
        for i, half in ((2, call_leg_hi), (4, call_leg_lo)):
            words[:, i] = column(half) >> np.uint64(32)
            words[:, i + 1] = column(half) & np.uint64(0xFFFFFFFF)
    second = column(marker) << 7 | column(payload_type)
    words[:, at // 4] = 0x80000000 | second << 16 | (column(sequence_number) & np.uint64(0xFFFF))
    words[:, at // 4 + 1] = column(rtp_timestamp) & np.uint64(0xFFFFFFFF)
    words[:, at // 4 + 2] = column(ssrc)
    slab[:, : at + RTP_FIXED] = words.view(np.uint8)
    return at + RTP_FIXED
