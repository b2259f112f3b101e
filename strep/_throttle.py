"""Streams that send more than media ever do, for long: cut to a rate at which they cost little. Pure. Floor 3.

What counts is the greater of two figures: packets, and audio in units of 20 ms, for a packet may hold much of it that
has to be decoded, written and analyzed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Throttle"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_A_TICK: Final = 10  # units that a throttled stream may bring: 1,000 a second, two and a half times 2.5 ms packets
_A_SECOND: Final = 1000
_DEBT: Final = 10_000  # units beyond that rate, in seconds each of which had too many, and
_LASTING_S: Final = 5  # so many of them: then a stream is throttled. What a sender brings at once is no flood
_FLOOD: Final = 100_000  # units, half an hour of audio, that are one however soon they come
_UNIT_S: Final = 0.02


class Throttle:
    """Per stream (row) the units that came beyond the rate, less what the time since then allowed."""

    def __init__(self, rows: int) -> None:
        self.active = False  # there are throttled streams
        self.throttled = np.zeros(rows, np.bool_)
        self._debt = np.zeros(rows, np.int64)
        self._packets = np.zeros(rows, np.int64)  # counted so far
        self._audio = np.zeros(rows, np.int64)  # units, likewise
        self._seconds = np.zeros(rows, np.int64)  # without a pause, that had too many
        self._allowed = np.zeros(rows, np.int64)  # packets a tick, of a throttled stream
        self._taken = np.zeros(rows, np.int64)  # in the tick
        self._tick = np.zeros(rows, np.int64)

    def open(self, rows: I64) -> None:
        self.throttled[rows] = False
        for column in (self._debt, self._packets, self._audio, self._seconds):
            column[rows] = 0

    def second(self, received: I64, audio_s: npt.NDArray[np.float64]) -> I64:
        """A second has passed. Of each row, shape (n,): ``received`` packets and seconds of audio so far. Returns the
        rows that are throttled from now on."""
        rows = slice(len(received))
        audio = (audio_s / _UNIT_S).astype(np.int64)
        packets, units = received - self._packets[rows], audio - self._audio[rows]
        self._packets[rows], self._audio[rows] = received, audio
        more = np.maximum(packets, units) - _A_SECOND
        debt, seconds = self._debt[rows], self._seconds[rows]
        debt += more
        np.maximum(debt, 0, out=debt)
        seconds += 1
        seconds[(more < 0) & ~self.throttled[rows]] = 0
        throttled = (debt > _DEBT) & (seconds >= _LASTING_S)
        throttled |= debt > _FLOOD
        new: I64 = np.flatnonzero(throttled & ~self.throttled[rows])
        self._allowed[new] = np.clip(_A_TICK * packets[new] // np.maximum(units[new], 1), 1, _A_TICK)
        self.throttled[rows] = throttled
        self.active = bool(throttled.any())
        return new

    def excess(self, row: I64, tick: int) -> Bools:
        """Of packets of one tick, by row and in order: those that are too many."""
        found = np.zeros(len(row), np.bool_)
        which = np.flatnonzero(self.throttled.take(row))
        if which.size:
            order = which[np.argsort(row[which], kind="stable")]
            rows = row[order]
            start = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
            count = np.diff(np.append(start, len(rows)))
            first = rows[start]
            before = np.where(self._tick[first] == tick, self._taken[first], 0)
            rank = np.arange(len(rows)) - np.repeat(start - before, count)
            found[order] = rank >= self._allowed[rows]
            self._taken[first] = before + count
            self._tick[first] = tick
        return found
