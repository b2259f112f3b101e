"""The calls that webhooks tell of, and which of them are to be recorded. Pure: time is an argument."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from .._model.types import Leg, StreamInfo
from ..control.calls import CallPhase, CallState
from ..control.events import WebhookEvent

__all__ = ["CallBook", "RecordLegs"]

RecordLegs = Literal["a", "b", "both"]

_ENDED_KEPT_S: Final = 3600.0  # what comes late of a call that has ended must not make it a new one
_CALLS_KEPT: Final = 100_000
_ORPHAN_LEGS_KEPT: Final = 1000  # whose call_control_id is not known
_LATE: Final = datetime.max.replace(tzinfo=UTC)
_UUID_EPOCH: Final = datetime(1582, 10, 15, tzinfo=UTC)  # RFC 9562 section 5.1


class CallBook:
    """What is known of each call, by call_control_id.

    A webhook may come without one; then its call_leg_id says whose it is, at once or as soon as another webhook has
    both. ``only_answered``: calls are wanted when they are answered, otherwise when they are initiated (:meth:`wants`).
    ``record_legs``: leg A is the one that came in, or was dialled first, of its session; B are those after it.
    """

    def __init__(self, *, only_answered: bool = True, record_legs: RecordLegs = "both") -> None:
        self._only_answered = only_answered
        self._record_legs = record_legs
        self._states: OrderedDict[str, tuple[CallState, float]] = OrderedDict()  # and when a webhook came last
        self._ids: dict[uuid.UUID, str] = {}
        self._sessions: dict[str, list[str]] = {}
        self._orphans: OrderedDict[uuid.UUID, list[WebhookEvent]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def set_rules(self, *, only_answered: bool, record_legs: RecordLegs) -> None:
        """From now on other calls are wanted; those that are being recorded go on."""
        self._only_answered = only_answered
        self._record_legs = record_legs

    def take(self, event: WebhookEvent, now_s: float) -> CallState | None:
        """The call's state with this event; None: nobody knows whose it is (yet)."""
        leg = event.call_leg_id
        control_id = event.call_control_id or (None if leg is None else self._ids.get(leg))
        if control_id is None:
            if leg is not None:
                self._orphans.setdefault(leg, []).append(event)
                if len(self._orphans) > _ORPHAN_LEGS_KEPT:
                    self._orphans.popitem(last=False)
            return None
        state, _ = self._states.get(control_id, (CallState(), now_s))
        for each in (*(self._orphans.pop(leg, ()) if leg is not None else ()), event):
            state = state.after(each)
        self._keep(control_id, state, now_s)
        return state

    def _keep(self, control_id: str, state: CallState, now_s: float) -> None:
        self._states[control_id] = state, now_s
        self._states.move_to_end(control_id)
        if state.call_leg_id is not None:
            self._ids[state.call_leg_id] = control_id
        if state.call_session_id is not None:
            of_session = self._sessions.setdefault(state.call_session_id, [])
            if control_id not in of_session:
                of_session.append(control_id)
        while self._states:  # those that nobody spoke of for longest stand first
            oldest = next(iter(self._states))
            known, at_s = self._states[oldest]
            if len(self._states) <= _CALLS_KEPT and (now_s - at_s < _ENDED_KEPT_S or not known.ended):
                break
            self._forget(oldest, known)

    def _forget(self, control_id: str, state: CallState) -> None:
        del self._states[control_id]
        if state.call_leg_id is not None:
            self._ids.pop(state.call_leg_id, None)
        of_session = self._sessions.get(state.call_session_id or "", [])
        if control_id in of_session:
            of_session.remove(control_id)
            if not of_session:
                del self._sessions[state.call_session_id or ""]

    def get(self, control_id: str) -> CallState | None:
        """The state of the leg with this call_control_id; None: it is not known."""
        found = self._states.get(control_id)
        return None if found is None else found[0]

    def by_leg(self, call_leg_id: uuid.UUID) -> CallState | None:
        """The state of the call that has this leg."""
        control_id = self._ids.get(call_leg_id)
        return None if control_id is None else self.get(control_id)

    def session_of(self, stream: StreamInfo) -> str | None:
        """The name of the session that a stream belongs to: for ``WavSink(sessions=…)``, from any thread."""
        state = None if stream.call_leg_id is None else self.by_leg(stream.call_leg_id)
        return None if state is None else state.call_session_id

    def wants(self, state: CallState) -> bool:
        """Whether this call is to be recorded now, as far as is known.

        It is from ``call.answered``, ``call.bridged`` or ``call.fork.started`` on, without ``only_answered`` also from
        ``call.initiated`` on, until ``call.hangup``. ``call.fork.stopped`` takes ``call.fork.started`` back. No other
        webhook counts, nor does a call without a call_control_id."""
        if state.ended or state.call_control_id is None:
            return False
        # a call of which only a fork is known lives: we, or who was here before us, forked it
        begun = state.answered or state.forked or (not self._only_answered and state.phase >= CallPhase.INITIATED)
        return begun and self.wants_leg(state)

    def wants_leg(self, state: CallState) -> bool:
        """Whether legs of this kind are recorded."""
        return self._record_legs == "both" or self.leg_of(state).label == self._record_legs

    def is_sure_of_leg(self, state: CallState) -> bool:
        """Whether another leg's webhook could not change what :meth:`wants_leg` says."""
        alone = len(self._sessions.get(state.call_session_id or "", ())) < 2
        return self._record_legs == "both" or state.direction == "incoming" or not alone

    def leg_of(self, state: CallState) -> Leg:
        """A or B, by its session's other legs."""
        mine = _rank(state)
        for control_id in self._sessions.get(state.call_session_id or "", ()):
            other = self.get(control_id)
            if control_id != state.call_control_id and other is not None and _rank(other) < mine:
                return Leg.B
        return Leg.A


def _rank(state: CallState) -> tuple[bool, datetime, str]:
    """Who came in first stands first."""
    began, leg = state.initiated_at, state.call_leg_id
    if began is None and leg is not None and leg.version == 1:
        began = _UUID_EPOCH + timedelta(microseconds=leg.time // 10)
    return state.direction != "incoming", began or _LATE, state.call_control_id or ""
