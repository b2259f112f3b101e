"""Voices for simulated calls: the two that come with the package (synthetic, 8 kHz, a caller and an agent who take
turns), or those of a WAV file."""

from __future__ import annotations

import wave
from importlib import resources
from os import PathLike

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError
from ..resample import resample

__all__ = ["bundled_voices", "read_voices", "read_wav"]

I16 = npt.NDArray[np.int16]


def bundled_voices(rate: int = 8000) -> tuple[I16, I16]:
    """Caller and agent at ``rate`` Hz, int16 (n,), of the same length. Raises ConfigurationError for too odd a rate."""
    voices = []
    for name in ("caller", "agent"):
        with resources.as_file(resources.files("strep") / "data" / f"{name}.wav") as path:
            voices.append(read_wav(path, rate))
    return voices[0], voices[1]


def read_voices(path: str | PathLike[str], rate: int) -> tuple[I16, I16]:
    """Both directions of a call at ``rate`` Hz, int16 (n,), from a 16-bit PCM WAV file.

    The left channel is inbound, the right one outbound; a mono file is both. Raises ConfigurationError for other files.
    """
    channels = _read(path, rate)
    return channels[0], channels[min(1, len(channels) - 1)]


def read_wav(path: str | PathLike[str], rate: int) -> I16:
    """The first channel of a 16-bit PCM WAV file at ``rate`` Hz, int16 (n,). Raises ConfigurationError for others."""
    return _read(path, rate)[0]


def _read(path: str | PathLike[str], rate: int) -> list[I16]:
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                raise ConfigurationError(f"{path}: {8 * file.getsampwidth()}-bit samples; give a 16-bit PCM WAV file")
            channels, own_rate = file.getnchannels(), file.getframerate()
            data = np.frombuffer(file.readframes(file.getnframes()), np.uint8)
    except (OSError, EOFError, wave.Error, RuntimeError) as error:  # RuntimeError: a chunk that goes beyond the file
        raise ConfigurationError(f"{path}: cannot be read as a 16-bit PCM WAV file ({error})") from error
    # a file that was cut off may end inside a frame
    samples = data[: data.size // (2 * channels) * 2 * channels].view("<i2").astype(np.int16).reshape(-1, channels)
    if not samples.size:
        raise ConfigurationError(f"{path}: has no samples")
    columns = [np.ascontiguousarray(samples[:, c]) for c in range(channels)]
    return columns if own_rate == rate else [np.asarray(resample(c, own_rate, rate), np.int16) for c in columns]
