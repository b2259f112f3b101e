"""Keeps a member's place in its group: its shards, and whether it may read them now."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from .._nats.link import Link, import_nats
from .roster import LEASE_S, RENEW_S, Observer, Roster

__all__ = ["Lease"]

_KEY: Final = "roster"
_TRIES: Final = 8  # of writing, when others write at the same time


class Lease:
    """``changed(shards)`` is awaited with the shards that are this member's, and its claims, whenever they change;
    ``stopped(shards)`` with those that it is to stop reading, before it lets go of them."""

    def __init__(
        self,
        link: Link,
        bucket: str,
        member: str,
        shards: Callable[[], int],
        *,
        changed: Callable[[dict[int, int]], Awaitable[None]],
        stopped: Callable[[set[int]], Awaitable[None]],
    ) -> None:
        self._nats = import_nats()
        self._link = link
        self._bucket = bucket
        self._shards = shards
        self._observer = Observer(member)
        self._changed = changed
        self._stopped = stopped
        self._mine: dict[int, int] = {}
        self._releasing: set[int] = set()
        self._valid_until_s = 0.0
        self._kv: Any = None
        self.problem: str | None = None
        self.members = 0

    @property
    def valid(self) -> bool:
        """Whether its shards are its own at this moment: nobody else can have them."""
        return time.monotonic() < self._valid_until_s

    async def wait_until_valid(self) -> None:
        """Return when its shards are its own."""
        while not self.valid:  # noqa: ASYNC110  # it is a matter of time, not of an event
            await asyncio.sleep(0.02)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            began_s = time.monotonic()
            try:
                await self._renew(began_s)
                self.problem = None
            except (self._nats.errors.Error, OSError, TimeoutError) as error:
                self._kv = None  # the bucket may be gone: a broker that keeps it in memory was started again
                self.problem = f"the group's roster cannot be written: {str(error) or type(error).__name__}"
            await asyncio.sleep(max(RENEW_S - (time.monotonic() - began_s), 0.05))

    async def _renew(self, began_s: float) -> None:
        roster, leaving = await self._write(self._step)
        self.members = len(roster.members)
        mine = roster.of(self._observer.member)
        self._releasing = set()
        if mine != self._mine:
            self._mine = mine
            await self._changed(dict(mine))
        self._valid_until_s = began_s + LEASE_S  # after what is not its own any more was let go
        if leaving:
            await self._stopped(leaving)
            self._releasing = leaving

    def _step(self, roster: Roster, now_s: float) -> set[int]:
        return self._observer.step(roster, self._shards(), now_s, self._releasing)

    async def _write(self, change: Callable[[Roster, float], set[int]]) -> tuple[Roster, set[int]]:
        """The document as it was written, and what ``change`` returned. Raises what the client raises."""
        wrong = self._nats.js.errors.KeyWrongLastSequenceError
        for _ in range(_TRIES):
            kv = await self._store()
            now_s = time.monotonic()
            try:
                entry = await kv.get(_KEY)
                roster, revision = Roster.parse(entry.value), entry.revision
            except self._nats.js.errors.KeyNotFoundError:
                roster, revision = Roster(), 0
            told = change(roster, now_s)
            try:
                if revision:
                    await kv.update(_KEY, roster.text(), last=revision)
                else:
                    await kv.create(_KEY, roster.text())
            except wrong:
                await asyncio.sleep(0.01)
                continue
            return roster, told
        raise TimeoutError("others write it all the time")

    async def _store(self) -> Any:
        _, context = await self._link.jetstream()
        if self._kv is None:
            try:
                await context.key_value(self._bucket)
            except self._nats.js.errors.NotFoundError:
                await context.create_key_value(bucket=self._bucket, history=1)
        self._kv = await context.key_value(self._bucket) if self._kv is None else self._kv
        return self._kv

    async def leave(self) -> None:
        """Let go of all shards, so that others need not wait."""

        def without(roster: Roster, _: float) -> set[int]:
            self._observer.leave(roster)
            return set()

        self._valid_until_s = 0.0
        with contextlib.suppress(self._nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._write(without)
