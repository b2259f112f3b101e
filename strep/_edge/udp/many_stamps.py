"""Time stamps of many sockets at once: what :class:`Stamps` promises for each, in a few numpy calls for all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .clock import SteadyClock
from .stamps import DISORDER_NS, GUARD_NS, LONGEST_BINDING_NS, READ_NS, onto_steady

__all__ = ["ManyStamps"]

I64 = npt.NDArray[np.int64]


class ManyStamps:
    """What is known of each socket's queue, by a number that :meth:`open` gives.

    Before queues are read, :meth:`idle` is told which of them may have something. Then :meth:`take` gets what was read.
    """

    def __init__(self, clock: SteadyClock) -> None:
        self._clock = clock
        self._since_ns = np.zeros(0, np.int64)  # what is still in the queue came after this
        self._last_ns = np.zeros(0, np.int64)
        self._free: list[int] = []

    def open(self) -> int:
        """The number of a socket that has just been bound."""
        if not self._free:
            count = len(self._since_ns)
            more = np.zeros(max(count, 16), np.int64)
            self._since_ns = np.concatenate([self._since_ns, more])
            self._last_ns = np.concatenate([self._last_ns, more])
            self._free = list(range(count, count + len(more)))[::-1]
        number = self._free.pop()
        self._since_ns[number] = self._last_ns[number] = self._clock.now_ns() - LONGEST_BINDING_NS
        return number

    def close(self, number: int) -> None:
        """The socket is not read any more."""
        self._free.append(number)

    def idle(self, begun_ns: int, but: I64) -> None:
        """At ``begun_ns`` all queues were empty, but perhaps those of the numbers in ``but``."""
        kept = self._since_ns[but]
        self._since_ns[:] = begun_ns - GUARD_NS
        self._since_ns[but] = kept

    def none(self) -> None:
        """Nothing was read: a look at the clocks all the same."""
        self._clock.look()

    def take(self, stamps: I64, numbers: I64, counts: I64, emptied: npt.NDArray[np.bool_], begun_ns: int) -> I64:
        """Steady arrival times, int64 ns, of what was read after ``begun_ns``: first ``counts[0]`` datagrams of the
        socket ``numbers[0]``, and so on; each socket once, no count is 0. ``emptied``: that was everything."""
        now_ns = self._clock.look()
        epochs = self._clock.epochs
        floor = np.maximum(self._since_ns[numbers], self._last_ns[numbers] - DISORDER_NS)
        arrival = stamps + epochs[-1].correction_ns
        end = np.cumsum(counts)
        begin = end - counts
        for k in np.flatnonzero(self._unfit(arrival, floor, counts, begin, now_ns)).tolist():
            part = slice(int(begin[k]), int(end[k]))
            last_ns = int(self._last_ns[numbers[k]])
            arrival[part] = onto_steady(stamps[part], epochs, int(floor[k]), last_ns, now_ns)
        np.minimum(arrival, now_ns, out=arrival)  # the two clocks are not read at the same time
        self._last_ns[numbers] = arrival[end - 1]
        self._since_ns[numbers[emptied]] = begun_ns - GUARD_NS
        return arrival

    def _unfit(self, arrival: I64, floor: I64, counts: I64, begin: I64, now_ns: int) -> npt.NDArray[np.bool_]:
        """Of which sockets the times do not fit the present epoch: they came before the queue was empty or in the
        future, or they go back; or the wall clock may have been set since the queue was empty."""
        epochs = self._clock.epochs
        stepped: npt.NDArray[np.bool_] = epochs[-1].first_ns > floor
        if len(epochs) == 1:
            stepped[:] = False
        unfit = arrival < np.repeat(floor, counts)
        unfit |= arrival > now_ns + READ_NS
        back = arrival[1:] < arrival[:-1] - DISORDER_NS
        back[begin[1:] - 1] = False  # from one socket to the next
        unfit[1:] |= back
        if unfit.any():
            stepped |= np.logical_or.reduceat(unfit, begin)
        return stepped
