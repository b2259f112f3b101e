"""Levels in dBm0: 0 dBm0 is 3.17 dB below a sine of full scale (µ-law; 3.14 dB with A-law: ITU-T G.711)."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["DBM0_OF_FULL_SCALE", "dbm0_of_amplitude", "dbm0_of_power"]

DBM0_OF_FULL_SCALE: Final = 3.17  # level of a sine of full scale
_SILENCE: Final = 1e-12  # squared amplitude: nothing is told to be quieter


def dbm0_of_amplitude(squared: float) -> float:
    """The level of a sine by the square of its amplitude; full scale is 1."""
    return round(10 * math.log10(max(squared, _SILENCE)) + DBM0_OF_FULL_SCALE, 1)


def dbm0_of_power(mean_square: float) -> float:
    """The level of a mean square; a sine of full scale has 0.5."""
    return dbm0_of_amplitude(2 * mean_square)
