"""From ring slots to the bytes of payloads, end to end."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..streams.placement import Placement
from ..streams.ring import JitterRing

__all__ = ["gather"]

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


def gather(ring: JitterRing, placed: Placement, frame_bytes: I64, whole: Bools | None) -> tuple[U8, I64]:
    """The payloads of placed packets end to end, uint8, and where each begins, int64 (p+1,).

    Trimmed frames are left out, but of the packets that are ``whole`` (None: none), which a decoder needs entire."""
    bytes_a_frame = frame_bytes.take(placed.codec)
    length = placed.frames * bytes_a_frame
    skip = None if placed.trim is None else placed.trim * bytes_a_frame
    if whole is not None:
        length = np.where(whole, placed.length, length)
        skip = None if skip is None else np.where(whole, 0, skip)
    begin = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=begin[1:])
    if not ring.any_large or not (large := ring.large.take(placed.row)).any():
        return _gather(ring.payload_slab(False), placed.slot, skip, length, begin, None), begin
    out = np.empty(int(begin[-1]), np.uint8)
    for kind in (False, True):
        members = np.flatnonzero(large == kind)
        if members.size:
            part = None if skip is None else skip[members]
            slab = ring.payload_slab(kind)
            _gather(slab, placed.slot[members], part, length[members], begin[:-1][members], out)
    return out, begin


def _gather(slab: U8, slot: I64, skip: I64 | None, length: I64, begin: I64, out: U8 | None) -> U8:
    """``out[begin:begin+length] = slab[slot, skip:skip+length]`` for every packet; ``out`` None: end to end."""
    one = int(length[0])
    same = skip is None and bool((length == one).all())
    if same and out is None:
        return slab[slot, :one].reshape(-1)
    if out is None:
        out = np.empty(int(begin[-1]), np.uint8)
    distinct = np.bincount(length).nonzero()[0]
    if skip is None and len(distinct) <= 16:
        # a handful of packet durations: one strided copy each
        for size in distinct.tolist():
            if size:
                members = np.flatnonzero(length == size)
                windows = np.ndarray((out.size - size + 1,), np.dtype((np.void, size)), out, 0, (1,))
                items = np.ndarray((len(slab),), np.dtype((np.void, size)), slab, 0, (slab.shape[1],))
                windows[begin[members]] = items[slot[members]]
        return out
    at = begin[: len(length)]
    source = slot * slab.shape[1] if skip is None else slot * slab.shape[1] + skip
    within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    out[np.repeat(at, length) + within] = slab.reshape(-1)[np.repeat(source, length) + within]
    return out
