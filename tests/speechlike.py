"""An hour of what must not be taken for digits or tones: voices at many speeds, pitches and levels, chords, a choir."""

from __future__ import annotations

import shutil
import subprocess
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lazily import Lazily

import strep

signal = Lazily("scipy.signal")

RATE = 8000
DATA = Path(strep.__file__).parent / "data"
TEXTS = (
    "The quick brown fox jumps over the lazy dog while she sells sea shells by the sea shore, you know.",
    "Ooh, who knew? Too few new blue moons; we see three bees, eighteen queens and some seals in the deep green sea.",
    "My number is eight seven six, five four three, two one zero. Please hold the line; your call is important to us.",
)
VOICES = ("en-us+f3", "en-us+m3", "en-gb+f5", "de+f2", "fr+m7", "es+f4", "en-us+whisper", "it+f1")

F32 = npt.NDArray[np.float32]


def _read(path: Path) -> F32:
    with wave.open(str(path)) as file:
        rate, raw = file.getframerate(), file.readframes(file.getnframes())
    audio = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
    return audio if rate == RATE else signal.resample_poly(audio, RATE, rate).astype(np.float32)


def _espoken(directory: Path) -> Iterator[F32]:
    if not shutil.which("espeak-ng"):
        return
    for n, voice in enumerate(VOICES):
        for pitch in (20, 50, 80, 99):
            path = directory / "voice.wav"
            command = ["espeak-ng", "-v", voice, "-s", str(140 + 10 * n), "-p", str(pitch), "-w", str(path)]
            subprocess.run([*command, TEXTS[(n + pitch) % len(TEXTS)]], check=True, capture_output=True)
            yield _read(path)


def chords(seconds: int, seed: int) -> F32:
    """Three to five notes with harmonics, decaying; a second each at most: what music on hold is made of."""
    rng = np.random.default_rng(seed)
    out: list[F32] = []
    count = 0
    while count < seconds * RATE:
        n = int(rng.uniform(0.1, 1.0) * RATE)
        t = np.arange(n) / RATE
        root = 110 * 2 ** (rng.integers(0, 36) / 12)
        x = np.zeros(n)
        for interval in rng.choice([0, 3, 4, 7, 9, 12, 16, 19], rng.integers(3, 6), replace=False):
            for harmonic in range(1, 7):
                f = root * 2 ** (interval / 12) * harmonic
                if f < 3600:
                    x += np.sin(2 * np.pi * f * t + rng.uniform(0, 6.3)) / harmonic ** rng.uniform(0.8, 2.0)
        x *= np.exp(-t * rng.uniform(0.5, 6.0))
        out.append((x / np.abs(x).max()).astype(np.float32))
        count += n
    return np.concatenate(out)[: seconds * RATE]


def hour(directory: Path, *, streams: int = 60, seconds: int = 60, seed: int = 4733) -> npt.NDArray[np.int16]:
    """int16, (streams, seconds · 8000): each stream other voices, speeds and levels; the same in every run."""
    rng = np.random.default_rng(seed)
    voices = [_read(DATA / "caller.wav"), _read(DATA / "agent.wav"), *_espoken(directory)]
    out = np.zeros((streams, seconds * RATE), np.int16)
    for row in range(streams):
        if row % 10 == 9:
            audio = chords(seconds, seed + row) * 10 ** (rng.uniform(-25, -6) / 20)
        else:
            parts: list[F32] = []
            while sum(map(len, parts)) < seconds * RATE:
                voice = voices[(row + len(parts) * 7) % len(voices)]
                # speed and pitch together: from a slow bass to a child
                part = signal.resample_poly(voice, 100, int(rng.integers(70, 160))).astype(np.float32)
                parts.append(part * np.float32(10 ** (rng.uniform(-20, 3) / 20)))
            audio = np.concatenate(parts)[: seconds * RATE]
        out[row] = np.clip(np.rint(audio * 32768), -32768, 32767)
    return out
