"""The calls of the stand-in as a state machine: commands in, answers and effects out. Time is an argument.

A call: scheduled → parked (call.initiated) → answered (call.answered) [→ bridged (call.bridged)] → hangup (call.hangup)
A fork of it, only while it is answered: fork_start (call.fork.started) → fork_stop or the end (call.fork.stopped)

A command_id is remembered for 60 s: the same command again is answered with ok and does nothing. A fork_start with
another command_id moves the fork (no public description says what the real API does).
"""

from __future__ import annotations

import base64
import heapq
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from .._edge.udp import UdpAddress
from .._model.exceptions import ConfigurationError
from .._model.types import Leg
from ._answers import OK, Answer, Problem, Refused, call_ended, not_answered, not_found, unknown_call
from ._requests import Command, Dial, ForkStart, Page
from ._webhooks import iso, webhook_body

__all__ = [
    "COMMAND_WINDOW_NS",
    "Call",
    "CallRecord",
    "Calls",
    "Effect",
    "Fork",
    "ForkStarted",
    "ForkStopped",
    "Webhook",
]

State = Literal["scheduled", "parked", "answered", "bridged", "hangup"]

COMMAND_WINDOW_NS: Final = 60_000_000_000
KEPT_NS: Final = 600_000_000_000  # "data is available 10 minutes after call ended"
_RECORDS: Final = 10_000
_NEVER: Final = 1 << 62
_UUID_EPOCH: Final = 0x01B2_1DD2_1381_4000  # of 100 ns from 1582-10-15 to 1970-01-01 (RFC 9562)
_DEFAULT_LIMIT_S: Final = 14_400


@dataclass(slots=True)
class Fork:
    """Media of one call that are sent somewhere: to ``target`` as STREP, or to ``rx`` and ``tx`` as plain RTP."""

    number: int
    call: Call
    target: UdpAddress | None
    rx: UdpAddress | None
    tx: UdpAddress | None
    stream_type: str
    started_ns: int


@dataclass(slots=True)
class Call:
    """A leg. Times in ns, UTC."""

    number: int
    call_control_id: str
    call_leg_id: uuid.UUID
    call_session_id: uuid.UUID
    leg: Leg
    direction: Literal["incoming", "outgoing"]
    from_: str
    to: str
    connection_id: str
    initiated_ns: int
    answers_ns: int  # when it is answered if nobody does before
    length_ns: int  # from then on
    state: State = "scheduled"
    answered_ns: int | None = None
    ended_ns: int | None = None
    client_state: str | None = None
    webhook_url: str | None = None
    peer: Call | None = None
    fork: Fork | None = None

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("parked", "answered", "bridged")

    @property
    def talking(self) -> bool:
        """Whether audio flows: answered or bridged."""
        return self.state in ("answered", "bridged")

    @property
    def media_ns(self) -> int:
        """When its packets begin: those of bridged legs run together."""
        answered = [call.answered_ns for call in (self, self.peer) if call is not None and call.answered_ns is not None]
        return min(answered, default=self.initiated_ns)

    def ids(self) -> dict[str, str]:
        """Its identifiers, as the API names them."""
        return {
            "call_control_id": self.call_control_id,
            "call_leg_id": str(self.call_leg_id),
            "call_session_id": str(self.call_session_id),
        }


@dataclass(frozen=True, slots=True)
class Webhook:
    call: Call
    event_type: str
    body: dict[str, Any]
    url: str | None
    record: CallRecord


@dataclass(frozen=True, slots=True)
class ForkStarted:
    fork: Fork


@dataclass(frozen=True, slots=True)
class ForkStopped:
    fork: Fork


Effect = Webhook | ForkStarted | ForkStopped


@dataclass(slots=True)
class CallRecord:
    """An entry of ``/call_events``. ``status``: whether a webhook was delivered, None while that is open.
    ``command_id``: of a command that had one; each is there once, however often it was sent.
    """

    call: Call
    name: str
    type: Literal["command", "webhook"]
    time_ns: int
    metadata: dict[str, Any] = field(default_factory=dict)
    status: Literal["delivered", "failed"] | None = None
    command_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "record_type": "call_event",
            "call_leg_id": str(self.call.call_leg_id),
            "call_session_id": str(self.call.call_session_id),
            "event_timestamp": iso(self.time_ns),
            "name": self.name,
            "type": self.type,
            "metadata": self.metadata,
        }


class Calls:
    """Every method that takes ``now_ns`` returns what is to be done; it never goes back in time. Before a command,
    :meth:`advance`. Commands raise Refused, and have done nothing then.

    ``calls`` legs arrive ``arrive_ns`` apart (pairs of them if ``bridged``), the first at ``now_ns``; each is answered
    ``ring_ns`` later (None: only by a command) and hung up after ``length_ns`` (None: 4 hours, the longest).
    """

    def __init__(
        self,
        *,
        calls: int,
        now_ns: int,
        arrive_ns: int = 0,
        ring_ns: int | None = 0,
        length_ns: int | None = None,
        bridged: bool = False,
        webhook_url: str | None = None,
        seed: int | None = None,
    ) -> None:
        if calls < 0 or arrive_ns < 0 or (ring_ns or 0) < 0 or (length_ns is not None and length_ns <= 0):
            raise ConfigurationError(
                f"{calls} calls, {arrive_ns} ns apart, ringing {ring_ns} ns, lasting {length_ns} ns: "
                "0 or more, and more than 0 to last"
            )
        if bridged and calls % 2:
            raise ConfigurationError(f"{calls} bridged calls: legs are bridged in pairs, choose an even number")
        self._rng = np.random.default_rng(seed)
        self._ring_ns = ring_ns
        self._length_ns = _DEFAULT_LIMIT_S * 10**9 if length_ns is None else length_ns
        self._webhook_url = webhook_url
        self._forks = 0
        self._agenda: list[tuple[int, int, int]] = []  # when, a count (first come, first served), number of the call
        self._planned = 0
        self._commands: dict[tuple[str, str], tuple[int, Answer]] = {}
        self._of: dict[str, Call] = {}
        self.records: deque[CallRecord] = deque(maxlen=_RECORDS)
        self.all: list[Call] = []
        for k in range(calls):
            second = bridged and k % 2 == 1
            call = self._make(
                now_ns + k // (1 + bridged) * arrive_ns, self.all[-1] if second else None, Leg(second), "incoming"
            )
            if second:
                call.direction = "outgoing"

    def by_leg(self, call_leg_id: uuid.UUID) -> Call | None:
        return next((call for call in self.all if call.call_leg_id == call_leg_id), None)

    # --- time ---------------------------------------------------------------------------------------------------------

    def next_ns(self) -> int | None:
        """When :meth:`advance` has something to do."""
        while self._agenda:
            due, _, number = self._agenda[0]
            if self._due(self.all[number]) == due:
                return due
            heapq.heappop(self._agenda)  # a command came first
        return None

    def advance(self, now_ns: int) -> list[Effect]:
        """Let calls arrive, be answered and end, in the order of time."""
        effects: list[Effect] = []
        while (due := self.next_ns()) is not None and due <= now_ns:
            call = self.all[heapq.heappop(self._agenda)[2]]
            if call.state == "scheduled":
                call.state = "parked"
                self._plan(call)
                state = "bridging" if call.peer is not None else "parked"
                effects.append(self._event(call, "call.initiated", due, direction=call.direction, state=state))
            elif call.state == "parked":
                effects += self._answer(call, due)
            else:
                effects += self._end(call, due, "caller", "normal_clearing")
        return effects

    def _plan(self, call: Call) -> None:
        due = self._due(call)
        if due < _NEVER:
            self._planned += 1
            heapq.heappush(self._agenda, (due, self._planned, call.number))

    @staticmethod
    def _due(call: Call) -> int:
        if call.state == "scheduled":
            return call.initiated_ns
        if call.state == "parked":
            return call.answers_ns
        return _NEVER if call.answered_ns is None or call.state == "hangup" else call.answered_ns + call.length_ns

    # --- commands -----------------------------------------------------------------------------------------------------

    def fork_start(self, call_control_id: str, request: ForkStart, now_ns: int) -> tuple[Answer, list[Effect]]:
        def start(call: Call) -> list[Effect]:
            effects = self._stop(call, now_ns)
            fork = Fork(self._forks, call, request.target, request.rx, request.tx, request.stream_type, now_ns)
            self._forks += 1
            call.fork = fork
            started = self._event(call, "call.fork.started", now_ns, stream_type=fork.stream_type)
            return [*effects, ForkStarted(fork), started]

        return self._command(call_control_id, "fork_start", request.command, now_ns, start)

    def fork_stop(self, call_control_id: str, command: Command, now_ns: int) -> tuple[Answer, list[Effect]]:
        """Without a fork there is nothing to stop: ok."""

        def stop(call: Call) -> list[Effect]:
            if command.stream_type and call.fork and command.stream_type != call.fork.stream_type:
                detail = f"stream_type must be {call.fork.stream_type}, as when the fork was started."
                raise Refused(422, Problem("10015", "Invalid value", detail, pointer="/stream_type"))
            return self._stop(call, now_ns)

        return self._command(call_control_id, "fork_stop", command, now_ns, stop)

    def answer(self, call_control_id: str, command: Command, now_ns: int) -> tuple[Answer, list[Effect]]:
        def answer(call: Call) -> list[Effect]:
            if command.webhook_url is not None:
                call.webhook_url = command.webhook_url
            return [] if call.talking else self._answer(call, now_ns)

        return self._command(call_control_id, "answer", command, now_ns, answer)

    def hangup(self, call_control_id: str, command: Command, now_ns: int) -> tuple[Answer, list[Effect]]:
        def end(call: Call) -> list[Effect]:
            return self._end(call, now_ns, "callee", "normal_clearing")

        return self._command(call_control_id, "hangup", command, now_ns, end)

    def dial(self, request: Dial, now_ns: int) -> tuple[Answer, list[Effect]]:
        """A new call, which arrives at once; ``link_to`` shares the session of another."""
        done = self._repeated("", request.command, now_ns)
        if done is not None:
            return done, []
        linked = None if request.link_to is None else self._of.get(request.link_to)
        if request.link_to is not None and linked is None:
            raise unknown_call()
        call = self._make(now_ns, None, Leg.A, "outgoing")
        if linked is not None:
            call.call_session_id = linked.call_session_id
        call.connection_id, call.to, call.from_ = request.connection_id, request.to, request.from_
        call.client_state = request.command.client_state
        call.webhook_url = request.command.webhook_url or call.webhook_url
        if request.time_limit_s is not None:
            call.length_ns = min(call.length_ns, request.time_limit_s * 10**9)
        answer = Answer(200, {"data": {"record_type": "call", **call.ids(), "is_alive": False}})
        self._remember("", request.command, now_ns, answer)
        self.records.append(CallRecord(call, "dial", "command", now_ns, command_id=request.command.command_id))
        return answer, self.advance(now_ns)

    def retrieve(self, call_control_id: str, now_ns: int) -> Answer:
        call = self._of.get(call_control_id)
        gone = call is not None and call.ended_ns is not None and now_ns - call.ended_ns > KEPT_NS
        if call is None or call.state == "scheduled" or gone:
            raise not_found("The call")
        return Answer(200, {"data": {"record_type": "call", **call.ids(), "is_alive": call.alive}})

    def events(self, page: Page) -> Answer:
        """Commands and webhooks so far. Raises Refused for a filter the contract does not have."""
        found = [record for record in self.records if self._matches(record, page.filters)]
        first = (page.number - 1) * page.size
        meta = {
            "page_number": page.number,
            "page_size": page.size,
            "total_pages": -(-len(found) // page.size),
            "total_results": len(found),
        }
        return Answer(200, {"data": [r.as_dict() for r in found[first : first + page.size]], "meta": meta})

    # --- inside -------------------------------------------------------------------------------------------------------

    def _make(self, at_ns: int, peer: Call | None, leg: Leg, direction: Literal["incoming", "outgoing"]) -> Call:
        number = len(self.all)
        answers_ns = _NEVER if self._ring_ns is None else at_ns + self._ring_ns
        call = Call(
            number,
            "v3:" + base64.urlsafe_b64encode(self._rng.bytes(42)).decode(),
            self._uuid1(at_ns),
            self._uuid1(at_ns) if peer is None else peer.call_session_id,
            leg,
            direction,
            f"+1555010{number % 10_000:04}",
            "+15550199999",
            "1494404757140276705",
            at_ns,
            answers_ns,
            self._length_ns,
            webhook_url=self._webhook_url,
            peer=peer,
        )
        if peer is not None:
            peer.peer = call
        self.all.append(call)
        self._plan(call)
        self._of[call.call_control_id] = call
        return call

    def _uuid1(self, at_ns: int) -> uuid.UUID:
        """Version 1 of that time, from a random clock sequence and a random node with the multicast bit (RFC 9562)."""
        ticks = at_ns // 100 + _UUID_EPOCH
        sequence, node = self._rng.bytes(2), self._rng.bytes(6)
        return uuid.UUID(
            fields=(
                ticks & 0xFFFF_FFFF,
                ticks >> 32 & 0xFFFF,
                ticks >> 48 & 0x0FFF | 0x1000,
                sequence[0] & 0x3F | 0x80,
                sequence[1],
                int.from_bytes(node) | 1 << 40,
            )
        )

    def _command(
        self,
        call_control_id: str,
        name: str,
        command: Command,
        now_ns: int,
        act: Callable[[Call], list[Effect]],
    ) -> tuple[Answer, list[Effect]]:
        call = self._of.get(call_control_id)
        if call is None or call.state == "scheduled":
            raise unknown_call()
        done = self._repeated(call_control_id, command, now_ns)
        if done is not None:
            return done, []
        if call.state == "hangup":
            raise call_ended()
        if name.startswith("fork_") and not call.talking:
            raise not_answered(name)
        before = call.client_state
        if command.client_state is not None:
            call.client_state = command.client_state
        self.records.append(CallRecord(call, name, "command", now_ns, command_id=command.command_id))
        try:
            effects = act(call)
        except Refused:
            call.client_state = before
            self.records.pop()
            raise
        self._remember(call_control_id, command, now_ns, OK)
        return OK, effects

    def _repeated(self, call_control_id: str, command: Command, now_ns: int) -> Answer | None:
        if command.command_id is None:
            return None
        when, answer = self._commands.get((call_control_id, command.command_id), (-_NEVER, None))
        return answer if now_ns - when < COMMAND_WINDOW_NS else None

    def _remember(self, call_control_id: str, command: Command, now_ns: int, answer: Answer) -> None:
        while self._commands:  # the oldest stand first
            oldest = next(iter(self._commands))
            if now_ns - self._commands[oldest][0] < COMMAND_WINDOW_NS:
                break
            del self._commands[oldest]
        if command.command_id is not None:
            self._commands[call_control_id, command.command_id] = now_ns, answer

    def _answer(self, call: Call, now_ns: int) -> list[Effect]:
        call.state, call.answered_ns = "answered", now_ns
        self._plan(call)
        effects: list[Effect] = [self._event(call, "call.answered", now_ns, state="answered")]
        peer = call.peer
        if peer is not None and peer.state == "answered":
            for one in (peer, call):
                one.state = "bridged"
                effects.append(self._event(one, "call.bridged", now_ns, state="bridged"))
        return effects

    def _stop(self, call: Call, now_ns: int) -> list[Effect]:
        fork, call.fork = call.fork, None
        if fork is None:
            return []
        stopped = self._event(call, "call.fork.stopped", now_ns, stream_type=fork.stream_type)
        return [ForkStopped(fork), stopped]

    def _end(self, call: Call, now_ns: int, source: str, cause: str) -> list[Effect]:
        effects = self._stop(call, now_ns)
        call.state, call.ended_ns = "hangup", now_ns
        more = {
            "state": "hangup",
            "hangup_cause": cause,
            "hangup_source": source,
            "sip_hangup_cause": "200",
            "start_time": iso(call.initiated_ns),
        }
        effects.append(self._event(call, "call.hangup", now_ns, **more))
        if call.peer is not None and call.peer.alive:
            effects += self._end(call.peer, now_ns, source, cause)
        return effects

    def _event(self, call: Call, event_type: str, now_ns: int, **more: str) -> Webhook:
        body = webhook_body(call, event_type, uuid.UUID(bytes=self._rng.bytes(16), version=4), now_ns, **more)
        record = CallRecord(call, event_type, "webhook", now_ns, body)
        self.records.append(record)
        return Webhook(call, event_type, body, call.webhook_url, record)

    @staticmethod
    def _matches(record: CallRecord, filters: dict[str, str]) -> bool:
        own = record.as_dict()
        when = own["event_timestamp"]
        for name, value in filters.items():
            if name == "status":
                fits = record.status == value
            elif name in ("call_leg_id", "call_session_id", "type"):
                fits = own[name] == value
            elif name == "event_timestamp][gt":
                fits = when > value
            elif name == "event_timestamp][gte":
                fits = when >= value
            elif name == "event_timestamp][lt":
                fits = when < value
            elif name == "event_timestamp][lte":
                fits = when <= value
            elif name == "event_timestamp][eq":
                fits = when == value
            else:
                detail = f"filter[{name}] is no filter of call events."
                raise Refused(422, Problem("10015", "Invalid value", detail, parameter=f"filter[{name}]"))
            if not fits:
                return False
        return True
