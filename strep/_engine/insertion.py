"""Packets of one tick go into the jitter ring: judged, counted, put into their slots."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.events import Event, Notice
from .accounts import Accounts
from .containment import Containment
from .packets import Packets
from .playout import Playout
from .state import StreamState
from .strangers import Strangers
from .streams.ring import HISTORY, MISORDER, WINDOW
from .streams.slots import Bodies

__all__ = ["Insertion"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_NO_ROWS: Final[I64] = np.zeros(0, np.int64)


class Insertion:
    """Rows are those of streams, int64 (n,), one for each packet. Events are appended to ``events``."""

    def __init__(
        self,
        state: StreamState,
        accounts: Accounts,
        containment: Containment,
        playout: Playout,
        strangers: Strangers,
        events: list[Event],
    ) -> None:
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

    def insert(self, packets: Packets, row: I64) -> None:
        """Packets of one tick that belong to known streams. What is strange to its stream goes on probation."""
        containment = self._containment
        if containment.aside and (sound := containment.sound(row)) is not None:
            packets, row = packets.take(sound), row[sound]
        if not row.size:
            return
        edge = self._ring.edge.take(row)
        ahead = (packets.sequence_number - edge.astype(np.uint16)).view(np.int16)
        strange = self._state.ssrc.take(row) != packets.ssrc
        strange |= ahead >= WINDOW
        strange |= ahead < -MISORDER
        foreign = self._state.source.take(row) != packets.source
        strange |= foreign
        bodies = packets.bodies()
        if np.count_nonzero(strange):
            others = strange.nonzero()[0]
            self._strangers.take(packets.take(others), foreign[others], containment.now_ns)
            usual = (~strange).nonzero()[0]
            if not usual.size:
                return
            bodies, row, edge, ahead = bodies.take(usual), row[usual], edge[usual], ahead[usual]
        ext = edge + ahead
        if int(bodies.length.max()) > self._ring.small_payload:
            fits = self._make_room(bodies.length, row)
            if not fits.all():
                which = fits.nonzero()[0]
                bodies, row, ext, ahead = bodies.take(which), row[which], ext[which], ahead[which]
                if not row.size:
                    return
        self._playout.free_slots(row, ext)
        self._undo.clear()
        try:
            different = self._judge_and_put(bodies, row, ext, ahead)
        except Exception as error:
            different = False

            def again(which: I64) -> None:
                self._judge_and_put(bodies.take(which), row[which], ext[which], ahead[which])

            containment.isolate("insert", error, row, again, packets=True)
        self._undo.clear()
        if self._playout.at_once:
            self._playout.send_ready(row if different else np.unique(row))

    def _judge_and_put(self, bodies: Bodies, row: I64, ext: I64, ahead: npt.NDArray[np.int16]) -> bool:
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
        copies, late, again = self._judge(row[some], ext[some], offset[some], ahead[some], repeated is not None)
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

    def _judge(
        self, row: I64, ext: I64, offset: I64, ahead: npt.NDArray[np.int16], repeated: bool
    ) -> tuple[Bools, Bools, I64]:
        """Of packets that may be duplicate or late: which are duplicate, which are late, and which, as indices, are
        not the first of their row. ``offset`` is counted from ring.next, ``ahead`` from the edge."""
        ring = self._ring
        known = ahead >= -HISTORY
        everywhere = known.all()
        if everywhere:
            copies = ring.came(row, offset)
        else:
            copies = np.zeros(len(row), np.bool_)
            copies[known] = ring.came(row[known], offset[known])
        again = _NO_ROWS
        if repeated:
            key = row << 16 | (ext & 0xFFFF)
            order = np.argsort(key, kind="stable")
            key = key[order]
            copies[order[1:][key[1:] == key[:-1]]] = True
            if not everywhere:
                copies &= known  # so far behind a copy is late again, also when both come in one batch
            again = _not_first(row)
        late = (offset < 0) & ~copies
        if np.count_nonzero(late):
            late_known = late if everywhere else late & known
            ring.note_late(row[late_known], offset[late_known])
        return copies, late, again

    def _make_room(self, length: npt.NDArray[np.int32], row: I64) -> Bools:
        """Move streams to larger slots where packets need them; tells which packets fit at all."""
        ring = self._ring
        fits = length <= ring.largest_payload
        self._accounts.drop("oversize", int(np.count_nonzero(~fits)))
        growing = np.unique(row[(length > ring.small_payload) & ~ring.large[row] & fits])
        if growing.size:
            self._playout.hand_over_waiting()  # slots move

            def grow(rows: I64) -> None:
                for one in rows.tolist():
                    ring.enlarge(one)

            self._containment.run("ring", growing, grow)
            if self._containment.aside:
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
        if self._codec_of_type[first] >= 0 and (types == first).all():
            return None
        known = self._codec_of_type.take(types) >= 0
        return None if known.all() else known

    def note_types(self, row: I64, payload_type: npt.NDArray[np.uint8]) -> None:
        """Note the payload types of packets. Types that are not decoded are told, once a stream."""
        types = self._state.types
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
