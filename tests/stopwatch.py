"""How long things took, on a machine that may do others' work meanwhile."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

_PRESSURE = Path("/proc/pressure/cpu")  # of Linux: since it was started, how long tasks have waited for a processor


class Stopwatch:
    """Started when it is made. What it shows is judged against promises about real time, so it leaves out how long any
    task of the machine waited for a processor: a busy machine keeps nobody from a promise, and an idle one nobody's
    excuse. Where the kernel does not tell, that is nothing."""

    def __init__(self) -> None:
        self._began, self._waited = time.monotonic(), _waited_s()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began - (_waited_s() - self._waited)


def run_delay_s(pid: int) -> float:
    """How long the threads of a process have waited for a processor since they began; 0 where the kernel does not tell.
    What a process promises within a second it cannot do in one that others had."""
    waited = 0.0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            waited += int(path.read_text().split()[1]) / 1e9
    return waited


def _waited_s() -> float:
    try:
        some = _PRESSURE.read_text().splitlines()[0]
    except OSError:
        return 0.0
    return int(some.rpartition("total=")[2]) / 1e6
