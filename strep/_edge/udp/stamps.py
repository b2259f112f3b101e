"""From kernel time stamps to the steady clock. The stamps are of the wall clock as it stood when a datagram came.

If the wall clock was not set since the queue was last seen empty, that is one addition. Otherwise some datagrams were
stamped before the step and some after it. The datagrams are in order in the queue, so the batch is cut once for each
step: where the times fit the epochs of the wall clock, and do not go back.

What is promised for each time, whatever the wall clock does: it is not in the future, not before the datagrams that
were read earlier, and not before the queue was last empty; the order holds. So it is never wrong by more than the time
between two looks at the clock. It is exact (to 0.1 ms) if steps are longer than that time, or if they are shorter but
no sender paused for so long. Times of an epoch that no look ever saw (two steps between two looks) keep their distances
to each other, but not their place.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from .clock import Epoch, SteadyClock

__all__ = [
    "DISORDER_NS",
    "GUARD_NS",
    "LONGEST_BINDING_NS",
    "READ_NS",
    "SO_TIMESTAMPNS",
    "Stamps",
    "onto_steady",
    "stamp_datagrams",
]

I64 = npt.NDArray[np.int64]

SO_TIMESTAMPNS: Final = 35
GUARD_NS: Final = 2_000_000  # a datagram stamped this long ago has reached its queue
READ_NS: Final = 20_000  # how far apart reading two clocks may be
DISORDER_NS: Final = 1_000_000  # stamps of several cores in one queue
_LONGEST_WAIT_NS: Final = 60_000_000_000  # nothing waits longer in a socket that another process had before
LONGEST_BINDING_NS: Final = 1_000_000_000  # from binding a socket until it is set up here
_UNFIT_COST: Final = 4  # of a time that does not fit its epoch; one that goes back costs 1


def stamp_datagrams(sock: socket.socket) -> None:
    """Have the kernel tell when each datagram came. Linux."""
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


class Stamps:
    """Time stamps of one socket. Call :meth:`begin` before the queue is read, then :meth:`take` with what was read, or
    :meth:`none` if that was nothing.

    ``inherited``: another process had the socket before, and datagrams may wait in it.
    """

    def __init__(self, clock: SteadyClock, *, inherited: bool = False) -> None:
        self._clock = clock
        self._begun_ns = clock.now_ns()
        # what is still in the queue came after this
        self._since_ns = self._begun_ns - (_LONGEST_WAIT_NS if inherited else LONGEST_BINDING_NS)
        self._last_ns = self._since_ns

    def begin(self) -> None:
        """The queue is about to be read."""
        self._begun_ns = self._clock.now_ns()

    def none(self) -> None:
        """The queue was empty."""
        self._clock.look()
        self._since_ns = self._begun_ns - GUARD_NS

    def take(self, stamps: I64, emptied: bool) -> I64:
        """Steady arrival times of what was read, int64 ns, shape (n,), n > 0; ``stamps`` is used up. ``emptied``: that
        was everything."""
        now_ns = self._clock.look()
        floor_ns = max(self._since_ns, self._last_ns - DISORDER_NS)
        epochs = self._clock.epochs
        correction_ns = epochs[-1].correction_ns
        stepped = len(epochs) > 1 and epochs[-1].first_ns > floor_ns
        if stepped or not _plausible(stamps, correction_ns, floor_ns, now_ns):
            arrival = onto_steady(stamps, epochs, floor_ns, self._last_ns, now_ns)
        else:
            arrival = stamps
            if correction_ns:
                arrival += correction_ns
            if int(arrival[-1]) > now_ns:  # the two clocks are not read at the same time
                np.minimum(arrival, now_ns, out=arrival)
        self._last_ns = int(arrival[-1])
        if emptied:
            self._since_ns = self._begun_ns - GUARD_NS
        return arrival


def _plausible(stamps: I64, correction_ns: int, floor_ns: int, now_ns: int) -> bool:
    """Whether all came after ``floor_ns`` and before now, one after the other, if the wall clock stood as it does."""
    low, high = floor_ns - correction_ns, now_ns - correction_ns + READ_NS
    if not low <= int(stamps[0]) <= int(stamps[-1]) <= high:
        return False
    if np.count_nonzero(stamps[1:] < stamps[:-1]) == 0:
        return True
    return bool(np.diff(stamps).min() >= -DISORDER_NS and stamps.min() >= low and stamps.max() <= high)


def onto_steady(stamps: I64, epochs: Sequence[Epoch], floor_ns: int, last_ns: int, now_ns: int) -> I64:
    """Times of the wall clock, in the order of a queue, as times of the steady one.

    All came after ``floor_ns`` and before ``now_ns``; ``last_ns`` is when the datagram before them came.
    """
    epochs = [epoch for epoch, after in zip(epochs, [*epochs[1:], None], strict=True) if _concerns(after, floor_ns)]
    n = len(stamps)
    times = [stamps + epoch.correction_ns for epoch in epochs]
    unfit: list[npt.NDArray[np.bool_]] = []
    for k, time in enumerate(times):
        # an epoch begins after the one before was last seen, and ends before the next was first seen
        low = max(floor_ns, epochs[k - 1].last_ns - READ_NS) if k else floor_ns
        high = epochs[k + 1].first_ns if k + 1 < len(epochs) else now_ns
        unfit.append((time < low) | (time > high + READ_NS))
    cuts = [*_cuts(stamps, times, unfit), n]
    arrival, bad = np.empty(n, np.int64), np.empty(n, np.bool_)
    begin = 0
    for k, end in enumerate(cuts):
        arrival[begin:end], bad[begin:end] = times[k][begin:end], unfit[k][begin:end]
        begin = end
    if bad.any():
        _place_unfit(arrival, bad, now_ns)
    arrival[0] = max(int(arrival[0]), last_ns, floor_ns)
    np.maximum.accumulate(np.minimum(arrival, now_ns, out=arrival), out=arrival)
    return arrival


def _concerns(after: Epoch | None, floor_ns: int) -> bool:
    """Whether an epoch may have lasted longer than until ``floor_ns``; ``after`` is the one that followed."""
    return after is None or after.first_ns > floor_ns


def _cuts(stamps: I64, times: list[I64], unfit: list[npt.NDArray[np.bool_]]) -> list[int]:
    """Where each epoch but the first begins in the batch, so that as much as possible fits. Of equally good places the
    first: who wakes for a datagram reads it at once, so it is of the present epoch rather than of one before.

    ``best[i]`` is what the first i datagrams cost at least, ``cost[i]`` what they would cost in this epoch alone. To
    begin it at b makes that ``cost[i] - cost[b] + best[b]``; whether times go back at b is asked across the step.
    """
    back = np.zeros(len(stamps), np.int64)
    back[1:] = stamps[1:] < stamps[:-1]
    best = _sums(back + _UNFIT_COST * unfit[0])
    steps: list[tuple[I64, I64, I64]] = []
    for k in range(1, len(times)):
        cost = _sums(back + _UNFIT_COST * unfit[k])
        across = -back
        across[1:] += times[k][1:] < times[k - 1][:-1]
        begin = best[:-1] - cost[:-1] + across
        steps.append((best, cost, begin))
        best = best.copy()  # as it is where an epoch has nothing of the batch
        np.minimum(best[1:], cost[1:] + np.minimum.accumulate(begin), out=best[1:])
    cuts: list[int] = []
    end = len(stamps)
    for before, cost, begin in reversed(steps):
        if end:
            at = int(begin[:end].argmin())
            if cost[end] + begin[at] <= before[end]:
                end = at
        cuts.append(end)
    return cuts[::-1]


def _sums(cost: I64) -> I64:
    return np.concatenate([[0], np.cumsum(cost)])


def _place_unfit(arrival: I64, bad: npt.NDArray[np.bool_], now_ns: int) -> None:
    """Times that fit no known epoch: as late as possible, with their distances kept."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]])))
    for begin, end in edges.reshape(-1, 2).tolist():
        latest = int(arrival[end]) if end < len(arrival) else now_ns
        arrival[begin:end] += latest - int(arrival[end - 1])
