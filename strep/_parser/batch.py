"""The vectorized parser: a slab of datagrams in, columns out. Never raises, never reads beyond a datagram's length.

Datagrams of the same plain shape (STREP version 1 or nothing, then RTP without CSRC, extension and padding) take the
short way, a handful of array operations, if most of a batch are of it. Others go the long way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.types import DatagramKind
from .columns import COLUMN_NAMES, PacketColumns
from .layout import (
    DTLS_FIRST,
    DTLS_LAST,
    KEEPALIVE_BYTES,
    KEEPALIVE_LONGEST,
    RTCP_FIRST,
    RTCP_LAST,
    RTP_FIXED,
    STREP_LENGTH,
    STUN_COOKIE,
    STUN_HEADER,
    STUN_LAST,
    ZRTP_COOKIE,
    ZRTP_FIRST,
    ZRTP_HEADER,
    ZRTP_LAST,
    Status,
)

__all__ = ["parse_apart", "parse_batch"]

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

_PLAIN_STREP: Final = STREP_LENGTH + RTP_FIXED  # bytes of both headers without options
_CONSTANT_ROWS: Final = 8192  # up to which a column of one value is shared


def parse_batch(slab: U8, length: I32, kept: I32 | None = None, first_row: I64 | None = None) -> PacketColumns:
    """Parse ``n`` datagrams.

    ``slab`` uint8 (n, width), width at least 64 and a multiple of 4, rows contiguous; ``length`` int32 (n,), the
    datagrams' lengths on the wire; ``kept`` int32 (n,), how many bytes are there (fewer: truncated), None: as many as
    a row has. ``first_row`` int64 (n,): datagram i begins with that row and goes on through those behind it; None: it
    is in row i. What stands behind a datagram's end is never used.
    """
    n = len(length)
    if not n:
        return _empty(0)
    slab = np.ascontiguousarray(slab)
    every = _Datagrams(slab, length, kept, first_row)
    for at in (STREP_LENGTH, 0):
        plain = _plain_rows(every.heads, at, length, kept)
        count = int(np.count_nonzero(plain))
        if count == n:
            return _plain(every.heads, at, length)
        if 2 * count > n:
            others = (~plain).nonzero()[0]
            return _mixed(every.heads, at, length, others, _general(every.take(others)))
    return _general(every)


class _Datagrams:
    """What :func:`parse_batch` is given. ``heads`` uint8 (n, 64 or more): the first bytes of each."""

    __slots__ = ("_first_row", "_slab", "heads", "kept", "length")

    def __init__(self, slab: U8, length: I32, kept: I32 | None, first_row: I64 | None) -> None:
        self._slab = slab
        self._first_row = first_row
        self.heads = slab if first_row is None else slab[first_row]
        self.length = length
        self.kept = np.minimum(length, slab.shape[1]) if kept is None else kept

    def take(self, rows: I64) -> _Datagrams:
        if self._first_row is None:
            return _Datagrams(self._slab[rows], self.length[rows], self.kept[rows], None)
        return _Datagrams(self._slab, self.length[rows], self.kept[rows], self._first_row[rows])

    def byte(self, rows: I64, at: I64) -> U8:
        """The byte at ``at`` of each of these datagrams, within it."""
        row = rows if self._first_row is None else self._first_row[rows]
        found: U8 = self._slab.reshape(-1)[row * self._slab.shape[1] + at]
        return found


def parse_apart(slab: U8, length: I32) -> tuple[PacketColumns, I64 | None, PacketColumns | None]:
    """Like :func:`parse_batch`; but where most datagrams are plain and none of the others is sound, these are told
    apart: (columns of the plain ones, their rows; the others' columns). Rows None: of all datagrams, nothing apart."""
    if len(slab):
        slab = np.ascontiguousarray(slab)
        for at in (STREP_LENGTH, 0):
            plain = _plain_rows(slab, at, length)
            count = int(np.count_nonzero(plain))
            if count == len(slab):
                return _plain(slab, at, length), None, None
            if 2 * count > len(slab):
                others = (~plain).nonzero()[0]
                rest = _general(_Datagrams(slab[others], length[others], None, None))
                if np.count_nonzero(rest.status) < len(others):
                    return _mixed(slab, at, length, others, rest), None, None
                rows = plain.nonzero()[0]
                return _plain(slab, at, length, rows), rows, rest
    return parse_batch(slab, length), None, None


def _column(slab: U8, at: int, kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """A view of what stands at ``at`` in every row."""
    return np.ndarray((len(slab),), kind, slab, at, (slab.strides[0],))


@lru_cache(maxsize=16)
def _constants(value: int, kind: str) -> npt.NDArray[Any]:
    constants = np.full(_CONSTANT_ROWS, value, kind)
    constants.flags.writeable = False
    return constants


def _constant(value: int, kind: str, n: int) -> npt.NDArray[Any]:
    """The same value ``n`` times; shared, not to be written to."""
    return _constants(value, kind)[:n] if n <= _CONSTANT_ROWS else np.full(n, value, kind)


def _bits(two: bytes) -> np.uint16:
    """A mask for two bytes as they lie in memory."""
    return np.uint16(np.frombuffer(two, np.uint16)[0])


# C4..C7 18: magic, version 1, any leg and direction, HeaderLen 24
_STREP_MASK: Final = _bits(b"\xfc\xff")
_STREP_BITS: Final = _bits(b"\xc4\x18")
# version 2 without padding, extension and CSRC; RFC 5761: second byte 192..223, 110xxxxx, is RTCP
_RTP_MASK: Final = _bits(b"\xff\x00")
_RTP_BITS: Final = _bits(b"\x80\x00")
_RTCP_MASK: Final = _bits(b"\x00\xe0")
_RTCP_BITS: Final = _bits(b"\x00\xc0")


def _plain_rows(slab: U8, at: int, length: I32, kept: I32 | None = None) -> npt.NDArray[np.bool_]:
    """Which datagrams are whole, and have headers without options; the RTP header begins at ``at``."""
    first = _column(slab, at, np.uint16)
    plain: npt.NDArray[np.bool_] = (first & _RTP_MASK) == _RTP_BITS
    plain &= (first & _RTCP_MASK) != _RTCP_BITS
    if at:
        plain &= (_column(slab, 0, np.uint16) & _STREP_MASK) == _STREP_BITS
    if int(length.min()) < at + RTP_FIXED:
        plain &= length >= at + RTP_FIXED
    if kept is not None:
        plain &= length <= kept
    elif int(length.max()) > slab.shape[1]:
        plain &= length <= slab.shape[1]
    return plain


def _mixed(slab: U8, at: int, length: I32, others: I64, rest: PacketColumns) -> PacketColumns:
    """Most are plain; ``others`` are not, and are as ``rest`` says."""
    columns = _plain(slab, at, length)
    for name in COLUMN_NAMES:
        column = getattr(columns, name)
        if not column.flags.writeable:
            column = column.copy()
            setattr(columns, name, column)
        column[others] = getattr(rest, name)
    columns.uniform = None
    return columns


def _plain(slab: U8, at: int, length: I32, rows: I64 | None = None) -> PacketColumns:
    """Headers without options, of ``rows`` (None: all); the RTP header begins at ``at``."""

    def column(at: int, kind: npt.DTypeLike) -> npt.NDArray[Any]:
        every = _column(slab, at, kind)
        return every if rows is None else every[rows]

    if rows is not None:
        length = length[rows]
    n = len(length)
    second = column(at + 1, np.uint8)
    zero = _constant(0, "u1", n)
    kind = DatagramKind.STREP if at else DatagramKind.RTP
    if at:
        first = column(0, np.uint8)
        direction = first & np.uint8(1)
        leg = (first >> np.uint8(1)) & np.uint8(1)
        hi = column(8, ">u8").astype(np.uint64)
        lo = column(16, ">u8").astype(np.uint64)
    else:
        hi, lo = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
        leg = direction = zero
    return PacketColumns(
        kind=_constant(int(kind), "u1", n),
        status=zero,
        version=_constant(1 if at else 0, "u1", n),
        leg=leg,
        direction=direction,
        call_leg_hi=hi,
        call_leg_lo=lo,
        header_length=_constant(at, "i4", n),
        marker=second >> np.uint8(7),
        payload_type=second & np.uint8(0x7F),
        sequence_number=column(at + 2, ">u2").astype(np.uint16),
        rtp_timestamp=column(at + 4, ">u4").astype(np.uint32),
        ssrc=column(at + 8, ">u4").astype(np.uint32),
        payload_offset=_constant(at + RTP_FIXED, "i4", n),
        payload_length=length - np.int32(at + RTP_FIXED),
        uniform=int(kind),
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


def _kinds() -> U8:
    """What a datagram is by its first byte (RFC 7983), RTCP and what has a magic cookie aside."""
    byte = np.arange(256)
    kind = np.full(256, DatagramKind.OTHER, np.uint8)
    kind[byte >> 6 == 3] = DatagramKind.STREP
    kind[byte >> 6 == 2] = DatagramKind.RTP
    kind[(byte >= ord("A")) & (byte <= ord("Z"))] = DatagramKind.SIP
    kind[byte >> 6 == 0] = DatagramKind.T38
    kind[(byte >= DTLS_FIRST) & (byte <= DTLS_LAST)] = DatagramKind.DTLS
    return kind


def _statuses() -> U8:
    """What a kind of datagram alone says of it."""
    status = np.full(len(DatagramKind), Status.OK, np.uint8)
    status[DatagramKind.RTCP] = Status.KIND_RTCP
    status[DatagramKind.SIP] = Status.KIND_SIP
    status[DatagramKind.T38] = Status.KIND_T38
    status[DatagramKind.DTLS] = Status.KIND_DTLS
    status[DatagramKind.STUN] = Status.KIND_STUN
    status[DatagramKind.ZRTP] = Status.KIND_ZRTP
    status[DatagramKind.KEEPALIVE] = Status.KIND_KEEPALIVE
    status[DatagramKind.OTHER] = Status.KIND_OTHER
    return status


_KIND_OF_BYTE: Final = _kinds()
_STATUS_OF_KIND: Final = _statuses()
# as numpy numbers: comparing arrays with members of an enumeration is ten times as dear
_OK, _STREP, _RTP = np.uint8(Status.OK), np.uint8(DatagramKind.STREP), np.uint8(DatagramKind.RTP)
_RTCP, _T38, _KEEPALIVE = (np.uint8(kind) for kind in (DatagramKind.RTCP, DatagramKind.T38, DatagramKind.KEEPALIVE))
_QUIET: Final = np.isin(np.arange(256), list(KEEPALIVE_BYTES))


def _tell_from_t38(slab: U8, length: I32, byte0: U8, cookie: U32, kind: U8) -> None:
    """Give STUN, ZRTP and keep-alives, which begin as T.38 may, kinds of their own."""
    stun = (byte0 <= STUN_LAST) & (cookie == STUN_COOKIE) & (length >= STUN_HEADER)
    kind[stun] = DatagramKind.STUN
    zrtp = (byte0 >= ZRTP_FIRST) & (byte0 <= ZRTP_LAST) & (cookie == ZRTP_COOKIE) & (length >= ZRTP_HEADER)
    kind[zrtp] = DatagramKind.ZRTP
    short = np.flatnonzero((length <= KEEPALIVE_LONGEST) & (kind == _T38))
    if short.size:
        quiet = _QUIET.take(slab[short, :KEEPALIVE_LONGEST])
        quiet |= np.arange(KEEPALIVE_LONGEST) >= length[short, None]
        kind[short[quiet.all(axis=1)]] = _KEEPALIVE


def _general(datagrams: _Datagrams) -> PacketColumns:
    slab, length, kept = datagrams.heads, datagrams.length, datagrams.kept
    n = len(length)
    # nine big-endian words: both headers of the usual datagram
    words = np.ascontiguousarray(slab[:, :_PLAIN_STREP]).view(">u4").T.astype(np.uint32)
    out = _empty(n)
    byte0 = (words[0] >> np.uint32(24)).astype(np.uint8)
    byte1 = (words[0] >> np.uint32(16)).astype(np.uint8)
    byte0[length < 1] = 0
    byte1[length < 2] = 0

    out.kind = kind = _KIND_OF_BYTE.take(byte0)
    rtcp = (byte1 >= RTCP_FIRST) & (byte1 <= RTCP_LAST)
    kind[(kind == _RTP) & rtcp] = _RTCP
    if np.count_nonzero(kind == _T38):
        _tell_from_t38(slab, length, byte0, words[1], kind)
    strep = kind == _STREP
    rtp = kind == _RTP
    out.status = status = _STATUS_OF_KIND.take(kind)
    truncated = length > kept
    status[truncated] = Status.TRUNCATED
    sound = status == _OK  # so far

    def refuse(rows: npt.NDArray[np.bool_], reason: Status) -> None:
        """Of several reasons the first counts."""
        refused = rows & sound
        if np.count_nonzero(refused):
            status[refused] = reason
            np.logical_xor(sound, refused, out=sound)

    # the STREP header
    np.multiply((byte0 >> np.uint8(2)) & np.uint8(15), strep, out=out.version)
    np.multiply(byte1, strep & (kept >= 2), out=out.header_length)
    refuse(strep & (kept < STREP_LENGTH), Status.STREP_SHORT)
    refuse(strep & (out.version != 1), Status.STREP_VERSION)
    refuse(strep & (out.header_length != STREP_LENGTH), Status.STREP_HEADER_LENGTH)
    np.multiply((byte0 >> np.uint8(1)) & np.uint8(1), strep, out=out.leg)
    np.multiply(byte0 & np.uint8(1), strep, out=out.direction)
    whole = strep & (kept >= STREP_LENGTH)
    wide = words[2:6].astype(np.uint64)
    wide *= whole
    np.bitwise_or(wide[0] << np.uint64(32), wide[1], out=out.call_leg_hi)
    np.bitwise_or(wide[2] << np.uint64(32), wide[3], out=out.call_leg_lo)

    # the fixed RTP header
    usable = (strep | rtp) & (sound | truncated)
    if not np.count_nonzero(usable):
        return out
    at = np.where(strep, STREP_LENGTH, 0).astype(np.int32)
    enough = kept >= at + RTP_FIXED
    refuse(usable & ~enough, Status.RTP_SHORT)
    readable = usable & enough
    w0, w1, w2 = np.where(strep, words[6:9], words[0:3])
    rtp0, rtp1 = w0 >> np.uint32(24), (w0 >> np.uint32(16)) & np.uint32(0xFF)
    right = readable & ((rtp0 >> np.uint32(6)) == 2)
    refuse(readable & ~right, Status.RTP_VERSION)
    rtcp = right & (rtp1 >= RTCP_FIRST) & (rtp1 <= RTCP_LAST)
    refuse(rtcp, Status.KIND_RTCP)
    good = right & ~rtcp
    if not np.count_nonzero(good):
        return out
    out.marker[good] = (rtp1 >> np.uint32(7))[good]
    out.payload_type[good] = (rtp1 & np.uint32(0x7F))[good]
    out.sequence_number[good] = (w0 & np.uint32(0xFFFF))[good]
    out.rtp_timestamp[good] = w1[good]
    out.ssrc[good] = w2[good]

    # CSRC, extension, padding: each proved to lie within the datagram before it is read
    rows = np.flatnonzero(good & sound)
    if not rows.size:
        return out
    end = length[rows].astype(np.int64)
    begin = at[rows] + RTP_FIXED + 4 * (rtp0[rows] & np.uint32(15)).astype(np.int64)
    fits = begin <= end
    status[rows[~fits]] = Status.RTP_CSRC
    rows, begin, end = rows[fits], begin[fits], end[fits]

    extended = ((rtp0[rows] >> np.uint32(4)) & np.uint32(1)).astype(np.bool_)
    whole_word = ~extended | (begin + 4 <= end)
    lengths_at = np.where(extended & whole_word, begin + 2, 0)
    # the elements inside (RFC 8285, one- and two-byte, or any other profile) are skipped unread by their length
    extension_words = datagrams.byte(rows, lengths_at).astype(np.int64) << 8 | datagrams.byte(rows, lengths_at + 1)
    begin = begin + np.where(extended, 4 + 4 * extension_words, 0)
    fits = whole_word & (begin <= end)
    status[rows[~fits]] = Status.RTP_EXTENSION
    rows, begin, end = rows[fits], begin[fits], end[fits]

    padded = ((rtp0[rows] >> np.uint32(5)) & np.uint32(1)).astype(np.bool_)
    has_last = padded & (begin < end)
    count = datagrams.byte(rows, np.where(has_last, end - 1, 0)).astype(np.int64)
    fits = ~padded | (has_last & (count >= 1) & (count <= end - begin))
    status[rows[~fits]] = Status.RTP_PADDING
    end = end - np.where(padded, count, 0)
    rows, begin, end = rows[fits], begin[fits], end[fits]
    out.payload_offset[rows] = begin
    out.payload_length[rows] = end - begin
    return out
