"""A fork's commands to the API, and what the answers are to the state machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ._fork_words import AskFailed, CallEnded, CallLives, StartFailed, StartOk, StopDone
from ._outcomes import call_is_over, error_text, may_have_had_effect
from ._protocols import ForkApi, StreamType

__all__ = ["ForkCommands"]


class ForkCommands:
    """``start``, ``stop``, ``ask`` and ``cancel`` return at once; ``on_answer`` hears what the command came to. One
    command at a time: the state machine waits for the answer before it sends the next. ``ask`` is none, and may go
    beside one. ``error``: what the first start that failed raised. command_id: of the first
    start; the others have their own.
    """

    def __init__(
        self,
        api: ForkApi,
        call_control_id: str,
        *,
        stream_type: StreamType | None,
        client_state: bytes | str | None,
        command_id: str | None,
        on_answer: Callable[[StartOk | StartFailed | StopDone | CallLives | CallEnded | AskFailed], None],
    ) -> None:
        self.error: BaseException | None = None
        self._api = api
        self._call_control_id = call_control_id
        self._stream_type = stream_type
        self._client_state = client_state
        self._command_id = command_id
        self._on_answer = on_answer
        self._task: asyncio.Task[Any] | None = None
        self._asking: asyncio.Task[Any] | None = None

    def start(self, addresses: Mapping[str, str], *, forked: bool) -> None:
        """Send fork_start. addresses: its "target", or "rx" and "tx". forked: whether an earlier one has succeeded."""

        command_id, self._command_id = self._command_id, None

        async def send() -> None:
            await self._api.fork_start(
                self._call_control_id,
                target=addresses.get("target"),
                rx=addresses.get("rx"),
                tx=addresses.get("tx"),
                stream_type=self._stream_type,
                client_state=self._client_state,
                command_id=command_id,
            )

        self._send(send(), lambda task: self._started(task, forked))

    def stop(self) -> None:
        """Send fork_stop."""

        async def send() -> None:
            await self._api.fork_stop(
                self._call_control_id, stream_type=self._stream_type, client_state=self._client_state
            )

        self._send(send(), self._stopped)

    def ask(self) -> None:
        """Ask whether the call lives."""

        async def send() -> bool:
            return (await self._api.retrieve_call(self._call_control_id)).is_alive

        self._asking = asyncio.get_running_loop().create_task(send())
        self._asking.add_done_callback(self._asked)

    def close(self) -> None:
        """The fork is over: nobody wants to know any more whether the call lives."""
        if self._asking is not None:
            self._asking.cancel()

    def cancel(self) -> None:
        """Give up the command that is under way."""
        if self._task is not None:
            self._task.cancel()

    def _send(self, command: Coroutine[Any, Any, None], done: Callable[[asyncio.Task[Any]], None]) -> None:
        self._task = asyncio.get_running_loop().create_task(command)
        self._task.add_done_callback(done)

    def _started(self, task: asyncio.Task[Any], forked: bool) -> None:
        self._task = None
        if task.cancelled():
            self._on_answer(StartFailed("fork_start was given up", perhaps=True))
        elif (error := task.exception()) is None:
            self._on_answer(StartOk())
        else:
            self.error = self.error or error
            perhaps, ended = may_have_had_effect(error), call_is_over(error, forked)
            self._on_answer(StartFailed(error_text(error), perhaps=perhaps, call_ended=ended))

    def _stopped(self, task: asyncio.Task[Any]) -> None:
        self._task = None
        if task.cancelled():
            self._on_answer(StopDone("fork_stop was given up: no answer in time"))
        else:
            error = task.exception()
            self._on_answer(StopDone(None if error is None else error_text(error)))

    def _asked(self, task: asyncio.Task[bool]) -> None:
        self._asking = None
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or (error is not None and not call_is_over(error, forked=True)):
            self._on_answer(AskFailed())
        elif error is None and task.result():
            self._on_answer(CallLives())
        else:
            self._on_answer(CallEnded("the API says that the call has ended"))
