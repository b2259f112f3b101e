"""Internet checksums (RFC 1071) of many datagrams at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._model.spans import spans

__all__ = ["folded", "word_sums"]

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


def folded(total: I64) -> I64:
    """The checksum of sums of 16-bit words: their one's complement sum, complemented. int64 (n,)."""
    for _ in range(3):
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def word_sums(flat: U8, at: I64, size: I64) -> I64:
    """Sums of the big-endian 16-bit words of ``flat[at[i] : at[i] + size[i]]``, a byte of 0 behind odd ones. int64
    (n,)."""
    sums = np.zeros(len(at), np.int64)
    for length in np.bincount(size).nonzero()[0].tolist():
        members = np.flatnonzero(size == length)
        part = spans(flat, at[members], length)
        if length % 2:
            part = np.pad(part, ((0, 0), (0, 1)))
        sums[members] = part.view(">u2").sum(axis=1, dtype=np.int64)
    return sums
