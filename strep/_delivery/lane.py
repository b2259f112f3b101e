"""One sink's way: its events in order, from a thread of its own unless it never blocks, or shares one."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any, Final

from .._model.blocks import BlockBatch
from .._model.events import Ended, Event, Started
from .._model.types import StreamEvent, StreamInfo
from .._threads.incidents import Incidents
from .._threads.worker_queue import WorkerQueue
from ..sinks.base import BaseSink, class_name, hears_events
from ..sinks.guarded import GuardedSink

__all__ = ["QUEUE_BYTES", "Lane", "size_of"]

QUEUE_BYTES: Final = 64 << 20  # of audio that may wait for a sink, encoded and decoded


def size_of(event: Event) -> int:
    """How much of a queue an event takes, in bytes: audio encoded and decoded (of packed codecs the second is far
    larger)."""
    return event.payload.nbytes + 2 * int(event.offset[-1]) if isinstance(event, BlockBatch) else 0


class Lane:
    """One sink: called in place if it never blocks (``inline``), otherwise from a thread of its own, or that of a
    :class:`.lane_group.LaneGroup` if it lets audio gather (``gather_ms``).

    ``lossless``: when the sink is slow, :meth:`put` waits instead of losing audio.
    """

    def __init__(self, sink: BaseSink, incidents: Incidents, lossless: bool) -> None:
        self.sink = sink
        self.wants_audio = sink.wants_audio
        self.hears_events = hears_events(sink)
        self.guarded = GuardedSink(sink)
        self.guarded.report_to(incidents)
        self._timed_out: str | None = None
        self._overrun = 0  # frames that found no room in the queue
        self._lossless = lossless
        self._untold: set[int] = set()  # serials of streams whose end waits in the queue
        self._queue: WorkerQueue[Event] | None = None
        self._shared = False  # the queue is one of several lanes
        if not sink.inline and not self.gather_ms:
            self._queue = WorkerQueue(
                self.serve,
                name=f"strep-{class_name(sink)}",
                limit=QUEUE_BYTES,
                on_fault=partial(incidents.fault, "dispatch"),
            )

    @property
    def gather_ms(self) -> float:
        """Of a sink that takes audio with others; 0: of any other."""
        return 0 if self.sink.inline or not self.wants_audio else self.sink.gather_ms

    @property
    def failed(self) -> str | None:
        return self.guarded.failed or self._timed_out

    @property
    def crowded(self) -> bool:
        """Whether more than half of what may wait for the sink does."""
        return self.failed is None and self._queue is not None and self._queue.size > QUEUE_BYTES // 2

    @property
    def conceals(self) -> bool | str:
        """What the sink wants now; a sink may change its mind."""
        return self.sink.concealment if self.wants_audio and self.failed is None else False

    def put(self, event: Event) -> None:
        if self.failed is not None or (isinstance(event, StreamEvent) and not self.hears_events):
            return
        if self._queue is None:
            self._call(event)
            return
        if isinstance(event, Ended):
            self.expect(event)
        taken = self._queue.put(event, size_of(event), wait=self._lossless)
        if not taken and isinstance(event, BlockBatch) and self.failed is None:
            self.lose(event)

    def join(self, queue: WorkerQueue[Event]) -> None:
        """For its group: whose thread calls :meth:`serve`."""
        self._queue, self._shared = queue, True

    def expect(self, event: Ended) -> None:
        """This will be told, but is not yet."""
        self._untold.add(event.stream.serial)

    def lose(self, batch: BlockBatch) -> None:
        """There is no room for this."""
        self._overrun += int(batch.frames.sum())

    def serve(self, event: Event) -> None:
        """Give the sink an event, in its thread."""
        try:
            self._call(event)
        finally:
            if isinstance(event, Ended):
                self._untold.discard(event.stream.serial)
            if self.failed is not None and self._queue is not None and not self._shared:
                self._queue.abandon()

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
        """Let the sink finish; blocks for at most about ``timeout_s``. One that hangs is left behind."""
        worker = threading.Thread(target=self._close, args=(timeout_s,), name="strep-close", daemon=True)
        worker.start()
        worker.join(timeout_s)
        if worker.is_alive():
            self._timed_out = f"did not finish within {timeout_s:g} s"

    def _close(self, timeout_s: float) -> None:
        if self._queue is not None:
            self._queue.close(None)
        self.guarded.close(timeout_s)

    def report(self) -> dict[str, Any]:
        report = self.guarded.report()
        report["failed"] = report["failed"] or self._timed_out
        report["dropped_frames"] += self._overrun
        return report
