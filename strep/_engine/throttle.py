"""Streams that send far more than media does, and for long, are refused until they have calmed down.

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

_UNITS_A_SECOND: Final = 1000  # that a stream may bring: two and a half times what packets of 2.5 ms are
# a stream is refused when it has brought so many units beyond that rate, in so many seconds on end that each had too
# many: what a sender brings at once is no flood
_DEBT_UNITS: Final = 10_000
_LASTING_S: Final = 5
_FLOOD_UNITS: Final = 100_000  # half an hour of audio beyond that rate: a flood however soon it comes
_CALM_S: Final = 10  # of silence, or of a sane rate, after which a stream is taken again
_UNIT_S: Final = 0.02  # seconds of audio that count as much as a packet


class Throttle:
    """Per stream (row) the units that came beyond the rate, less what the time since then allowed."""

    def __init__(self, rows: int) -> None:
        self.active = False  # there are streams that are refused
        self.throttled = np.zeros(rows, np.bool_)
        self._debt = np.zeros(rows, np.int64)
        self._packets = np.zeros(rows, np.int64)  # counted so far
        self._audio = np.zeros(rows, np.int64)  # units, likewise
        self._refused = np.zeros(rows, np.int64)  # packets since the last second
        self._seconds = np.zeros(rows, np.int64)  # without a pause, that had too many

    def open(self, rows: I64) -> None:
        self.throttled[rows] = False
        for column in (self._debt, self._packets, self._audio, self._refused, self._seconds):
            column[rows] = 0

    def second(self, received: I64, audio_s: npt.NDArray[np.float64]) -> I64:
        """A second has passed. Of each row, shape (n,): ``received`` packets and seconds of audio so far. Returns the
        rows that are refused from now on."""
        rows = slice(len(received))
        audio = (audio_s / _UNIT_S).astype(np.int64)
        packets = received - self._packets[rows] + self._refused[rows]
        units = audio - self._audio[rows]
        self._packets[rows], self._audio[rows], self._refused[rows] = received, audio, 0
        more = np.maximum(packets, units) - _UNITS_A_SECOND
        debt, seconds, throttled = self._debt[rows], self._seconds[rows], self.throttled[rows]
        debt += more
        np.maximum(debt, 0, out=debt)
        seconds += 1
        seconds[more < 0] = 0
        begins = ~throttled & ((debt > _DEBT_UNITS) & (seconds >= _LASTING_S) | (debt > _FLOOD_UNITS))
        throttled |= begins
        # a stream that is refused owes so much calm time, and no more
        debt[throttled] = np.minimum(debt[throttled], _CALM_S * _UNITS_A_SECOND)
        throttled &= debt > 0
        self.active = bool(throttled.any())
        return np.flatnonzero(begins)

    def excess(self, row: I64) -> Bools:
        """Of packets, by row: those that are refused."""
        found = self.throttled.take(row)
        np.add.at(self._refused, row[found], 1)
        return found
