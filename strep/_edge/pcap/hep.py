"""HEP version 3 (Homer): one datagram as chunks, its addresses, ports and payload each in one."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.addresses import MAPPED_PREFIX
from .layers import I64, Frames, Layer

__all__ = ["hep"]

Mask = npt.NDArray[np.bool_]

_MOST_CHUNKS: Final = 32
_SOURCE_4, _LOCAL_4, _SOURCE_6, _LOCAL_6, _SOURCE_PORT, _LOCAL_PORT, _PAYLOAD, _COMPRESSED = 3, 4, 5, 6, 7, 8, 15, 16


def hep(frames: Frames, rows: I64) -> None:
    """Chunks: vendor, type, length with these six bytes. Only those of no vendor are told apart."""
    rows = frames.having(rows, 6)
    read = frames.read
    total = read.u16(frames.at[rows] + 4)
    frames.end[rows] = np.minimum(frames.end[rows], frames.at[rows] + total)
    begin = np.full(len(frames.at), -1, np.int64)
    size = np.zeros(len(frames.at), np.int64)
    frames.at[rows] += 6
    walking = rows
    for _ in range(_MOST_CHUNKS):
        walking = walking[frames.at[walking] + 6 <= frames.end[walking]]
        if not walking.size:
            break
        at = frames.at[walking]
        kind, length = read.u32(at), read.u16(at + 4)
        sound = length >= 6
        walking, at, kind, length = walking[sound], at[sound], kind[sound], length[sound]
        whole = at + length <= frames.end[walking]

        def having(number: int, least: int, kind: I64 = kind, length: I64 = length, whole: Mask = whole) -> I64:
            return np.flatnonzero((kind == number) & (length >= 6 + least) & whole)

        for four, six, hi, lo in (
            (_SOURCE_4, _SOURCE_6, frames.hi, frames.lo),
            (_LOCAL_4, _LOCAL_6, frames.to_hi, frames.to_lo),
        ):
            here = having(four, 4)
            hi[walking[here]] = 0
            lo[walking[here]] = (read.u32(at[here] + 6) | MAPPED_PREFIX).astype(np.uint64)
            here = having(six, 16)
            hi[walking[here]], lo[walking[here]] = read.u64(at[here] + 6), read.u64(at[here] + 14)
        for number, column in ((_SOURCE_PORT, frames.source_port), (_LOCAL_PORT, frames.local_port)):
            here = having(number, 2)
            column[walking[here]] = read.u16(at[here] + 6)
        here = np.flatnonzero(kind == _PAYLOAD)  # it may be cut
        begin[walking[here]], size[walking[here]] = at[here] + 6, length[here] - 6
        frames.drop(walking[kind == _COMPRESSED], "hep_compressed")
        frames.at[walking] += length
        walking = walking[frames.layer[walking] == Layer.HEP]
    rows = rows[frames.layer[rows] == Layer.HEP]
    found = begin[rows] >= 0
    frames.drop(rows[~found], "hep_without_payload")
    rows = rows[found]
    frames.at[rows], frames.wire[rows] = begin[rows], size[rows]
    frames.end[rows] = np.minimum(frames.end[rows], begin[rows] + size[rows])
    frames.layer[rows] = Layer.DATAGRAM
