"""Link layers, tags and labels: from the begin of a frame to its IP header."""

from __future__ import annotations

from typing import Final

import numpy as np

from .layers import I64, Frames, Layer

__all__ = ["ETHERNET", "ROLE_MAC", "ethernet", "ethertype", "link", "mpls", "ppp", "pppoe"]

ETHERNET: Final = 1
RAW: Final = (12, 14, 101, 228, 229)
PPP_LINKS: Final = (9, 50)
# LINKTYPEs by how many bytes stand before what begins with an EtherType at the given place
_TYPED: Final = {113: (16, 14), 276: (20, 0), 104: (4, 2)}  # Linux cooked v1 and v2, Cisco HDLC
# LINKTYPEs by how many bytes stand before another layer
_AHEAD: Final = {
    0: (4, Layer.IP), 108: (4, Layer.IP), 109: (12, Layer.IP),  # BSD loopback, OpenBSD loopback and enc
    51: (0, Layer.PPPOE), 166: (2, Layer.PPP), 204: (1, Layer.PPP),  # the latter tell the direction first
    219: (0, Layer.MPLS),
}  # fmt: skip
ROLE_MAC: Final = bytes.fromhex("0253545245")  # then one byte: the role of the port, in our own recordings

_VLAN: Final = (0x8100, 0x88A8, 0x9100, 0x9200, 0x9300)
_TYPES: Final = {
    0x0800: Layer.IP, 0x86DD: Layer.IP, 0x8847: Layer.MPLS, 0x8848: Layer.MPLS, 0x8864: Layer.PPPOE,
    0x880B: Layer.PPP, 0x6558: Layer.ETHERNET,
}  # fmt: skip
_TYPE_NAMES: Final = {
    0x0806: "arp", 0x8035: "rarp", 0x8863: "pppoe_discovery", 0x8137: "ipx", 0x888E: "eapol", 0x88CC: "lldp",
    0x88E5: "macsec", 0x88E7: "pbb", 0x88F7: "ptp", 0x8809: "lacp", 0x8892: "profinet", 0x894F: "nsh", 0x8926: "vntag",
}  # fmt: skip
_LINK_NAMES: Final = {
    6: "token_ring", 10: "fddi", 105: "wlan", 119: "wlan_prism", 127: "wlan_radiotap", 187: "bluetooth",
    201: "bluetooth", 107: "frame_relay", 140: "mtp2", 141: "mtp3", 177: "lapd", 189: "usb", 220: "usb", 249: "usb",
    195: "ieee802_15_4", 248: "sctp", 252: "wireshark_upper_pdu", 253: "netlink", 123: "sunatm", 100: "atm",
}  # fmt: skip
_PPP_NAMES: Final = {0x003D: "ppp_multilink", 0x00FD: "ppp_compressed", 0x0053: "ppp_encrypted"}
_SNAP: Final = 0xAAAA03  # RFC 1042: then an organization, which is 0, and an EtherType
_LABEL_BYTES: Final = 4
_MOST_LABELS: Final = 16


def link(frames: Frames, rows: I64) -> None:
    """``kind`` is the LINKTYPE."""
    kinds = np.unique(frames.kind[rows]).tolist()
    for kind in kinds:
        here = rows if len(kinds) == 1 else rows[frames.kind[rows] == kind]
        if kind == ETHERNET:
            frames.go(here, Layer.ETHERNET, 0)
        elif kind in RAW:
            frames.go(here, Layer.IP, 0)
        elif kind in PPP_LINKS:
            frames.go(here, Layer.PPP, 0)
        elif kind in _AHEAD:
            by, layer = _AHEAD[kind]
            frames.go(frames.having(here, by), layer, by)
        elif kind in _TYPED:
            size, field = _TYPED[kind]
            here = frames.having(here, size)
            frames.kind[here] = frames.read.u16(frames.at[here] + field)
            frames.go(here, Layer.ETHERTYPE, size)
        else:
            frames.drop(here, f"link_{_LINK_NAMES.get(kind, kind)}")


def ethernet(frames: Frames, rows: I64) -> None:
    rows = frames.having(rows, 14)
    at, read = frames.at[rows], frames.read
    fresh = frames.fresh[rows]
    if fresh.any():
        ours = fresh & (read.u32(at) == int.from_bytes(ROLE_MAC[:4], "big")) & (read.u8(at + 4) == ROLE_MAC[4])
        frames.role[rows] = np.where(ours, read.u8(at + 5), -1)
    frames.kind[rows] = read.u16(at + 12)
    frames.go(rows, Layer.ETHERTYPE, 14)


def ethertype(frames: Frames, rows: I64) -> None:
    kind = frames.kind[rows]
    known = np.zeros(len(rows), np.bool_)
    for value, layer in _TYPES.items():
        here = kind == value
        if here.any():
            known |= here
            if layer not in (Layer.IP, Layer.ETHERNET):
                frames.enter(rows[here], layer.name.lower())
            frames.go(rows[here], layer, 0)
    if known.all():
        return
    tagged = np.isin(kind, _VLAN)
    here = frames.having(rows[tagged], 4)
    frames.enter(here, "vlan")
    frames.kind[here] = frames.read.u16(frames.at[here] + 2)
    frames.go(here, Layer.ETHERTYPE, 4)
    # IEEE 802.3: a length, then LLC
    lengths = kind < 0x0600
    here = frames.having(rows[lengths & ~known], 8)
    if here.size:
        at, read = frames.at[here], frames.read
        snap = (read.u32(at) == _SNAP << 8) & (read.u16(at + 4) == 0)
        frames.drop(here[~snap], "llc")
        here = here[snap]
        frames.kind[here] = read.u16(frames.at[here] + 6)
        frames.go(here, Layer.ETHERTYPE, 8)
    frames.drop_by_name(rows[~known & ~tagged & ~lengths], _TYPE_NAMES, "not_ip")


def mpls(frames: Frames, rows: I64) -> None:
    """RFC 3032. What is below the labels is told by its first bits (RFC 4928): IP, or a pseudowire of Ethernet, with a
    control word of 0 (RFC 4385, 4448), or without."""
    for _ in range(_MOST_LABELS):
        rows = frames.having(rows, _LABEL_BYTES)
        if not rows.size:
            return
        bottom = frames.read.u8(frames.at[rows] + 2) & 1
        frames.at[rows] += _LABEL_BYTES
        _below_labels(frames, rows[bottom == 1])
        rows = rows[bottom == 0]
    frames.drop(rows, "too_deep")


def _below_labels(frames: Frames, rows: I64) -> None:
    rows = frames.having(rows, 1)
    first = frames.read.u8(frames.at[rows]) >> 4
    ip = (first == 4) | (first == 6)
    frames.go(rows[ip], Layer.IP, 0)
    wire = rows[~ip]
    at, read = frames.at[wire], frames.read
    # an address may begin with 0 too: what would be the EtherType tells
    control = (read.u16(at) == 0) & np.isin(read.u16(at + 16), (*_TYPES, *_VLAN))
    frames.go(wire, Layer.ETHERNET, np.where(control, 4, 0))


def pppoe(frames: Frames, rows: I64) -> None:
    """RFC 2516: version and type 1, code 0, session, length."""
    rows = frames.having(rows, 6)
    at = frames.at[rows]
    sound = frames.read.u16(at) == 0x1100
    frames.drop(rows[~sound], "pppoe_discovery")
    rows, at = rows[sound], at[sound]
    frames.end[rows] = np.minimum(frames.end[rows], at + 6 + frames.read.u16(at + 4))
    frames.go(rows, Layer.PPP, 6)


def ppp(frames: Frames, rows: I64) -> None:
    """RFC 1661, 1662: address and control (FF 03) may be left out, and the protocol may be one odd byte."""
    rows = frames.having(rows, 2)
    addressed = frames.read.u16(frames.at[rows]) == 0xFF03
    frames.at[rows[addressed]] += 2
    rows = frames.having(rows, 2)
    protocol = frames.read.u16(frames.at[rows])
    one = protocol >> 8 & 1 == 1
    protocol = np.where(one, protocol >> 8, protocol)
    frames.kind[rows] = protocol
    frames.at[rows] += np.where(one, 1, 2)
    ip = (protocol == 0x0021) | (protocol == 0x0057)
    labelled = (protocol == 0x0281) | (protocol == 0x0283)
    frames.go(rows[ip], Layer.IP, 0)
    frames.go(rows[labelled], Layer.MPLS, 0)
    frames.drop_by_name(rows[~ip & ~labelled], _PPP_NAMES, "ppp_control")
