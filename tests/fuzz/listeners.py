"""What a run gives its audio to: every kind of sink and analyzer, and what they have at the end of a real call."""

from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

from strep import sinks
from strep._model.types import StreamEvent, StreamInfo
from strep.sinks import BaseSink, FrameBatch

from .calls import Key, key_of

__all__ = ["VARIANTS", "Listeners"]

VARIANTS = 3


class _Ears(BaseSink):
    """Notes what is told of each stream."""

    inline = True  # hears what analyzers tell at their very end too
    wants_audio = False

    def __init__(self) -> None:
        self.told: dict[Key, list[tuple[Any, ...]]] = defaultdict(list)

    def event(self, event: StreamEvent) -> None:
        data = tuple(sorted((name, _plain(value)) for name, value in event.data.items()))
        self.told[key_of(event.stream)].append(
            (event.kind, event.position, event.time_ns, round(event.duration_s, 6), data)
        )


def _plain(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else str(value)


class _Frames:
    """Frames by the stream that they are of."""

    def __init__(self) -> None:
        self.whose: dict[int, StreamInfo] = {}
        self.kept: dict[int, list[tuple[int, bytes, bytes]]] = defaultdict(list)

    def __call__(self, frames: FrameBatch) -> None:
        for i, row in enumerate(frames.row.tolist()):
            one = int(frames.position[i]), frames.samples[i].tobytes(), frames.real[i].tobytes()
            self.kept[self.whose[row].serial].append(one)

    def started(self, stream: StreamInfo) -> None:
        self.whose[stream.index] = stream


class Listeners:
    """``variant`` chooses their options; all variants together have all of them."""

    def __init__(self, variant: int, directory: Path) -> None:
        wav = sinks.WavSink
        self._frames = _Frames()
        self.ears = _Ears()
        self._array = sinks.ArraySink(conceal=variant == 1, mute_keys=variant == 2)
        self._directory = directory
        if variant == 0:
            self._wavs = [wav(directory / "split"), wav(directory / "stereo", layout="stereo")]
        elif variant == 1:
            self._wavs = [
                wav(directory / "native", encoding="native"),
                wav(directory / "conceal", layout="stereo", conceal=True, rate=16_000),
            ]
        else:
            self._wavs = [
                wav(directory / "muted", mute_keys=True, conceal=True),
                wav(directory / "raw", layout="stereo", drift_correction=False),
            ]
        frames = sinks.FrameSink(
            self._frames, 320, None, (16_000, 8000, 16_000)[variant], "int16", on_started=self._frames.started
        )
        listening: list[Any] = [sinks.LevelMeter(), sinks.QualityMeter(), sinks.SpeechMeter(), sinks.DtmfDetector()]
        listening += [sinks.ToneDetector(), sinks.Spectrum(max_bytes=16 << 20)]
        if variant == 2:
            listening = [*listening[:2], sinks.MutedSink(listening[2:])]
        self.sinks: list[Any] = [self.ears, self._array, *self._wavs, frames, *listening]

    def of(self, stream: StreamInfo) -> dict[str, Any]:
        """All that became of a stream, to be compared."""
        view = self._array.get(stream)
        return {
            "array": (view.position, view.rate, view.samples.tobytes(), view.marks.tobytes()),
            "frames": self._frames.kept[stream.serial],
            "events": sorted(self.ears.told[key_of(stream)], key=repr),
            **{
                f"wav {wav.directory.name}": [(wav.directory / name).read_bytes() for name in wav.files(stream)]
                for wav in self._wavs
            },
        }

    def durations(self) -> dict[Path, float]:
        """Of every file, in seconds, as its header tells."""
        return {path: _seconds(path) for path in self._directory.rglob("*.wav")}

    def stereo(self, stream: StreamInfo) -> list[Path]:
        return [wav.directory / name for wav in self._wavs for name in wav.files(stream)]


def _seconds(path: Path) -> float:
    with path.open("rb") as file:
        head = file.read(256)
    (bytes_a_second,) = struct.unpack_from("<I", head, head.index(b"fmt ") + 16)
    return path.stat().st_size / bytes_a_second
