"""What an encoder is: one object for each stream, which makes payloads of samples. For simulations and tests."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError
from .._model.types import Codec
from .facts import CODECS, CodecFacts, bound, codec_facts

__all__ = ["Encoder", "make_encoder"]

I16 = npt.NDArray[np.int16]


class Encoder(ABC):
    """Encodes the packets of one stream in order, ``frames`` sample frames each.

    ``fec``: packets carry copies of their predecessors. ``dtx``: silence is suppressed. Encoders that have no such
    thing ignore it.
    """

    def __init__(self, codec: Codec, frames: int, *, fec: bool = False, dtx: bool = False) -> None:
        self.codec = codec
        self.frames = frames

    def encode(self, samples: I16) -> bytes:
        """The payload of a packet. ``samples``: int16 (frames * channels,), channels interleaved.

        Empty if the codec suppresses the packet (DTX). Raises ConfigurationError for another number of samples.
        """
        if samples.size != self.frames * self.codec.channels:
            raise ConfigurationError(
                f"{samples.size} samples: this encoder takes {self.frames} times {self.codec.channels}"
            )
        return self._encode(np.ascontiguousarray(samples, np.int16).reshape(-1))

    @abstractmethod
    def _encode(self, samples: I16) -> bytes: ...


def make_encoder(codec: Codec, frames: int, *, fec: bool = False, dtx: bool = False) -> Encoder:
    """An encoder for packets of ``frames`` sample frames at the codec's ``sample_rate``.

    ``fec``: opus packets carry copies of their predecessors (in-band FEC). ``dtx``: silence is suppressed (AMR, opus,
    and G.729 in packets of 10 ms). AMR is packed as the codec's octet-align says, bandwidth-efficient by default.
    Raises ConfigurationError for lengths that the codec does not have and for codecs that nothing here encodes;
    MissingExtraError if PyAV or the library is missing.
    """
    row = codec_facts(codec)
    if not row.packed:
        raise ConfigurationError(f"{codec} is not packed: strep._codecs.g711 encodes it")
    if not _is_packet(row, frames):
        raise ConfigurationError(f"{codec} in packets of {frames} samples: choose {_packets(row)}")
    if fec and not row.error_correction:
        having = ", ".join(r.name for r in CODECS.values() if r.error_correction)
        raise ConfigurationError(f"{codec} has no forward error correction: {having} has")
    if not row.encoder:
        having = ", ".join(r.name for r in CODECS.values() if r.encoder)
        raise ConfigurationError(f"nothing here encodes {codec}: choose one of {having}")
    encoder: Encoder = bound(row.encoder)(codec, frames, fec=fec, dtx=dtx)
    return encoder


def _is_packet(row: CodecFacts, frames: int) -> bool:
    """Whether packets may be that long, in sample frames."""
    if len(row.encoded_frames) > 1:
        return frames in row.encoded_frames
    return frames >= 1 and frames % row.encoded_frames[0] == 0


def _packets(row: CodecFacts) -> str:
    if len(row.encoded_frames) == 1:
        return f"multiples of {row.encoded_frames[0]}"
    *most, last = (f"{1000 * frames / row.codec.sample_rate:g}" for frames in row.encoded_frames)
    return f"{', '.join(most)} or {last} ms"
