"""Windows of audio that are nothing but one or two steady tones, for all streams at once. Pure.

Windows of 50 ms overlap by half. Each that is loud enough is tapered and transformed (20 Hz a bin): what is made of two
tones at most has its energy around two peaks. Of those, the ones that a pair of call-progress frequencies fits by
least squares are that pair: 440 and 480 Hz make one peak, but no single tone, and no other pair, fits them. Of the
others, those with one peak are single tones, their frequency interpolated between bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .dbm0 import DBM0_OF_FULL_SCALE

if TYPE_CHECKING:
    from .window_runs import WindowRun

__all__ = ["HOP", "PAIRS", "RATE", "WINDOW", "TonalWindows", "find_tones", "prepare"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

RATE: Final = 8000  # Hz
WINDOW: Final = 400  # samples: 50 ms
HOP: Final = 200  # samples
PAIRS: Final = ((350, 440), (440, 480), (480, 620), (400, 450))  # Hz

_BIN_HZ: Final = RATE / WINDOW
_MIN_POWER: Final = 10 ** ((-38.0 - DBM0_OF_FULL_SCALE) / 10) / 2  # mean square: -38 dBm0
_TWO_PEAKS_SHARE: Final = 0.85  # of the energy, within two bins of two peaks
_PAIR_FIT: Final = 0.9  # of the energy, that a pair by least squares must hold
_PAIR_TWIST: Final = 10 ** (8 / 10)  # 8 dB: ratio of the powers of the two tones, at most
_ONE_PEAK_SHARE: Final = 0.93  # of the energy, within two bins of one peak
_AT_ONCE: Final = 200  # windows that are transformed at once: they stay in the processor's cache
_DETUNINGS: Final = (0.99, 0.995, 1.0, 1.005, 1.01)  # factors by which pairs are tried off their frequencies


@dataclass(slots=True)
class TonalWindows:
    """The windows that are tones, as columns (n,), and the power of all windows.

    ``power``      float32 (k, count): mean square of every window, tone or not
    ``at``         int64: whose each of the tones is, an index of the run's rows
    ``number``     int64: which of its windows, ascending
    ``pair``       int64: index into PAIRS; -1: a single tone
    ``frequency``  float32: of a single tone, Hz
    ``purity``     float32: share of the energy that is these tones, 0 to 1
    """

    power: F32
    at: I64
    number: I64
    pair: I64
    frequency: F32
    purity: F32


def prepare() -> None:
    """Import now what the first :func:`find_tones` would otherwise import in its thread."""
    import scipy.fft  # noqa: F401  # not where nobody listens for tones


def find_tones(run: WindowRun) -> TonalWindows:
    """Look at windows of WINDOW samples every HOP at RATE, float32."""
    k, count = len(run), run.count
    halves = np.empty((k, count + 1), np.float32)
    np.vecdot(run.hops(), run.hops(), out=halves)
    power = halves[:, :-1] + halves[:, 1:]
    power *= np.float32(1 / WINDOW)
    number, at = np.nonzero(power.T >= _MIN_POWER)
    windows = run.windows()
    found = [_few_peaks(windows[at[n : n + _AT_ONCE], number[n : n + _AT_ONCE]]) for n in range(0, len(at), _AT_ONCE)]
    few = np.concatenate([one.at + n * _AT_ONCE for n, one in enumerate(found)]) if found else np.zeros(0, np.int64)
    if not few.size:
        none = np.zeros(0, np.float32)
        return TonalWindows(power, few, few, few, none, none)
    at, number = at[few], number[few]
    one, first, peak = (np.concatenate(parts) for parts in zip(*((f.one, f.first, f.peak) for f in found), strict=True))
    pair, fit = _pairs(windows[at, number])
    single = (pair < 0) & (one >= _ONE_PEAK_SHARE)
    # Hann taper: of the two largest values' ratio r, the peak is (2r - 1) / (r + 1) bins towards the second
    amplitude = np.sqrt(peak)
    upper = amplitude[:, 3] >= amplitude[:, 1]
    ratio = np.where(upper, amplitude[:, 3], amplitude[:, 1]) / np.maximum(amplitude[:, 2], 1e-12)
    shift = (2 * ratio - 1) / (ratio + 1)
    frequency = (first + np.where(upper, shift, -shift)) * np.float32(_BIN_HZ)
    tones = np.flatnonzero(single | (pair >= 0))
    purity = np.where(pair >= 0, fit, one)
    return TonalWindows(
        power=power,
        at=at[tones],
        number=number[tones],
        pair=pair[tones],
        frequency=frequency[tones].astype(np.float32),
        purity=purity[tones].astype(np.float32),
    )


class _FewPeaks(NamedTuple):
    """Windows with their energy around two peaks at most, (n,): their indices; the share of the energy around the
    largest one; its bin; and the energies of the five bins around it, (n, 5)."""

    at: I64
    one: F32
    first: I64
    peak: F32


def _few_peaks(windows: F32) -> _FewPeaks:
    """``windows``: (n, WINDOW)"""
    from scipy.fft import rfft  # several transforms at once: far faster than numpy's

    parts = rfft(windows * _TAPER, overwrite_x=True).view(np.float32)
    np.square(parts, out=parts)
    energy = parts[:, ::2] + parts[:, 1::2]
    energy[:, :2] = 0
    total = np.maximum(energy @ _ONES, np.float32(1e-12))
    first = np.clip(energy.argmax(1), 2, energy.shape[1] - 3)
    rows = np.arange(len(windows))
    around = rows[:, None], first[:, None] + _AROUND
    peak = energy[around]
    one = peak.sum(1) / total
    energy[around] = 0
    second = np.clip(energy.argmax(1), 2, energy.shape[1] - 3)
    two = energy[rows[:, None], second[:, None] + _AROUND].sum(1) / total
    few = np.flatnonzero(one + two >= _TWO_PEAKS_SHARE)
    return _FewPeaks(few, one[few], first[few], peak[few])


def _pairs(samples: F32) -> tuple[I64, F32]:
    """Which of PAIRS each window is (-1: none), and how well it fits."""
    if not len(samples):
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    energy = np.maximum(np.einsum("ij,ij->i", samples, samples), 1e-12)
    shape = (len(samples), len(PAIRS) * len(_DETUNINGS), 4)
    right = (samples @ _MODELS).reshape(shape)
    weights = (samples @ _INVERSES).reshape(shape)
    fit = (right * weights).sum(2) / energy[:, None]
    best = fit.argmax(1)
    rows = np.arange(len(samples))
    chosen = weights[rows, best]
    low, high = (chosen[:, i] ** 2 + chosen[:, i + 1] ** 2 for i in (0, 2))
    even = (low <= _PAIR_TWIST * high) & (high <= _PAIR_TWIST * low)
    best_fit = fit[rows, best]
    return np.where(even & (best_fit >= _PAIR_FIT), best // len(_DETUNINGS), -1), best_fit


def _make_models() -> tuple[F32, F32]:
    """(400, 4·n): cosines and sines of every pair, as it is and a little off; and what gives their weights."""
    t = np.arange(WINDOW)[:, None] / RATE
    models: list[Any] = []
    for low, high in PAIRS:
        for off in _DETUNINGS:
            a, b = 2 * np.pi * low * off * t, 2 * np.pi * high * off * t
            models.append(np.concatenate([np.cos(a), np.sin(a), np.cos(b), np.sin(b)], 1))
    inverses = [np.linalg.pinv(m).T for m in models]
    return np.concatenate(models, 1).astype(np.float32), np.concatenate(inverses, 1).astype(np.float32)


_AROUND: Final = np.arange(-2, 3)
_ONES: Final = np.ones(WINDOW // 2 + 1, np.float32)
_TAPER: Final = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
_MODELS, _INVERSES = _make_models()
