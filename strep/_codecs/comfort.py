"""Comfort noise of RFC 3389 (payload type 13): noise of a given level and, if it is given, spectrum.

    +--------+--------+--------+- ... -+
    | level  |  k 1   |  k 2   |       |     level: 0 to 127, the noise is that many dB below the overload point (-dBov)
    +--------+--------+--------+- ... -+     k: reflection coefficients, quantized uniformly to 8 bits

0 dBov is the power of the largest square wave that samples can have (RFC 3389 section 3.1), so the noise has a root
mean square of 32768 * 10 ** (-level / 20). The reflection coefficients are k = 258 * (N - 127) / 32768 (section 3.2).
Their sign is that of WebRTC's comfort noise: low-pass noise has k1 < 0, and the all-pole filter 1 / A(z) begins with a1
= k1.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["CLOCK_RATE", "comfort_noise", "level_rms", "reflection_coefficients"]

I16 = npt.NDArray[np.int16]
F64 = npt.NDArray[np.float64]

CLOCK_RATE: Final = 8000  # of payload type 13: coefficients describe 0 to 4 kHz
_ORDER_LIMIT: Final = 16  # coefficients that are looked at
_LEAD_SAMPLES: Final = 256  # until the filter has settled


def level_rms(payload: bytes) -> float:
    """Root mean square of the noise in units of a 16-bit sample; 0 for an empty payload."""
    return 32_768.0 * 10.0 ** (-(payload[0] & 0x7F) / 20) if payload else 0.0  # the top bit is reserved


def reflection_coefficients(payload: bytes) -> F64:
    """Reflection coefficients, float64 (order,), at most 16, each within -1 to 1. The code 255 is read as 254."""
    codes = np.frombuffer(payload[1 : 1 + _ORDER_LIMIT], np.uint8).astype(np.float64)
    return 258.0 * (np.minimum(codes, 254) - 127) / 32_768


def comfort_noise(payload: bytes, frames: int, rate: int, rng: np.random.Generator) -> I16:
    """``frames`` samples of the noise that a payload asks for, at ``rate`` Hz, int16 (frames,). Accepts any bytes.

    All chance comes from ``rng``: in the same state it makes the same noise. If ``rate`` is a multiple of 8000 Hz,
    noise with a spectrum has nothing above 4 kHz.
    """
    rms = level_rms(payload)
    if not rms or frames <= 0:
        return np.zeros(max(frames, 0), np.int16)
    k = reflection_coefficients(payload)
    if not k.any():
        return _rounded(rms * rng.standard_normal(frames))
    from scipy.signal import lfilter, resample_poly

    up = rate // CLOCK_RATE if rate % CLOCK_RATE == 0 else 1
    count = -(-frames // up) + _LEAD_SAMPLES
    # white noise of this power has a power of 1 behind the filter
    excitation = rng.standard_normal(count) * np.sqrt(np.prod(1 - k**2))
    shaped = lfilter([1.0], _predictor(k), excitation)
    if up > 1:
        shaped = resample_poly(shaped, up, 1)
    return _rounded(rms * np.asarray(shaped)[_LEAD_SAMPLES * up :][:frames])


def _predictor(k: F64) -> F64:
    """A(z) of reflection coefficients, by the step-up recursion."""
    a = np.ones(1)
    for value in k:
        longer = np.append(a, 0.0)
        a = longer + value * longer[::-1]
    return a


def _rounded(noise: F64) -> I16:
    return np.clip(np.rint(noise), -32_768, 32_767).astype(np.int16)
