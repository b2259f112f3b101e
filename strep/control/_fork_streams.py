"""The streams of one fork: from the receiver, for users who iterate them, and in figures."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable

from .._delivery.stream import Stream
from .._model.report import StreamReport
from .._model.types import Direction, StreamInfo
from ._protocols import MediaReceiver

__all__ = ["ForkStreams"]


class ForkStreams:
    """``heard`` is called when a stream begins, in the midst of the receiver's work."""

    def __init__(self, receiver: MediaReceiver, heard: Callable[[], None]) -> None:
        self._receiver = receiver
        self._heard = heard
        self._keys: list[uuid.UUID | int] = []
        self._live: dict[int, StreamInfo] = {}  # by serial
        self._ended: Counter[Direction] = Counter()  # packets of streams that have ended
        self._new: deque[StreamInfo | Stream] = deque()
        self._iterated = False
        self._came = asyncio.Event()
        self._over = False
        self.count = 0  # ended or not
        self.encrypted = False

    @property
    def watching(self) -> bool:
        """Whether it is known which streams are the fork's."""
        return bool(self._keys)

    def watch(self, key: uuid.UUID | int) -> None:
        """The streams of a call leg, or of a port, are the fork's."""
        self._keys.append(key)
        for info in self._receiver.watch(key, self):
            self.stream_started(info)

    def close(self) -> None:
        for key in self._keys:
            self._receiver.unwatch(key, self)
        self._over = True
        self._came.set()

    # --- for the receiver ---------------------------------------------------------------------------------------------

    def stream_started(self, stream: StreamInfo) -> None:
        self._live[stream.serial] = stream
        self.count += 1
        self.encrypted |= stream.encrypted
        self._new.append(self._receiver.stream(stream) if self._iterated else stream)
        self._came.set()
        self._heard()

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        self._live.pop(stream.serial, None)
        self._ended[stream.direction] += report.packets_received

    # --- for users ----------------------------------------------------------------------------------------------------

    def iterate(self) -> None:
        """Somebody will iterate: from now on streams are kept with their audio."""
        if not self._iterated and self._receiver.running:
            self._iterated = True
            self._receiver.want_audio()

    async def iteration(self) -> AsyncIterator[Stream]:
        while True:
            while self._new:
                item = self._new.popleft()
                if isinstance(item, Stream):
                    yield item
                elif item.serial in self._live and self._receiver.running:
                    yield self._receiver.stream(item)
            if self._over:
                return
            self._came.clear()
            await self._came.wait()

    # --- figures ------------------------------------------------------------------------------------------------------

    def last_arrival_ns(self) -> int:
        """When the last packet came, on the receiver's clock; 0: no stream lives."""
        return self._receiver.last_arrival_of(self._live.values())

    def packets(self) -> Counter[Direction]:
        """How many packets have come, by direction."""
        packets = self._ended.copy()
        if self._receiver.running:
            for info in self._live.values():
                with contextlib.suppress(LookupError):
                    packets[info.direction] += self._receiver.report(info).packets_received
        return packets
