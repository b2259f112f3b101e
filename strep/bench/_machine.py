"""The machine that is measured: its cores, a compiler if it has one, and the C program that marks the floor."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from .._model.exceptions import ConfigurationError
from .._version import __version__

__all__ = ["FLOOR_SOURCE", "Machine", "build_floor", "busy_s", "core_pair", "machine"]

FLOOR_SOURCE: Final = Path(__file__).with_name("floor.c")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a figure belongs to."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    python: str
    numpy: str
    strep: str


def machine() -> Machine:
    return Machine(
        processor=_field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        memory_gib=round(int((_field("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / (1 << 20), 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        numpy=np.__version__,
        strep=__version__,
    )


def _field(path: str, name: str) -> str | None:
    try:
        with open(path) as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
    except OSError:
        return None


def busy_s() -> float:
    """Seconds that all cores together were not idle, of processes, system calls and interrupts, since the machine
    began (/proc/stat)."""
    with open("/proc/stat") as lines:
        user, nice, system, _, _, irq, softirq, *_ = map(int, lines.readline().split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def core_pair() -> tuple[int, int]:
    """A core for the receiver, another one for the generator. Raises ConfigurationError."""
    if sys.platform != "linux":
        raise ConfigurationError("strep bench measures on Linux only: it pins processes and reads /proc")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ConfigurationError("strep bench needs two cores: one for the receiver, one for the generator")
    return cores[0], cores[-1]


def build_floor(directory: Path) -> Path | None:
    """The C program that only calls recvmmsg, compiled into ``directory``; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    program = directory / "floor"
    done = subprocess.run([compiler, "-O2", "-o", str(program), str(FLOOR_SOURCE)], capture_output=True)
    return program if done.returncode == 0 else None
