"""What a capture directory holds, for pictures: ``summary.json`` (of ``strep serve``: each leg's ``leg.json``) and the
WAV files beside it.

Whatever is missing there is missing here: streams without a file have no audio, streams of which nobody measured
anything have no marks. Files are mapped, not read whole.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from .._codecs.g711 import PCMA, PCMU, decode
from .._model.exceptions import CaptureFileError
from ..sinks.wav.file import WavFormat

__all__ = ["RecordedLeg", "RecordedStream", "Span", "columns_of", "legs_of", "spectra_of"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]
T = TypeVar("T")

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")
_WINDOWS_A_COLUMN: Final = 6  # of a column that is longer than a window, this many are looked at
_SCALES: Final = {"G.107.1": "wideband", "G.107.2": "fullband"}  # by model, of figures that do not say their scale
_SLICE: Final = 1 << 22  # samples that are decoded at a time


@dataclass(frozen=True, slots=True)
class Span:
    """From ``start_s`` on the leg's timeline, ``duration_s`` long; ``text`` says what."""

    start_s: float
    duration_s: float
    text: str = ""


@dataclass(slots=True)
class RecordedStream:
    """One stream: where it stands on its leg's timeline, and what is known of it. Times are seconds of the leg."""

    direction: str
    offset_s: float
    duration_s: float
    codec: str
    entry: dict[str, Any]
    audio: Audio | None
    gaps: list[Span] = field(default_factory=list)
    talk: list[Span] = field(default_factory=list)
    keys: list[Span] = field(default_factory=list)
    mos: list[tuple[float, float, float]] = field(default_factory=list)  # start, end, MOS; windows in a row touch
    scale: str = "narrowband"  # of MOS; only figures of one scale may be compared


@dataclass(frozen=True, slots=True)
class Audio:
    """A channel of a WAV file. ``offset_s``: where the file begins on the leg's timeline."""

    path: Path
    format: WavFormat
    channel: int
    offset_s: float

    @property
    def frames(self) -> int:
        return max(self.path.stat().st_size - self.format.header_bytes, 0) // self.format.frame_bytes

    def slices(self, step: int = _SLICE) -> Iterator[I16]:
        """Samples of the channel, int16, so many at a time."""
        data = np.memmap(self.path, np.uint8, "r", offset=self.format.header_bytes)
        width = self.format.frame_bytes
        for begin in range(0, self.frames, step):
            raw = np.asarray(data[begin * width : min(begin + step, self.frames) * width])
            if self.format.encoding == "pcm16":
                yield raw.view("<i2").reshape(-1, self.format.channels)[:, self.channel].astype(np.int16)
            else:
                yield decode(PCMU if self.format.encoding == "PCMU" else PCMA, raw)


@dataclass(slots=True)
class RecordedLeg:
    """A call leg and its streams."""

    name: str
    leg: str
    began_ns: int
    duration_s: float
    streams: list[RecordedStream]
    number: int = 1  # of several recordings of this leg, each told of in a file of its own

    def picture(self, directory: Path, out: Path | None, suffix: str) -> Path:
        """Where its picture goes: beside its files, or into ``out``."""
        name, leg = _UNSAFE.sub("_", self.name), _UNSAFE.sub("_", self.leg)
        leg += f"-{self.number}" if self.number > 1 else ""
        return out / f"{name}-{leg}.{suffix}" if out is not None else directory / name / f"{leg}.{suffix}"


def legs_of(directory: str | PathLike[str]) -> list[RecordedLeg]:
    """The call legs of a capture directory, in the order of their streams; of one that ``strep serve`` wrote, in the
    order of their beginnings. Raises CaptureFileError."""
    folder = Path(directory)
    path = folder / "summary.json"
    found = _read(path)
    if found is not None and ("streams" in found or "legs" not in found):
        return _checked(path, lambda: _legs(folder, found["streams"]))
    files = sorted(folder.glob("*/leg*.json"))
    if found is None and not files:
        raise CaptureFileError(f"{folder} has no summary.json: give a directory that strep wrote with --out")
    legs = [leg for file in files for leg in _checked(file, partial(_legs_of_one, folder, file))]
    legs.sort(key=lambda leg: leg.began_ns)
    numbers: Counter[tuple[str, str]] = Counter()
    for leg in legs:
        numbers[leg.name, leg.leg] += 1
        leg.number = numbers[leg.name, leg.leg]
    return legs


def _legs_of_one(folder: Path, file: Path) -> list[RecordedLeg]:
    told = _read(file) or {}
    return _legs(folder, told["streams"], told)


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON file; None if there is none. Raises CaptureFileError."""

    def read() -> dict[str, Any] | None:
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    return _checked(path, read)


def _checked(path: Path, work: Callable[[], T]) -> T:
    """What ``work`` makes of a file. Raises CaptureFileError for what is not ours."""
    try:
        return work()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CaptureFileError(f"{path} is not a summary of strep ({type(error).__name__})") from error


def _legs(folder: Path, streams: Any, told: Mapping[str, Any] | None = None) -> list[RecordedLeg]:
    """``told``: what is known of the leg whose streams these are, if it is one."""
    told = told or {}
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in map(dict, streams):
        name, leg = entry.get("name") or told.get("call_leg_id"), entry.get("leg") or told.get("leg")
        grouped.setdefault((str(name), str(leg)), []).append(entry)
    return [_leg(folder, name, leg, group) for (name, leg), group in grouped.items()]


def _leg(folder: Path, name: str, leg: str, entries: list[dict[str, Any]]) -> RecordedLeg:
    began = min(int(entry.get("first_arrival_ns") or 0) for entry in entries)
    offsets = [(int(entry.get("first_arrival_ns") or 0) - began) / 1e9 for entry in entries]
    first: dict[str, float] = {}  # where each file begins: both directions may be in one
    for entry, offset in zip(entries, offsets, strict=True):
        for file in map(str, entry.get("files") or []):
            first[file] = min(first.get(file, offset), offset)
    streams = [_stream(folder, entry, offset, first) for entry, offset in zip(entries, offsets, strict=True)]
    return RecordedLeg(name, leg, began, max(t.offset_s + t.duration_s for t in streams), streams)


def _stream(folder: Path, entry: dict[str, Any], offset: float, first: dict[str, float]) -> RecordedStream:
    direction = str(entry.get("direction"))
    names = map(str, entry.get("files") or [])
    audio = next((a for a in (_audio(folder, name, direction, first[name]) for name in names) if a), None)
    duration = float(entry.get("duration_s") or 0.0)
    if not duration and audio is not None:
        duration = audio.frames / audio.format.rate
    rate = (entry.get("sample_rate") or 0) / 1000
    stream = RecordedStream(direction, offset, duration, f"{entry.get('codec') or '?'} {rate:g} kHz", entry, audio)
    quality = _dict(entry.get("quality"))
    for gap in _list(quality.get("gap_list") or entry.get("gap_list")):
        stream.gaps.append(Span(offset + float(gap[0]), float(gap[1]), str(gap[2])))
    for segment in _list(_dict(entry.get("speech")).get("segments")):
        stream.talk.append(Span(offset + float(segment[0]), float(segment[1]) - float(segment[0])))
    for event in _list(_dict(entry.get("dtmf")).get("events")):
        at, duration_s = float(event.get("position_s", 0.0)), float(event.get("duration_s") or 0.0)
        stream.keys.append(Span(offset + at, duration_s, str(event.get("digit", "?"))))
    stream.mos = [(offset + start, offset + end, mos) for start, end, mos in _windows(quality, duration)]
    stream.scale = str(quality.get("scale") or _SCALES.get(str(quality.get("model")), "narrowband"))
    return stream


def _windows(quality: dict[str, Any], duration_s: float) -> Iterator[tuple[float, float, float]]:
    """Start, end and MOS of a stream's windows. A window lasts until the next one, whatever silence there was between;
    only where a whole window is missing, of which nothing is concluded, is a hole."""
    series = _list(quality.get("series"))
    length = quality.get("window_s") or max((float(window["duration_s"]) for window in series), default=0.0)
    before: float | None = None
    for window in series:
        start = float(window["start_s"])
        end = float(window.get("end_s") or start + float(window["duration_s"]))
        if before is not None and start - before < float(length) - 1e-3:
            start = before
        before = end
        yield start, max(start, min(end, duration_s or end)), float(window["mos_cq"])


def _audio(folder: Path, name: str, direction: str, offset: float) -> Audio | None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        return None
    with path.open("rb") as file:
        format_ = WavFormat.of_header(file.read(94))
    if format_ is None or path.stat().st_size <= format_.header_bytes:
        return None
    # a file of both directions has neither in its name: inbound is left, outbound right
    both = format_.channels == 2 and direction not in path.stem
    return Audio(path, format_, int(both and direction == "outbound"), offset)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def columns_of(audio: Audio, span_s: float, columns: int) -> tuple[F32, F32, F32]:
    """Lowest, highest and RMS sample in each of ``columns`` parts of ``span_s`` seconds: float32 (columns,), full scale
    1, NaN where there is no audio."""
    low, high = np.full(columns, np.inf), np.full(columns, -np.inf)
    energy, count = np.zeros(columns), np.zeros(columns)
    at = 0
    scale = columns / span_s
    for samples in audio.slices():
        time_s = audio.offset_s + (at + np.arange(len(samples))) / audio.format.rate
        column = np.minimum((time_s * scale).astype(np.int64), columns - 1)
        start = np.flatnonzero(np.r_[True, column[1:] != column[:-1]])
        to = column[start]
        np.minimum.at(low, to, np.minimum.reduceat(samples, start))
        np.maximum.at(high, to, np.maximum.reduceat(samples, start))
        np.add.at(energy, to, np.add.reduceat(np.square(samples, dtype=np.float64), start))
        np.add.at(count, to, np.diff(np.append(start, len(samples))))
        at += len(samples)
    none = count == 0
    rms = np.sqrt(energy / np.maximum(count, 1))
    found = [np.where(none, np.nan, values / 32_768).astype(np.float32) for values in (low, high, rms)]
    return found[0], found[1], found[2]


def spectra_of(audio: Audio, span_s: float, columns: int, size: int = 256) -> tuple[F32, F64]:
    """Mean power density in dB of each of ``columns`` parts of ``span_s`` seconds, float32 (bins, columns), NaN where
    there is no audio; and the frequencies of the bins, Hz."""
    rate, frames = audio.format.rate, audio.frames
    size = size if rate <= 8000 else size * 2
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32) / 32_768
    width = span_s / columns * rate
    each = 1 if width <= size else min(_WINDOWS_A_COLUMN, round(width / size))
    middle = (np.arange(columns * each) + 0.5) / each * width - audio.offset_s * rate
    begin = np.rint(middle - size / 2).astype(np.int64)
    power = np.full((columns * each, size // 2 + 1), np.nan, np.float32)
    sound = (middle >= 0) & (middle < frames)
    at, left = 0, np.zeros(0, np.int16)
    for samples in audio.slices():
        # a window may begin in the slice before, or before the file itself
        piece = np.concatenate([left, samples])
        first = at - len(left)
        at += len(samples)
        inside = np.flatnonzero(sound & (begin + size > at - len(samples)) & (begin + size <= at))
        if at == frames:
            inside = np.union1d(inside, np.flatnonzero(sound & (begin + size > frames)))
        padded = np.concatenate([np.zeros(size, np.int16), piece, np.zeros(size, np.int16)])
        for some in np.array_split(inside, max(1, len(inside) // 1024)):
            cut = padded[(begin[some] - first + size)[:, None] + np.arange(size)]
            power[some] = np.square(np.abs(np.fft.rfft(cut * window, axis=1)))
        left = piece[-size:]
    parts = power.reshape(columns, each, -1)
    there = ~np.isnan(parts[:, :, 0])
    mean = np.where(there[:, :, None], parts, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)[:, None]
    decibel = 10 * np.log10(np.maximum(mean * (2 / (rate * np.square(window * 32_768).sum())), 1e-14))
    decibel[~there.any(axis=1)] = np.nan
    return decibel.T.astype(np.float32), np.fft.rfftfreq(size, 1 / rate).astype(np.float64)
