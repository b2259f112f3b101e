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

from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.time import NEVER_NS
from ..undo import Undo
from .slots import SLOTS, Bodies, PacketSlots
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
_LARGE_BYTES: Final = 2048  # a slot
_STREAMS_AT_FIRST: Final = 20_000  # of the usual size, for which there is room from the beginning
_LARGE_STREAMS_AT_FIRST: Final = 8


class RingPackets:
    """Packets that left the ring, columns (p,): by stream, and each stream's in sequence order."""

    __slots__ = ("arrival_ns", "ext", "length", "payload_type", "recovered", "row", "slot", "timestamp")

    def __init__(
        self,
        row: I64,
        ext: I64,
        slot: I64,
        timestamp: npt.NDArray[np.uint32],
        length: I64,
        payload_type: I64,
        arrival_ns: I64,
        recovered: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.row = row
        self.ext = ext
        self.slot = slot  # index into the stream's slab: base + (ext mod 64)
        self.timestamp = timestamp
        self.length = length
        self.payload_type = payload_type
        self.arrival_ns = arrival_ns
        self.recovered = recovered  # which did not come themselves, but in a redundant copy; None: none

    def __len__(self) -> int:
        return len(self.row)

    @property
    def came(self) -> int:
        """Packets that came themselves."""
        return len(self.row) - (0 if self.recovered is None else int(np.count_nonzero(self.recovered)))

    def take(self, chosen: I64 | npt.NDArray[np.bool_]) -> RingPackets:
        return RingPackets(
            row=self.row[chosen],
            ext=self.ext[chosen],
            slot=self.slot[chosen],
            timestamp=self.timestamp[chosen],
            length=self.length[chosen],
            payload_type=self.payload_type[chosen],
            arrival_ns=self.arrival_ns[chosen],
            recovered=None if self.recovered is None else self.recovered[chosen],
        )

    def starts(self) -> I64:
        """Where each stream's packets begin."""
        return np.append(True, self.row[1:] != self.row[:-1]).nonzero()[0]

    @classmethod
    def joined(cls, parts: list[RingPackets]) -> RingPackets:
        """Several as one; of a stream, what left the ring earlier comes first."""
        if len(parts) == 1:
            return parts[0]
        row = np.concatenate([part.row for part in parts])
        order = row.argsort(kind="stable")
        rest = (
            np.concatenate([getattr(part, name) for part in parts])[order]
            for name in ("ext", "slot", "timestamp", "length", "payload_type", "arrival_ns")
        )
        joined = cls(row[order], *rest)
        if any(part.recovered is not None for part in parts):
            none = (np.zeros(len(p), np.bool_) if p.recovered is None else p.recovered for p in parts)
            joined.recovered = np.concatenate(list(none))[order]
        return joined


class JitterRing:
    def __init__(self, streams: int, undo: Undo | None = None) -> None:
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
        self.large = np.zeros(streams, np.bool_)
        # memory that was never touched costs nothing, so there is room for all streams of the usual size at once
        self._small = PacketSlots(_SMALL_BYTES, min(streams, _STREAMS_AT_FIRST))
        self._large = PacketSlots(_LARGE_BYTES, min(streams, _LARGE_STREAMS_AT_FIRST))
        self.spares = Spares(streams, self._note)
        self._mark = np.zeros(streams, np.int64)
        self.any_large = 0
        self.keep_payloads = True  # False: they will not be read
        # by payload type: payloads that are kept all the same, because they are looked into
        self.peeked = np.zeros(128, np.bool_)

    # --- rows -----------------------------------------------------------------------------------------------------

    def open(self, rows: I64, first_ext: I64, payload_bytes: I64) -> None:
        """Give rows their slots and start them before ``first_ext``."""
        large = payload_bytes > _SMALL_BYTES
        self.large[rows] = large
        self.any_large += int(np.count_nonzero(large))
        self.base[rows] = [(self._large if is_large else self._small).acquire() for is_large in large.tolist()]
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
        if self.large[row]:
            self._large.release(base)
            self.any_large -= 1
        else:
            self._small.release(base)

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

    def enlarge(self, row: int) -> None:
        """Move a stream to the slab of large slots: its packets have grown."""
        old = int(self.base[row])
        new = self._large.acquire()
        self._undo.call(self._shrink, row, old, new, self.any_large)
        self._large.data[new : new + SLOTS, :_SMALL_BYTES] = self._small.data[old : old + SLOTS]
        self._large.meta[new : new + SLOTS] = self._small.meta[old : old + SLOTS]
        self._small.release(old)
        self.base[row] = new
        self.large[row] = True
        self.any_large += 1

    def _shrink(self, row: int, old: int, new: int, any_large: int) -> None:
        self._small.take_back(old)
        self._large.release(new)
        self.base[row] = old
        self.large[row] = False
        self.any_large = any_large

    @property
    def largest_payload(self) -> int:
        return _LARGE_BYTES

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
        if not self.any_large or not (large := self.large.take(rows)).any():
            self._small.put(slot, word, bodies, payloads=keep)
            return
        for slots, chosen in ((self._large, large), (self._small, ~large)):
            which = chosen.nonzero()[0]
            if which.size:
                slots.put(slot[which], word[which], bodies.take(which), payloads=keep)

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
            return self._small.meta[slot]
        large = self.large.take(rows)
        meta = np.empty((len(rows), 2), np.uint64)
        meta[large] = self._large.meta[slot[large]]
        meta[~large] = self._small.meta[slot[~large]]
        return meta

    # --- out ------------------------------------------------------------------------------------------------------

    def run(self, rows: I64) -> I64:
        """How many packets may leave: the trailing ones of ``present``."""
        present = self.present.take(rows)
        return (np.bitwise_count(present ^ (present + _ONE)) - _ONE.astype(np.uint8)).astype(np.int64)

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
        word = meta[:, 0]
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
        slab = self.payload_slab(bool(self.large[popped.row[i]]))
        return slab[int(popped.slot[i]), : int(popped.length[i])].tobytes()

    def payload_slab(self, large: bool) -> U8:
        return self._large.data if large else self._small.data


def _first_waiting(present: U64) -> I64:
    """Position of the first 1 after the first 0 that follows the run; ``present`` must have one."""
    run = np.bitwise_count(present ^ (present + _ONE)).astype(np.uint64) - _ONE
    rest = present >> run  # begins with a 0
    gap = np.bitwise_count((rest & (~rest + _ONE)) - _ONE).astype(np.uint64)
    waiting: I64 = (run + gap).view(np.int64)
    return waiting
