"""Streams that send more than media ever do, for long: cut to a rate at which they cost little. Pure. Floor 3."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Throttle"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_A_TICK: Final = 10  # packets that a throttled stream may bring: 1,000 a second, two and a half times 2.5 ms packets
_A_SECOND: Final = 1000
_DEBT: Final = 10_000  # packets beyond that rate, in seconds each of which had too many, and
_LASTING_S: Final = 5  # so many of them: then a stream is throttled. What a sender brings at once is no flood


class Throttle:
    """Per stream (row) the packets that came beyond the rate, less what the time since then allowed."""

    def __init__(self, rows: int) -> None:
        self.active = False  # there are throttled streams
        self.throttled = np.zeros(rows, np.bool_)
        self._debt = np.zeros(rows, np.int64)
        self._counted = np.zeros(rows, np.int64)
        self._seconds = np.zeros(rows, np.int64)  # without a pause, that had too many
        self._taken = np.zeros(rows, np.int64)  # in the tick
        self._tick = np.zeros(rows, np.int64)

    def open(self, rows: I64) -> None:
        self.throttled[rows] = False
        self._debt[rows] = 0
        self._counted[rows] = 0
        self._seconds[rows] = 0

    def second(self, received: I64) -> I64:
        """A second has passed; ``received`` counts each row's packets so far, int64 (n,). Returns the rows that are
        throttled from now on."""
        rows = slice(len(received))
        debt, seconds = self._debt[rows], self._seconds[rows]
        more = received - self._counted[rows] - _A_SECOND
        debt += more
        np.maximum(debt, 0, out=debt)
        self._counted[rows] = received
        seconds += 1
        seconds[(more < 0) & ~self.throttled[rows]] = 0
        throttled = (debt > _DEBT) & (seconds >= _LASTING_S)
        new: I64 = np.flatnonzero(throttled & ~self.throttled[rows])
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
            found[order] = rank >= _A_TICK
            self._taken[first] = before + count
            self._tick[first] = tick
        return found
