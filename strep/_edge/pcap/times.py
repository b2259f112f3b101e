"""Arrival times of files whose clock was set during the capture, or that have frames of another century."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["FileTimes"]

I64 = npt.NDArray[np.int64]

_LEAP_NS: Final = 1_000_000_000  # less is no leap: frames of several interfaces are not in perfect order
_LEAPS_LOOKED_AT: Final = 16  # that follow a leap ahead, to find the one that leads back
_FIRST_RTP_NS: Final = 820_454_400 * 1_000_000_000  # 1996, when RFC 1889 came: no RTP is older
_LATEST_NS: Final = (1 << 62) + (1 << 60)  # the year 2152: later times would overflow int64 in sums
_KNOWN_CLOCKS: Final = 16  # that are remembered


class FileTimes:
    """Makes the times of a file go forward. Frames are stored in the order in which they came. So a time that is more
    than a second before its predecessor belongs to another clock: the clock was set, or a frame has a wrong time.

    After a leap back, or a leap ahead that is followed by one back, the frames are on a clock of their own. It goes on
    where the other one stood. If a leap leads to a clock that is known already, that clock goes on: so after a frame of
    the year 2100 all others keep the times of the file. A leap ahead without one back is a pause, and stays.
    ``retimed`` counts frames that were given other times than those of the file.
    """

    def __init__(self) -> None:
        self.retimed = 0
        self._clocks = [0]  # what to add to the file's times
        self._clock = 0
        self._last_file_ns: int | None = None
        self._last_ns = 0

    def take(self, times: I64, following: I64) -> I64:
        """Steady times of the next frames, int64 ns, shape (n,). ``following``: times of the frames after these, which
        show whether a leap lasts."""
        if not len(times):
            return times
        both = np.concatenate([times, following])
        if self._last_file_ns is None:
            self._last_file_ns = int(times[0])
            self._last_ns = self._first_ns(both)
            self._clock = self._last_ns - self._last_file_ns
            self._know(self._clock)
        leap = np.diff(both, prepend=self._last_file_ns)
        if self._clock == 0 and int(leap.min()) >= -_LEAP_NS:
            self._last_file_ns = self._last_ns = int(times[-1])
            return times
        at = np.flatnonzero(np.abs(leap) > _LEAP_NS).tolist()
        starts = both[at].tolist()
        lengths = np.diff(at, append=len(both)).tolist()
        out = times + self._clock
        for number, begin in enumerate(at):
            if begin >= len(times):
                break
            before_ns = int(out[begin - 1]) if begin else self._last_ns
            later = slice(number, number + _LEAPS_LOOKED_AT)
            self._clock = self._clock_at(before_ns, starts[later], lengths[later])
            np.add(times[begin:], self._clock, out=out[begin:])
        self._last_file_ns, self._last_ns = int(times[-1]), int(out[-1])
        self.retimed += int(np.count_nonzero(out != times))
        return out

    def _clock_at(self, before_ns: int, starts: list[int], lengths: list[int]) -> int:
        """The clock of the frames after a leap, which begin at ``starts[0]``. The other ``starts`` are the first times
        after the leaps that follow; ``lengths`` are the numbers of frames between leaps."""
        at = {clock: starts[0] + clock for clock in self._clocks}
        # a pause is believed only on the file's own clock, or on the one that goes on
        fits = [c for c in at if before_ns <= at[c] <= before_ns + _LEAP_NS]
        fits += [c for c in (0, self._clock) if before_ns - (0 if c else _LEAP_NS) <= at[c] < _LATEST_NS]
        clock = min(fits, key=lambda c: abs(at[c] - before_ns), default=before_ns - starts[0])
        ahead_ns = starts[0] + clock
        if ahead_ns > before_ns + _LEAP_NS and any(
            before_ns - _LEAP_NS <= start + clock < ahead_ns - _LEAP_NS and length >= lengths[0]
            for start, length in zip(starts[1:], lengths[1:], strict=True)
        ):
            clock = before_ns - starts[0]
        self._know(clock)
        return clock

    def _know(self, clock: int) -> None:
        """Remember a clock. Those that were not used for long are forgotten, but not the file's own nor the present."""
        if clock:
            self._clocks = [0, *[c for c in self._clocks[1:] if c != clock][1 - _KNOWN_CLOCKS :], clock]

    @staticmethod
    def _first_ns(times: I64) -> int:
        """When the first frame came: its own time, unless that is after those of most frames, or before RTP existed."""
        leaps = [0, *(np.flatnonzero(np.abs(np.diff(times)) > _LEAP_NS)[:_LEAPS_LOOKED_AT] + 1).tolist(), len(times)]
        starts = [int(times[at]) for at in leaps[:-1]]
        many = int(np.diff(leaps).argmax())
        latest = starts[many]
        right = [start for start in starts[: many + 1] if _FIRST_RTP_NS <= start <= latest or start == latest]
        if right[0] == starts[0]:
            return starts[0]
        return right[0] - (int(times[leaps[1] - 1]) - starts[0])
