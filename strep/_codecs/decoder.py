"""What a decoder is: one object for each stream, which makes samples of payloads and makes up for lost ones.

Packet n's samples are those that the decoder returns for packet n: nothing is held back, so nothing shifts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.exceptions import MissingExtraError
from .._model.types import Codec
from .facts import bound, codec_facts

__all__ = ["Decoder", "available", "installed", "make_decoder"]

I16 = npt.NDArray[np.int16]

_CONCEALED_S: Final = 1.0  # seconds; longer gaps are not concealed


class Decoder(ABC):
    """Decodes the packets of one stream in order. Make another one when the source restarts."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.corrupt = 0  # payloads that could not be decoded, or not as a whole

    @classmethod
    def installed(cls, codec: Codec) -> bool:
        """Whether what it needs seems to be there. Looks, but does not load it."""
        return True

    @classmethod
    def available(cls, codec: Codec) -> bool:
        """Whether what it needs can be loaded."""
        return cls.installed(codec)

    def decode(self, payload: bytes, frames: int, lost_frames: int = 0) -> tuple[I16, I16 | None]:
        """Samples of a packet, int16 (frames * channels,), and samples for what is missing right before it.

        ``frames``: sample frames that the payload stands for (:func:`.counts.frame_counts`). What the decoder makes is
        cut or filled up with zeros to that length; a corrupt payload becomes zeros, counted in ``corrupt``.
        ``lost_frames``: sample frames missing between the packet before and this one. The second value is int16
        (lost_frames * channels,), or None: if nothing is missing, if it is more than a second, or if the codec conceals
        nothing. Where the sender suppressed silence (AMR and G.729 after a silence descriptor, opus after DTX), it is
        comfort noise. Accepts any bytes.
        """
        concealed = None
        if 0 < lost_frames <= _CONCEALED_S * self.codec.sample_rate:
            concealed = self._conceal(payload, lost_frames)
            if concealed is not None:
                concealed = _fit(concealed, lost_frames * self.codec.channels)
        audio, sound = self._decode(payload)
        wanted = frames * self.codec.channels
        self.corrupt += not sound or audio.size != wanted
        return _fit(audio, wanted), concealed

    @abstractmethod
    def _decode(self, payload: bytes) -> tuple[I16, bool]:
        """Samples, and whether all of the payload was sound."""

    def _conceal(self, following: bytes, frames: int) -> I16 | None:
        """Samples for ``frames`` sample frames that are missing before ``following``; None: the codec has no way."""
        return None


def make_decoder(codec: Codec) -> Decoder:
    """A decoder for one stream.

    Raises MissingExtraError if what decodes the codec is not installed, ValueError if the codec is not packed.
    """
    row = codec_facts(codec)
    if not row.packed:
        raise ValueError(f"{codec} is not packed")
    decoder: type[Decoder] = bound(row.decoder)
    if not decoder.available(codec):
        raise MissingExtraError(f"{codec} is decoded by {row.decoded_by}: {row.install}")
    return decoder(codec)


def installed(codec: Codec) -> bool:
    """Whether what decodes a packed codec seems to be there. Looks, but loads nothing; False for others."""
    row = codec_facts(codec)
    return row.packed and bool(bound(row.decoder).installed(codec))


def available(codec: Codec) -> bool:
    """Whether a packed codec can be decoded with what is installed; False for others."""
    row = codec_facts(codec)
    return row.packed and bool(bound(row.decoder).available(codec))


def _fit(samples: I16, size: int) -> I16:
    if samples.size == size:
        return samples
    out = np.zeros(size, np.int16)
    out[: samples.size] = samples[:size]
    return out
