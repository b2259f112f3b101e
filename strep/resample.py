"""Streaming sample rate conversion: a polyphase FIR filter that keeps its state from block to block. Pure.

The filter is a symmetric sinc with a Kaiser window, 16 samples of the lower rate to each side. Between 8 and 16 kHz it
is flat within 0.05 dB up to 3.4 kHz, and more than 60 dB down from 4.5 kHz on; its look-ahead, which delays live
streams, is 2 ms. Output sample k stands at time k / rate_out: the delay is compensated, positions stay exact.
"""

from __future__ import annotations

from functools import cache, lru_cache
from math import gcd
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ._model.exceptions import ConfigurationError
from ._model.rates import can_resample

__all__ = ["Resampler", "can_resample", "polyphase", "prepare", "resample"]

_SIDE_SAMPLES: Final = 16  # of the lower rate, on each side
_KAISER_BETA: Final = 5.9  # more than 60 dB of attenuation

Samples = npt.NDArray[np.int16] | npt.NDArray[np.float32]


@cache
def _signal() -> Any:
    """scipy.signal, imported on first use: that takes longer than importing everything else."""
    from scipy import signal

    return signal


def prepare() -> None:
    """Do now the slow import that the first Resampler would otherwise do, in a thread that nobody waits for."""
    _signal()


@lru_cache(maxsize=64)
def _filter(up: int, down: int) -> tuple[npt.NDArray[np.float64], int]:
    """Taps at the upsampled rate, float64, and the index of the middle one, which is a multiple of ``down``."""
    widest = max(up, down)
    half = _SIDE_SAMPLES * widest
    taps = _signal().firwin(2 * half + 1, 1 / widest, window=("kaiser", _KAISER_BETA)) * up
    pad = -half % down
    return np.concatenate([np.zeros(pad), taps]), half + pad


def polyphase(rate_in: int, rate_out: int) -> tuple[int, int, npt.NDArray[np.float64], int]:
    """(up, down, taps, middle): the taps at the upsampled rate, float64, and the index of the middle one. Rates in Hz.

    Output k is the sum over j of input[j] * taps[k * down + middle - j * up]. Raises ConfigurationError as
    :class:`Resampler` does.
    """
    if rate_in <= 0 or rate_out <= 0:
        raise ConfigurationError(f"resampling from {rate_in} to {rate_out} Hz: rates are positive")
    divisor = gcd(rate_in, rate_out)
    up, down = rate_out // divisor, rate_in // divisor
    if not can_resample(rate_in, rate_out):
        raise ConfigurationError(f"resampling from {rate_in} to {rate_out} Hz: choose a simpler ratio")
    taps, middle = _filter(up, down) if up != down else (np.ones(1), 0)
    return up, down, taps, middle


class Resampler:
    """Converts from ``rate_in`` to ``rate_out``, in Hz: :meth:`process` blocks of any size, then :meth:`flush`.

    Arrays are of ``dtype``, shape (n,), or (n, channels) if ``channels`` > 1. The output is the same bit for bit
    however the input was cut; in all, ceil(samples in * rate_out / rate_in) samples come out. int16 is rounded and
    saturated; float32 is not. Output waits for ``lookahead`` input samples, which last ``delay_ms``.

    Raises ConfigurationError for another dtype, and for rates that are not positive or whose ratio is too odd (more
    than 1,000 phases).
    """

    def __init__(
        self, rate_in: int, rate_out: int, channels: int = 1, dtype: Literal["int16", "float32"] = "int16"
    ) -> None:
        if dtype not in ("int16", "float32"):
            raise ConfigurationError(f"dtype {dtype!r}: 'int16' or 'float32'")
        self._up, self._down, self._taps, self._middle = polyphase(rate_in, rate_out)
        self._same = self._up == self._down
        self._dtype = np.dtype(dtype)
        self._channels = channels
        self.lookahead = 0 if self._same else -(-self._middle // self._up)
        self.delay_ms = 1000.0 * self.lookahead / rate_in
        self.reset()

    def reset(self) -> None:
        """Start over, as if nothing had been processed."""
        self._start = 0  # input index of the first kept sample, a multiple of `down`, so that the phases stay in step
        self._kept: npt.NDArray[np.float64] = np.zeros(self._shape(0), np.float64)
        self._samples_in = 0
        self._samples_out = 0

    def _shape(self, n: int) -> tuple[int, ...]:
        return (n,) if self._channels == 1 else (n, self._channels)

    def process(self, samples: Samples) -> Any:
        """The output that these further samples make possible: possibly none yet."""
        if self._same:
            return samples
        self._samples_in += len(samples)
        self._kept = np.concatenate([self._kept, samples])
        # output k needs inputs up to (k * down + middle) / up
        until = (self._samples_in * self._up - 1 - self._middle) // self._down + 1
        return self._take(until)

    def flush(self) -> Any:
        """The rest of the output, as if silence followed the last sample. The resampler then starts over."""
        if self._same:
            return np.zeros(self._shape(0), self._dtype)
        total = -(-self._samples_in * self._up // self._down)
        self._kept = np.concatenate([self._kept, np.zeros(self._shape(self.lookahead + self._down), np.float64)])
        rest = self._take(total)
        self.reset()
        return rest

    def _take(self, until: int) -> Any:
        if until <= self._samples_out:
            return np.zeros(self._shape(0), self._dtype)
        up, down = self._up, self._down
        # each output is one dot product in a fixed order, so that cuts make no difference
        if down == 1 and self._channels == 1:
            out = self._between(until)
        else:
            begin = self._samples_out + self._middle // down - self._start * up // down
            out = _signal().upfirdn(self._taps, self._kept, up, down, axis=0)[begin : begin + until - self._samples_out]
        self._samples_out = until
        lowest = -(-(until * down + self._middle - len(self._taps) + 1) // up)
        start = max(lowest // down * down, self._start)
        self._kept = self._kept[start - self._start :]
        self._start = start
        if self._dtype == np.int16:
            return np.clip(np.rint(out), -32_768, 32_767).astype(np.int16)
        return out.astype(np.float32)

    def _between(self, until: int) -> npt.NDArray[np.float64]:
        """The output up to ``until`` at a multiple of the input's rate: input samples themselves, but for the filter's
        gain (all its other taps are zeros of the sinc there), and ``up`` - 1 values behind each of them."""
        up, kept, side = self._up, self._kept, _SIDE_SAMPLES
        first, last = self._samples_out // up, (until - 1) // up
        if (before := side - 1 - (first - self._start)) > 0:
            kept = np.concatenate([np.zeros(before), kept])
        begin = first - self._start + max(before, 0)  # where the first of these input samples stands in ``kept``
        count = last + 1 - first
        out = np.empty((count, up))
        np.multiply(kept[begin : begin + count], self._taps[self._middle], out=out[:, 0])
        around = kept[begin - side + 1 : begin + count + side]
        for phase in range(1, up):
            out[:, phase] = np.correlate(around, self._taps[phase::up][::-1], "valid")
        return out.reshape(-1)[self._samples_out - first * up : until - first * up]


def resample(samples: Samples, rate_in: int, rate_out: int) -> Any:
    """Converts a whole array at once: int16 or float32, shape (n,) or (n, channels). Rates in Hz."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    resampler = Resampler(rate_in, rate_out, channels, "int16" if samples.dtype == np.int16 else "float32")
    parts = [resampler.process(samples), resampler.flush()]
    return np.concatenate(parts)
