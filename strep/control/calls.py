"""What a call's webhooks come to, in whatever order and however often they come. Pure.

Webhooks come duplicated, concurrently and out of order, so a state is not what the last one says. Each fact in a
:class:`CallState` is the first or the last one *by when it occurred*, and a phase never goes back: the least upper
bound of all events so far, which depends on neither their order nor their number (a join semilattice; Shapiro et al.,
"Conflict-free replicated data types", 2011).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Final

from .events import (
    CallAnswered,
    CallBridged,
    CallHangup,
    CallInitiated,
    CallWebhook,
    ForkStarted,
    ForkStopped,
    WebhookEvent,
)

__all__ = ["CallPhase", "CallState"]

_PAST: Final = datetime.min.replace(tzinfo=UTC)
_FUTURE: Final = datetime.max.replace(tzinfo=UTC)


class CallPhase(IntEnum):
    """How far a call has come; it does not go back."""

    UNKNOWN = 0
    INITIATED = 1
    ANSWERED = 2
    BRIDGED = 3
    ENDED = 4


_PHASES: Final[dict[type[WebhookEvent], CallPhase]] = {
    CallInitiated: CallPhase.INITIATED,
    CallAnswered: CallPhase.ANSWERED,
    CallBridged: CallPhase.BRIDGED,
    CallHangup: CallPhase.ENDED,
}


@dataclass(frozen=True)
class _Fact:
    """A value and when it held. ``rank`` and the value's text decide between equal times: the order is total."""

    at: datetime
    rank: int
    value: Any

    @property
    def order(self) -> tuple[datetime, int, str]:
        return self.at, self.rank, repr(self.value)


@dataclass(frozen=True)
class CallState:
    """A call (one call_leg_id), as far as its webhooks tell; ``after(event)`` is the state with one more of them.

    Of two fork events the one that occurred later counts; at equal times, or without any, a stop does. A call that has
    ended is not forked. What no webhook has told is None.
    """

    phase: CallPhase = CallPhase.UNKNOWN
    _facts: Mapping[str, _Fact] = field(default_factory=dict, repr=False)

    def after(self, event: WebhookEvent) -> CallState:
        """The state with this event; itself when that tells nothing new."""
        phase = max(self.phase, _PHASES.get(type(event), CallPhase.UNKNOWN))
        facts = dict(self._facts)
        at = event.occurred_at
        for name in ("call_control_id", "call_leg_id", "call_session_id", "connection_id"):
            _first(facts, name, at, getattr(event, name))
        _last(facts, "client_state", at, event.client_state)
        if isinstance(event, CallWebhook):
            _first(facts, "from", at, event.from_)
            _first(facts, "to", at, event.to)
        if isinstance(event, CallInitiated):
            _first(facts, "direction", at, event.direction)
        if type(event) in _PHASES:
            _first(facts, _PHASES[type(event)].name, at, at)
        if isinstance(event, CallHangup):
            _first(facts, "hangup_cause", at, event.hangup_cause)
            _first(facts, "hangup_source", at, event.hangup_source)
        if isinstance(event, ForkStarted | ForkStopped):
            stopped = isinstance(event, ForkStopped)
            _last(facts, "fork", at, (not stopped, event.stream_type), rank=stopped)
        return self if facts == self._facts and phase == self.phase else CallState(phase, facts)

    def _value(self, name: str) -> Any:
        fact = self._facts.get(name)
        return None if fact is None else fact.value

    @property
    def call_control_id(self) -> str | None:
        """The id used in commands to this leg; None: no event has told it."""
        return self._value("call_control_id")  # type: ignore[no-any-return]

    @property
    def call_leg_id(self) -> uuid.UUID | None:
        """The UUID that STREP carries; None: no event has told it."""
        return self._value("call_leg_id")  # type: ignore[no-any-return]

    @property
    def call_session_id(self) -> str | None:
        """What all legs of one session have in common; None: no event has told it."""
        return self._value("call_session_id")  # type: ignore[no-any-return]

    @property
    def connection_id(self) -> str | None:
        """The connection or application that the call came by; None: no event has told it."""
        return self._value("connection_id")  # type: ignore[no-any-return]

    @property
    def client_state(self) -> bytes | None:
        """The last one that an event carried."""
        return self._value("client_state")  # type: ignore[no-any-return]

    @property
    def from_(self) -> str | None:
        """The calling number or SIP URI."""
        return self._value("from")  # type: ignore[no-any-return]

    @property
    def to(self) -> str | None:
        """The called number or SIP URI."""
        return self._value("to")  # type: ignore[no-any-return]

    @property
    def direction(self) -> str | None:
        """incoming or outgoing."""
        return self._value("direction")  # type: ignore[no-any-return]

    @property
    def initiated_at(self) -> datetime | None:
        """When the call began, UTC."""
        return self._value("INITIATED")  # type: ignore[no-any-return]

    @property
    def answered_at(self) -> datetime | None:
        """When it was answered, UTC; None: not yet."""
        return self._value("ANSWERED")  # type: ignore[no-any-return]

    @property
    def bridged_at(self) -> datetime | None:
        """When it was bridged, UTC; None: not yet."""
        return self._value("BRIDGED")  # type: ignore[no-any-return]

    @property
    def ended_at(self) -> datetime | None:
        """When it ended, UTC; None: not yet."""
        return self._value("ENDED")  # type: ignore[no-any-return]

    @property
    def hangup_cause(self) -> str | None:
        """Why it ended, in the platform's words."""
        return self._value("hangup_cause")  # type: ignore[no-any-return]

    @property
    def hangup_source(self) -> str | None:
        """Who ended it, in the platform's words."""
        return self._value("hangup_source")  # type: ignore[no-any-return]

    @property
    def answered(self) -> bool:
        """Whether there is, or was, somebody to talk to: answered or bridged. Of a call that has ended: as far as a
        webhook told when that was."""
        if self.phase in (CallPhase.ANSWERED, CallPhase.BRIDGED):
            return True
        return self.answered_at is not None or self.bridged_at is not None

    @property
    def ended(self) -> bool:
        """Whether the call is over."""
        return self.phase is CallPhase.ENDED

    @property
    def forked(self) -> bool:
        """Whether media is being forked, as far as the webhooks tell."""
        fork = self._value("fork")
        return not self.ended and fork is not None and fork[0]

    @property
    def fork_stream_type(self) -> str | None:
        """Of the last fork event, where the API tells it."""
        fork = self._value("fork")
        return None if fork is None else fork[1]


def _first(facts: dict[str, _Fact], name: str, at: datetime | None, value: object) -> None:
    """Keep the earliest; what has no time yields to what has."""
    if value is not None:
        fact, known = _Fact(at or _FUTURE, 0, value), facts.get(name)
        if known is None or fact.order < known.order:
            facts[name] = fact


def _last(facts: dict[str, _Fact], name: str, at: datetime | None, value: object, *, rank: int = 0) -> None:
    """Keep the latest; what has no time yields to what has."""
    if value is not None:
        fact, known = _Fact(at or _PAST, rank, value), facts.get(name)
        if known is None or fact.order > known.order:
            facts[name] = fact
