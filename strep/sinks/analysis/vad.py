"""Voice activity of all streams at once: an energy detector, and Silero's neural network.

The energy detector compares a frame's level (without its mean) with the noise floor: the minimum of the smoothed level
over the last 5 s (minimum statistics, in ten parts of 0.5 s). A frame is speech when it is ``margin`` above the floor,
and remains so down to 0.6 margins; the margin is 0.3 of the distance between the loudest level of late and the floor,
4.5 to 12 dB: low where speech hardly stands out, higher where breath and echo would count. Digital silence and frames
that were not received teach nothing about the noise. What sounds evenly for 5 s (a tone, a fan) is noise; music is not
told from speech.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ..._speech import energy as thresholds
from ..._speech.silero import ENOUGH, SILERO_RATE, SILERO_SIZE, SURELY, SileroModel
from .columns import Columns, Rows, column
from .frame_batch import FrameBatch, runs_of

__all__ = ["DETECTORS", "EnergyDetector", "Judgement", "SileroDetector", "VoiceDetector", "levels_of"]

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# Surely speech (that begins a segment); enough to go on with one; and the indices of frames whose stream's present
# segment was a mistake (None: none)
Judgement = tuple[Bools, Bools, I64 | None]

# those of the scalar detector, as this one computes
_NOISE_PRIOR_DBFS: Final = np.float32(thresholds.NOISE_PRIOR_DBFS)
_SPEECH_MIN_DBFS: Final = np.float32(thresholds.SPEECH_MIN_DBFS)
_NOISE_MIN_DBFS: Final = np.float32(thresholds.NOISE_MIN_DBFS)
_ENOUGH_BELOW_DB: Final = np.float32(thresholds.ENOUGH_BELOW_DB)
_FULL_SCALE_DB: Final = np.float32(thresholds.FULL_SCALE_DB)
_PEAK_START_DBFS: Final = np.float32(thresholds.PEAK_START_DBFS)
_PEAK_DECAY_DB: Final = np.float32(thresholds.PEAK_DECAY_DB)
_NO_LEVEL: Final = np.float32(1e9)  # where no level was measured so far: above all levels


def levels_of(batches: Sequence[FrameBatch], scratch: F32) -> list[F32]:
    """dBFS of each frame without its mean, float32 (k,) for each batch; -90.3 for silence. ``scratch``: any float32."""
    out: list[F32] = []
    for run, samples in runs_of(batches):
        size = run[0].samples.shape[1]
        k, width = samples.shape
        many = width // size
        energy, total = np.empty(k * many, np.float32), np.empty(k * many, np.float32)
        ones = np.full(size, 1 / size, np.float32)
        step = max(1, scratch.size // width)
        for begin in range(0, k, step):
            part = samples[begin : begin + step]
            x = scratch[: part.size].reshape(-1, size)
            np.copyto(x.reshape(part.shape), part)
            here = slice(begin * many, begin * many + len(x))
            np.vecdot(x, x, out=energy[here])
            np.matmul(x, ones, out=total[here])
        energy *= np.float32(1 / size)
        total *= total
        energy -= total
        if samples.dtype != np.int16:
            energy *= np.float32(32_768.0**2)
        np.maximum(energy, np.float32(1), out=energy)
        np.log2(energy, out=energy)
        energy *= np.float32(10 * np.log10(2))
        energy -= _FULL_SCALE_DB
        out += list(np.ascontiguousarray(energy.reshape(k, many).T))
    return out


class VoiceDetector(Protocol):
    """Says of frames whether they are speech."""

    size: int  # samples of a frame
    rate: int  # Hz
    dtype: Any  # of the frames
    start: int  # frames in a row that begin a segment
    hangover: int  # frames without speech that end it

    def grow(self, rows: int) -> None: ...

    def reset(self, row: int) -> None: ...

    def judge(self, batch: FrameBatch, rows: Rows, level: F32) -> Judgement:
        """Of each frame whether it is speech. ``rows``: batch.row, perhaps as a slice · ``level``: dBFS, (k,)."""

    def noise(self, row: I64) -> F32:
        """The noise floor of rows in dBFS; NaN when it is not known."""


class EnergyDetector(Columns):
    """See the module's text. Frames of 20 ms at 8 kHz."""

    size, rate, dtype = 160, 8000, "int16"
    start, hangover = 3, 15

    count: npt.NDArray[np.int32] = column(np.int32)  # frames that taught something
    # levels in dBFS
    smooth: F32 = column(np.float32)
    lowest: F32 = column(np.float32, _NO_LEVEL)  # of the present part
    before: F32 = column(np.float32, _NO_LEVEL)  # of the parts before
    parts: F32 = column(np.float32, _NO_LEVEL, shape=(thresholds.PARTS,))  # the lowest of each
    peak: F32 = column(np.float32, _PEAK_START_DBFS)

    def judge(self, batch: FrameBatch, rows: Rows, level: F32) -> Judgement:
        count, smooth, lowest = self.count[rows], self.smooth[rows], self.lowest[rows]
        good = level > _NOISE_MIN_DBFS
        good &= batch.real >= 0.5
        if not good.all():
            smooth = np.where(good, np.where(count == 0, level, smooth + np.float32(0.4) * (level - smooth)), smooth)
            lowest = np.where(good, np.minimum(lowest, smooth), lowest)
        else:
            # the first frame: as if it had always been so
            smooth += np.where(count == 0, np.float32(1), np.float32(0.4)) * (level - smooth)
            np.minimum(lowest, smooth, out=lowest)
        count += good
        floor = np.minimum(lowest, self.before[rows])
        early = count < thresholds.PART_FRAMES
        if early.any():
            np.minimum(floor, _NOISE_PRIOR_DBFS, out=floor, where=early)
        peak = self.peak[rows]
        peak -= _PEAK_DECAY_DB
        np.maximum(peak, level, out=peak)
        margin = np.clip(np.float32(0.3) * (peak - floor), np.float32(4.5), np.float32(12))
        surely = level > np.maximum(floor + margin, _SPEECH_MIN_DBFS)
        margin *= np.float32(0.6)
        enough = level > np.maximum(floor + margin, _SPEECH_MIN_DBFS - _ENOUGH_BELOW_DB)
        self.count[rows], self.smooth[rows], self.peak[rows] = count, smooth, peak
        wrong: I64 | None = None
        full = good & (count % thresholds.PART_FRAMES == 0)
        if full.any():
            some = np.flatnonzero(full)
            row, part = batch.row[some], count[some] // thresholds.PART_FRAMES
            self.parts[row, part % thresholds.PARTS] = lowest[some]
            self.before[row] = self.parts[row].min(axis=1)
            # a line that was noisy from the beginning was taken for speech, because nothing was known of it
            first = some[(part == 1) & (peak[some] - lowest[some] < 6)]
            wrong = first if first.size else None
            lowest[some] = smooth[some]
        self.lowest[rows] = lowest
        return surely, enough, wrong

    def noise(self, row: I64) -> F32:
        floor = np.minimum(self.lowest[row], self.before[row])
        return np.where(self.count[row] > 0, floor, np.float32(np.nan))


class SileroDetector:
    """Silero VAD 5 or 6 (ONNX) at 8 kHz: all streams' frames of 32 ms in one run. Needs the extra ``vad``."""

    size, rate, dtype = SILERO_SIZE, SILERO_RATE, "float32"
    start, hangover = 2, 10

    def __init__(self) -> None:
        self._model = SileroModel()

    def grow(self, rows: int) -> None:
        self._model.grow(rows)

    def reset(self, row: int) -> None:
        self._model.reset(row)

    def judge(self, batch: FrameBatch, rows: Rows, level: F32) -> Judgement:
        given, state = self._model.inputs(batch.row, batch.samples)
        speech, state = self._model.run(given, state)
        self._model.keep(batch.row, given, state)
        return speech > SURELY, speech > ENOUGH, None

    def noise(self, row: I64) -> F32:
        return np.full(len(row), np.nan, np.float32)


DETECTORS: Final[Mapping[str, Callable[[], VoiceDetector]]] = {"energy": EnergyDetector, "silero": SileroDetector}
"""By what users call them."""
