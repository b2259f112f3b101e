"""Gives audio and events to those who iterate over streams, and tells watchers of streams that come and end."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from .._model.blocks import BlockBatch
from .._model.report import StreamReport
from .._model.types import StreamEvent, StreamInfo
from .._threads.incidents import Incident, Incidents
from ..sinks.base import BaseSink
from .event_queue import Broadcast
from .feed import StreamFeed
from .pieces import Pieces
from .stream import Stream

__all__ = ["StreamHub", "WatchKey", "Watcher"]

_AFTERMATH_S: Final = 2.0  # how long after a stream's end analyzers may still tell of it
_WAITING_STREAMS: Final = 20_000  # that began and that nobody has taken yet; newer ones are not given out

WatchKey = uuid.UUID | int


class Watcher(Protocol):
    """Is told of streams that come and end, while they do: it must not call the receiver then."""

    def stream_started(self, stream: StreamInfo) -> None:
        """A stream of what is watched was admitted."""

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        """It has ended, with these final figures."""


@dataclass(frozen=True, slots=True)
class _Handle:
    """A stream that somebody holds, and what it is fed by."""

    stream: Stream
    feed: StreamFeed


class StreamHub(BaseSink):
    """Feeds the streams that users hold, and those who iterate over streams, events or incidents.

    It is a sink, called in the event loop's thread. Events and incidents come from any thread, and are passed on in the
    loop's. ``report`` gives the present figures of a live stream.
    """

    kind = "streams"
    inline = True
    repeatable = True  # everything is made before anything is given

    def __init__(self, report: Callable[[StreamInfo], StreamReport], max_waiting: int = _WAITING_STREAMS) -> None:
        self._report = report
        self._live: dict[int, _Handle] = {}  # that somebody holds, by serial
        self._ended: dict[int, _Handle] = {}  # but analyzers may still find something
        self._events: Broadcast[StreamEvent] = Broadcast()
        self._incidents: Broadcast[Incident] = Broadcast()
        self._faults: Incidents | None = None
        self._watchers: dict[WatchKey, list[Watcher]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._new: deque[Stream] = deque()
        self._max_waiting = max_waiting
        self._wake = asyncio.Event()
        self._closed = False
        self.iterated = False
        """Whether somebody iterates over streams."""
        self._concealing = 0  # consumers who want gaps concealed

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Consumers live in this loop."""
        self._loop = loop

    @property
    def consumed(self) -> bool:
        """Whether somebody may read audio."""
        return self.iterated or bool(self._live)

    # --- for those who iterate ------------------------------------------------------------------------------------

    def iterate(self, live: Iterable[StreamInfo]) -> None:
        """From now on :meth:`streams` gives new streams; first those that live already. Safe to call twice."""
        if not self.iterated:
            self.iterated = True
            for info in live:
                self._offer(info)

    async def streams(self) -> AsyncIterator[Stream]:
        """Streams that began since :meth:`iterate`, each to one consumer; ends with :meth:`finish`."""
        while True:
            while not self._new:
                if self._closed:
                    return
                self._wake.clear()
                await self._wake.wait()
            yield self._new.popleft()

    def stream_of(self, info: StreamInfo) -> Stream:
        """The one Stream of a live stream."""
        handle = self._live.get(info.serial)
        if handle is None:
            feed = StreamFeed(self.conceal)
            handle = self._live[info.serial] = _Handle(Stream(info, self._report, feed), feed)
        return handle.stream

    def events(self) -> AsyncIterator[StreamEvent]:
        """Events of all streams, for one consumer, until :meth:`finish_events`."""
        return self._events.events()

    def incidents(self) -> AsyncIterator[Incident]:
        """Incidents of the receiver, for one consumer, until :meth:`finish_events`."""
        return self._incidents.events()

    def finish(self) -> None:
        """No more streams will come."""
        self._closed = True
        self._wake.set()

    def finish_events(self) -> None:
        """No more events will come: analyzers are done."""
        for handle in (*self._live.values(), *self._ended.values()):
            handle.feed.events.end()
        self._events.end()
        self._incidents.end()

    def conceal(self, change: int) -> None:
        """So many more consumers want gaps concealed; negative: fewer."""
        self._concealing += change
        self.concealment = "later" if self._concealing else False

    # --- for watchers ---------------------------------------------------------------------------------------------

    def watch(self, key: WatchKey, watcher: Watcher) -> None:
        """Tell ``watcher`` of the streams of a call leg, or of a port, that come and end."""
        self._watchers.setdefault(key, []).append(watcher)

    def unwatch(self, key: WatchKey, watcher: Watcher) -> None:
        """Tell it no more. Safe to call twice."""
        watchers = self._watchers.get(key, [])
        if watcher in watchers:
            watchers.remove(watcher)
        if not watchers:
            self._watchers.pop(key, None)

    def _tell_watchers(self, stream: StreamInfo, tell: Callable[[Watcher], None]) -> None:
        if not self._watchers:
            return
        by_leg = self._watchers.get(stream.call_leg_id, ()) if stream.call_leg_id is not None else ()
        for watcher in [*by_leg, *self._watchers.get(stream.local_port, ())]:
            try:
                tell(watcher)
            except Exception as error:
                if self._faults is not None:
                    self._faults.fault("watcher", error, stream=stream)

    # --- as a sink ------------------------------------------------------------------------------------------------

    def report_to(self, incidents: Incidents) -> None:
        self._faults = incidents
        incidents.listen(self._hear)

    def stream_started(self, stream: StreamInfo) -> None:
        self._tell_watchers(stream, lambda watcher: watcher.stream_started(stream))
        self._offer(stream)

    def _offer(self, stream: StreamInfo) -> None:
        if self.iterated and len(self._new) < self._max_waiting:
            self._new.append(self.stream_of(stream))
            self._wake.set()

    def blocks(self, batch: BlockBatch) -> None:
        if not self._live:
            return
        filled = batch.filled if self._concealing else batch
        plain = Pieces(batch)
        concealed = plain if filled is batch else Pieces(filled)
        live = self._live
        for i, stream in enumerate(batch.streams):
            handle = live.get(stream.serial)
            if handle is not None:
                for subscription in handle.feed.subscriptions:
                    subscription.put(concealed if subscription.conceals else plain, i)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        self._tell_watchers(stream, lambda watcher: watcher.stream_ended(stream, report))
        handle = self._live.pop(stream.serial, None)
        if handle is not None:
            handle.feed.end(report)
            if self._loop is not None:
                self._ended[stream.serial] = handle
                self._loop.call_later(_AFTERMATH_S, self._retire, stream.serial)

    def _retire(self, serial: int) -> None:
        handle = self._ended.pop(serial, None)
        if handle is not None:
            handle.feed.events.end()

    def event(self, event: StreamEvent) -> None:
        if (self._events.wanted or self._live or self._ended) and self._loop is not None:
            self._loop.call_soon_threadsafe(self._pass_on, event)

    def _pass_on(self, event: StreamEvent) -> None:
        self._events.put(event)
        serial = event.stream.serial
        handle = self._live.get(serial) or self._ended.get(serial)
        if handle is not None:
            handle.feed.events.put(event)

    def _hear(self, incident: Incident) -> None:
        if self._incidents.wanted and self._loop is not None:
            self._loop.call_soon_threadsafe(self._incidents.put, incident)
