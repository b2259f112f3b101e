"""libavcodec (FFmpeg) through PyAV: frames to samples, and samples to frames. PyAV is imported on first use."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from .._model.exceptions import MissingExtraError
from .._model.types import Codec
from .facts import codec_facts

__all__ = ["LibavDecoder", "LibavEncoder", "decoder_name", "is_installed"]

I16 = npt.NDArray[np.int16]


def is_installed() -> bool:
    """Whether PyAV seems to be there. Looks, but does not load it."""
    return find_spec("av") is not None


@lru_cache(maxsize=32)
def decoder_name(candidates: tuple[str, ...]) -> str | None:
    """The first of libavcodec's decoders that this build has; None if it has none of them, or without PyAV."""
    try:
        import av
    except ImportError:
        return None
    for candidate in candidates:
        try:
            av.Codec(candidate, "r")
        except ValueError:
            continue
        return candidate
    return None


class LibavDecoder:
    """A decoder of libavcodec that is fed frame by frame. ``bit_rate`` in bit/s, where the decoder must be told.

    Raises MissingExtraError if PyAV or its decoder is missing.
    """

    def __init__(self, codec: Codec, bit_rate: int | None = None) -> None:
        row = codec_facts(codec)
        name = decoder_name(row.av_decoders)
        if name is None:
            raise MissingExtraError(f"{codec} is decoded by {row.decoded_by}: {row.install}")
        import av

        context: Any = av.CodecContext.create(name, "r")
        context.sample_rate = codec.sample_rate
        context.layout = "mono" if codec.channels == 1 else "stereo"
        context.thread_count = 1
        if bit_rate is not None:
            context.bit_rate = bit_rate
        self._context = context
        self._packet: Any = av.Packet
        self._error = av.FFmpegError

    def feed(self, data: bytes) -> I16 | None:
        """Samples of a frame, int16, channels interleaved; None if the decoder refuses it."""
        if not data:
            return None  # libavcodec takes this for the end of the stream
        try:
            frames = self._context.decode(self._packet(data))
        except self._error:
            return None
        parts = [_int16(frame.to_ndarray(), frame.format.is_planar) for frame in frames]
        return np.concatenate(parts) if parts else None


def _int16(samples: npt.NDArray[Any], planar: bool) -> I16:
    flat = samples.T.reshape(-1) if planar else samples.reshape(-1)
    if flat.dtype != np.int16:
        flat = np.clip(np.rint(np.nan_to_num(flat) * 32_768), -32_768, 32_767)
    out: I16 = flat.astype(np.int16)
    return out


class LibavEncoder:
    """An encoder of libavcodec. ``name`` and ``options`` are libavcodec's, ``bit_rate`` in bit/s.

    Raises MissingExtraError if PyAV or its encoder is missing.
    """

    def __init__(self, codec: Codec, name: str, bit_rate: int | None, options: dict[str, str]) -> None:
        install = codec_facts(codec).install
        try:
            import av
        except ImportError as error:
            raise MissingExtraError(f"{codec} is encoded by PyAV: {install}") from error
        try:
            context: Any = av.CodecContext.create(name, "w")
        except ValueError as error:
            upgrade = install.replace("install", "install -U", 1)
            raise MissingExtraError(f"this PyAV lacks the encoder {name}: {upgrade}") from error
        self._rate = codec.sample_rate
        self._layout = "mono" if codec.channels == 1 else "stereo"
        self._frame: Any = av.AudioFrame
        self._position = 0  # sample frames so far
        context.sample_rate = codec.sample_rate
        context.layout = self._layout
        context.format = "s16"
        context.time_base = Fraction(1, codec.sample_rate)
        context.options = options
        if bit_rate is not None:
            context.bit_rate = bit_rate
        context.open()
        self._context = context

    def encode(self, samples: I16) -> list[bytes]:
        """The frames that these samples complete. ``samples``: int16, channels interleaved."""
        frame = self._frame.from_ndarray(samples.reshape(1, -1), format="s16", layout=self._layout)
        frame.sample_rate = self._rate
        frame.pts = self._position
        frame.time_base = self._context.time_base
        self._position += frame.samples
        return [bytes(packet) for packet in self._context.encode(frame)]
