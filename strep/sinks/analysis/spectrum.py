"""Spectra of all streams at once: the long-term average of each, and a spectrogram of its last seconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.exceptions import ConfigurationError
from .analyzer import Analyzer
from .bank import FrameBank
from .columns import Columns, column
from .tonal import prepare
from .window_runs import WindowRun, runs_of_windows

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamEvent, StreamInfo

__all__ = ["Spectrogram", "Spectrum"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_ENDED_STREAMS_KEPT: Final = 100_000  # whose figures can still be asked for, as their reports are kept
_FLOOR_DBFS: Final = -120.0
_FIRST_ROWS: Final = 64
_CACHE_VALUES: Final = 100_000  # transformed at once: they stay in the processor's cache


class _Averages(Columns):
    """What is known of each stream."""

    serial: I64 = column(np.int64, -1)  # of the row's live stream; -1: none
    total: F64 = column(np.float64)  # (rows, bins): the sum of power densities
    count: I64 = column(np.int64)  # frames in it
    place: I64 = column(np.int64, -1)  # of the row's spectrogram in the rings; -1: it has none


@dataclass(frozen=True, slots=True)
class Spectrogram:
    """A copy of the spectrogram that is kept of a stream, frame by frame. Frames that never were are left out.

    ``psd``           float32 (n, bins): power density, in full scale squared per Hz
    ``time_s``        float64 (n,): of the frames' middles, seconds from the stream's beginning
    ``frequency_hz``  float64 (bins,): of the bins
    """

    psd: F32
    time_s: F64
    frequency_hz: F64


class Spectrum(Analyzer):
    """Measures power densities by Welch's method: Hann windows, averaged over each stream.

    ``size``, ``hop``  samples of a window, an even number from 16 on; one begins every ``hop`` (None: half of size)
    ``rate``           Hz; streams of other rates are resampled to it
    ``seconds``        of each stream the spectrogram of so many last seconds is kept (0: of none)
    ``max_bytes``      what all spectrograms together may take; streams beyond have none, which is counted
                       (``without_spectrogram``). A stream's may be read until another stream takes its place
    ``on_event``       taken as by all analyzers; a spectrum tells no events

    On signals without gaps the average is ``scipy.signal.welch(x, rate, nperseg=size, noverlap=size - hop,
    detrend=False)`` with x in [-1, 1), and the spectrogram what ``scipy.signal.spectrogram`` says with the same
    arguments and ``window="hann"``. Frames of which less than half was received are not averaged.

    Figures of a stream, under ``"spectrum"``: ``frames`` averaged, and per third of an octave (IEC 61260) ``hz`` and
    ``dbfs``, the mean power in it (0 dBFS is a square wave of full scale).

    Raises ConfigurationError if size, hop, rate or seconds make no sense.
    """

    kind = "spectrum"

    def __init__(
        self,
        size: int = 256,
        hop: int | None = None,
        rate: int = 8000,
        seconds: float = 10.0,
        max_bytes: int = 256 << 20,
        on_event: Callable[[StreamEvent], object] | None = None,
    ) -> None:
        super().__init__(on_event)
        if size < 16 or size % 2:
            raise ConfigurationError(f"size {size}: an even number of samples from 16 on, like 256")
        if seconds < 0:
            raise ConfigurationError(f"seconds {seconds}: 0 or more")
        hop = size // 2 if hop is None else hop
        prepare()
        self._bank = FrameBank(size, hop, rate, aside=self.aside, apart=True)
        self.frequency_hz: F64 = np.fft.rfftfreq(size, 1 / rate).astype(np.float64)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        self._window = window.astype(np.float32)
        scale = np.full(size // 2 + 1, 2 / (rate * np.square(window).sum()))
        scale[[0, -1]] /= 2  # one-sided: what lies between counts for its mirror image too
        self._scale = scale.astype(np.float32)
        bins = size // 2 + 1
        self._frames_kept = round(seconds * rate / hop)  # of each spectrogram
        bytes_each = self._frames_kept * (4 * bins + 8)
        self._max_spectrograms = max_bytes // bytes_each if bytes_each else 0
        self.without_spectrogram = 0
        self._averages = _Averages(_FIRST_ROWS, total=np.zeros((0, bins)))
        self._ring = np.zeros((0, self._frames_kept, bins), np.float32)  # by place
        self._position = np.zeros((0, self._frames_kept), np.int64)
        self._place_of: OrderedDict[int, int] = OrderedDict()  # by serial
        self._free: OrderedDict[int, None] = OrderedDict()  # serials of ended streams whose place may be taken
        self._ended: OrderedDict[int, tuple[int, F32]] = OrderedDict()  # frames and average, by serial

    def stream_started(self, stream: StreamInfo) -> None:
        row = stream.index
        self._bank.reset(row)
        with self._lock:
            self._averages.make_room(row)
            self._averages.reset(row)
            self._averages.serial[row] = stream.serial
            self._averages.place[row] = self._take_place(stream.serial)

    def _take_place(self, serial: int) -> int:
        used = len(self._place_of)
        if used < self._max_spectrograms:
            if used == len(self._ring):
                more = min(max(8, used), self._max_spectrograms - used)
                shape = (more, *self._ring.shape[1:])
                self._ring = np.concatenate([self._ring, np.zeros(shape, np.float32)])
                self._position = np.concatenate([self._position, np.zeros((more, self._frames_kept), np.int64)])
            place = used
        elif self._free:
            ended, _ = self._free.popitem(last=False)
            place = self._place_of.pop(ended)
        else:
            self.without_spectrogram += bool(self._frames_kept)
            return -1
        self._position[place] = -1
        self._place_of[serial] = place
        return place

    def _take(self, batch: BlockBatch) -> None:
        for run in runs_of_windows(self._bank.push(batch), self._bank.hop):
            self.aside.frames(run, self._add)

    def _add(self, run: WindowRun) -> None:
        """What is raised is raised before anything is added."""
        row = run.row
        with self._lock:
            self._averages.make_room(int(row.max()))
            place = self._averages.place[row]
        sound = run.real >= 0.5
        all_sound = bool(sound.all())
        shown = place >= 0
        any_shown = bool(shown.any())
        k, count, bins = len(run), run.count, len(self._scale)
        total = np.empty((k, bins), np.float32)
        kept = np.empty((k, count, bins), np.float32) if any_shown else None
        for begin, end, squares in self._squares(run):
            if kept is not None:
                np.add(squares[..., 0], squares[..., 1], out=kept[begin:end])
            if not all_sound:
                squares *= sound[begin:end, :, None, None]
            together = squares.sum(axis=1)
            np.add(together[..., 0], together[..., 1], out=total[begin:end])
        total *= self._scale
        with self._lock:
            averages = self._averages
            averages.total[row] += total
            averages.count[row] += sound.sum(axis=1)
            if kept is not None:
                kept *= self._scale
                for j, frames in enumerate(run.frames):
                    position = frames.position[shown]
                    at = position // self._bank.hop % self._frames_kept
                    self._ring[place[shown], at] = kept[shown, j]
                    self._position[place[shown], at] = position

    def _squares(self, run: WindowRun) -> Iterator[tuple[int, int, F32]]:
        """Of rows from begin to end the squares of real and imaginary parts, (rows, count, bins, 2)."""
        from scipy.fft import rfft  # several transforms at once: far faster than numpy's

        step = max(1, _CACHE_VALUES // (run.count * run.size))
        for begin in range(0, len(run), step):
            end = min(begin + step, len(run))
            spectrum = rfft(run.windows(begin, end) * self._window, overwrite_x=True)
            parts: F32 = spectrum.view(np.float32).reshape(*spectrum.shape, 2)
            yield begin, end, np.square(parts, out=parts)

    def _holds(self, stream: StreamInfo) -> bool:
        return stream.index < self._averages.rows and bool(self._averages.serial[stream.index] == stream.serial)

    def _abandon(self, stream: StreamInfo) -> None:
        row = stream.index
        self._bank.reset(row)
        with self._lock:
            if self._holds(stream):
                self._averages.serial[row] = self._averages.place[row] = -1
            if stream.serial in self._place_of:
                self._free[stream.serial] = None

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        row = stream.index
        self._bank.reset(row)  # Welch's method takes whole frames only
        with self._lock:
            if not self._holds(stream):
                return
            averages = self._averages
            count = int(averages.count[row])
            if count:
                mean = averages.total[row] / count
                self._ended[stream.serial] = count, mean.astype(np.float32)
                if len(self._ended) > _ENDED_STREAMS_KEPT:
                    self._ended.popitem(last=False)
            averages.serial[row] = averages.place[row] = -1
            if stream.serial in self._place_of:
                self._free[stream.serial] = None

    def average(self, stream: StreamInfo) -> F32 | None:
        """The long-term average power density, float32 (bins,) at ``frequency_hz``, in full scale squared per Hz; None:
        nothing came so far."""
        with self._lock:
            if stream.serial in self._ended:
                return self._ended[stream.serial][1]
            row = stream.index
            if not self._holds(stream) or not self._averages.count[row]:
                return None
            mean: F64 = self._averages.total[row] / self._averages.count[row]
        return mean.astype(np.float32)

    def spectrogram(self, stream: StreamInfo) -> Spectrogram | None:
        """The last ``seconds`` of a stream; None if it has no spectrogram, or none any more."""
        with self._lock:
            place = self._place_of.get(stream.serial)
            if place is None:
                return None
            position = self._position[place].copy()
            ring = self._ring[place].copy()
        there = np.flatnonzero(position > position.max() - self._frames_kept * self._bank.hop)
        there = there[position[there] >= 0]
        there = there[np.argsort(position[there])]
        time_s = (position[there] + self._bank.size / 2) / self._bank.rate
        return Spectrogram(ring[there], time_s, self.frequency_hz)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All live streams as arrays: ``serial`` int64 (n,) · ``frames`` int64 (n,), how many were averaged · ``psd``
        float32 (n, bins), the long-term average at ``frequency_hz``, in full scale squared per Hz (0: none so far)."""
        with self._lock:
            averages = self._averages
            rows = np.flatnonzero(averages.serial >= 0)
            count = averages.count[rows]
            psd = (averages.total[rows] / np.maximum(count, 1)[:, None]).astype(np.float32)
            return {"serial": averages.serial[rows], "frames": count, "psd": psd}

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        with self._lock:
            ended = self._ended.get(stream.serial)
        if ended is None:
            return {}
        count, psd = ended
        middle, level = self._thirds(psd.astype(np.float64))
        return {"spectrum": {"frames": count, "hz": middle.tolist(), "dbfs": np.round(level, 2).tolist()}}

    def _thirds(self, psd: F64) -> tuple[F64, F64]:
        """Mean power in thirds of an octave (IEC 61260-1, base 10) that are at least as wide as a bin, in dBFS."""
        width = self.frequency_hz[1]
        edges = np.append(np.maximum(self.frequency_hz - width / 2, 0), self.frequency_hz[-1])
        power = np.append(0, np.cumsum(psd * width))
        number = np.arange(10, 10 * np.log10(self.frequency_hz[-1]) - 0.5)
        low, high = 10 ** ((number - 0.5) / 10), 10 ** ((number + 0.5) / 10)
        number = number[high - low >= width]
        low, high = (np.interp(10 ** ((number + half) / 10), edges, power) for half in (-0.5, 0.5))
        level = np.maximum(10 * np.log10(np.maximum(high - low, 1e-30)), _FLOOR_DBFS)
        # 3 digits name a band: 10 ** (28 / 10) is 631 Hz
        return np.array([float(f"{f:.3g}") for f in 10 ** (number / 10)]), level

    def report(self) -> dict[str, Any]:
        return {**super().report(), "without_spectrogram": self.without_spectrogram}
