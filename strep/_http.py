"""Serves an ASGI app with uvicorn, inside a loop that is somebody else's. Floor 5."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

from ._exceptions import BindError, MissingExtraError

__all__ = ["HttpServer"]


class HttpServer:
    """``start`` and ``stop`` it. Port 0 is any free one. ``extra`` is what to install when uvicorn is missing.

    Raises BindError, and MissingExtraError without uvicorn.
    """

    def __init__(self, app: Any, host: str, port: int, *, extra: str = "serve") -> None:
        try:
            import uvicorn
        except ImportError as error:
            raise MissingExtraError(f"HTTP is served by uvicorn: pip install 'strep-rtp[{extra}]'") from error

        ready = self._ready = asyncio.Event()

        class Server(uvicorn.Server):
            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:
                yield  # they belong to whoever runs the loop

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                ready.set()

        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=2048)
        except OSError as error:
            name = {errno.EADDRINUSE: "taken by another program", errno.EADDRNOTAVAIL: "no address of this machine"}
            reason = name.get(error.errno or 0, error.strerror)
            raise BindError(error.errno, f"{host}:{port} cannot be served: {reason}") from error
        self.port: int = self._socket.getsockname()[1]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._server = Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="critical",
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=1,
                server_header=False,
                proxy_headers=False,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._server.serve([self._socket]))
        waiting = asyncio.ensure_future(self._ready.wait())
        try:
            await asyncio.wait((self._task, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        self._server.should_exit = True
        try:
            if self._task is not None:
                await self._task
        finally:
            self._socket.close()
