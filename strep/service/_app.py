"""What the service answers over HTTP: webhooks, ``/healthz``, ``/metrics``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Set
from typing import Any, Final

__all__ = ["ADMIN", "HEALTH", "METRICS", "Router", "answer", "told_by"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH: Final = "/healthz"
METRICS: Final = "/metrics"
ADMIN: Final = frozenset((HEALTH, METRICS))
# headers that proxies add: a request with one of them comes from outside
_FORWARDED: Final = frozenset((b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"))


class Router:
    """An ASGI application that hands requests to others, by path; 404 for the rest. ``apps``: by path, exact.
    ``inside``: paths that do not exist for requests that came through a proxy; proxies are to forward webhooks only.
    """

    def __init__(self, apps: dict[str, App], inside: Set[str] = frozenset()) -> None:
        self._apps = apps
        self._inside = inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        app = self._apps.get(path)
        if app is None or (path in self._inside and any(name.lower() in _FORWARDED for name, _ in scope["headers"])):
            await answer(send, 404, {"reason": "there is nothing here"})
        else:
            await app(scope, receive, send)


def told_by(check: Callable[[], tuple[int, dict[str, Any]]]) -> App:
    """An application that answers GET with a status and JSON."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await answer(send, 405, {"reason": "ask with GET"})
            return
        await answer(send, *check())

    return app


async def answer(send: Send, status: int, content: dict[str, Any]) -> None:
    """JSON, never to be kept by a proxy."""
    body = (json.dumps(content, indent=1) + "\n").encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
