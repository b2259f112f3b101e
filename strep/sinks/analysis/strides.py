"""Views of overlapping stretches of an array."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

__all__ = ["stretches"]


def stretches(flat: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """A view (len - width + 1, width) of every stretch of ``width`` values. Write only to rows that do not overlap."""
    return as_strided(flat, (len(flat) - width + 1, width), (flat.itemsize, flat.itemsize))
