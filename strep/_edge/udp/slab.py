"""Memory for rows of datagrams."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["aligned_slab"]


def aligned_slab(rows: int, width: int) -> npt.NDArray[np.uint8]:
    """Zeros, uint8 (rows, width), aligned to a cache line: then the header of a plain packet lies in one line."""
    raw = np.zeros(rows * width + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + rows * width].reshape(rows, width)
