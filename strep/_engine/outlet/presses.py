"""Key presses of the streams: telephone-event packets from the ring to :class:`TelephoneEvents`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.events import Event
from ..._model.types import StreamEvent, StreamInfo
from ..state import StreamState
from ..streams.placement import Anchor, Placement
from ..streams.ring_packets import RingPackets
from .guess import Observation
from .telephone import KeyPress, TelephoneEvents

__all__ = ["KeyPresses"]

I64 = npt.NDArray[np.int64]

_NONE: Final[I64] = np.zeros(0, np.int64)


class KeyPresses:
    """Streams that press keys are few at any time: their packets are looked at one by one, in RTP order."""

    def __init__(self, state: StreamState) -> None:
        self._state = state
        self._undo = state.undo
        self._telephone = TelephoneEvents(state.undo)
        self._sources: dict[int, tuple[int, int]] = {}  # by row: whose presses these are, serial and epoch

    @property
    def malformed(self) -> int:
        return self._telephone.malformed

    @property
    def waiting(self) -> bool:
        return bool(self._telephone.pending)

    def pending(self) -> I64:
        """Rows in which a key is down."""
        return np.array(sorted(self._telephone.pending), np.int64)

    def anchors(self, popped: RingPackets, is_event: npt.NDArray[np.bool_]) -> dict[int, Anchor | None]:
        """Where the streams stand that have telephone-events among these packets. Call it before they are placed."""
        return {row: self._state.timeline.anchor(row) for row in np.unique(popped.row[is_event]).tolist()}

    def take(
        self,
        popped: RingPackets,
        is_event: npt.NDArray[np.bool_],
        is_audio: npt.NDArray[np.bool_],
        anchors: dict[int, Anchor | None],
        placed: Placement | None,
        early: Mapping[int, Sequence[Observation]],
    ) -> list[Event]:
        """Packets that have been placed: ``is_event`` of them are telephone-events. ``early``: others that came before
        one of these, and were not known to be telephone-events then."""
        concerned = is_event
        if self._telephone.pending:
            concerned = concerned | (is_audio & np.isin(popped.row, self.pending()))
        if is_event.any():
            # audio between reports of a press ends it, if it goes on for long
            concerned = concerned | (is_audio & np.isin(popped.row, np.unique(popped.row[is_event])))
        events: list[Event] = []
        self._note(popped.row[concerned])
        ends = {row: self._state.timeline.anchors_in(placed, row) for row in anchors} if placed is not None else {}
        for i in np.flatnonzero(concerned).tolist():
            row, timestamp = int(popped.row[i]), int(popped.timestamp[i])
            info = self._state.registry.info[row]
            if info is None:
                continue
            if is_event[i]:
                which, inside = ends.get(row, (_NONE, []))
                before = int(which.searchsorted(i))
                anchor = inside[before - 1] if before else anchors[row]
                for seen in early.get(i, ()):
                    events += self._one(info, seen, anchor)
                payload = self._state.ring.payload(popped, i)
                arrival_ns = int(popped.arrival_ns[i])
                now = Observation(int(popped.ext[i]), timestamp, len(payload), payload, arrival_ns)
                events += self._one(info, now, anchor)
            elif row in self._telephone.pending:
                events += self._told(info, self._telephone.audio(row, timestamp))
        return events

    def _one(self, info: StreamInfo, packet: Observation, anchor: Anchor | None) -> list[Event]:
        row = info.index
        source = info.serial, int(self._state.restarts[row])
        events: list[Event] = []
        if self._sources.get(row) != source:
            events += self._told(info, self._telephone.end(row))
            self._telephone.open(row)
            self._sources[row] = source
        clock, rate = (anchor.codec.clock_rate, anchor.codec.sample_rate) if anchor is not None else (8000, 8000)
        told = self._telephone.packet(
            row=row,
            ext=packet.extended_sequence,
            timestamp=packet.timestamp,
            marker=False,
            payload=packet.payload,
            position=anchor.position_of(packet.timestamp) if anchor is not None else 0,
            arrival_ns=packet.arrival_ns,
            clock_rate=clock,
            sample_rate=rate,
        )
        return events + self._told(info, told)

    def _note(self, rows: I64) -> None:
        if not rows.size:
            return
        each = np.unique(rows).tolist()
        self._telephone.note(each)
        for row in each:
            source = self._sources.get(row)
            if source is None:
                self._undo.call(self._sources.pop, row, None)
            else:
                self._undo.note((self._sources, row, source))

    def advance(self, now_ns: int, rows: I64) -> list[Event]:
        """Presses in these rows whose end was lost, and of which nothing came for a while."""
        self._note(rows)
        events: list[Event] = []
        for press in self._telephone.advance(now_ns, rows.tolist()):
            info = self._state.registry.info[press.row]
            if info is not None:
                events += self._told(info, [press])
        return events

    def end(self, stream: StreamInfo) -> list[Event]:
        if self._sources.pop(stream.index, None) is None:
            return []
        events = self._told(stream, self._telephone.end(stream.index))
        self._telephone.open(stream.index)
        return events

    @staticmethod
    def _told(info: StreamInfo, presses: Iterable[KeyPress]) -> list[Event]:
        return [
            StreamEvent(
                stream=info,
                kind="dtmf" if press.is_key else "telephone_event",
                position=press.position,
                time_ns=press.arrival_ns,
                duration_s=press.duration_s,
                data={
                    "digit" if press.is_key else "name": press.key,
                    "source": "rfc4733",
                    "level_dbm0": press.volume_dbm0,
                    "ended": press.ended,
                },
            )
            for press in presses
        ]
