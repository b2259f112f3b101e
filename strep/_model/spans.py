"""Pieces of flat arrays: where they are, and copies of many of them, of any lengths, without an index for each byte."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["begins_of", "copy_spans", "offsets_of", "runs_of", "spans", "stretches"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

_LENGTHS: Final = 16  # different ones, up to which all pieces of a length are copied in one go
_LONG_BYTES: Final = (
    512  # a piece, from which on it is copied alone: that is faster than an index for each of its bytes
)
_INDEXED_BYTES: Final = 1 << 20  # for so many there is an index at a time: a bound on memory


def begins_of(length: I64) -> I64:
    """Where each of pieces that stand end to end begins, int64 (n,)."""
    ends: I64 = np.cumsum(length)
    return ends - length


def offsets_of(length: I64) -> I64:
    """Where each of pieces that stand end to end begins, and where the last one ends, int64 (n + 1,)."""
    offset = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=offset[1:])
    return offset


def runs_of(begin: I64, length: I64) -> I64:
    """Indices of all values of pieces, one piece after the other, int64 (sum of length,)."""
    index: I64 = np.arange(int(length.sum()))
    index += np.repeat(begin - begins_of(length), length)
    return index


def stretches(flat: npt.NDArray[Any], begin: I64, length: I64) -> Any:
    """Pieces of a flat array, end to end: a copy of its dtype, (sum of length,)."""
    size = flat.itemsize
    out = np.empty(int(length.sum()), flat.dtype)
    data = np.ascontiguousarray(flat).view(np.uint8)
    copy_spans(out.view(np.uint8), begins_of(length) * size, data, begin * size, length * size)
    return out


def copy_spans(out: U8, out_at: I64, data: U8, data_at: I64, length: npt.NDArray[np.integer]) -> None:
    """``out[out_at[i] : out_at[i] + length[i]] = data[data_at[i] : data_at[i] + length[i]]`` for each i, (n,).

    ``out`` and ``data`` are flat; pieces lie within them, and those of ``out`` do not overlap."""
    if not len(length):
        return
    longest = int(length.max())
    if longest == int(length.min()):
        distinct = [longest]
    elif longest < 1 << 16:
        distinct = np.bincount(length).nonzero()[0].tolist()
    else:
        distinct = np.unique(length).tolist()
    if len(distinct) > _LENGTHS:
        _copy_any(out, out_at, data, data_at, length.astype(np.int64, copy=False))
        return
    for size in distinct:
        if not size:
            continue
        to, piece = _items(out, size), _items(data, size)
        if len(distinct) == 1:
            to[out_at] = piece[data_at]
        else:
            members = np.flatnonzero(length == size)
            to[out_at[members]] = piece[data_at[members]]


def spans(data: U8, data_at: I64, size: int) -> U8:
    """Copies of ``data[data_at[i] : data_at[i] + size]`` for each i, uint8 (n, size), of flat data."""
    if not size or not len(data_at):
        return np.empty((len(data_at), size), np.uint8)
    return _items(data, size)[data_at].view(np.uint8).reshape(len(data_at), size)


def _items(flat: U8, size: int) -> npt.NDArray[np.void]:
    """All pieces of ``size`` bytes, by where they begin: numpy copies each with one memcpy."""
    return np.ndarray((flat.size - size + 1,), np.dtype((np.void, size)), flat, 0, (1,))


def _copy_any(out: U8, out_at: I64, data: U8, data_at: I64, length: I64) -> None:
    long = length >= _LONG_BYTES
    for to, at, size in zip(out_at[long].tolist(), data_at[long].tolist(), length[long].tolist(), strict=True):
        out[to : to + size] = data[at : at + size]
    out_at, data_at, length = out_at[~long], data_at[~long], length[~long]
    ends = np.cumsum(length)
    cuts = np.searchsorted(ends, np.arange(_INDEXED_BYTES, int(ends[-1]) if ends.size else 0, _INDEXED_BYTES))
    for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(length)], strict=True):
        some = length[begin:end]
        within = np.arange(int(some.sum())) - np.repeat(np.cumsum(some) - some, some)
        out[np.repeat(out_at[begin:end], some) + within] = data[np.repeat(data_at[begin:end], some) + within]
