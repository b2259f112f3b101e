"""IP, version 4 and 6, what it carries, and the ways in which it carries itself."""

from __future__ import annotations

from typing import Final

import numpy as np

from ..._model.addresses import MAPPED_PREFIX
from .layers import I64, Frames, Layer

__all__ = ["UDP", "gre", "ip", "ip_once", "transport"]

UDP: Final = 17
_FRAGMENT: Final = 44
_AH: Final = 51
_SKIPPABLE: Final = (0, 43, 60, 135, 139, 140)  # hop-by-hop, routing, destination options, mobility, HIP, shim6
_CARRIED: Final = {4: ("ipip", Layer.IP, 0), 41: ("6in4", Layer.IP, 0), 47: ("gre", Layer.GRE, 0),
                   97: ("etherip", Layer.ETHERNET, 2), 137: ("mpls", Layer.MPLS, 0)}  # fmt: skip
_NAMES: Final = {
    1: "icmp", 2: "igmp", 6: "tcp", 33: "dccp", 50: "esp", 58: "icmpv6", 88: "eigrp", 89: "ospf", 103: "pim",
    108: "ipcomp", 112: "vrrp", 115: "l2tp", 132: "sctp", 136: "udplite",
}  # fmt: skip
_GRE_TYPES: Final = (0x6558, 0x0800, 0x86DD, 0x8847, 0x8848, 0x880B, 0x8100, 0x88A8, 0x8864)
_ERSPAN: Final = 0x88BE
_ERSPAN_III: Final = 0x22EB


def ip_once(frames: Frames, rows: I64) -> None:
    """IP that is not carried in IP."""
    inside = frames.network[rows] >= 0
    frames.drop(rows[inside], "tunnel")
    ip(frames, rows[~inside])


def ip(frames: Frames, rows: I64) -> None:
    rows = frames.having(rows, 1)
    version = frames.read.u8(frames.at[rows]) >> 4
    frames.fresh[rows] = False
    _v4(frames, rows[version == 4])
    _v6(frames, rows[version == 6])
    frames.drop(rows[(version != 4) & (version != 6)], "not_ip")


def _v4(frames: Frames, rows: I64) -> None:
    rows = frames.having(rows, 20)
    read, at = frames.read, frames.at[rows]
    header = (read.u8(at) & 15) * 4
    total = read.u16(at + 2)
    total = np.where(total == 0, frames.end[rows] - at, total)  # segmentation offload writes 0
    sound = (header >= 20) & (at + header <= frames.end[rows]) & (total >= header)
    frames.drop(rows[~sound], "short")
    rows, at, header, total = rows[sound], at[sound], header[sound], total[sound]
    frames.network[rows] = at
    frames.end[rows] = np.minimum(frames.end[rows], at + total)
    frames.wire[rows] = total - header
    frames.hi[rows] = 0
    frames.lo[rows] = (read.u32(at + 12) | MAPPED_PREFIX).astype(np.uint64)
    frames.to_hi[rows] = 0
    frames.to_lo[rows] = (read.u32(at + 16) | MAPPED_PREFIX).astype(np.uint64)
    frames.kind[rows] = read.u8(at + 9)
    frames.go(rows, Layer.TRANSPORT, header)
    frames.layer[rows[(read.u16(at + 6) & 0x3FFF) != 0]] = Layer.FRAGMENT


def _v6(frames: Frames, rows: I64) -> None:
    rows = frames.having(rows, 40)
    read, at = frames.read, frames.at[rows]
    length = read.u16(at + 4)
    length = np.where(length == 0, frames.end[rows] - at - 40, length)  # a jumbogram, or segmentation offload
    frames.network[rows] = at
    frames.end[rows] = np.minimum(frames.end[rows], at + 40 + length)
    frames.wire[rows] = length
    frames.hi[rows] = read.u64(at + 8)
    frames.lo[rows] = read.u64(at + 16)
    frames.to_hi[rows] = read.u64(at + 24)
    frames.to_lo[rows] = read.u64(at + 32)
    frames.kind[rows] = read.u8(at + 6)
    frames.go(rows, Layer.TRANSPORT, 40)


def transport(frames: Frames, rows: I64) -> None:
    """``kind`` is the protocol; the header of the IP packet lies at ``network``."""
    kind = frames.kind[rows]
    udp = kind == UDP
    frames.go(rows[udp], Layer.UDP, 0)
    if udp.all():
        return
    rows, kind = rows[~udp], kind[~udp]
    known = np.zeros(len(rows), np.bool_)
    for value, (name, layer, by) in _CARRIED.items():
        here = kind == value
        if here.any():
            known |= here
            inside = frames.having(rows[here], by)
            frames.enter(inside, name)
            frames.go(inside, layer, by)
    six = frames.read.u8(frames.network[rows]) >> 4 == 6
    extension = (six & np.isin(kind, _SKIPPABLE)) | (kind == _AH)
    _skip_extension(frames, rows[extension])
    fragment = six & (kind == _FRAGMENT)
    here = frames.having(rows[fragment], 8)
    frames.layer[here] = Layer.FRAGMENT
    frames.drop_by_name(rows[~known & ~extension & ~fragment], _NAMES, "not_udp")


def _skip_extension(frames: Frames, rows: I64) -> None:
    rows = frames.having(rows, 8)
    at = frames.at[rows]
    length = frames.read.u8(at + 1)
    size = np.where(frames.kind[rows] == _AH, (length + 2) * 4, (length + 1) * 8)
    frames.kind[rows] = frames.read.u8(at)
    frames.wire[rows] -= size
    short = frames.wire[rows] < 0
    frames.drop(rows[short], "short")
    frames.go(rows[~short], Layer.TRANSPORT, size[~short])


def gre(frames: Frames, rows: I64) -> None:
    """RFC 2784 and 2890; RFC 2637 for PPTP (version 1); ERSPAN I, II (a sequence number tells them apart) and III."""
    rows = frames.having(rows, 4)
    read, at = frames.read, frames.at[rows]
    flags, kind = read.u16(at), read.u16(at + 2)
    one = (flags & 7) == 1

    def bit(mask: int) -> I64:
        here: I64 = ((flags & mask) != 0).astype(np.int64)
        return here

    size = 4 + 4 * (bit(0x8000) + bit(0x2000) + bit(0x1000))
    size += np.where(one, 4 * bit(0x0080) - 4 * bit(0x8000), 0)
    readable = ((flags & 7) <= 1) & ((flags & 0x4000) == 0)
    erspan = readable & (kind == _ERSPAN)
    third = readable & (kind == _ERSPAN_III)
    frames.kind[rows] = kind
    known = readable & np.isin(kind, _GRE_TYPES)
    here = frames.having(rows[known], size[known])
    frames.go(here, Layer.ETHERTYPE, size[np.isin(rows, here)])
    size = size + np.where(erspan & (bit(0x1000) == 1), 8, 0)
    here = frames.having(rows[erspan], size[erspan])
    frames.enter(here, "erspan")
    frames.go(here, Layer.ETHERNET, size[np.isin(rows, here)])
    if third.any():
        _erspan_3(frames, rows[third], size[third])
    frames.drop(rows[~known & ~erspan & ~third], "gre_other")


def _erspan_3(frames: Frames, rows: I64, size: I64) -> None:
    fits = frames.at[rows] + size + 12 <= frames.end[rows]
    frames.drop(rows[~fits], "short")
    rows, size = rows[fits], size[fits]
    last = frames.read.u16(frames.at[rows] + size + 10)  # P, frame type, hardware, direction, granularity, O
    kind = last >> 10 & 31
    frames.enter(rows, "erspan")
    frames.at[rows] += size + 12 + 8 * (last & 1)
    frames.go(rows[kind == 0], Layer.ETHERNET, 0)
    frames.go(rows[kind == 2], Layer.IP, 0)
    frames.drop(rows[(kind != 0) & (kind != 2)], "erspan_other")
