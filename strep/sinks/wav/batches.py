"""Batches made of other batches: what is rare enough to be copied."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.blocks import BlockBatch

__all__ = ["with_columns", "without_beginnings"]

I64 = npt.NDArray[np.int64]

_COLUMNS: Final = (
    "streams", "index", "position", "frames", "gap_frames", "gap_cause", "rtp_timestamp", "arrival_ns", "time_ns",
    "offset", "payload", "payload_offset", "packet_first", "packet_frames", "packet_arrival_ns",
    "packet_rtp_timestamp", "transcoded", "noise",
)  # fmt: skip


def with_columns(batch: BlockBatch, **columns: Any) -> BlockBatch:
    """The batch with some of its columns (or ``decode``, ``mask``) replaced. Its samples are decoded when wanted."""
    values = {name: getattr(batch, name) for name in _COLUMNS}
    values["decode"] = lambda: batch.samples
    values["mask"] = None if batch.plain else batch.mask
    return BlockBatch(**{**values, **columns})


def without_beginnings(batch: BlockBatch, trim: I64) -> BlockBatch:
    """Without the first ``trim`` frames of each block, int64 (m,); positions and the packets' columns stay."""
    channels = np.array([stream.channels for stream in batch.streams], np.int64)
    values = np.ones(int(batch.offset[-1]), np.bool_)
    marks = np.ones(int(batch.frames.sum()), np.bool_)
    begins = np.cumsum(batch.frames) - batch.frames
    for i in trim.nonzero()[0].tolist():
        values[batch.offset[i] : batch.offset[i] + trim[i] * channels[i]] = False
        marks[begins[i] : begins[i] + trim[i]] = False
    frames = batch.frames - trim
    offset = np.zeros(len(batch) + 1, np.int64)
    np.cumsum(frames * channels, out=offset[1:])
    samples, mask = batch.samples[values], batch.mask[marks]
    return with_columns(batch, frames=frames, offset=offset, decode=lambda: samples, mask=mask)
