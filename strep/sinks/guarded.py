"""A sink that may raise in whatever it is called for: what that costs, and whom.

A call for one stream that raises sets that stream aside. A batch is of many: a sink that is ``repeatable`` is given its
parts again, until the stream that makes it raise is found. Any other may have taken half of the batch, and nothing may
be given twice: of that batch it gets no more, and of the next ones it gets each stream's blocks by themselves, so that
the one that makes it raise is named the next time.

A sink that raises for three streams in a row, and for none between them does not, is quarantined.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .aside import HOPELESS, SetAside, Unusable

if TYPE_CHECKING:
    from .._model.blocks import BlockBatch
    from .._model.report import StreamReport
    from .._model.types import StreamEvent, StreamInfo
    from .._threads.incidents import Incidents
    from .base import Sink

__all__ = ["GuardedSink"]

_log = logging.getLogger("strep")

_SINGLY: Final = 64  # batches, after one that raised; four times as many after each further one


class GuardedSink:
    """Its methods never raise. ``failed`` says why the sink gets nothing more; None: it does."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.kind = str(getattr(sink, "kind", type(sink).__name__))
        self.failed: str | None = None
        self.aside = SetAside(f"sink {self.kind}")
        self.dropped_frames = 0
        self._repeatable = bool(getattr(sink, "repeatable", False))
        self._hear: Callable[[StreamEvent], object] | None = getattr(sink, "event", None)
        self._unknown: set[int] = set()  # serials of streams whose beginning the sink did not bear
        self._in_a_row: dict[str, set[int]] = {}  # by method: streams that it raised for since it last did not
        self._singly = 0
        self._next_singly = _SINGLY

    def report_to(self, incidents: Incidents) -> None:
        self.aside.incidents = incidents
        self._tell("report_to", incidents)

    def connect(self, publish: Callable[[StreamEvent], object]) -> None:
        """Where analyzers tell their events."""
        self._tell("connect", publish)

    def wait_for_room(self) -> None:
        """Wait until a sink that writes behind has room again."""
        if self.failed is None:
            self._tell("wait_for_room")

    def _tell(self, hook: str, *arguments: object) -> None:
        call = getattr(self.sink, hook, None)
        if call is not None:
            try:
                call(*arguments)
            except Exception as error:
                self.aside.fault(None, error)

    def started(self, stream: StreamInfo) -> None:
        if self.failed is None and not self._for_one("stream_started", stream, self.sink.stream_started, stream):
            self._unknown.add(stream.serial)

    def ended(self, stream: StreamInfo, report: StreamReport) -> None:
        """It is told of streams that were set aside too: it may hold something for them."""
        unknown = stream.serial in self._unknown
        self._unknown.discard(stream.serial)
        if self.failed is None and not unknown:
            self._for_one("stream_ended", stream, self.sink.stream_ended, stream, report)
        self.aside.forget(stream)

    def event(self, event: StreamEvent) -> None:
        if self.failed is None and self._hear is not None and not (self.aside and event.stream in self.aside):
            self._for_one("event", event.stream, self._hear, event)

    def _for_one(self, name: str, stream: StreamInfo, call: Callable[..., object], *arguments: Any) -> bool:
        try:
            call(*arguments)
        except Exception as error:
            self.aside.put(stream, error)
            self._blame(name, stream, error)
            return False
        if self._in_a_row:
            self._in_a_row.pop(name, None)
        return True

    def blocks(self, batch: BlockBatch) -> None:
        if self.failed is not None:
            return
        if self.aside:
            batch = self.aside.rest_of(batch)
            if not len(batch):
                return
        if self._singly:
            self._singly -= 1
            self._one_by_one(batch)
            return
        try:
            self.sink.blocks(batch)
        except Exception as error:
            self._raised(batch, error)
            return
        if self._in_a_row:
            self._in_a_row.pop("blocks", None)

    def _raised(self, batch: BlockBatch, error: Exception) -> None:
        starts = batch.starts()
        if isinstance(error, Unusable):
            self.quarantine(error.__cause__ or error)
        elif batch.error is not None:
            self._broken(batch, error)
        elif len(starts) <= 2:
            self._blame_block(batch, error)
        elif self._repeatable:
            self._try(_halves(batch, starts))
        else:
            self.dropped_frames += int(batch.frames.sum())
            self.aside.fault(None, error)
            self._singly, self._next_singly = self._next_singly, 4 * self._next_singly

    def _broken(self, batch: BlockBatch, error: Exception) -> None:
        """The sink wanted samples that could not be made: that is no fault of its own, nor of one stream known here."""
        self.dropped_frames += int(batch.frames.sum())
        self.aside.fault(None, error, "decode")

    def _one_by_one(self, batch: BlockBatch) -> None:
        starts = batch.starts()
        self._try([batch.take(np.arange(a, b)) for a, b in pairwise(starts)][::-1])

    def _try(self, waiting: list[BlockBatch]) -> None:
        """Give parts of a batch, the last one first; halves of those that raise."""
        found: list[tuple[BlockBatch, Exception]] = []
        well = False
        while waiting:
            part = waiting.pop()
            try:
                self.sink.blocks(part)
                well = True
            except Exception as error:
                starts = part.starts()
                if part.error is not None or isinstance(error, Unusable):
                    self._raised(part, error)
                elif len(starts) <= 2:
                    found.append((part, error))
                else:
                    waiting += _halves(part, starts)
        for part, reason in found:
            self._blame_block(part, reason, alone=not well)
        if well:
            self._in_a_row.pop("blocks", None)

    def _blame_block(self, batch: BlockBatch, error: Exception, *, alone: bool = True) -> None:
        """``alone``: for no other stream it did not raise."""
        self.dropped_frames += int(batch.frames.sum())
        self.aside.put(batch.streams[0], error)
        if alone:
            self._blame("blocks", batch.streams[0], error)

    def _blame(self, name: str, stream: StreamInfo, error: Exception) -> None:
        blamed = self._in_a_row.setdefault(name, set())
        blamed.add(stream.serial)
        if len(blamed) >= HOPELESS:
            self.quarantine(error)

    def quarantine(self, error: BaseException) -> None:
        if self.failed is None:
            self.failed = f"{type(error).__name__}: {error}"
            _log.error("sink %s failed and gets no more data: %s", type(self.sink).__name__, self.failed)

    # --- what it is asked -------------------------------------------------------------------------------------------

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        figures = getattr(self.sink, "figures", None)
        if figures is None:
            return {}
        try:
            return dict(figures(stream))
        except Exception as error:
            self.aside.fault(stream, error)
            return {}

    def files(self, stream: StreamInfo) -> list[str]:
        try:
            return list(self.sink.files(stream))
        except Exception as error:
            self.aside.fault(stream, error)
            return []

    def settled(self, stream: StreamInfo) -> bool:
        """Whether the sink has nothing more to do for a stream that has ended."""
        settled: Callable[[StreamInfo], bool] | None = getattr(self.sink, "settled", None)
        if self.failed is not None or settled is None:
            return True
        try:
            return settled(stream)
        except Exception as error:
            self.aside.fault(stream, error)
            return True

    def close(self, timeout_s: float) -> None:
        try:
            self.sink.close(timeout_s)
        except Exception as error:
            self.failed = self.failed or f"{type(error).__name__}: {error}"
            self.aside.fault(None, error)

    def report(self) -> dict[str, Any]:
        """The sink's own, with what is known here: ``set_aside`` streams so far, where there were any."""
        try:
            report = dict(self.sink.report())
        except Exception as error:
            report = {"kind": self.kind, "failed": f"{type(error).__name__}: {error}"}
        report["failed"] = self.failed or report.get("failed")
        if self.failed is not None and "problem" in report:
            report["problem"] = self.failed
        dropped = self.dropped_frames + self.aside.dropped_frames
        report["dropped_frames"] = int(report.get("dropped_frames") or 0) + dropped
        if self.aside.streams:
            report["set_aside"] = int(report.get("set_aside") or 0) + self.aside.streams
        return report


def _halves(batch: BlockBatch, starts: list[int]) -> list[BlockBatch]:
    middle = starts[len(starts) // 2]
    return [batch.take(np.arange(middle, len(batch))), batch.take(np.arange(middle))]
