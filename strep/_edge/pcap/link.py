"""From captured frames to UDP payloads: link layer, IP, UDP, for all frames at once. Every length is checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.addresses import MAPPED_PREFIX
from .records import Records

__all__ = ["ROLE_MAC", "Datagrams", "find_datagrams"]

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

ETHERNET: Final = 1
NULL: Final = 0
LOOP: Final = 108
RAW: Final = (12, 14, 101, 228, 229)
SLL: Final = 113
SLL2: Final = 276

ROLE_MAC: Final = bytes.fromhex("0253545245")  # then one byte: the role of the port, in our own recordings
_VLAN: Final = (0x8100, 0x88A8, 0x9100)
_UDP: Final = 17
_USUAL_HEADER_BYTES: Final = 14 + 20 + 8  # Ethernet, IPv4 without options, UDP
_USUAL_READ_BYTES: Final = 48  # of each frame: the headers, rounded up to words
_SKIPPABLE: Final = (0, 43, 60)  # hop-by-hop, routing, destination options


@dataclass(slots=True)
class Datagrams:
    """UDP payloads in a file. Columns of shape (n,)."""

    at: I64
    captured: I64
    wire: I64
    arrival_ns: I64
    source_hi: U64
    source_lo: U64
    source_port: npt.NDArray[np.uint16]
    local_port: npt.NDArray[np.uint16]
    role: I64  # of the local port, -1 when the frame does not say


class _Bytes:
    """Reads fields at many places at once. Beyond the end of the file it reads its last byte: lengths are checked
    elsewhere."""

    def __init__(self, data: U8) -> None:
        self._data = data

    def u8(self, at: I64) -> I64:
        return self._data.take(at, mode="clip").astype(np.int64)

    def u16(self, at: I64) -> I64:
        return self.u8(at) << 8 | self.u8(at + 1)

    def u32(self, at: I64) -> U64:
        return (self.u16(at) << 16 | self.u16(at + 2)).astype(np.uint64)

    def u64(self, at: I64) -> U64:
        return self.u32(at) << np.uint64(32) | self.u32(at + 4)


def find_datagrams(data: U8, records: Records, skipped: Counter[str]) -> Datagrams:
    """The UDP datagrams among the frames, in order. Frames that are none, or cannot be used, are counted by cause."""
    usual = _usual_datagrams(data, records)
    if usual is not None:
        return usual
    read = _Bytes(data)
    at, end = records.at, records.at + records.captured
    alive = np.ones(len(at), np.bool_)

    def drop(rows: Mask, cause: str) -> None:
        rows = rows & alive
        count = int(np.count_nonzero(rows))
        if count:
            skipped[cause] += count
            alive[rows] = False

    link = records.link
    network = np.full(len(at), -1, np.int64)  # where the IP header begins
    ethertype = np.zeros(len(at), np.int64)
    role = np.full(len(at), -1, np.int64)
    one = int(link[0]) if len(link) and (link == link[0]).all() else None

    def of(*types: int) -> Mask:
        if one is not None:
            return np.full(len(at), one in types)
        return np.isin(link, types)

    ethernet = of(ETHERNET)
    if ethernet.any():
        network[ethernet] = at[ethernet] + 14
        ethertype[ethernet] = read.u16(at[ethernet] + 12)
        for _ in range(4):
            tagged = ethernet & np.isin(ethertype, _VLAN)
            if not tagged.any():
                break
            ethertype[tagged] = read.u16(network[tagged] + 2)
            network[tagged] += 4
        marked = ethernet & (records.captured >= 14)
        if marked.any():
            first = at[marked]
            ours = (read.u32(first) == int.from_bytes(ROLE_MAC[:4], "big")) & (read.u8(first + 4) == ROLE_MAC[4])
            role[marked] = np.where(ours, read.u8(first + 5), -1)
    cooked, cooked2 = of(SLL), of(SLL2)
    for rows, size, field in ((cooked, 16, 14), (cooked2, 20, 0)):
        network[rows] = at[rows] + size
        ethertype[rows] = read.u16(at[rows] + field)
    raw, loop = of(*RAW), of(NULL, LOOP)
    network[raw] = at[raw]
    network[loop] = at[loop] + 4
    drop(network < 0, "unknown_link")
    drop(network >= end, "short")
    drop((ethernet | cooked | cooked2) & (ethertype != 0x0800) & (ethertype != 0x86DD), "not_ip")

    version = read.u8(network) >> 4
    v4, v6 = version == 4, version == 6
    drop(~v4 & ~v6, "not_ip")
    v4, v6 = v4 & alive, v6 & alive
    header = np.where(v4, (read.u8(network) & 15) * 4, 40)
    drop((v4 & (header < 20)) | (network + header > end), "short")
    total = np.where(v4, read.u16(network + 2), read.u16(network + 4) + 40)
    total = np.where(v4 & (total == 0), end - network, total)  # segmentation offload writes 0
    drop(total < header, "short")
    protocol = np.where(v4, read.u8(network + 9), read.u8(network + 6))
    drop(v4 & ((read.u16(network + 6) & 0x3FFF) != 0), "fragment")
    transport = network + header
    for _ in range(8):
        more = v6 & alive & np.isin(protocol, _SKIPPABLE)
        if not more.any():
            break
        drop(more & (transport + 8 > end), "short")
        more &= alive
        protocol = np.where(more, read.u8(transport), protocol)
        transport = transport + np.where(more, 8 + 8 * read.u8(transport + np.where(more, 1, 0)), 0)
    drop(v6 & (protocol == 44), "fragment")
    drop(protocol != _UDP, "not_udp")
    drop(transport + 8 > end, "short")
    length = read.u16(transport + 4)
    drop((length < 8) | (transport + length > network + total), "bad_udp_length")

    keep = np.flatnonzero(alive)
    network, transport, length, v4 = network[keep], transport[keep], length[keep], v4[keep]
    lo = np.where(v4, read.u32(network + 12) | np.uint64(MAPPED_PREFIX), 0).astype(np.uint64)
    hi = np.zeros(len(keep), np.uint64)
    if not v4.all():
        six = ~v4
        hi[six] = read.u64(network[six] + 8)
        lo[six] = read.u64(network[six] + 16)
    return Datagrams(
        transport + 8,
        np.minimum(length - 8, end[keep] - transport - 8),
        length - 8,
        records.arrival_ns[keep],
        hi,
        lo,
        read.u16(transport).astype(np.uint16),
        read.u16(transport + 2).astype(np.uint16),
        role[keep],
    )


def _usual_datagrams(data: U8, records: Records) -> Datagrams | None:
    """The same for frames that are all Ethernet, IPv4 without options, whole, UDP; None where any is not.

    Reads each frame's headers in one piece.
    """
    at, captured = records.at, records.captured
    n = len(at)
    if not n or int(captured.min()) < _USUAL_HEADER_BYTES or int(at[-1]) + _USUAL_READ_BYTES > data.size:
        return None
    if not (records.link == ETHERNET).all() or not (at[1:] > at[:-1]).all():
        return None
    items = np.ndarray((data.size - _USUAL_READ_BYTES + 1,), np.dtype((np.void, _USUAL_READ_BYTES)), data, 0, (1,))
    headers = items[at].view(np.uint8).reshape(n, _USUAL_READ_BYTES)

    def field(offset: int, kind: str) -> npt.NDArray[Any]:
        return np.ndarray((n,), kind, headers, offset, (_USUAL_READ_BYTES,))

    usual = (field(12, ">u4") & np.uint32(0xFFFF_FF00)) == 0x0800_4500  # the type of service may be any
    usual &= (field(20, ">u2") & np.uint16(0x3FFF)) == 0  # no fragment
    usual &= field(23, "u1") == _UDP
    total, length = field(16, ">u2").astype(np.int64), field(38, ">u2").astype(np.int64)
    usual &= (length >= 8) & (length + 20 <= total)
    if not usual.all():
        return None
    ours = (field(0, ">u4") == int.from_bytes(ROLE_MAC[:4], "big")) & (field(4, "u1") == ROLE_MAC[4])
    length -= 8
    return Datagrams(
        at + _USUAL_HEADER_BYTES,
        np.minimum(length, captured - _USUAL_HEADER_BYTES),
        length,
        records.arrival_ns,
        np.zeros(n, np.uint64),
        field(26, ">u4").astype(np.uint64) | np.uint64(MAPPED_PREFIX),
        field(34, ">u2").astype(np.uint16),
        field(36, ">u2").astype(np.uint16),
        np.where(ours, field(5, "u1"), -1).astype(np.int64),
    )
