"""Level, clipping and silence of all streams at once: a handful of array operations per batch, whatever its size."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ._base import BaseSink

if TYPE_CHECKING:
    from .._blocks import BlockBatch
    from .._types import StreamInfo

__all__ = ["LevelMeter", "Levels"]

F64 = npt.NDArray[np.float64]

_FLOOR_DBFS: Final = -120.0
_FULL_SCALE: Final = 32_768.0
_FEW: Final = 16  # blocks that are looked at one by one
_CLIP: Final = {"PCMU": 32_124, "PCMA": 32_256}  # the largest sample each can say; 32,767 otherwise


@dataclass(frozen=True, slots=True)
class Levels:
    """0 dBFS is a square wave of full scale (32,768), so a sine of full scale has -3.01 dBFS RMS. Silence is -120.

    ``rms_dbfs, peak_dbfs`` of everything received · ``last_rms_dbfs`` of the last block · ``clipped`` samples at full
    scale · ``silent_s`` in all, ``silence_now_s`` of the present run · ``active_s`` the rest · gaps count nowhere
    """

    rms_dbfs: float
    peak_dbfs: float
    last_rms_dbfs: float
    clipped: int
    silent_s: float
    silence_now_s: float
    active_s: float


class LevelMeter(BaseSink):
    """Measures level, clipping and silence of every stream; blocks whose RMS is below ``silence_dbfs`` are silent.

    :meth:`levels` gives all streams as arrays, :meth:`snapshot` one. Thread-safe.
    """

    kind = "level"
    inline = True
    prompt = False

    def __init__(self, silence_dbfs: float = -50.0) -> None:
        self._silence = silence_dbfs
        self._lock = threading.Lock()
        self._rows = 0
        self._serial = np.zeros(0, np.int64)
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self._rate = np.zeros(0, np.int64)  # sample frames a second; 0: no audio so far
        self._limit = np.zeros(0, np.int64)  # the largest sample that the codec can say
        self._grow(256)

    def _grow(self, rows: int) -> None:
        for name, dtype in _COLUMNS:
            new = np.zeros(rows, dtype)
            old = self._columns.get(name)
            if old is not None:
                new[: len(old)] = old
            self._columns[name] = new
        serial = np.full(rows, -1, np.int64)
        serial[: self._rows] = self._serial
        self._serial, self._rows = serial, rows
        more = rows - len(self._rate)
        self._rate = np.append(self._rate, np.zeros(more, np.int64))
        self._limit = np.append(self._limit, np.zeros(more, np.int64))

    def stream_started(self, stream: StreamInfo) -> None:
        with self._lock:
            if stream.index >= self._rows:
                self._grow(max(2 * self._rows, stream.index + 1))
            for column in self._columns.values():
                column[stream.index] = 0
            self._serial[stream.index] = stream.serial
            self._rate[stream.index] = 0

    def blocks(self, batch: BlockBatch) -> None:
        offset = batch.offset
        full = np.flatnonzero(offset[1:] > offset[:-1])  # reduceat takes an empty block for its neighbour
        if not full.size:
            return
        samples = batch.samples
        start = offset[:-1][full]
        values = np.diff(offset)[full]
        # float32 keeps sums of squares of a block to 7 digits, at half the memory traffic
        energy = np.add.reduceat(np.square(samples, dtype=np.float32), start).astype(np.float64)
        magnitude = np.abs(samples.astype(np.int32))
        peak = np.maximum.reduceat(magnitude, start)
        row = batch.index[full]
        self._learn(batch, full)
        limit = self._limit.take(row)
        clipped = np.zeros(len(full), np.int64)
        loud = np.flatnonzero(peak >= limit)
        if loud.size > _FEW:
            clipped = np.add.reduceat(magnitude >= np.repeat(limit, values), start, dtype=np.int64)
        else:
            for i in loud.tolist():
                clipped[i] = np.count_nonzero(magnitude[start[i] : start[i] + values[i]] >= limit[i])
        rms = _dbfs(np.sqrt(energy / values))
        silent = rms < self._silence
        seconds = batch.frames[full] / self._rate.take(row)
        with self._lock:
            c = self._columns
            np.add.at(c["energy"], row, energy)
            np.add.at(c["values"], row, values)
            np.maximum.at(c["peak"], row, peak)
            np.add.at(c["clipped"], row, clipped)
            np.add.at(c["silent_s"], row, seconds * silent)
            np.add.at(c["active_s"], row, seconds * ~silent)
            c["last_dbfs"][row] = rms  # of several blocks of a stream the last stays
            c["now_s"][row[~silent]] = 0.0
            np.add.at(c["now_s"], row[silent], seconds[silent])

    def _learn(self, batch: BlockBatch, full: npt.NDArray[np.int64]) -> None:
        """Note the codecs of streams whose audio comes for the first time."""
        if int(batch.index.max()) >= self._rows:
            with self._lock:
                self._grow(max(2 * self._rows, int(batch.index.max()) + 1))
        for i in full[self._rate.take(batch.index[full]) == 0].tolist():
            stream = batch.streams[i]
            self._rate[stream.index] = stream.sample_rate
            self._limit[stream.index] = _CLIP.get(stream.codec.name if stream.codec else "", 32_767)

    def levels(self) -> dict[str, npt.NDArray[Any]]:
        """All streams that are metered, as columns (n,): serial, rms_dbfs, peak_dbfs, last_rms_dbfs, clipped, silent_s,
        silence_now_s, active_s."""
        with self._lock:
            rows = np.flatnonzero(self._serial >= 0)
            c = {name: column[rows] for name, column in self._columns.items()}
            serial = self._serial[rows]
        return {
            "serial": serial,
            "rms_dbfs": _dbfs(np.sqrt(c["energy"] / np.maximum(c["values"], 1))),
            "peak_dbfs": _dbfs(c["peak"].astype(np.float64)),
            "last_rms_dbfs": np.where(c["values"] > 0, c["last_dbfs"], _FLOOR_DBFS),
            "clipped": c["clipped"],
            "silent_s": c["silent_s"],
            "silence_now_s": c["now_s"],
            "active_s": c["active_s"],
        }

    def snapshot(self, stream: StreamInfo) -> Levels | None:
        """A stream's figures; None when another stream has taken its row since."""
        with self._lock:
            row = stream.index
            if row >= self._rows or self._serial[row] != stream.serial:
                return None
            c = {name: float(column[row]) for name, column in self._columns.items()}
        mean = np.array([c["energy"] / max(c["values"], 1)])
        return Levels(
            float(_dbfs(np.sqrt(mean))[0]),
            float(_dbfs(np.array([c["peak"]]))[0]),
            c["last_dbfs"] if c["values"] else _FLOOR_DBFS,
            int(c["clipped"]),
            c["silent_s"],
            c["now_s"],
            c["active_s"],
        )


_COLUMNS: Final = (
    ("energy", np.float64),
    ("values", np.int64),
    ("peak", np.int64),
    ("clipped", np.int64),
    ("silent_s", np.float64),
    ("active_s", np.float64),
    ("last_dbfs", np.float64),
    ("now_s", np.float64),
)


def _dbfs(amplitude: F64) -> F64:
    out = np.full(len(amplitude), _FLOOR_DBFS)
    there = amplitude > 0
    out[there] = np.maximum(20 * np.log10(amplitude[there] / _FULL_SCALE), _FLOOR_DBFS)
    return out
