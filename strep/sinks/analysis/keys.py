"""DTMF in audio, for all streams at once: the maths and the judgement of digits (ITU-T Q.23, Q.24). Pure.

Windows of 20 ms (160 samples at 8 kHz) overlap by half: long enough that tones of the two groups (268 Hz apart at
least) do not disturb each other, short enough that a digit of 40 ms, the shortest there is, fills two of them.

First every window: one matrix product gives the power at the eight frequencies (what Goertzel's recursion gives); the
strongest of each group must hold 30 % of the energy together. 4 % of the windows of speech pass. Then these:

    frequency   of each tone from the phase it gains between two tapered parts; within 2.5 % of nominal
                (Q.24: 1.5 % must be accepted, 3.5 % must not)
    fit         two sinusoids of these frequencies, by least squares, hold 80 % of the energy; of a digit's windows two
                92 %, or seven 80 %
    twist       the high tone is at most 4 dB stronger, at most 8 dB weaker
    level       each tone is at least -36 dBm0
    harmonics   nothing near twice either frequency, within 15 dB: voices have those, keys have not

A digit is a run of such windows, of one key: 35 ms or longer. Interruptions of up to 30 ms do not end it (Q.24: 10 ms
must not, 40 ms must). Where it begins and ends is told by the share of the tones that the windows at its edges hold.

Levels are in dBm0, see :mod:`.dbm0`. State: ten numbers a row, and an object for each digit that goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from .columns import Columns, column
from .dbm0 import DBM0_OF_FULL_SCALE, dbm0_of_amplitude

if TYPE_CHECKING:
    from ..exclusion import StreamExclusion
    from .window_runs import WindowRun

__all__ = ["HOP", "RATE", "WINDOW", "InbandDigit", "KeyFinder"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

RATE: Final = 8000  # Hz
WINDOW: Final = 160  # samples
HOP: Final = 80  # samples

_FREQUENCIES: Final = np.array([697, 770, 852, 941, 1209, 1336, 1477, 1633], np.float64)  # Hz
_KEYS: Final = ("123A", "456B", "789C", "*0#D")  # rows: the low group, columns: the high group

_SHARE: Final = 0.3  # of a window's energy; the worst valid digit still has 0.4
_FIT: Final = 0.8  # of a window's energy
_GOOD_FIT: Final = 0.92
_SURE_GOOD_WINDOWS: Final = 2  # so many windows with a good fit make a digit
_SURE_WINDOWS: Final = 7  # so many with any fit as well: a long digit in noise
_DEVIATION: Final = 0.025  # of a frequency from nominal
_TWIST_DB: Final = (-8.5, 4.5)  # half a decibel for noise
_MIN_SQUARED: Final = 10 ** ((-36.0 - DBM0_OF_FULL_SCALE) / 10)  # squared amplitude of a tone: -36 dBm0
_LEAST_ENERGY: Final = (
    0.13 * WINDOW * _MIN_SQUARED
)  # of a window with tones that are strong: they hold twice it at most
_HARMONIC: Final = 10 ** (-15 / 10)  # of a tone's power, at most
_SHORTEST: Final = 280  # samples, 35 ms: 40 must be a digit, 23 must not
_BRIDGE: Final = 240  # samples, 30 ms: interruptions up to this long do not end a digit
_PART: Final = 112  # samples: the tapered beginning and end of a window, whose phases tell frequencies within ±83 Hz
_LAG: Final = WINDOW - _PART  # samples from the beginning of the one to that of the other
_LEAST_HELD: Final = 0.8  # of its last window a digit holds at least this share: no window with less is a hit
_ROOM_AT_FIRST: Final = 64  # rows
_CACHE_SAMPLES: Final = 60_000  # gone through at once: they stay in the processor's cache
_FROM_MIDDLE: Final = np.arange(WINDOW, dtype=np.float32) - np.float32((WINDOW - 1) / 2)  # samples


@dataclass(frozen=True, slots=True)
class InbandDigit:
    """A digit in the audio of a row. ``begin`` and ``end`` are in samples at 8 kHz on the stream's timeline,
    ``level_dbm0`` is that of both tones together."""

    row: int
    key: str
    begin: int
    end: int
    time_ns: int
    level_dbm0: float


@dataclass(slots=True)
class _DigitRun:
    """A digit that goes on, or an interruption of it. Positions are in samples at 8 kHz."""

    key: int  # 4 · row + column of _KEYS
    begin: float
    end: float  # as far as is known
    time_ns: int
    last: int  # position of the last window that was a hit
    power: float  # of the tones in a window that they fill, by the first product
    low: float = 0.0  # sums of squared amplitudes of the two tones
    high: float = 0.0
    hits: int = 0  # windows that hold the digit
    good: int = 0  # those with a good fit

    @property
    def is_key(self) -> bool:
        sure = self.good >= _SURE_GOOD_WINDOWS or self.hits >= _SURE_WINDOWS
        return sure and self.end - self.begin >= _SHORTEST


@dataclass(slots=True)
class _DigitWindows:
    """Windows that hold a digit: their indices among the candidates; of each its key, fit and squared amplitudes."""

    at: I64
    key: I64
    fit: F64
    low: F64
    high: F64


class _LastWindow(Columns):
    """Each row's last window."""

    power: F32 = column(np.float32, shape=(8,))  # at the eight frequencies
    position: I64 = column(np.int64, -WINDOW)
    busy: npt.NDArray[np.bool_] = column(np.bool_)  # whether a digit goes on


class KeyFinder:
    """Takes windows of WINDOW samples every HOP at RATE, float32, and gives digits.

    A digit is told when 30 ms have passed since its end; :meth:`going` tells of one that has not ended, once it is
    sure: 60 ms after its beginning at the latest. What :meth:`find` raises has changed nothing; a stream whose own
    digits make it raise is set aside.
    """

    def __init__(self, aside: StreamExclusion) -> None:
        self._aside = aside
        self._basis = _goertzel()
        self._parts = _tapered_parts()
        self._state = _LastWindow()
        self._runs: dict[int, _DigitRun] = {}  # by row
        self.windows = 0  # looked at so far
        self.candidates = 0  # those that were looked at carefully

    def reset(self, row: int) -> None:
        """Another stream has this row."""
        if row < self._state.rows:
            self._state.reset(row)
        self._runs.pop(row, None)

    def end(self, row: int) -> list[InbandDigit]:
        """The row's stream has ended (its last windows have been taken)."""
        run = self._runs.get(row)
        found = [self._found(row, run)] if run is not None and run.is_key else []
        self.reset(row)
        return found

    @property
    def busy(self) -> Set[int]:
        """The rows in which a digit goes on, or may."""
        return self._runs.keys()

    def going(self, row: int) -> tuple[int, int] | None:
        """Begin and end so far, in samples at 8 kHz, of a digit that is sure and still goes on; None: there is none."""
        run = self._runs.get(row)
        return (round(run.begin), round(run.end)) if run is not None and run.is_key else None

    def heard(self, row: int) -> int:
        """How far a row's audio has come: the end of its last window, in samples at 8 kHz."""
        return int(self._state.position[row]) + WINDOW

    def find(self, run: WindowRun) -> list[InbandDigit]:
        """Digits that these windows complete."""
        row, count = run.row, run.count
        if not len(row):
            return []
        state = self._state
        state.make_room(max(_ROOM_AT_FIRST - 1, int(row.max())))
        power, energy, (at, number) = self._powers(run)
        hits = None
        if at.size:
            windows = run.windows()[at, number]
            hits = self._judge(np.arange(len(at)), windows, power[:, at, number].T, energy[at, number])
        self.windows += len(row) * count
        found: list[InbandDigit] = []
        eventful: dict[int, list[int]] = {}  # by number of the window: which of the hits are in it
        if hits is not None:
            for n, candidate in enumerate(hits.at.tolist()):
                eventful.setdefault(int(number[candidate]), []).append(n)
        busy = state.busy.take(row)
        some_busy = bool(busy.any())
        for j in range(count) if eventful or some_busy else ():
            its = eventful.get(j)
            if its is None and not some_busy:
                continue
            position, time_ns = run.frames[j].position, run.frames[j].time_ns
            where = [] if its is None or hits is None else at[hits.at[its]].tolist()
            concerned = np.union1d(np.flatnonzero(busy), np.array(where, np.int64)) if some_busy else where
            if j:  # what the windows before these had
                state.power[row[concerned]] = power[:, concerned, j - 1].T
                state.position[row[concerned]] = run.frames[j - 1].position[concerned]
            for n, i in zip(its or (), where, strict=True):
                busy[i] = False
                if hits is not None:
                    work = partial(self._hit, int(row[i]), int(position[i]), int(time_ns[i]), hits, n, power[:, i, j])
                    self._apart(run, i, work, found)
            for i in np.flatnonzero(busy).tolist():
                self._apart(run, i, partial(self._miss, int(row[i]), int(position[i]), power[:, i, j]), found)
            busy = state.busy.take(row)
            some_busy = bool(busy.any())
        state.power[row] = power[..., -1].T
        state.position[row] = run.frames[-1].position
        return found

    def _apart(
        self, run: WindowRun, i: int, work: Callable[[list[InbandDigit]], None], found: list[InbandDigit]
    ) -> None:
        """Do work for one stream, which is set aside if it raises."""
        try:
            work(found)
        except Exception as error:
            self._aside.put(run.stream(i), error)

    def _powers(self, run: WindowRun) -> tuple[F32, F32, tuple[I64, I64]]:
        """The power of each window at the eight frequencies, (8, k, count), where it matters; its energy, (k, count);
        and which windows may hold a digit: their rows and numbers."""
        k, count = len(run), run.count
        power, energy = np.empty((8, k, count), np.float32), np.empty((k, count), np.float32)
        strong, quiet = np.zeros((k, count), np.bool_), np.ones(k, np.bool_)
        busy = self._state.busy.take(run.row)
        step = max(1, _CACHE_SAMPLES // ((count + 1) * HOP))
        for begin in range(0, k, step):
            end = min(begin + step, k)
            view = run.hops(begin, end)
            of_halves = np.vecdot(view, view)
            its_energy = np.add(of_halves[:, :-1], of_halves[:, 1:], out=energy[begin:end])
            loud = np.flatnonzero((its_energy.max(1) >= _LEAST_ENERGY) | busy[begin:end])
            quiet[begin:end][loud] = False
            if not loud.size:
                continue
            halves = view[loud].reshape(-1, HOP)
            product = self._basis @ halves.T
            # each half is the first of a window, and the second of the one before; the last of a row begins none
            both = product[:16]
            both[:, :-1] += product[16:, 1:]
            np.square(both, out=both)
            its_power = np.add(both[:8], both[8:], out=both[:8]).reshape(8, len(loud), count + 1)[..., :-1]
            power[:, begin + loud] = its_power
            loudest = its_power[:4].max(0) + its_power[4:].max(0)
            strong[begin + loud] = loudest >= _SHARE * np.maximum(its_energy[loud], WINDOW * _MIN_SQUARED)
        if still := np.flatnonzero(quiet).tolist():  # of these only the last window may matter, to the next one
            last = run.frames[-1].samples[still]
            product = self._basis[:16] @ last[:, :HOP].T + self._basis[16:] @ last[:, HOP:].T
            np.square(product, out=product)
            power[:, still, -1] = product[:8] + product[8:]
        at, number = np.nonzero(strong)
        return power, energy, (at, number)

    def _judge(self, at: I64, samples: F32, power: F32, energy: F32) -> _DigitWindows:
        """The careful look at windows that may hold a digit."""
        self.candidates += len(at)
        low, high = power[:, :4].argmax(1), power[:, 4:].argmax(1)
        pick = np.stack([low, high + 4], 1)  # (c, 2): which two of the eight
        halves = (samples @ self._parts).reshape(len(at), 4, 8)
        first, second = (np.take_along_axis(halves[:, i] + 1j * halves[:, i + 1], pick, 1) for i in (0, 2))
        nominal = _FREQUENCIES[pick]
        off = np.angle(second * first.conj()).astype(np.float64) * RATE / (2 * np.pi * _LAG)
        near = (np.abs(off) <= _DEVIATION * nominal).all(1)
        chosen = np.flatnonzero(near)
        at, pick, energy64, samples = at[chosen], pick[chosen], energy[chosen].astype(np.float64), samples[chosen]
        if not at.size:
            return _DigitWindows(at, at, energy64, energy64, energy64)
        frequency = (nominal + off)[chosen]
        model = _sinusoids(frequency)
        explained, squared, fitted = _fit(model, samples)
        fit = explained / np.maximum(energy64, 1e-12)
        twist = 10 * np.log10(np.maximum(squared[:, 1], 1e-12) / np.maximum(squared[:, 0], 1e-12))
        good = np.flatnonzero(
            (fit >= _FIT) & (twist >= _TWIST_DB[0]) & (twist <= _TWIST_DB[1]) & (squared >= _MIN_SQUARED).all(1)
        )
        if good.size:
            octave = _fit(_sinusoids(2 * frequency[good]), samples[good] - fitted[good])[1]
            good = good[(octave <= _HARMONIC * squared[good]).all(1)]
        key = 4 * pick[:, 0] + pick[:, 1] - 4
        return _DigitWindows(at[good], key[good], fit[good], squared[good, 0], squared[good, 1])

    # --- digits of windows ------------------------------------------------------------------------------------------

    def _hit(
        self, row: int, position: int, time_ns: int, hits: _DigitWindows, n: int, power: F32, found: list[InbandDigit]
    ) -> None:
        key = int(hits.key[n])
        full = _pair(power, key)
        run = self._runs.get(row)
        if run is not None and position - run.last > HOP:
            # windows that were no hits lie between, or none came: the digit may have been interrupted
            if position != int(self._state.position[row]) + HOP and run.last + HOP > int(self._state.position[row]):
                run.end = run.last + WINDOW
            if key != run.key or self._onset(row, position, full, key) - run.end > _BRIDGE:
                self._close(row, run, found)
                run = None
        elif run is not None and key != run.key:
            self._close(row, run, found)
            run = None
        if run is None:
            begin = self._onset(row, position, full, key)
            start_ns = time_ns + round((begin - position) * 1e9 / RATE)
            run = self._runs[row] = _DigitRun(key, begin, 0.0, start_ns, position, full)
            self._state.busy[row] = True
        run.end = position + WINDOW
        run.last = position
        run.power = max(run.power, full)
        run.low += float(hits.low[n])
        run.high += float(hits.high[n])
        run.hits += 1
        run.good += int(hits.fit[n] >= _GOOD_FIT)

    def _onset(self, row: int, position: int, full: float, key: int) -> float:
        """Where the tones begin, by the share of them in the window before the first one that they fill."""
        if int(self._state.position[row]) != position - HOP:
            return float(position)
        share = min(1.0, math.sqrt(_pair(self._state.power[row], key) / max(full, 1e-12)))
        return position - HOP + WINDOW * (1 - share)

    def _miss(self, row: int, position: int, power: F32, found: list[InbandDigit]) -> None:
        run = self._runs[row]
        if position == run.last + HOP:
            share = min(1.0, math.sqrt(_pair(power, run.key) / run.power))
            run.end = max(run.last + _LEAST_HELD * WINDOW, position + WINDOW * share)
        elif int(self._state.position[row]) == run.last:  # a gap came right after the last hit
            run.end = run.last + WINDOW
        if position - run.end >= _BRIDGE:
            self._close(row, run, found)

    def _close(self, row: int, run: _DigitRun, found: list[InbandDigit]) -> None:
        del self._runs[row]
        self._state.busy[row] = False
        if run.is_key:
            found.append(self._found(row, run))

    def _found(self, row: int, run: _DigitRun) -> InbandDigit:
        low, high = run.low / run.hits, run.high / run.hits
        return InbandDigit(
            row=row,
            key=_KEYS[run.key >> 2][run.key & 3],
            begin=round(run.begin),
            end=round(run.end),
            time_ns=run.time_ns,
            level_dbm0=dbm0_of_amplitude(low + high),
        )


def _pair(power: F32, key: int) -> float:
    return float(power[key >> 2] + power[4 + (key & 3)])


def _goertzel() -> F32:
    """(32, 80): cosines and sines over the first half of a window, then over the second one, scaled so that the sum of
    the squares is the energy that a tone there has."""
    angle = 2 * np.pi * np.arange(WINDOW)[:, None] * _FREQUENCIES / RATE
    both = np.concatenate([np.cos(angle), np.sin(angle)], 1)
    both *= math.sqrt(2 / WINDOW)
    return np.ascontiguousarray(np.concatenate([both[:HOP], both[HOP:]], 1).T, np.float32)


def _tapered_parts() -> F32:
    """(160, 4·8): real and imaginary part of the first, then of the last _PART samples, at each frequency."""
    angle = 2 * np.pi * np.arange(WINDOW)[:, None] * _FREQUENCIES / RATE
    taper = np.hanning(_PART + 2)[1:-1]
    first, second = np.zeros((WINDOW, 1)), np.zeros((WINDOW, 1))
    first[:_PART, 0] = taper
    second[_LAG:, 0] = taper
    parts = [wave * window for window in (first, second) for wave in (np.cos(angle), -np.sin(angle))]
    return np.concatenate(parts, 1).astype(np.float32)


def _sinusoids(frequency: F64) -> F32:
    """(c, 4, 160): cosines, then sines of two frequencies (c, 2). float32 is exact to 1e-5 here, and fast."""
    step = (frequency * (2 * np.pi / RATE)).astype(np.float32)
    angle = step[:, :, None] * _FROM_MIDDLE
    model = np.empty((len(frequency), 4, WINDOW), np.float32)
    np.cos(angle, out=model[:, :2])
    np.sin(angle, out=model[:, 2:])
    return model


def _fit(model: F32, samples: F32) -> tuple[F64, F64, F32]:
    """Least squares: energy explained (c,), squared amplitudes (c, 2), the fitted windows (c, 160)."""
    right = (model @ samples[..., None])[..., 0].astype(np.float64)
    gram = (model @ model.transpose(0, 2, 1)).astype(np.float64) + 1e-6 * np.eye(4)
    weights = np.linalg.solve(gram, right[..., None])[..., 0]
    squared = weights[:, :2] ** 2 + weights[:, 2:] ** 2
    fitted = (weights.astype(np.float32)[:, None, :] @ model)[:, 0]
    return (right * weights).sum(1), squared, fitted
