"""Datagrams whose records stand out of order of time: those of two interfaces, 0.2 s of one, then of the other."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .find import Datagrams

__all__ = ["InOrder"]

I64 = npt.NDArray[np.int64]

_WINDOW_NS: Final = 1_000_000_000
_SET_NS: Final = 10_000_000  # a flow whose time goes back by more tells that the clock was set
_MOST_HELD: Final = 1 << 20
_FLOW: Final = ("interface", "source_hi", "source_lo", "source_port", "local_port")


class InOrder:
    """Sorts by time within a second. ``sorted`` counts datagrams that stood behind later ones.

    What one sender sends to one port stands in a file as it came, on each interface. So where the time of such a flow
    goes back the clock was set: what stands behind that place stays behind it.
    """

    def __init__(self) -> None:
        self.sorted = 0
        self._held: Datagrams | None = None
        self._disorder = False
        self._count = 0
        self._latest = -1  # the last in the file of those that were given

    def take(self, found: Datagrams, next_ns: int | None) -> Datagrams:
        """What is known to be next. ``next_ns``: the earliest time of the records that follow; None: it is the end."""
        first, self._count = self._count, self._count + len(found)
        if self._held is None:
            if not len(found):
                return found
            times = found.arrival_ns
            rising = bool((times[1:] >= times[:-1]).all())
            if rising and (next_ns is None or (next_ns >= times[-1] and not self._disorder)):
                self._latest = self._count - 1
                return found
            found.record = np.arange(first, self._count)
            pool = found
        else:
            found.record = np.arange(first, self._count)
            pool = Datagrams.joined([self._held, found])
        self._disorder = True
        segment = self._segments(pool)
        order = np.lexsort((pool.arrival_ns, segment))
        pool, segment = pool.take(order), segment[order]
        ready = len(order)
        if next_ns is not None and len(order) <= _MOST_HELD:
            early = pool.arrival_ns <= int(pool.arrival_ns[-1]) - _WINDOW_NS
            ready = int(np.count_nonzero(early | (segment != segment[-1])))
        self._held = pool.take(slice(ready, None)) if ready < len(order) else None
        pool = pool.take(slice(0, ready))
        if ready:
            latest = np.maximum(np.maximum.accumulate(pool.record), self._latest)
            self.sorted += int(np.count_nonzero(pool.record < latest))
            self._latest = int(latest[-1])
        return pool

    @property
    def held_at(self) -> I64:
        """Where what is held stands in the file, or behind it."""
        return np.zeros(0, np.int64) if self._held is None else self._held.at

    @staticmethod
    def _segments(pool: Datagrams) -> I64:
        """Numbers what stands between places where the clock was set."""
        order = np.lexsort([np.arange(len(pool)), *(getattr(pool, name) for name in _FLOW)])
        same = np.ones(len(pool) - 1, np.bool_)
        for name in _FLOW:
            column = getattr(pool, name)[order]
            same &= column[1:] == column[:-1]
        times = pool.arrival_ns[order]
        back = same & (times[1:] < times[:-1] - _SET_NS)
        cuts = np.zeros(len(pool), np.int64)
        cuts[order[1:][back]] = 1
        return np.cumsum(cuts)
