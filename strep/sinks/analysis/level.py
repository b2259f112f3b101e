"""Level, clipping, silence and active speech level of all streams at once: a handful of array operations per batch,
whatever its size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..isolating import IsolatingSink
from .bank import FrameBank
from .p56 import ActiveLevel, Envelope

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo

__all__ = ["LevelMeter", "Levels"]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_FLOOR_DBFS: Final = -120.0
_FULL_SCALE: Final = 32_768.0
_FEW: Final = 16  # blocks that are looked at one by one
_CHUNK: Final = 80_000  # samples at once: they stay in the cache
_KEPT: Final = 100_000  # streams whose final figures are kept
_CLIP: Final = {"PCMU": 32_124, "PCMA": 32_256}  # the largest sample each can say; 32,767 otherwise


@dataclass(frozen=True, slots=True)
class Levels:
    """0 dBFS is a square wave of full scale (32,768), so a sine of full scale has -3.01 dBFS RMS. Silence is -120.

    ``rms_dbfs, peak_dbfs`` of everything received · ``last_rms_dbfs`` of the last block · ``clipped`` samples at full
    scale · ``silent_s`` in all, ``silence_now_s`` of the present run · ``active_s`` the rest · gaps count nowhere
    ``dc_offset`` the mean, full scale is 1 · ``speech_dbfs`` the active speech level of ITU-T P.56 (method B), -120
    when there is none · ``activity`` the share of time it was active, 0 … 1
    """

    rms_dbfs: float
    peak_dbfs: float
    last_rms_dbfs: float
    clipped: int
    silent_s: float
    silence_now_s: float
    active_s: float
    dc_offset: float
    speech_dbfs: float
    activity: float


class LevelMeter(IsolatingSink):
    """Measures level, clipping and silence of every stream; blocks whose RMS is below ``silence_dbfs`` are silent.

    :meth:`levels` gives all streams as arrays, :meth:`snapshot` one. Thread-safe. ``active_level=False`` leaves the
    active speech level out, which is half of the work.
    """

    kind = "level"
    inline = True
    prompt = False

    def __init__(self, silence_dbfs: float = -50.0, *, active_level: bool = True) -> None:
        super().__init__()
        self._silence = silence_dbfs
        self._active = ActiveLevel(0) if active_level else None
        self._banks: dict[int, FrameBank] = {}  # by sample rate
        self._final: OrderedDict[int, Levels] = OrderedDict()  # by serial
        self._scratch = np.zeros(_CHUNK, np.float32)
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
        if self._active is not None:
            self._active.grow(rows)

    def stream_started(self, stream: StreamInfo) -> None:
        with self._lock:
            if stream.index >= self._rows:
                self._grow(max(2 * self._rows, stream.index + 1))
            for column in self._columns.values():
                column[stream.index] = 0
            self._serial[stream.index] = stream.serial
            self._rate[stream.index] = 0
            if self._active is not None:
                self._active.reset(stream.index)
            for bank in self._banks.values():
                bank.reset(stream.index)

    def _abandon(self, stream: StreamInfo) -> None:
        with self._lock:
            for bank in self._banks.values():
                bank.reset(stream.index)
            if stream.index < self._rows and self._serial[stream.index] == stream.serial:
                self._serial[stream.index] = -1

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        with self._lock:
            if self._active is not None:
                for rate, bank in self._banks.items():
                    self._active.push(bank.flush(stream.index), rate, self.aside)
        levels = self.snapshot(stream)
        if levels is not None:
            self._final[stream.serial] = levels
            if len(self._final) > _KEPT:
                self._final.popitem(last=False)

    def _take(self, batch: BlockBatch) -> None:
        for part, (heard, envelope) in self.aside.blocks(batch, self._add):
            if self._active is not None and heard:
                with self._lock:
                    self._listen(self._active, part, envelope)

    def _add(self, batch: BlockBatch) -> tuple[bool, Envelope | None]:
        """Add a batch to the sums; tells whether there was anything, and what of the envelope was worked out by the
        way. What is raised is raised before anything is added."""
        offset = batch.offset
        full = np.flatnonzero(offset[1:] > offset[:-1])  # reduceat takes an empty block for its neighbour
        if not full.size:
            return False, None
        row = batch.index[full]
        self._learn(batch, full)
        limit = self._limit.take(row)
        values = np.diff(offset)[full]
        energy, total, peak, clipped, envelope = self._measure(batch, offset[:-1][full], values, limit)
        rms = _dbfs(np.sqrt(energy / values))
        silent = rms < self._silence
        seconds = batch.frames[full] / self._rate.take(row)
        with self._lock:
            c = self._columns
            if bool((row[1:] != row[:-1]).all()):  # blocks of a stream are adjacent: each has one
                c["energy"][row] += energy
                c["total"][row] += total
                c["values"][row] += values
                c["peak"][row] = np.maximum(c["peak"][row], peak)
                c["clipped"][row] += clipped
                c["silent_s"][row] += seconds * silent
                c["active_s"][row] += seconds * ~silent
                c["now_s"][row] = (c["now_s"][row] + seconds) * silent
            else:
                np.add.at(c["energy"], row, energy)
                np.add.at(c["total"], row, total)
                np.add.at(c["values"], row, values)
                np.maximum.at(c["peak"], row, peak)
                np.add.at(c["clipped"], row, clipped)
                np.add.at(c["silent_s"], row, seconds * silent)
                np.add.at(c["active_s"], row, seconds * ~silent)
                self._run_on(row, silent, seconds)
            c["last_dbfs"][row] = rms  # of several blocks of a stream the last stays
        return True, envelope

    def _run_on(self, row: I64, silent: npt.NDArray[np.bool_], seconds: F64) -> None:
        """The present run of silence, where a stream has several blocks."""
        order = np.arange(len(row))
        start = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        loud = np.maximum.reduceat(np.where(silent, -1, order), start)  # the last one that is not silent
        after = order > np.repeat(loud, np.diff(np.r_[start, len(row)]))
        now = self._columns["now_s"]
        now[row[start]] = now[row[start]] * (loud < 0) + np.add.reduceat(seconds * after, start)

    def _measure(
        self, batch: BlockBatch, start: I64, values: I64, limit: I64
    ) -> tuple[F64, F64, I64, I64, Envelope | None]:
        """Of each block: sum of squares, sum, largest magnitude, samples at the limit; and of the whole batch what it
        adds to the envelope, where all blocks are of the same whole frames."""
        samples = batch.samples
        k, n = len(start), int(values[0])
        envelope: Envelope | None = None
        # float32 keeps sums of squares of a block to 7 digits, at half the memory traffic
        energy, total = np.zeros(k, np.float32), np.zeros(k, np.float32)
        clipped = np.zeros(k, np.int64)
        if k * n == len(samples) and n <= _CHUNK and bool((values == n).all()):
            table = samples.reshape(k, n)
            peak = np.empty(k, np.int64)
            ones = np.ones(n, np.float32)
            rate = self._rate[batch.index]
            if self._active is not None and bool((rate == rate[0]).all()):
                envelope = Envelope.of(table, int(rate[0]))
            for begin in range(0, k, _CHUNK // n):
                part = table[begin : begin + _CHUNK // n]
                x = self._scratch[: part.size].reshape(part.shape)
                np.copyto(x, part)
                here = slice(begin, begin + len(part))
                np.vecdot(x, x, out=energy[here])
                np.matmul(x, ones, out=total[here])
                peak[here] = np.abs(part).view(np.uint16).max(axis=1)  # |-32,768| is 32,768
                if envelope is not None:
                    np.abs(x, out=x)
                    envelope.add(x, begin)
        else:
            energy = np.add.reduceat(np.square(samples, dtype=np.float32), start)
            total = np.add.reduceat(samples, start, dtype=np.float32)
            magnitude = np.abs(samples.astype(np.int32))
            peak = np.maximum.reduceat(magnitude, start).astype(np.int64)
        loud = np.flatnonzero(peak >= limit)
        if loud.size > _FEW:
            magnitude = np.abs(samples.astype(np.int32))
            clipped = np.add.reduceat(magnitude >= np.repeat(limit, values), start, dtype=np.int64)
        else:
            for i in loud.tolist():
                magnitude = np.abs(samples[start[i] : start[i] + values[i]].astype(np.int32))
                clipped[i] = np.count_nonzero(magnitude >= limit[i])
        return energy.astype(np.float64), total.astype(np.float64), peak, clipped, envelope

    def _listen(self, active: ActiveLevel, batch: BlockBatch, envelope: Envelope | None) -> None:
        rate = self._rate.take(batch.index)
        one = bool((rate == rate[0]).all())
        for each in [int(rate[0])] if one else np.unique(rate).tolist():
            if each not in self._banks:
                self._banks[each] = FrameBank(max(8, round(each / 50)), rate=each, dtype="int16", aside=self.aside)
            blocks = None if one else np.flatnonzero(rate == each)
            active.push(self._banks[each].push(batch, blocks), each, self.aside, envelope)

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
        silence_now_s, active_s, dc_offset, speech_dbfs, activity."""
        with self._lock:
            return self._figures(np.flatnonzero(self._serial >= 0))

    def _figures(self, rows: I64) -> dict[str, npt.NDArray[Any]]:
        c = {name: column[rows] for name, column in self._columns.items()}
        mean = c["energy"] / np.maximum(c["values"], 1) / _FULL_SCALE**2
        speech, activity = np.full(len(rows), _FLOOR_DBFS), np.zeros(len(rows))
        if self._active is not None:
            speech, activity = self._active.levels(rows, mean)
        return {
            "serial": self._serial[rows],
            "rms_dbfs": _dbfs(np.sqrt(mean) * _FULL_SCALE),
            "peak_dbfs": _dbfs(c["peak"].astype(np.float64)),
            "last_rms_dbfs": np.where(c["values"] > 0, c["last_dbfs"], _FLOOR_DBFS),
            "clipped": c["clipped"],
            "silent_s": c["silent_s"],
            "silence_now_s": c["now_s"],
            "active_s": c["active_s"],
            "dc_offset": c["total"] / np.maximum(c["values"], 1) / _FULL_SCALE,
            "speech_dbfs": speech,
            "activity": activity,
        }

    def snapshot(self, stream: StreamInfo) -> Levels | None:
        """A stream's figures; None when another stream has taken its row since."""
        with self._lock:
            row = stream.index
            if row >= self._rows or self._serial[row] != stream.serial:
                return None
            columns = self._figures(np.array([row]))
        return Levels(**{name: column[0].item() for name, column in columns.items() if name != "serial"})

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        levels = self._final.get(stream.serial) or self.snapshot(stream)
        if levels is None:
            return {}
        momentary = ("last_rms_dbfs", "silence_now_s")
        fine = ("dc_offset", "activity")
        named = asdict(levels).items()
        return {"level": {n: round(v, 4 if n in fine else 2) for n, v in named if n not in momentary}}


_COLUMNS: Final = (
    ("energy", np.float64),
    ("total", np.float64),
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
