"""The HTTP edge of the stand-in: an ASGI app with the paths of the contract."""

from __future__ import annotations

import asyncio
import hmac
import json
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from ._answers import Answer, Problem, Refusal, not_found
from ._audio_requests import parse_playback_start, parse_playback_stop, parse_speak
from ._call import Effect
from ._calls import Calls
from ._faults import Fault, Misfortune
from ._requests import parse_command, parse_dial, parse_fork_start, parse_page

__all__ = ["App"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_BASE_PATH: Final = "/v2"
_LARGEST_BODY_BYTES: Final = 1 << 20


class App:
    """``perform`` carries out effects; ``clock`` gives ns, UTC; ``closing`` lets go of requests that hang."""

    def __init__(
        self,
        calls: Calls,
        *,
        api_key: str,
        clock: Callable[[], int],
        perform: Callable[[list[Effect]], None],
        misfortune: Misfortune,
        closing: asyncio.Event,
    ) -> None:
        self._calls = calls
        self._token = f"Bearer {api_key}".encode()
        self._clock = clock
        self._perform = perform
        self._misfortune = misfortune
        self._closing = closing
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.requests += 1
        try:
            body = await _read(receive)
        except _ClientGoneError:
            return
        faults = self._misfortune.faults
        if faults.latency_ms:
            await asyncio.sleep(faults.latency_ms / 1000)
        fault = None
        try:
            self._authenticate(scope)
            fault = self._misfortune.draw()
            retry = {"retry-after": f"{faults.retry_after_s:g}"}
            if fault is Fault.TOO_MANY:
                raise Refusal(429, Problem("10011", "Too many requests", "Try again later."), headers=retry)
            if fault is Fault.UNAVAILABLE:
                detail = "The service is not available."
                raise Refusal(503, Problem("10007", "Unexpected error", detail), headers=retry)
            answer = self._route(scope, body)
            if fault is Fault.LOST:
                raise Refusal(500, Problem("10007", "Unexpected error", "An unexpected error occurred."))
        except Refusal as refusal:
            answer = refusal.answer
        if fault is Fault.HANG:
            await self._hang(receive)
        await _send(answer, send, cut=fault in (Fault.CUT, Fault.HANG))

    def _authenticate(self, scope: Scope) -> None:
        given = next((value for name, value in scope["headers"] if name.lower() == b"authorization"), b"")
        if not hmac.compare_digest(given, self._token):
            detail = "The required authentication headers were either invalid or not included in the request."
            raise Refusal(401, Problem("10009", "Authentication failed", detail))

    def _route(self, scope: Scope, body: bytes | None) -> Answer:
        now_ns = self._clock()
        self._perform(self._calls.advance(now_ns))
        # as it came: a %2F in a call_control_id is no separator
        raw = scope.get("raw_path") or scope["path"].encode()
        path = raw.decode("latin-1").partition("?")[0]
        if not path.startswith(_BASE_PATH + "/"):
            raise not_found("The requested URL")
        parts = [unquote(part) for part in path[len(_BASE_PATH) + 1 :].split("/")]
        calls, method = self._calls, scope["method"]
        match method, parts:
            case "GET", ["call_events"]:
                query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
                return calls.events(parse_page(query))
            case "GET", ["calls", call_control_id]:
                return calls.retrieve(call_control_id, now_ns)
            case "POST", ["calls"]:
                answer, effects = calls.dial(parse_dial(_json(body)), now_ns)
            case "POST", ["calls", call_control_id, "actions", "fork_start"]:
                answer, effects = calls.fork_start(call_control_id, parse_fork_start(_json(body)), now_ns)
            case "POST", ["calls", call_control_id, "actions", "fork_stop"]:
                answer, effects = calls.fork_stop(call_control_id, parse_command(_json(body)), now_ns)
            case "POST", ["calls", call_control_id, "actions", "answer"]:
                answer, effects = calls.answer(call_control_id, parse_command(_json(body)), now_ns)
            case "POST", ["calls", call_control_id, "actions", "hangup"]:
                answer, effects = calls.hangup(call_control_id, parse_command(_json(body)), now_ns)
            case "POST", ["calls", call_control_id, "actions", "speak"]:
                answer, effects = calls.play(call_control_id, "speak", parse_speak(_json(body)), now_ns)
            case "POST", ["calls", call_control_id, "actions", "playback_start"]:
                play = parse_playback_start(_json(body))
                answer, effects = calls.play(call_control_id, "playback_start", play, now_ns)
            case "POST", ["calls", call_control_id, "actions", "playback_stop"]:
                answer, effects = calls.playback_stop(call_control_id, parse_playback_stop(_json(body)), now_ns)
            case _:
                raise not_found("The requested URL")
        self._perform(effects)
        return answer

    async def _hang(self, receive: Receive) -> None:
        """Until the client has had enough, or the server ends."""
        waiting = asyncio.ensure_future(receive()), asyncio.ensure_future(self._closing.wait())
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


class _ClientGoneError(Exception):
    """The client went before its request was whole: nothing is done, for what it asked for is not known."""


async def _read(receive: Receive) -> bytes | None:
    """The body; None for one that is too long. Raises _ClientGoneError."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size <= _LARGEST_BODY_BYTES:
            parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts) if size <= _LARGEST_BODY_BYTES else None


def _json(body: bytes | None) -> Any:
    if body is None:
        raise Refusal(413, Problem("10015", "Bad Request", f"The body is longer than {_LARGEST_BODY_BYTES} bytes."))
    if not body.strip():
        return {}
    try:
        return json.loads(body)
    except ValueError:
        detail = "The request failed because it was not well-formed: the body is no JSON."
        raise Refusal(400, Problem("10015", "Bad Request", detail)) from None


async def _send(answer: Answer, send: Send, *, cut: bool) -> None:
    body = json.dumps(answer.body).encode()
    headers = {
        "content-type": "application/json; charset=utf-8",
        "content-length": str(len(body)),
        "x-request-id": str(uuid.uuid4()),
        **answer.headers,
    }
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    if cut:  # the server ends the connection of an answer that is not whole
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        return
    await send({"type": "http.response.body", "body": body})
