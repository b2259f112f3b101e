"""Delivers webhooks: signed, again until they are taken, and with trouble if asked for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

import httpx
import numpy as np

from ._call import Webhook
from ._faults import WebhookFaults
from ._webhooks import Signer, encode_body

__all__ = ["Outbox"]

_TIMEOUT_S: Final = 5.0
_REQUESTS_AT_ONCE: Final = 50  # httpx's pool does more for each request, the more of them wait in it
_WAITING_PER_CALL: Final = 1000  # webhooks of one call; of more the oldest are given up


class Outbox:
    """One after the other for each call, calls side by side. ``clock`` gives ns, UTC; ``tell`` hears of each outcome.

    ``transport``: how to reach the receiver, for tests; default over the network.
    """

    def __init__(
        self,
        signer: Signer,
        faults: WebhookFaults,
        *,
        clock: Callable[[], int],
        seed: int | None = None,
        tell: Callable[[dict[str, Any]], None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._signer = signer
        self._faults = faults
        self._clock = clock
        self._rng = np.random.default_rng(seed)
        self._tell = tell
        self._transport = transport
        self._slots = asyncio.Semaphore(_REQUESTS_AT_ONCE)
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._lines: dict[int, deque[Webhook]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.delivered = 0
        self.failed = 0
        self.dropped = 0

    def put(self, webhook: Webhook) -> None:
        """Returns at once. Without a URL there is nothing to do."""
        if webhook.url is None:
            return
        drop, duplicate, delay, again = self._rng.random(4)
        if drop < self._faults.drop:
            self.dropped += 1
            self._outcome(webhook, "dropped", 0)
            return
        late_s = delay * self._faults.delay_s
        if duplicate < self._faults.duplicate:
            self._spawn(self._later(webhook, late_s + again * self._faults.delay_s))
        if self._faults.reorder:
            self._spawn(self._later(webhook, late_s))
            return
        line = self._lines.get(webhook.call.number)
        if line is not None:
            line.append(webhook)
            if len(line) > _WAITING_PER_CALL:
                self._fail(line.popleft(), 0)
            return
        self._lines[webhook.call.number] = line = deque([webhook])
        self._spawn(self._serve(webhook.call.number, line))

    async def drain(self, timeout_s: float) -> None:
        """Wait until all are delivered or given up, not longer than that."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients.values():
            await client.aclose()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, number: int, line: deque[Webhook]) -> None:
        while line:
            await self._deliver(line.popleft())
        del self._lines[number]

    async def _later(self, webhook: Webhook, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await self._deliver(webhook)

    async def _deliver(self, webhook: Webhook) -> None:
        body = encode_body(webhook.body)
        for attempt in range(1 + self._faults.retries):
            if attempt:
                await asyncio.sleep(self._faults.retry_s * 2 ** (attempt - 1))
            try:
                async with self._slots:
                    headers = self._signer.headers(body, self._clock() // 10**9)
                    client = self._client(str(webhook.url))
                    response = await client.post(str(webhook.url), content=body, headers=headers)
            except (httpx.HTTPError, httpx.InvalidURL):
                continue
            if response.is_success:
                self.delivered += 1
                webhook.record.status = "delivered"
                self._outcome(webhook, "delivered", attempt + 1)
                return
        self._fail(webhook, 1 + self._faults.retries)

    def _fail(self, webhook: Webhook, attempts: int) -> None:
        self.failed += 1
        webhook.record.status = webhook.record.status or "failed"
        self._outcome(webhook, "failed", attempts)

    def _outcome(self, webhook: Webhook, outcome: str, attempts: int) -> None:
        if self._tell is not None:
            data = webhook.body["data"]
            self._tell(
                {
                    "event": "webhook",
                    "event_type": webhook.event_type,
                    "id": data["id"],
                    "call_leg_id": str(webhook.call.call_leg_id),
                    "outcome": outcome,
                    "attempts": attempts,
                }
            )

    def _client(self, url: str) -> httpx.AsyncClient:
        secure = not url.startswith("http://")
        if secure not in self._clients:
            # reading certificates takes longer than a hundred webhooks: not where none are needed
            self._clients[secure] = httpx.AsyncClient(
                timeout=_TIMEOUT_S, verify=secure, trust_env=False, transport=self._transport
            )
        return self._clients[secure]
