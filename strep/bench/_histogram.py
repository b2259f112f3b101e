"""Latencies in logarithmic buckets, like an HDR histogram: bounded memory, a bounded relative error."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Histogram"]

_SUB_BITS: Final = 6  # buckets per doubling: 64, so a quantile is at most 1.6 % too high
_SUB: Final = 1 << _SUB_BITS


class Histogram:
    """Counts non-negative nanoseconds. Values below 64 have a bucket each; every doubling above has 64."""

    def __init__(self) -> None:
        self._counts = np.zeros(64 * _SUB, np.int64)
        self.max_ns = 0

    def __len__(self) -> int:
        return int(self._counts.sum())

    def add(self, values_ns: npt.NDArray[np.int64]) -> None:
        """Negative values count as 0."""
        if not len(values_ns):
            return
        values = np.maximum(values_ns, 0)
        self.max_ns = max(self.max_ns, int(values.max()))
        exponent = np.maximum(np.frexp(values.astype(np.float64))[1] - 1 - _SUB_BITS, 0)  # 2^63 is far off
        bucket = exponent * _SUB + (values >> exponent)
        self._counts += np.bincount(bucket, minlength=len(self._counts))

    def quantile_ns(self, share: float) -> float:
        """The upper bound of the bucket that holds the ``share`` quantile; nan of nothing."""
        total = len(self)
        if not total:
            return float("nan")
        bucket = int(np.searchsorted(np.cumsum(self._counts), np.ceil(share * total)))
        return min(self._upper(bucket), float(self.max_ns))

    def points(self) -> list[tuple[float, int]]:
        """(upper bound in ns, count) of the buckets that hold something: what a plot needs."""
        filled = np.flatnonzero(self._counts)
        return [(self._upper(int(b)), int(self._counts[b])) for b in filled]

    def _upper(self, bucket: int) -> float:
        if bucket < 2 * _SUB:
            return float(bucket)
        return float(((_SUB + bucket % _SUB + 1) << (bucket // _SUB - 1)) - 1)
