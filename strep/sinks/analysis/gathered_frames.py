"""Frames of all streams in arrays of their own, cut from some streams at a time: what is in between stays in the
processor's cache. Of thousands of streams it would be tens of megabytes, written and read again at each step."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .frame_batch import FrameBatch

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from .bank import FrameBank

__all__ = ["FrameGatherer"]

Any2D = npt.NDArray[Any]

_VALUES: Final = 300_000  # samples that a bank takes at once, or a block's if that is longer
_FEWEST_BLOCKS: Final = 64
_KEPT_ARRAYS: Final = 8
_UNUSED: Final = 3  # references to an array that only its list holds: that, the loop's, the question's


class FrameGatherer:
    """Pushes batches into ``bank``. Arrays that nobody holds any more are used again: to give memory back to the system
    and get it anew costs more than to fill it."""

    def __init__(self, bank: FrameBank) -> None:
        self._bank = bank
        self._arrays: list[Any2D] = []

    def push(self, batch: BlockBatch) -> list[FrameBatch]:
        """What the bank's ``push`` returns, but each FrameBatch's ``samples`` are contiguous, and may be kept."""
        cuts = _cuts(batch)
        if len(cuts) == 2:
            return [_own(frames) for frames in self._bank.push(batch)]
        columns: list[_Column] = []
        for begin, end in pairwise(cuts):
            for j, frames in enumerate(self._bank.push(batch.part(begin, end))):
                if j == len(columns):
                    columns.append(_Column(self._array(len(batch), frames.samples)))
                columns[j].add(frames)
        return [column.joined() for column in columns]

    def _array(self, rows: int, like: Any2D) -> Any2D:
        for array in self._arrays:
            if sys.getrefcount(array) == _UNUSED and len(array) >= rows:
                return array
        array = np.empty((rows, like.shape[1]), like.dtype)
        self._arrays = [*self._arrays[1 - _KEPT_ARRAYS :], array]
        return array


def _own(frames: FrameBatch) -> FrameBatch:
    frames.samples = np.ascontiguousarray(frames.samples)
    return frames


class _Column:
    """The j-th frames of all streams."""

    def __init__(self, samples: Any2D) -> None:
        self._samples = samples
        self._filled = 0
        self._batches: list[FrameBatch] = []

    def add(self, frames: FrameBatch) -> None:
        """Copy them, while they are in the cache."""
        end = self._filled + len(frames)
        self._samples[self._filled : end] = frames.samples
        self._filled = end
        frames.forget_samples()  # so that the next part's take their place in memory
        self._batches.append(frames)

    def joined(self) -> FrameBatch:
        return FrameBatch.joined(self._batches, self._samples[: self._filled])


def _cuts(batch: BlockBatch) -> list[int]:
    """Where parts of the batch begin, and its end: blocks of a stream are in one part."""
    count = len(batch)
    in_a_part = max(_FEWEST_BLOCKS, _VALUES * count // max(int(batch.offset[-1]), 1))
    if count < 2 * in_a_part:
        return [0, count]
    starts = np.array(batch.starts())
    wanted = np.append(np.arange(0, count, in_a_part), count)
    cuts: list[int] = np.unique(starts[np.searchsorted(starts, wanted)]).tolist()
    return cuts
