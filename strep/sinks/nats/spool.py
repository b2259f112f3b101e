"""What waits to be published: in order by shard, bounded by bytes. No clock, no thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from ...wire import WireMessage

__all__ = ["Spool"]

_OWN_BYTES: Final = 200  # of a message that waits, beside its data


class Spool:
    """Messages by shard, the oldest first. One of each shard may be on its way; it is not taken away from there.

    ``limit``: bytes that may wait."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._shards: dict[int, deque[WireMessage]] = {}
        self._order: deque[WireMessage] = deque()  # all, by age; those that are gone too
        self._gone: set[tuple[int, int]] = set()  # of ``_order``: (shard, number)
        self._going: dict[int, WireMessage] = {}
        self.bytes = 0
        self.messages = 0

    def put(self, messages: Iterable[WireMessage]) -> set[int]:
        """These wait too. Returns their shards."""
        shards = set()
        for message in messages:
            self._shards.setdefault(message.shard, deque()).append(message)
            self._order.append(message)
            self.bytes += len(message.data) + _OWN_BYTES
            self.messages += 1
            shards.add(message.shard)
        return shards

    def overflow(self) -> list[WireMessage]:
        """Take away the oldest messages that are not on their way, until the others have room."""
        dropped: list[WireMessage] = []
        held: list[WireMessage] = []
        while self.bytes > self._limit and self._order:
            message = self._order.popleft()
            key = message.shard, message.number
            if key in self._gone:
                self._gone.discard(key)
            elif self._going.get(message.shard) is message:
                held.append(message)
            else:
                self._shards[message.shard].remove(message)
                self._less(message)
                dropped.append(message)
        self._order.extendleft(reversed(held))
        return dropped

    def begin(self, shard: int) -> WireMessage | None:
        """The next message of a shard, which is on its way from now on; None: none waits."""
        waiting = self._shards.get(shard)
        if not waiting:
            return None
        message = self._going[shard] = waiting[0]
        return message

    def waits(self, shard: int) -> bool:
        """Whether a message of that shard waits, or is on its way."""
        return bool(self._shards.get(shard))

    def done(self, shard: int) -> None:
        """The message that is on its way has arrived."""
        message = self._going.pop(shard)
        self._shards[shard].popleft()
        self._less(message)
        self._gone.add((shard, message.number))
        while self._order and (key := (self._order[0].shard, self._order[0].number)) in self._gone:
            self._gone.discard(key)
            self._order.popleft()

    def _less(self, message: WireMessage) -> None:
        self.bytes -= len(message.data) + _OWN_BYTES
        self.messages -= 1

    def frames(self) -> int:
        """Sample frames of all that waits."""
        return sum(message.frames for waiting in self._shards.values() for message in waiting)
