"""One call that is recorded: its fork is held until the call ends, tried again while something is in the way, and left
alone when it is somebody else's. Nothing that goes wrong in it reaches another call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from .._model.exceptions import StrepError
from .._model.report import utc_text
from ..control._errors import APIConnectionError, APIStatusError, CallEndedError
from ..control._fork import Fork
from ..control._fork_event import ForkEvent
from ..control.calls import CallState
from ..control.events import WebhookEvent
from ._book import CallBook
from ._journal import Journal
from ._memory import CallMemory
from ._owner import CallOwners, Refused
from ._telling import ids, is_not_answered, patience_s, shown, told_of

__all__ = ["CallDesk", "OpenFork", "Recording"]

log = logging.getLogger("strep.service")

_FORK_EVENTS_PER_CALL: Final = 100
_SILENCES_PER_CALL: Final = 1000
_WARNINGS: Final = ("no_media", "fork_stalled", "fork_restart_failed", "fork_stop_failed")
_WAIT_FOR_LEG_A_S: Final = 0.5  # how long a leg that may be B waits for A's webhook
_LONGEST_PAUSE_S: Final = 30.0  # between two tries
_ENDS: Final = ("fork_stopped", "fork_failed")
_ELSEWHERE: Final = "owned_elsewhere"

OpenFork = Callable[[CallState, Callable[[ForkEvent], object], str | None], Fork]


@dataclass(slots=True)
class CallDesk:
    """What all recordings of a service share.

    ``book``, ``journal``, ``owners``, ``memory``  what is known of calls, here, on the disk and elsewhere.
    ``open_fork``  makes the fork of a call, which tells its events to the function, and sends its first fork_start with
                   that command_id.
    ``tell``       hears of calls as dicts.
    ``on_event``   takes a webhook that never came, as the API's log tells it.
    ``keep``       hears what is known of legs, for the catalogue: what ``leg.json`` has, and its path below the
                   recordings; None where the call is live.
    ``clock``      monotonic seconds.
    ``before``     calls that were being recorded here by the process before.
    ``held``       recordings by call_leg_id, once that is known.
    ``stopping``   the service ends: the next process takes its calls up.
    """

    book: CallBook
    journal: Journal
    owners: CallOwners
    open_fork: OpenFork
    tell: Callable[[dict[str, Any]], object]
    on_event: Callable[[WebhookEvent], None]
    clock: Callable[[], float]
    keep: Callable[[dict[str, Any], str | None], object] = lambda found, file: None
    memory: CallMemory = field(default_factory=CallMemory)
    before: frozenset[str | None] = frozenset()
    held: dict[uuid.UUID, Recording] = field(default_factory=dict)
    stopping: bool = False


class Recording:
    """A call that is being recorded, or about to be.

    ``over``    set when it has ended, or nothing more is to be recorded.
    ``news``    set when a webhook came.
    ``events``, ``silent``  of its fork, and when nothing came of it: for leg.json.
    ``call_leg_id``  as its fork knows it; None until then.
    ``error``   what is in the way, or was at the end.
    """

    def __init__(self, control_id: str, desk: CallDesk) -> None:
        self.control_id = control_id
        self._desk = desk
        self.over = asyncio.Event()
        self.news = asyncio.Event()
        self.events: list[dict[str, Any]] = []
        self.silent: list[dict[str, Any]] = []
        self.call_leg_id: uuid.UUID | None = None
        self.error: str | None = None
        self.task: asyncio.Task[None] | None = None
        self._failed: ForkEvent | None = None  # a fork that did not begin, not told of yet
        self._own = control_id in desk.before  # it was this service's before, or may be
        self._refused = Refused()
        self._heard = False  # its media came
        self._doubted = asyncio.Event()  # nothing comes of it: it may be another's
        self._untold: list[ForkEvent] = []  # not told of before that is known
        self._again = False  # the API took fork_start, and did nothing

    @property
    def state(self) -> CallState:
        """What is known of the call."""
        return self._desk.book.get(self.control_id) or CallState()

    async def run(self) -> str:
        """Hold the call's fork until the call ends; returns what it came to, a key of the service's outcomes, or ""
        if that is not to be counted. Does not raise, unless it is cancelled."""
        try:
            return await self._record()
        except StrepError as error:
            if self.state.ended:
                return "missed"
            self._trouble(str(error))
        except Exception as error:
            self._trouble(f"{type(error).__name__}: {error}", exc_info=True)
        return "failed"

    async def _record(self) -> str:
        desk = self._desk
        began_s, pause_s = desk.clock(), 1.0
        while True:
            state = self.state
            if not desk.book.is_sure_of_leg(state):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_WAIT_FOR_LEG_A_S):
                        await self.over.wait()
                state = self.state
            if self.over.is_set():
                return "missed" if self.error is None else "failed"
            if not desk.book.wants_leg(state):
                return ""
            self.news.clear()
            try:
                return await self._hold(state)
            except CallEndedError:
                self._failed = None  # it was over first: nothing is wrong
                return "missed" if self.error is None else "failed"
            except (StrepError, OSError) as error:
                self._tell_failed(error)
                self._learn(error)
                if self.over.is_set() and not self.state.ended:
                    return ""  # the service is stopping: the next process takes the call up
                if desk.clock() - began_s > patience_s(error):
                    raise
                self._trouble_passes(error)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self.news.wait()

    async def _hold(self, state: CallState) -> str:
        desk = self._desk
        if await desk.owners.taken(state, self._refused, own=self._own):
            await self._leave_to_other("another service has forked it already")
            return _ELSEWHERE
        await asyncio.to_thread(desk.journal.note, state)
        if self.over.is_set():
            return "missed"
        self._keep_live(state)
        command_id = None if self._own else desk.owners.command_id(state, self._refused)
        fork = desk.open_fork(state, self._hear, command_id)
        tasks = [asyncio.create_task(each(fork)) for each in (self._leave, self._doubt)]
        try:
            async with fork:
                await fork.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not fork.state.call_ended:
                self._tell_untold()
        self.error = None
        if self._again:
            self._again = False
            return await self._hold(state)
        elsewhere = fork.state.kept
        if not elsewhere and command_id is not None and not self._heard and not desk.stopping:
            found = await desk.owners.ask(fork.call_leg_id)
            elsewhere = found is not None and found.goes_elsewhere(fork.addresses.values())
        if elsewhere:
            await self._leave_to_other("its fork goes to another service")
            return "recorded" if self._heard else _ELSEWHERE
        if fork.state.stopped_elsewhere:
            await self._leave_alone()
        return "recorded"

    def _keep_live(self, state: CallState) -> None:
        if state.call_leg_id is not None:
            told = told_of(state, self._desk.book.leg_of(state))
            self._desk.keep({"call_leg_id": str(state.call_leg_id), **told, "streams": []}, None)

    # --- whose it is --------------------------------------------------------------------------------------------------

    async def _leave(self, fork: Fork) -> None:
        """Stop the fork when nothing more is to be recorded, also while it is being started."""
        await self.over.wait()
        await fork.stop()

    async def _doubt(self, fork: Fork) -> None:
        """Each time that nothing comes of a fork: let go of it if it is another's, or the call over."""
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            found = await self._desk.owners.ask(fork.call_leg_id)
            if found is not None and found.goes_elsewhere(fork.addresses.values()):
                self._untold.clear()
                await asyncio.shield(fork.abandon("it goes to another service"))
                return
            if found is not None and (hangup := found.hangup_of(self.state)) is not None:
                fork.call_ended("hang-up, which the API's log tells")
                self._desk.on_event(hangup)
                return
            self._tell_untold()
            if found is not None and not found.on and self._refused.early and not self._heard:
                self._own = self._again = True  # it took the command for the one that it had refused
                await asyncio.shield(fork.abandon("the API took fork_start, and forks nothing"))
                return

    async def _leave_to_other(self, why: str) -> None:
        """Another service has this call: it is left alone until it has ended, also by the next process."""
        self._desk.memory.left_alone.add(self.control_id)
        if self._heard:  # what came before stands in its file
            self.error = f"the rest of it is not recorded here: {why}"
        log.info("call %s is left alone: %s", shown(self.control_id), why)
        self._desk.tell({"event": "call_elsewhere", **ids(self.state), "text": why})
        await asyncio.to_thread(self._desk.journal.strike, self.control_id)

    async def _leave_alone(self) -> None:
        """Somebody else has stopped the fork: it stays so, also for the next process, until the call has ended."""
        state = self.state
        if not state.ended:
            log.info("call %s: its fork was stopped, and not from here: it stays so", shown(self.control_id))
            self._desk.memory.left_alone.add(self.control_id)
            await asyncio.to_thread(self._desk.journal.note, state, stopped=True)

    def _learn(self, error: Exception) -> None:
        """What a fork that did not begin tells of the next try."""
        if isinstance(error, APIConnectionError) or (isinstance(error, APIStatusError) and error.status_code >= 500):
            self._own = True  # it may have had its effect
        elif is_not_answered(error):
            self._refused.early += 1
        elif isinstance(error, APIStatusError):
            self._refused.other += 1

    # --- what is told of it -------------------------------------------------------------------------------------------

    def _hear(self, event: ForkEvent) -> None:
        """What the fork tells: kept for the leg's file, as far as it fits there, and told on."""
        if event.call_leg_id is not None:
            self.call_leg_id = event.call_leg_id
            self._desk.held[event.call_leg_id] = self
        if event.kind == "fork_failed":
            self._failed = event  # why it did decides whether that is anything to be told
            return
        self._heard |= event.kind == "fork_media"
        if event.kind in ("no_media", "fork_stalled"):
            self._untold.append(event)
            self._doubted.set()
            return
        if event.kind not in _ENDS:
            self._tell_untold()
        self._note(event)

    def _tell_untold(self) -> None:
        events, self._untold = self._untold, []
        for event in events:
            self._note(event)

    def _tell_failed(self, error: Exception) -> None:
        """A fork did not begin. That a call still rings, or has ended, is how calls are."""
        event, self._failed = self._failed, None
        if event is not None and not is_not_answered(error) and not self.state.ended:
            self._note(event)

    def _note(self, event: ForkEvent) -> None:
        if "silent_s" in event.data and len(self.silent) < _SILENCES_PER_CALL:
            self.silent.append({"from": event.data["silent_since"], "seconds": event.data["silent_s"]})
        if len(self.events) < _FORK_EVENTS_PER_CALL:
            told = {"event": event.kind, "time": utc_text(event.time_ns), "text": event.text, **event.data}
            self.events.append(told)
        if event.kind in _WARNINGS:
            log.warning("call %s: %s", shown(self.control_id), event.data.get("text", event.text))
        self._desk.tell(event.as_dict())

    def _trouble(self, text: str, *, exc_info: bool = False) -> None:
        """Log it, once for each call."""
        self.error = text
        if self.control_id not in self._desk.memory.told:
            self._desk.memory.told.add(self.control_id)
            log.warning("call %s is not recorded: %s", shown(self.control_id), text, exc_info=exc_info)
        self._desk.tell({"event": "call_failed", **ids(self.state), "error": text})

    def _trouble_passes(self, error: Exception) -> None:
        """What is in the way may not stay: the call is tried again. Logged once for each call."""
        if is_not_answered(error):
            return  # it still rings: the next webhook may say that it was answered, but may be lost too
        if self.error is None:
            log.warning("call %s is not recorded yet, and tried again: %s", shown(self.control_id), error)
        self.error = str(error)
