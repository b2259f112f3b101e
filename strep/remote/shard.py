"""One shard, read from where the last reader was, by a consumer that the broker keeps."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from .._nats.link import Link, end_tasks, import_nats

__all__ = ["ShardConsumer"]

_HEARTBEAT_S: Final = 1.0
_SILENT_S: Final = 4.0  # without a message or heartbeat: the consumer is gone
_KEPT_S: Final = 1.5  # after a message was heard it is acknowledged: a reader that dies may not have written it yet
_CLAIMS: Final = 8  # that are looked for, as those who claimed a shard may have died before they read it
_MOST_KEPT: Final = 64
_PENDING: Final = 256  # messages that the broker sends ahead
_ACK_WAIT_S: Final = 3600.0  # nothing is sent again by itself, out of order: a consumer is made anew instead
_FORGOTTEN_S: Final = 86_400.0  # of a group that nobody is in


class ShardConsumer:
    """Hands each message of a shard on, in order: ``heard(data)``, awaited, while it is ``allowed``, which is awaited.

    A claim of a shard makes a consumer of its own, which begins behind what the one before had acknowledged, and
    removes that one. If deliveries are missing (the connection or the broker was lost), the consumer is made anew from
    what was acknowledged: what was heard already is told twice, and readers leave it out."""

    def __init__(
        self,
        link: Link,
        stream: str,
        subject: str,
        name: str,
        claim: int,
        *,
        new_only: bool,
        heard: Callable[[bytes], Awaitable[None]],
        allowed: Callable[[], Awaitable[None]],
    ) -> None:
        self._nats = import_nats()
        self._link = link
        self._stream, self._subject, self._name, self.claim = stream, subject, name, claim
        self._new_only = new_only
        self._heard = heard
        self._allowed = allowed
        self._subscription: Any = None
        self._client: Any = None
        self._created: Any = None  # when the stream was
        self._from: int | None = None  # stream sequence of what is to be heard next; None: see _begin
        self._before = claim  # of the reader whose place it takes
        self._delivered = 0
        self._kept: deque[tuple[float, int, str]] = deque()  # heard, not acknowledged: when, sequence, reply
        self._last_s = time.monotonic()
        self._again = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self.opened = 0
        self.problem: str | None = None

    def reopen(self) -> None:
        """What was on its way may be gone."""
        self._again.set()

    async def _run(self) -> None:
        while True:
            await self._allowed()
            self._again.clear()
            try:
                async with asyncio.timeout(10):
                    await self._open()
                self.problem = None
            except (self._nats.errors.Error, OSError, TimeoutError) as error:
                self.problem = f"{self._subject}: {str(error) or type(error).__name__}"
                await asyncio.sleep(0.25)
                continue
            while not self._again.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._again.wait(), 0.25)
                if time.monotonic() - self._last_s > _SILENT_S and self._link.connected:
                    break
                await self._acknowledge(time.monotonic() - _KEPT_S)

    async def _open(self) -> None:
        client, context = await self._link.jetstream()
        await self._unsubscribe()
        info = await context.stream_info(self._stream)
        if self._created is not None and info.created != self._created:
            self._from = 1  # another stream of that name: all of it is new
        self._created = info.created
        if self._from is None:
            self._from = await self._begin(context, info)
        for claim in {self._before, self.claim}:
            with contextlib.suppress(self._nats.js.errors.NotFoundError):
                await context.delete_consumer(self._stream, self._durable(claim))
        self._kept.clear()
        self._delivered = 0
        self._last_s = time.monotonic()
        api, inbox = self._nats.js.api, client.new_inbox()
        self._client = client
        self._subscription = await client.subscribe(
            inbox, cb=self._on_message, pending_msgs_limit=4 * _PENDING, pending_bytes_limit=-1
        )
        await context.add_consumer(
            self._stream,
            api.ConsumerConfig(
                durable_name=self._durable(self.claim),
                deliver_subject=inbox,
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=max(self._from, 1),
                ack_policy=api.AckPolicy.ALL,
                ack_wait=_ACK_WAIT_S,
                max_ack_pending=_PENDING,
                filter_subject=self._subject,
                idle_heartbeat=_HEARTBEAT_S,
                inactive_threshold=_FORGOTTEN_S,
            ),
        )
        self.opened += 1

    def _durable(self, claim: int) -> str:
        return f"{self._name}-{claim}"

    async def _begin(self, context: Any, stream: Any) -> int:
        """Where the last reader was; of a group that has none, all that is kept or (``new_only``) what comes now."""
        for claim in range(self.claim - 1, max(self.claim - _CLAIMS, 0) - 1, -1):
            with contextlib.suppress(self._nats.js.errors.NotFoundError):
                last = await context.consumer_info(self._stream, self._durable(claim))
                self._before = claim
                return max(int(last.ack_floor.stream_seq) + 1, int(last.config.opt_start_seq or 1))
        return int(stream.state.last_seq) + 1 if self._new_only else 1

    async def _on_message(self, message: Any) -> None:
        self._last_s = time.monotonic()
        if message.headers and message.headers.get("Status"):
            return  # a heartbeat
        try:
            at = message.metadata.sequence
        except self._nats.errors.Error:
            return
        if at.consumer != self._delivered + 1:
            self.reopen()  # what was between is to be heard first
            return
        self._delivered = at.consumer
        await self._allowed()
        await self._heard(message.data)
        self._last_s = time.monotonic()
        self._kept.append((self._last_s, at.stream, message.reply))
        if len(self._kept) > _MOST_KEPT:
            await self._acknowledge(self._kept[_MOST_KEPT // 2][0])

    async def _acknowledge(self, until_s: float) -> None:
        """What was heard until then."""
        reply = None
        while self._kept and self._kept[0][0] <= until_s:
            _, sequence, reply = self._kept.popleft()
            self._from = sequence + 1
        if reply is not None and self._client is not None:
            with contextlib.suppress(self._nats.errors.Error, OSError):
                await self._client.publish(reply, b"")

    async def _unsubscribe(self) -> None:
        if self._subscription is not None:
            with contextlib.suppress(self._nats.errors.Error, OSError):
                await self._subscription.unsubscribe()
            self._subscription = None

    async def close(self, *, done: bool) -> None:
        """Hear no more. ``done``: what was heard is finished, and whoever is next begins behind it."""
        await end_tasks([self._task])
        await self._unsubscribe()
        if done:
            await self._acknowledge(float("inf"))
            with contextlib.suppress(Exception):
                async with asyncio.timeout(0.5):
                    await self._client.flush()
