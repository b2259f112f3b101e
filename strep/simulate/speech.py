"""The two voices that come with the package: synthetic, 8 kHz, a caller and an agent who talk in turn."""

from __future__ import annotations

import wave
from importlib import resources
from os import PathLike

import numpy as np
import numpy.typing as npt

from .._exceptions import ConfigurationError
from ..resample import resample

__all__ = ["bundled_voices", "read_wav"]

I16 = npt.NDArray[np.int16]


def bundled_voices(rate: int = 8000) -> tuple[I16, I16]:
    """Caller and agent, int16 (n,), of the same length."""
    voices = []
    for name in ("caller", "agent"):
        with resources.as_file(resources.files("strep") / "data" / f"{name}.wav") as path:
            voices.append(read_wav(path, rate))
    return voices[0], voices[1]


def read_wav(path: str | PathLike[str], rate: int) -> I16:
    """The first channel of a 16-bit PCM WAV file at ``rate``. Raises ConfigurationError for others."""
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                raise ConfigurationError(f"{path}: {8 * file.getsampwidth()}-bit samples; give a 16-bit PCM WAV file")
            data = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
            channels, own_rate = file.getnchannels(), file.getframerate()
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigurationError(f"{path}: cannot be read as a WAV file ({error})") from error
    samples = data[::channels]
    if not samples.size:
        raise ConfigurationError(f"{path}: has no samples")
    return samples if own_rate == rate else np.asarray(resample(samples, own_rate, rate))
