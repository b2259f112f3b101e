"""Engine events to sinks: in order, each sink on its own, none able to hurt another. Floor 5."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from ._archive import Archive
from ._blocks import BlockBatch
from ._conceal import Concealer
from ._events import Ended, Event, Fault, Limited, Notice, Started
from ._incidents import Incidents
from ._inorder import InOrder
from ._packed.comfort import comfort_noise
from ._report import StreamReport
from ._types import StreamEvent, StreamInfo
from .sinks._base import Sink
from .sinks.dtmf import redacted

__all__ = ["Dispatcher"]

_log = logging.getLogger("strep")
_QUEUE_BYTES: Final = 64 << 20
_KEPT_REPORTS: Final = 100_000
_LIMITS: Final = {
    "streams": "there are as many streams as may be: new ones are refused, one of them from {}",
    "source": "{} begins new streams faster than may be: some of them are refused",
}


class _Lane:
    """One sink: called in place when it says it never blocks (``inline``), otherwise from a thread of its own."""

    def __init__(self, sink: Sink, lossless: bool) -> None:
        self.sink = sink
        self.wants_audio = bool(getattr(sink, "wants_audio", True))
        self._hear: Callable[[StreamEvent], object] | None = getattr(sink, "event", None)
        self.failed: str | None = None
        self.dropped_frames = 0
        self._lossless = lossless
        self._queue: deque[tuple[Event, int]] = deque()
        self._bytes = 0
        self._closing = False
        self._untold: set[int] = set()  # serials of streams whose end waits in the queue
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        if not getattr(sink, "inline", False):
            self._thread = threading.Thread(target=self._run, name=f"strep-{type(sink).__name__}", daemon=True)
            self._thread.start()

    @property
    def conceals(self) -> bool | str:
        """What the sink wants now; a sink may change its mind."""
        wish: bool | str = getattr(self.sink, "concealment", False)
        return wish if self.wants_audio and self.failed is None else False

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
                    self.dropped_frames += int(event.frames.sum()) if isinstance(event, BlockBatch) else 0
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
            self._call(event)
            with self._condition:
                if isinstance(event, Ended):
                    self._untold.discard(event.stream.serial)
                self._bytes -= size
                self._condition.notify_all()
                if self.failed is not None:
                    return

    def settled(self, stream: StreamInfo) -> bool:
        """Whether the sink knows that the stream has ended and has nothing more to do for it."""
        if self.failed is not None:
            return True
        done: Callable[[StreamInfo], bool] | None = getattr(self.sink, "settled", None)
        return stream.serial not in self._untold and (done is None or done(stream))

    def _call(self, event: Event) -> None:
        try:
            if isinstance(event, BlockBatch):
                self.sink.blocks(event.filled if self.conceals is True else event)
            elif isinstance(event, StreamEvent):
                if self._hear is not None:
                    self._hear(event)
            elif isinstance(event, Started):
                self.sink.stream_started(event.stream)
            elif isinstance(event, Ended):
                self.sink.stream_ended(event.stream, event.report)
        except Exception as error:
            # quarantine: this sink gets nothing more, the others do not notice
            self.failed = f"{type(error).__name__}: {error}"
            _log.exception("sink %s failed and gets no more data", type(self.sink).__name__)

    def close(self, timeout_s: float) -> None:
        """Let the sink finish; blocks for at most about ``timeout_s``."""
        worker = threading.Thread(target=self._close, args=(timeout_s,), name="strep-close", daemon=True)
        worker.start()
        worker.join(timeout_s)
        if worker.is_alive():
            self.failed = self.failed or f"did not finish within {timeout_s:g} s"

    def _close(self, timeout_s: float) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()
        try:
            self.sink.close(timeout_s)
        except Exception as error:
            self.failed = self.failed or f"{type(error).__name__}: {error}"
            _log.exception("sink %s failed to close", type(self.sink).__name__)

    def report(self) -> dict[str, Any]:
        try:
            report = dict(self.sink.report())
        except Exception as error:
            report = {"kind": type(self.sink).__name__, "failed": f"{type(error).__name__}: {error}"}
        report["failed"] = self.failed or report.get("failed")
        report["dropped_frames"] = int(report.get("dropped_frames") or 0) + self.dropped_frames
        return report


class Dispatcher:
    """Hands events to sinks and keeps the final figures of streams that ended.

    ``lossless``: a sink that is slow holds the caller up instead of losing data (replays). ``redact``: of key presses
    nobody is told which key it was.
    ``concealer``: fills gaps, once for all sinks that want it, in the thread of the first that asks.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        lossless: bool = False,
        redact: bool = False,
        concealer: Concealer | None = None,
        incidents: Incidents | None = None,
    ) -> None:
        self.incidents = incidents or Incidents(time.time_ns)
        self._concealer = concealer or Concealer(comfort_noise)
        self._order = InOrder()
        self._redact = redact
        self._lanes = [_Lane(sink, lossless) for sink in sinks]
        for lane in self._lanes:
            report_to = getattr(lane.sink, "report_to", None)
            if report_to is not None:
                report_to(self.incidents)
            connect = getattr(lane.sink, "connect", None)
            if connect is not None:
                connect(self.publish)
        self.ended: Archive[StreamReport] = Archive(_KEPT_REPORTS)

    def handle(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Notice):
                _log.warning("%s %s: %s", event.stream.name, event.stream.stem, event.text)
                continue
            if isinstance(event, Fault):
                self.incidents.fault(event.place, event.error, stream=event.stream, packets=event.packets)
                continue
            if isinstance(event, Limited):
                self.incidents.tell("limited", _LIMITS[event.limit].format(event.address), address=event.address)
                continue
            if isinstance(event, StreamEvent):
                self.publish(event)
                continue
            if isinstance(event, BlockBatch) and any(lane.conceals for lane in self._lanes):
                event.fill = self._order.add(partial(self._fill, event))
            for lane in self._lanes:
                if lane.wants_audio or not isinstance(event, BlockBatch):
                    lane.put(event)
            if isinstance(event, Ended):
                self.ended.add(event.stream.serial, event.report)

    def _fill(self, batch: BlockBatch) -> BlockBatch | None:
        filled = self._concealer.fill(batch)
        return None if filled is batch else filled

    def publish(self, event: StreamEvent) -> None:
        """Tell every sink of an event; from any thread."""
        if self._redact:
            event = redacted(event)
        for lane in self._lanes:
            lane.put(event)

    def settle(self) -> None:
        """Wait until sinks that write behind have room again (replays: nothing may be dropped)."""
        for lane in self._lanes:
            wait = getattr(lane.sink, "wait_for_room", None)
            if wait is not None and lane.failed is None:
                wait()

    def close(self, timeout_s: float) -> None:
        """Finish all sinks side by side."""
        threads = [threading.Thread(target=lane.close, args=(timeout_s,), daemon=True) for lane in self._lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def reports(self) -> list[dict[str, Any]]:
        return [lane.report() for lane in self._lanes]

    def settled(self, stream: StreamInfo) -> bool:
        """Whether all sinks are done with a stream that has ended: its figures and files are complete."""
        return all(lane.settled(stream) for lane in self._lanes)

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        """What all sinks have to say of a stream, for its entry in the summary."""
        found: dict[str, Any] = {}
        for lane in self._lanes:
            try:
                figures = getattr(lane.sink, "figures", None)
                if figures is not None:
                    found |= figures(stream)
            except Exception:
                _log.exception("sink %s cannot tell its figures", type(lane.sink).__name__)
        return found

    def files(self, stream: StreamInfo) -> list[str]:
        found: list[str] = []
        for lane in self._lanes:
            try:
                found += lane.sink.files(stream)
            except Exception:
                _log.exception("sink %s cannot tell its files", type(lane.sink).__name__)
        return found
