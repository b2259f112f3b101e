"""What a stream is fed by: a bounded queue of blocks for each who consumes it, its events, its end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from .._model.report import StreamReport
from .._model.types import StreamEvent
from .event_queue import EventQueue
from .pieces import Pieces

__all__ = ["StreamFeed", "Subscription"]

_EARLY_S: Final = 5.0  # of audio that is kept for the first consumer


class Subscription:
    """A bounded queue of blocks of one stream for one consumer. What does not fit pushes out the oldest.

    ``limit_s`` is its room, in seconds of audio; ``conceals``: gaps are to be concealed.
    """

    __slots__ = ("_blocks", "_ended", "_frames", "_missed", "_waiter", "conceals", "limit_s")

    def __init__(self, limit_s: float, conceals: bool = False) -> None:
        self.limit_s = limit_s
        self.conceals = conceals
        self._blocks: deque[tuple[Pieces, int]] = deque()
        self._frames = 0  # in them
        self._missed = 0  # frames thrown away, not told yet
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    def __len__(self) -> int:
        return len(self._blocks)

    def put(self, pieces: Pieces, i: int) -> None:
        """Queue the i-th block."""
        blocks = self._blocks
        frames = self._frames + pieces.rows[i][1]
        if blocks:
            limit = self.limit_s * pieces.streams[i].sample_rate
            while frames > limit and blocks:
                old, k = blocks.popleft()
                frames -= old.rows[k][1]
                self._missed += old.rows[k][1]
        self._frames = frames
        blocks.append((pieces, i))
        if self._waiter is not None:
            self._wake()

    def end(self) -> None:
        """No more blocks will come. Those that wait can still be taken."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @property
    def ended(self) -> bool:
        """Whether nothing can be taken any more."""
        return self._ended and not self._blocks

    def wait(self) -> asyncio.Future[None]:
        """Done when a block can be taken, or none will come any more: to be awaited when there is none."""
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        if self._ended:
            self._wake()
        return waiter

    def take(self) -> tuple[int, Pieces, int]:
        """The next block: how many frames were missed before it, its batch's pieces, and which of them it is."""
        missed = self._missed
        if missed:
            self._missed = 0
        pieces, i = self._blocks.popleft()
        self._frames -= pieces.rows[i][1]
        return missed, pieces, i


class StreamFeed:
    """What a :class:`Stream` is given: blocks for those who consume them, events, and the end. The hub writes, the
    Stream reads.

    ``conceal`` is told how many more (or fewer) consumers want gaps concealed.
    """

    def __init__(self, conceal: Callable[[int], object]) -> None:
        self.ended = asyncio.Event()
        self.final: StreamReport | None = None
        self.events: EventQueue[StreamEvent] = EventQueue()
        self._conceal = conceal
        # until somebody consumes, the last seconds are kept for the first who does
        self._early: Subscription | None = Subscription(_EARLY_S)
        self.subscriptions = [self._early]
        """Those who are to get each block: as it is, or (``conceals``) with its gaps concealed."""

    def end(self, report: StreamReport) -> None:
        """The stream has ended, with these figures."""
        self.final = report
        self.ended.set()
        for subscription in self.subscriptions:
            subscription.end()

    def subscribe(self, queue_s: float, conceal: bool) -> Subscription:
        """A queue for one more consumer: :meth:`unsubscribe` it."""
        if conceal:
            self._conceal(1)
        if self._early is not None:
            subscription, self._early = self._early, None
            subscription.limit_s = queue_s
            subscription.conceals = conceal
            return subscription
        subscription = Subscription(queue_s, conceal)
        if self.ended.is_set():
            subscription.end()
        self.subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self.subscriptions.remove(subscription)
        if subscription.conceals:
            self._conceal(-1)
