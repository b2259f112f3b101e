"""The detector of one stream says what the detector of many streams says."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st

import strep
from strep._speech.energy import EnergyVoice
from strep.sinks.analysis.frame_batch import FrameBatch
from strep.sinks.analysis.vad import EnergyDetector, levels_of

DATA = Path(strep.__file__).parent / "data"
FRAME = 160
ROW = np.zeros(1, np.int64)


def voice(name: str) -> np.ndarray:
    with wave.open(str(DATA / name)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def compare(audio: np.ndarray, received: np.ndarray) -> int:
    """How many frames are speech; both detectors agree about each, but for those within rounding of a threshold."""
    one, many = EnergyVoice(), EnergyDetector()
    many.grow(1)
    many.reset(0)
    scratch = np.zeros(FRAME, np.float32)
    speech = 0
    for k, share in enumerate(received[: len(audio) // FRAME].tolist()):
        samples = audio[k * FRAME : (k + 1) * FRAME]
        batch = FrameBatch(
            ROW, ROW + k * FRAME, samples[None], np.array([share], np.float32),
            rate=8000, origin_ns=ROW, infos=[], pick=None,
        )  # fmt: skip
        (level,) = levels_of([batch], scratch)
        surely, enough, wrong = many.judge(batch, ROW, level)
        verdict = one.judge(samples, share)
        assert verdict.level == pytest.approx(float(level[0]), abs=0.01)
        assert (verdict.surely, verdict.enough, verdict.mistaken) == (
            bool(surely[0]),
            bool(enough[0]),
            wrong is not None,
        )
        speech += verdict.surely
    return speech


@pytest.mark.parametrize("name", ["caller.wav", "agent.wav"])
@pytest.mark.parametrize("noise", [0, 30, 300])
def test_on_voices(name: str, noise: int) -> None:
    rng = np.random.default_rng(noise)
    audio = np.tile(voice(name), 3)
    audio = np.clip(audio + rng.normal(0, noise or 0.01, len(audio)), -32_768, 32_767).astype(np.int16)
    received = np.where(rng.random(len(audio) // FRAME) < 0.03, 0.2, 1.0)
    assert compare(audio, received) > 50


@settings(max_examples=usual_or_slow(25, 300))
@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 60)), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_on_noise_of_any_level(levels: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(0, 32_768 * 10 ** (-level / 20), count * FRAME) for level, count in levels]
    audio = np.clip(np.concatenate(parts), -32_768, 32_767).astype(np.int16)
    compare(audio, np.ones(len(audio) // FRAME))
