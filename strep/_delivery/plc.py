"""Waveforms continued over lost packets: ITU-T G.711 Appendix I, at any rate, for many losses at once. Pure.

Appendix I repeats the last pitch period, after 10 ms the last two and after 20 ms the last three; cross-fades each
change over a quarter of a period; takes 20 % off the level every 10 ms after the first 10 ms, so that nothing is left
after 60 ms; and fades over into what comes after the loss. Its times in milliseconds are scaled to the rate. It
differs here in three things:

- Appendix I delays the output by 3.75 ms to cross-fade the end of what came *before* a loss into the repetition.
  What came before has already left here: it stays as it is, and the repetition begins with the step between the two
  ends taken up, fading out over a quarter of a period.
- A loss need not be a multiple of 10 ms.
- The coarse search for the pitch adds neighbouring samples up where Appendix I leaves every other one out.

All sums are of integers below 2**53 and therefore exact: the result does not depend on what is done together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["Continuation", "concealed_frames", "continued", "find_pitch", "gain", "history_frames"]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


def history_frames(rate: int) -> int:
    """How much of the past is looked at: three longest periods and a quarter, 48.75 ms (390 at 8 kHz)."""
    longest = rate * 15 // 1000
    return 3 * longest + longest // 4


def concealed_frames(rate: int) -> int:
    """After how much of a loss nothing is left: 60 ms (480 at 8 kHz)."""
    return 6 * (rate // 100)


def gain(rate: int, count: int) -> F64:
    """The level of the first ``count`` samples of a loss: 1 for 10 ms, then 0.2 less every 10 ms; float64 (count,)."""
    step = rate // 100
    return np.clip(1.0 - (np.arange(count) - step) * (0.2 / step), 0.0, 1.0)


def find_pitch(history: F64, rate: int) -> I64:
    """The period of each row, 5 to 15 ms in samples: int64 (k,).

    ``history``: float64 of whole numbers, (k, ``history_frames(rate)``). The last 20 ms are correlated with what
    stands that much earlier, relative to its energy: first at about 4 kHz, then around the best, sample by sample. Of
    equally good ones the shortest.
    """
    step = max(1, rate // 4000)
    shortest, longest, length = -(-rate * 5 // 1000), rate * 15 // 1000, rate // 50
    low, high, width = -(-shortest // step), longest // step, length // step
    count = width + high
    rough = history[:, -count * step :].reshape(len(history), count, step).sum(axis=2)
    windows = sliding_window_view(rough, width, axis=1)  # window i is that at lag high - i
    likeness = np.einsum("klc,kc->kl", windows[:, : high - low + 1], rough[:, -width:])
    energy = np.zeros((len(rough), count + 1))
    np.cumsum(rough * rough, axis=1, out=energy[:, 1:])
    energy = (energy[:, width:] - energy[:, :-width])[:, : high - low + 1]
    likeness /= np.sqrt(np.maximum(energy, 250.0 * step * step))  # the floor is Appendix I's
    best = (low + likeness[:, ::-1].argmax(axis=1)) * step

    reach = step - 1
    begin = history.shape[1] - length - best - reach
    around = np.take_along_axis(history, begin[:, None] + np.arange(length + 2 * reach), axis=1)
    windows = sliding_window_view(around, length, axis=1)  # window i is that at lag best + reach - i
    likeness = np.einsum("klc,kc->kl", windows, history[:, -length:])
    likeness /= np.sqrt(np.maximum(np.einsum("klc,klc->kl", windows, windows), 500.0))
    lag = best[:, None] + reach - np.arange(2 * reach + 1)
    likeness[(lag < shortest) | (lag > longest)] = -np.inf
    nearest = 2 * reach - likeness[:, ::-1].argmax(axis=1)
    return np.take_along_axis(lag, nearest[:, None], axis=1)[:, 0]


@dataclass(frozen=True, slots=True)
class Continuation:
    """What goes into ``k`` losses, and what fades out behind them.

    ``samples``  float64 (k, at most 60 ms): the first of each loss, already attenuated; behind them silence
    ``tail``     float64 (k, t): to be added to what comes after the loss, already weighted
    ``weight``   float64 (k, t): what that is to be multiplied with, rising to 1
    """

    samples: F64
    tail: F64
    weight: F64


def continued(history: F64, lengths: I64, rate: int) -> Continuation:
    """Continue ``k`` waveforms over losses of ``lengths`` samples.

    ``history``: float64 of whole numbers, (k, ``history_frames(rate)``): what came before, zeros where nothing did.
    """
    step, most = rate // 100, concealed_frames(rate)
    pitch = find_pitch(history, rate)
    quarter = pitch >> 2
    fade = np.minimum(quarter + (-(-lengths // step) - 1) * (rate * 4 // 1000), step)
    widest = int(fade.max())
    count = min(int(lengths.max()) + widest, most)
    made = _repeated(history, pitch, count, step)
    # the step between the two ends is taken up
    end = history.shape[1]
    gap = history[:, -1] - np.take_along_axis(history, (end - 1 - pitch)[:, None], axis=1)[:, 0]
    reach = min(count, int(quarter.max()))
    made[:, :reach] += gap[:, None] * np.clip(1.0 - np.arange(1, reach + 1) / quarter[:, None], 0.0, 1.0)
    made *= gain(rate, count)

    weight = np.minimum(np.arange(1, widest + 1) / fade[:, None], 1.0)
    at = lengths[:, None] + np.arange(widest)
    tail = np.take_along_axis(made, np.minimum(at, count - 1), axis=1)
    tail = np.where(at < count, tail * (1.0 - weight), 0.0)
    return Continuation(made[:, : min(int(lengths.max()), most)], tail, weight)


def _repeated(history: F64, pitch: I64, count: int, step: int) -> F64:
    """One period over and over; from ``step`` on the last two, from ``2 * step`` on the last three."""
    quarter = pitch >> 2
    widest = int(quarter.max())
    out = np.empty((len(history), count))
    phase = np.zeros(len(pitch), np.int64)
    before: F64 | None = None  # what went on so far, where the next takes over
    for periods in (1, 2, 3):
        begin = (periods - 1) * step
        if begin >= count:
            break
        end = count if periods == 3 else min(begin + step, count)
        ahead = end if periods == 3 else min(end + widest, count)
        values = _cycle(history, pitch, periods, phase, ahead - begin)
        if before is not None:
            over = before.shape[1]
            weight = np.minimum(np.arange(1, over + 1) / quarter[:, None], 1.0)
            values[:, :over] = (1.0 - weight) * before + weight * values[:, :over]
        out[:, begin:end] = values[:, : end - begin]
        before = values[:, end - begin :]
        # the longer stretch begins one period earlier: at the same place of its first period
        phase = (phase + step) % (periods * pitch) % pitch
    return out


def _cycle(history: F64, pitch: I64, periods: int, phase: I64, count: int) -> F64:
    """The last ``periods`` periods again and again from ``phase`` on; each end fades into what precedes its begin."""
    span = (periods * pitch)[:, None]
    quarter = (pitch >> 2)[:, None]
    end = history.shape[1]
    within = (phase[:, None] + np.arange(count)) % span
    values = np.take_along_axis(history, end - span + within, axis=1)
    into = within - (span - quarter)
    row, column = np.nonzero(into >= 0)
    weight = (into[row, column] + 1) / quarter[row, 0]
    earlier = history[row, end - 2 * span[row, 0] + within[row, column]]
    values[row, column] = (1.0 - weight) * values[row, column] + weight * earlier
    return values
