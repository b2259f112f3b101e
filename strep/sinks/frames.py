"""All streams' frames at once as one matrix: for models that take batches. Floor 4."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from ._bank import FrameBank, FrameBatch
from ._base import BaseSink

if TYPE_CHECKING:
    from .._blocks import BlockBatch
    from .._report import StreamReport
    from .._types import StreamInfo

__all__ = ["FrameSink"]


class FrameSink(BaseSink):
    """Calls ``function(frames)`` with a frame of every stream that has a whole one: a :class:`FrameBatch`.

    ``frames.samples`` is one contiguous array (k, n), float32 in [-1, 1) or int16, at ``rate``, mono; ``frames.row``
    says whose they are: a stream's row is its own while it lives, so a model's state may be kept in arrays by row. A
    frame begins every ``hop`` samples (None: ``n``); gaps are concealed up to 1 s, ``frames.real`` (k,) is the share of
    samples that were received. The last frame of a stream is padded with zeros.

    ``on_started(stream)`` comes before a stream's first frame (clear the model's state of ``stream.index`` there),
    ``on_ended(stream, report)`` after its last. All are called from this sink's own thread, one at a time; when one
    raises, the sink is quarantined. Raises ConfigurationError when n, hop or rate make no sense.
    """

    kind = "frames"
    concealment = True

    def __init__(
        self,
        function: Callable[[FrameBatch], object],
        n: int = 512,
        hop: int | None = None,
        rate: int = 16_000,
        dtype: Literal["float32", "int16"] = "float32",
        on_started: Callable[[StreamInfo], object] | None = None,
        on_ended: Callable[[StreamInfo, StreamReport], object] | None = None,
    ) -> None:
        self._bank = FrameBank(n, hop, rate, dtype)
        self._function = function
        self._on_started = on_started
        self._on_ended = on_ended

    def stream_started(self, stream: StreamInfo) -> None:
        self._bank.reset(stream.index)
        if self._on_started is not None:
            self._on_started(stream)

    def blocks(self, batch: BlockBatch) -> None:
        self._give(self._bank.push(batch))

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        self._give(self._bank.flush(stream.index))
        if self._on_ended is not None:
            self._on_ended(stream, report)

    def _give(self, batches: list[FrameBatch]) -> None:
        for frames in batches:
            frames.samples = np.ascontiguousarray(frames.samples)
            self._function(frames)
