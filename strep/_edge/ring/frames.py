"""Frames of the ring as batches of datagrams. Pure: nothing here knows a socket; arrays in, arrays out.

Frames whose packet is as usual (no options, no extension headers, no fragment, not longer than a frame, its checksum
checked by somebody) are columns at fixed places. The others are gathered, and go the way of captured packets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ..._model.addresses import MAPPED_PREFIX
from ..._model.datagrams import ROW_BYTES, SLOT_MINIMUM, DatagramBatch, end_to_end
from ..._model.spans import copy_spans
from .layout import COPIED, FRAME_BYTES, IPV4, NET, PARTIAL, VALID, IpVersion
from .long import NONE, LongPackets
from .odd import Mine, Odd, OddPackets
from .ports import PortTable

__all__ = ["BATCH_FRAMES", "Decoder", "FrameDecoder", "SniffDecoder"]

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BATCH_FRAMES: Final = 4096  # that are decoded together, at most
_CHUNK: Final = 256  # frames that are copied together: headers and payloads of so many stay in the cache
_BATCHES_A_LOOK: Final = 16  # between two looks at how long rows need be
_CHECKED: Final = PARTIAL | VALID
_VERSION_BYTE: Final = {4: 0x45, 6: 0x60}  # without options


class Decoder(Protocol):
    """Makes batches of frames."""

    def decode(self, frames: U8, arrival_ns: I64, long: LongPackets = NONE) -> DatagramBatch | None:
        """``frames`` uint8 (n, FRAME_BYTES), n at most BATCH_FRAMES, one behind the other; ``arrival_ns`` int64 (n,);
        ``long`` the whole packets of those that are marked as copied. None: no datagram is in them.

        The slab is overwritten by the next call; the frames are not needed any more.
        """


class SniffDecoder:
    """Decodes frames of traffic between others, as captures are read. ``skipped`` as of :class:`FrameDecoder`."""

    def __init__(self, skipped: Counter[str]) -> None:
        self._packets = OddPackets(None, skipped)

    @property
    def joined(self) -> int:
        """Datagrams that were put together of fragments here."""
        return self._packets.joined

    def decode(self, frames: U8, arrival_ns: I64, long: LongPackets = NONE) -> DatagramBatch | None:
        """See :meth:`Decoder.decode`."""
        every = np.arange(len(frames), dtype=np.int64)
        found = self._packets.find(frames, frames, every, arrival_ns, long)
        n = len(found.frame)
        return _batch(found, np.arange(n), np.ones(n, np.bool_), frames[:0].reshape(-1), arrival_ns) if n else None


class FrameDecoder:
    """Decodes frames of one version of IP. ``local`` holds the addresses of this machine, as bytes.

    ``skipped`` counts by cause what came and is no usable datagram of ours; ``mine`` as of :class:`OddPackets`."""

    def __init__(
        self,
        version: IpVersion,
        ports: PortTable,
        local: Container[bytes],
        skipped: Counter[str],
        mine: Mine | None = None,
    ) -> None:
        self._version = version
        self._ports = ports
        self._local = local
        self._skipped = skipped
        self._odd = OddPackets(version, skipped, mine)
        self._head = np.zeros((BATCH_FRAMES, version.payload), np.uint8)
        self._slab = np.zeros(BATCH_FRAMES * SLOT_MINIMUM, np.uint8)
        self._width = SLOT_MINIMUM  # of the slab's rows
        self._longest = self._batches = 0  # of late

    @property
    def joined(self) -> int:
        """Datagrams that were put together of fragments here."""
        return self._odd.joined

    def decode(self, frames: U8, arrival_ns: I64, long: LongPackets = NONE) -> DatagramBatch | None:
        """See :meth:`Decoder.decode`."""
        if not len(frames):
            return None
        head, slab = self._copied(frames)
        usual = self._usual(head)
        length = self._field(head, self._version.udp + 4, ">u2").astype(np.int32)
        length -= 8
        every = bool(usual.all())
        longest = int(length.max()) if every else int(length[usual].max(initial=0))
        if longest > slab.shape[1]:
            slab = self._widened(frames, longest)
        self._narrow(longest)
        foreign = self._foreign(head)
        if not every or foreign is not None:
            return self._mixed(frames, head, slab, length, usual, foreign, arrival_ns, long)
        port = self._field(head, self._version.udp + 2, ">u2").astype(np.uint16)
        hi, lo = self._sources(head)
        batch = DatagramBatch(
            slab, length, arrival_ns, hi, lo, self._field(head, self._version.udp, ">u2").astype(np.uint16), port
        )
        wanted = self._ports.wanted(port, self._destinations(head))
        if wanted is not None:
            batch = batch.take(np.flatnonzero(wanted))
        return batch if len(batch) else None

    # --- copies and columns ---------------------------------------------------------------------------------------

    def _copied(self, frames: U8) -> tuple[U8, U8]:
        """Headers, uint8 (n, version.payload), and the first bytes of what stands behind them, uint8 (n, width)."""
        n, begin, width = len(frames), self._version.payload, self._width
        room = min(width, FRAME_BYTES - begin)
        head, slab = self._head[:n], self._rows(n, width)
        for at in range(0, n, _CHUNK):
            part = frames[at : at + _CHUNK]
            head[at : at + _CHUNK] = part[:, :begin]
            slab[at : at + _CHUNK, :room] = part[:, begin : begin + room]
        return head, slab

    def _narrow(self, longest: int) -> None:
        """Rows become as short as the longest datagram of late, once all have been much shorter for a while."""
        self._longest = max(self._longest, longest)
        self._batches += 1
        if self._batches >= _BATCHES_A_LOOK:
            self._width, self._longest, self._batches = min(self._width, _rounded(self._longest)), 0, 0

    def _widened(self, frames: U8, longest: int) -> U8:
        """The same with room for longer ones."""
        self._width = width = _rounded(longest)
        slab = self._rows(len(frames), width)
        begin = self._version.payload
        room = min(width, FRAME_BYTES - begin)
        slab[:, :room] = frames[:, begin : begin + room]
        return slab

    def _rows(self, n: int, width: int) -> U8:
        if self._slab.size < n * width:
            self._slab = np.zeros(BATCH_FRAMES * width, np.uint8)
        return self._slab[: n * width].reshape(n, width)

    @staticmethod
    def _field(head: U8, at: int, kind: str) -> npt.NDArray[Any]:
        """A view of what stands at ``at`` in every row."""
        return np.ndarray((len(head),), kind, head, at, (head.strides[0],))

    def _usual(self, head: U8) -> Mask:
        field, version = self._field, self._version
        status = field(head, 0, "<u4")
        usual: Mask = field(head, NET, "u1") == np.uint8(_VERSION_BYTE[version.number])
        usual &= (status & np.uint32(COPIED)) == 0
        checked = (status & np.uint32(_CHECKED)) != 0
        checksum = field(head, version.udp + 6, ">u2")
        if version is IPV4:
            usual &= (field(head, NET + 6, ">u2") & np.uint16(0x3FFF)) == 0  # no fragment
            usual &= field(head, NET + 9, "u1") == np.uint8(17)
            header = 20
            inside = field(head, NET + 2, ">u2").astype(np.int32)
            if not checked.all():
                checked |= checksum == 0
        else:
            usual &= field(head, NET + 6, "u1") == np.uint8(17)
            header = 40
            inside = field(head, NET + 4, ">u2").astype(np.int32)
            inside += 40
            checked &= (checksum != 0) | ((status & np.uint32(PARTIAL)) != 0)
        usual &= checked
        mac = field(head, 12, "<u2")
        first = int(mac[0])
        link = np.int32(NET - first)
        usual &= (mac == np.uint16(first)) & (field(head, 14, "<u2") == np.uint16(NET))
        captured, wire = field(head, 8, "<u4"), field(head, 4, "<u4")
        usual &= (captured == wire) & (inside + link <= captured)
        if first >= 10:
            usual &= field(head, first - 9, "u1") == 0  # no segmentation offload
        length = field(head, version.udp + 4, ">u2").astype(np.int32)
        usual &= (length >= 8) & (length + np.int32(header) <= inside)
        return usual

    def _sources(self, head: U8) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        if self._version is IPV4:
            lo = self._field(head, NET + 12, ">u4").astype(np.uint64)
            lo |= np.uint64(MAPPED_PREFIX)
            return np.zeros(len(head), np.uint64), lo
        return (
            self._field(head, NET + 8, ">u8").astype(np.uint64),
            self._field(head, NET + 16, ">u8").astype(np.uint64),
        )

    def _destinations(self, head: U8) -> U8:
        at = NET + self._version.destination
        return head[:, at : at + self._version.address_bytes]

    def _foreign(self, head: U8) -> Mask | None:
        """Which packets are addressed to other machines, that is, only pass through; None: none."""
        destination = self._destinations(head)
        if self._version is IPV4:
            words = self._field(head, NET + 16, "<u4")
            same = bool((words == words[0]).all())
        else:
            same = bool((destination == destination[0]).all())
        if same:
            return None if destination[0].tobytes() in self._local else np.ones(len(head), np.bool_)
        each, of = np.unique(np.ascontiguousarray(destination), axis=0, return_inverse=True)
        foreign = np.array([one.tobytes() not in self._local for one in each], np.bool_)
        return foreign[of.reshape(-1)] if foreign.any() else None

    # --- batches with others among them ---------------------------------------------------------------------------

    def _mixed(
        self, frames: U8, head: U8, slab: U8, length: npt.NDArray[np.int32], usual: Mask, foreign: Mask | None,
        arrival_ns: I64, long: LongPackets,
    ) -> DatagramBatch | None:  # fmt: skip
        odd = ~usual
        if foreign is not None:
            self._skipped["forwarded"] += int(np.count_nonzero(foreign))
            usual, odd = usual & ~foreign, odd & ~foreign
        plain, rows = np.flatnonzero(usual), np.flatnonzero(odd)
        found = self._odd.find(frames, head, rows, arrival_ns, long)
        hi, lo = self._sources(head)
        ports = [self._field(head, self._version.udp + by, ">u2").astype(np.uint16)[plain] for by in (0, 2)]
        joined = Odd(
            frame=np.concatenate([plain, found.frame]),
            at=np.concatenate([plain * slab.shape[1], found.at]),
            captured=np.concatenate([length[plain].astype(np.int64), found.captured]),
            wire=np.concatenate([length[plain].astype(np.int64), found.wire]),
            hi=np.concatenate([hi[plain], found.hi]),
            lo=np.concatenate([lo[plain], found.lo]),
            source_port=np.concatenate([ports[0], found.source_port]),
            local_port=np.concatenate([ports[1], found.local_port]),
            data=found.data,
        )
        gathered = np.repeat([False, True], [len(plain), len(found.frame)])
        order = np.argsort(joined.frame, kind="stable")
        wanted = self._ports.wanted(joined.local_port, self._destinations(head)[joined.frame])
        if wanted is not None:
            order = order[wanted[order]]
        if not order.size:
            return None
        return _batch(joined, order, gathered, np.ascontiguousarray(slab).reshape(-1), arrival_ns)


def _rounded(length: int) -> int:
    return max(SLOT_MINIMUM, -(-length // 8) * 8)


def _batch(found: Odd, order: I64, gathered: Mask, flat: U8, arrival_ns: I64) -> DatagramBatch:
    """Datagrams in this order; those that are ``gathered`` lie in ``found.data``, the others in ``flat``."""
    captured, wire = found.captured[order], found.wire[order]
    longest = int(captured.max())
    first_row: I64 | None = None
    if longest > ROW_BYTES:
        slab, first_row = end_to_end(captured)
        to = first_row * SLOT_MINIMUM
    else:
        slab = np.zeros((len(order), _rounded(longest)), np.uint8)
        to = np.arange(len(order), dtype=np.int64) * slab.shape[1]
    for data, some in ((flat, ~gathered[order]), (found.data, gathered[order])):
        rows = np.flatnonzero(some)
        copy_spans(slab.reshape(-1), to[rows], data, found.at[order[rows]], captured[rows])
    cut = captured < wire
    return DatagramBatch(
        slab,
        wire.astype(np.int32),
        arrival_ns[found.frame[order]],
        found.hi[order],
        found.lo[order],
        found.source_port[order],
        found.local_port[order],
        captured.astype(np.int32) if cut.any() else None,
        first_row,
    )
