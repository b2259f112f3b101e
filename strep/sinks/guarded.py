"""Calls a sink that may raise anywhere, and decides what that costs, and which streams.

A call for one stream that raises sets that stream aside. A batch is of many streams. A sink that is ``repeatable`` is
given parts of the batch again, until the stream that makes it raise is found. Any other sink may have taken half of the
batch, and nothing may be given twice: so it gets no more of that batch, and of the next ones it gets each stream's
blocks by themselves. Then the stream that makes it raise is known the next time.

A sink that raises for three streams in a row, and not for others between them, is quarantined: it gets nothing more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import numpy as np

from .._model.exceptions import SinkError
from .base import BaseSink, class_name
from .exclusion import FAILURES_UNTIL_QUARANTINE, StreamExclusion

if TYPE_CHECKING:
    from pathlib import Path

    from .._model.blocks import BlockBatch
    from .._model.report import StreamReport
    from .._model.types import StreamEvent, StreamInfo
    from .._threads.incidents import Incidents

__all__ = ["GuardedSink"]

_T = TypeVar("_T")
_log = logging.getLogger("strep")

# batches that are given stream by stream after one that raised; four times as many after each further one
_SINGLE_BATCHES: Final = 64


class GuardedSink(BaseSink):
    """Passes each call on to ``sink``; never raises. ``failed`` says why the sink gets nothing more; None: it does."""

    def __init__(self, sink: BaseSink) -> None:
        self.sink = sink
        self.kind = sink.kind
        self.inline = sink.inline
        self.wants_audio = sink.wants_audio
        self.prompt = sink.prompt
        self.gather_ms = sink.gather_ms
        self.repeatable = sink.repeatable
        self.failed: str | None = None
        self.aside = StreamExclusion(f"sink {self.kind}")
        self.dropped_frames = 0
        self._unknown: set[int] = set()  # serials of streams for which ``stream_started`` raised
        self._in_a_row: dict[str, set[int]] = {}  # by method: streams that it raised for since it last did not
        self._singly = 0
        self._next_singly = _SINGLE_BATCHES

    @property
    def concealment(self) -> bool | Literal["later"]:  # type: ignore[override]  # a sink may change its mind
        return self.sink.concealment

    def report_to(self, incidents: Incidents) -> None:
        self.aside.incidents = incidents
        self._contained(None, self.sink.report_to, incidents)

    def connect(self, publish: Callable[[StreamEvent], object]) -> None:
        self._contained(None, self.sink.connect, publish)

    def wait_for_room(self) -> None:
        if self.failed is None:
            self._contained(None, self.sink.wait_for_room)

    def stream_started(self, stream: StreamInfo) -> None:
        if self.failed is None and not self._for_one("stream_started", stream, self.sink.stream_started, stream):
            self._unknown.add(stream.serial)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        """The sink is told of streams that were set aside too: it may hold something for them."""
        unknown = stream.serial in self._unknown
        self._unknown.discard(stream.serial)
        if self.failed is None and not unknown:
            self._for_one("stream_ended", stream, self.sink.stream_ended, stream, report)
        self.aside.forget(stream)

    def event(self, event: StreamEvent) -> None:
        if self.failed is None and not (self.aside and event.stream in self.aside):
            self._for_one("event", event.stream, self.sink.event, event)

    def _contained(self, stream: StreamInfo | None, call: Callable[..., _T], *arguments: Any) -> _T | None:
        """What the call returns; None if it raises."""
        try:
            return call(*arguments)
        except Exception as error:
            self.aside.fault(stream, error)
            return None

    def _for_one(self, name: str, stream: StreamInfo, call: Callable[..., object], *arguments: Any) -> bool:
        """A call for one stream, which is set aside if it raises. Returns whether it did not."""
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
        if isinstance(error, SinkError):
            self.quarantine(error.__cause__ or error)
        elif batch.error is not None:
            self._broken(batch, error)
        elif len(starts) <= 2:
            self._blame_block(batch, error)
        elif self.repeatable:
            self._try(_halves(batch, starts))
        else:
            self.dropped_frames += int(batch.frames.sum())
            self.aside.fault(None, error)
            self._singly, self._next_singly = self._next_singly, 4 * self._next_singly

    def _broken(self, batch: BlockBatch, error: Exception) -> None:
        """The sink wanted samples that could not be decoded: that is not its fault, nor that of a stream known here."""
        self.dropped_frames += int(batch.frames.sum())
        self.aside.fault(None, error, "decode")

    def _one_by_one(self, batch: BlockBatch) -> None:
        starts = batch.starts()
        self._try([batch.take(np.arange(a, b)) for a, b in pairwise(starts)][::-1])

    def _try(self, waiting: list[BlockBatch]) -> None:
        """Give the sink parts of a batch, the last of the list first; and halves of those for which it raises."""
        found: list[tuple[BlockBatch, Exception]] = []
        well = False
        while waiting:
            part = waiting.pop()
            try:
                self.sink.blocks(part)
                well = True
            except Exception as error:
                starts = part.starts()
                if part.error is not None or isinstance(error, SinkError):
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
        """``alone``: there was no other stream in the batch for which it did not raise."""
        self.dropped_frames += int(batch.frames.sum())
        self.aside.put(batch.streams[0], error)
        if alone:
            self._blame("blocks", batch.streams[0], error)

    def _blame(self, name: str, stream: StreamInfo, error: Exception) -> None:
        blamed = self._in_a_row.setdefault(name, set())
        blamed.add(stream.serial)
        if len(blamed) >= FAILURES_UNTIL_QUARANTINE:
            self.quarantine(error)

    def quarantine(self, error: BaseException) -> None:
        if self.failed is None:
            self.failed = f"{type(error).__name__}: {error}"
            _log.error("sink %s failed and gets no more data: %s", class_name(self.sink), self.failed)

    # --- what it is asked -------------------------------------------------------------------------------------------

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        return self._contained(stream, lambda: dict(self.sink.figures(stream))) or {}

    def files(self, stream: StreamInfo) -> list[str]:
        return self._contained(stream, lambda: list(self.sink.files(stream))) or []

    def recording_directories(self) -> list[Path]:
        return self._contained(None, lambda: list(self.sink.recording_directories())) or []

    def settled(self, stream: StreamInfo) -> bool:
        """Whether the sink has nothing more to do for a stream that has ended. One that failed has not."""
        if self.failed is not None:
            return True
        settled = self._contained(stream, self.sink.settled, stream)
        return True if settled is None else settled

    def close(self, timeout_s: float) -> None:
        try:
            self.sink.close(timeout_s)
        except Exception as error:
            self.failed = self.failed or f"{type(error).__name__}: {error}"
            self.aside.fault(None, error)

    def report(self) -> dict[str, Any]:
        """The sink's own report, with what is known here: ``set_aside`` counts streams so far, if there were any."""
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
