"""Packets of several ticks at once, of streams that merely go on in sequence: replays come in large batches, and need
no look at each tick."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .accounts import Accounts
from .containment import Containment
from .insertion import Insertion
from .packets import Packets
from .playout import Playout
from .redundancy import Redundancy
from .state import StreamState
from .streams.slots import SLOTS, Bodies

__all__ = ["BulkInsertion", "worthwhile"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_PACKETS_WORTHWHILE: Final = 257  # in several ticks
_TICKS_WORTHWHILE: Final = 4  # or so many ticks, however few packets
_PACKETS_A_FULL_TICK: Final = 700  # from which on ticks cost no more when they are taken one by one
_PACKETS_A_ROUND: Final = 32  # of a stream, that are put into its empty ring at a time


def worthwhile(packets: int, ticks: int) -> bool:
    """Whether so many packets of ``ticks`` ticks are cheaper taken at once."""
    many = packets >= _PACKETS_WORTHWHILE or ticks >= _TICKS_WORTHWHILE
    return many and packets < _PACKETS_A_FULL_TICK * ticks


class BulkInsertion:
    def __init__(
        self,
        state: StreamState,
        accounts: Accounts,
        containment: Containment,
        playout: Playout,
        insertion: Insertion,
        redundancy: Redundancy,
    ) -> None:
        self._redundancy = redundancy
        self._state = state
        self._ring = state.ring
        self._undo = state.undo
        self._accounts = accounts
        self._containment = containment
        self._playout = playout
        self._insertion = insertion
        self._radix = len(state.ssrc) < 0xFFFF  # rows fit into 16 bits, which are sorted several times as fast

    def insert(self, packets: Packets) -> Bools:
        """Take all packets of the streams whose packets all go on in sequence; tells which are left, bool (n,)."""
        rest = np.ones(len(packets), np.bool_)
        try:
            chosen, row, ext, rank = self._choose(packets)
        except Exception as error:
            self._containment.lost("smooth", error, 0)
            return rest  # nothing is lost: all are taken tick by tick
        rest[chosen] = False
        if chosen.size:
            bodies = packets.bodies().take(chosen)
            if self._redundancy.concerns(bodies.payload_type):
                bodies, *_ = self._redundancy.unwrap(bodies, row, ext)  # nothing is missing: no copies are needed
            self._insert(bodies, row, ext, rank)
        return rest

    def _choose(self, packets: Packets) -> tuple[I64, I64, I64, I64]:
        """Packets of streams that go on in sequence: which they are, their rows and extended sequence numbers, and
        their rank among their stream's packets here."""
        state, ring = self._state, self._ring
        row = state.rows_of(packets)
        order = np.argsort(row.astype(np.uint16) if self._radix else row, kind="stable")
        row = row[order]
        known = row >= 0
        if self._containment.aside:
            known &= ~np.isin(row, list(self._containment.aside))
        present = ring.present[row]
        start = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        length = np.diff(np.r_[start, len(row)])
        rank = np.arange(len(row)) - np.repeat(start, length)
        ext = ring.next[row] + ring.run(row) + rank
        good = known & ((present & (present + np.uint64(1))) == 0) & (state.ssrc[row] == packets.ssrc[order])
        good &= state.source[row] == packets.source[order]
        if state.siblings:
            good &= ~state.siblings.among[row]  # whose packets are whose is decided tick by tick
        if state.throttle.active:
            good &= ~state.throttle.throttled[row]
        good &= packets.sequence_number[order] == ext.astype(np.uint16)
        good &= packets.length[order] <= ring.room_in(row)
        if self._playout.holds.any:
            good &= ~self._playout.holds.held[row]
        in_question = state.reception.lag_among(row, start, packets.timestamp[order], packets.arrival_ns[order])
        if in_question is not None:
            good &= ~in_question
        if self._redundancy.concerns(packets.payload_type):
            good &= ~self._redundancy.undecided(packets.payload_type[order], row)
        smooth = np.repeat(np.logical_and.reduceat(good, start), length)
        return order[smooth], row[smooth], ext[smooth], rank[smooth]

    def _insert(self, bodies: Bodies, row: I64, ext: I64, rank: I64) -> None:
        insertion, containment = self._insertion, self._containment

        def arrive(which: I64 | slice) -> None:
            mine = bodies if isinstance(which, slice) else bodies.take(which)
            insertion.note_types(row[which], mine.payload_type)
            timed = insertion.timed(mine.payload_type)
            again = np.flatnonzero(rank[which])
            self._state.reception.arrived(
                rows=row[which],
                ext=ext[which],
                timestamp=mine.timestamp,
                arrival_ns=mine.arrival_ns,
                timed=timed,
                copies=None,
                again=again,
            )

        self._undo.clear()
        there = np.ones(len(row), np.bool_)
        try:
            arrive(slice(None))
        except Exception as error:
            there = containment.isolate("insert", error, row, arrive, packets=True)
        self._state.reception.questions.clear()  # streams in question are not taken here
        rows = np.unique(row)
        crowded = self._ring.run(rows) > SLOTS - _PACKETS_A_ROUND  # with what came earlier in this tick
        if np.count_nonzero(crowded):
            self._playout.send_ready(rows[crowded])
        for low in range(0, int(rank.max()) + 1, _PACKETS_A_ROUND):
            part = np.flatnonzero(there & (rank >= low) & (rank < low + _PACKETS_A_ROUND))
            if containment.aside and (sound := containment.sound(row[part])) is not None:
                part = part[sound]
            if not part.size:
                continue
            done = self._put(bodies.take(part), row[part], ext[part])
            rows = np.unique(row[part])
            self._playout.send_ready(rows)
            containment.run("ring", rows, self._ring.settle)
            if not done.all():
                # what follows a part that was lost has no place in the ring
                behind = there & (rank >= low + _PACKETS_A_ROUND) & np.isin(row, row[part[~done]])
                self._accounts.drop("fault", int(np.count_nonzero(behind)))
                there &= ~behind

    def _put(self, bodies: Bodies, row: I64, ext: I64) -> Bools:
        """Put packets that go on in sequence into the ring; tells which are there now."""
        self._playout.free_slots(row, ext)
        self._undo.clear()
        try:
            self._insertion.put(bodies, row, ext, different=False)
        except Exception as error:

            def again(which: I64) -> None:
                self._insertion.put(bodies.take(which), row[which], ext[which], different=False)

            return self._containment.isolate("insert", error, row, again, packets=True)
        return np.ones(len(row), np.bool_)
