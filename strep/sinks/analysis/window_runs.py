"""Windows of many streams, one after another, as one matrix: work that needs no order is done for all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

if TYPE_CHECKING:
    from ..._model.types import StreamInfo
    from .frame_batch import FrameBatch

__all__ = ["WindowRun", "runs_of_windows"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


class WindowRun:
    """``count`` windows of each of ``k`` streams, ``hop`` samples apart.

    ``frames``   list of ``count`` :class:`.frame_batch.FrameBatch`, of the same streams each
    ``row``      int64 (k,): the streams' ``StreamInfo.index``
    ``samples``  (k, width): what the windows are cut from, the first one at its beginning: a view, not to be written to
    """

    __slots__ = ("_hop", "frames", "row", "samples", "size")

    def __init__(self, frames: Sequence[FrameBatch], samples: npt.NDArray[Any], hop: int) -> None:
        self.frames = frames
        self.row = frames[0].row
        self.samples = samples
        self.size = frames[0].samples.shape[1]
        self._hop = hop

    def __len__(self) -> int:
        return len(self.row)

    @property
    def count(self) -> int:
        return len(self.frames)

    def windows(self, begin: int = 0, end: int | None = None) -> npt.NDArray[Any]:
        """A view (rows, count, size) of the windows of some streams."""
        samples = self.samples[begin:end]
        down, across = samples.strides
        shape = (len(samples), self.count, self.size)
        return as_strided(samples, shape, (down, self._hop * across, across), writeable=False)

    def hops(self, begin: int = 0, end: int | None = None) -> npt.NDArray[Any]:
        """A view (rows, n, hop) of the samples of some streams, if windows are of whole hops."""
        samples = self.samples[begin:end]
        down, across = samples.strides
        shape = (len(samples), samples.shape[1] // self._hop, self._hop)
        return as_strided(samples, shape, (down, self._hop * across, across), writeable=False)

    @property
    def real(self) -> F32:
        """The share of each window's samples that were received, (k, count)."""
        return np.stack([frames.real for frames in self.frames], axis=1)

    def stream(self, i: int) -> StreamInfo:
        """Whose the i-th row is."""
        return self.frames[0].stream(i)

    def take(self, some: slice | I64) -> WindowRun:
        """Of some of the streams."""
        return WindowRun([frames.take(some) for frames in self.frames], self.samples[some], self._hop)


def runs_of_windows(batches: Sequence[FrameBatch], hop: int) -> list[WindowRun]:
    """All frames of a push, in order: those that lie ``hop`` samples apart in memory together."""
    runs: list[WindowRun] = []
    begin = 0
    for end in range(1, len(batches) + 1):
        table, left = batches[begin].place
        if end < len(batches) and table is not None:
            other, at = batches[end].place
            if other is table and at == left + (end - begin) * hop:
                continue
        frames = batches[begin:end]
        if table is None:
            runs.append(WindowRun(frames, frames[0].samples, hop))
        else:
            width = (len(frames) - 1) * hop + frames[0].samples.shape[1]
            runs.append(WindowRun(frames, table[:, left : left + width], hop))
        begin = end
    return runs
