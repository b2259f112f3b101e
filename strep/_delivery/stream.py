"""Streams as users iterate them."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Generic, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .._model.blocks import Block, BlockBatch
from .._model.report import StreamReport
from .._model.types import Codec, Direction, Gap, GapCause, Leg, StreamEvent, StreamInfo
from .._threads.incidents import Incident, Incidents
from ..resample import prepare
from ..sinks.base import BaseSink
from .framer import Frame, Framer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["EventQueue", "Stream", "StreamHub", "WatchKey", "Watcher"]

_AFTERMATH_S: Final = 2.0  # how long after a stream's end analyzers may still tell of it
_Marks = list[tuple[int, int, int]]
_T = TypeVar("_T")


class _Subscription:
    """A bounded queue of blocks of one stream for one consumer. What does not fit pushes out the oldest."""

    def __init__(self, limit_s: float, conceals: bool = False) -> None:
        self.limit_s = limit_s
        self.conceals = conceals
        self._blocks: deque[tuple[Block, _Marks]] = deque()
        self._frames = 0
        self.missed = 0  # frames thrown away, not told yet
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    def put(self, block: Block, marks: _Marks) -> None:
        self._frames += len(block.samples)
        if self._blocks:
            limit = self.limit_s * block.stream.sample_rate
            while self._frames > limit and self._blocks:
                old, _ = self._blocks.popleft()
                self._frames -= len(old.samples)
                self.missed += len(old.samples)
        self._blocks.append((block, marks))
        if self._waiter is not None:
            self._rouse()

    def end(self) -> None:
        self._ended = True
        self._rouse()

    def _rouse(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def get(self) -> tuple[Block, _Marks, int] | None:
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


class EventQueue(Generic[_T]):
    """Events for one consumer, the last 10,000 that it has not taken."""

    def __init__(self) -> None:
        self._events: deque[_T] = deque(maxlen=10_000)
        self._wake = asyncio.Event()
        self._ended = False

    def put(self, event: _T) -> None:
        self._events.append(event)
        self._wake.set()

    def end(self) -> None:
        self._ended = True
        self._wake.set()

    async def get(self) -> _T | None:
        while not self._events:
            if self._ended:
                return None
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()


class Stream:
    """One direction of one call leg, while it lives and after. Made by iterating a :class:`strep.Receiver`."""

    def __init__(self, info: StreamInfo, report: Callable[[StreamInfo], StreamReport], hub: StreamHub) -> None:
        self.info = info
        self._hub = hub
        self._live_report = report
        self._final: StreamReport | None = None
        self._subscriptions: list[_Subscription] = []
        # until somebody listens, the last seconds are kept for the first who does
        self._early: _Subscription | None = _Subscription(5.0)
        self._subscriptions.append(self._early)
        self._ended = asyncio.Event()
        self._events: EventQueue[StreamEvent] = EventQueue()

    def __repr__(self) -> str:
        return f"<Stream {self.info.name} {self.info.leg.label}-{self.direction.label} {self.codec or '?'}>"

    @property
    def call_leg_id(self) -> uuid.UUID | None:
        """None for plain RTP on a port nobody named."""
        return self.info.call_leg_id

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def leg(self) -> Leg:
        return self.info.leg

    @property
    def direction(self) -> Direction:
        return self.info.direction

    @property
    def codec(self) -> Codec | None:
        return self.info.codec

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def report(self) -> StreamReport:
        """The stream's figures: present ones, or final ones when it has ended."""
        return self._final or self._live_report(self.info)

    async def wait_ended(self) -> StreamReport:
        await self._ended.wait()
        return self.report()

    async def blocks(self, *, queue_s: float = 5.0, conceal: bool = False) -> AsyncIterator[Block]:
        """Blocks as they become ready (any size; a gap stands in ``block.gap``).

        ``conceal``: as of :meth:`frames`.
        """
        subscription = self._subscribe(queue_s, conceal)
        try:
            while (item := await subscription.get()) is not None:
                block, _, missed = item
                if missed:
                    gap = Gap(missed + (block.gap.samples if block.gap else 0), GapCause.OVERRUN)
                    block = replace(block, gap=gap)
                yield block
        finally:
            self._unsubscribe(subscription)

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
        subscription = self._subscribe(queue_s, conceal)
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
            self._unsubscribe(subscription)

    async def events(self) -> AsyncIterator[StreamEvent]:
        """What happens in this stream: key presses, and what analyzers find. For one consumer."""
        while (event := await self._events.get()) is not None:
            yield event

    def _subscribe(self, queue_s: float, conceal: bool) -> _Subscription:
        if conceal:
            self._hub.conceal(1)
        if self._early is not None:
            subscription, self._early = self._early, None
            subscription.limit_s = queue_s
            subscription.conceals = conceal
            return subscription
        subscription = _Subscription(queue_s, conceal)
        if self.ended:
            subscription.end()
        self._subscriptions.append(subscription)
        return subscription

    def _unsubscribe(self, subscription: _Subscription) -> None:
        self._subscriptions.remove(subscription)
        if subscription.conceals:
            self._hub.conceal(-1)

    def _put(self, plain: tuple[Block, _Marks], filled: tuple[Block, _Marks]) -> None:
        for subscription in self._subscriptions:
            subscription.put(*(filled if subscription.conceals else plain))

    def _end(self, report: StreamReport) -> None:
        self._final = report
        self._ended.set()
        for subscription in self._subscriptions:
            subscription.end()


WatchKey = uuid.UUID | int


class Watcher(Protocol):
    """Hears of streams as they come and end, in the midst of it: it must not call the receiver."""

    def stream_started(self, stream: StreamInfo) -> None: ...

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None: ...


class StreamHub(BaseSink):
    """Gives blocks to the streams that users hold."""

    kind = "streams"
    inline = True
    repeatable = True  # everything is made before anything is given

    def __init__(self, report: Callable[[StreamInfo], StreamReport], backlog: int = 20_000) -> None:
        self._report = report
        self._streams: dict[int, Stream] = {}  # by serial
        self._listeners: list[EventQueue[StreamEvent]] = []
        self._incident_listeners: list[EventQueue[Incident]] = []
        self._incidents: Incidents | None = None
        self._watchers: dict[WatchKey, list[Watcher]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finished: dict[int, Stream] = {}  # ended, but analyzers may still find something
        self._new: deque[Stream] = deque()
        self._backlog = backlog
        self._wake = asyncio.Event()
        self._closed = False
        self.active = False  # somebody iterates
        self._concealing = 0  # consumers who want gaps concealed

    def activate(self, live: Iterable[StreamInfo]) -> None:
        if not self.active:
            self.active = True
            for info in live:
                self.stream_started(info)

    @property
    def consumed(self) -> bool:
        """Whether somebody may read audio."""
        return self.active or bool(self._streams)

    def stream_started(self, stream: StreamInfo) -> None:
        for watcher in self._watching(stream):
            try:
                watcher.stream_started(stream)
            except Exception as error:
                self._fault(error, stream)
        if not self.active or len(self._new) >= self._backlog:
            return
        self._new.append(self.handle(stream))
        self._wake.set()

    def handle(self, stream: StreamInfo) -> Stream:
        """The one Stream of a stream that lives."""
        handle = self._streams.get(stream.serial)
        if handle is None:
            handle = self._streams[stream.serial] = Stream(stream, self._report, self)
        return handle

    def watch(self, key: WatchKey, watcher: Watcher) -> None:
        """Tell ``watcher`` of the streams of a call leg, or of a port, that come and end."""
        self._watchers.setdefault(key, []).append(watcher)

    def unwatch(self, key: WatchKey, watcher: Watcher) -> None:
        watchers = self._watchers.get(key, [])
        if watcher in watchers:
            watchers.remove(watcher)
        if not watchers:
            self._watchers.pop(key, None)

    def _watching(self, stream: StreamInfo) -> list[Watcher]:
        if not self._watchers:
            return []
        by_leg = self._watchers.get(stream.call_leg_id, ()) if stream.call_leg_id is not None else ()
        return [*by_leg, *self._watchers.get(stream.local_port, ())]

    def blocks(self, batch: BlockBatch) -> None:
        if not self._streams:
            return
        filled = batch.filled if self._concealing else batch
        first = batch.packet_first.tolist()
        plain = list(_with_marks(batch, first))
        other_way = plain if filled is batch else list(_with_marks(filled, first))
        for item, other in zip(plain, other_way, strict=True):
            stream = self._streams.get(item[0].stream.serial)
            if stream is not None:
                stream._put(item, other)

    def _fault(self, error: Exception, stream: StreamInfo) -> None:
        if self._incidents is not None:
            self._incidents.fault("watcher", error, stream=stream)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        for watcher in self._watching(stream):
            try:
                watcher.stream_ended(stream, report)
            except Exception as error:
                self._fault(error, stream)
        handle = self._streams.pop(stream.serial, None)
        if handle is not None:
            handle._end(report)
            if self._loop is not None:
                self._finished[stream.serial] = handle
                self._loop.call_later(_AFTERMATH_S, self._retire, stream.serial)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop that consumers live in: events come from analyzers' threads."""
        self._loop = loop

    def event(self, event: StreamEvent) -> None:
        if (self._listeners or self._streams or self._finished) and self._loop is not None:
            self._loop.call_soon_threadsafe(self._hand_on, event)

    def _hand_on(self, event: StreamEvent) -> None:
        for listener in self._listeners:
            listener.put(event)
        serial = event.stream.serial
        handle = self._streams.get(serial) or self._finished.get(serial)
        if handle is not None:
            handle._events.put(event)

    def _retire(self, serial: int) -> None:
        handle = self._finished.pop(serial, None)
        if handle is not None:
            handle._events.end()

    def listen(self) -> EventQueue[StreamEvent]:
        queue: EventQueue[StreamEvent] = EventQueue()
        self._listeners.append(queue)
        return queue

    def unlisten(self, queue: EventQueue[StreamEvent]) -> None:
        self._listeners.remove(queue)

    def report_to(self, incidents: Incidents) -> None:
        self._incidents = incidents
        incidents.listen(self._hear)

    def _hear(self, incident: Incident) -> None:
        if self._incident_listeners and self._loop is not None:
            self._loop.call_soon_threadsafe(self._hand_on_incident, incident)

    def _hand_on_incident(self, incident: Incident) -> None:
        for listener in self._incident_listeners:
            listener.put(incident)

    def listen_incidents(self) -> EventQueue[Incident]:
        queue: EventQueue[Incident] = EventQueue()
        self._incident_listeners.append(queue)
        return queue

    def unlisten_incidents(self, queue: EventQueue[Incident]) -> None:
        self._incident_listeners.remove(queue)

    def conceal(self, more: int) -> None:
        """So many more (or fewer) consumers want gaps concealed."""
        self._concealing += more
        self.concealment = "later" if self._concealing else False

    def finish(self) -> None:
        self._closed = True
        self._wake.set()

    def finish_events(self) -> None:
        """Analyzers have told everything."""
        for queue in [*self._listeners, *(s._events for s in [*self._streams.values(), *self._finished.values()])]:
            queue.end()
        for listener in self._incident_listeners:
            listener.end()

    async def next(self) -> Stream | None:
        while not self._new:
            if self._closed:
                return None
            self._wake.clear()
            await self._wake.wait()
        return self._new.popleft()


def _with_marks(batch: BlockBatch, first: list[int]) -> Iterator[tuple[Block, _Marks]]:
    marks = _marks(batch)
    for i, block in enumerate(batch):
        yield block, marks[first[i] : first[i + 1]]


def _marks(batch: BlockBatch) -> _Marks:
    """Of every packet of the batch: where its first frame stands in its stream, RTP timestamp, arrival."""
    frames = batch.packet_frames
    before: npt.NDArray[np.int64] = np.cumsum(frames) - frames
    first = batch.packet_first[:-1]
    at = before + np.repeat(batch.position - before[first], np.diff(batch.packet_first))
    return list(zip(at.tolist(), batch.packet_rtp_timestamp.tolist(), batch.packet_arrival_ns.tolist(), strict=True))
