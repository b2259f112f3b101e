"""Packets that are not as usual: with options, in fragments, longer than a frame, many datagrams in one (segmentation
offload), with checksums that nobody has checked. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.addresses import MAPPED_PREFIX
from ..._model.spans import copy_spans
from ..checksums import folded, word_sums
from ..pcap.find import Finder
from ..pcap.fragments import Fragments
from ..pcap.links import ETHERNET, RAW
from ..pcap.records import Records
from .layout import FRAME_BYTES, IPV4, NET, PARTIAL, VALID, VNET_BYTES, IpVersion
from .long import LongPackets, plain_long
from .usual import field

__all__ = ["Mine", "Odd", "OddPackets"]

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

Mine = Callable[[U8, I64, I64], Mask]
"""Which datagrams are this reader's: their data, where they begin in it, how long they are."""

_UDP: Final = 17
_MOST_FRAGMENTS: Final = 128  # a tick of 10 ms: they cost some 13 µs each, and a flood of them must not stop the loop
_UDP_SEGMENTS: Final = 5  # VIRTIO_NET_HDR_GSO_UDP_L4
_GSO_MASK: Final = 0x7F


@dataclass(slots=True)
class Odd:
    """Datagrams. Columns of shape (n,): the ``frame`` that brought each, where its payload begins in ``data``, bytes
    that are there and that were on the wire, its source and ports; of traffic between others its destination."""

    frame: I64
    at: I64
    captured: I64
    wire: I64
    hi: npt.NDArray[np.uint64]
    lo: npt.NDArray[np.uint64]
    source_port: npt.NDArray[np.uint16]
    local_port: npt.NDArray[np.uint16]
    data: U8
    destination_hi: npt.NDArray[np.uint64] | None = None
    destination_lo: npt.NDArray[np.uint64] | None = None

    def take(self, rows: I64 | Mask) -> Odd:
        columns = {name: column[rows] for name, column in self.columns().items()}
        return Odd(**columns, data=self.data)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Those that are there."""
        every = {name: getattr(self, name) for name in self.__slots__ if name != "data"}
        return {name: column for name, column in every.items() if column is not None}


class OddPackets:
    """Finds what is in them. What is no usable datagram is counted by cause in ``skipped``.

    ``mine`` says which of the datagrams that were put together are this reader's: of fragments nobody else can tell.
    ``version`` None: packets of others, of any version, as in a capture: tags and tunnels are looked into, and
    checksums are theirs."""

    def __init__(self, version: IpVersion | None, skipped: Counter[str], mine: Mine | None = None) -> None:
        self._version = version
        self._skipped = skipped
        self._mine = mine
        self._fragments = Fragments(skipped, _MOST_FRAGMENTS)

    @property
    def joined(self) -> int:
        """Packets that were put together of fragments."""
        return self._fragments.joined

    def find(self, frames: U8, head: U8, rows: I64, arrival_ns: I64, long: LongPackets) -> Odd:
        """``frames`` and their ``head``s; which ``rows`` are odd; ``long`` as :meth:`FrameDecoder.decode` has them."""
        version = self._version
        plain = None if version is None or not len(long) else plain_long(frames, rows, long, version)
        if plain is None or version is None:
            return self._look_into(frames, head, rows, arrival_ns, long)
        datagrams = _datagrams(frames, plain, version)
        if len(plain) == len(rows):
            return datagrams
        others = np.zeros(len(frames), np.bool_)
        others[rows] = True
        others[plain.row] = False
        rest = np.flatnonzero(others)
        return _both(datagrams, self._look_into(frames, head, rest, arrival_ns, long))

    def _look_into(self, frames: U8, head: U8, rows: I64, arrival_ns: I64, long: LongPackets) -> Odd:

        def field(at: int, kind: str) -> npt.NDArray[Any]:
            every = np.ndarray((len(head),), kind, head, at, (head.strides[0],))
            found: npt.NDArray[Any] = every[rows]
            return found

        status = field(0, "<u4")
        mac, net = field(12, "<u2").astype(np.int64), field(14, "<u2").astype(np.int64)
        # where records begin: at the IP header, or at the link's
        begin = net if self._version is not None else mac
        link = begin - mac
        captured = np.clip(field(8, "<u4").astype(np.int64) - link, 0, FRAME_BYTES - begin)
        wire = field(4, "<u4").astype(np.int64) - link
        size = captured.copy()
        place = np.full(len(head), -1)  # among the long ones
        place[long.row] = np.arange(len(long))
        place = place[rows]
        whole = np.flatnonzero(place >= 0)
        if whole.size:
            place = place[whole]
            size[whole] = np.maximum(long.size[place] - link[whole], 0)
        at = np.cumsum(size) - size
        data = np.empty(int(size.sum()), np.uint8)
        if whole.size:
            copy_spans(data, at[whole], long.data, long.at[place] + link[whole], size[whole])
        if whole.size < len(rows):
            some = np.ones(len(rows), np.bool_)
            some[whole] = False
            copy_spans(data, at[some], frames.reshape(-1), (rows * FRAME_BYTES + begin)[some], size[some])

        own = self._version is not None
        kind = np.where((begin == net) & (own | (mac == net)), RAW[0], ETHERNET)
        finder = Finder(data, self._skipped, fragments=self._fragments, tunnels=not own)
        found = finder.find(Records(at, size, np.maximum(wire, size), arrival_ns[rows], kind, rows, data.size))
        records_end = data.size
        joined = found.at >= records_end
        if finder.extra.size:
            data = np.concatenate([data, finder.extra])
        odd = Odd(
            found.interface, found.at, found.captured, found.wire, found.source_hi, found.source_lo, found.source_port,
            found.local_port, data, *(() if own else (found.destination_hi, found.destination_lo)),
        )  # fmt: skip
        if self._version is not None:
            odd = self._checked(odd, self._version, found.record, joined, at, status)
            if self._mine is not None:
                odd = self._own(odd, self._mine, records_end)
        segments = _segments(head, rows, mac)
        return odd if segments is None else _taken_apart(odd, segments)

    def _own(self, odd: Odd, mine: Mine, records_end: int) -> Odd:
        """Without those that were put together, and lie behind ``records_end``, but are another reader's."""
        strange = odd.at >= records_end
        if not strange.any():
            return odd
        strange[strange] = ~mine(odd.data, odd.at[strange], odd.captured[strange])
        self._skipped["fragments_of_other_worker"] += int(np.count_nonzero(strange))
        return odd.take(~strange)

    def _checked(
        self, odd: Odd, version: IpVersion, record: I64, joined: Mask, at: I64, status: npt.NDArray[np.uint32]
    ) -> Odd:
        """Those whose checksums are right, as far as one can know. ``record`` is which packet each came from, ``at``
        where each packet begins in the data, ``status`` what the kernel says of it."""
        data = odd.data
        checksum = _u16(data, odd.at - 2)
        of_packet = np.where(joined, np.uint32(0), status[record])  # of a fragment it says nothing
        partial = (of_packet & PARTIAL) != 0
        told = (of_packet & (PARTIAL | VALID)) != 0
        if version is IPV4:
            told |= checksum == 0
            bad = np.zeros(len(odd.at), np.bool_)
        else:
            bad = (checksum == 0) & ~partial
            if bad.any():
                self._skipped["no_checksum"] += int(np.count_nonzero(bad))
        rows = np.flatnonzero(~told & ~bad & (odd.captured == odd.wire))
        if rows.size:
            width = version.address_bytes
            udp = odd.at[rows] - 8
            to = np.where(joined[rows], udp - width, at[record[rows]] + version.destination)
            of = to - width
            length = odd.wire[rows] + 8
            sums = word_sums(data, udp, length) + word_sums(data, of, np.full(len(rows), 2 * width)) + _UDP + length
            wrong = rows[folded(sums) != 0]
            if wrong.size:
                self._skipped["bad_checksum"] += wrong.size
                bad[wrong] = True
        return odd.take(~bad) if bad.any() else odd


def _datagrams(frames: U8, plain: LongPackets, version: IpVersion) -> Odd:
    """Those of packets that are as usual but for their length; payloads stay where they are."""
    head = frames[plain.row, : version.payload]
    address = NET + version.source
    length = field(head, version.udp + 4, ">u2").astype(np.int64) - 8
    if version is IPV4:
        hi = np.zeros(len(head), np.uint64)
        lo = field(head, address, ">u4").astype(np.uint64) | np.uint64(MAPPED_PREFIX)
    else:
        hi, lo = (field(head, address + part, ">u8").astype(np.uint64) for part in (0, 8))
    return Odd(
        frame=plain.row,
        at=plain.at + version.payload - field(head, 12, "<u2"),
        captured=length,
        wire=length,
        hi=hi,
        lo=lo,
        source_port=field(head, version.udp, ">u2").astype(np.uint16),
        local_port=field(head, version.udp + 2, ">u2").astype(np.uint16),
        data=plain.data,
    )


def _both(plain: Odd, others: Odd) -> Odd:
    """In the order of their frames."""
    to = np.cumsum(plain.captured) - plain.captured
    data = np.empty(others.data.size + int(plain.captured.sum()), np.uint8)
    data[: others.data.size] = others.data
    copy_spans(data, others.data.size + to, plain.data, plain.at, plain.captured)
    plain = replace(plain, at=others.data.size + to)
    theirs = others.columns()
    joined = Odd(**{name: np.concatenate([one, theirs[name]]) for name, one in plain.columns().items()}, data=data)
    return joined.take(np.argsort(joined.frame, kind="stable"))


def _u16(data: U8, at: I64) -> I64:
    return data[at].astype(np.int64) << 8 | data[at + 1]


def _segments(head: U8, rows: I64, mac: I64) -> I64 | None:
    """By row of ``head``: bytes of each datagram of those that segmentation offload left in one frame, 0 for others.
    The header of virtio (linux/virtio_net.h) stands before the link's: flags, type, two lengths of 16 bits."""
    at = np.maximum(mac - VNET_BYTES, 0)
    kind = head[rows, at + 1] & _GSO_MASK
    if not (kind == _UDP_SEGMENTS).any():
        return None
    size = head[rows, at + 4].astype(np.int64) | head[rows, at + 5].astype(np.int64) << 8
    segments = np.zeros(len(head), np.int64)
    segments[rows] = np.where(kind == _UDP_SEGMENTS, size, 0)
    return segments


def _taken_apart(odd: Odd, segments: I64) -> Odd:
    """Each datagram of so many bytes in its own row; the last one of a packet may be shorter."""
    size = segments[odd.frame]
    size = np.where(size > 0, size, np.maximum(odd.wire, 1))
    count = np.maximum(-(-odd.wire // size), 1)
    if (count == 1).all():
        return odd
    first = np.cumsum(count) - count
    rows = np.repeat(np.arange(len(count)), count)
    begin = (np.arange(len(rows)) - first[rows]) * size[rows]
    out = odd.take(rows)
    wire = np.minimum(size[rows], odd.wire[rows] - begin)
    return replace(out, at=out.at + begin, wire=wire, captured=np.clip(odd.captured[rows] - begin, 0, wire))
