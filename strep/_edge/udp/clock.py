"""UTC that does not step: the wall clock at the start, carried on by a clock that nobody sets.

Linux runs its wall clock and its monotonic clock at the same pace, also while NTP slews or smears. So the difference
between them, the *lead* of the wall clock, changes only by steps (``clock_settime``, ``ADJ_SETOFFSET``, a leap second).
Each look at both clocks finds either the lead that was known, or a new one: then a new epoch of the wall clock begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

__all__ = ["Epoch", "SteadyClock"]

_PRECISE_NS: Final = 5_000  # at most this lies between two reads of a clock if nothing interrupted them
_READS_AGAIN: Final = 4  # to get a precise pair of both clocks
_READS_AT_START: Final = 16  # of both clocks: all times depend on the best of them
_SLACK_NS: Final = 200  # rounding, and clocks of several cores
# smaller changes are followed without a new epoch: on other systems the two clocks drift apart
_SMALLEST_STEP_NS: Final = 100_000
_KEPT_EPOCHS: Final = 8  # the newest


@dataclass(slots=True)
class Epoch:
    """The wall clock between two steps. ``correction_ns`` is what to add to its times to have steady ones;
    ``first_ns`` and ``last_ns`` are when, on the steady clock, it was first and last seen to be in force."""

    correction_ns: int
    first_ns: int
    last_ns: int


def _monotonic_ns() -> Callable[[], int]:
    """A clock that nobody sets. Where the system has one, it also runs while the machine is suspended,
    because calls go on meanwhile."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return time.monotonic_ns
    return partial(time.clock_gettime_ns, boottime)


class SteadyClock:
    """``now_ns()`` is UTC as it was at the start, plus the time that has passed since. ``epochs``: what is known of the
    wall clock, oldest first; at least one."""

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] | None = None,
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns or _monotonic_ns()
        before, wall, after = min((self._read() for _ in range(_READS_AT_START)), key=lambda read: read[2] - read[0])
        self._origin = wall - (before + after) // 2
        now_ns = after + self._origin
        self.epochs = [Epoch(0, now_ns, now_ns)]

    def now_ns(self) -> int:
        """UTC in nanoseconds, without steps."""
        return self._monotonic_ns() + self._origin

    def look(self) -> int:
        """The time now, after the wall clock has been looked at too."""
        before, wall, after = self._read()
        now_ns = after + self._origin
        # to bring this wall time into the time between the two looks at the other clock
        low, high = before + self._origin - wall - _SLACK_NS, now_ns - wall + _SLACK_NS
        epoch = self.epochs[-1]
        known = epoch.correction_ns
        if low <= known <= high:
            if after - before <= _PRECISE_NS:  # otherwise a smaller change might have gone unseen
                epoch.last_ns = now_ns
        elif low - _SMALLEST_STEP_NS <= known <= high + _SMALLEST_STEP_NS:
            epoch.correction_ns = low if known < low else high
            epoch.last_ns = now_ns
        else:
            self.epochs.append(Epoch((low + high) // 2, now_ns, now_ns))
            del self.epochs[:-_KEPT_EPOCHS]
        return now_ns

    def _read(self) -> tuple[int, int, int]:
        """(before, wall, after): the wall clock between two reads of the monotonic one, as close together as can be."""
        monotonic_ns = self._monotonic_ns
        before, wall, after = monotonic_ns(), self._wall_ns(), monotonic_ns()
        for _ in range(_READS_AGAIN):
            if after - before <= _PRECISE_NS:
                break
            again = monotonic_ns(), self._wall_ns(), monotonic_ns()
            if again[2] - again[0] < after - before:
                before, wall, after = again
        return before, wall, after
