"""The last audio of every stream, as it went out: what concealment continues. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .plc import history_frames

__all__ = ["AudioHistory"]

I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class AudioHistory:
    """The last 48.75 ms of every stream of one rate and number of channels, as they went out: 2.3 KB at 8 kHz."""

    def __init__(self, number: int, rate: int, channels: int) -> None:
        self.number, self.rate, self.channels = number, rate, channels
        self.size = history_frames(rate) * channels
        self._room = 3 * self.size  # samples are appended; when a row is full its end moves to the front
        self._buffer = np.zeros((0, self._room), np.int16)
        self._end = np.zeros(0, np.int64)

    def append(self, rows: I64, samples: I16, begin: I64, length: I64, anew: Bools) -> None:
        """Append ``samples[begin:begin+length]`` to rows, each of which is there once."""
        missing = int(rows.max()) + 1 - len(self._end)
        if missing > 0:
            more = max(missing, len(self._end), 256)
            buffer = np.zeros((len(self._end) + more, self._room), np.int16)
            buffer[: len(self._end)] = self._buffer
            self._buffer, self._end = buffer, np.append(self._end, np.zeros(more, np.int64))
        kept = np.minimum(length, self.size)
        begin = begin + (length - kept)
        at = np.where(anew | (kept == self.size), 0, self._end.take(rows))
        flat = self._buffer.reshape(-1)
        full = np.flatnonzero(at + kept > self._room)
        if full.size:
            windows = _windows(flat, self.size)
            front = rows[full] * self._room
            windows[front] = windows[front + at[full] - self.size]
            at[full] = self.size
        target = rows * self._room + at
        one = int(kept[0])
        if one and (kept == one).all():  # packets of one length: the usual case
            _windows(flat, one)[target] = _windows(samples, one)[begin]
        else:
            for width in np.unique(kept[kept > 0]).tolist():
                mine = np.flatnonzero(kept == width)
                _windows(flat, width)[target[mine]] = _windows(samples, width)[begin[mine]]
        self._end[rows] = at + kept

    def end(self, row: int, count: int) -> I16:
        """The last ``count`` values of a row, or as many as there are."""
        if row >= len(self._end):
            return self._buffer[:0, 0]
        end = int(self._end[row])
        return self._buffer[row, max(0, end - count) : end]


def _windows(values: I16, width: int) -> npt.NDArray[np.void]:
    """Every run of ``width`` values as one item, to be copied whole."""
    return np.ndarray((values.size - width + 1,), np.dtype((np.void, 2 * width)), values, 0, (2,))
