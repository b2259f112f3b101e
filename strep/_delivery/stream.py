"""Streams as users iterate over them."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from typing import Final, Literal, overload

from .._model.blocks import Block
from .._model.report import StreamReport
from .._model.types import Codec, Direction, Gap, GapCause, Leg, StreamEvent, StreamInfo
from .._speech.cutter import Heard, UtteranceShape
from .._speech.utterance import Utterance
from ..resample import prepare
from .event_queue import EventQueue
from .framer import F32, I16, Frame, Framer
from .utterances import heard_in
from .voices import Vad

__all__ = ["MarkedBlock", "Marks", "Stream", "StreamFeed", "Subscription"]

_EARLY_S: Final = 5.0  # of audio that is kept for the first consumer

Marks = list[tuple[int, int, int]]  # of each packet: position of its first frame, RTP timestamp, arrival in ns
MarkedBlock = tuple[Block, Marks]


class Subscription:
    """A bounded queue of blocks of one stream for one consumer. What does not fit pushes out the oldest.

    ``limit_s`` is its room, in seconds of audio; ``conceals``: gaps are to be concealed.
    """

    def __init__(self, limit_s: float, conceals: bool = False) -> None:
        self.limit_s = limit_s
        self.conceals = conceals
        self._blocks: deque[MarkedBlock] = deque()
        self._frames = 0
        self.missed = 0  # frames thrown away, not told yet
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    def put(self, block: Block, marks: Marks) -> None:
        """Queue a block and its marks."""
        self._frames += len(block.samples)
        if self._blocks:
            limit = self.limit_s * block.stream.sample_rate
            while self._frames > limit and self._blocks:
                old, _ = self._blocks.popleft()
                self._frames -= len(old.samples)
                self.missed += len(old.samples)
        self._blocks.append((block, marks))
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

    async def get(self) -> tuple[Block, Marks, int] | None:
        """The next block, its marks and the frames missed before it; None at the end."""
        while not self._blocks:
            if self._ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        block, marks = self._blocks.popleft()
        self._frames -= len(block.samples)
        missed, self.missed = self.missed, 0
        return block, marks, missed


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
        self._subscriptions = [self._early]

    def put(self, plain: MarkedBlock, concealed: MarkedBlock) -> None:
        """A block, as it is and with its gaps concealed; each consumer gets what it wants."""
        for subscription in self._subscriptions:
            subscription.put(*(concealed if subscription.conceals else plain))

    def end(self, report: StreamReport) -> None:
        """The stream has ended, with these figures."""
        self.final = report
        self.ended.set()
        for subscription in self._subscriptions:
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
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.remove(subscription)
        if subscription.conceals:
            self._conceal(-1)


class Stream:
    """One direction of one call leg, while it lives and after. Made by iterating a :class:`strep.Receiver`."""

    def __init__(self, info: StreamInfo, report: Callable[[StreamInfo], StreamReport], feed: StreamFeed) -> None:
        self.info = info
        """Who the stream is."""
        self._live_report = report
        self._feed = feed

    def __repr__(self) -> str:
        return f"<Stream {self.info.name} {self.info.leg.label}-{self.direction.label} {self.codec or '?'}>"

    @property
    def call_leg_id(self) -> uuid.UUID | None:
        """UUID of the call leg; None for plain RTP on a port that no leg was named for."""
        return self.info.call_leg_id

    @property
    def name(self) -> str:
        """The call leg as text, or for plain RTP without one its port and SSRC."""
        return self.info.name

    @property
    def leg(self) -> Leg:
        """Which leg of the call: A or B."""
        return self.info.leg

    @property
    def direction(self) -> Direction:
        """Which way the audio goes: inbound or outbound."""
        return self.info.direction

    @property
    def codec(self) -> Codec | None:
        """What the audio is encoded with; None until that is known."""
        return self.info.codec

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""
        return self._feed.ended.is_set()

    def report(self) -> StreamReport:
        """The stream's figures: present ones, or final ones when it has ended."""
        return self._feed.final or self._live_report(self.info)

    async def wait_ended(self) -> StreamReport:
        """Wait for the end; returns the final figures."""
        await self._feed.ended.wait()
        return self.report()

    async def blocks(self, *, queue_s: float = 5.0, conceal: bool = False) -> AsyncGenerator[Block]:
        """Blocks as they become ready (any size; a gap stands in ``block.gap``).

        ``conceal``: as of :meth:`frames`.
        """
        subscription = self._feed.subscribe(queue_s, conceal)
        try:
            while (item := await subscription.get()) is not None:
                block, _, missed = item
                if missed:
                    gap = Gap(missed + (block.gap.samples if block.gap else 0), GapCause.OVERRUN)
                    block = replace(block, gap=gap)
                yield block
        finally:
            self._feed.unsubscribe(subscription)

    @overload
    def frames(
        self, *, ms: float | None = ..., n: int | None = ..., hop: int | None = ..., rate: int | None = ...,
        dtype: Literal["int16"] = ..., queue_s: float = ..., conceal: bool = ...,
    ) -> AsyncIterator[Frame[I16]]: ...  # fmt: skip

    @overload
    def frames(
        self, *, ms: float | None = ..., n: int | None = ..., hop: int | None = ..., rate: int | None = ...,
        dtype: Literal["float32"], queue_s: float = ..., conceal: bool = ...,
    ) -> AsyncIterator[Frame[F32]]: ...  # fmt: skip

    @overload
    def frames(
        self, *, ms: float | None = ..., n: int | None = ..., hop: int | None = ..., rate: int | None = ...,
        dtype: Literal["int16", "float32"], queue_s: float = ..., conceal: bool = ...,
    ) -> AsyncIterator[Frame]: ...  # fmt: skip

    async def frames(
        self,
        *,
        ms: float | None = None,
        n: int | None = None,
        hop: int | None = None,
        rate: int | None = None,
        dtype: Literal["int16", "float32"] = "int16",
        queue_s: float = 5.0,
        conceal: bool = False,
    ) -> AsyncIterator[Frame]:
        """Frames of ``ms`` milliseconds (20 by default) or ``n`` samples at ``rate`` (None: the stream's own), one
        every ``hop`` samples (None: end to end): ``n=512, rate=16_000`` for Silero, ``ms=30`` for WebRTC's VAD.

        ``queue_s`` seconds of audio wait for a slow consumer; then the oldest are thrown away: ``frame.missed``
        counts them, and ``frame.gap`` with cause OVERRUN keeps positions exact.

        ``conceal``: gaps up to 1 s are filled for the ear, as a phone does (lost speech goes on for up to 60 ms, ITU-T
        G.711 Appendix I; comfort noise in suppressed silence), and ``frame.mask`` tells what was made up; ``gap`` is
        left for longer ones. Of what waited before the first call the gaps stay silent.

        Raises ConfigurationError when ``ms`` at ``rate`` is no whole number of samples, when both ``ms`` and ``n`` are
        given, and when ``hop`` is not 1 to ``n``.
        """
        if rate is not None:
            await asyncio.to_thread(prepare)
        subscription = self._feed.subscribe(queue_s, conceal)
        framer: Framer | None = None
        try:
            while (item := await subscription.get()) is not None:
                block, marks, missed = item
                if framer is None:
                    codec = block.stream.codec
                    framer = Framer(
                        ms=ms,
                        n=n,
                        hop=hop,
                        rate_in=block.stream.sample_rate,
                        clock_rate=codec.clock_rate if codec else block.stream.sample_rate,
                        rate=rate,
                        dtype=dtype,
                        channels=block.stream.channels,
                    )
                cause = block.gap.cause if block.gap else GapCause.NONE
                if missed:
                    framer.miss(missed)
                    cause = GapCause.OVERRUN
                for frame in framer.push(block.samples, block.position, cause, marks, block.mask if conceal else None):
                    yield frame
            if framer is not None:
                for frame in framer.finish():
                    yield frame
        finally:
            self._feed.unsubscribe(subscription)

    def speech(
        self,
        *,
        rate: int | None = 16_000,
        vad: Vad = "energy",
        lead_ms: float = 200,
        hang_ms: float = 500,
        max_s: float = 30,
        dtype: Literal["int16", "float32"] = "int16",
        queue_s: float = 30.0,
        conceal: bool = False,
    ) -> AsyncIterator[Heard]:
        """What is said, as it is said: ``SpeechStarted`` and ``SpeechStopped`` within 100 ms of the sound (for
        barge-in), and the whole ``Utterance`` when a pause of ``hang_ms`` has ended it.

        Short pauses within an utterance are told too: "stopped", and "started" with ``resumed``. See
        :meth:`utterances`, whose arguments these are. What turns out to be noise that came up has no utterance.
        """
        shape = UtteranceShape(rate, lead_ms, hang_ms, max_s, dtype)
        return heard_in(self.blocks(queue_s=queue_s, conceal=conceal), shape, vad)

    @overload
    def utterances(
        self, *, rate: int | None = ..., vad: Vad = ..., lead_ms: float = ..., hang_ms: float = ...,
        max_s: float = ..., dtype: Literal["int16"] = ..., queue_s: float = ..., conceal: bool = ...,
    ) -> AsyncIterator[Utterance[I16]]: ...  # fmt: skip

    @overload
    def utterances(
        self, *, rate: int | None = ..., vad: Vad = ..., lead_ms: float = ..., hang_ms: float = ...,
        max_s: float = ..., dtype: Literal["float32"], queue_s: float = ..., conceal: bool = ...,
    ) -> AsyncIterator[Utterance[F32]]: ...  # fmt: skip

    @overload
    def utterances(
        self, *, rate: int | None = ..., vad: Vad = ..., lead_ms: float = ..., hang_ms: float = ...,
        max_s: float = ..., dtype: Literal["int16", "float32"], queue_s: float = ..., conceal: bool = ...,
    ) -> AsyncIterator[Utterance]: ...  # fmt: skip

    async def utterances(
        self,
        *,
        rate: int | None = 16_000,
        vad: Vad = "energy",
        lead_ms: float = 200,
        hang_ms: float = 500,
        max_s: float = 30,
        dtype: Literal["int16", "float32"] = "int16",
        queue_s: float = 30.0,
        conceal: bool = False,
    ) -> AsyncIterator[Utterance]:
        """What is said, an utterance at a time, as a recognizer wants it.

        ``rate``     of the samples, Hz; None: the stream's own
        ``vad``      what finds speech. "energy": an adaptive threshold above the noise. "silero": a neural network,
                     all streams that ask in one run; it needs the extra ``vad``
        ``lead_ms``  so much before and after the speech comes along (after it no more than there is)
        ``hang_ms``  so long a pause ends an utterance
        ``max_s``    no utterance is longer: it is cut at the quietest place of its last quarter (at most 1 s), and the
                     next one goes on with the very next sample
        ``conceal``  as of :meth:`frames`; otherwise what was lost is zero

        ``queue_s`` seconds of audio wait for a slow consumer; then the oldest are thrown away, and ``missed`` tells.
        Each sample is in one utterance at most. Raises ConfigurationError for what cannot be, MissingExtraError.
        """
        heard = self.speech(
            rate=rate, vad=vad, lead_ms=lead_ms, hang_ms=hang_ms, max_s=max_s, dtype=dtype, queue_s=queue_s,
            conceal=conceal,
        )  # fmt: skip
        async for item in heard:
            if isinstance(item, Utterance):
                yield item

    async def events(self) -> AsyncIterator[StreamEvent]:
        """What happens in this stream: key presses, and what analyzers find. For one consumer."""
        while (event := await self._feed.events.get()) is not None:
            yield event
