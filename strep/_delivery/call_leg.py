"""Call legs as users iterate over them: both directions as one object."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final, Literal, Self, overload

from .._model.blocks import Block
from .._model.types import Direction, Leg, StreamInfo
from ..resample import prepare
from .framer import F32, I16
from .leg_aligner import LegAligner, LegFrame
from .stream import Stream

__all__ = ["CallLeg", "CallLegs"]

_KEPT_LEGS: Final = 1000  # that may have ended
_QUEUED_BLOCKS: Final = 16  # of both directions, beside what waits in the streams' own queues


class CallLeg:
    """One leg of a call: what was sent in both directions. Made by :meth:`strep.Receiver.legs`."""

    def __init__(self, info: StreamInfo) -> None:
        self._info = info
        self._streams: dict[Direction, Stream] = {}
        self._begun: list[Stream] = []  # all streams so far, in their order
        self._changed = asyncio.Event()  # another stream has come, or no more will

    def __repr__(self) -> str:
        sides = ", ".join(stream.direction.label for stream in self._begun)
        return f"<CallLeg {self.name} {self.leg.label}: {sides}>"

    @property
    def call_leg_id(self) -> uuid.UUID | None:
        """UUID of the call leg; None for plain RTP on ports that no leg was named for."""
        return self._info.call_leg_id

    @property
    def name(self) -> str:
        """The call leg as text, or for plain RTP without one that of the stream that came first."""
        return self._info.leg_name

    @property
    def leg(self) -> Leg:
        """Which leg of the call: A or B."""
        return self._info.leg

    @property
    def inbound(self) -> Stream | None:
        """What the platform received from this leg: the stream of late; None before it comes."""
        return self._streams.get(Direction.INBOUND)

    @property
    def outbound(self) -> Stream | None:
        """What the platform sent to this leg: the stream of late; None before it comes."""
        return self._streams.get(Direction.OUTBOUND)

    @property
    def ended(self) -> bool:
        """Whether all its streams have ended."""
        return all(stream.ended for stream in self._streams.values())

    def _attach(self, stream: Stream) -> None:
        self._streams[stream.direction] = stream
        self._begun.append(stream)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def streams(self) -> AsyncGenerator[Stream]:
        """Each stream of the leg, when it comes; ends when all have ended."""
        taken = 0
        while True:
            changed = self._changed
            while taken < len(self._begun):
                yield self._begun[taken]
                taken += 1
            if self.ended:
                return
            waits = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(self.wait_ended())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def wait_ended(self) -> None:
        """Wait until all its streams have ended."""
        while not self.ended:
            await asyncio.gather(*(stream.wait_ended() for stream in list(self._streams.values())))

    @overload
    def frames(
        self, *, ms: float | None = ..., n: int | None = ..., rate: int | None = ..., dtype: Literal["int16"] = ...,
        queue_s: float = ..., conceal: bool = ..., wait_ms: float = ...,
    ) -> AsyncGenerator[LegFrame[I16]]: ...  # fmt: skip

    @overload
    def frames(
        self, *, ms: float | None = ..., n: int | None = ..., rate: int | None = ..., dtype: Literal["float32"],
        queue_s: float = ..., conceal: bool = ..., wait_ms: float = ...,
    ) -> AsyncGenerator[LegFrame[F32]]: ...  # fmt: skip

    async def frames(
        self,
        *,
        ms: float | None = None,
        n: int | None = None,
        rate: int | None = None,
        dtype: Literal["int16", "float32"] = "int16",
        queue_s: float = 5.0,
        conceal: bool = False,
        wait_ms: float = 100.0,
    ) -> AsyncGenerator[LegFrame]:
        """Frames of both directions, shape (2, n), of ``ms`` milliseconds (20 by default) or ``n`` samples at ``rate``
        (None: that of the stream that is heard first), on the receiver's clock: what was said at the same time stands
        in one column. Ends when both directions have.

        A direction that has not come, is behind by more than ``wait_ms``, or has ended, is silent: ``frame.mask``
        tells. Times in which neither sends anything are left out when they are long (1 s): ``frame.left_out``. Channels
        of one direction are mixed. ``queue_s`` and ``conceal`` are as in :meth:`strep.Stream.frames`.

        Raises ConfigurationError for what cannot be.
        """
        LegAligner(ms=ms, n=n, rate=rate or 8000, dtype=dtype, wait_ms=wait_ms)  # says what is wrong before waiting
        await asyncio.to_thread(prepare)
        aligner: LegAligner | None = None
        queue: _Queue = asyncio.Queue(_QUEUED_BLOCKS)
        pump = asyncio.create_task(self._pump(queue, queue_s, conceal))
        try:
            while (item := await queue.get()) is not None:
                direction, block = item
                frames: list[LegFrame] = []
                if block is not None:
                    if aligner is None:
                        own = block.stream.sample_rate
                        aligner = LegAligner(ms=ms, n=n, rate=rate or own, dtype=dtype, wait_ms=wait_ms)
                    frames = aligner.push(direction, block)
                elif aligner is not None:
                    frames = aligner.end(direction)
                for frame in frames:
                    yield frame
            await pump
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _pump(self, queue: _Queue, queue_s: float, conceal: bool) -> None:
        """Blocks of all streams into one queue, None after each stream's last one, and None at the end of the leg."""
        tasks: set[asyncio.Task[object]] = set()
        taken = 0
        try:
            while True:
                changed = asyncio.create_task(self._changed.wait())
                for stream in self._begun[taken:]:
                    tasks.add(asyncio.create_task(_feed(stream, queue, queue_s, conceal)))
                taken = len(self._begun)
                done, _ = await asyncio.wait({*tasks, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                tasks -= done
                for task in done:
                    task.result()
                if not tasks and taken == len(self._begun):
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await queue.put(None)


_Queue = asyncio.Queue[tuple[Direction, Block | None] | None]


async def _feed(stream: Stream, queue: _Queue, queue_s: float, conceal: bool) -> None:
    async with aclosing(stream.blocks(queue_s=queue_s, conceal=conceal)) as blocks:
        async for block in blocks:
            await queue.put((stream.direction, block))
    await queue.put((stream.direction, None))


class CallLegs:
    """Legs out of streams, one after the other: see :meth:`strep.Receiver.legs`.

    From the first :meth:`__anext__` until the streams end, a task collects: a leg's other direction may come any time,
    also while whoever iterates is busy, or does so no more.
    """

    def __init__(self, streams: AsyncIterator[Stream]) -> None:
        self._streams = streams
        self._found: asyncio.Queue[CallLeg | None] = asyncio.Queue()
        self._collecting: asyncio.Task[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CallLeg:
        if self._collecting is None:
            self._collecting = asyncio.create_task(self._collect())
        leg = await self._found.get()
        if leg is None:
            self._found.put_nowait(None)  # for whoever asks again
            await self._collecting
            raise StopAsyncIteration
        return leg

    async def _collect(self) -> None:
        legs: dict[tuple[str, Leg], CallLeg] = {}
        most = _KEPT_LEGS
        try:
            async for stream in self._streams:
                leg = legs.get(stream.info.pair)
                if leg is not None and not leg.ended:
                    leg._attach(stream)
                    continue
                if len(legs) >= most:
                    legs = {pair: each for pair, each in legs.items() if not each.ended}
                    most = max(_KEPT_LEGS, 2 * len(legs))
                leg = legs[stream.info.pair] = CallLeg(stream.info)
                leg._attach(stream)
                self._found.put_nowait(leg)
        finally:
            self._found.put_nowait(None)
