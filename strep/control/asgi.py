"""A plain ASGI application that takes webhooks.

Mount it in FastAPI or Starlette (``app.mount("/webhooks", webhook_app(key, on_event))``) or run it with uvicorn. It
needs no framework. Telnyx sends again what is not answered with 2xx soon. So an event is answered as soon as it is
verified and queued; its handler may take its time. Requests that are refused are counted; the log has one line for each
cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from .._model.exceptions import ConfigurationError
from ._errors import ForgedWebhookError, MalformedWebhookError, StaleWebhookError, WebhookError
from .webhooks import TOLERANCE_S, PublicKey, ReplayMemory, WebhookEvent, signature_of, verify_and_parse

__all__ = ["WebhookApp", "WebhookCounts", "webhook_app"]

log = logging.getLogger("strep.control")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[WebhookEvent], Awaitable[object] | object]

_CLOCK_WAS_SET_S: Final = 5.0  # between two webhooks; slewing is slower
_DOUBT_S: Final = 600.0  # how long after a step either clock is believed

_STATUS: Final[dict[type[WebhookError], int]] = {
    ForgedWebhookError: 403,
    StaleWebhookError: 403,
    MalformedWebhookError: 400,
}
_CAUSE: Final[dict[type[WebhookError], str]] = {
    ForgedWebhookError: "forged",
    StaleWebhookError: "stale",
    MalformedWebhookError: "malformed",
}


@dataclass
class WebhookCounts:
    """What became of every request: ``accepted`` were queued, ``failed`` of them raised in the handler."""

    accepted: int = 0
    duplicate: int = 0
    forged: int = 0
    stale: int = 0
    malformed: int = 0
    too_large: int = 0
    too_slow: int = 0
    wrong_method: int = 0
    wrong_path: int = 0
    disconnected: int = 0
    overloaded: int = 0
    failed: int = 0


def webhook_app(
    public_key: str | bytes | PublicKey,
    on_event: Handler,
    *,
    path: str | None = None,
    max_body: int = 256 << 10,
    body_timeout_s: float = 10.0,
    max_waiting: int = 10_000,
    concurrency: int = 100,
    tolerance_s: float = TOLERANCE_S,
    memory: ReplayMemory | None = None,
    now: Callable[[], float] = time.time,
    steady: Callable[[], float] = time.monotonic,
) -> WebhookApp:
    """An ASGI application that hands verified, new events to ``on_event``.

    on_event: called with a WebhookEvent; may be async. Those of one call_leg_id are handled one after the other as they
    came, those of different ones side by side, ``concurrency`` at most. What it raises is logged. One that is not async
    runs in the loop and must not block.
    path: other paths are answered with 404 (None: any path is taken). max_body: bytes. body_timeout_s: for the whole of
    it. max_waiting: events that are not handled yet. memory: to share between applications. now: Unix seconds. steady:
    seconds of a clock that nobody sets. If ``now`` has been set, webhooks are judged by both clocks for ten minutes,
    because nobody knows which of them is right.

    Answers: 200 taken, now or before · 400 signed, but no event · 403 forged or stale · 404 another path · 405 not POST
    · 408 too slow · 413 too large · 503 too many are waiting, so that it comes again later.
    """
    key = public_key if isinstance(public_key, PublicKey) else PublicKey(public_key)
    if max_body < 1 or max_waiting < 1 or concurrency < 1 or body_timeout_s <= 0:
        raise ConfigurationError("max_body, max_waiting and concurrency must be 1 or more, body_timeout_s above 0")
    memory = ReplayMemory() if memory is None else memory
    return WebhookApp(
        key, on_event, path=path, max_body=max_body, body_timeout_s=body_timeout_s, max_waiting=max_waiting,
        concurrency=concurrency, tolerance_s=tolerance_s, memory=memory, clock=_Clock(now, steady),
    )  # fmt: skip


class _Clock:
    """The wall clock, and what it would say had nobody set it lately. Unix seconds."""

    def __init__(self, now: Callable[[], float], steady: Callable[[], float]) -> None:
        self._now, self._steady = now, steady
        self._ahead_s = now() - steady()
        self._set_s: float | None = None  # when it was seen that it had been set

    def times(self) -> tuple[float, ...]:
        """What time it may be, the likeliest first."""
        now, steady = self._now(), self._steady()
        if abs(now - steady - self._ahead_s) < _CLOCK_WAS_SET_S:
            self._ahead_s, self._set_s = now - steady, None  # it is slewed a little all the time
            return (now,)
        if self._set_s is None:
            self._set_s = steady
        if steady - self._set_s > _DOUBT_S:
            self._ahead_s, self._set_s = now - steady, None
            return (now,)
        return now, steady + self._ahead_s


class WebhookApp:
    """What :func:`webhook_app` makes. ``counts`` says what became of the requests; ``await drain()`` before the end."""

    def __init__(
        self,
        key: PublicKey,
        on_event: Handler,
        *,
        path: str | None,
        max_body: int,
        body_timeout_s: float,
        max_waiting: int,
        concurrency: int,
        tolerance_s: float,
        memory: ReplayMemory,
        clock: _Clock,
    ) -> None:
        self.counts = WebhookCounts()
        self._key = key
        self._on_event = on_event
        self._path = path
        self._max_body = max_body
        self._body_timeout_s = body_timeout_s
        self._max_waiting = max_waiting
        self._tolerance_s = tolerance_s
        self._memory = memory
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._queues: dict[object, deque[WebhookEvent]] = {}  # of each call that has events waiting
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: set[str] = set()

    @property
    def waiting(self) -> int:
        """Events that have been taken and not handled yet."""
        return self._waiting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            status, reason = await self._answer(scope, receive)
            if status:
                await _respond(send, status, reason)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def drain(self, timeout_s: float = 10.0) -> bool:
        """Wait until all that was taken is handled; after ``timeout_s`` the rest is cancelled. Whether all was."""
        if not self._tasks:
            return True
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            log.warning("%d webhook events were not handled in %g s and are given up", self._waiting, timeout_s)
            await asyncio.gather(*late, return_exceptions=True)
        return not late

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, str]:
        if self._path is not None and _path_of(scope) != self._path:
            self.counts.wrong_path += 1
            return 404, "webhooks are not taken here"
        if scope["method"] != "POST":
            self.counts.wrong_method += 1
            return 405, "webhooks are sent with POST"
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        try:
            async with asyncio.timeout(self._body_timeout_s):
                body = await self._body(headers, receive)
        except TimeoutError:
            self.counts.too_slow += 1
            return 408, f"no whole body in {self._body_timeout_s:g} s"
        except ValueError:
            self.counts.too_large += 1
            return 413, f"more than {self._max_body} bytes"
        if body is None:
            self.counts.disconnected += 1
            return 0, ""
        try:
            event = self._verified(body, headers)
            signature = signature_of(headers)
        except WebhookError as error:
            self._refused(error)
            return _STATUS[type(error)], str(error)
        return self._take(event, signature)

    def _verified(self, body: bytes, headers: list[tuple[bytes, bytes]]) -> WebhookEvent:
        """Raises WebhookError."""
        now, *others = self._clock.times()
        try:
            return verify_and_parse(body, headers, self._key, now, tolerance_s=self._tolerance_s)
        except StaleWebhookError:
            for other in others:
                with contextlib.suppress(StaleWebhookError):
                    return verify_and_parse(body, headers, self._key, other, tolerance_s=self._tolerance_s)
            raise

    async def _body(self, headers: list[tuple[bytes, bytes]], receive: Receive) -> bytes | None:
        """The whole body, None when the sender went away. Raises ValueError when it is too large."""
        for name, value in headers:
            if name.lower() == b"content-length" and value.isdigit() and int(value) > self._max_body:
                raise ValueError
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_body:
                raise ValueError
            if not message.get("more_body", False):
                return bytes(body)

    def _refused(self, error: WebhookError) -> None:
        cause = _CAUSE[type(error)]
        setattr(self.counts, cause, getattr(self.counts, cause) + 1)
        if cause not in self._told:  # once: whoever sends them could fill the log
            self._told.add(cause)
            log.warning("refused a %s webhook: %s (more are counted, not told)", cause, error)

    def _take(self, event: WebhookEvent, signature: bytes) -> tuple[int, str]:
        if self._memory.known(event, signature):
            self.counts.duplicate += 1
            return 200, "taken before"
        if self._waiting >= self._max_waiting:
            self.counts.overloaded += 1
            return 503, "too many events are waiting"
        self._memory.remember(event, signature)
        self.counts.accepted += 1
        self._waiting += 1
        key = event.call_leg_id or object()
        if key in self._queues:
            self._queues[key].append(event)
        else:
            self._queues[key] = deque([event])
            task = asyncio.get_running_loop().create_task(self._handle(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return 200, "taken"

    async def _handle(self, key: object) -> None:
        """A call's events, one after the other, until none waits."""
        queue = self._queues[key]
        try:
            while queue:
                async with self._slots:
                    await self._handle_one(queue[0])
                queue.popleft()
                self._waiting -= 1
        finally:
            self._waiting -= len(queue)
            del self._queues[key]

    async def _handle_one(self, event: WebhookEvent) -> None:
        try:
            outcome = self._on_event(event)
            if inspect.isawaitable(outcome):
                await outcome
        except Exception:
            self.counts.failed += 1
            log.exception("the handler of webhooks failed on %.100r %.100r", event.event_type, event.id)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.drain()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _path_of(scope: Scope) -> str:
    """The path below where the application is mounted: frameworks differ in whether ``path`` has the rest."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root) else path


async def _respond(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"ok": status == 200, "reason": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 405:
        headers.append((b"allow", b"POST"))
    if status == 503:
        headers.append((b"retry-after", b"5"))
    if status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
