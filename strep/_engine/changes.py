"""What was decided of sources is carried out: streams begin, go on with another source, or make room."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.addresses import format_address
from .._model.events import Event, Notice, Started
from .._model.types import StreamInfo
from .containment import Containment
from .endings import Endings
from .held_back import HeldInsertion
from .packets import Packets
from .playout import Playout
from .sources.decisions import Decision, Eviction, NewStreams, Takeover
from .state import StreamState
from .streams.ring import MAX_DROPOUT, WINDOW

__all__ = ["SourceChanges"]

I64 = npt.NDArray[np.int64]

_FIRST_EXT: Final = 1 << 20  # added to a source's first sequence number: what comes before it stays positive
_SSRCS_KEPT: Final = 64  # in a StreamInfo
_NOTES_KEPT: Final = 20  # likewise: further moves are not told
_OF_FIRST_PACKET: Final = ("arrival_ns", "payload_type", "local_port", "source_hi", "source_lo", "source_port")


class SourceChanges:
    """Events are appended to ``events``."""

    def __init__(
        self,
        state: StreamState,
        containment: Containment,
        playout: Playout,
        endings: Endings,
        insert: Callable[[Packets, I64], None],
        events: list[Event],
    ) -> None:
        """``insert(packets, rows)`` inserts packets of one tick."""
        self._state = state
        self._containment = containment
        self._playout = playout
        self._endings = endings
        self._held = HeldInsertion(state, playout, insert)
        self._events = events

    def follow(self, decide: Callable[[], Iterable[Decision]]) -> Exception | None:
        """Carry out decisions, each before the next one is made. An error cannot be undone: streams that began in this
        end, and it is returned."""
        first_serial = self._state.registry.started
        try:
            for decision in decide():
                self._carry_out(decision)
        except Exception as error:
            self._containment.broken("sources", error)
            self._endings.end_begun(first_serial)
            return error
        return None

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case NewStreams():
                self._begin(decision)
            case Takeover():
                self._take_over(decision)
            case Eviction():
                self._endings.end(decision.rows, "evicted")
            case _:
                self._events.append(decision)

    # --- streams begin ----------------------------------------------------------------------------------------------

    def _begin(self, new: NewStreams) -> None:
        state, first = self._state, new.first
        rows = np.zeros(len(first), np.int64)
        named = (first[name].tolist() for name in _OF_FIRST_PACKET)
        columns = (*(words.tolist() for words in new.keys), new.ssrc.tolist(), new.origin_ns.tolist(), *named)
        for i, (hi, lo, tag, ssrc, origin_ns, at_ns, payload_type, local_port, *source) in enumerate(
            zip(*columns, strict=True)
        ):
            info = state.registry.admit(
                hi,
                lo,
                tag,
                direction=new.direction[i],
                ssrc=ssrc,
                source=(source[0], source[1], source[2]),
                local_port=local_port,
                payload_type=payload_type,
                first_arrival_ns=at_ns,
                origin_ns=origin_ns,
            )
            info.encrypted = bool(new.encrypted[i])
            rows[i] = info.index
            self._tell_started(info)
        held = new.held
        longest = np.zeros(len(first), np.int64)
        np.maximum.at(longest, held.owner, held.columns["length"])
        state.open(
            rows,
            *new.keys,
            ssrc=new.ssrc,
            source=new.sources,
            first_ext=_FIRST_EXT + new.lowest.astype(np.int64),
            arrival_ns=first["arrival_ns"],
            timestamp=first["timestamp"],
            payload_bytes=longest,
        )
        for row in rows[new.encrypted].tolist():
            state.mark_encrypted(row)
        self._held.insert(Packets.of_held(held, *new.keys), rows[held.owner])

    def _tell_started(self, info: StreamInfo) -> None:
        self._events.append(Started(info))
        if info.encrypted:
            text = "looks encrypted (SRTP): payloads are longer than their timestamps say; not decoded"
            info.notes.append(text)
            self._events.append(Notice(info, text))

    # --- streams go on with another source --------------------------------------------------------------------------

    def _take_over(self, one: Takeover) -> None:
        state, ring, rows, held = self._state, self._state.ring, one.rows, one.held
        if one.key is not None:
            state.table.remove(rows)
            state.table.add(rows, *(np.full(1, word, np.uint64) for word in one.key))
        lowest = one.lowest.astype(np.int64)
        same = one.ssrc == state.ssrc[rows]
        # what goes on only is placed as before: nothing of the old source need be placed first
        ahead = (lowest - ring.edge[rows]) & 0xFFFF
        going_on = same & (ahead < MAX_DROPOUT)
        # what is near goes in beside what is there already
        near = going_on & (ahead < WINDOW)
        self._playout.drain(rows[~near], hand_over=not bool(going_on.all()))
        moved = np.flatnonzero(state.source[rows] != one.sources)
        state.source[rows] = one.sources
        for i in moved.tolist():
            self._tell_move(int(rows[i]), held.columns[held.owner.searchsorted(i)])
        next_ext = ring.next[rows]
        jump = (lowest - next_ext) & 0xFFFF
        goes_on = ~near & same & (jump < MAX_DROPOUT)  # RFC 3550 A.1: in order, with a permissible gap
        state.skip(rows[goes_on], jump[goes_on])
        anew = np.flatnonzero(~(goes_on | near))
        if anew.size:
            self._begin_anew(rows[anew], one.ssrc[anew], lowest[anew], held.columns[held.owner.searchsorted(anew)])
        self._held.insert(Packets.of_held(held, *state.table.keys(rows)), rows[held.owner], rows[near])

    def _begin_anew(self, rows: I64, ssrc: npt.NDArray[np.uint32], lowest: I64, first: npt.NDArray[np.void]) -> None:
        """Streams go on with another sequence; ``first``: the packets that it begins with."""
        state = self._state
        self._playout.drain(rows)
        first_ext = _FIRST_EXT + lowest
        state.ring.restart(rows, first_ext)
        state.reception.new_source(rows, first_ext, first["arrival_ns"], first["timestamp"])
        state.timeline.new_source(rows, first_ext)
        state.sender_clocks.open(rows)
        state.restarts[rows] += 1
        other = ssrc != state.ssrc[rows]
        state.ssrc[rows[other]] = ssrc[other]
        state.sources[rows[other]] += 1
        for row, one in zip(rows[other].tolist(), ssrc[other].tolist(), strict=True):
            info = state.registry.info[row]
            if info is not None and one not in info.ssrcs and len(info.ssrcs) < _SSRCS_KEPT:
                info.ssrcs.append(one)

    def _tell_move(self, row: int, first: np.void) -> None:
        info = self._state.registry.info[row]
        if info is not None and len(info.notes) < _NOTES_KEPT:
            address = format_address(int(first["source_hi"]), int(first["source_lo"]))
            text = f"goes on from another address: {address}:{int(first['source_port'])}"
            info.notes.append(text)
            self._events.append(Notice(info, text))
