"""Whether the service can do its work."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from .._model.report import utc_text
from .._receiver.receiver import Receiver

__all__ = ["Health"]

_LONGEST_LOOK_S: Final = 15.0  # the service looks at its disk more often than this


class Health:
    """``check()`` gives the status, 200 or 503, and the reasons for it. It tells how things are now: what has been
    mended is not mentioned any more. Call ``beat`` every few seconds, from a thread: looking at the disk may take long.
    """

    def __init__(
        self,
        receiver: Receiver,
        directory: Path,
        forks: Callable[[], Mapping[str, int]],
        *,
        min_free_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receiver = receiver
        self._directory = directory
        self._forks = forks
        self.min_free_bytes = min_free_bytes
        """With less on the disk it is not well."""
        self._clock = clock
        self._free: int | None = None
        self._disk_error: str | None = "not looked at yet"
        self._beat_s = clock()
        self.serving = False  # True while calls are taken

    def beat(self) -> None:
        """Look at the disk and the receiver. To be called regularly: that it is called is part of being healthy."""
        try:
            self._free, self._disk_error = shutil.disk_usage(self._directory).free, None
        except OSError as error:
            self._free, self._disk_error = None, str(error.strerror or error)
        self._receiver.problems()  # it tells of the last minute as far as it is asked once a minute
        self._beat_s = self._clock()

    def check(self) -> tuple[int, dict[str, Any]]:
        """Status code and body of the health page."""
        receiver = self._receiver
        problems = receiver.problems()
        if not self.serving:
            problems.append("not serving: starting, or about to end")
        if self._disk_error is not None:
            problems.append(f"disk: {self._disk_error}")
        elif self._free is not None and self._free < self.min_free_bytes:
            problems.append(f"disk: {self._free >> 20} MiB free, less than {self.min_free_bytes >> 20} MiB")
        behind_s = self._clock() - self._beat_s
        if behind_s > _LONGEST_LOOK_S:
            problems.append(f"no look at the disk came back for {behind_s:.0f} s")
        last_ns = receiver.last_datagram_ns
        return (503 if problems else 200), {
            "status": "ok" if not problems else "failing",
            "problems": problems,
            "receiver": {
                "alive": self.serving,
                "live_streams": receiver.live_streams,
                "last_datagram": None if last_ns is None else utc_text(last_ns),
                "last_read_age_s": round(receiver.last_read_age_s, 1),
                "kernel_dropped": receiver.totals().kernel_dropped,
                "faults": receiver.totals().faults,
            },
            "forks": dict(self._forks()),
            "disk": {"free_bytes": self._free, "min_free_bytes": self.min_free_bytes},
        }
