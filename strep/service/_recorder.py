"""Webhooks in, recordings out: forks the calls that are wanted to this receiver, and reports what became of each.

A call has one task, which holds its fork until the call ends; nothing that goes wrong in it reaches another call. The
handler of webhooks only writes the call book and starts or wakes these tasks, so it never waits for the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .._model.exceptions import StrepError
from .._model.report import utc_text
from .._receiver.receiver import Receiver
from .._receiver.summary import write_summary
from ..control._errors import APIConnectionError, APIStatusError, CallEndedError
from ..control._fork import Fork
from ..control._fork_event import ForkEvent
from ..control.calls import CallState
from ..control.events import CallInitiated, ForkStarted, ForkStopped, WebhookEvent
from ._book import CallBook
from ._journal import Journal
from ._legs import LegStreams, LegWriter
from ._owner import CallOwners, Refused
from ._recovery import Recovery
from ._telling import heard_s, ids, is_not_answered, leg_entry, patience_s, shown, told_of

__all__ = ["CallRecorder", "OpenFork"]

log = logging.getLogger("strep.service")

_CALLS_REMEMBERED: Final = 100_000  # as recorded or tried, and as logged
_LEGS_IN_SUMMARY: Final = 1000
_FORK_EVENTS_PER_CALL: Final = 100
_NEEDS_NO_FILE_S: Final = 0.5  # of audio
_SILENCES_PER_CALL: Final = 1000
_WARNINGS: Final = ("no_media", "fork_stalled", "fork_restart_failed", "fork_stop_failed")
_WAIT_FOR_LEG_A_S: Final = 0.5  # how long a leg that may be B waits for A's webhook
_ENDS: Final = ("fork_stopped", "fork_failed")
_ELSEWHERE: Final = "owned_elsewhere"


OpenFork = Callable[[CallState, Callable[[ForkEvent], object], str | None], Fork]


@dataclass(slots=True)
class _Recording:
    """A call that is being recorded, or about to be. ``over``: it has ended, or nothing more is to be recorded."""

    control_id: str
    over: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)  # a webhook came
    events: list[dict[str, Any]] = field(default_factory=list)  # of its fork, for leg.json
    silent: list[dict[str, Any]] = field(default_factory=list)  # when nothing came of it, for leg.json
    failed: ForkEvent | None = None  # a fork that did not begin, not told of yet
    call_leg_id: uuid.UUID | None = None
    error: str | None = None
    own: bool = False  # it was this service's before, or may be
    refused: Refused = field(default_factory=Refused)
    heard: bool = False  # its media came
    doubt: asyncio.Event = field(default_factory=asyncio.Event)  # nothing comes of it: it may be another's
    untold: list[ForkEvent] = field(default_factory=list)  # not told of before that is known
    again: bool = False  # the API took fork_start, and did nothing
    task: asyncio.Task[None] | None = None


class CallRecorder:
    """``on_event`` is the handler of webhooks. ``outcomes`` counts what calls came to: "recorded", all files are there;
    "no_file", media came and some of it has none; "failed", the API refused or did not answer as long as the call
    lived; "no_media"; "owned_elsewhere", another service that hears the same webhooks has it; "missed", over before it
    could be forked; "unannounced", media of no call.

    open_fork: makes the fork of a call to ``receiver``, which tells its events to the function, and sends its first
    fork_start with that command_id. owners: knows whose a call is. answer: answers a call, by its call_control_id;
    None: somebody else does.
    tell: hears of calls as dicts (``--json``). since_ns: unfinished files that are older are a dead process's, and
    completed; None: nobody looks for them.
    """

    def __init__(
        self,
        receiver: Receiver,
        streams: LegStreams,
        book: CallBook,
        directory: Path,
        open_fork: OpenFork,
        *,
        owners: CallOwners | None = None,
        answer: Callable[[str], Awaitable[object]] | None = None,
        tell: Callable[[dict[str, Any]], object] = lambda event: None,
        since_ns: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receiver = receiver
        self._streams = streams
        self._book = book
        self._directory = directory
        self._open_fork = open_fork
        self._owners = owners or CallOwners()
        self._own: frozenset[str | None] = frozenset()  # calls that were being recorded here before
        self._answer = answer
        self._answering: dict[str, asyncio.Task[None]] = {}
        self._tell = tell
        self._clock = clock
        self._recordings: dict[str, _Recording] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()  # calls that were recorded or tried
        self._told: OrderedDict[str, None] = OrderedDict()  # calls whose trouble was logged
        self._left_alone: OrderedDict[str, None] = OrderedDict()  # calls whose forks are others' business
        self._stopping = False
        self._began_ns = time.time_ns()
        self.outcomes: Counter[str] = Counter(
            recorded=0, no_file=0, failed=0, no_media=0, owned_elsewhere=0, missed=0, unannounced=0
        )
        self._legs: deque[dict[str, Any]] = deque(maxlen=_LEGS_IN_SUMMARY)
        self._writer = LegWriter(directory, receiver, streams, self._leg_written, on_done=self._leg_done, clock=clock)
        streams.on_silent = self._silent
        self._journal = Journal(directory)
        self._since_ns = since_ns
        self._recovery: Recovery | None = None
        self._striking: set[asyncio.Task[None]] = set()
        self._held: dict[uuid.UUID, _Recording] = {}  # by call_leg_id
        self._writing: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin; also with the calls that were being recorded here before, if they live."""
        loop = asyncio.get_running_loop()
        self._writing = loop.create_task(self._writer.run())
        events = await asyncio.to_thread(self._journal.read)
        for event in events:
            if isinstance(event, ForkStopped) and event.call_control_id is not None:
                _remember(self._left_alone, event.call_control_id)
        self._own = frozenset(event.call_control_id for event in events)
        for event in events:
            self.on_event(event)
        if self._since_ns is not None:
            legs = {event.call_leg_id for event in events if event.call_leg_id is not None}
            calls = {leg: self._describe(leg, None) for leg in legs}
            self._recovery = Recovery(
                self._directory, self._since_ns, calls,
                lambda path, found: loop.call_soon_threadsafe(self._leg_written, path, found),
            )  # fmt: skip
            self._recovery.start()

    async def stop(self, timeout_s: float) -> None:
        """Stop all forks, and wait for them for at most ``timeout_s``. Tasks that are left then are cancelled, which
        stops their forks too."""
        self._stopping = True
        answering = list(self._answering.values())
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        for recording in self._recordings.values():
            recording.over.set()
        tasks = [recording.task for recording in self._recordings.values() if recording.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            if late:
                log.warning("%d forks were not stopped in %g s and are given up", len(late), timeout_s)
                await asyncio.wait(late, timeout=1.0)

    async def finish(self) -> None:
        """After the receiver has stopped: tell of all legs that are left, and write the summary."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await asyncio.gather(*self._striking, return_exceptions=True)
        if self._recovery is not None:
            await asyncio.to_thread(self._recovery.stop, 1.0)
        await self._writer.look(last=True)

    @property
    def active(self) -> int:
        """Calls that are being recorded, or about to be."""
        return len(self._recordings)

    # --- webhooks -----------------------------------------------------------------------------------------------------

    def on_event(self, event: WebhookEvent) -> None:
        """A webhook has come."""
        state = self._book.take(event, self._clock())
        if state is None or state.call_control_id is None:
            return
        control_id = state.call_control_id
        if self._answer is not None and isinstance(event, CallInitiated) and not self._stopping:
            self._pick_up(state, self._answer)
        recording = self._recordings.get(control_id)
        if recording is not None:
            recording.news.set()
            if state.ended:
                recording.over.set()
            return
        if control_id in self._left_alone:
            if state.ended:
                self._forget(control_id)
            return
        # what our own forks cause begins no new one
        if isinstance(event, ForkStarted | ForkStopped) and control_id in self._seen:
            return
        if not self._stopping and self._book.wants(state):
            recording = self._recordings[control_id] = _Recording(control_id)
            recording.task = asyncio.get_running_loop().create_task(self._run(recording))

    def _pick_up(self, state: CallState, answer: Callable[[str], Awaitable[object]]) -> None:
        """Answer a call that comes in, once."""
        control_id = str(state.call_control_id)
        if state.direction != "incoming" or state.answered or state.ended or control_id in self._answering:
            return

        async def run() -> None:
            try:
                await answer(control_id)
            except StrepError as error:
                if not self._state_of(control_id).ended:
                    log.warning("call %s is not answered: %s", shown(control_id), error)
            finally:
                del self._answering[control_id]

        self._answering[control_id] = asyncio.get_running_loop().create_task(run())

    async def _run(self, recording: _Recording) -> None:
        control_id = recording.control_id
        outcome = "failed"
        try:
            outcome = await self._record(recording)
        except StrepError as error:
            if self._state(recording).ended:
                outcome = "missed"
            else:
                self._trouble(recording, str(error))
        except Exception as error:
            self._trouble(recording, f"{type(error).__name__}: {error}", exc_info=True)
        finally:
            if outcome == "missed" and control_id in self._seen:
                outcome = ""  # a late webhook of a call that was recorded or tried already, and counted then
            _remember(self._seen, control_id)
            self._over(recording, outcome)
            del self._recordings[control_id]
            if control_id not in self._left_alone and (not self._stopping or self._state(recording).ended):
                await asyncio.to_thread(self._journal.strike, control_id)

    async def _record(self, recording: _Recording) -> str:
        """Hold the call's fork until the call ends; returns what it came to."""
        began_s, pause_s = self._clock(), 1.0
        while True:
            state = self._state(recording)
            if not self._book.is_sure_of_leg(state):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_WAIT_FOR_LEG_A_S):
                        await recording.over.wait()
                state = self._state(recording)
            if recording.over.is_set():
                return "missed" if recording.error is None else "failed"
            if not self._book.wants_leg(state):
                return ""
            recording.news.clear()
            try:
                return await self._hold(recording, state)
            except CallEndedError:
                recording.failed = None  # it was over first: nothing is wrong
                return "missed" if recording.error is None else "failed"
            except (StrepError, OSError) as error:
                self._tell_failed(recording, error)
                _learn(recording, error)
                if recording.over.is_set() and not self._state(recording).ended:
                    return ""  # the recorder is stopping: the next process takes the call up
                if self._clock() - began_s > patience_s(error):
                    raise
                self._trouble_passes(recording, error)
            pause_s = min(2 * pause_s, 30.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await recording.news.wait()

    async def _hold(self, recording: _Recording, state: CallState) -> str:
        own = recording.own or recording.control_id in self._own
        if await self._owners.taken(state, recording.refused, own=own):
            await self._leave_to_other(recording, "another service has forked it already")
            return _ELSEWHERE
        await asyncio.to_thread(self._journal.note, state)
        if recording.over.is_set():
            return "missed"
        command_id = None if own else self._owners.command_id(state, recording.refused)
        fork = self._open_fork(state, lambda event: self._hear(recording, event), command_id)
        tasks = [asyncio.create_task(each(recording, fork)) for each in (_leave, self._doubt)]
        try:
            async with fork:
                await fork.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not fork.state.call_ended:
                self._tell_untold(recording)
        recording.error = None
        if recording.again:
            recording.again = False
            return await self._hold(recording, state)
        elsewhere = fork.state.kept
        if not elsewhere and command_id is not None and not recording.heard and not self._stopping:
            found = await self._owners.ask(fork.call_leg_id)
            elsewhere = found is not None and found.goes_elsewhere(fork.addresses.values())
        if elsewhere:
            await self._leave_to_other(recording, "its fork goes to another service")
            return "recorded" if recording.heard else _ELSEWHERE
        if fork.state.stopped_elsewhere:
            await self._leave_alone(recording.control_id)
        return "recorded"

    async def _doubt(self, recording: _Recording, fork: Fork) -> None:
        """Each time that nothing comes of a fork: let go of it if it is another's, or the call over."""
        while True:
            await recording.doubt.wait()
            recording.doubt.clear()
            found = await self._owners.ask(fork.call_leg_id)
            if found is not None and found.goes_elsewhere(fork.addresses.values()):
                recording.untold.clear()
                await asyncio.shield(fork.abandon("it goes to another service"))
                return
            if found is not None and (hangup := found.hangup_of(self._state(recording))) is not None:
                fork.call_ended("hang-up, which the API's log tells")
                self.on_event(hangup)
                return
            self._tell_untold(recording)
            if found is not None and not found.on and recording.refused.early and not recording.heard:
                recording.own = recording.again = True  # it took the command for the one that it had refused
                await asyncio.shield(fork.abandon("the API took fork_start, and forks nothing"))
                return

    def _tell_untold(self, recording: _Recording) -> None:
        events, recording.untold = recording.untold, []
        for event in events:
            self._note(recording, event)

    async def _leave_to_other(self, recording: _Recording, why: str) -> None:
        """Another service has this call: it is left alone until it has ended, also by the next process."""
        _remember(self._left_alone, recording.control_id)
        if recording.heard:  # what came before stands in its file
            recording.error = f"the rest of it is not recorded here: {why}"
        log.info("call %s is left alone: %s", shown(recording.control_id), why)
        self._tell({"event": "call_elsewhere", **ids(self._state(recording)), "text": why})
        await asyncio.to_thread(self._journal.strike, recording.control_id)

    async def _leave_alone(self, control_id: str) -> None:
        """Somebody else has stopped the fork: it stays so, also for the next process, until the call has ended."""
        state = self._state_of(control_id)
        if not state.ended:
            log.info("call %s: its fork was stopped, and not from here: it stays so", shown(control_id))
            _remember(self._left_alone, control_id)
            await asyncio.to_thread(self._journal.note, state, stopped=True)

    def _forget(self, control_id: str) -> None:
        """A call that was left alone has ended."""
        self._left_alone.pop(control_id, None)
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(self._journal.strike, control_id))
        self._striking.add(task)
        task.add_done_callback(self._striking.discard)

    def _hear(self, recording: _Recording, event: ForkEvent) -> None:
        """What the fork tells: kept for the leg's file, as far as it fits there, and told on."""
        if event.call_leg_id is not None:
            recording.call_leg_id = event.call_leg_id
            self._held[event.call_leg_id] = recording
        if event.kind == "fork_failed":
            recording.failed = event  # why it did decides whether that is anything to be told
            return
        recording.heard |= event.kind == "fork_media"
        if event.kind in ("no_media", "fork_stalled"):
            recording.untold.append(event)
            recording.doubt.set()
            return
        if event.kind not in _ENDS:
            self._tell_untold(recording)
        self._note(recording, event)

    def _tell_failed(self, recording: _Recording, error: Exception) -> None:
        """A fork did not begin. That a call still rings, or has ended, is how calls are."""
        event, recording.failed = recording.failed, None
        if event is not None and not is_not_answered(error) and not self._state(recording).ended:
            self._note(recording, event)

    def _note(self, recording: _Recording, event: ForkEvent) -> None:
        if "silent_s" in event.data and len(recording.silent) < _SILENCES_PER_CALL:
            recording.silent.append({"from": event.data["silent_since"], "seconds": event.data["silent_s"]})
        if len(recording.events) < _FORK_EVENTS_PER_CALL:
            told = {"event": event.kind, "time": utc_text(event.time_ns), "text": event.text, **event.data}
            recording.events.append(told)
        if event.kind in _WARNINGS:
            log.warning("call %s: %s", shown(recording.control_id), event.data.get("text", event.text))
        self._tell(event.as_dict())

    def _state(self, recording: _Recording) -> CallState:
        return self._state_of(recording.control_id)

    def _state_of(self, control_id: str) -> CallState:
        return self._book.get(control_id) or CallState()

    def _trouble(self, recording: _Recording, text: str, *, exc_info: bool = False) -> None:
        """Log it, once for each call."""
        recording.error = text
        if recording.control_id not in self._told:
            _remember(self._told, recording.control_id)
            log.warning("call %s is not recorded: %s", shown(recording.control_id), text, exc_info=exc_info)
        self._tell({"event": "call_failed", **ids(self._state(recording)), "error": text})

    def _trouble_passes(self, recording: _Recording, error: Exception) -> None:
        """What is in the way may not stay: the call is tried again. Logged once for each call."""
        if is_not_answered(error):
            return  # it still rings: the next webhook may say that it was answered, but may be lost too
        if recording.error is None:
            log.warning("call %s is not recorded yet, and tried again: %s", shown(recording.control_id), error)
        recording.error = str(error)

    # --- legs ---------------------------------------------------------------------------------------------------------

    def _over(self, recording: _Recording, outcome: str) -> None:
        leg = recording.call_leg_id or self._state(recording).call_leg_id
        if leg is not None:
            self._held.pop(leg, None)
        if leg is not None and (self._streams.ended(leg) or self._streams.live(leg)):
            calls = int(outcome == "recorded")
            self._writer.over(leg, lambda: self._describe(leg, recording), calls=calls)
            outcome = "" if calls else outcome  # it is counted when its files are there
        elif outcome == "recorded":
            outcome = "no_media"
            if leg is not None:
                self._writer.over(leg, lambda: self._describe(leg, recording))
        if outcome:
            self.outcomes[outcome] += 1

    def _leg_done(self, entries: list[dict[str, Any]], calls: int) -> str | None:
        """All sinks are done with a leg; returns what is wrong with its files."""
        without = [entry["direction"] for entry in entries if not entry["files"] and heard_s(entry) > _NEEDS_NO_FILE_S]
        self.outcomes["no_file" if without else "recorded"] += calls
        if not without:
            return None
        return f"no file could be made of {' and '.join(sorted(set(without)))}: the summary's sinks say why"

    def _silent(self, call_leg_id: uuid.UUID) -> None:
        """A leg has no streams any more: write its file, unless its call is held, which does so when it ends."""
        state = self._book.by_leg(call_leg_id)
        if self._writer.has(call_leg_id) or call_leg_id in self._held:
            return
        if state is None or state.call_control_id not in self._recordings:
            if state is None:
                self.outcomes["unannounced"] += 1
            self._writer.over(call_leg_id, lambda: self._describe(call_leg_id, None))

    def _describe(self, call_leg_id: uuid.UUID, recording: _Recording | None) -> dict[str, Any]:
        """What is known of a leg's call, for its ``leg.json``."""
        state = self._book.by_leg(call_leg_id) or CallState()
        if recording is not None:
            state = self._state(recording)
        return {
            "call_leg_id": str(call_leg_id),
            **told_of(state, self._book.leg_of(state)),
            "error": None if recording is None else recording.error,
            "silent": [] if recording is None else recording.silent,
            "fork_events": [] if recording is None else recording.events,
        }

    def _leg_written(self, path: Path, found: dict[str, Any]) -> None:
        entry = leg_entry(path.relative_to(self._directory).as_posix(), found)
        self._legs.append(entry)
        self._tell({"event": "leg", **entry})

    # --- figures ------------------------------------------------------------------------------------------------------

    def summary(self, **more: Mapping[str, Any]) -> dict[str, Any]:
        """What ``summary.json`` holds: no more with every call."""
        return {
            "schema": 1,
            "began": utc_text(self._began_ns),
            "written": utc_text(time.time_ns()),
            "totals": self._receiver.totals().as_dict(),
            "calls": {"active": self.active, "finishing": self._writer.waiting, **self.outcomes},
            **more,
            "recovered": None if self._recovery is None else self._recovery.figures(),
            "leg_files_failed": self._writer.failed,
            "sinks": self._receiver.sink_reports(),
            "legs": list(self._legs),
        }

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Raises OSError."""
        write_summary(self._directory, summary)


async def _leave(recording: _Recording, fork: Fork) -> None:
    """Stop the fork when nothing more is to be recorded, also while it is being started."""
    await recording.over.wait()
    await fork.stop()


def _learn(recording: _Recording, error: Exception) -> None:
    """What a fork that did not begin tells of the next try."""
    if isinstance(error, APIConnectionError) or (isinstance(error, APIStatusError) and error.status_code >= 500):
        recording.own = True  # it may have had its effect
    elif is_not_answered(error):
        recording.refused.early += 1
    elif isinstance(error, APIStatusError):
        recording.refused.other += 1


def _remember(known: OrderedDict[str, None], key: str) -> None:
    known[key] = None
    while len(known) > _CALLS_REMEMBERED:
        known.popitem(last=False)
