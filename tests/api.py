"""What tests of call control need: an API on loopback that misbehaves on demand, virtual time, both clients alike."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import httpx

from strep.control import CallControl, RetryPolicy, SyncCallControl

__all__ = ["CALL", "KEY", "ApiServer", "Reply", "Time", "errors_body", "run", "serving"]

CALL = "v2:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ"
KEY = "KEY0189ABCDEF_canary"
FAST = RetryPolicy(timeout_s=5.0)
CONTEXT = ssl.create_default_context()  # once: reading the certificates takes longer than a test


@dataclass
class Reply:
    """What becomes of one request. ``effect``: whether its command is carried out before it goes wrong."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    how: Literal["answer", "reset", "hang", "half", "garbage"] = "answer"
    effect: bool = True


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any] | None


class ApiServer(ThreadingHTTPServer):
    """Follows ``script``, a Reply per request, then says ok; carries a command_id out once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[Reply] = []
        self.seen: list[Seen] = []
        self.effects: Counter[str] = Counter()
        self.over = threading.Event()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v2"

    def next_reply(self, seen: Seen) -> Reply:
        with self._lock:
            self.seen.append(seen)
            reply = self.script.pop(0) if self.script else Reply()
            command_id = (seen.body or {}).get("command_id")
            done = reply.how != "answer" or reply.status < 300
            if command_id and reply.effect and done and not self.effects[command_id]:
                self.effects[command_id] += 1
            return reply

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone away is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ApiServer

    def _handle(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.next_reply(Seen(self.command, self.path, headers, body))
        if reply.how == "hang":
            self.server.over.wait()
        if reply.how in ("hang", "reset"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if reply.how == "garbage":
            self.wfile.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            self.close_connection = True
            return
        data = b'{"data": {"result": "ok"}}' if reply.body is None else reply.body
        self.send_response_only(reply.status)
        for name, value in {"content-type": "application/json", "x-request-id": "req-1", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data) + (1000 if reply.how == "half" else 0)))
        self.end_headers()
        self.wfile.write(data)
        if reply.how == "half":
            self.close_connection = True

    do_GET = do_POST = _handle  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Quietly."""


@contextlib.contextmanager
def serving() -> Iterator[ApiServer]:
    with ApiServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self, random: float = 0.5) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._random = random

    def arguments(self, *, asynchronous: bool) -> dict[str, Any]:
        sleep: Callable[[float], object] | Callable[[float], Awaitable[None]] = self.sleep
        if asynchronous:

            async def pause(seconds: float) -> None:
                self.sleep(seconds)

            sleep = pause
        return {
            "clock": lambda: self.now,
            "wall": lambda: 1.7e9 + self.now,
            "sleep": sleep,
            "random": lambda: self._random,
        }

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def run(kind: str, operation: str, *arguments: Any, time: Time | None = None, **keywords: Any) -> Any:
    """A command by the client of this kind ("async" or "sync"); ``client_options`` are the client's own arguments."""
    options = {"policy": FAST, **keywords.pop("client_options", {})}
    clock = (time or Time()).arguments(asynchronous=kind == "async")
    if kind == "sync":
        with httpx.Client(verify=CONTEXT) as client:
            control = SyncCallControl(KEY, client=client, **options, **clock)
            return getattr(control, operation)(*arguments, **keywords)

    async def main() -> Any:
        async with httpx.AsyncClient(verify=CONTEXT) as client:
            control = CallControl(KEY, client=client, **options, **clock)
            return await getattr(control, operation)(*arguments, **keywords)

    return asyncio.run(main())


def errors_body(*codes: str, **more: Any) -> bytes:
    return json.dumps({"errors": [{"code": code, "title": f"title {code}", **more} for code in codes]}).encode()
