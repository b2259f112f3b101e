"""The disk that is written to: which file system it has, and what earlier measurements left behind on it."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

if sys.platform != "win32":
    import fcntl

__all__ = ["cost_of_a_file_us", "emptied", "file_system_of", "files_note", "quiet_directory", "spread_directories"]

_GET_FLAGS: Final = 0x8008_6601  # FS_IOC_GETFLAGS, of systems with 64 bits
_SET_FLAGS: Final = 0x4008_6602
_TOP_DIRECTORY: Final = 0x0002_0000  # FS_TOPDIR_FL
_INT: Final = struct.Struct("=i")
_PROBES: Final = 64  # files that are made to see what one costs
_QUIET_US: Final = 60.0  # what a file costs, made in a directory that is there, where nothing was deleted lately
_TRIES: Final = 8  # for a part of the disk where it costs no more


def file_system_of(directory: Path, mounts: str | None = None) -> str:
    """The type of the file system that holds a directory, as the kernel calls it: "ext4", "tmpfs"; "?" if nobody knows.
    ``mounts``: in place of what the kernel says, lines of ``/proc/self/mountinfo``."""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(errors="replace")
        except OSError:
            return "?"
    where = directory.resolve()
    best, found = -1, "?"
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if not separator or len(fields) < 5 or not after.split():
            continue
        point = Path(_unescaped(fields[4]))
        # of two that are mounted over each other the later one is seen
        if (where == point or point in where.parents) and len(point.parts) >= best:
            best, found = len(point.parts), after.split()[0]
    return found


def _unescaped(name: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        name = name.replace(code, character)
    return name


def spread_directories(directory: Path) -> bool:
    """Let every directory that is made in this one begin in a part of the disk of its own, as ``chattr +T`` does.

    ext4 without a journal gives no inode out that was freed in the last minutes: for each new file it looks through all
    those. After thousands of deletions a new file so takes 1 ms of CPU time instead of 0.04. In another group of blocks
    there are none of them. Returns whether the file system knows of this (ext2 to ext4 do).
    """
    if sys.platform != "linux" or struct.calcsize("P") != 8:
        return False
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # the kernel reads and writes an int, whatever the request's number says
            flags = _INT.unpack_from(fcntl.ioctl(handle, _GET_FLAGS, bytes(8)))[0]
            fcntl.ioctl(handle, _SET_FLAGS, _INT.pack(flags | _TOP_DIRECTORY) + bytes(4))
        finally:
            os.close(handle)
        return True
    return False


def quiet_directory(parent: Path) -> tuple[Path, float]:
    """A new directory where new files cost little, and what one costs there, in µs of CPU: see
    :func:`spread_directories`. Of some, which begin in different parts of the disk, it is the first that is cheap, or
    the cheapest. The others stay, empty but for what was tried in them, so that no later one begins beside them."""
    found: list[tuple[float, Path]] = []
    for _ in range(_TRIES):
        directory = Path(tempfile.mkdtemp(dir=parent))
        found.append((cost_of_a_file_us(directory, parent), directory))
        if found[-1][0] <= _QUIET_US:
            break
    cost, directory = min(found)
    return directory, cost


def cost_of_a_file_us(directory: Path, parent: Path) -> float:
    """What a new file costs in a directory, in µs of CPU. What was tried is left in ``parent``: it would cost again
    what it cost to be deleted."""
    probe = Path(tempfile.mkdtemp(prefix="probe-", dir=directory))
    began = time.process_time()
    for n in range(_PROBES):
        os.close(os.open(probe / f"{n}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    cost = 1e6 * (time.process_time() - began) / _PROBES
    probe.rename(parent / f"{probe.name}-{directory.name}")
    return cost


def emptied(directory: Path) -> None:
    """Give back the room that files in a directory and below it take, and leave their names: what is deleted makes new
    files dearer for minutes."""
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                os.truncate(Path(folder, name), 0)


def files_note(costs_us: Sequence[float]) -> str:
    """What new files cost before the trials, for the notes below a table."""
    text = f"a new, empty file took {median(costs_us):.0f} µs of CPU before the trials, {max(costs_us):.0f} at most"
    if max(costs_us) > _QUIET_US:
        text += f"; more than {_QUIET_US:.0f} tell that many were deleted in the last minutes: wait for six of them"
    return text
