"""Packets of one tick go into the jitter ring: judged, counted, put into their slots."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .._codecs.payload_types import MALFORMED_RED
from .._model.events import Event, Notice
from .._model.time import NEVER_NS
from .accounts import Accounts
from .containment import Containment
from .packets import Packets
from .playout import Playout
from .redundancy import Redundancy
from .state import StreamState
from .strangers import Strangers
from .streams.recovery import Copies, insert_copies
from .streams.ring import LONG_RUN, MAX_DROPOUT, MISORDER, WINDOW
from .streams.slots import Bodies

__all__ = ["Insertion"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_NO_ROWS: Final[I64] = np.zeros(0, np.int64)
_EARLY_MOVES: Final = 8  # in a tick
_LEADING_PACKETS: Final = WINDOW - LONG_RUN - 12  # of a tick, ahead by a long run: the edge moves with the last one


class Insertion:
    """Rows are those of streams, int64 (n,), one for each packet. Events are appended to ``events``."""

    def __init__(
        self,
        state: StreamState,
        accounts: Accounts,
        containment: Containment,
        playout: Playout,
        strangers: Strangers,
        redundancy: Redundancy,
        events: list[Event],
    ) -> None:
        self._redundancy = redundancy
        self._state = state
        self._ring = state.ring
        self._undo = state.undo
        self._reception = state.reception
        self._accounts = accounts
        self._containment = containment
        self._playout = playout
        self._strangers = strangers
        self._events = events
        self._codec_of_type = state.codec_of_type
        # by row: packets in this tick that were ahead by a long run since its edge moved, and which tick it was
        self._leading = np.zeros(len(state.ssrc), np.int64)
        self._far: list[tuple[I64, I64]] = []  # packets too far ahead, on probation: their rows, and what they are
        self._leading_since = np.zeros(len(state.ssrc), np.int64)
        self._early_moves = np.zeros(len(state.ssrc), np.int64)  # of edges, before packets beyond the window, in it

    def insert(self, packets: Packets, row: I64) -> None:
        """Packets of one tick that belong to known streams. What is strange to its stream goes on probation."""
        containment = self._containment
        if containment.aside and (sound := containment.sound(row)) is not None:
            packets, row = packets.take(sound), row[sound]
        if not row.size:
            return
        edge = self._ring.edge.take(row)
        ahead = (packets.sequence_number - edge.astype(np.uint16)).view(np.int16)
        if ahead.max() >= LONG_RUN:
            self._insert_in_parts(packets, row)
            return
        foreign = self._state.source.take(row) != packets.source
        strange = self._state.ssrc.take(row) != packets.ssrc
        strange |= ahead < -MISORDER
        strange |= foreign
        bodies = packets.bodies()
        if np.count_nonzero(strange):
            self._offer(packets, strange.nonzero()[0], foreign)
            usual = (~strange).nonzero()[0]
            if not usual.size:
                return
            bodies, row, edge, ahead = bodies.take(usual), row[usual], edge[usual], ahead[usual]
        self._insert_near(bodies, row, edge + ahead)

    def _insert_in_parts(self, packets: Packets, row: I64) -> None:
        """Some packets are far ahead of where their streams stood at the tick's beginning: they may be many of a stream
        at once, for which its edge moves up within the tick. It does so with every twelfth packet that is ahead of it
        by a long run: so of packets in sequence none is ever beyond the window, whatever else comes, and however
        they are cut. And it does so before one that is beyond the window, up to eight times in a tick."""
        ring, containment = self._ring, self._containment
        foreign = self._state.source.take(row) != packets.source
        strange = foreign | (self._state.ssrc.take(row) != packets.ssrc)
        left = (~strange).nonzero()[0]
        while left.size:
            if containment.aside and (sound := containment.sound(row[left])) is not None:
                left = left[sound]
            rows = row[left]
            edge = ring.edge.take(rows)
            ahead = (packets.sequence_number[left] - edge.astype(np.uint16)).view(np.int16)
            now, due = self._before_edges_move(rows, ahead)
            which = left[now]
            apart = (ahead[now] >= WINDOW) | (ahead[now] < -MISORDER)
            strange[which[apart]] = True
            far = now[(ahead[now] >= WINDOW) & (ahead[now] < MAX_DROPOUT)]
            if far.size:
                self._far.append((rows[far], edge[far] + ahead[far]))
            near = now[~apart]
            if near.size:
                bodies = packets.bodies().take(left[near])
                self._insert_near(bodies, rows[near], edge[near] + ahead[near])
            if due.size:
                self._playout.move_edges(due)
            left = np.delete(left, now)
        if np.count_nonzero(strange):
            self._offer(packets, strange.nonzero()[0], foreign)

    def _before_edges_move(self, rows: I64, ahead: npt.NDArray[np.int16]) -> tuple[I64, I64]:
        """Of packets, by row and in order of arrival, and how far ahead of their edges they are: which of them come
        before their edge moves, as indices, and the rows whose edge moves then."""
        order = np.argsort(rows, kind="stable")
        rows, ahead = rows[order], ahead[order]
        start = np.append(True, rows[1:] != rows[:-1]).nonzero()[0]
        end = np.append(start[1:], len(rows)) - 1
        each, of = rows[start], np.repeat(np.arange(len(start)), end + 1 - start)
        now_ns = min(self._containment.now_ns, NEVER_NS)  # times may be absurd
        earlier = self._leading_since[each] == now_ns
        before = np.where(earlier, self._leading[each], 0)
        early_moves = np.where(earlier, self._early_moves[each], 0)
        count = _count_within(ahead >= LONG_RUN, start, of) + before[of]
        now = count < _LEADING_PACKETS
        beyond = ahead >= WINDOW
        if np.count_nonzero(beyond):
            movable = self._ring.at_edge(each)[of] | (_count_within(ahead == 0, start, of) > 0)
            early = beyond & movable & (early_moves < _EARLY_MOVES)[of]
            early_moves += np.logical_or.reduceat(early & now, start)
            now &= _count_within(early, start, of) == 0
        moves = ~now[end]
        self._leading[each] = np.where(moves, 0, count[end])
        self._early_moves[each] = early_moves
        self._leading_since[each] = now_ns
        return np.sort(order[now]), each[moves]

    def caught_up(self) -> I64:
        """The tick ends: rows, distinct, whose edges have come near packets that were too far ahead of them in it, or
        before, behind a hole that is waited for."""
        if not self._far:
            return _NO_ROWS
        row, ext = (np.concatenate(parts) for parts in zip(*self._far, strict=True))
        self._far.clear()
        moved = np.unique(row[self._ring.base[row] >= 0])
        self._playout.move_edges(moved)
        ahead = ext - self._ring.edge[row]
        there = (self._ring.base[row] >= 0) & (ahead >= 0)
        left = there & (ahead >= WINDOW) & (self._ring.deadline_ns[row] < NEVER_NS)
        if np.count_nonzero(left):
            row_left, ext_left = np.unique(np.stack([row[left], ext[left]]), axis=1)
            self._far.append((row_left, ext_left))
        return np.unique(row[there & (ahead < WINDOW)])

    @property
    def waiting(self) -> bool:
        """Whether edges may come near packets on probation at the next boundary."""
        return bool(self._far)

    def _offer(self, packets: Packets, which: I64, foreign: Bools) -> None:
        self._strangers.take(packets.take(which), foreign[which], self._containment.now_ns)

    def _insert_near(self, bodies: Bodies, row: I64, ext: I64) -> None:
        """Packets in the windows of their streams."""
        containment = self._containment
        longest = bodies.length  # what each packet needs room for
        copies: Copies | None = None
        if self._redundancy.concerns(bodies.payload_type):
            bodies, copies, longest = self._redundancy.unwrap(bodies, row, ext)
        if int(longest.max()) > self._ring.small_payload:
            fits = self._make_room(longest, row)
            if not fits.all():
                which = fits.nonzero()[0]
                bodies, row, ext = bodies.take(which), row[which], ext[which]
                if not row.size:
                    return
        self._playout.free_slots(row, ext)
        self._undo.clear()
        try:
            different = self._judge_and_put(bodies, row, ext)
        except Exception as error:
            different = False

            def again(which: I64) -> None:
                self._judge_and_put(bodies.take(which), row[which], ext[which])

            containment.isolate("insert", error, row, again, packets=True)
        self._undo.clear()
        if copies is not None:
            self._insert_copies(copies)
        questions = self._reception.questions
        if questions:
            self._playout.ask(*(np.concatenate(parts) for parts in zip(*questions, strict=True)))
            questions.clear()
        if self._playout.at_once:
            self._playout.send_ready(row if different else np.unique(row))

    def _insert_copies(self, copies: Copies) -> None:
        """Redundant copies wait in the ring for what is missing before the packets that brought them."""

        def insert(rows: I64) -> None:
            which = np.isin(copies.row, rows) & (self._ring.base.take(copies.row) >= 0)
            too_old = insert_copies(self._ring, copies.take(which.nonzero()[0]))
            self._accounts.count_unused_copies("too_old", too_old)

        self._containment.run("insert", np.unique(copies.row), insert)

    def _judge_and_put(self, bodies: Bodies, row: I64, ext: I64) -> bool:
        """Count packets that are in the window, and put those into the ring that are neither late nor copies of others.
        Tells whether all rows are different."""
        ring = self._ring
        offset = ext - ring.next.take(row)
        seen = ring.present.take(row) >> offset.view(np.uint64)
        seen &= np.uint64(1)
        doubtful = seen != 0
        doubtful |= offset < 0
        repeated = ring.repeated(row)
        if repeated is not None:
            doubtful |= repeated
        self.note_types(row, bodies.payload_type)
        timed = self.timed(bodies.payload_type)
        if not doubtful.any():
            self._reception.arrived(row, ext, bodies.timestamp, bodies.arrival_ns, timed)
            self.put(bodies, row, ext, different=True)
            return True
        some = doubtful.nonzero()[0]
        copies, late, again = self._judge(row[some], ext[some], offset[some], repeated is not None)
        copied = None
        if np.count_nonzero(copies):
            copied = np.zeros(len(row), np.bool_)
            copied[some] = copies
            self._accounts.count("duplicate", int(np.count_nonzero(copies)))
        self._reception.arrived(
            rows=row,
            ext=ext,
            timestamp=bodies.timestamp,
            arrival_ns=bodies.arrival_ns,
            timed=timed,
            copies=copied,
            again=some[again],
        )
        if np.count_nonzero(late):
            self._reception.came_late(row[some[late]])
            self._accounts.count("late", int(np.count_nonzero(late)))
        stale = copies | late
        different = repeated is None or not again.size or bool(stale[again].all())
        if np.count_nonzero(stale):
            doubtful.fill(True)
            doubtful[some[stale]] = False
            fresh = doubtful.nonzero()[0]
            if not fresh.size:
                return repeated is None
            bodies, row, ext = bodies.take(fresh), row[fresh], ext[fresh]
        self.put(bodies, row, ext, different=different)
        return repeated is None

    def _judge(self, row: I64, ext: I64, offset: I64, repeated: bool) -> tuple[Bools, Bools, I64]:
        """Of packets that may be duplicate or late: which are duplicate, which are late, and which, as indices, are
        not the first of their row. ``offset`` is counted from ring.next."""
        ring = self._ring
        copies = ring.came(row, offset)
        again = _NO_ROWS
        if repeated:
            key = row << 16 | (ext & 0xFFFF)
            order = np.argsort(key, kind="stable")
            key = key[order]
            copies[order[1:][key[1:] == key[:-1]]] = True
            again = _not_first(row)
        late = ring.given_up(row, offset) & ~copies
        if np.count_nonzero(late):
            ring.note_late(row[late], offset[late])
        return copies, late, again

    def _make_room(self, length: npt.NDArray[np.int32], row: I64) -> Bools:
        """Move streams to larger slots where packets need them; tells which packets have room."""
        ring = self._ring
        needed = ring.size_for(length)
        growing = (needed > ring.size.take(row)).nonzero()[0]
        if growing.size:
            sizes: dict[int, list[int]] = {}  # by row, in the order in which they were needed first
            for one, size in zip(row[growing].tolist(), needed[growing].tolist(), strict=True):
                sizes.setdefault(one, []).append(size)
            self._playout.hand_over_waiting()  # slots move

            def grow(rows: I64) -> None:
                for one in rows.tolist():
                    for size in dict.fromkeys(sizes[one]):
                        if size > ring.size[one]:
                            ring.enlarge(one, size)

            self._containment.run("ring", np.array(list(sizes)), grow)
        fits = length <= ring.room_in(row)
        self._accounts.drop("oversize", int(np.count_nonzero(~fits)))
        if growing.size and self._containment.aside:
            gone = fits & np.isin(row, list(self._containment.aside))
            self._accounts.drop("fault", int(np.count_nonzero(gone)))
            fits &= ~gone
        return fits

    # --- what the insertion of many ticks at once does too ----------------------------------------------------------

    def put(self, bodies: Bodies, row: I64, ext: I64, *, different: bool) -> None:
        """Put packets into the ring. ``different``: at most one a row."""
        self._ring.insert(row, ext, bodies, different=different)
        self._playout.put_into(row)

    def timed(self, types: npt.NDArray[np.uint8]) -> Bools | None:
        """Packets whose timestamps run with a known clock, by payload type; None: all."""
        first = types[0]
        if self._codec_of_type[first] >= 0 and not np.count_nonzero(types != first):
            return None
        known = self._codec_of_type.take(types) >= 0
        return None if known.all() else known

    def note_types(self, row: I64, payload_type: npt.NDArray[np.uint8]) -> None:
        """Note the payload types of packets. Types that are not decoded are told, once a stream."""
        types = self._state.types
        if not self._state.has_new_types(row, payload_type):
            return
        malformed = payload_type == MALFORMED_RED
        if np.count_nonzero(malformed):
            row, payload_type = row[~malformed], payload_type[~malformed]
        for info, pt in self._state.note_types(row, payload_type):
            if not types.guessable[pt]:
                text = types.why_not(pt)
                info.notes.append(text)
                self._events.append(Notice(info, text))


def _not_first(rows: I64) -> I64:
    """Which entries name a row that an earlier one names."""
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    return np.sort(order[1:][rows[1:] == rows[:-1]])


def _count_within(these: Bools, start: I64, of: I64) -> I64:
    """How many of these there are from the beginning of each group, which is ``of`` those that ``start`` there, up to
    each place, int64 (n,)."""
    count: I64 = np.cumsum(these)
    count -= (count - these)[start][of]
    return count
