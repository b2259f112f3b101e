"""Where packets wait: slots of one size, 64 a stream, for payloads and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.spans import copy_spans

__all__ = ["LARGE_BYTES", "LARGE_WIDTHS", "SLOTS", "Bodies", "LargeSlots", "PacketSlots", "meta_in", "put"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

SLOTS: Final = 64  # a stream
_HEADER_LENGTHS: Final = 8  # different ones in a batch, for which payloads are copied in one go each
_BOTH_WORDS: Final = np.dtype((np.void, 16))
LARGE_BYTES: Final = 256 << 20  # for all streams of an engine
LARGE_WIDTHS: Final = (4096, 8192, 16_384, 32_768, 65_536)  # of slots
_TOP: Final = len(LARGE_WIDTHS) - 1
_HALF_FROM: Final = 3  # sizes from here on get at most half of it: no codec needs them, so they must not starve others


@dataclass(slots=True)
class Bodies:
    """Packets of which it is known whose they are, columns (n,). Payload i begins in the slab at row ``slab_rows[i]``
    and ``offset[i]``; it has ``length[i]`` bytes. ``across``: payloads may go on through the rows behind."""

    timestamp: npt.NDArray[np.uint32]
    payload_type: npt.NDArray[np.uint8]
    arrival_ns: I64
    offset: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]
    slab_rows: I64 | None  # None: 0 to n-1
    slab: npt.NDArray[np.uint8]
    across: bool = False

    def take(self, rows: I64) -> Bodies:
        """Some of them. The slab is not copied."""
        return Bodies(
            timestamp=self.timestamp[rows],
            payload_type=self.payload_type[rows],
            arrival_ns=self.arrival_ns[rows],
            offset=self.offset[rows],
            length=self.length[rows],
            slab_rows=rows if self.slab_rows is None else self.slab_rows[rows],
            slab=self.slab,
            across=self.across,
        )


class PacketSlots:
    """Slots are handed out by stream; memory grows by doubling.

    ``data``  uint8 (slots + 1, width): payloads. The last row is for what nobody wants
    ``meta``  uint64 (slots + 1, 2): a word of timestamp (32 bits), payload length (24) and payload type (8), and the
              arrival in ns, as int64
    """

    def __init__(self, width: int, streams: int) -> None:
        self.width = width
        self.data = np.empty((streams * SLOTS + 1, width), np.uint8)
        self.meta = np.zeros((len(self.data), 2), np.uint64)
        self._free = list(range(streams - 1, -1, -1))

    def acquire(self) -> int:
        """Give a stream its slots: the first one's number."""
        if not self._free:
            data, meta = self.data[:-1], self.meta
            streams = len(data) // SLOTS
            self.data = np.empty((2 * len(data) + 1, self.width), np.uint8)
            self.data[: len(data)] = data
            self.meta = np.zeros((len(self.data), 2), np.uint64)
            self.meta[: len(meta)] = meta
            self._free = list(range(2 * streams - 1, streams - 1, -1))
        return self._free.pop() * SLOTS

    def release(self, base: int) -> None:
        self._free.append(base // SLOTS)

    def take_back(self, base: int) -> None:
        """Undo a release, if it has come that far."""
        if self._free and self._free[-1] == base // SLOTS:
            self._free.pop()


class LargeSlots:
    """Slots for packets of more than 2,048 bytes, up to the largest that UDP carries: few streams have any.

    All their sizes share one piece of memory of fixed size, of which streams are given parts by the buddy method: a
    part of 4 MiB is halved until it is as small as wanted, and halves that are both free become one again. What of it
    no stream has used yet is never touched, so it costs nothing; while no stream has a part, there is none.

          64 slots of 4,096 bytes    256 KiB: L16/48000/2 in packets of 20 ms
                      8,192          512 KiB
                     16,384            1 MiB: in packets of 60 ms
                     32,768            2 MiB
                     65,536            4 MiB: what is left of UDP

    ``order`` is an index of LARGE_WIDTHS. ``most_bytes`` is rounded down to 4 MiB.
    """

    def __init__(self, most_bytes: int = LARGE_BYTES) -> None:
        whole = most_bytes // (SLOTS * LARGE_WIDTHS[_TOP])
        self._units = whole << _TOP  # parts of the smallest size
        # by order: the first units of parts that are free
        self._free: list[set[int]] = [set() for _ in LARGE_WIDTHS]
        self._free[_TOP] = {i << _TOP for i in range(whole)}
        self._largest_used = 0  # units, of the sizes that get half
        self._data = np.empty(0, np.uint8)
        self._meta = np.zeros((0, 2), np.uint64)

    def acquire(self, order: int) -> int:
        """Give a stream its slots: the first one's number among those of their size; -1: there is no room."""
        if order > _TOP:
            return -1
        size = 1 << order
        if order >= _HALF_FROM and 2 * (self._largest_used + size) > self._units:
            return -1
        found = next((k for k in range(order, _TOP + 1) if self._free[k]), None)
        if found is None:
            return -1
        if not self._data.size:
            unit = SLOTS * LARGE_WIDTHS[0]
            # one slot of each size more, for what nobody wants
            self._data = np.empty(self._units * unit + LARGE_WIDTHS[_TOP], np.uint8)
            self._meta = np.zeros((self._data.size // LARGE_WIDTHS[0], 2), np.uint64)
        unit = min(self._free[found])
        self._free[found].remove(unit)
        for k in range(found - 1, order - 1, -1):
            self._free[k].add(unit + (1 << k))
        self._largest_used += size * (order >= _HALF_FROM)
        return (unit >> order) * SLOTS

    def release(self, base: int, order: int) -> None:
        self._largest_used -= (1 << order) * (order >= _HALF_FROM)
        unit = base // SLOTS << order
        while order < _TOP and unit ^ (1 << order) in self._free[order]:
            self._free[order].remove(unit ^ (1 << order))
            unit &= ~(1 << order)
            order += 1
        self._free[order].add(unit)
        if len(self._free[_TOP]) << _TOP == self._units:
            self._data, self._meta = np.empty(0, np.uint8), np.zeros((0, 2), np.uint64)

    def held(self) -> tuple[list[set[int]], int, U8, U64]:
        """What :meth:`restore` goes back to."""
        return [set(units) for units in self._free], self._largest_used, self._data, self._meta

    def restore(self, held: tuple[list[set[int]], int, U8, U64]) -> None:
        """Undo what was acquired and released since."""
        self._free, self._largest_used, self._data, self._meta = held

    def data(self, order: int) -> U8:
        """uint8 (slots + 1, width): payloads. The last row is for what nobody wants."""
        return self._data.reshape(-1, LARGE_WIDTHS[order])

    def meta(self, order: int) -> U64:
        """uint64 (slots + 1, 2): as :class:`PacketSlots` has it."""
        return self._meta[:: 1 << order]


def meta_in(meta: U64, slot: I64) -> U64:
    """What is known of the packets in slots, uint64 (n, 2). ``meta`` has rows end to end, as in
    :class:`PacketSlots`."""
    # both words as one item: four times as fast as rows of two
    found: U64 = meta.view(_BOTH_WORDS)[:, 0].take(slot).view(np.uint64).reshape(-1, 2)
    return found


def put(data: U8, meta: U64, slot: I64, word: U64, bodies: Bodies, *, payloads: bool) -> None:
    """Put packets into slots. ``data``, ``meta``, ``word``: as in :class:`PacketSlots`; ``payloads`` False: only what
    is known of them."""
    both = np.empty((len(slot), 2), np.uint64)
    both[:, 0] = word
    both[:, 1] = bodies.arrival_ns.view(np.uint64)
    meta.view(_BOTH_WORDS)[:, 0][slot] = both.view(_BOTH_WORDS)[:, 0]
    if payloads:
        _copy_payloads(data, slot, bodies)


def _copy_payloads(target: U8, slot: I64, bodies: Bodies) -> None:
    """``target[slot, :length] = slab[slab_rows, offset:offset+length]``, the one copy of a packet's life.

    Rows are copied to the longest length of the batch: what stands behind a payload in a slot is never read.
    """
    if not len(slot):
        return
    slab, slab_rows, offset, length = bodies.slab, bodies.slab_rows, bodies.offset, bodies.length
    if bodies.across:
        _copy_each(target, slot, bodies)
        return
    longest = int(length.max())
    first = int(offset[0])
    groups: list[tuple[int, I64 | None]]
    if not np.count_nonzero(offset != first):
        groups = [(first, None)]
    else:
        distinct = np.unique(offset)
        if len(distinct) > _HEADER_LENGTHS:  # hostile: every packet another header length
            _copy_each(target, slot, bodies)
            return
        groups = [(int(o), np.flatnonzero(offset == o)) for o in distinct]
    for start, members in groups:
        width = min(longest, slab.shape[1] - start)
        if not width:
            continue
        # rows as opaque items: numpy copies each with one memcpy (10 ns), byte columns cost 460 ns a row
        to = _items(target, 0, width)
        payload = _items(slab, start, width)
        if members is None and slab_rows is not None and 8 * len(slab_rows) > 7 * len(slab):
            # one pass over nearly all rows is cheaper than to gather them first
            where = np.full(len(slab), len(target) - 1)
            where[slab_rows] = slot
            to[where] = payload
        elif members is None:
            to[slot] = payload if slab_rows is None else payload[slab_rows]
        else:
            to[slot[members]] = payload[members if slab_rows is None else slab_rows[members]]


def _copy_each(target: U8, slot: I64, bodies: Bodies) -> None:
    width = bodies.slab.shape[1]
    rows = np.arange(len(slot)) if bodies.slab_rows is None else bodies.slab_rows
    at = rows * width + bodies.offset
    copy_spans(target.reshape(-1), slot * target.shape[1], bodies.slab.reshape(-1), at, bodies.length)


def _items(slab: U8, start: int, width: int) -> npt.NDArray[np.void]:
    """Columns start:start+width of each row as one opaque item."""
    return np.ndarray((len(slab),), np.dtype((np.void, width)), slab, start, (slab.shape[1],))
