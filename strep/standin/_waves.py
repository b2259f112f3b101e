"""Samples: of files, in place of speech, and as clips. Pure, but for the library that decodes."""

from __future__ import annotations

import io
import wave
import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError, MissingExtraError
from .._model.extras import install
from .._model.types import Codec
from ..resample import resample
from ._playlist import Clip

__all__ = ["I16", "decode_file", "to_clip", "tone_of"]

I16 = npt.NDArray[np.int16]

_LONGEST_S: Final = 600.0  # of a file; what is beyond is not heard
_TONE_S_A_LETTER: Final = 0.06  # as fast as people speak
_LONGEST_TONE_S: Final = 60.0
_LOWEST_HZ: Final = 300
_HIGHEST_HZ: Final = 1300
_LOUDNESS: Final = 8000


def tone_of(text: str, rate: int) -> I16:
    """Stands for a text where nothing can speak: a tone as long as the text, 300 to 1300 Hz, the same for the same one.
    int16 (n,) at ``rate``; it rises and falls within 10 ms."""
    seconds = min(max(len(text) * _TONE_S_A_LETTER, 0.1), _LONGEST_TONE_S)
    pitch = _LOWEST_HZ + zlib.crc32(text.encode("utf-8", "replace")) % (_HIGHEST_HZ - _LOWEST_HZ)
    time = np.arange(round(seconds * rate)) / rate
    edge = np.minimum(1.0, np.minimum(time, time[::-1]) / 0.01)
    tone: I16 = np.rint(_LOUDNESS * edge * np.sin(2 * np.pi * pitch * time)).astype(np.int16)
    return tone


def to_clip(samples: I16, codec: Codec, frames: int) -> Clip:
    """Whole packets of ``frames`` of them, int16 (n,), the same in each channel; silence fills the last one."""
    packets = -(-len(samples) // frames)
    whole = np.pad(samples, (0, packets * frames - len(samples)))
    if codec.channels > 1:
        whole = np.repeat(whole, codec.channels)
    return Clip(whole.reshape(packets, -1), packets * frames * 1_000_000_000 // codec.sample_rate)


def decode_file(data: bytes, rate: int) -> I16:
    """A WAV or MP3 file as one channel, int16 (n,) at ``rate``; 10 minutes of it at most.

    16-bit PCM needs nothing; other files PyAV. Raises ConfigurationError for what is no sound, MissingExtraError.
    """
    samples = _pcm16(data, rate)
    return _by_libav(data, rate) if samples is None else samples


def _pcm16(data: bytes, rate: int) -> I16 | None:
    try:
        with wave.open(io.BytesIO(data), "rb") as file:
            if (
                file.getsampwidth() != 2
                or not 1 <= file.getnchannels() <= 8
                or not 4000 <= file.getframerate() <= 192_000
            ):
                return None
            channels, own_rate = file.getnchannels(), file.getframerate()
            # a file that was written into a pipe says that it is longer than it is
            pcm = file.readframes(min(file.getnframes(), round(_LONGEST_S * own_rate), len(data)))
    except (EOFError, wave.Error):
        return None
    frames = np.frombuffer(pcm[: len(pcm) // (2 * channels) * 2 * channels], "<i2").reshape(-1, channels)
    mono = np.rint(frames.mean(axis=1)).astype(np.int16) if channels > 1 else frames[:, 0].astype(np.int16)
    return mono if own_rate == rate or not mono.size else np.asarray(resample(mono, own_rate, rate), np.int16)


def _by_libav(data: bytes, rate: int) -> I16:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(f"MP3, and WAV that is not 16-bit PCM, need PyAV: {install('codecs')}") from error
    parts: list[I16] = []
    left = round(_LONGEST_S * rate)
    container: Any
    try:
        with av.open(io.BytesIO(data)) as container:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
            for frame in container.decode(audio=0):
                for piece in resampler.resample(frame):
                    parts.append(_samples(piece))
                    left -= len(parts[-1])
                if left <= 0:
                    break
            else:
                parts += [_samples(piece) for piece in resampler.resample(None)]
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise ConfigurationError(f"no WAV or MP3 file: {error}") from None
    return np.concatenate(parts)[: round(_LONGEST_S * rate)] if parts else np.zeros(0, np.int16)


def _samples(frame: Any) -> I16:
    return np.asarray(frame.to_ndarray().reshape(-1), np.int16)
