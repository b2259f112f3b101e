"""Time: nanoseconds of UTC on the receiver's clock, the engine's grid, and positions in sample frames."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["NEVER_NS", "SECOND_NS", "TICK_NS", "position_ns"]

_Whole = TypeVar("_Whole", int, npt.NDArray[np.int64])

SECOND_NS: Final = 1_000_000_000
NEVER_NS: Final = (1 << 63) - 1  # later than any time that fits into an int64
TICK_NS: Final = 10_000_000  # the grid of the engine's clock


def position_ns(position: _Whole, rate: Any) -> _Whole:
    """A position in sample frames as nanoseconds by the sender's clock, rounded down. Exact, up to 2^45 frames."""
    if isinstance(rate, int) and SECOND_NS % rate == 0:
        return position * (SECOND_NS // rate)
    whole: _Whole = position // rate * SECOND_NS + position % rate * SECOND_NS // rate
    return whole
