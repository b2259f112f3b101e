"""A batch's samples as its streams' audio goes on: mixed to mono, blocks that belong together in one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .dense import Unreceived

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.types import StreamInfo

__all__ = ["MonoBatch"]

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MonoBatch:
    """The blocks of a batch, as columns: those in one that go on where the one before them ends.

    ``samples``     of all of them, end to end, from ``start`` on
    ``unreceived``  which of them were not received
    ``part``        int64: in which of these blocks each of the batch's is; None: they are the same
    """

    streams: Sequence[StreamInfo]
    row: I64
    position: I64
    frames: I64
    time_ns: I64
    samples: npt.NDArray[Any]
    start: I64
    unreceived: Unreceived | None
    part: I64 | None

    @classmethod
    def of(
        cls,
        batch: BlockBatch,
        samples: npt.NDArray[Any],
        start: I64,
        unreceived: Unreceived | None,
        goes_on: npt.NDArray[np.bool_],
    ) -> MonoBatch:
        """``samples`` and ``start`` of its blocks in mono; ``goes_on``: bool (m,), whether a block goes on where the
        one before it ends."""
        row, position, frames, time_ns = batch.index, batch.position, batch.frames, batch.time_ns
        if not goes_on.any():
            return cls(batch.streams, row, position, frames, time_ns, samples, start, unreceived, None)
        first = np.flatnonzero(~goes_on)
        part = np.cumsum(~goes_on) - 1
        if unreceived is not None:
            block, begin, end = unreceived
            before = position[block] - position[first][part[block]]
            unreceived = part[block], begin + before, end + before
        streams = [batch.streams[i] for i in first.tolist()]
        frames = np.add.reduceat(frames, first)
        row, position, time_ns, start = row[first], position[first], time_ns[first], start[first]
        return cls(streams, row, position, frames, time_ns, samples, start, unreceived, part)
