"""Blocks of different lengths as dense tables: a row for each block, a column for each sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.types import Mask
from .strides import stretches

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch

__all__ = ["Unreceived", "dense_table", "length_groups", "mono_samples", "unreceived_runs"]

I64 = npt.NDArray[np.int64]
Any2D = npt.NDArray[Any]
Unreceived = tuple[I64, I64, I64]  # block, begin, end: sample frames within the block

_EXACT_LENGTHS: Final = 8  # up to so many different lengths of blocks each is a group of its own


def dense_table(samples: npt.NDArray[Any], start: I64, width: int) -> Any2D:
    """(k, width): the samples from each start on. What stands behind the end of a shorter block has no meaning."""
    if len(start) * width == start[-1] + width - start[0] and bool((np.diff(start) == width).all()):
        first = int(start[0])
        if first + len(start) * width <= len(samples):
            return samples[first : first + len(start) * width].reshape(len(start), width)
    if int(start.max()) + width > len(samples):
        samples = np.concatenate([samples, np.zeros(width, samples.dtype)])
    return stretches(samples, width)[start]


def length_groups(n: I64, chosen: I64 | None, whole: int) -> Iterator[tuple[I64 | None, int]]:
    """Groups of blocks of about the same length: their indices (None: all blocks), and the longest length.

    ``n``: the lengths of all blocks · ``chosen``: indices of those that are meant (None: all) · ``whole``: the length
    of all blocks, where it is one; else 0.
    """
    if whole:
        yield chosen, whole
        return
    mine = n if chosen is None else n[chosen]
    lengths, which = np.unique(mine, return_inverse=True)
    if len(lengths) > _EXACT_LENGTHS:
        # a group for each quarter of an octave, however many lengths there are
        lengths, which = np.unique(np.round(4 * np.log2(mine)).astype(np.int64), return_inverse=True)
    for number in range(len(lengths)):
        some = np.flatnonzero(which == number)
        yield (some if chosen is None else chosen[some]), int(mine[some].max())


def mono_samples(batch: BlockBatch) -> tuple[npt.NDArray[Any], I64]:
    """A batch's samples end to end, with several channels mixed to one; and the offset of each block, (blocks + 1,)."""
    offset, samples = batch.offset, batch.samples
    values = np.diff(offset)
    if bool((values == batch.frames).all()):
        return samples, offset
    channels = values // np.maximum(batch.frames, 1)
    mono = np.zeros(len(batch) + 1, np.int64)
    np.cumsum(batch.frames, out=mono[1:])
    mixed = np.empty(int(mono[-1]), np.float32)
    to = np.repeat(channels, batch.frames)
    of = np.repeat(channels, values)
    for number in np.unique(channels[channels > 0]).tolist():
        mixed[to == number] = samples[of == number].reshape(-1, number).mean(axis=1, dtype=np.float32)
    return mixed, mono


def unreceived_runs(batch: BlockBatch) -> Unreceived | None:
    """Runs of sample frames whose mask is not RECEIVED, three int64 columns: the index of the block, begin and end
    within it, in sample frames. None: there are no such runs."""
    if batch.plain:
        return None
    bad = np.flatnonzero(batch.mask != Mask.RECEIVED)
    if not bad.size:
        return None
    begin = np.cumsum(batch.frames) - batch.frames
    block = np.searchsorted(begin, bad, "right") - 1
    cut = np.flatnonzero((np.diff(bad) != 1) | (np.diff(block) != 0)) + 1
    first, last = np.r_[0, cut], np.r_[cut, len(bad)] - 1
    block = block[first]
    return block, bad[first] - begin[block], bad[last] - begin[block] + 1
