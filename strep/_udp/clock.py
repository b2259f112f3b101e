"""UTC that does not step: the wall clock at the start, carried on by the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

__all__ = ["SteadyClock"]

_STEP_NS: Final = 10_000_000


class SteadyClock:
    """``now_ns()`` is UTC as it was at the start plus monotonic time. ``correction_ns()`` is what to add to a kernel
    time stamp (which is of the wall clock) to bring it onto this clock: 0 until somebody sets the wall clock."""

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._offset = wall_ns() - monotonic_ns()

    def now_ns(self) -> int:
        return self._monotonic_ns() + self._offset

    def correction_ns(self) -> int:
        step = self._wall_ns() - self._monotonic_ns() - self._offset
        return -step if abs(step) > _STEP_NS else 0
