"""Whose a call is, where several services hear the same webhooks: one behind a load balancer records it, once.

Nothing but the API knows of all of them. It carries out a command_id once (documented: for 60 s), so all send the
first fork_start of a call with the same one: whoever comes first has the call, and the others' commands do nothing. Who
hears of a call later than that asks first what the API has logged of it. Who started a fork and hears nothing of it, or
nothing any more, asks where it goes to.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from .._model.exceptions import StrepError
from ..control._answers import CallEvent
from ..control.calls import CallState
from ..control.events import CallHangup, WebhookEvent, parse_event

__all__ = ["CallLog", "CallOwners", "Refused", "call_log"]

log = logging.getLogger("strep.service")

_NAMESPACE: Final = uuid.UUID("5d1d0a0c-6a0f-5b8e-9d0a-2f4c1b7e8a36")  # any, and always the same
_FRESH_S: Final = 30.0  # half of the time in which the API knows a command_id again
_ASK_S: Final = 1.5  # less than the state machine waits before it starts a silent fork again
_STARTED: Final = frozenset({"fork_start", "call.fork_start", "call.fork.started"})
_STOPPED: Final = frozenset({"fork_stop", "call.fork_stop", "call.fork.stopped"})
_HANGUP: Final = CallHangup.EVENT_TYPE
_ADDRESSES: Final = frozenset({"target", "rx", "tx"})
_DEEPEST: Final = 8
_PAST: Final = datetime.min.replace(tzinfo=UTC)

AskEvents = Callable[[uuid.UUID], Awaitable[Iterable[CallEvent]]]


@dataclass(frozen=True)
class CallLog:
    """What the API has logged of a call and its fork. on: whether it is being forked. addresses: where it was started
    to last, "IP:PORT"; empty where the log does not tell. hangup: the call is over."""

    on: bool = False
    addresses: frozenset[str] = frozenset()
    hangup: CallEvent | None = None

    def goes_elsewhere(self, addresses: Iterable[str]) -> bool:
        """Whether what was to go to ``addresses`` is known to go, or to have gone in the end, to others."""
        return bool(self.addresses - {_bare(address) for address in addresses})

    def hangup_of(self, state: CallState) -> WebhookEvent | None:
        """The webhook, which may have been another service's to hear; as far as the log tells it."""
        if self.hangup is None:
            return None
        for data in (self.hangup.metadata, {"data": self.hangup.metadata}):
            try:
                event = parse_event(data)
            except StrepError:
                continue
            if isinstance(event, CallHangup) and event.call_control_id == state.call_control_id:
                return event
        at, ids = self.hangup.event_timestamp, {"call_control_id": state.call_control_id}
        occurred_at = None if at is None else at.isoformat()
        return parse_event({"data": {"event_type": _HANGUP, "occurred_at": occurred_at, "payload": ids}})


def call_log(events: Iterable[CallEvent]) -> CallLog:
    """The last of a call's events decide."""
    on, addresses, hangup = False, frozenset[str](), None
    for event in sorted(events, key=lambda event: event.event_timestamp or _PAST):
        if event.name in _STOPPED:
            on = False
        elif event.name == _HANGUP:
            on, hangup = False, event
        elif event.name in _STARTED:
            on = True
            if event.type == "command":
                addresses = frozenset(_addresses(event.metadata))
    return CallLog(on, addresses, hangup)


def _addresses(value: Any, depth: int = 0) -> Iterator[str]:
    """Wherever they stand: the contract says only that the command is in there."""
    if depth > _DEEPEST:
        return
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name in _ADDRESSES and isinstance(each, str):
                yield _bare(each)
            else:
                yield from _addresses(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            yield from _addresses(each, depth + 1)


def _bare(address: str) -> str:
    """An address of fork_start, without "udp:"."""
    return address.strip().removeprefix("udp:")


@dataclass(slots=True)
class Refused:
    """How often the API refused to fork a call: because it was not answered, and for other reasons."""

    early: int = 0
    other: int = 0


class CallOwners:
    """events: the API's log of a call leg; None: nobody is asked. ours: whether this service has given such addresses;
    or, with the second argument, may have before it was started again, from other ports. only_answered: nobody forks
    calls before they are answered. wall: Unix time, s."""

    def __init__(
        self,
        events: AskEvents | None = None,
        *,
        ours: Callable[[frozenset[str], bool], bool] = lambda addresses, before: True,
        only_answered: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._events = events
        self._ours = ours
        self._only_answered = only_answered
        self._wall = wall
        self._warned = False

    def command_id(self, state: CallState, refused: Refused) -> str:
        """Of the first fork_start of a call: the same for all, also when some have heard that it was answered, and
        others tried before. After any other refusal it is another one."""
        return str(uuid.uuid5(_NAMESPACE, f"{state.call_control_id} fork_start {refused.other}"))

    async def taken(self, state: CallState, refused: Refused, *, own: bool) -> bool:
        """Whether another service has this call. own: it was ours before, or may be: then only what is sure counts."""
        if state.call_leg_id is None or (not own and self._is_fresh(state, refused)):
            return False
        found = await self.ask(state.call_leg_id)
        if found is None or not found.on:
            return False
        return not self._ours(found.addresses, own) if found.addresses else not own

    def _is_fresh(self, state: CallState, refused: Refused) -> bool:
        """Whether whoever may have forked the call did it with the command_id that we would send, and not long ago."""
        if refused.other:
            return False
        if refused.early and not state.answered:
            return True  # nobody could until just now
        since = state.answered_at if self._only_answered or refused.early else state.initiated_at
        return since is not None and abs(self._wall() - since.timestamp()) < _FRESH_S

    async def ask(self, call_leg_id: uuid.UUID | None) -> CallLog | None:
        """The API's log. None: there is no answer (in time); the call is worth more than that it is recorded once."""
        if self._events is None or call_leg_id is None:
            return None
        try:
            async with asyncio.timeout(_ASK_S):
                return call_log(await self._events(call_leg_id))
        except (StrepError, TimeoutError) as error:
            if not self._warned:
                self._warned = True
                log.warning(
                    "the API could not be asked who forks a call; other services that hear of it may do it too: %s",
                    str(error) or f"no answer in {_ASK_S:g} s",
                )
            return None
