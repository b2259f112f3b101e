"""Serves an ASGI app with uvicorn, in an event loop that runs already.

uvicorn speaks HTTP. Who may connect, and for how long, is decided here, because uvicorn accepts every connection and
waits for its first request as long as the peer likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

from .._model.addresses import host_and_port
from .._model.exceptions import BindError, MissingExtraError
from .._model.extras import install
from .connections import Connection, Connections, HttpCounts, HttpLimits

__all__ = ["HttpCounts", "HttpLimits", "HttpServer"]

log = logging.getLogger("strep")

_ACCEPTED_A_TURN: Final = 16  # connections in a turn of the loop: media come first
_REFUSING_PAUSE_S: Final = 0.005  # between turns while connections have to be refused
_NO_DESCRIPTOR_PAUSE_S: Final = 0.25  # while the process has no descriptor left
_TIMEOUTS_EVERY_S: Final = 0.5  # connections whose time is over are looked for
_ANSWER_503: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n"
)
_PEER_HAS_GONE: Final = (errno.ECONNABORTED, errno.EPROTO, errno.ECONNRESET)


class HttpServer:
    """An HTTP server: :meth:`start` it, :meth:`stop` it. It listens from the beginning.

    ``app``    an ASGI application.
    ``port``   0 is any free port; ``address`` then tells which.
    ``extra``  the extra of this package to install if uvicorn is missing.

    Raises BindError if the port cannot be had, MissingExtraError if uvicorn is missing.
    """

    def __init__(
        self, app: Any, host: str, port: int, *, extra: str = "serve", limits: HttpLimits | None = None
    ) -> None:
        try:
            import uvicorn
        except ImportError as error:
            raise MissingExtraError(f"HTTP is served by uvicorn: {install(extra)}") from error

        ready = self._ready = asyncio.Event()

        class Server(uvicorn.Server):
            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:
                yield  # signals belong to whoever runs the loop

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
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.address = host_and_port(host, self.port)
        self._connections = Connections(limits or HttpLimits())
        self._server = Server(
            uvicorn.Config(
                app,
                http="h11",  # whose limit on headers holds, whatever else is installed
                h11_max_incomplete_event_size=self._connections.limits.header_bytes,
                timeout_keep_alive=self._connections.limits.idle_s,
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
        self._tasks: list[asyncio.Task[None]] = []
        self._greeting: set[asyncio.Task[None]] = set()
        self._warned = False

    @property
    def counts(self) -> HttpCounts:
        """What became of connections."""
        return self._connections.counts

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

    async def start(self) -> None:
        """Begin to accept connections and to answer requests."""
        loop = asyncio.get_running_loop()
        serving = loop.create_task(self._server.serve(sockets=[]))
        self._tasks.append(serving)
        waiting = asyncio.ensure_future(self._ready.wait())
        try:
            await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if serving.done():
            await serving
        protocol = _protocol_of(self._server, self._connections, loop.time)
        self._tasks += [loop.create_task(self._accept(protocol)), loop.create_task(self._look())]

    async def stop(self) -> None:
        """Take no more connections, finish the answers that are due within about a second, and end the rest."""
        self._server.should_exit = True
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks[1:], return_exceptions=True)
        self._socket.close()
        if self._greeting:  # connections that are being set up: the server ends only those that it knows
            await asyncio.wait(self._greeting)
        try:
            for task in self._tasks[:1]:
                await task
        finally:
            self._connections.end_all()
            await asyncio.sleep(0)  # a transport that is aborted closes with the loop's next turn

    # --- connections ----------------------------------------------------------------------------------------------

    async def _accept(self, protocol: Callable[[Connection], asyncio.Protocol]) -> None:
        """Take connections until cancelled, whatever happens."""
        loop = asyncio.get_running_loop()
        while True:
            pause_s = 0.0
            try:
                if not await self._wait_for_peer():
                    # a loop that cannot watch sockets (Windows)
                    pause_s = self._take(*await loop.sock_accept(self._socket), protocol)
                for _ in range(_ACCEPTED_A_TURN):
                    pause_s = max(pause_s, self._take(*self._socket.accept(), protocol))
            except BlockingIOError:
                pass
            except OSError as error:
                self.counts.failed += 1
                pause_s = 0.0 if error.errno in _PEER_HAS_GONE else _NO_DESCRIPTOR_PAUSE_S
                if pause_s:
                    self._warn_once(f"no connection can be taken: {error.strerror}")
            await asyncio.sleep(pause_s)

    async def _wait_for_peer(self) -> bool:
        """Wait until a connection can be accepted; False: this loop cannot tell. Accepting it is left to the caller: if
        ``sock_accept`` is cancelled, nobody closes the connection that it has taken."""
        loop = asyncio.get_running_loop()
        came = loop.create_future()

        def tell() -> None:
            if not came.done():
                came.set_result(None)

        try:
            loop.add_reader(self._socket, tell)
        except NotImplementedError:
            return False
        try:
            await came
        finally:
            loop.remove_reader(self._socket)
        return True

    def _take(self, plain: socket.socket, address: Any, protocol: Callable[[Connection], asyncio.Protocol]) -> float:
        """Take a connection, or refuse it; returns how many seconds to wait until the next one."""
        loop = asyncio.get_running_loop()
        before = self.counts.evicted
        connection = self._connections.admit(str(address[0]), loop.time())
        if connection is None:
            self._warn_once("too many connections: some are answered with 503")
            with plain, contextlib.suppress(OSError):
                plain.setblocking(False)
                plain.send(_ANSWER_503)
            return _REFUSING_PAUSE_S
        task = loop.create_task(self._greet(plain, connection, protocol))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)
        if self.counts.evicted == before:
            return 0.0
        self._warn_once("too many connections: those go that have waited longest")
        return _REFUSING_PAUSE_S

    async def _greet(
        self, plain: socket.socket, connection: Connection, protocol: Callable[[Connection], asyncio.Protocol]
    ) -> None:
        connection.abort = plain.close
        try:
            plain.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol(connection), plain)
        except BaseException as error:  # the peer went, or had to go, before the connection was set up
            self._connections.leave(connection)
            plain.close()
            if not isinstance(error, OSError | ValueError):
                raise
            self.counts.failed += 1

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TIMEOUTS_EVERY_S)
            self._connections.end_slow(loop.time())

    def _warn_once(self, text: str) -> None:
        """Log the first problem only: otherwise whoever connects could fill the log."""
        if not self._warned:
            self._warned = True
            log.warning("http://%s: %s (more is counted, not told)", self.address, text)


def _protocol_of(
    server: Any, connections: Connections, clock: Callable[[], float]
) -> Callable[[Connection], asyncio.Protocol]:
    """uvicorn's HTTP protocol, which also tells ``connections`` what its connection is doing."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Watched(H11Protocol):
        def __init__(self, connection: Connection) -> None:
            super().__init__(config=server.config, server_state=server.server_state, app_state={})
            self._connection = connection
            self.app = _watching(self.app, connections, connection, clock)

        def connection_made(self, transport: Any) -> None:
            self._connection.abort = transport.abort
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.leave(self._connection)
            super().connection_lost(exc)

    return Watched


def _watching(app: Any, connections: Connections, connection: Connection, clock: Callable[[], float]) -> Any:
    """The application, wrapped so that its connection is busy, except while it waits for its peer."""

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def take() -> Any:
            connection.busy = False
            try:
                return await receive()
            finally:
                connection.busy = True

        connections.requested(connection, clock())
        connection.busy = True
        try:
            await app(scope, take, send)
        finally:
            connections.answered(connection, clock())

    return watched
