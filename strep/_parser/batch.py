"""The vectorized parser: a slab of datagrams in, columns out. Never raises, never reads beyond a datagram's length.

A batch in which every datagram has the same plain shape (STREP version 1 or nothing, then RTP without CSRC, extension
and padding) takes the short way: a handful of array operations. Others go the long way.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .._types import DatagramKind
from .columns import PacketColumns
from .layout import DTLS_FIRST, DTLS_LAST, RTCP_FIRST, RTCP_LAST, RTP_FIXED, STREP_LENGTH, Status

__all__ = ["parse_batch"]

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]

_PLAIN_STREP: Final = STREP_LENGTH + RTP_FIXED


def parse_batch(slab: U8, length: I32) -> PacketColumns:
    """Parse ``n`` datagrams.

    ``slab`` uint8 (n, width), width at least 64 and a multiple of 4, rows contiguous; ``length`` int32 (n,), the
    datagrams' lengths on the wire (more than width: truncated). What stands behind a datagram's end is never used.
    """
    n, width = slab.shape
    if not n:
        return _empty(0)
    # nine big-endian words: both headers of the usual datagram
    words = np.ascontiguousarray(slab[:, :_PLAIN_STREP]).view(">u4").T.astype(np.uint32)
    first = words[0]
    shortest, longest = int(length.min()), int(length.max())
    # C4..C7 18: magic, version 1, any leg and direction, HeaderLen 24
    usual = longest <= width and shortest >= _PLAIN_STREP and _plain_strep(first)
    if usual and _plain_rtp(words[6]):
        return _plain(words, 6, length, True)
    if longest <= width and shortest >= RTP_FIXED and _plain_rtp(first):
        return _plain(words, 0, length, False)
    return _general(slab, length, words)


def _plain_strep(word: U32) -> bool:
    return bool(((word & np.uint32(0xFCFF0000)) == np.uint32(0xC4180000)).all())


def _plain_rtp(word: U32) -> bool:
    """Whether all are version 2, without padding, extension and CSRC, and not RTCP."""
    plain = (word & np.uint32(0xFF000000)) == np.uint32(0x80000000)
    # RFC 5761: second byte 192..223 is RTCP, 110xxxxx
    plain &= (word & np.uint32(0x00E00000)) != np.uint32(0x00C00000)
    return bool(plain.all())


def _plain(words: U32, at: int, length: I32, strep: bool) -> PacketColumns:
    n = words.shape[1]
    word = words[at]
    second = (word >> np.uint32(16)).astype(np.uint8)
    header = (at + 3) * 4
    zero = np.zeros(n, np.uint8)
    if strep:
        bits = words[0] >> np.uint32(24)
        hi = words[2].astype(np.uint64)
        hi <<= np.uint64(32)
        hi |= words[3]
        lo = words[4].astype(np.uint64)
        lo <<= np.uint64(32)
        lo |= words[5]
        leg = ((bits >> np.uint32(1)) & np.uint32(1)).astype(np.uint8)
        direction = (bits & np.uint32(1)).astype(np.uint8)
    else:
        hi, lo = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
        leg, direction = zero.copy(), zero.copy()
    return PacketColumns(
        kind=zero.copy() if strep else np.full(n, DatagramKind.RTP, np.uint8),
        status=zero,
        version=np.full(n, int(strep), np.uint8),
        leg=leg,
        direction=direction,
        call_leg_hi=hi,
        call_leg_lo=lo,
        header_length=np.full(n, STREP_LENGTH if strep else 0, np.int32),
        marker=second >> np.uint8(7),
        payload_type=second & np.uint8(0x7F),
        sequence_number=word.astype(np.uint16),
        rtp_timestamp=words[at + 1],
        ssrc=words[at + 2],
        payload_offset=np.full(n, header, np.int32),
        payload_length=length - np.int32(header),
    )


def _empty(n: int) -> PacketColumns:
    def byte() -> U8:
        return np.zeros(n, np.uint8)

    return PacketColumns(
        kind=byte(),
        status=byte(),
        version=byte(),
        leg=byte(),
        direction=byte(),
        call_leg_hi=np.zeros(n, np.uint64),
        call_leg_lo=np.zeros(n, np.uint64),
        header_length=np.zeros(n, np.int32),
        marker=byte(),
        payload_type=byte(),
        sequence_number=np.zeros(n, np.uint16),
        rtp_timestamp=np.zeros(n, np.uint32),
        ssrc=np.zeros(n, np.uint32),
        payload_offset=np.zeros(n, np.int32),
        payload_length=np.zeros(n, np.int32),
    )


def _general(slab: U8, length: I32, words: U32) -> PacketColumns:
    n, width = slab.shape
    out = _empty(n)
    status = out.status
    kept = np.minimum(length, width)
    byte0 = (words[0] >> np.uint32(24)).astype(np.uint8)
    byte1 = (words[0] >> np.uint32(16)).astype(np.uint8)
    byte0[length < 1] = 0
    byte1[length < 2] = 0

    top = byte0 >> np.uint8(6)
    kind = out.kind
    kind[:] = DatagramKind.OTHER
    kind[top == 3] = DatagramKind.STREP
    rtcp = (byte1 >= RTCP_FIRST) & (byte1 <= RTCP_LAST)
    kind[(top == 2) & ~rtcp] = DatagramKind.RTP
    kind[(top == 2) & rtcp] = DatagramKind.RTCP
    kind[(byte0 >= ord("A")) & (byte0 <= ord("Z"))] = DatagramKind.SIP
    kind[top == 0] = DatagramKind.T38
    kind[(byte0 >= DTLS_FIRST) & (byte0 <= DTLS_LAST)] = DatagramKind.DTLS
    kind[length < 1] = DatagramKind.OTHER

    def refuse(rows: npt.NDArray[np.bool_], reason: Status) -> None:
        status[rows & (status == Status.OK)] = reason

    strep = kind == DatagramKind.STREP
    rtp = kind == DatagramKind.RTP
    refuse(length > width, Status.TRUNCATED)
    refuse(length < 1, Status.EMPTY)
    for other, reason in _KINDS:
        refuse(kind == other, reason)

    # the STREP header
    out.version[strep] = (byte0[strep] >> np.uint8(2)) & np.uint8(15)
    out.header_length[strep & (kept >= 2)] = byte1[strep & (kept >= 2)]
    refuse(strep & (kept < STREP_LENGTH), Status.STREP_SHORT)
    refuse(strep & (out.version != 1), Status.STREP_VERSION)
    refuse(strep & (out.header_length != STREP_LENGTH), Status.STREP_HEADER_LENGTH)
    out.leg[strep] = (byte0[strep] >> np.uint8(1)) & np.uint8(1)
    out.direction[strep] = byte0[strep] & np.uint8(1)
    whole = strep & (kept >= STREP_LENGTH)
    wide = words.astype(np.uint64)
    out.call_leg_hi[whole] = (wide[2] << np.uint64(32) | wide[3])[whole]
    out.call_leg_lo[whole] = (wide[4] << np.uint64(32) | wide[5])[whole]

    # the fixed RTP header
    at = np.where(strep, STREP_LENGTH, 0).astype(np.int32)
    usable = (strep | rtp) & ((status == Status.OK) | (status == Status.TRUNCATED))
    refuse(usable & (kept < at + RTP_FIXED), Status.RTP_SHORT)
    readable = usable & (kept >= at + RTP_FIXED)
    w0, w1, w2 = (np.where(strep, words[6 + i], words[i]) for i in range(3))
    rtp0, rtp1 = w0 >> np.uint32(24), (w0 >> np.uint32(16)) & np.uint32(0xFF)
    right = readable & ((rtp0 >> np.uint32(6)) == 2)
    refuse(readable & ~right, Status.RTP_VERSION)
    refuse(right & (rtp1 >= RTCP_FIRST) & (rtp1 <= RTCP_LAST), Status.KIND_RTCP)
    good = right & ~((rtp1 >= RTCP_FIRST) & (rtp1 <= RTCP_LAST))
    out.marker[good] = (rtp1 >> np.uint32(7))[good]
    out.payload_type[good] = (rtp1 & np.uint32(0x7F))[good]
    out.sequence_number[good] = (w0 & np.uint32(0xFFFF))[good]
    out.rtp_timestamp[good] = w1[good]
    out.ssrc[good] = w2[good]

    # CSRC, extension, padding: each proved to lie within the datagram before it is read
    rows = np.flatnonzero(good & (status == Status.OK))
    end = length[rows].astype(np.int64)
    begin = at[rows] + RTP_FIXED + 4 * (rtp0[rows] & np.uint32(15)).astype(np.int64)
    fits = begin <= end
    status[rows[~fits]] = Status.RTP_CSRC
    rows, begin, end = rows[fits], begin[fits], end[fits]

    extended = ((rtp0[rows] >> np.uint32(4)) & np.uint32(1)).astype(np.bool_)
    whole_word = ~extended | (begin + 4 <= end)
    lengths_at = np.where(extended & whole_word, begin + 2, 0)
    # the elements inside (RFC 8285, one- and two-byte, or any other profile) are skipped unread by their length
    extension_words = slab[rows, lengths_at].astype(np.int64) << 8 | slab[rows, lengths_at + 1]
    begin = begin + np.where(extended, 4 + 4 * extension_words, 0)
    fits = whole_word & (begin <= end)
    status[rows[~fits]] = Status.RTP_EXTENSION
    rows, begin, end = rows[fits], begin[fits], end[fits]

    padded = ((rtp0[rows] >> np.uint32(5)) & np.uint32(1)).astype(np.bool_)
    has_last = padded & (begin < end)
    count = slab[rows, np.where(has_last, end - 1, 0)].astype(np.int64)
    fits = ~padded | (has_last & (count >= 1) & (count <= end - begin))
    status[rows[~fits]] = Status.RTP_PADDING
    end = end - np.where(padded, count, 0)
    rows, begin, end = rows[fits], begin[fits], end[fits]
    out.payload_offset[rows] = begin
    out.payload_length[rows] = end - begin
    return out


_KINDS: Final = (
    (DatagramKind.RTCP, Status.KIND_RTCP),
    (DatagramKind.SIP, Status.KIND_SIP),
    (DatagramKind.T38, Status.KIND_T38),
    (DatagramKind.DTLS, Status.KIND_DTLS),
    (DatagramKind.OTHER, Status.KIND_OTHER),
)
