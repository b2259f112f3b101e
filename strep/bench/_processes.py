"""Processes under measurement: started on one core, their CPU time and memory read from the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from .._model.exceptions import StrepError

__all__ = ["MeasuredProcess", "MeasurementError", "ProcessEnd"]

_CLOCK_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01


class MeasurementError(StrepError):
    """A process under measurement did not do what it was started for; the message holds its output."""


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """What is known of a process once it has ended."""

    output: str  # the rest of its standard output
    finish_s: float  # from SIGTERM
    memory_mib: float  # resident, at its peak before the end
    cpu_s: float  # all its threads, from its start to its end


class MeasuredProcess:
    """A child process pinned to a core, or several. As a context manager it is gone at the end, whatever happens."""

    def __init__(self, command: Sequence[str], core: int | Sequence[int], log: Path) -> None:
        self._log = log
        cores = [core] if isinstance(core, int) else core
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PINNED, ",".join(map(str, cores)), *command],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def line(self) -> str:
        """The next line of its standard output. Raises MeasurementError when it has ended instead."""
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        if not line:
            raise MeasurementError(f"a measured process ended early: {self._log.read_text(errors='replace').strip()}")
        return line

    def cpu_s(self) -> float:
        """CPU seconds of all its threads until now, user and system, to a clock tick."""
        return _cpu_s(self.process.pid)

    def family_cpu_s(self) -> float:
        """The same of it and all processes that it, and they, have started and that live."""
        return sum(map(_cpu_s, _family(self.process.pid)))

    def wake_ups(self) -> int:
        """How often its threads have given up the core to wait."""
        total = 0
        for status in Path(f"/proc/{self.process.pid}/task").glob("*/status"):
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            total += int(fields["voluntary_ctxt_switches"])
        return total

    def memory_mib(self) -> float:
        """Resident now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def peak_memory_mib(self) -> float:
        """Resident at its peak so far (getrusage's maximum would be the parent's, if that is larger)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024

    def end(self, timeout_s: float = 60.0) -> ProcessEnd:
        """Ask it to finish and wait until it has; it is killed after ``timeout_s``."""
        memory_mib = self.peak_memory_mib()
        began = time.monotonic()
        watchdog = threading.Timer(timeout_s, self.process.kill)
        watchdog.start()
        try:
            self.process.send_signal(signal.SIGTERM)
            output = self.process.stdout.read() if self.process.stdout is not None else ""
            _, status, usage = os.wait4(self.process.pid, 0)
        finally:
            watchdog.cancel()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if not output:
            raise MeasurementError(f"a measured process said nothing: {self._log.read_text(errors='replace').strip()}")
        cpu_s = usage.ru_utime + usage.ru_stime
        return ProcessEnd(output, time.monotonic() - began, memory_mib, cpu_s)


# taskset, without needing it
_PINNED: Final = (
    "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1].split(','))); os.execvp(sys.argv[2], sys.argv[2:])"
)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _CLOCK_TICK_S


def _family(pid: int) -> list[int]:
    children = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [pid, *(descendant for child in children.split() for descendant in _family(int(child)))]
