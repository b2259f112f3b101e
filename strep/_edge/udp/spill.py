"""Where the kernel puts what of datagrams is beyond 2,048 bytes."""

from __future__ import annotations

import mmap
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.datagrams import ROW_BYTES

__all__ = ["LARGEST_BYTES", "Spill"]

LARGEST_BYTES: Final = 65_536  # no UDP datagram is longer than 65,527 bytes (RFC 768, RFC 8200)
_BEYOND_BYTES: Final = LARGEST_BYTES - ROW_BYTES
_KEPT_ROWS: Final = 256  # 16 MiB: so much of it stays in memory once it was used


class Spill:
    """Memory that the kernel writes to only where a datagram is that long, so it costs nothing until then; what a flood
    made it cost beyond 16 MiB is given back at once. What lies in it is copied before any socket is read again, so all
    sockets that one thread reads can share it."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._rows: npt.NDArray[np.uint8] = np.empty((0, _BEYOND_BYTES), np.uint8)

    def rows(self, count: int) -> npt.NDArray[np.uint8]:
        """Room for so many datagrams, uint8 (count, LARGEST_BYTES - ROW_BYTES)."""
        if count > len(self._rows):
            # those who have smaller ones keep them
            self._memory = mmap.mmap(-1, count * _BEYOND_BYTES, **_FLAGS)
            self._rows = np.frombuffer(self._memory, np.uint8).reshape(count, _BEYOND_BYTES)
        return self._rows[:count]

    def used(self, count: int) -> None:
        """The first ``count`` rows have been used and copied."""
        if count > _KEPT_ROWS and self._memory is not None and hasattr(self._memory, "madvise"):
            begin = -(-_KEPT_ROWS * _BEYOND_BYTES // mmap.PAGESIZE) * mmap.PAGESIZE
            self._memory.madvise(mmap.MADV_DONTNEED, begin, len(self._memory) - begin)


_FLAGS: Final = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)}
    if hasattr(mmap, "MAP_ANONYMOUS")
    else {}
)
