"""Levels against what was put in, and the active speech level against ITU-T P.56 written down sample by sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from block_batches import Part, batch_of_blocks, stream
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st

from strep.simulate.speech import bundled_voices
from strep.sinks import LevelMeter


def p56(samples: np.ndarray, rate: int) -> tuple[float, float]:
    """ITU-T P.56 (method B) as its clause 6 has it: active level in dBFS and activity; -120, 0 when there is none."""
    g = np.exp(-1 / (rate * 0.03))
    hangover = round(0.2 * rate)
    c = [2.0 ** (j - 15) for j in range(15)]
    a, h = [0] * 15, [hangover] * 15
    p = q = square = 0.0
    for x in (samples / 32_768).tolist():
        square += x * x
        p = g * p + (1 - g) * abs(x)
        q = g * q + (1 - g) * p
        for j in range(15):
            if q >= c[j]:
                a[j] += 1
                h[j] = 0
            elif h[j] < hangover:
                a[j] += 1
                h[j] += 1
    over = lower = 0.0
    for j in range(15):
        if not a[j]:
            break
        level = 10 * np.log10(square / a[j])
        delta = level - 20 * np.log10(c[j]) - 15.9
        if delta <= 0:
            if not j:
                break
            level = lower + over / (over - delta) * (level - lower)
            return level, 10 ** (10 * np.log10(square / len(samples)) / 10 - level / 10)
        over, lower = delta, level
    return -120.0, 0.0


def metered(samples: np.ndarray, rate: int = 8000, cut: int = 800, **options: Any) -> dict[str, float]:
    meter = LevelMeter(**options)
    info = stream(3, rate)
    meter.stream_started(info)
    for at in range(0, len(samples), cut):
        meter.blocks(batch_of_blocks([Part(info, at, 0, samples[at : at + cut])]))
    meter.stream_ended(info, None)  # type: ignore[arg-type]
    columns = meter.levels()
    found: dict[str, float] = meter.figures(info)["level"]
    for name, value in found.items():
        assert columns[name][0] == pytest.approx(value, abs=0.006)
    return found


def gated(dbfs: float, on_s: float, off_s: float, seconds: float, rate: int = 8000) -> np.ndarray:
    rng = np.random.default_rng(1)
    t = np.arange(round(seconds * rate)) / rate
    noise = rng.normal(0, 32_768 * 10 ** (dbfs / 20), len(t)) * (t % (on_s + off_s) < on_s)
    return np.clip(np.rint(noise), -32_768, 32_767).astype(np.int16)


@pytest.mark.parametrize("rate", [8000, 16_000])
@pytest.mark.parametrize(
    ("dbfs", "on_s", "off_s"), [(-26, 1.5, 1.5), (-26, 0.3, 0.5), (-45, 1, 2), (-12, 0.1, 0.05), (-70, 1, 0.3)]
)
def test_the_active_level_is_that_of_p56(rate: int, dbfs: float, on_s: float, off_s: float) -> None:
    samples = gated(dbfs, on_s, off_s, 3, rate)
    found = metered(samples, rate)
    level, activity = p56(samples, rate)
    assert found["speech_dbfs"] == pytest.approx(level, abs=0.05)
    assert found["activity"] == pytest.approx(activity, abs=0.005)


def test_the_active_level_of_voices_is_that_of_p56() -> None:
    for voice in bundled_voices():
        samples = voice[: 6 * 8000]
        level, activity = p56(samples, 8000)
        found = metered(samples)
        assert found["speech_dbfs"] == pytest.approx(level, abs=0.05)
        assert found["activity"] == pytest.approx(activity, abs=0.01)
        assert 0.1 < found["activity"] < 1


def test_pauses_do_not_lower_the_active_level() -> None:
    # pauses of 3 s; the hangover of 0.2 s and the envelope's decay count as active
    found = metered(gated(-26, 3, 3, 30))
    assert found["rms_dbfs"] == pytest.approx(-29, abs=0.1)
    assert found["speech_dbfs"] == pytest.approx(-26, abs=0.5)
    assert found["activity"] == pytest.approx(0.5, abs=0.06)
    assert found["silent_s"] == pytest.approx(15, abs=0.2)
    steady = metered(gated(-20, 30, 0, 30))
    assert steady["speech_dbfs"] == pytest.approx(-20, abs=0.1)
    assert steady["activity"] > 0.98


def test_silence_has_no_active_level() -> None:
    found = metered(np.zeros(8000, np.int16))
    assert (found["speech_dbfs"], found["activity"], found["rms_dbfs"]) == (-120, 0, -120)


@settings(max_examples=usual_or_slow(5, 40), deadline=None)
@given(st.integers(usual_or_slow(25, 1), 2000), st.booleans())  # samples at a time
def test_the_cut_does_not_matter(cut: int, active: bool) -> None:
    samples = gated(-20, 0.5, 0.5, 2) + np.int16(300)
    one, other = metered(samples, cut=8000, active_level=active), metered(samples, cut=cut, active_level=active)
    for name in one:
        assert one[name] == pytest.approx(other[name], abs=0.011), name
    assert (one["speech_dbfs"] > -120) == active


def test_a_constant_is_told() -> None:
    samples = gated(-40, 1, 0, 2) + np.int16(1000)
    assert metered(samples)["dc_offset"] == pytest.approx(1000 / 32_768, abs=2e-4)
    assert metered(samples, cut=777)["dc_offset"] == pytest.approx(1000 / 32_768, abs=2e-4)


@pytest.mark.parametrize("together", [True, False])
def test_streams_of_several_rates_at_once(together: bool) -> None:
    infos = [stream(n, (8000, 16_000, 8000)[n % 3]) for n in range(30)]
    audio = [gated(-20 - n, 0.4, 0.2, 2, info.sample_rate) for n, info in enumerate(infos)]
    meter = LevelMeter()
    for info in infos:
        meter.stream_started(info)
    for tick in range(20):
        parts = []
        for info, samples in zip(infos, audio, strict=True):
            n = info.sample_rate // 10
            parts.append(Part(info, tick * n, 0, samples[tick * n : tick * n + n]))
        for some in [parts] if together else [[p] for p in parts]:
            meter.blocks(batch_of_blocks(some))
    columns = meter.levels()
    for n, (info, samples) in enumerate(zip(infos, audio, strict=True)):
        alone = metered(samples, info.sample_rate)
        assert columns["speech_dbfs"][n] == pytest.approx(alone["speech_dbfs"], abs=0.02)
        assert columns["rms_dbfs"][n] == pytest.approx(alone["rms_dbfs"], abs=0.02)
        assert columns["peak_dbfs"][n] == pytest.approx(20 * np.log10(np.abs(samples.astype(int)).max() / 32_768))


def test_gaps_count_nowhere_and_runs_of_silence_go_on_over_blocks() -> None:
    info = stream(0)
    meter = LevelMeter()
    meter.stream_started(info)
    loud, quiet = np.full(160, 8000, np.int16), np.zeros(160, np.int16)
    parts = [Part(info, n * 320, 160 if n else 0, s) for n, s in enumerate([quiet, loud, quiet, quiet])]
    meter.blocks(batch_of_blocks(parts[:1]))
    levels = meter.snapshot(info)
    assert levels is not None
    assert levels.silence_now_s == pytest.approx(0.02)
    meter.blocks(batch_of_blocks(parts[1:]))
    levels = meter.snapshot(info)
    assert levels is not None
    assert levels.silence_now_s == pytest.approx(0.04)
    assert (levels.silent_s, levels.active_s) == (pytest.approx(0.06), pytest.approx(0.02))
    assert levels.rms_dbfs == pytest.approx(20 * np.log10(8000 / 32_768) - 10 * np.log10(4))
