"""Level, clipping, silence and active speech level of all streams at once: a handful of array operations per batch,
whatever its size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .analyzer import Analyzer
from .bank import FrameBank
from .columns import Columns, column
from .p56 import ActiveLevel, Envelope
from .silence import FRAMES_PER_S, FramePieces, SilentFrames

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamEvent, StreamInfo

__all__ = ["LevelMeter", "Levels"]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_FLOOR_DBFS: Final = -120.0
_FULL_SCALE: Final = 32_768.0
_LOUD_BLOCKS: Final = 16  # up to so many blocks at the limit are looked at one by one
_CACHE_SAMPLES: Final = 80_000  # gone through at once: they stay in the processor's cache
_ENDED_STREAMS_KEPT: Final = 100_000  # whose figures can still be asked for
_LARGEST_SAMPLE: Final = {"PCMU": 32_124, "PCMA": 32_256}  # that a codec can say; 32,767 otherwise
_FIRST_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of one stream. 0 dBFS is a square wave of full scale (32,768), so a sine of full scale has -3.01 dBFS RMS.
    Silence is -120. Gaps count nowhere.

    ``rms_dbfs``, ``peak_dbfs``  of everything received
    ``last_rms_dbfs``            of the last block
    ``clipped``                  samples at full scale, that is at the largest value of the codec
    ``silent_s``                 seconds of silent frames in all: of 20 ms, however audio was cut into blocks
    ``silence_now_s``            seconds of the present run of silent frames; 0: the last one was not silent
    ``active_s``                 seconds of all other frames
    ``dc_offset``                the mean; full scale is 1
    ``speech_dbfs``              the active speech level of ITU-T P.56 (method B); -120: no speech
    ``activity``                 the share of time in which speech was active, 0 to 1
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


class _Sums(Columns):
    """What is known of each stream."""

    serial: I64 = column(np.int64, -1)  # of the stream that is metered in this row; -1: none
    rate: I64 = column(np.int64)  # sample frames a second; 0: no audio so far
    limit: I64 = column(np.int64)  # the largest sample that the codec can say
    energy: F64 = column(np.float64)  # the sum of the samples' squares
    total: F64 = column(np.float64)  # the sum of the samples
    values: I64 = column(np.int64)  # how many samples, those of all channels
    peak: I64 = column(np.int64)  # the largest magnitude
    clipped: I64 = column(np.int64)
    last_dbfs: F64 = column(np.float64)  # of the last block


class _Measured(NamedTuple):
    """What a batch's blocks have: sums of squares, sums, samples, largest magnitudes and samples at the limit, (n,);
    what all of them add to the envelope, if they are of the same whole frames; and their frames."""

    energy: F64
    total: F64
    values: I64
    peak: I64
    clipped: I64
    envelope: Envelope | None
    frames: FramePieces


class LevelMeter(Analyzer):
    """Measures level, clipping and silence of every stream.

    ``silence_dbfs``  frames of 20 ms whose RMS is below are silent
    ``on_event``      taken as by all analyzers; a level meter tells no events
    ``active_level``  False leaves the active speech level out, which is half of the work

    :meth:`arrays` gives all streams as columns, :meth:`snapshot` one as :class:`Levels`. Figures of a stream, under
    ``"level"``: those of :class:`Levels` but the momentary ones (``last_rms_dbfs``, ``silence_now_s``). Gets audio as
    it was received, nothing concealed. Thread-safe.
    """

    kind = "level"
    concealment = False

    def __init__(
        self,
        silence_dbfs: float = -50.0,
        on_event: Callable[[StreamEvent], object] | None = None,
        *,
        active_level: bool = True,
    ) -> None:
        super().__init__(on_event)
        self._sums = _Sums(_FIRST_ROWS)
        self._silence = SilentFrames(_FIRST_ROWS, _FULL_SCALE**2 * 10 ** (silence_dbfs / 10))
        self._active = ActiveLevel(_FIRST_ROWS) if active_level else None
        self._banks: dict[int, FrameBank] = {}  # by sample rate
        self._final: OrderedDict[int, Levels] = OrderedDict()  # of streams that ended, by serial
        self._scratch = np.zeros(_CACHE_SAMPLES, np.float32)

    def _make_room(self, row: int) -> None:
        if self._sums.make_room(row):
            self._silence.grow(self._sums.rows)
            if self._active is not None:
                self._active.grow(self._sums.rows)

    def stream_started(self, stream: StreamInfo) -> None:
        with self._lock:
            self._make_room(stream.index)
            self._sums.reset(stream.index)
            self._sums.serial[stream.index] = stream.serial
            self._silence.reset(stream.index)
            if self._active is not None:
                self._active.reset(stream.index)
            for bank in self._banks.values():
                bank.reset(stream.index)

    def _abandon(self, stream: StreamInfo) -> None:
        with self._lock:
            for bank in self._banks.values():
                bank.reset(stream.index)
            if self._holds(stream):
                self._sums.serial[stream.index] = -1

    def _holds(self, stream: StreamInfo) -> bool:
        return stream.index < self._sums.rows and bool(self._sums.serial[stream.index] == stream.serial)

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        with self._lock:
            if self._active is not None:
                for rate, bank in self._banks.items():
                    self._active.push(bank.flush(stream.index), rate, self.aside)
            if self._holds(stream):
                self._silence.finish(stream.index)
        levels = self.snapshot(stream)
        if levels is not None:
            self._final[stream.serial] = levels
            if len(self._final) > _ENDED_STREAMS_KEPT:
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
        limit = self._sums.limit.take(row)
        found = self._measure(batch, full, limit)
        with self._lock:
            sums = self._sums
            if bool((row[1:] != row[:-1]).all()):  # blocks of a stream are adjacent: each has one
                sums.energy[row] += found.energy
                sums.total[row] += found.total
                sums.values[row] += found.values
                sums.peak[row] = np.maximum(sums.peak[row], found.peak)
                sums.clipped[row] += found.clipped
            else:
                start = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
                rows = row[start]
                sums.energy[rows] += np.add.reduceat(found.energy, start)
                sums.total[rows] += np.add.reduceat(found.total, start)
                sums.values[rows] += np.add.reduceat(found.values, start)
                sums.peak[rows] = np.maximum(sums.peak[rows], np.maximum.reduceat(found.peak, start))
                sums.clipped[rows] += np.add.reduceat(found.clipped, start)
            sums.last_dbfs[row] = _dbfs(np.sqrt(found.energy / found.values))  # of several blocks the last stays
            self._silence.add(found.frames)
        return True, found.envelope

    def _measure(self, batch: BlockBatch, full: I64, limit: I64) -> _Measured:
        """``full``: the indices of blocks that are not empty; ``limit``: the largest sample of each."""
        samples, start = batch.samples, batch.offset[:-1][full]
        values = np.diff(batch.offset)[full]
        frames, position, row = batch.frames[full], batch.position[full], batch.index[full]
        rate = self._sums.rate.take(row)
        one_rate = int(rate[0]) if bool((rate == rate[0]).all()) else 0
        size = max(1, round(one_rate / FRAMES_PER_S))
        envelope: Envelope | None = None
        if one_rate and not (frames % size).any() and not (position % size).any() and bool((frames == values).all()):
            # whole frames, one behind the other whatever blocks they are of
            table = samples.reshape(-1, size)
            many = len(table)
            # float32 keeps sums of squares of a frame to 7 digits, at half the memory traffic
            squares, sums, tops = (np.empty(many, np.float32) for _ in range(3))
            ones = np.ones(size, np.float32)
            if self._active is not None:
                envelope = Envelope.of(table, one_rate)
            step = max(1, _CACHE_SAMPLES // size)
            for begin in range(0, many, step):
                part = table[begin : begin + step]
                x = self._scratch[: part.size].reshape(part.shape)
                np.copyto(x, part)
                here = slice(begin, begin + len(part))
                np.vecdot(x, x, out=squares[here])
                np.matmul(x, ones, out=sums[here])
                np.abs(x, out=x)
                x.max(axis=1, out=tops[here])
                if envelope is not None:
                    envelope.add(x, begin)
            count = frames // size
            first = np.cumsum(count) - count
            number = np.arange(many)
            number += np.repeat(position // size - first, count)
            of_frames = squares.astype(np.float64)
            energy, total = np.add.reduceat(of_frames, first), np.add.reduceat(sums, first)
            peak = np.maximum.reduceat(tops, first).astype(np.int64)
            pieces = FramePieces(
                np.repeat(row, count),
                number,
                of_frames,
                np.full(many, size),
                np.full(many, size / one_rate),
                np.ones(many, np.bool_),
            )
        else:
            total = np.add.reduceat(samples, start, dtype=np.float32)
            peak = np.maximum.reduceat(np.abs(samples.astype(np.int32)), start).astype(np.int64)
            pieces, first = _pieces(samples, row, position, frames, start, values // frames, rate)
            energy = np.add.reduceat(pieces.energy, first)
        clipped = _clipped(samples, start, values, peak, limit)
        return _Measured(energy, total.astype(np.float64), values, peak, clipped, envelope, pieces)

    def _listen(self, active: ActiveLevel, batch: BlockBatch, envelope: Envelope | None) -> None:
        rate = self._sums.rate.take(batch.index)
        one = bool((rate == rate[0]).all())
        for each in [int(rate[0])] if one else np.unique(rate).tolist():
            if each not in self._banks:
                self._banks[each] = FrameBank(max(8, round(each / 50)), rate=each, dtype="int16", aside=self.aside)
            blocks = None if one else np.flatnonzero(rate == each)
            active.push(self._banks[each].push(batch, blocks), each, self.aside, envelope)

    def _learn(self, batch: BlockBatch, full: npt.NDArray[np.int64]) -> None:
        """Note the codecs of streams whose audio comes for the first time."""
        if int(batch.index.max()) >= self._sums.rows:
            with self._lock:
                self._make_room(int(batch.index.max()))
        for i in full[self._sums.rate.take(batch.index[full]) == 0].tolist():
            stream = batch.streams[i]
            self._sums.rate[stream.index] = stream.sample_rate
            self._sums.limit[stream.index] = _LARGEST_SAMPLE.get(stream.codec.name if stream.codec else "", 32_767)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All streams that are metered as columns (n,): ``serial`` int64, and the fields of :class:`Levels`, float64
        (``clipped`` int64). A stream that has ended stays until another takes its row."""
        with self._lock:
            return self._figures(np.flatnonzero(self._sums.serial >= 0))

    def levels(self) -> dict[str, npt.NDArray[Any]]:
        """The same as :meth:`arrays`."""
        return self.arrays()

    def _figures(self, rows: I64) -> dict[str, npt.NDArray[Any]]:
        sums = self._sums
        values = sums.values[rows]
        mean = sums.energy[rows] / np.maximum(values, 1) / _FULL_SCALE**2
        speech, activity = np.full(len(rows), _FLOOR_DBFS), np.zeros(len(rows))
        if self._active is not None:
            speech, activity = self._active.levels(rows, mean)
        return {
            "serial": sums.serial[rows],
            "rms_dbfs": _dbfs(np.sqrt(mean) * _FULL_SCALE),
            "peak_dbfs": _dbfs(sums.peak[rows].astype(np.float64)),
            "last_rms_dbfs": np.where(values > 0, sums.last_dbfs[rows], _FLOOR_DBFS),
            "clipped": sums.clipped[rows],
            "silent_s": self._silence.silent_s[rows],
            "silence_now_s": self._silence.now_s[rows],
            "active_s": self._silence.active_s[rows],
            "dc_offset": sums.total[rows] / np.maximum(values, 1) / _FULL_SCALE,
            "speech_dbfs": speech,
            "activity": activity,
        }

    def snapshot(self, stream: StreamInfo) -> Levels | None:
        """A stream's levels so far; None if it is not metered, or another stream has taken its row since."""
        with self._lock:
            if not self._holds(stream):
                return None
            columns = self._figures(np.array([stream.index]))
        return Levels(**{name: column[0].item() for name, column in columns.items() if name != "serial"})

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        levels = self._final.get(stream.serial) or self.snapshot(stream)
        if levels is None:
            return {}
        momentary = ("last_rms_dbfs", "silence_now_s")
        fine = ("dc_offset", "activity")
        named = asdict(levels).items()
        return {"level": {n: round(v, 4 if n in fine else 2) for n, v in named if n not in momentary}}


def _pieces(
    samples: npt.NDArray[np.int16], row: I64, position: I64, frames: I64, start: I64, channels: I64, rate: I64
) -> tuple[FramePieces, I64]:
    """The parts of frames that blocks of any length are; and the first one of each block."""
    size = np.maximum(np.rint(rate / FRAMES_PER_S).astype(np.int64), 1)
    number = position // size
    count = (position + frames - 1) // size - number + 1
    first = np.cumsum(count) - count
    of = np.repeat(np.arange(len(row)), count)
    number = number[of] + np.arange(len(of)) - first[of]
    begin = np.maximum(number * size[of] - position[of], 0)
    end = np.minimum((number + 1) * size[of] - position[of], frames[of])
    energy = np.add.reduceat(np.square(samples, dtype=np.float32), start[of] + begin * channels[of])
    length = end - begin
    pieces = FramePieces(
        row[of],
        number,
        energy.astype(np.float64),
        length * channels[of],
        length / rate[of],
        position[of] + end == (number + 1) * size[of],
    )
    return pieces, first


def _clipped(samples: npt.NDArray[np.int16], start: I64, values: I64, peak: I64, limit: I64) -> I64:
    """How many samples of each block are at the limit."""
    clipped = np.zeros(len(start), np.int64)
    loud = np.flatnonzero(peak >= limit)
    if loud.size > _LOUD_BLOCKS:
        magnitude = np.abs(samples.astype(np.int32))
        return np.add.reduceat(magnitude >= np.repeat(limit, values), start, dtype=np.int64)
    for i in loud.tolist():
        magnitude = np.abs(samples[start[i] : start[i] + values[i]].astype(np.int32))
        clipped[i] = np.count_nonzero(magnitude >= limit[i])
    return clipped


def _dbfs(amplitude: F64) -> F64:
    """Of amplitudes in the scale of int16."""
    out = np.full(len(amplitude), _FLOOR_DBFS)
    there = amplitude > 0
    out[there] = np.maximum(20 * np.log10(amplitude[there] / _FULL_SCALE), _FLOOR_DBFS)
    return out
