"""Comfort noise as RFC 3389 has it: level, spectrum, chance only from the caller."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import toeplitz

from strep._codecs.comfort import comfort_noise, level_rms, reflection_coefficients


def noise(payload: bytes, frames: int = 80_000, rate: int = 8000, seed: int = 1) -> np.ndarray:
    return comfort_noise(payload, frames, rate, np.random.default_rng(seed)).astype(np.float64)


def test_levels_are_below_the_square_wave_of_overload() -> None:
    """RFC 3389 3.1: 0 dBov is a square wave as large as samples can be; its RMS is its amplitude."""
    square = np.tile([32_767, -32_768], 100).astype(np.float64)
    assert level_rms(b"\x00") == pytest.approx(np.sqrt(np.mean(square**2)), rel=1e-4)
    assert level_rms(bytes([20])) == pytest.approx(3276.8)
    assert level_rms(bytes([0x80 | 20])) == level_rms(bytes([20]))  # the top bit is not of the level
    assert level_rms(b"") == 0


@pytest.mark.parametrize("level", [20, 40, 60, 80])
@pytest.mark.parametrize("spectrum", [b"", bytes([127] * 4), bytes([30, 140, 127, 120]), bytes([240, 90])])
def test_noise_is_as_loud_as_told_whatever_its_spectrum(level: int, spectrum: bytes) -> None:
    got = np.sqrt(np.mean(noise(bytes([level]) + spectrum) ** 2))
    rounded = np.sqrt(level_rms(bytes([level])) ** 2 + 1 / 12)  # of whole numbers
    assert 20 * np.log10(got / rounded) == pytest.approx(0, abs=0.3)


def test_coefficients_by_hand() -> None:
    """RFC 3389 3.2: k = 258 (N - 127) / 32768."""
    assert reflection_coefficients(bytes([30, 127, 0, 254])).tolist() == [0, -258 * 127 / 32_768, 258 * 127 / 32_768]
    assert np.abs(reflection_coefficients(bytes(range(1, 200)))).max() < 1
    assert len(reflection_coefficients(bytes(200))) == 16
    assert abs(reflection_coefficients(b"\x00\xff")[0]) < 1


@pytest.mark.parametrize("codes", [[40, 150, 127, 100], [200], [60, 180, 110, 140, 120, 130]])
def test_the_spectrum_is_that_of_the_coefficients(codes: list[int]) -> None:
    """Levinson's recursion over the noise gives them back."""
    samples = noise(bytes([20, *codes]), 400_000)
    r = np.array([np.mean(samples[: len(samples) - lag] * samples[lag:]) for lag in range(len(codes) + 1)])
    wanted = reflection_coefficients(bytes([20, *codes]))
    for order in range(1, len(codes) + 1):
        predictor = np.linalg.solve(toeplitz(r[:order]), -r[1 : order + 1])
        assert predictor[-1] == pytest.approx(wanted[order - 1], abs=0.02)


def test_low_codes_are_low_noise() -> None:
    low, high = noise(bytes([30, 40])), noise(bytes([30, 214]))
    assert np.mean(low[:-1] * low[1:]) > 0 > np.mean(high[:-1] * high[1:])


def test_at_16_khz_the_spectrum_stays_below_4_khz() -> None:
    samples = noise(bytes([30, 60, 130]), 64_000, 16_000)
    power = np.abs(np.fft.rfft(samples)) ** 2
    assert power[len(power) * 5 // 8 :].sum() < 0.01 * power.sum()
    assert 20 * np.log10(np.sqrt(np.mean(samples**2)) / level_rms(bytes([30]))) == pytest.approx(0, abs=0.5)


@given(payload=st.binary(max_size=30), frames=st.integers(0, 500), rate=st.sampled_from([8000, 16_000, 44_100]))
@settings(max_examples=100, deadline=None)
def test_any_bytes_make_noise_and_the_same_again(payload: bytes, frames: int, rate: int) -> None:
    once = comfort_noise(payload, frames, rate, np.random.default_rng(7))
    assert (once.dtype, once.shape) == (np.int16, (frames,))
    assert once.tolist() == comfort_noise(payload, frames, rate, np.random.default_rng(7)).tolist()
