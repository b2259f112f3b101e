"""A connection that is made again whenever it is lost, also when its client was closed for good."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from .._model.exceptions import MissingExtraError
from .._model.extras import install

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

__all__ = ["Link", "end_tasks", "import_nats", "loop_factory"]

_CONNECTING_S: Final = 5.0
_AGAIN_S: Final = 0.25
_REPLY_S: Final = 2.0  # what a server may take to answer a request


def import_nats() -> Any:
    """The module of the client. Raises MissingExtraError."""
    try:
        import nats
        import nats.errors
        import nats.js
        import nats.js.api
        import nats.js.errors
    except ImportError as error:
        raise MissingExtraError(f"the client of NATS is not installed: {install('nats')}") from error
    return nats


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Makes loops of uvloop, which copy less of what they send; None, asyncio's own, where it is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def end_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait until they have ended. ``asyncio.wait_for`` of Python 3.11, which the client uses, forgets
    that it was cancelled if what it waited for comes at the same time: then they are told again."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.1)


class Link:
    """The one connection of a publisher or reader, within one event loop.

    ``options``  what ``nats.connect`` takes besides: credentials, TLS
    ``lost``     is called when the connection was lost
    """

    def __init__(
        self,
        servers: Sequence[str],
        name: str,
        options: Mapping[str, Any] | None = None,
        lost: Callable[[], object] = lambda: None,
    ) -> None:
        self._nats = import_nats()
        self._servers = list(servers)
        self._name = name
        self._options = dict(options or {})
        self._lost = lost
        self._client: Client | None = None
        self._making = asyncio.Lock()
        self._closed = False
        self.connections = 0  # so far
        self.problem: str | None = "there is no connection to NATS yet"

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._client is not None and self._client.is_connected

    @property
    def max_payload(self) -> int:
        """Bytes that a message may have; 0: not known yet."""
        return self._client.max_payload if self._client is not None else 0

    async def jetstream(self) -> tuple[Client, JetStreamContext]:
        """The client, connected, and its JetStream. Waits for as long as it takes."""
        while True:
            async with self._making:
                if self._client is None or self._client.is_closed:
                    await self._make()
            client = self._client
            if client is not None and client.is_connected:
                return client, client.jetstream(timeout=_REPLY_S)
            await asyncio.sleep(0.02 if client is not None and not client.is_closed else _AGAIN_S)

    async def _make(self) -> None:
        """A new client; None if there is no server at the moment. A client that was closed stays closed whatever it was
        told about reconnecting: after "maximum payload violation", for instance."""
        self._client = None
        if self._closed:
            raise asyncio.CancelledError
        client = self._nats.aio.client.Client()
        try:
            async with asyncio.timeout(_CONNECTING_S):
                await client.connect(
                    **{
                        "servers": self._servers,
                        "name": self._name,
                        "connect_timeout": 2,
                        "max_reconnect_attempts": -1,
                        "reconnect_time_wait": _AGAIN_S,
                        "ping_interval": 5,
                        "max_outstanding_pings": 2,
                        "error_cb": self._on_error,
                        "disconnected_cb": self._on_lost,
                        "reconnected_cb": self._on_connected,
                        "closed_cb": self._on_lost,
                        "allow_reconnect": True,
                        **self._options,
                    }
                )
        except (OSError, TimeoutError, ValueError, self._nats.errors.Error) as error:
            self.problem = f"no connection to NATS: {str(error) or type(error).__name__}"
            with contextlib.suppress(Exception):
                await client.close()
            return
        self._client = client
        await self._on_connected()

    async def _on_connected(self) -> None:
        self.connections += 1
        self.problem = None

    async def _on_lost(self) -> None:
        if not self._closed:
            self.problem = self.problem or "the connection to NATS was lost"
            self._lost()

    async def _on_error(self, error: Exception) -> None:
        if not self.connected:
            self.problem = f"no connection to NATS: {str(error) or type(error).__name__}"

    async def close(self) -> None:
        """Close the connection."""
        self._closed = True
        if self._client is not None:
            with contextlib.suppress(Exception):
                await self._client.close()
