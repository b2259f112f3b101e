"""The fast way into WAV files: all blocks of a batch in one system call, positions and headers as arrays.

A lane is a stream's row with an open file. Samples wait (``Tails``) until the file was last written _WRITE_S ago; then
they are written up to the end of the last full block of the file system, and the header with them. A process that is
killed so loses 0.9 s of a stream at most.

The rest is left to the writer, block by block: new files, gaps that must be filled with other bytes than zeros, files
past 4 GiB, errors, more files than descriptors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from .aio import ManyWrites
from .file import WavFile, WavFormat
from .tails import FILE_BLOCK_BYTES, TAIL_BYTES, Tails

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._model.blocks import BlockBatch

__all__ = ["WavLanes"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_WRITE_S: Final = 0.45  # between two writes; batches come every 0.1 s, or 0.3 s when there are many streams
_REST_S: Final = 0.3  # of a stream's samples: more does not wait for a block to be full
_MOST_S: Final = 0.9  # of a stream's samples: more does not wait, however fast they come
_LATE_S: Final = 0.7  # what waits is written so long after the last write, whatever comes
_HEADER, _FRAME, _FILLS, _REST, _MOST = range(5)  # what is known of a format, in bytes: see _facts
_RIFF_LIMIT: Final = 0xFFFF_0000  # bytes of samples; longer files become RF64, which is not for here


class WavLanes:
    """By stream row: descriptor (-1: no lane), bytes of samples with those that wait, and according to the header on
    disk, format. What formats say is looked up by their number.

    ``evicted``: whether there are more files than may be open, so that a descriptor may be another file's by now.
    """

    def __init__(self, evicted: Callable[[], bool], writes: ManyWrites) -> None:
        self._evicted = evicted
        self._writes = writes
        self._formats: list[WavFormat] = []
        self._facts = np.zeros((5, 1), np.int64)  # of each format: see _fact
        self.wrote = False  # whether the last call wrote anything
        self._fd = np.full(0, -1, np.int64)
        self._tails = Tails()
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
            ("_written_at", np.float64),
            ("_kind", np.int64),
            ("_last", np.int64),
        ):
            new = np.zeros(rows, dtype)
            if old:
                new[:old] = getattr(self, name)
            elif name == "_fd":
                new[:] = -1
            setattr(self, name, new)
        self._fd[old:] = -1
        self._tails.grow(rows)
        self._end: I64
        self._header_end: I64
        self._written_at: npt.NDArray[np.float64]
        self._kind: I64  # place in _formats
        self._last: I64  # a row's last block in a batch

    @property
    def lagging(self) -> bool:
        """Whether some file on disk lacks something, or its header does not speak of it."""
        return bool(((self._fd >= 0) & (self._header_end != self._end)).any())

    @property
    def waiting_frames(self) -> int:
        """How many frames were taken and are not in the files yet."""
        held = self._tails.held
        rows = np.flatnonzero(held)
        return int((held[rows] // self._fact(_FRAME, rows)).sum())

    def adopt(self, row: int, file: WavFile) -> None:
        """Give this row a file that is open."""
        if row >= len(self._fd):
            self._grow(max(2 * len(self._fd), row + 1))
        fast = file.end < _RIFF_LIMIT and not self._evicted()
        self._fd[row] = file.fd if fast else -1
        self._end[row] = file.end
        self._header_end[row] = file.header_end
        self._written_at[row] = file.header_written_at
        if fast and file.rest:
            self._end[row] += len(file.rest)
            self._tails.put(row, file.rest)
            file.rest = b""
        if file.format not in self._formats:
            self._formats.append(file.format)
            self._facts = np.array([_facts(one) for one in self._formats], np.int64).T.copy()
        self._kind[row] = self._formats.index(file.format)

    def _fact(self, fact: int, row: I64) -> I64:
        """One of _facts, of the formats of these rows."""
        known: I64 = self._facts[fact].take(self._kind.take(row))
        return known

    def release(self, row: int, file: WavFile) -> bool:
        """Take the file from this row: something else is to be done with it, or its stream has ended. False: it is in
        none."""
        if not self.tell(row, file):
            return False
        self._fd[row] = -1
        file.rest = self._tails.take(row)
        return True

    def tell(self, row: int, file: WavFile) -> bool:
        """Tell the file of this row how far it was written. False: it is in none."""
        if row >= len(self._fd) or self._fd[row] < 0:
            return False
        file.end = int(self._end[row] - self._tails.held[row])
        file.header_end = int(self._header_end[row])
        file.header_written_at = float(self._written_at[row])
        return True

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
        at = batch.position * self._fact(_FRAME, row)
        length = np.diff(begin)
        fd = self._fd.take(row)
        fast = (fd >= 0) & (at + length < _RIFF_LIMIT)
        if native:
            # gaps must be filled with silence; L16 has another byte order on the wire
            fast &= (self._fact(_FILLS, row) > 0) & (at <= self._end.take(row))
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
        good = self._write_blocks(row, fd, data, first, length, at, now)
        left = np.ones(len(batch), np.bool_)
        if chosen is None:
            left = ~good
        else:
            left[chosen] = ~good
        # what failed goes the slow way, where errors are dealt with
        return np.flatnonzero(left).tolist()

    def _write_blocks(self, row: I64, fd: I64, data: U8, first: I64, length: I64, at: I64, now: float) -> Mask:
        """Write blocks that begin at ``first`` of ``data``; which of them are written, or wait."""
        order = np.arange(len(row))
        self._last[row] = order
        follows = (at == self._end.take(row)) & (self._last.take(row) == order)
        # of several blocks of a stream none waits
        if not follows.all():
            follows &= ~np.isin(row, row[~follows])
        if follows.all():
            return self._write_behind(row, fd, data, first, length, now)
        good = np.zeros(len(row), np.bool_)
        for chosen, write in ((np.flatnonzero(follows), self._write_behind), (np.flatnonzero(~follows), None)):
            if not chosen.size:
                continue
            part = row[chosen], fd[chosen], data, first[chosen], length[chosen]
            good[chosen] = write(*part, now) if write else self._write_there(*part, at[chosen], now)
        return good

    def _write_behind(self, row: I64, fd: I64, data: U8, first: I64, length: I64, now: float) -> Mask:
        """One block a row, where the last one ended."""
        end = self._end.take(row) + length
        waiting = self._tails.held.take(row) + length
        due = (now - self._written_at.take(row) >= _WRITE_S) | (waiting > self._fact(_MOST, row))
        good = ~due
        if not due.all():
            few = np.flatnonzero(good)
            self._tails.append(row[few], data, first[few], length[few])
        if due.any():
            many = np.flatnonzero(due)
            good[many] = self._write_due(row[many], fd[many], data, first[many], length[many], now)
        self._end[row[good]] = end[good]
        self._write_headers(row[good & due], now)
        return good

    def _write_due(self, row: I64, fd: I64, data: U8, first: I64, length: I64, now: float) -> Mask:
        """Write what waits, and blocks behind it up to where a block of the file system ends."""
        held = self._tails.held.take(row)
        stop = self._fact(_HEADER, row) + self._end.take(row) + length
        rest = stop % FILE_BLOCK_BYTES
        rest[(rest > length) | (rest >= held + length) | (rest > self._fact(_REST, row))] = 0
        both = held + length - rest
        address = np.uint64(data.ctypes.data) + first.astype(np.uint64)
        pieces, count = self._tails.pieces(row, address, length - rest)
        good: Mask = self._writes.write_pieces(fd, pieces, count, stop - rest - both) == both
        self.wrote |= bool(good.any())
        if not good.all():
            row, rest, first, length = row[good], rest[good], first[good], length[good]
        self._tails.clear(row)
        self._tails.append(row, data, first + length - rest, rest)
        self._written_at[row] = now
        return good

    def _write_there(self, row: I64, fd: I64, data: U8, first: I64, length: I64, at: I64, now: float) -> Mask:
        """Blocks behind gaps, or several of a row: what waited is written, and all of them."""
        self._write_tails(np.unique(row))
        address = np.uint64(data.ctypes.data) + first.astype(np.uint64)
        ready = self._tails.held.take(row) == 0
        good: Mask = self._writes.write(fd, address, length, at + self._fact(_HEADER, row)) == length
        self.wrote |= bool(good.any())
        good &= ready
        np.maximum.at(self._end, row[good], (at + length)[good])
        self._write_headers(np.unique(row[good]), now)
        return good

    def _write_tails(self, rows: I64) -> None:
        """Write what waits of these rows."""
        rows = rows[self._tails.held.take(rows) > 0]
        if not rows.size:
            return
        held = self._tails.held.take(rows)
        at = self._fact(_HEADER, rows) + self._end.take(rows) - held
        done = self._writes.write_pieces(self._fd.take(rows), *self._tails.pieces(rows), at)
        self._tails.clear(rows[done == held])

    def _write_headers(self, rows: I64, now: float) -> None:
        """Rewrite the headers of these lanes."""
        if not rows.size:
            return
        self._written_at[rows] = now
        for kind in np.unique(self._kind[rows]).tolist():
            members = rows[self._kind[rows] == kind]
            end = self._end[members] - self._tails.held[members]
            headers = self._formats[kind].headers(end)
            size = headers.shape[1]
            address = headers.ctypes.data + size * np.arange(len(members), dtype=np.uint64)
            at = np.zeros(len(members), np.int64)
            done = self._writes.write(self._fd[members], address, np.full(len(members), size), at)
            good = done == size
            self._header_end[members[good]] = end[good]

    def catch_up(self, now: float, *, idle: bool) -> None:
        """Write what has waited long enough, with its header; ``idle``: all. To be called only while every file of a
        lane has its descriptor."""
        lagging = (self._fd >= 0) & (self._header_end != self._end)
        if not idle:
            lagging &= now - self._written_at >= _LATE_S
        rows = np.flatnonzero(lagging)
        if rows.size:
            self._write_tails(rows)
            self._write_headers(rows, now)

    def close(self) -> None:
        self._writes.close()


def _facts(format_: WavFormat) -> tuple[int, int, int, int, int]:
    """Bytes of the header and of a frame; whether gaps must be filled; bytes of _REST_S, and of _MOST_S, but no more
    than there is room for."""
    byte_rate = format_.rate * format_.frame_bytes
    most = min(int(_MOST_S * byte_rate), TAIL_BYTES)
    return format_.header_bytes, format_.frame_bytes, int(bool(format_.silence)), int(_REST_S * byte_rate), most
