"""Streams as users iterate over them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Literal, overload

from .._model.blocks import Block
from .._model.report import StreamReport
from .._model.types import Codec, Direction, GapCause, Leg, StreamEvent, StreamInfo
from .._speech.cutter import Heard, UtteranceShape
from .._speech.utterance import Utterance
from ..resample import prepare
from .feed import StreamFeed
from .framer import F32, I16, Frame, Framer
from .utterances import heard_in
from .voices import Vad

__all__ = ["Stream"]


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
            while not subscription.ended:
                if not subscription:
                    await subscription.wait()
                    continue
                missed, pieces, i = subscription.take()
                yield pieces.block(i, missed)
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
            while not subscription.ended:
                if not subscription:
                    await subscription.wait()
                    continue
                missed, pieces, i = subscription.take()
                if framer is None:
                    stream = pieces.streams[i]
                    framer = Framer(
                        ms=ms,
                        n=n,
                        hop=hop,
                        rate_in=stream.sample_rate,
                        clock_rate=stream.codec.clock_rate if stream.codec else stream.sample_rate,
                        rate=rate,
                        dtype=dtype,
                        channels=stream.channels,
                    )
                if missed:
                    framer.miss(missed)
                elif (whole := framer.whole(pieces, i, conceal)) is not None:  # a packet is a frame: the usual case
                    yield whole
                    continue
                for frame in framer.push(
                    pieces.values(i, framer.channels),
                    pieces.rows[i][0],
                    GapCause.OVERRUN if missed else pieces.cause(i),
                    pieces.marks(i),
                    pieces.mask(i) if conceal and pieces.made_up(i) else None,
                ):
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
