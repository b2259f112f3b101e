"""What is wrong with the disk at present, and what it has cost: an incident when it begins, and one when it is over.

    the disk    is full, over quota, read-only: nothing is written for a second, then it is tried again
    a file      cannot be written: for a second what comes for it is lost, others go on
    new files   cannot be made: what would go into them waits, as long as there is room

While any of these lasts there is one *problem*. It is over when all of them are, and nothing has failed for two
seconds: a disk that takes a little now and then is still full.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

__all__ = ["DISK", "NEW_FILES", "DiskState", "errno_name"]

_log = logging.getLogger("strep")

PAUSE_S: Final = 1.0  # between tries to write what failed
_CALM_S: Final = 2.0  # without errors, until a problem is over
_DISK_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

DISK: Final = "disk"
NEW_FILES: Final = "new files"


def errno_name(error: BaseException) -> str:
    """The name under which :meth:`WavSink.report` counts an error."""
    if isinstance(error, OSError) and error.errno:
        return errno.errorcode.get(error.errno, f"errno {error.errno}")
    return type(error).__name__


class DiskState:
    """``tell`` is called with the incidents "disk_paused" and "disk_resumed": (kind, text, data)."""

    def __init__(self, tell: Callable[[str, str, dict[str, object]], object]) -> None:
        self._tell = tell
        self._troubles: dict[object, float] = {}  # what does not work; when to try again
        self._since = 0.0
        self._last = 0.0
        self._lost_at_first = 0
        self.errors: Counter[str] = Counter()
        self.problem: str | None = None
        self.dropped_frames = 0

    @property
    def paused_until(self) -> float:
        """Nothing at all is to be written before."""
        return self._troubles.get(DISK, 0.0)

    def lost(self, frames: int) -> None:
        self.dropped_frames += frames

    def failed(self, what: object, error: OSError, where: str, now: float) -> float:
        """Something could not be written: a file, or NEW_FILES. Returns when to try again (monotonic seconds)."""
        self.errors[errno_name(error)] += 1
        if error.errno in _DISK_ERRORS:
            what = DISK
        self._troubles[what] = now + PAUSE_S
        self._last = now
        text = f"{errno_name(error)}: {error.strerror or error}"
        if self.problem is None:
            self._since, self._lost_at_first = now, self.dropped_frames
            self.problem = text
            _log.warning("writing has paused: %s (%s)", text, where)
            self._tell("disk_paused", f"writing has paused: {text}", {"error": text, "where": where})
        else:
            self.problem = text
        return now + PAUSE_S

    def works(self, what: object) -> None:
        """A file that failed before, NEW_FILES or the DISK works again, or is not needed any more."""
        self._troubles.pop(what, None)

    def is_due(self, what: object, now: float) -> bool:
        """Whether something that failed may be tried again."""
        return now >= self._troubles.get(what, 0.0)

    def has(self, what: object) -> bool:
        return what in self._troubles

    def look(self, now: float) -> None:
        """Say that it is over, if it is."""
        if self.problem is None or self._troubles or now - self._last < _CALM_S:
            return
        lost, lasted_s = self.dropped_frames - self._lost_at_first, round(now - self._since, 1)
        text = f"writing goes on after {lasted_s:g} s, {lost:,} frames were lost ({self.problem})"
        self.problem = None
        _log.warning("%s", text)
        self._tell("disk_resumed", text, {"lasted_s": lasted_s, "lost_frames": lost})
