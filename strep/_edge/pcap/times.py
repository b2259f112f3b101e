"""Arrival times of files whose clock was set while they were captured, or with frames of another century."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["FileTimes"]

I64 = npt.NDArray[np.int64]

_BACK_NS: Final = 1_000_000_000  # frames of several interfaces are not in perfect order
_AHEAD: Final = 16  # breaks that are looked at for the one that leads back
_RTP_NS: Final = 820_454_400 * 1_000_000_000  # 1996, RFC 1889
_LATEST_NS: Final = (1 << 62) + (1 << 60)
_KEPT: Final = 16  # clocks that are known


class FileTimes:
    """Makes times go on. Frames stand in a file as they came, so a time more than a second before the one before it
    is of another clock: one that was set, or of a frame whose time is wrong.

    Where times leap back, and where they leap ahead but come back later, the frames after the leap are on a clock of
    their own, which goes on where the other one stood. Whoever leaps onto a clock that is known goes on with that one:
    so after a frame of the year 2100 all others keep the times that the file tells. A leap ahead that nothing comes
    back from is a pause, and stays. ``retimed`` counts frames that were given other times than the file's.
    """

    def __init__(self) -> None:
        self.retimed = 0
        self._clocks = [0]  # what to add to the file's times
        self._clock = 0
        self._last_file_ns: int | None = None
        self._last_ns = 0

    def take(self, times: I64, following: I64) -> I64:
        """Times of the next frames, int64 ns. ``following``: those of frames after these, to see whether leaps last."""
        if not len(times):
            return times
        both = np.concatenate([times, following])
        if self._last_file_ns is None:
            self._last_file_ns = int(times[0])
            self._last_ns = self._first_ns(both)
            self._clock = self._last_ns - self._last_file_ns
            self._know(self._clock)
        leap = np.diff(both, prepend=self._last_file_ns)
        if self._clock == 0 and int(leap.min()) >= -_BACK_NS:
            self._last_file_ns = self._last_ns = int(times[-1])
            return times
        at = np.flatnonzero(np.abs(leap) > _BACK_NS).tolist()
        starts = both[at].tolist()
        lengths = np.diff(at, append=len(both)).tolist()
        out = times + self._clock
        for number, begin in enumerate(at):
            if begin >= len(times):
                break
            before_ns = int(out[begin - 1]) if begin else self._last_ns
            later = slice(number, number + _AHEAD)
            self._clock = self._clock_at(before_ns, starts[later], lengths[later])
            np.add(times[begin:], self._clock, out=out[begin:])
        self._last_file_ns, self._last_ns = int(times[-1]), int(out[-1])
        self.retimed += int(np.count_nonzero(out != times))
        return out

    def _clock_at(self, before_ns: int, starts: list[int], lengths: list[int]) -> int:
        """Which clock the frames after a leap are on: those that begin at ``starts[0]``; the other starts are behind
        the leaps that follow, ``lengths`` how many frames there are up to the next."""
        at = {clock: starts[0] + clock for clock in self._clocks}
        # pauses are believed of the file's clock, and of the one that goes on
        fits = [c for c in at if before_ns <= at[c] <= before_ns + _BACK_NS]
        fits += [c for c in (0, self._clock) if before_ns - (0 if c else _BACK_NS) <= at[c] < _LATEST_NS]
        clock = min(fits, key=lambda c: abs(at[c] - before_ns), default=before_ns - starts[0])
        ahead_ns = starts[0] + clock
        if ahead_ns > before_ns + _BACK_NS and any(
            before_ns - _BACK_NS <= start + clock < ahead_ns - _BACK_NS and length >= lengths[0]
            for start, length in zip(starts[1:], lengths[1:], strict=True)
        ):
            clock = before_ns - starts[0]
        self._know(clock)
        return clock

    def _know(self, clock: int) -> None:
        """The file's own is never forgotten, nor is the present one; those that were not used for long are."""
        if clock:
            self._clocks = [0, *[c for c in self._clocks[1:] if c != clock][1 - _KEPT :], clock]

    @staticmethod
    def _first_ns(times: I64) -> int:
        """When the first frame came: by its own time, unless that is after those of the many, or before all RTP."""
        leaps = [0, *(np.flatnonzero(np.abs(np.diff(times)) > _BACK_NS)[:_AHEAD] + 1).tolist(), len(times)]
        starts = [int(times[at]) for at in leaps[:-1]]
        many = int(np.diff(leaps).argmax())
        right = [start for start in starts[: many + 1] if _RTP_NS <= start <= starts[many] or start == starts[many]]
        if right[0] == starts[0]:
            return starts[0]
        return right[0] - (int(times[leaps[1] - 1]) - starts[0])
