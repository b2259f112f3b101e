"""Resampling: the same however it is cut, as long as it should be, true to the signal, as late as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strep
from strep import Resampler
from strep.resample import resample

RATES = [8000, 16_000, 24_000, 48_000, 44_100]
PAIRS = [(a, b) for a in RATES for b in RATES if a != b]


def tone(hz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return (12_000 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(PAIRS),
    st.sampled_from(["int16", "float32"]),
    st.sampled_from([1, 2]),
    st.lists(st.integers(0, 700), max_size=8),
    st.integers(0, 1 << 30),
)
def test_the_cut_does_not_matter(pair: tuple[int, int], dtype: str, channels: int, cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    total = sum(cuts) + 50
    samples = rng.integers(-32_768, 32_768, (total, channels)).astype(dtype)
    samples = samples[:, 0] if channels == 1 else samples
    whole = resample(samples, *pair)
    resampler = Resampler(*pair, channels=channels, dtype=dtype)
    parts, at = [], 0
    for size in [*cuts, total]:
        parts.append(resampler.process(samples[at : at + size]))
        at = min(at + size, total)
        # no more is held back than the look-ahead that is promised
        assert sum(map(len, parts)) >= (at - resampler.lookahead) * pair[1] // pair[0] - 1
    parts.append(resampler.flush())
    again = np.concatenate(parts)
    assert again.dtype == np.dtype(dtype)
    assert len(again) == -(-total * pair[1] // pair[0])
    np.testing.assert_array_equal(again, whole)


@pytest.mark.parametrize(("rate_in", "rate_out"), PAIRS)
@pytest.mark.parametrize("hz", [300, 1000, 3300])
def test_tones_keep_level_frequency_and_place(rate_in: int, rate_out: int, hz: float) -> None:
    out = resample(tone(hz, rate_in), rate_in, rate_out)
    wanted = tone(hz, rate_out)[: len(out)]
    middle = slice(rate_out // 20, -rate_out // 20)
    error = np.abs(out[: len(wanted)][middle] - wanted[middle]).max()
    assert error < 0.005 * 12_000  # -46 dB: level, frequency and delay at once


@pytest.mark.parametrize("hz", [4600, 5500, 7500])
def test_what_would_alias_is_gone(hz: float) -> None:
    out = resample(tone(hz, 16_000), 16_000, 8000)
    assert np.abs(out[400:-400]).max() < 12_000 * 10 ** (-55 / 20)


def test_int16_saturates() -> None:
    square = np.where(np.arange(800) // 20 % 2, 32_767, -32_768).astype(np.int16)
    out = resample(square, 8000, 16_000).astype(np.int64)
    assert out.max() == 32_767
    assert out.min() == -32_768


def test_delay_is_told() -> None:
    assert Resampler(8000, 16_000).delay_ms == 2.0
    assert Resampler(16_000, 8000).delay_ms == 2.0
    assert Resampler(8000, 8000).lookahead == 0


@pytest.mark.parametrize(("rate_in", "rate_out"), [(0, 8000), (8000, -1), (8000, 44_101)])
def test_rates_that_cannot_be(rate_in: int, rate_out: int) -> None:
    with pytest.raises(strep.ConfigurationError):
        Resampler(rate_in, rate_out)
    with pytest.raises(strep.ConfigurationError, match="dtype"):
        Resampler(8000, 16_000, dtype="int32")  # type: ignore[arg-type]
