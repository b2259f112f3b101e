"""The fast way into WAV files: all blocks of a batch in one system call, positions and headers as arrays.

A lane is a stream's row with an open file. The rest is left to the writer, block by block: new files, gaps that must be
filled with other bytes than zeros, files past 4 GiB, errors, more files than descriptors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from .aio import ManyWrites
from .file import HEADER_INTERVAL_S, WavFile, WavFormat

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._model.blocks import BlockBatch

__all__ = ["WavLanes"]

I64 = npt.NDArray[np.int64]

_RIFF_LIMIT: Final = 0xFFFF_0000  # bytes of samples; longer files become RF64, which is not for here


class WavLanes:
    """By stream row: descriptor (-1: no lane), bytes of samples in the file and according to its header, format.

    ``evicted``: whether there are more files than may be open, so that a descriptor may be another file's by now.
    """

    def __init__(self, evicted: Callable[[], bool], writes: ManyWrites) -> None:
        self._evicted = evicted
        self._writes = writes
        self._formats: list[WavFormat] = []
        self.wrote = False  # whether the last call wrote anything
        self._fd = np.full(0, -1, np.int64)
        self._grow(256)

    @classmethod
    def of(cls, evicted: Callable[[], bool]) -> WavLanes | None:
        """None where the system call is not available."""
        try:
            return cls(evicted, ManyWrites())
        except OSError:
            return None

    def _grow(self, rows: int) -> None:
        old = len(self._fd)
        for name, dtype in (
            ("_fd", np.int64),
            ("_end", np.int64),
            ("_header_end", np.int64),
            ("_header_written_at", np.float64),
            ("_header_bytes", np.int64),
            ("_frame", np.int64),
            ("_fills", np.bool_),
            ("_kind", np.int64),
        ):
            new = np.zeros(rows, dtype)
            if old:
                new[:old] = getattr(self, name)
            elif name == "_fd":
                new[:] = -1
            setattr(self, name, new)
        self._fd[old:] = -1
        self._end: I64
        self._header_end: I64
        self._header_written_at: npt.NDArray[np.float64]
        self._header_bytes: I64
        self._frame: I64
        self._fills: npt.NDArray[np.bool_]
        self._kind: I64  # row of _formats

    @property
    def lagging(self) -> bool:
        """Whether some header on disk is not up to date with what was written."""
        return bool(((self._fd >= 0) & (self._header_end != self._end)).any())

    def adopt(self, row: int, file: WavFile) -> None:
        """Give this row a file that is open."""
        if row >= len(self._fd):
            self._grow(max(2 * len(self._fd), row + 1))
        fast = file.end < _RIFF_LIMIT and not self._evicted()
        self._fd[row] = file.fd if fast else -1
        self._end[row] = file.end
        self._header_end[row] = file.header_end
        self._header_written_at[row] = file.header_written_at
        self._header_bytes[row] = file.format.header_bytes
        self._frame[row] = file.format.frame_bytes
        self._fills[row] = bool(file.format.silence)
        if file.format not in self._formats:
            self._formats.append(file.format)
        self._kind[row] = self._formats.index(file.format)

    def sync(self, row: int, file: WavFile) -> None:
        """Bring the file object up to date with what the lane has written."""
        if row < len(self._fd) and self._fd[row] >= 0:
            file.end = int(self._end[row])
            file.header_end = int(self._header_end[row])
            file.header_written_at = float(self._header_written_at[row])

    def release(self, row: int, file: WavFile) -> None:
        """Take the file from this row: its stream has ended, or a write failed."""
        self.sync(row, file)
        if row < len(self._fd):
            self._fd[row] = -1

    def write(self, batch: BlockBatch, native: bool, now: float) -> list[int] | None:
        """Write what can be written fast. Returns the numbers of the blocks that are left; None: all are. ``native``:
        bytes as they came. ``now``: monotonic seconds."""
        self.wrote = False
        if self._evicted():
            return None
        row = batch.index
        if int(row.max()) >= len(self._fd):
            self._grow(max(2 * len(self._fd), int(row.max()) + 1))
        data = batch.payload if native else batch.samples.view(np.uint8)
        begin = batch.payload_offset if native else 2 * batch.offset
        at = batch.position * self._frame.take(row)
        length = np.diff(begin)
        fd = self._fd.take(row)
        fast = (fd >= 0) & (at + length < _RIFF_LIMIT)
        if native:
            # gaps must be filled with silence; L16 has another byte order on the wire
            fast &= self._fills.take(row) & (at <= self._end.take(row))
            if batch.transcoded is not None:
                fast &= ~batch.transcoded
            if not fast.all():
                fast &= ~np.isin(row, row[~fast])
        if not fast.all():
            chosen = np.flatnonzero(fast)
            if not chosen.size:
                return list(range(len(row)))
            row, fd, at, length, first = row[chosen], fd[chosen], at[chosen], length[chosen], begin[:-1][chosen]
        else:
            chosen, first = None, begin[:-1]
        base = np.uint64(data.ctypes.data)
        done = self._writes.write(fd, base + first.astype(np.uint64), length, at + self._header_bytes.take(row))
        good = done == length
        np.maximum.at(self._end, row[good], (at + length)[good])
        due = row[good & (now - self._header_written_at.take(row) >= HEADER_INTERVAL_S)]
        if due.size:
            self._write_headers_of(np.unique(due), now)
        left = np.ones(len(batch), np.bool_)
        if chosen is None:
            left = ~good
        else:
            left[chosen] = ~good
        self.wrote = bool(good.any())
        # what failed goes the slow way, where errors are dealt with
        return np.flatnonzero(left).tolist()

    def _write_headers_of(self, rows: I64, now: float) -> None:
        """Rewrite the headers of these lanes."""
        for kind in np.unique(self._kind[rows]).tolist():
            members = rows[self._kind[rows] == kind]
            end = self._end[members]
            headers = self._formats[kind].headers(end)
            size = headers.shape[1]
            address = headers.ctypes.data + size * np.arange(len(members), dtype=np.uint64)
            at = np.zeros(len(members), np.int64)
            done = self._writes.write(self._fd[members], address, np.full(len(members), size), at)
            written = members[done == size]
            self._header_end[written] = self._end[written]
            self._header_written_at[written] = now

    def write_headers(self, now: float, *, younger_too: bool) -> None:
        """Bring headers up to date: those that are due, with ``younger_too`` all. To be called only while every file of
        a lane has its descriptor."""
        lagging = (self._fd >= 0) & (self._header_end != self._end)
        if not younger_too:
            lagging &= now - self._header_written_at >= HEADER_INTERVAL_S
        rows = np.flatnonzero(lagging)
        if rows.size:
            self._write_headers_of(rows, now)

    def close(self) -> None:
        self._writes.close()
