"""UDP, and what is packed into it: VXLAN, Geneve, GTP-U, HEP. Media may come to their ports too: content decides."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .layers import I64, Frames, Layer

__all__ = ["HEP_MAGIC", "TUNNEL_PORTS", "udp", "udp_alone"]

_VXLAN: Final = (4789, 8472, 4790)  # IANA's, Linux' first, and the generic extension's
_GENEVE: Final = 6081
_GTP: Final = 2152
TUNNEL_PORTS: Final = (*_VXLAN, _GENEVE, _GTP)
HEP_MAGIC: Final = int.from_bytes(b"HEP3", "big")
_GPE_NEXT: Final = {1: Layer.IP, 2: Layer.IP, 3: Layer.ETHERNET}
_MOST_EXTENSIONS: Final = 8

Mask = npt.NDArray[np.bool_]


def udp_alone(frames: Frames, rows: I64) -> None:
    """What lies in a datagram is not looked into."""
    _header(frames, rows)


def _header(frames: Frames, rows: I64) -> I64:
    """Returns the rows that are sound."""
    rows = frames.having(rows, 8)
    read, at = frames.read, frames.at[rows]
    length = read.u16(at + 4)
    sound = (length >= 8) & (length <= frames.wire[rows])
    frames.drop(rows[~sound], "bad_udp_length")
    rows, at, length = rows[sound], at[sound], length[sound]
    frames.source_port[rows], frames.local_port[rows] = read.u16(at), read.u16(at + 2)
    frames.wire[rows] = length - 8
    frames.end[rows] = np.minimum(frames.end[rows], at + length)
    frames.go(rows, Layer.DATAGRAM, 8)
    return rows


def udp(frames: Frames, rows: I64) -> None:
    rows = _header(frames, rows)
    read, at = frames.read, frames.at[rows]
    # RTP, RTCP and STREP begin with a bit that no tunnel has
    maybe = np.flatnonzero((frames.end[rows] - at >= 8) & (read.u8(at) < 0x80))
    if not maybe.size:
        return
    rows, at = rows[maybe], at[maybe]
    hep = read.u32(at) == HEP_MAGIC
    frames.enter(rows[hep], "hep")
    frames.layer[rows[hep]] = Layer.HEP
    to, of = frames.local_port[rows], frames.source_port[rows]

    def port(*numbers: int) -> Mask:
        here: Mask = ~hep & (np.isin(to, numbers) | np.isin(of, numbers))
        return here

    for look, numbers in ((_vxlan, _VXLAN), (_geneve, (_GENEVE,)), (_gtp, (_GTP,))):
        here = port(*numbers)
        if here.any():
            look(frames, rows[here])


def _vxlan(frames: Frames, rows: I64) -> None:
    """RFC 7348: flags 08, three bytes of 0, an identifier, 0. With flag 04 (draft-ietf-nvo3-vxlan-gpe) the fourth byte
    says what follows. A group policy may stand in the second and third (draft-smith-vxlan-group-policy)."""
    head = frames.read.u32(frames.at[rows])
    flags, following = head >> 24, head & 0xFF
    generic = (flags & 0x0C) == 0x0C
    policy = (flags & 0x80) != 0
    plain = (flags & 0x0C) == 0x08
    here = rows[plain & (following == 0) & ((head & 0xFFFF00) == 0) & ~policy]
    frames.enter(here, "vxlan")
    frames.go(here, Layer.ETHERNET, 8)
    for value, layer in _GPE_NEXT.items():
        here = rows[generic & (following == value)]
        frames.enter(here, "vxlan")
        frames.go(here, layer, 8)


def _geneve(frames: Frames, rows: I64) -> None:
    """RFC 8926: version 0 and the options' length in words, flags, an EtherType, an identifier, 0."""
    read, at = frames.read, frames.at[rows]
    first, kind = read.u8(at), read.u16(at + 2)
    sound = (first < 0x40) & (read.u8(at + 7) == 0) & np.isin(kind, (0x6558, 0x0800, 0x86DD))
    rows, kind = rows[sound], kind[sound]
    size = 8 + 4 * (first[sound] & 0x3F)
    fits = frames.at[rows] + size <= frames.end[rows]
    frames.drop(rows[~fits], "short")
    rows = rows[fits]
    frames.enter(rows, "geneve")
    frames.kind[rows] = kind[fits]
    frames.go(rows, Layer.ETHERTYPE, size[fits])


def _gtp(frames: Frames, rows: I64) -> None:
    """3GPP TS 29.281: version 1, message 255 carries a packet; sequence number and extension headers may follow."""
    read, at = frames.read, frames.at[rows]
    flags = read.u8(at)
    one = (flags & 0xF0) == 0x30
    packet = one & (read.u8(at + 1) == 255)
    frames.drop(rows[one & ~packet], "gtp_control")
    rows, flags = rows[packet], flags[packet]
    frames.enter(rows, "gtp")
    optional = (flags & 7) != 0
    extended = rows[(flags & 4) != 0]
    frames.go(rows, Layer.IP, 8)
    frames.at[rows[optional]] += 4
    for _ in range(_MOST_EXTENSIONS):
        if not extended.size:
            return
        extended = frames.having(extended, 1)
        extended = extended[read.u8(frames.at[extended] - 1) != 0]  # the last byte of a header: what follows
        size = 4 * read.u8(frames.at[extended])
        frames.drop(extended[size == 0], "short")
        extended, size = extended[size > 0], size[size > 0]
        frames.at[extended] += size
    frames.drop(extended, "too_deep")
