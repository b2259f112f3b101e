"""Frames of the ring as batches of datagrams. Pure: nothing here knows a socket; arrays in, arrays out.

Frames whose packet is as usual (no options, no extension headers, no fragment, not longer than a frame, its checksum
checked by somebody) are columns at fixed places. The others are gathered, and go the way of captured packets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ..._model.addresses import MAPPED_PREFIX
from ..._model.datagrams import ROW_BYTES, SLOT_MINIMUM, DatagramBatch, end_to_end
from ..._model.spans import copy_spans
from .layout import FRAME_BYTES, IPV4, NET, IpVersion
from .long import NONE, LongPackets
from .odd import Mine, Odd, OddPackets
from .ports import PortTable
from .usual import Heads, usual_rows

__all__ = ["BATCH_FRAMES", "Decoder", "FrameDecoder", "SniffDecoder"]

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BATCH_FRAMES: Final = 8192  # that are decoded together, at most
_BATCHES_A_LOOK: Final = 16  # between two looks at how long rows need be


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
        self._heads = Heads(version, BATCH_FRAMES)
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
        n, version, heads = len(frames), self._version, self._heads
        heads.take(frames)
        common = heads.common(frames)
        if common is None:
            return self._mixed(frames, usual_rows(frames, version), arrival_ns, long)
        destination, foreign = self._destination(frames, same=common.destination)
        if foreign is not None:
            return self._mixed(frames, np.ones(n, np.bool_), arrival_ns, long)
        length = self._lengths(n, common.length)
        wanted: Mask | None = None
        if common.port is None or not common.destination:
            port = heads.column(version.udp + 2, ">u2", n).astype(np.uint16)
            wanted = self._ports.wanted(port, destination)
        elif self._ports.takes(common.port, destination[0].tobytes()):
            port = _constants(common.port, "u2")[:n]
        else:
            return None
        slab = self._bodies(frames, int(length.max()) if common.length is None else common.length)
        hi, lo = self._sources(n)
        source_port = heads.column(version.udp, ">u2", n).astype(np.uint16)
        batch = DatagramBatch(slab, length, arrival_ns, hi, lo, source_port, port)
        if wanted is not None:
            batch = batch.take(np.flatnonzero(wanted))
        return batch if len(batch) else None

    # --- copies and columns ---------------------------------------------------------------------------------------

    def _lengths(self, n: int, one: int | None) -> npt.NDArray[np.int32]:
        """Of payloads; ``one``: of all."""
        if one is not None:
            return _constants(one, "i4")[:n]
        length = self._heads.column(self._version.udp + 4, ">u2", n).astype(np.int32)
        length -= 8
        return length

    def _bodies(self, frames: U8, longest: int) -> U8:
        """What stands behind, uint8 (n, width), with room for ``longest`` bytes. Rows become as short as the longest
        datagram of late, once all have been much shorter for a while."""
        width = self._width = max(self._width, _rounded(longest))
        slab, begin = self._rows(len(frames), width), self._version.payload
        room = min(width, FRAME_BYTES - begin)
        _items(slab, 0, room)[:] = _items(frames, begin, room)
        self._longest = max(self._longest, longest)
        self._batches += 1
        if self._batches >= _BATCHES_A_LOOK:
            self._width, self._longest, self._batches = min(width, _rounded(self._longest)), 0, 0
        return slab

    def _rows(self, n: int, width: int) -> U8:
        if self._slab.size < n * width:
            self._slab = np.zeros(BATCH_FRAMES * width, np.uint8)
        return self._slab[: n * width].reshape(n, width)

    def _sources(self, n: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        column, at = self._heads.column, NET + self._version.source
        if self._version is IPV4:
            lo = column(at, ">u4", n).astype(np.uint64)
            lo |= np.uint64(MAPPED_PREFIX)
            return _constants(0, "u8")[:n], lo
        return column(at, ">u8", n).astype(np.uint64), column(at + 8, ">u8", n).astype(np.uint64)

    def _destination(self, frames: U8, *, same: bool) -> tuple[U8, Mask | None]:
        """Where packets were sent, uint8 (n, 4 or 16), or (1, 4 or 16) if it is known that all were sent to the
        ``same`` address; and which of them are for other machines, that is, only pass through; None: none."""
        at = NET + self._version.destination
        each = frames[: 1 if same else None, at : at + self._version.address_bytes]
        if same or (each == each[0]).all():
            ours = each[0].tobytes() in self._local
            return each[:1], None if ours else np.ones(len(frames), np.bool_)
        each = np.ascontiguousarray(each)
        addresses, of = np.unique(each, axis=0, return_inverse=True)
        foreign = np.array([one.tobytes() not in self._local for one in addresses], np.bool_)
        return each, foreign[of.reshape(-1)] if foreign.any() else None

    # --- batches with others among them ---------------------------------------------------------------------------

    def _mixed(self, frames: U8, usual: Mask, arrival_ns: I64, long: LongPackets) -> DatagramBatch | None:
        """``usual``: which packets are."""
        odd, version, column = ~usual, self._version, self._heads.column
        n = len(frames)
        length = self._lengths(n, None)
        _, foreign = self._destination(frames, same=False)
        if foreign is not None:
            self._skipped["forwarded"] += int(np.count_nonzero(foreign))
            usual, odd = usual & ~foreign, odd & ~foreign
        slab = self._bodies(frames, int(length[usual].max(initial=0)))
        plain, rows = np.flatnonzero(usual), np.flatnonzero(odd)
        found = self._odd.find(frames, frames, rows, arrival_ns, long)
        hi, lo = self._sources(n)
        ports = [column(version.udp + by, ">u2", n).astype(np.uint16)[plain] for by in (0, 2)]
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
        at = NET + version.destination
        destination = frames[:, at : at + version.address_bytes][joined.frame]
        wanted = self._ports.wanted(joined.local_port, destination)
        if wanted is not None:
            order = order[wanted[order]]
        if not order.size:
            return None
        return _batch(joined, order, gathered, np.ascontiguousarray(slab).reshape(-1), arrival_ns)


def _items(rows: U8, at: int, size: int) -> npt.NDArray[np.void]:
    """What stands at ``at`` in each row, ``size`` bytes, as one item."""
    return np.ndarray((len(rows),), np.dtype((np.void, size)), rows, at, (rows.strides[0],))


@lru_cache(maxsize=16)
def _constants(value: int, kind: str) -> npt.NDArray[Any]:
    """Shared, not to be written to."""
    constants = np.full(BATCH_FRAMES, value, kind)
    constants.flags.writeable = False
    return constants


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
        None if found.destination_hi is None else found.destination_hi[order],
        None if found.destination_lo is None else found.destination_lo[order],
    )
