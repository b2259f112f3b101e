"""Webhooks in, recordings out: forks the calls that are wanted to this receiver, and reports what became of each.

A call has one task, which holds its fork until the call ends; nothing that goes wrong in it reaches another call. The
handler of webhooks only writes the call book and starts or wakes these tasks, so it never waits for the API.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from .._model.exceptions import StrepError
from .._model.report import utc_text
from .._receiver.receiver import Receiver
from .._receiver.summary import write_summary
from ..control.calls import CallState
from ..control.events import CallInitiated, ForkStarted, ForkStopped, WebhookEvent
from ._book import CallBook
from ._journal import Journal
from ._leg_outcomes import LegOutcomes
from ._legs import LegStreams
from ._owner import CallOwners
from ._recording import CallDesk, OpenFork, Recording
from ._recovery import Recovery
from ._telling import shown

__all__ = ["CallRecorder", "OpenFork"]

log = logging.getLogger("strep.service")


class CallRecorder:
    """``on_event`` is the handler of webhooks. ``outcomes`` counts what calls came to: "recorded", all files are there;
    "no_file", media came and some of it has none; "failed", the API refused or did not answer as long as the call
    lived; "no_media"; "owned_elsewhere", another service that hears the same webhooks has it; "missed", over before it
    could be forked; "unannounced", media of no call.

    open_fork: makes the fork of a call to ``receiver``, which tells its events to the function, and sends its first
    fork_start with that command_id. owners: knows whose a call is. answer: answers a call, by its call_control_id;
    None: somebody else does.
    tell: hears of calls as dicts (``--json``). since_ns: unfinished files that are older are a dead process's, and
    completed; None: nobody looks for them. keep: hears what is known of legs, and the paths of their files, for the
    catalogue.
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
        keep: Callable[[dict[str, Any], str | None], object] = lambda found, file: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receiver = receiver
        self._directory = directory
        self._desk = CallDesk(
            book,
            Journal(directory),
            owners or CallOwners(),
            open_fork,
            tell,
            on_event=self.on_event,
            clock=clock,
            keep=keep,
        )
        self._answer = answer
        self._answering: dict[str, asyncio.Task[None]] = {}
        self._recordings: dict[str, Recording] = {}  # by call_control_id
        self._legs = LegOutcomes(directory, receiver, streams, self._desk, self._recordings.__contains__)
        self._began_ns = time.time_ns()
        self._since_ns = since_ns
        self._recovery: Recovery | None = None
        self._striking: set[asyncio.Task[None]] = set()
        self._writing: asyncio.Task[None] | None = None

    @property
    def outcomes(self) -> Counter[str]:
        """What calls came to."""
        return self._legs.counts

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin; also with the calls that were being recorded here before, if they live."""
        loop = asyncio.get_running_loop()
        self._writing = loop.create_task(self._legs.writer.run())
        events = await asyncio.to_thread(self._desk.journal.read)
        for event in events:
            if isinstance(event, ForkStopped) and event.call_control_id is not None:
                self._desk.memory.left_alone.add(event.call_control_id)
        self._desk.before = frozenset(event.call_control_id for event in events)
        for event in events:
            self.on_event(event)
        if self._since_ns is not None:
            legs = {event.call_leg_id for event in events if event.call_leg_id is not None}
            calls = {leg: self._legs.describe(leg, None) for leg in legs}
            self._recovery = Recovery(
                self._directory, self._since_ns, calls,
                lambda path, found: loop.call_soon_threadsafe(self._legs.recovered, path, found),
            )  # fmt: skip
            self._recovery.start()

    async def stop(self, timeout_s: float) -> None:
        """Stop all forks, and wait for them for at most ``timeout_s``. Tasks that are left then are cancelled, which
        stops their forks too."""
        self._desk.stopping = True
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
        await self._legs.writer.look(last=True)

    @property
    def active(self) -> int:
        """Calls that are being recorded, or about to be."""
        return len(self._recordings)

    # --- webhooks -----------------------------------------------------------------------------------------------------

    def on_event(self, event: WebhookEvent) -> None:
        """A webhook has come."""
        desk = self._desk
        state = desk.book.take(event, desk.clock())
        if state is None or state.call_control_id is None:
            return
        control_id = state.call_control_id
        if self._answer is not None and isinstance(event, CallInitiated) and not desk.stopping:
            self._pick_up(state, self._answer)
        recording = self._recordings.get(control_id)
        if recording is not None:
            recording.news.set()
            if state.ended:
                recording.over.set()
            return
        if control_id in desk.memory.left_alone:
            if state.ended:
                self._forget(control_id)
            return
        # what our own forks cause begins no new one
        if isinstance(event, ForkStarted | ForkStopped) and control_id in desk.memory.seen:
            return
        if not desk.stopping and desk.book.wants(state):
            recording = self._recordings[control_id] = Recording(control_id, desk)
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
                if not (self._desk.book.get(control_id) or CallState()).ended:
                    log.warning("call %s is not answered: %s", shown(control_id), error)
            finally:
                del self._answering[control_id]

        self._answering[control_id] = asyncio.get_running_loop().create_task(run())

    async def _run(self, recording: Recording) -> None:
        control_id, memory = recording.control_id, self._desk.memory
        outcome = "failed"
        try:
            outcome = await recording.run()
        finally:
            if outcome == "missed" and control_id in memory.seen:
                outcome = ""  # a late webhook of a call that was recorded or tried already, and counted then
            memory.seen.add(control_id)
            self._legs.over(recording, outcome)
            del self._recordings[control_id]
            if control_id not in memory.left_alone and (not self._desk.stopping or recording.state.ended):
                await asyncio.to_thread(self._desk.journal.strike, control_id)

    def _forget(self, control_id: str) -> None:
        """A call that was left alone has ended."""
        self._desk.memory.left_alone.discard(control_id)
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(self._desk.journal.strike, control_id))
        self._striking.add(task)
        task.add_done_callback(self._striking.discard)

    # --- figures ------------------------------------------------------------------------------------------------------

    def summary(self, **more: Mapping[str, Any]) -> dict[str, Any]:
        """What ``summary.json`` holds: no more with every call."""
        return {
            "schema": 1,
            "began": utc_text(self._began_ns),
            "written": utc_text(time.time_ns()),
            "totals": self._receiver.totals().as_dict(),
            "calls": {"active": self.active, "finishing": self._legs.writer.waiting, **self.outcomes},
            **more,
            "recovered": None if self._recovery is None else self._recovery.figures(),
            "leg_files_failed": self._legs.writer.failed,
            "sinks": self._receiver.sink_reports(),
            "legs": list(self._legs.legs),
        }

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Raises OSError."""
        write_summary(self._directory, summary)
