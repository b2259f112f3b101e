"""Sinks that call functions of yours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._model.exceptions import SinkError
from .base import BaseSink
from .exclusion import FAILURES_UNTIL_QUARANTINE, StreamExclusion

if TYPE_CHECKING:
    from .._model.blocks import Block, BlockBatch
    from .._model.report import StreamReport
    from .._model.types import StreamInfo
    from .._threads.incidents import Incidents

__all__ = ["BatchCallbackSink", "CallbackSink"]


class CallbackSink(BaseSink):
    """Calls ``on_block(block)`` for every block, ``on_started(stream)`` and ``on_ended(stream, report)``.

    The functions are called from this sink's own thread, one at a time. When one raises, it gets no more blocks of that
    stream; when it raises for three streams in a row, the sink is quarantined.
    """

    kind = "callback"

    def __init__(
        self,
        on_block: Callable[[Block], object] | None = None,
        on_started: Callable[[StreamInfo], object] | None = None,
        on_ended: Callable[[StreamInfo, StreamReport], object] | None = None,
    ) -> None:
        self._on_block = on_block
        self._on_started = on_started
        self._on_ended = on_ended
        self._aside = StreamExclusion(f"sink {self.kind}")
        self._in_a_row: set[int] = set()  # serials of streams it raised for since it last did not

    def report_to(self, incidents: Incidents) -> None:
        self._aside.incidents = incidents

    def stream_started(self, stream: StreamInfo) -> None:
        if self._on_started is not None:
            self._on_started(stream)

    def blocks(self, batch: BlockBatch) -> None:
        if self._on_block is None:
            return
        aside = self._aside
        hopeless: Exception | None = None
        for block in aside.rest_of(batch) if aside else batch:
            if hopeless is not None or (aside.fresh and block.stream in aside):
                aside.dropped_frames += len(block.samples)
                continue
            try:
                self._on_block(block)
            except Exception as error:
                aside.put(block.stream, error)
                aside.dropped_frames += len(block.samples)
                self._in_a_row.add(block.stream.serial)
                hopeless = error if len(self._in_a_row) >= FAILURES_UNTIL_QUARANTINE else None
            else:
                if self._in_a_row:
                    self._in_a_row.clear()
        aside.fresh.clear()
        if hopeless is not None:
            raise SinkError from hopeless

    def report(self) -> dict[str, Any]:
        return {**super().report(), **self._aside.figures()}

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        self._aside.forget(stream)
        if self._on_ended is not None:
            self._on_ended(stream, report)


class BatchCallbackSink(BaseSink):
    """Calls ``function(batch)`` with the blocks of all streams that became ready together, as the arrays of
    :class:`strep.BlockBatch`: for analytics over thousands of calls. From this sink's own thread.

    A function that raises may have taken a part of the batch: see :class:`strep.sinks.Sink`. ``repeatable``: this one
    takes a batch as a whole or not at all, so it may be called again with parts of it.
    """

    kind = "batch"

    def __init__(self, function: Callable[[BlockBatch], object], *, repeatable: bool = False) -> None:
        self._function = function
        self.repeatable = repeatable

    def blocks(self, batch: BlockBatch) -> None:
        self._function(batch)
