"""Publishes messages: a thread with a loop of its own, so that nobody else waits for a broker."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ..._nats.link import Link, end_tasks, import_nats, loop_factory
from ..._nats.names import Subjects, shards_of
from ...wire import MAJOR, MINOR, WireMessage
from .spool import Spool

__all__ = ["Publisher", "Store"]

_AGAIN_S: Final = 0.25  # after a failure
_ROOM: Final = 2048  # bytes of a message for headers, which count too: over the bound the server hangs up for good


@dataclass(frozen=True, slots=True)
class Store:
    """How the broker keeps messages: for at most ``max_age_s`` seconds and ``max_bytes`` bytes, on "file" or in
    "memory", in ``replicas`` copies. Of a stream that exists already, its own hold."""

    max_age_s: float
    max_bytes: int
    storage: str
    replicas: int


class Publisher:
    """``make()`` is called every ``tick_s`` in the thread and returns what is to be published, ``dropped(message)`` for
    each that found no room. A shard's messages go one after the other: one is sent when the last one was stored, so
    that none ever overtakes another; what failed is sent again under the same id, which the broker knows."""

    def __init__(
        self,
        servers: Sequence[str],
        subjects: Subjects,
        store: Store,
        sender: str,
        *,
        spool: Spool,
        tick_s: float,
        options: Mapping[str, Any] | None,
        make: Callable[[], list[WireMessage]],
        dropped: Callable[[WireMessage], object],
        fault: Callable[[Exception], object],
    ) -> None:
        self._nats = import_nats()
        self._subjects = subjects
        self._store = store
        self._sender = sender
        self._spool = spool
        self._tick_s = tick_s
        self._servers = servers
        self._options = options
        self._make = make
        self._dropped = dropped
        self._fault = fault
        self._link: Link | None = None
        self._active: dict[int, asyncio.Task[None]] = {}
        self._closing = threading.Event()
        self._deadline_s = 0.0
        self._ready = False  # the stream is there
        self._preparing: asyncio.Lock | None = None
        self.published = 0
        self.published_bytes = 0
        self.again = 0  # times that a message was sent once more
        self.dropped_messages = 0
        self.last_s = 0.0  # monotonic, when a message was stored
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._run, name="strep-nats", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def problem(self) -> str | None:
        """Why nothing is published at the moment."""
        return self._problem or (self._link.problem if self._link is not None else None)

    @property
    def connections(self) -> int:
        """How many there were."""
        return self._link.connections if self._link is not None else 0

    def close(self, timeout_s: float) -> bool:
        """Publish what waits, for at most ``timeout_s``. Returns whether the thread has ended."""
        self._deadline_s = time.monotonic() + max(timeout_s - 0.3, 0.1)
        self._closing.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._link = Link(self._servers, f"strep {self._sender[:8]}", self._options)
        self._preparing = asyncio.Lock()
        connecting = asyncio.create_task(self._prepare_first())
        try:
            while not self._closing.is_set():
                began = time.monotonic()
                self._tick()
                await asyncio.sleep(max(self._tick_s - (time.monotonic() - began), 0.005))
            self._tick()
            while self._active and time.monotonic() < self._deadline_s:
                await asyncio.wait(self._active.values(), timeout=0.05)
        finally:
            await end_tasks([connecting, *self._active.values()])
            with contextlib.suppress(Exception):
                async with asyncio.timeout(0.2):
                    await self._link.close()

    async def _prepare_first(self) -> None:
        with contextlib.suppress(Exception):
            await self._stream()

    def _tick(self) -> None:
        """Contained: whatever it raises, there is a next one."""
        try:
            shards = self._spool.put(self._make())
            for message in self._spool.overflow():
                self.dropped_messages += 1
                self._dropped(message)
        except Exception as error:
            self._fault(error)
            return
        for shard in shards:
            self._wake(shard)

    def _wake(self, shard: int) -> None:
        if shard not in self._active and self._spool.waits(shard):
            task = self._active[shard] = asyncio.create_task(self._send_all(shard))
            task.add_done_callback(partial(self._sent_all, shard))

    def _sent_all(self, shard: int, task: asyncio.Task[None]) -> None:
        del self._active[shard]
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Exception):
            self._fault(error)
            asyncio.get_running_loop().call_later(_AGAIN_S, self._wake, shard)
        else:
            self._wake(shard)  # what came when it had just looked

    @property
    def room(self) -> int:
        """Bytes that a message may have; 0: not known yet."""
        most = self._link.max_payload if self._link is not None else 0
        return max(most - _ROOM, 0)

    async def _send_all(self, shard: int) -> None:
        while (message := self._spool.begin(shard)) is not None:
            while not await self._send(message):
                self.again += 1
                await asyncio.sleep(_AGAIN_S)
            self._spool.done(shard)

    async def _send(self, message: WireMessage) -> bool:
        """Whether the broker has stored it."""
        errors, jetstream_errors = self._nats.errors, self._nats.js.errors
        if 0 < self.room < len(message.data):  # the bound is another than when it was made
            self._problem = f"messages of {len(message.data)} bytes: the server takes {self.room}, raise max_payload"
            self.dropped_messages += 1
            self._dropped(message)
            return True
        try:
            context = await self._stream()
            await context.publish(
                self._subjects.of(message.shard),
                message.data,
                stream=self._subjects.stream,
                headers={
                    "Nats-Msg-Id": f"{self._sender}-{message.shard}-{message.number}",
                    "Strep-Wire": f"{MAJOR}.{MINOR}",
                },
            )
        except jetstream_errors.NoStreamResponseError:
            self._ready = False  # a broker with streams in memory was started again
            self._problem = "the stream is gone, and is made again"
            return False
        except (errors.Error, OSError, TimeoutError, asyncio.InvalidStateError) as error:
            self._problem = f"NATS does not store messages: {_told(error)}"
            return False
        self.published += 1
        self.published_bytes += len(message.data)
        self.last_s = time.monotonic()
        self._problem = None
        return True

    async def _stream(self) -> Any:
        """JetStream, with the stream there. Raises what the client raises."""
        assert self._link is not None
        _, context = await self._link.jetstream()
        if self._ready:
            return context
        assert self._preparing is not None
        async with self._preparing:
            if not self._ready:
                await self._make_stream(context)
                self._ready = True
        return context

    async def _make_stream(self, context: Any) -> None:
        api = self._nats.js.api
        try:
            found = await context.stream_info(self._subjects.stream)
        except self._nats.js.errors.NotFoundError:
            store = self._store
            await context.add_stream(
                api.StreamConfig(
                    name=self._subjects.stream,
                    subjects=[self._subjects.all],
                    max_age=store.max_age_s,
                    max_bytes=store.max_bytes,
                    storage=store.storage,
                    num_replicas=store.replicas,
                    discard=api.DiscardPolicy.OLD,
                    duplicate_window=min(120.0, store.max_age_s),
                )
            )
            return
        have = list(found.config.subjects or [])
        if have != [self._subjects.all]:
            shards = shards_of(self._subjects.base, have)
            right = f"give shards={shards}" if shards else "it is not strep's"
            raise self._nats.errors.Error(
                f"stream {self._subjects.stream!r} has other subjects, {', '.join(have)}: {right}, or another subject"
            )


def _told(error: Exception) -> str:
    return str(getattr(error, "description", None) or error or type(error).__name__)
