"""Sample rates that can be converted into each other."""

from __future__ import annotations

from math import gcd
from typing import Final

__all__ = ["can_resample"]

_MOST_PHASES: Final = 1000  # of the polyphase filter


def can_resample(rate_in: int, rate_out: int) -> bool:
    """Whether :class:`strep.resample.Resampler` takes these rates, in Hz."""
    return min(rate_in, rate_out) > 0 and max(rate_in, rate_out) // gcd(rate_in, rate_out) <= _MOST_PHASES
