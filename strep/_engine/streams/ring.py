"""The jitter ring: up to 64 packets a stream, one uint64 says which are there. All streams at once.

Per stream (row): ``next`` is the extended sequence number of the first packet that has not left; bit i of ``present``
says that packet next+i is here; bit i of ``history`` (three words: all of
the last 192, more than may come late) that packet next-1-i came, in time or late. Example,
4 missing:

    next=3   present=0b1101  →  run=1 (3 may leave), hole at 4, 5 and 6 wait behind it

A hole at the front is given up at a deadline: the arrival of the first packet that waits behind it, plus the latency.

``edge`` is next + run as it was at the last grid point of the clock. Whether a packet is in the window is judged
against it, so the verdict does not depend on how the packets since then were cut into batches.

The window is ``WINDOW`` packets ahead of the edge. A run of ``LONG_RUN`` leaves at a grid point, so the edge is less
than that ahead of ``next``, and whatever is accepted has a bit of ``present``: WINDOW + LONG_RUN - 1 <= 63.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.time import NEVER_NS
from ..undo import Undo
from .ring_packets import RingPackets
from .slots import LARGE_BYTES, LARGE_WIDTHS, SLOTS, Bodies, LargeSlots, PacketSlots, meta_in, put
from .spares import Spares

__all__ = ["LONG_RUN", "MAX_DROPOUT", "MISORDER", "WINDOW", "JitterRing", "RingPackets"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

WINDOW: Final = 44  # packets ahead of the edge that are accepted; edge - next < LONG_RUN, so all fit into 64 slots
LONG_RUN: Final = 20  # a run this long leaves at the next grid point even if nobody asks
MAX_DROPOUT: Final = 3000  # RFC 3550 A.1: a jump forward below this is loss, beyond it a restart
MISORDER: Final = 100  # RFC 3550 A.1 MAX_MISORDER: this far behind is late, further behind is another sequence

_ONE = np.uint64(1)
_HISTORY_WORDS: Final = 3
_SMALL_BYTES: Final = 256  # a slot: 20 ms of G.711 is 160, 30 ms is 240
_MIDDLE_BYTES: Final = 2048  # a slot
_WIDTHS: Final = np.array([_SMALL_BYTES, _MIDDLE_BYTES, *LARGE_WIDTHS])  # of slots, by size
_FIRST_LARGE: Final = 2  # size
_STREAMS_AT_FIRST: Final = 20_000  # of the usual size, for which there is room from the beginning
_MIDDLE_STREAMS_AT_FIRST: Final = 8


class JitterRing:
    """``large_bytes``: memory for packets of more than 2,048 bytes, of all streams."""

    def __init__(self, streams: int, undo: Undo | None = None, *, large_bytes: int = LARGE_BYTES) -> None:
        self._undo = undo or Undo(keep=False)
        self._note = self._undo.note
        self.next = np.zeros(streams, np.int64)
        self.present = np.zeros(streams, np.uint64)
        # 192 deep: MISORDER behind the edge, and next may run ahead of the edge within a tick
        self._history = tuple(np.zeros(streams, np.uint64) for _ in range(_HISTORY_WORDS))
        self.edge = np.zeros(streams, np.int64)
        self.deadline_ns = np.zeros(streams, np.int64)  # NEVER_NS while there is no hole
        self.earliest_deadline_ns = NEVER_NS  # lower bound over all streams
        self.base = np.full(streams, -1)  # of a row's slots; -1: it has none
        self.size = np.zeros(streams, np.int8)  # of a row's slots, an index of _WIDTHS
        # memory that was never touched costs nothing, so there is room for all streams of the usual size at once
        self._small = PacketSlots(_SMALL_BYTES, min(streams, _STREAMS_AT_FIRST))
        self._middle = PacketSlots(_MIDDLE_BYTES, min(streams, _MIDDLE_STREAMS_AT_FIRST))
        self._large = LargeSlots(large_bytes)
        self.spares = Spares(streams, self._note)
        self._mark = np.zeros(streams, np.int64)
        self.any_large = 0  # rows whose slots are not of the smallest size
        self.keep_payloads = True  # False: they will not be read
        # by payload type: payloads that are kept all the same, because they are looked into
        self.peeked = np.zeros(129, np.bool_)

    # --- rows -----------------------------------------------------------------------------------------------------

    def open(self, rows: I64, first_ext: I64, payload_bytes: I64) -> None:
        """Give rows their slots and start them before ``first_ext``."""
        size = self.size_for(payload_bytes)
        self.base[rows] = [self._acquire(one) for one in size.tolist()]
        for i in (self.base[rows] < 0).nonzero()[0].tolist():
            size[i], self.base[rows[i]] = 1, self._middle.acquire()  # there is no room for so large ones
        self.size[rows] = size
        self.any_large += int(np.count_nonzero(size))
        self.restart(rows, first_ext)

    def restart(self, rows: I64, first_ext: I64) -> None:
        """Begin a new sequence in rows whose packets have all left."""
        self.next[rows] = first_ext
        self.edge[rows] = first_ext
        self.present[rows] = 0
        for word in self._history:
            word[rows] = 0
        self.spares.forget(rows)
        self.deadline_ns[rows] = NEVER_NS

    def skip(self, rows: I64, packets: I64) -> None:
        """So many packets (0 or more) will not come in rows whose packets have all left."""
        self.spares.forget(rows)
        self.next[rows] += packets
        self.edge[rows] = self.next[rows]
        self.deadline_ns[rows] = NEVER_NS
        left = np.minimum(packets, 64 * _HISTORY_WORDS)
        while (some := left > 0).any():
            rows, left = rows[some], left[some]
            part = np.minimum(left, 63)
            self._remember(rows, part.view(np.uint64), 0)
            left = left - part

    def close(self, row: int) -> None:
        """Take a row's slots back, if it has any."""
        base = int(self.base[row])
        self.base[row] = -1
        self.present[row] = 0
        self.spares.forget(row)
        self.deadline_ns[row] = NEVER_NS
        if base < 0:
            return
        self._release(base, int(self.size[row]))
        self.any_large -= bool(self.size[row])

    def drop(self, rows: I64) -> int:
        """Forget the packets that wait in these rows; tells how many."""
        count = self.waiting(rows)
        self.present[rows] = 0
        self.spares.forget(rows)
        self.deadline_ns[rows] = NEVER_NS
        return count

    def waiting(self, rows: I64 | slice = slice(None)) -> int:
        """How many packets wait in rows (distinct), copies not counted."""
        present = self.present[rows]
        if self.spares.used:
            present = present & ~self.spares.copies[rows]
        return int(np.bitwise_count(present).sum())

    def enlarge(self, row: int, size: int) -> bool:
        """Move a stream to slots of a larger size, because its packets have grown; tells whether there was room."""
        old, before = int(self.base[row]), int(self.size[row])
        held = self._large.held()
        new = self._acquire(size)
        if new < 0:
            return False
        self._undo.call(self._shrink, row, old, new, before, self.any_large, held)
        data, meta = self._slots(before)
        to_data, to_meta = self._slots(size)
        to_data[new : new + SLOTS, : data.shape[1]] = data[old : old + SLOTS]
        to_meta[new : new + SLOTS] = meta[old : old + SLOTS]
        self._release(old, before)
        self.base[row] = new
        self.size[row] = size
        self.any_large += before == 0
        return True

    def _shrink(self, row: int, old: int, new: int, before: int, any_large: int, held: tuple[Any, ...]) -> None:
        if before < _FIRST_LARGE:
            (self._middle if before else self._small).take_back(old)
        if self.size[row] < _FIRST_LARGE:
            self._middle.release(new)
        self._large.restore(held)
        self.base[row] = old
        self.size[row] = before
        self.any_large = any_large

    def _acquire(self, size: int) -> int:
        if size >= _FIRST_LARGE:
            return self._large.acquire(size - _FIRST_LARGE)
        return (self._middle if size else self._small).acquire()

    def _release(self, base: int, size: int) -> None:
        if size >= _FIRST_LARGE:
            self._large.release(base, size - _FIRST_LARGE)
        else:
            (self._middle if size else self._small).release(base)

    def _slots(self, size: int) -> tuple[U8, U64]:
        """Payloads, and what is known of packets, in slots of a size."""
        if size >= _FIRST_LARGE:
            return self._large.data(size - _FIRST_LARGE), self._large.meta(size - _FIRST_LARGE)
        slots = self._middle if size else self._small
        return slots.data, slots.meta

    @staticmethod
    def size_for(payload_bytes: npt.NDArray[np.integer]) -> npt.NDArray[np.int8]:
        """Of the slots that hold so many bytes."""
        return _WIDTHS.searchsorted(payload_bytes).astype(np.int8)

    def room_in(self, rows: I64) -> I64:
        """The longest payloads that these rows' slots hold."""
        return _WIDTHS.take(self.size.take(rows)) if self.any_large else np.full(len(rows), _SMALL_BYTES)

    def by_size(self, rows: I64) -> list[tuple[int, I64]]:
        """Sizes of slots, and which of the rows have them."""
        size = self.size.take(rows)
        return [(one, (size == one).nonzero()[0]) for one in np.bincount(size).nonzero()[0].tolist()]

    @property
    def small_payload(self) -> int:
        return _SMALL_BYTES

    # --- in -------------------------------------------------------------------------------------------------------

    def repeated(self, rows: I64) -> npt.NDArray[np.bool_] | None:
        """Which entries name a row that others name too; None: all are different."""
        order = np.arange(len(rows))
        self._mark[rows] = order
        others = (self._mark.take(rows) != order).nonzero()[0]
        if not others.size:
            return None
        self._mark[rows[others]] = -1
        return self._mark.take(rows) < 0

    def insert(self, rows: I64, ext: I64, bodies: Bodies, *, different: bool) -> None:
        """Put packets into their slots. They are new and in the window; ``different``: at most one a stream."""
        bit = _ONE << (ext - self.next.take(rows)).view(np.uint64)
        present = self.present.take(rows)
        self._note((self.present, rows, present))
        if different:
            self.present[rows] = present | bit
        else:
            np.bitwise_or.at(self.present, rows, bit)
        if self.spares.used:
            self.spares.replaced(rows, bit)
        self.fill_slots(rows, ext, bodies)

    def fill_slots(self, rows: I64, ext: I64, bodies: Bodies) -> None:
        """Put packets into their slots, which says nothing of whether they are there."""
        keep = self.keep_payloads or bool(self.peeked.take(bodies.payload_type).any())
        slot = self.base.take(rows) + (ext & (SLOTS - 1))
        word = bodies.timestamp.astype(np.uint64)
        word <<= np.uint64(32)
        word |= bodies.length.astype(np.uint64) << np.uint64(8)
        word |= bodies.payload_type
        if not self.any_large or not self.size.take(rows).any():
            put(self._small.data, self._small.meta, slot, word, bodies, payloads=keep)
            return
        for size, which in self.by_size(rows):
            data, meta = self._slots(size)
            put(data, meta, slot[which], word[which], bodies.take(which), payloads=keep)

    def _note_holes(self, rows: I64, latency_ns: int) -> None:
        """Set the deadline of rows that have a hole (several mentions of a row are fine)."""
        waiting = self.next[rows] + _first_waiting(self.present[rows])
        slot = self.base[rows] + (waiting & (SLOTS - 1))
        arrival = self.meta_of(rows, slot)[:, 1].view(np.int64)
        # a clock that went wrong must not make a deadline wrap
        arrival = np.minimum(arrival, NEVER_NS - 1 - latency_ns)
        self.deadline_ns[rows] = arrival + latency_ns
        self.earliest_deadline_ns = min(self.earliest_deadline_ns, int(arrival.min()) + latency_ns)

    def meta_of(self, rows: I64, slot: I64) -> U64:
        """What slots know of their packets, as :class:`PacketSlots` has it. uint64 (n, 2)."""
        if not self.any_large:
            return meta_in(self._small.meta, slot)
        meta = np.empty((len(rows), 2), np.uint64)
        for size, which in self.by_size(rows):
            meta[which] = self._slots(size)[1][slot[which]]
        return meta

    # --- out ------------------------------------------------------------------------------------------------------

    def run(self, rows: I64) -> I64:
        """How many packets may leave: the trailing ones of ``present``."""
        present = self.present.take(rows)
        return (np.bitwise_count(present ^ (present + _ONE)) - _ONE.astype(np.uint8)).astype(np.int64)

    def at_edge(self, rows: I64) -> npt.NDArray[np.bool_]:
        """Whether the packet that was awaited at the edge has come, so that the edge can move."""
        offset = (self.edge.take(rows) - self.next.take(rows)).astype(np.uint64)
        return (self.present.take(rows) >> offset & np.uint64(1)).astype(np.bool_)

    def highest(self, rows: I64) -> I64:
        """The extended sequence number of the last packet of rows that hold any."""
        # all bits below the highest one, so that counting them tells where it stands
        bits = self.present.take(rows)
        for shift in (1, 2, 4, 8, 16, 32):
            bits |= bits >> np.uint64(shift)
        return self.next.take(rows) + np.bitwise_count(bits).astype(np.int64) - 1

    def settle(self, rows: I64) -> I64:
        """At a grid point: move the edges of these rows up; returns their runs. Doing it twice changes nothing."""
        run = self.run(rows)
        self.edge[rows] = self.next.take(rows) + run
        return run

    def pop(self, rows: I64, run: I64) -> RingPackets:
        """Take the first ``run`` > 0 packets of each row (rows distinct, run as told by :meth:`run`)."""
        ends = np.cumsum(run)
        total = int(ends[-1])
        step = np.arange(total)
        step -= np.repeat(ends - run, run)
        row = np.repeat(rows, run)
        first = self.next.take(rows)
        ext = np.repeat(first, run)
        ext += step
        slot = self.base.take(row)
        slot += ext & (SLOTS - 1)
        meta = self.meta_of(row, slot)
        word = np.ascontiguousarray(meta[:, 0])
        count = run.view(np.uint64)
        present = self.present.take(rows)
        self._note((self.present, rows, present))
        self._note((self.next, rows, first))
        self.present[rows] = present >> count
        recovered = None
        if self.spares.used:
            copies = self.spares.copies.take(rows)
            came = self.spares.shift(rows, count)
            if (copies & ((_ONE << count) - _ONE)).any():
                recovered = ((np.repeat(copies, run) >> step.view(np.uint64)) & _ONE).astype(np.bool_)
        else:
            came = (_ONE << count) - _ONE
        self._remember(rows, count, came)
        self.next[rows] = first + run
        return RingPackets(
            row=row,
            ext=ext,
            slot=slot,
            timestamp=(word >> np.uint64(32)).astype(np.uint32),
            length=((word >> np.uint64(8)) & np.uint64(0xFFFFFF)).view(np.int64),
            payload_type=(word & np.uint64(0xFF)).view(np.int64),
            arrival_ns=np.ascontiguousarray(meta[:, 1]).view(np.int64),
            recovered=recovered,
        )

    def skip_hole(self, rows: I64, latency_ns: int) -> None:
        """Give up the holes at the front of these rows, whose runs are 0 and behind which something waits: up to a
        redundant copy of what is missing, where there is one."""
        present, first = self.present[rows], self.next[rows]
        self._note((self.present, rows, present))
        self._note((self.next, rows, first))
        self._note((self.deadline_ns, rows, self.deadline_ns[rows]))
        self.note_earliest()
        spares = self.spares
        if spares.used:
            present = spares.fill(rows, present)
        hole = np.bitwise_count((present & (~present + _ONE)) - _ONE).astype(np.int64)
        count = hole.view(np.uint64)
        if spares.used:
            spares.shift(rows, count)
        self.present[rows] = present >> count
        self._remember(rows, count, 0)
        self.next[rows] = first + hole
        self.watch_holes(rows, latency_ns)

    def _remember(self, rows: I64, count: U64, came: U64 | int) -> None:
        """Shift ``count`` (0 to 63) packets into the history."""
        rest = np.uint64(64) - count
        for word in self._history:
            before = word.take(rows)
            self._note((word, rows, before))
            word[rows] = (before << count) | came
            came = before >> rest

    def came(self, rows: I64, offset: I64) -> npt.NDArray[np.bool_]:
        """Whether the packets at next + offset (-192 to 63) are here or have been, copies not counted."""
        back = np.maximum(-1 - offset, 0)
        here = self.present.take(rows)
        if self.spares.used:
            here &= ~self.spares.copies.take(rows) | self.spares.late.take(rows)
        words = np.stack([*(word.take(rows) for word in self._history), here])
        which = np.where(offset < 0, back >> 6, _HISTORY_WORDS)
        shift = np.where(offset < 0, back & 63, offset).view(np.uint64)
        return ((words[which, np.arange(len(rows))] >> shift) & _ONE).astype(np.bool_)

    def given_up(self, rows: I64, offset: I64) -> npt.NDArray[np.bool_]:
        """Whether nothing is waited for at next + offset (-192 to 63) any more, where no packet came."""
        gone: npt.NDArray[np.bool_] = offset < 0
        if self.spares.used:
            bit = _ONE << np.maximum(offset, 0).view(np.uint64)
            gone = gone | ((self.spares.standing_in(rows, self.present.take(rows)) & bit) != 0)
        return gone

    def note_late(self, rows: I64, offset: I64) -> None:
        """Remember that late packets at next + offset (-192 to -1; more where a copy stands in) have come."""
        back = -1 - offset
        if (stood_in := (back < 0).nonzero()[0]).size:
            self.spares.note_late(rows[stood_in], _ONE << offset[stood_in].view(np.uint64))
        for number, word in enumerate(self._history):
            mine = back >> 6 == number
            which = rows[mine]
            self._note((word, which, word[which]))
            np.bitwise_or.at(word, which, _ONE << (back[mine] & 63).view(np.uint64))

    def watch_holes(self, rows: I64, latency_ns: int) -> None:
        """At a grid point: set the deadlines of rows into which packets came (several mentions are fine). Doing it
        twice changes nothing, so nothing is noted."""
        present = self.present.take(rows)
        holed = (present & (present + _ONE)) != 0
        if self.earliest_deadline_ns != NEVER_NS:
            self.deadline_ns[rows] = NEVER_NS
        if np.count_nonzero(holed):
            self._note_holes(rows[holed], latency_ns)

    def note_earliest(self) -> None:
        """Call this before ``earliest_deadline_ns`` is raised."""
        self._note((self.__dict__, "earliest_deadline_ns", self.earliest_deadline_ns))

    def payload(self, popped: RingPackets, i: int) -> bytes:
        """A packet's payload, where packets are looked at one by one."""
        slab = self.payload_slab(int(self.size[popped.row[i]]))
        return slab[int(popped.slot[i]), : int(popped.length[i])].tobytes()

    def payload_slab(self, size: int) -> U8:
        """uint8 (slots + 1, width): where the payloads are of rows whose slots are of this size."""
        return self._slots(size)[0]


def _first_waiting(present: U64) -> I64:
    """Position of the first 1 after the first 0 that follows the run; ``present`` must have one."""
    run = np.bitwise_count(present ^ (present + _ONE)).astype(np.uint64) - _ONE
    rest = present >> run  # begins with a 0
    gap = np.bitwise_count((rest & (~rest + _ONE)) - _ONE).astype(np.uint64)
    waiting: I64 = (run + gap).view(np.int64)
    return waiting
