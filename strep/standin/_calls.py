"""The calls of the stand-in as a state machine: commands in, answers and effects out. Time is an argument.

A call: scheduled → parked (call.initiated) → answered (call.answered) [→ bridged (call.bridged)] → hangup (call.hangup)
A fork of it, only while it is answered: fork_start (call.fork.started) → fork_stop or the end (call.fork.stopped)
What is spoken or played on it, only then too, is ``_jukebox``'s.

A command_id is remembered for 60 s: the same command again is answered with ok and does nothing. A fork_start with
another command_id moves the fork (no public description says what the real API does).
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np

from .._model.exceptions import ConfigurationError
from .._model.types import Leg
from ._agenda import Agenda
from ._answers import OK, Answer, Problem, Refusal, call_ended, not_answered, not_found, unknown_call
from ._audio_requests import Play, Stop
from ._call import NEVER_NS, Call, CallRecord, Effect, MediaFork, MediaStart, MediaStop, Webhook, iso
from ._jukebox import Jukebox
from ._playlist import Clip, Item
from ._records import CallRecords, CommandMemory
from ._requests import Command, Dial, ForkStart, Page
from ._webhooks import webhook_body

__all__ = ["Calls"]

_ENDED_KEPT_NS: Final = 600_000_000_000  # "data is available 10 minutes after call ended"
_UUID_EPOCH: Final = 0x01B2_1DD2_1381_4000  # of 100 ns from 1582-10-15 to 1970-01-01 (RFC 9562)
_DEFAULT_LIMIT_S: Final = 14_400


class Calls:
    """Every method that takes ``now_ns`` returns what is to be done; it never goes back in time. Before a command,
    :meth:`advance`. Commands raise Refusal, and have done nothing then.

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
        self._agenda = Agenda()
        self._commands = CommandMemory()
        self._jukebox = Jukebox(self._event)
        self._of: dict[str, Call] = {}
        self.records = CallRecords()
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
        return self._agenda.next_ns()

    def advance(self, now_ns: int) -> list[Effect]:
        """Let calls arrive, be answered and end, in the order of time."""
        effects: list[Effect] = []
        while (due := self.next_ns()) is not None and due <= now_ns:
            call = self._agenda.pop()
            if call.talking and call.playlist.next_ns <= due:
                effects += self._jukebox.advance(call, due)
                self._agenda.add(call)
            elif call.state == "scheduled":
                call.state = "parked"
                self._agenda.add(call)
                state = "bridging" if call.peer is not None else "parked"
                effects.append(self._event(call, "call.initiated", due, direction=call.direction, state=state))
            elif call.state == "parked":
                effects += self._answer(call, due)
            else:
                effects += self._end(call, due, "caller", "normal_clearing")
        return effects

    # --- commands -----------------------------------------------------------------------------------------------------

    def fork_start(self, call_control_id: str, request: ForkStart, now_ns: int) -> tuple[Answer, list[Effect]]:
        def start(call: Call) -> list[Effect]:
            effects = self._stop(call, now_ns)
            fork = MediaFork(
                number=self._forks,
                call=call,
                target=request.target,
                rx=request.rx,
                tx=request.tx,
                stream_type=request.stream_type,
                started_ns=now_ns,
            )
            self._forks += 1
            call.fork = fork
            started = self._event(call, "call.fork.started", now_ns, stream_type=fork.stream_type)
            return [*effects, MediaStart(fork), started]

        return self._command(call_control_id, "fork_start", request.command, now_ns, start, request.as_dict())

    def fork_stop(self, call_control_id: str, command: Command, now_ns: int) -> tuple[Answer, list[Effect]]:
        """Without a fork there is nothing to stop: ok."""

        def stop(call: Call) -> list[Effect]:
            if command.stream_type and call.fork and command.stream_type != call.fork.stream_type:
                detail = f"stream_type must be {call.fork.stream_type}, as when the fork was started."
                raise Refusal(422, Problem("10015", "Invalid value", detail, pointer="/stream_type"))
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

    def play(self, call_control_id: str, name: str, request: Play, now_ns: int) -> tuple[Answer, list[Effect]]:
        """``speak`` or ``playback_start``: what is to be heard is loaded, and told to :meth:`loaded`."""

        def play(call: Call) -> list[Effect]:
            return self._played(call, self._jukebox.play(call, request, now_ns))

        return self._command(call_control_id, name, request.command, now_ns, play)

    def playback_stop(self, call_control_id: str, request: Stop, now_ns: int) -> tuple[Answer, list[Effect]]:
        """With nothing to stop: ok."""

        def stop(call: Call) -> list[Effect]:
            return self._played(call, self._jukebox.stop(call, request, now_ns))

        return self._command(call_control_id, "playback_stop", request.command, now_ns, stop)

    def loaded(self, call: Call, item: Item, clip: Clip | None, now_ns: int) -> list[Effect]:
        """The sound of an item is there; None: it cannot be played."""
        return self._played(call, self._jukebox.loaded(call, item, clip, now_ns))

    def dial(self, request: Dial, now_ns: int) -> tuple[Answer, list[Effect]]:
        """A new call, which arrives at once; ``link_to`` shares the session of another."""
        done = self._commands.answer("", request.command, now_ns)
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
        self._commands.remember("", request.command, now_ns, answer)
        self.records.append(CallRecord(call, "dial", "command", now_ns, command_id=request.command.command_id))
        return answer, self.advance(now_ns)

    def retrieve(self, call_control_id: str, now_ns: int) -> Answer:
        call = self._of.get(call_control_id)
        gone = call is not None and call.ended_ns is not None and now_ns - call.ended_ns > _ENDED_KEPT_NS
        if call is None or call.state == "scheduled" or gone:
            raise not_found("The call")
        return Answer(200, {"data": {"record_type": "call", **call.ids(), "is_alive": call.alive}})

    def events(self, page: Page) -> Answer:
        """Commands and webhooks so far. Raises Refusal for a filter the contract does not have."""
        return self.records.page(page)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _make(self, at_ns: int, peer: Call | None, leg: Leg, direction: Literal["incoming", "outgoing"]) -> Call:
        number = len(self.all)
        answers_ns = NEVER_NS if self._ring_ns is None else at_ns + self._ring_ns
        call = Call(
            number=number,
            call_control_id="v3:" + base64.urlsafe_b64encode(self._rng.bytes(42)).decode(),
            call_leg_id=self._uuid1(at_ns),
            call_session_id=self._uuid1(at_ns) if peer is None else peer.call_session_id,
            leg=leg,
            direction=direction,
            from_=f"+1555010{number % 10_000:04}",
            to="+15550199999",
            connection_id="1494404757140276705",
            initiated_ns=at_ns,
            answers_ns=answers_ns,
            length_ns=self._length_ns,
            webhook_url=self._webhook_url,
            peer=peer,
        )
        if peer is not None:
            peer.peer = call
        self.all.append(call)
        self._agenda.add(call)
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
        metadata: dict[str, str] | None = None,
    ) -> tuple[Answer, list[Effect]]:
        call = self._of.get(call_control_id)
        if call is None or call.state == "scheduled":
            raise unknown_call()
        done = self._commands.answer(call_control_id, command, now_ns)
        if done is not None:
            return done, []
        if call.state == "hangup":
            raise call_ended()
        if name not in ("answer", "hangup") and not call.talking:
            raise not_answered(name)
        before = call.client_state
        if command.client_state is not None:
            call.client_state = command.client_state
        told = {**(metadata or {}), **({} if command.command_id is None else {"command_id": command.command_id})}
        self.records.append(CallRecord(call, name, "command", now_ns, told, command_id=command.command_id))
        try:
            effects = act(call)
        except Refusal:
            call.client_state = before
            self.records.pop()
            raise
        self._commands.remember(call_control_id, command, now_ns, OK)
        return OK, effects

    def _played(self, call: Call, effects: list[Effect]) -> list[Effect]:
        """What is heard on it, or on its peer, may end at another time now."""
        for one in (call, call.peer):
            if one is not None and one.talking:
                self._agenda.add(one)
        return effects

    def _answer(self, call: Call, now_ns: int) -> list[Effect]:
        call.state, call.answered_ns = "answered", now_ns
        self._agenda.add(call)
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
        return [MediaStop(fork), stopped]

    def _end(self, call: Call, now_ns: int, source: str, cause: str) -> list[Effect]:
        effects = [*self._jukebox.hang_up(call, now_ns), *self._stop(call, now_ns)]
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

    def _event(self, call: Call, event_type: str, now_ns: int, **more: Any) -> Webhook:
        body = webhook_body(call, event_type, uuid.UUID(bytes=self._rng.bytes(16), version=4), now_ns, **more)
        record = CallRecord(call, event_type, "webhook", now_ns, body)
        self.records.append(record)
        return Webhook(call, event_type, body, call.webhook_url, record)
