"""When packets leave the jitter ring: lost ones are given up at their deadline, and what is ready goes by the release
policy.

Packets leave in two steps. A *run*, packets in sequence at a row's front, is taken from the ring; its payloads stay in
their slots until overwritten. Then it is handed over, to be placed on its stream's timeline and made into blocks:
at once, or together with whatever leaves next, because a batch has a fixed cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.events import Event
from .._model.time import NEVER_NS, TICK_NS
from .accounts import Accounts
from .containment import Containment
from .holds import Holds
from .release import Release
from .state import StreamState
from .streams.ring import LONG_RUN, RingPackets
from .streams.slots import SLOTS

__all__ = ["Playout"]

I64 = npt.NDArray[np.int64]

_NO_ROWS: Final[I64] = np.zeros(0, np.int64)


class Playout:
    """``hand_over`` places packets that left the ring, and gives the events that come of it. Events are appended to
    ``events``. Rows are int64 (n,), distinct unless said otherwise."""

    def __init__(
        self,
        state: StreamState,
        containment: Containment,
        accounts: Accounts,
        hand_over: Callable[[RingPackets], list[Event]],
        events: list[Event],
        *,
        latency_ns: int,
    ) -> None:
        self._state = state
        self._ring = state.ring
        self._undo = state.undo
        self._containment = containment
        self._accounts = accounts
        self._hand_over = hand_over
        self._events = events
        self._latency_ns = latency_ns
        self.holds = Holds(state.ring, state.reception.tick_rate, state.timeline.know, latency_ns=latency_ns)
        self.release = Release()
        self._waiting: list[RingPackets] = []  # left the ring, and wait for company
        # by row: the lowest extended sequence number among them; NEVER_NS, which is above any, where none waits
        self._oldest = np.full(len(state.ssrc), NEVER_NS)
        self._touched: list[I64] = []  # rows into which packets were put since the last boundary, with repetitions
        self._groups_left = 0  # groups of rows that may have something ready in the ring
        self._group = 0  # the one that was released last
        self._next_release_tick = 0

    # --- what others ask --------------------------------------------------------------------------------------------

    @property
    def at_once(self) -> bool:
        """Whether what is ready is to leave with the packet that made it so."""
        return not self.release.within_ns

    @property
    def waiting(self) -> int:
        """Packets that have left the ring and were not handed over yet, copies not counted."""
        return sum(packets.came for packets in self._waiting)

    def next_deadline_ns(self, now_ns: int) -> int:
        """When :meth:`boundary` has something to do, if nothing more comes; perhaps earlier."""
        deadline_ns = min(NEVER_NS, self._ring.earliest_deadline_ns + TICK_NS)
        if self.holds.any:
            deadline_ns = now_ns + TICK_NS  # each boundary may know enough
        if self._groups_left:
            deadline_ns = min(deadline_ns, self._next_release_tick * TICK_NS)
        if self._touched:
            deadline_ns = min(deadline_ns, now_ns + self._latency_ns)  # there may be a hole among them
        return deadline_ns

    def put_into(self, row: I64) -> None:
        """Packets were put into the ring, into these rows (repetitions are fine)."""
        self._touched.append(row)
        if not self.at_once:
            self._groups_left = self.release.groups

    def free_slots(self, row: I64, ext: I64) -> None:
        """Hand over what has left the ring, if packets that are to be put into it need its slots."""
        if self._waiting and int((ext - self._oldest.take(row)).max()) >= SLOTS:
            self.hand_over_waiting()

    # --- at a boundary ----------------------------------------------------------------------------------------------

    def boundary(self, tick: int) -> None:
        """What is due at the beginning of ``tick``: holes are given up, long runs leave, a group is released."""
        now_ns = tick * TICK_NS
        rows = _joined(self._touched)
        left: list[RingPackets] = []
        ring, run = self._ring, self._containment.run
        if self.holds.any:
            self._end_holds(now_ns, left)

        def settle(rows: I64) -> None:
            ring.watch_holes(rows, self._latency_ns)
            if ring.earliest_deadline_ns > now_ns:
                self._settle(rows, left)

        if rows.size:
            run("ring", rows, settle)
        if ring.earliest_deadline_ns <= now_ns:
            self._give_up_holes(now_ns, left)
            rows = _joined(self._touched)
            if rows.size:
                run("ring", rows, lambda some: self._settle(some, left))
        self._touched.clear()
        if left:
            self._wait_for_company(left)
        if self._groups_left and tick >= self._next_release_tick:
            self._release_group(tick)

    def ask(self, rows: I64, ext: I64, arrival_ns: I64) -> None:
        """Packets in question were put into the ring: hold their rows back, but for what is before them."""
        rows, which = np.unique(rows, return_index=True)
        ext, arrival_ns = ext[which], arrival_ns[which]
        self.holds.end(rows)
        left: list[RingPackets] = []

        def pop(some: I64) -> None:
            mine = rows.searchsorted(some)
            run = np.minimum(self._ring.run(some), ext[mine] - self._ring.next.take(some))
            ready = run > 0
            if np.count_nonzero(ready):
                left.append(self._ring.pop(some[ready], run[ready]))

        self._containment.run("ring", rows, pop)
        self._wait_for_company(left)
        self.holds.begin(rows, arrival_ns)

    def _end_holds(self, now_ns: int, left: list[RingPackets]) -> None:
        rows = self.holds.due(now_ns)
        if not rows.size:
            return
        if self.release.prompt or self.at_once:
            self._take_runs(rows, left)
        self.holds.end(rows)
        self._groups_left = self.release.groups

    def _settle(self, rows: I64, left: list[RingPackets]) -> None:
        """Move the edges of rows (repetitions are fine) up; long runs leave."""
        full = rows[self._ring.settle(rows) >= LONG_RUN]
        if full.size:
            full = np.unique(full)
            runs: list[RingPackets] = []
            self._pop_runs(full, runs)
            self._ring.settle(full)
            left += runs

    def move_edges(self, rows: I64) -> None:
        """Within a tick: the edges of these rows move up to the packets that have come, and long runs leave."""
        left: list[RingPackets] = []
        self._containment.run("ring", rows, lambda some: self._settle(some, left))
        self._wait_for_company(left)

    def _give_up_holes(self, now_ns: int, left: list[RingPackets]) -> None:
        ring, release = self._ring, self.release
        now_ns = min(now_ns, NEVER_NS - 1)

        def give_up(rows: I64) -> None:
            runs: list[RingPackets] = []
            self._pop_runs(rows, runs)
            ring.skip_hole(rows, self._latency_ns)
            if release.prompt:
                self._pop_runs(rows, runs)  # what waited behind a hole has waited long enough
            left.extend(runs)

        deadlines = ring.deadline_ns[: len(self._state.registry.info)]
        while (rows := np.flatnonzero(deadlines <= now_ns)).size:
            self._containment.run("ring", rows, give_up)
            if not release.prompt:
                self._groups_left = release.groups
            self._touched.append(rows)
        ring.earliest_deadline_ns = int(deadlines.min()) if len(deadlines) else NEVER_NS

    def _release_group(self, tick: int) -> None:
        """Send off all that is ready in the rows whose turn it is."""
        self.hand_over_waiting()
        groups = self.release.groups
        self._next_release_tick = tick + self.release.within_ns // TICK_NS // groups
        self._groups_left = min(self._groups_left, groups) - 1
        self._group = (self._group + 1) % groups
        present = self._ring.present[self._group : len(self._state.registry.info) : groups]
        self.send_ready(self._group + groups * np.flatnonzero(present & np.uint64(1)))

    def _wait_for_company(self, left: list[RingPackets]) -> None:
        """What left at a boundary goes at once if it is waited for, otherwise with whatever leaves next."""
        if not left:
            return
        self._waiting += left
        if self.release.prompt or self.at_once:
            self.hand_over_waiting()
            return
        for packets in left:
            first = packets.starts()
            rows = packets.row[first]
            self._oldest[rows] = np.minimum(self._oldest.take(rows), packets.ext[first])
        self._groups_left = self.release.groups

    # --- for some rows ----------------------------------------------------------------------------------------------

    def send_ready(self, rows: I64) -> None:
        """Send off what may leave of these rows, but for those that are held."""
        self.hand_over_waiting()
        self._take_runs(self.holds.free(rows), self._waiting)
        self.hand_over_waiting()

    def drain(self, rows: I64, *, hand_over: bool = True) -> None:
        """Take all packets of these rows, holes given up. ``hand_over`` False: they may wait for company."""
        left: list[RingPackets] = []
        self.holds.end(rows)
        while (rows := rows[self._ring.present[rows] != 0]).size:
            self._take_runs(rows, left)
            self._skip_holes(rows)
        self._wait_for_company(left)
        if hand_over:
            self.hand_over_waiting()

    def catch_up(self, rows: I64, now_ns: int) -> None:
        """Do for these rows what a boundary at ``now_ns``, already past, would have done."""
        ring, latency_ns = self._ring, self._latency_ns
        left: list[RingPackets] = []
        self._containment.run("ring", rows, lambda some: ring.watch_holes(some, latency_ns))
        self._take_runs(rows, left)
        while (due := rows[ring.deadline_ns[rows] <= now_ns]).size:
            self._containment.run("ring", due, lambda some: ring.skip_hole(some, latency_ns))
            self._take_runs(due, left)
        self._containment.run("ring", rows, ring.settle)
        self._wait_for_company(left)

    def make_way(self, rows: I64) -> None:
        """Give up the holes at the front of these rows, which hold packets, and take what may leave then."""
        left: list[RingPackets] = []
        self._take_runs(rows, left)
        self._take_runs(self._skip_holes(rows), left)
        self._containment.run("ring", rows, self._ring.settle)
        self._wait_for_company(left)

    def _skip_holes(self, rows: I64) -> I64:
        """Give up the holes at the front of rows whose runs have left; tells which had some."""
        holed: I64 = rows[self._ring.present[rows] != 0]
        if holed.size:
            self._containment.run("ring", holed, lambda some: self._ring.skip_hole(some, self._latency_ns))
        return holed

    def _take_runs(self, rows: I64, left: list[RingPackets]) -> None:
        """Take what may leave of these rows from the ring; a fault costs only the row that it is in."""
        if rows.size:
            self._containment.run("ring", rows, lambda some: self._pop_runs(some, left))

    def _pop_runs(self, rows: I64, left: list[RingPackets]) -> None:
        """What :meth:`_take_runs` does, not contained."""
        if self.holds.any:
            self.holds.end(rows)
        run = self._ring.run(rows)
        ready = run > 0
        if np.count_nonzero(ready) < len(ready):
            rows, run = rows[ready], run[ready]
        if rows.size:
            left.append(self._ring.pop(rows, run))

    # --- out --------------------------------------------------------------------------------------------------------

    def hand_over_waiting(self) -> None:
        """Hand over what has left the ring, all together."""
        if self._waiting:
            packets, self._waiting = RingPackets.joined(self._waiting), []
            self._oldest[packets.row] = NEVER_NS
            self._undo.clear()
            try:
                self._events += self._hand_over(packets)
            except Exception as error:

                def again(which: I64) -> None:
                    self._events += self._hand_over(packets.take(which))

                done = self._containment.isolate("place", error, packets.row, again, packets=True)
                if packets.recovered is not None:  # which are in no account
                    self._accounts.drop("fault", -int(np.count_nonzero(packets.recovered & ~done)))
            self._undo.clear()


def _joined(parts: list[I64]) -> I64:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else _NO_ROWS
