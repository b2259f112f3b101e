"""Sinks that call functions of yours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ._base import BaseSink

if TYPE_CHECKING:
    from .._blocks import Block, BlockBatch
    from .._report import StreamReport
    from .._types import StreamInfo

__all__ = ["BatchCallbackSink", "CallbackSink"]


class CallbackSink(BaseSink):
    """Calls ``on_block(block)`` for every block, ``on_started(stream)`` and ``on_ended(stream, report)``.

    The functions are called from this sink's own thread, one at a time. When one raises, the sink is quarantined.
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

    def stream_started(self, stream: StreamInfo) -> None:
        if self._on_started is not None:
            self._on_started(stream)

    def blocks(self, batch: BlockBatch) -> None:
        if self._on_block is not None:
            for block in batch:
                self._on_block(block)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        if self._on_ended is not None:
            self._on_ended(stream, report)


class BatchCallbackSink(BaseSink):
    """Calls ``function(batch)`` with all streams' blocks of a tick at once, as the arrays of :class:`strep.BlockBatch`:
    for analytics over thousands of calls. From this sink's own thread."""

    kind = "batch"

    def __init__(self, function: Callable[[BlockBatch], object]) -> None:
        self._function = function

    def blocks(self, batch: BlockBatch) -> None:
        self._function(batch)
