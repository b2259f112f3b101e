"""Sound that says what time it is: at every whole second a click, and behind it the second's number in eight pulses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["BEEP_S", "seconds_heard", "sound_at"]

RATE = 8000
BEEP_S = 0.02  # nearly: of click, rest and pulses
_CLICK, _REST, _PULSE, _BITS = 16, 8, 16, 8  # frames
_LOUD, _HIGH = 30_000, 9_000

I16 = npt.NDArray[np.int16]
F64 = npt.NDArray[np.float64]


def sound_at(seconds: F64, background: npt.ArrayLike = 0) -> I16:
    """What is heard at these times. Between the beeps it is ``background``."""
    number = np.floor(seconds + 1e-9).astype(np.int64)
    frame = np.floor((seconds - number) * RATE + 1e-3).astype(np.int64)
    sound = np.broadcast_to(np.asarray(background, np.float64), seconds.shape).astype(np.int16)
    bit = np.maximum(frame - _CLICK - _REST, 0) // _PULSE
    pulses = np.where(number >> np.minimum(bit, _BITS - 1) & 1, _HIGH, -_HIGH)
    sound = np.where(frame < _CLICK + _REST + _BITS * _PULSE, pulses, sound)
    sound = np.where(frame < _CLICK + _REST, 0, sound)
    return np.where(frame < _CLICK, _LOUD, sound).astype(np.int16)


def seconds_heard(channel: I16, rate: int = RATE) -> dict[int, float]:
    """By second where it is heard, in seconds from the beginning. Without those that are cut or heard twice."""
    loud = np.flatnonzero(channel > 20_000)
    begins = loud[np.r_[True, np.diff(loud) > rate // 50]] if loud.size else loud
    at = (_CLICK + _REST + _PULSE * np.arange(_BITS) + _PULSE // 2) * rate // RATE
    begins = begins[begins + at[-1] < len(channel)]
    begins = begins[channel[begins + (_CLICK - 3) * rate // RATE] > 20_000]
    pulses = channel[begins[:, None] + at]
    whole = (np.abs(pulses) > _HIGH // 2).all(axis=1)
    numbers = ((pulses > 0) << np.arange(_BITS)).sum(axis=1)[whole]
    once, first, times = np.unique(numbers, return_index=True, return_counts=True)
    where = begins[whole] / rate
    return {int(k): float(where[i]) for k, i, n in zip(once, first, times, strict=True) if n == 1}
