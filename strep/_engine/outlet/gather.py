"""From ring slots to the bytes of payloads, end to end."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..._model.spans import copy_spans, spans
from ..streams.placement import Placement
from ..streams.ring import JitterRing

__all__ = ["gather"]

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


def gather(ring: JitterRing, placed: Placement, frame_bytes: I64, whole: Bools | None) -> tuple[U8, I64]:
    """The payloads of placed packets end to end, uint8, and where each begins, int64 (p+1,).

    Frames that are to be trimmed are left out; not of the packets that are ``whole`` (None: none), which their decoder
    needs entire."""
    bytes_a_frame = frame_bytes.take(placed.codec)
    length = placed.frames * bytes_a_frame
    skip = None if placed.trim is None else placed.trim * bytes_a_frame
    if whole is not None:
        length = np.where(whole, placed.length, length)
        skip = None if skip is None else np.where(whole, 0, skip)
    begin = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=begin[1:])
    if not ring.any_large or not ring.size.take(placed.row).any():
        slab, slot, one = ring.payload_slab(0), placed.slot, int(length[0])
        if skip is None and bool((length == one).all()):
            return spans(slab.reshape(-1), slot * slab.shape[1], one).reshape(-1), begin
        out = np.empty(int(begin[-1]), np.uint8)
        at = slot * slab.shape[1]
        copy_spans(out, begin[:-1], slab.reshape(-1), at if skip is None else at + skip, length)
        return out, begin
    out = np.empty(int(begin[-1]), np.uint8)
    for size, members in ring.by_size(placed.row):
        slab = ring.payload_slab(size)
        at = placed.slot[members] * slab.shape[1]
        if skip is not None:
            at += skip[members]
        copy_spans(out, begin[:-1][members], slab.reshape(-1), at, length[members])
    return out, begin
