"""One sink's way: its events in order, from a thread of its own unless it never blocks."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final

from .._model.blocks import BlockBatch
from .._model.events import Ended, Event, Started
from .._model.types import StreamEvent, StreamInfo
from .._threads.incidents import Incidents
from ..sinks.base import BaseSink, class_name
from ..sinks.guarded import GuardedSink

__all__ = ["Lane"]

_QUEUE_BYTES: Final = 64 << 20


class Lane:
    """One sink: called in place when it says it never blocks (``inline``), otherwise from a thread of its own."""

    def __init__(self, sink: BaseSink, incidents: Incidents, lossless: bool) -> None:
        self.sink = sink
        self.wants_audio = sink.wants_audio
        self._incidents = incidents
        self.guarded = GuardedSink(sink)
        self.guarded.report_to(incidents)
        self._timed_out: str | None = None
        self._overrun = 0  # frames that found no room in the queue
        self._lossless = lossless
        self._queue: deque[tuple[Event, int]] = deque()
        self._bytes = 0
        self._closing = False
        self._untold: set[int] = set()  # serials of streams whose end waits in the queue
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        if not sink.inline:
            self._thread = threading.Thread(target=self._run, name=f"strep-{class_name(sink)}", daemon=True)
            self._thread.start()

    @property
    def failed(self) -> str | None:
        return self.guarded.failed or self._timed_out

    @property
    def conceals(self) -> bool | str:
        """What the sink wants now; a sink may change its mind."""
        return self.sink.concealment if self.wants_audio and self.failed is None else False

    def put(self, event: Event) -> None:
        if self.failed is not None:
            return
        if self._thread is None:
            self._call(event)
            return
        # encoded and decoded: of packed codecs the second is far larger
        size = event.payload.nbytes + 2 * int(event.offset[-1]) if isinstance(event, BlockBatch) else 0
        with self._condition:
            if self._bytes and size and self._bytes + size > _QUEUE_BYTES:
                if not self._lossless:
                    self._overrun += int(event.frames.sum()) if isinstance(event, BlockBatch) else 0
                    return
                limit = max(size, _QUEUE_BYTES)
                self._condition.wait_for(lambda: self._bytes + size <= limit or self.failed is not None)
            if isinstance(event, Ended):
                self._untold.add(event.stream.serial)
            self._queue.append((event, size))
            self._bytes += size
            self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                event, size = self._queue.popleft()
            try:
                self._call(event)
            except Exception as error:
                self._incidents.fault("dispatch", error)
            with self._condition:
                if isinstance(event, Ended):
                    self._untold.discard(event.stream.serial)
                self._bytes -= size
                self._condition.notify_all()
                if self.failed is not None:
                    return

    def _call(self, event: Event) -> None:
        guarded = self.guarded
        if isinstance(event, BlockBatch):
            guarded.blocks(event.filled if self.conceals is True else event)
        elif isinstance(event, StreamEvent):
            guarded.event(event)
        elif isinstance(event, Started):
            guarded.stream_started(event.stream)
        elif isinstance(event, Ended):
            guarded.stream_ended(event.stream, event.report)

    def settled(self, stream: StreamInfo) -> bool:
        """Whether the sink knows that the stream has ended and has nothing more to do for it."""
        return self.failed is not None or (stream.serial not in self._untold and self.guarded.settled(stream))

    def close(self, timeout_s: float) -> None:
        """Let the sink finish; blocks for at most about ``timeout_s``."""
        worker = threading.Thread(target=self._close, args=(timeout_s,), name="strep-close", daemon=True)
        worker.start()
        worker.join(timeout_s)
        if worker.is_alive():
            self._timed_out = f"did not finish within {timeout_s:g} s"

    def _close(self, timeout_s: float) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()
        self.guarded.close(timeout_s)

    def report(self) -> dict[str, Any]:
        report = self.guarded.report()
        report["failed"] = report["failed"] or self._timed_out
        report["dropped_frames"] += self._overrun
        return report
