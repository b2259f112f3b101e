"""Events for those who iterate over them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, Generic, TypeVar

__all__ = ["Broadcast", "EventQueue"]

_KEPT_EVENTS: Final = 10_000  # that a consumer has not taken

_T = TypeVar("_T")


class EventQueue(Generic[_T]):
    """Events for one consumer: the last 10,000 that it has not taken. In the event loop's thread."""

    def __init__(self) -> None:
        self._events: deque[_T] = deque(maxlen=_KEPT_EVENTS)
        self._wake = asyncio.Event()
        self._ended = False

    def put(self, event: _T) -> None:
        self._events.append(event)
        self._wake.set()

    def end(self) -> None:
        """No more events will come. Those that wait can still be taken."""
        self._ended = True
        self._wake.set()

    async def get(self) -> _T | None:
        """The next event; None at the end."""
        while not self._events:
            if self._ended:
                return None
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()


class Broadcast(Generic[_T]):
    """Events for any number of consumers. Each gets those from when it begins to iterate, until the end. In the event
    loop's thread."""

    def __init__(self) -> None:
        self._queues: list[EventQueue[_T]] = []
        self._ended = False

    @property
    def wanted(self) -> bool:
        """Whether anybody iterates."""
        return bool(self._queues)

    def put(self, event: _T) -> None:
        for queue in self._queues:
            queue.put(event)

    def end(self) -> None:
        """No more events will come: whoever iterates, now or later, comes to the end."""
        self._ended = True
        for queue in self._queues:
            queue.end()

    async def events(self) -> AsyncIterator[_T]:
        """The events of one consumer."""
        queue: EventQueue[_T] = EventQueue()
        self._queues.append(queue)
        if self._ended:
            queue.end()
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.remove(queue)
