"""The jitter ring: up to 64 packets a stream, one uint64 says which are there. All streams at once.

Per stream (row): ``next`` is the extended sequence number of the first packet that has not left; bit i of ``present``
says that packet next+i is here; bit i of ``history`` (two words) that packet next-1-i came in time or late. Example,
4 missing:

    next=3   present=0b1101  →  run=1 (3 may leave), hole at 4, 5 and 6 wait behind it

A hole at the front is given up by deadline: arrival of the first packet that waits behind it + latency.

``edge`` is next + run as it was at the last grid point of the clock. Whether a packet is in the window is judged
against it, so the verdict does not depend on how the packets since then were cut into batches.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.time import NEVER_NS
from ..undo import Undo

__all__ = ["HISTORY", "LONG_RUN", "MAX_DROPOUT", "MISORDER", "SLOTS", "WINDOW", "JitterRing", "RingPackets"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

SLOTS: Final = 64
WINDOW: Final = 44  # packets ahead of the edge that are accepted; edge - next < LONG_RUN, so all fit into 64 slots
LONG_RUN: Final = 20  # a run this long leaves at the next grid point even if nobody asks
MAX_DROPOUT: Final = 3000  # RFC 3550 A.1: a jump forward below this is loss, beyond it a restart
MISORDER: Final = 100  # RFC 3550 A.1 MAX_MISORDER: this far behind is late, further behind is another sequence
HISTORY: Final = 64  # packets behind the edge of which is known whether they came

_ONE = np.uint64(1)
_PAIR: Final = np.dtype((np.void, 16))
_SMALL: Final = 256  # bytes a slot: 20 ms of G.711 is 160, 30 ms is 240
_LARGE: Final = 2048
_AT_ONCE: Final = 20_000


class RingPackets:
    """Packets that left the ring: columns of shape (p,), streams grouped, each in sequence order."""

    __slots__ = ("arrival_ns", "ext", "length", "payload_type", "row", "slot", "timestamp")

    def __init__(
        self,
        row: I64,
        ext: I64,
        slot: I64,
        timestamp: npt.NDArray[np.uint32],
        length: I64,
        payload_type: I64,
        arrival_ns: I64,
    ) -> None:
        self.row = row
        self.ext = ext
        self.slot = slot  # index into the stream's slab: base + (ext mod 64)
        self.timestamp = timestamp
        self.length = length
        self.payload_type = payload_type
        self.arrival_ns = arrival_ns

    def __len__(self) -> int:
        return len(self.row)

    def take(self, chosen: I64 | npt.NDArray[np.bool_]) -> RingPackets:
        return RingPackets(
            self.row[chosen],
            self.ext[chosen],
            self.slot[chosen],
            self.timestamp[chosen],
            self.length[chosen],
            self.payload_type[chosen],
            self.arrival_ns[chosen],
        )

    def starts(self) -> I64:
        """Where each stream's packets begin."""
        return np.append(True, self.row[1:] != self.row[:-1]).nonzero()[0]

    @classmethod
    def joined(cls, parts: list[RingPackets]) -> RingPackets:
        """Several as one; what was popped earlier of a stream comes first."""
        if len(parts) == 1:
            return parts[0]
        row = np.concatenate([part.row for part in parts])
        order = row.argsort(kind="stable")
        rest = (
            np.concatenate([getattr(part, name) for part in parts])[order]
            for name in ("ext", "slot", "timestamp", "length", "payload_type", "arrival_ns")
        )
        return cls(row[order], *rest)


class _Slab:
    """Payload slots of one size, 64 a stream, handed out by stream. Grows by doubling."""

    def __init__(self, width: int, streams: int) -> None:
        self.width = width
        # the last row is for what nobody wants
        self.data = np.empty((streams * SLOTS + 1, width), np.uint8)
        self._free = list(range(streams - 1, -1, -1))

    def acquire(self) -> int:
        if not self._free:
            old = self.data[:-1]
            streams = len(old) // SLOTS
            self.data = np.empty((2 * len(old) + 1, self.width), np.uint8)
            self.data[: len(old)] = old
            self._free = list(range(2 * streams - 1, streams - 1, -1))
        return self._free.pop() * SLOTS

    def release(self, base: int) -> None:
        self._free.append(base // SLOTS)

    def take_back(self, base: int) -> None:
        """Undo a release, if it has come that far."""
        if self._free and self._free[-1] == base // SLOTS:
            self._free.pop()


class JitterRing:
    def __init__(self, streams: int, undo: Undo | None = None) -> None:
        self._undo = undo or Undo(keep=False)
        self._note = self._undo.note
        self.next = np.zeros(streams, np.int64)
        self.present = np.zeros(streams, np.uint64)
        # 128 deep, because next may run ahead of the edge within a tick
        self.history = np.zeros(streams, np.uint64)
        self._history_far = np.zeros(streams, np.uint64)
        self.edge = np.zeros(streams, np.int64)
        self.deadline_ns = np.zeros(streams, np.int64)  # NEVER_NS while there is no hole
        self.earliest_deadline_ns = NEVER_NS  # lower bound over all streams
        self.base = np.full(streams, -1)  # of a row's slots; -1: it has none
        self.large = np.zeros(streams, np.bool_)
        # memory that nobody touched costs nothing: room for all streams of the usual size at once, as far as sane
        self._small_slab = _Slab(_SMALL, min(streams, _AT_ONCE))
        self._large_slab = _Slab(_LARGE, min(streams, 8))
        # what is known of a packet beside its payload: one word, and its arrival
        self._small_meta = np.zeros((len(self._small_slab.data), 2), np.uint64)
        self._large_meta = np.zeros((len(self._large_slab.data), 2), np.uint64)
        self._mark = np.zeros(streams, np.int64)
        self.any_large = 0
        self.keep_payloads = True  # False: nobody will read them
        self.peeked = np.zeros(128, np.bool_)  # payload types that are kept all the same: they must be looked into

    # --- rows -----------------------------------------------------------------------------------------------------

    def open(self, rows: I64, first_ext: I64, payload_bytes: I64) -> None:
        """Give rows their slots and start them before ``first_ext``."""
        large = payload_bytes > _SMALL
        self.large[rows] = large
        self.any_large += int(np.count_nonzero(large))
        self.base[rows] = [
            (self._large_slab if is_large else self._small_slab).acquire() for is_large in large.tolist()
        ]
        self._large_meta = _grown(self._large_meta, len(self._large_slab.data))
        self._small_meta = _grown(self._small_meta, len(self._small_slab.data))
        self.restart(rows, first_ext)

    def restart(self, rows: I64, first_ext: I64) -> None:
        """Begin a new sequence in rows whose packets have all left."""
        self.next[rows] = first_ext
        self.edge[rows] = first_ext
        self.present[rows] = 0
        self.history[rows] = 0
        self._history_far[rows] = 0
        self.deadline_ns[rows] = NEVER_NS

    def close(self, row: int) -> None:
        """Take a row's slots back, if it has any."""
        base = int(self.base[row])
        self.base[row] = -1
        self.present[row] = 0
        self.deadline_ns[row] = NEVER_NS
        if base < 0:
            return
        if self.large[row]:
            self._large_slab.release(base)
            self.any_large -= 1
        else:
            self._small_slab.release(base)

    def drop(self, rows: I64) -> int:
        """Forget the packets that wait in these rows; tells how many."""
        count = int(np.bitwise_count(self.present[rows]).sum())
        self.present[rows] = 0
        self.deadline_ns[rows] = NEVER_NS
        return count

    def enlarge(self, row: int) -> None:
        """Move a stream to the slab of large slots: its packets have grown."""
        old = int(self.base[row])
        new = self._large_slab.acquire()
        self._undo.call(self._shrink, row, old, new, self.any_large)
        self._large_meta = _grown(self._large_meta, len(self._large_slab.data))
        self._large_slab.data[new : new + SLOTS, :_SMALL] = self._small_slab.data[old : old + SLOTS]
        self._large_meta[new : new + SLOTS] = self._small_meta[old : old + SLOTS]
        self._small_slab.release(old)
        self.base[row] = new
        self.large[row] = True
        self.any_large += 1

    def _shrink(self, row: int, old: int, new: int, any_large: int) -> None:
        self._small_slab.take_back(old)
        self._large_slab.release(new)
        self.base[row] = old
        self.large[row] = False
        self.any_large = any_large

    @property
    def largest_payload(self) -> int:
        return _LARGE

    @property
    def small_payload(self) -> int:
        return _SMALL

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

    def insert(
        self,
        rows: I64,
        ext: I64,
        timestamp: npt.NDArray[np.uint32],
        payload_type: U8,
        arrival_ns: I64,
        slab: U8,
        slab_rows: I64 | None,
        payload_offset: npt.NDArray[np.int32],
        payload_length: npt.NDArray[np.int32],
        different: bool,
    ) -> None:
        """Put packets into their slots. They are new and in the window; ``different``: at most one a stream.

        ``slab_rows`` are the packets' rows in ``slab``, None for all of them in order.
        """
        bit = _ONE << (ext - self.next.take(rows)).view(np.uint64)
        present = self.present.take(rows)
        self._note((self.present, rows, present))
        if different:
            self.present[rows] = present | bit
        else:
            np.bitwise_or.at(self.present, rows, bit)
        keep = self.keep_payloads or bool(self.peeked.take(payload_type).any())
        slot = self.base.take(rows) + (ext & (SLOTS - 1))
        meta = timestamp.astype(np.uint64)
        meta <<= np.uint64(32)
        meta |= payload_length.astype(np.uint64) << np.uint64(8)
        meta |= payload_type
        if self.any_large and (large := self.large.take(rows)).any():
            self._store(True, large, slot, meta, arrival_ns, slab, slab_rows, payload_offset, payload_length, keep)
            small = ~large
            if small.any():
                self._store(False, small, slot, meta, arrival_ns, slab, slab_rows, payload_offset, payload_length, keep)
        else:
            _write_meta(self._small_meta, slot, meta, arrival_ns)
            if keep:
                _copy_payloads(self._small_slab.data, slot, slab, slab_rows, payload_offset, payload_length)

    def _store(
        self,
        large: bool,
        chosen: npt.NDArray[np.bool_],
        slot: I64,
        meta: U64,
        arrival_ns: I64,
        slab: U8,
        slab_rows: I64 | None,
        payload_offset: npt.NDArray[np.int32],
        payload_length: npt.NDArray[np.int32],
        keep: bool,
    ) -> None:
        slot = slot[chosen]
        where = self._large_meta if large else self._small_meta
        _write_meta(where, slot, meta[chosen], arrival_ns[chosen])
        if not keep:
            return
        source = np.flatnonzero(chosen) if slab_rows is None else slab_rows[chosen]
        target = self._large_slab.data if large else self._small_slab.data
        _copy_payloads(target, slot, slab, source, payload_offset[chosen], payload_length[chosen])

    def _note_holes(self, rows: I64, latency_ns: int) -> None:
        """Set the deadline of rows that have a hole (several mentions of a row are fine)."""
        waiting = self.next[rows] + _first_waiting(self.present[rows])
        slot = self.base[rows] + (waiting & (SLOTS - 1))
        arrival = self._meta_of(rows, slot)[:, 1].view(np.int64)
        arrival = np.minimum(arrival, NEVER_NS - 1 - latency_ns)  # no clock that went wrong makes a deadline wrap
        self.deadline_ns[rows] = arrival + latency_ns
        self.earliest_deadline_ns = min(self.earliest_deadline_ns, int(arrival.min()) + latency_ns)

    def _meta_of(self, rows: I64, slot: I64) -> U64:
        if not self.any_large:
            return self._small_meta[slot]
        large = self.large.take(rows)
        meta = np.empty((len(rows), 2), np.uint64)
        meta[large] = self._large_meta[slot[large]]
        meta[~large] = self._small_meta[slot[~large]]
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
        """At a grid point: move the edges of these rows up; returns their runs. Done twice it does the same."""
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
        meta = self._meta_of(row, slot)
        word = meta[:, 0]
        count = run.view(np.uint64)
        present = self.present.take(rows)
        self._note((self.present, rows, present))
        self._note((self.next, rows, first))
        self.present[rows] = present >> count
        self._remember(rows, count, (_ONE << count) - _ONE)
        self.next[rows] = first + run
        return RingPackets(
            row,
            ext,
            slot,
            (word >> np.uint64(32)).astype(np.uint32),
            ((word >> np.uint64(8)) & np.uint64(0xFFFFFF)).view(np.int64),
            (word & np.uint64(0xFF)).view(np.int64),
            np.ascontiguousarray(meta[:, 1]).view(np.int64),
        )

    def skip_hole(self, rows: I64, latency_ns: int) -> None:
        """Give up the holes at the front of these rows, whose runs are 0 and behind which something waits."""
        present, first = self.present[rows], self.next[rows]
        self._note((self.present, rows, present))
        self._note((self.next, rows, first))
        self._note((self.deadline_ns, rows, self.deadline_ns[rows]))
        self.note_earliest()
        hole = _first_waiting(present)
        count = hole.view(np.uint64)
        self.present[rows] = present >> count
        self._remember(rows, count, 0)
        self.next[rows] = first + hole
        self.watch_holes(rows, latency_ns)

    def _remember(self, rows: I64, count: U64, came: U64 | int) -> None:
        """Shift ``count`` (1 to 63) packets into the history."""
        near, far = self.history.take(rows), self._history_far.take(rows)
        self._note((self.history, rows, near))
        self._note((self._history_far, rows, far))
        self._history_far[rows] = (far << count) | (near >> (np.uint64(64) - count))
        self.history[rows] = (near << count) | came

    def came(self, rows: I64, offset: I64) -> npt.NDArray[np.bool_]:
        """Whether the packets at next + offset (-128 to 63) are here or have been."""
        back = np.maximum(-1 - offset, 0).view(np.uint64)
        far = back >= 64
        behind = np.where(far, self._history_far[rows], self.history[rows]) >> (back & np.uint64(63))
        ahead = self.present[rows] >> np.maximum(offset, 0).view(np.uint64)
        return (np.where(offset < 0, behind, ahead) & _ONE).astype(np.bool_)

    def note_late(self, rows: I64, offset: I64) -> None:
        """Remember that late packets at next + offset (-128 to -1) have come."""
        self._note((self.history, rows, self.history[rows]))
        self._note((self._history_far, rows, self._history_far[rows]))
        back = (-1 - offset).view(np.uint64)
        near = back < 64
        np.bitwise_or.at(self.history, rows[near], _ONE << back[near])
        np.bitwise_or.at(self._history_far, rows[~near], _ONE << (back[~near] & np.uint64(63)))

    def watch_holes(self, rows: I64, latency_ns: int) -> None:
        """At a grid point: set the deadlines of rows into which packets came (several mentions are fine). Done twice it
        does the same, so nothing is noted."""
        present = self.present.take(rows)
        holed = (present & (present + _ONE)) != 0
        if self.earliest_deadline_ns != NEVER_NS:
            self.deadline_ns[rows] = NEVER_NS
        if np.count_nonzero(holed):
            self._note_holes(rows[holed], latency_ns)

    def note_earliest(self) -> None:
        """To be said before ``earliest_deadline_ns`` is raised."""
        self._note((self.__dict__, "earliest_deadline_ns", self.earliest_deadline_ns))

    def payload(self, popped: RingPackets, i: int) -> bytes:
        """A packet's payload, where packets are looked at one by one."""
        slab = self.payload_slab(bool(self.large[popped.row[i]]))
        return slab[int(popped.slot[i]), : int(popped.length[i])].tobytes()

    def payload_slab(self, large: bool) -> U8:
        return self._large_slab.data if large else self._small_slab.data


def _write_meta(where: U64, slot: I64, word: U64, arrival_ns: I64) -> None:
    both = np.empty((len(slot), 2), np.uint64)
    both[:, 0] = word
    both[:, 1] = arrival_ns.view(np.uint64)
    where.view(_PAIR)[slot, 0] = both.view(_PAIR)[:, 0]


def _grown(meta: U64, length: int) -> U64:
    if len(meta) >= length:
        return meta
    grown = np.zeros((length, 2), np.uint64)
    grown[: len(meta)] = meta
    return grown


def _first_waiting(present: U64) -> I64:
    """Position of the first 1 after the first 0 that follows the run; ``present`` must have one."""
    run = np.bitwise_count(present ^ (present + _ONE)).astype(np.uint64) - _ONE
    rest = present >> run  # begins with a 0
    gap = np.bitwise_count((rest & (~rest + _ONE)) - _ONE).astype(np.uint64)
    waiting: I64 = (run + gap).view(np.int64)
    return waiting


def _copy_payloads(
    target: U8,
    slot: I64,
    slab: U8,
    slab_rows: I64 | None,
    offset: npt.NDArray[np.int32],
    length: npt.NDArray[np.int32],
) -> None:
    """``target[slot, :length] = slab[slab_rows, offset:offset+length]``, the one copy of a packet's life.

    Rows are copied to the longest length of the batch: what stands behind a payload in a slot is never read.
    """
    if not len(slot):
        return
    longest = int(length.max())
    first = int(offset[0])
    groups: list[tuple[int, I64 | None]]
    if not np.count_nonzero(offset != first):
        groups = [(first, None)]
    else:
        distinct = np.unique(offset)
        if len(distinct) > 8:  # hostile: every packet another header length
            flat = slab.reshape(-1)
            rows = np.arange(len(slot)) if slab_rows is None else slab_rows
            at = (rows * slab.shape[1] + offset)[:, None] + np.arange(longest)
            target[slot, :longest] = flat[np.minimum(at, flat.size - 1)]
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


def _items(slab: U8, start: int, width: int) -> npt.NDArray[np.void]:
    """Columns start:start+width of each row as one opaque item."""
    return np.ndarray((len(slab),), np.dtype((np.void, width)), slab, start, (slab.shape[1],))
