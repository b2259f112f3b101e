"""Codecs whose payloads need a decoder: what they are called and their facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .._model.exceptions import ConfigurationError
from .._model.types import Codec

__all__ = ["FORMATS", "STATIC", "PackedFormat", "is_packed", "octet_aligned", "packed_codec"]


@dataclass(frozen=True, slots=True)
class PackedFormat:
    """Facts of a codec. Rates in Hz; ``frame`` is the sample frames of the codec's smallest frame, per channel."""

    name: str  # as it is registered for RTP
    clock_rate: int  # of RTP timestamps
    sample_rate: int  # of the audio
    frame: int
    channels: int = 1  # at most
    payload_type: int | None = None  # the static one of RFC 3551
    habit: int = 96  # the dynamic one that the simulator takes


FORMATS: Final = {
    f.name.upper(): f
    for f in (
        PackedFormat("G722", 8000, 16_000, 2, payload_type=9, habit=9),  # RFC 3551 4.5.2: the clock is an old mistake
        PackedFormat("G729", 8000, 8000, 80, payload_type=18, habit=18),  # RFC 3551 4.5.6
        PackedFormat("opus", 48_000, 48_000, 120, channels=2, habit=111),  # RFC 7587
        PackedFormat("AMR", 8000, 8000, 160, habit=97),  # RFC 4867
        PackedFormat("AMR-WB", 16_000, 16_000, 320, habit=98),  # RFC 4867
        PackedFormat("GSM", 8000, 8000, 160, payload_type=3, habit=3),  # RFC 3551 4.5.8
        PackedFormat("iLBC", 8000, 8000, 160, habit=99),  # RFC 3952
    )
}

_NOT_UNDERSTOOD: Final = ("crc", "robust-sorting", "interleaving")
_OCTET_ALIGN: Final = {"octet-align=0": False, "octet-align=1": True}


def is_packed(codec: Codec) -> bool:
    """Whether payloads of the codec need a decoder."""
    return codec.frame_bytes == 0


def packed_codec(name: str, rate: int | None = None, channels: int | None = None, parameters: str = "") -> Codec | None:
    """The codec of that name (any case) as SDP has it: a=rtpmap name/rate/channels, a=fmtp parameters.

    None for a name that is not one of these; raises ConfigurationError for a rate, channels or parameters that the
    codec does not have. ``rate`` is that of the clock (G722/8000). Of the parameters, those separated by ";",
    "octet-align=0" and "=1" of the two AMR codecs are kept (RFC 4867 8.1); without, each payload is looked at. Those
    that make payloads which are not understood here are refused, others make no difference and are left out.
    """
    known = FORMATS.get(name.upper())
    if known is None:
        return None
    spelled = f"codec {name}/{known.clock_rate}"
    if rate not in (None, known.clock_rate):
        raise ConfigurationError(f"{spelled}: its RTP clock runs at {known.clock_rate} Hz, not {rate}")
    channels = 1 if channels is None else channels
    if not 1 <= channels <= known.channels:
        raise ConfigurationError(f"{spelled}/{channels}: choose {'1 or 2 channels' if known.channels > 1 else 'one'}")
    kept = ""
    for parameter in filter(None, (part.replace(" ", "").lower() for part in parameters.split(";"))):
        key, _, value = parameter.partition("=")
        if not known.name.startswith("AMR"):
            continue
        if key in _NOT_UNDERSTOOD and value != "0":
            raise ConfigurationError(f"{spelled};{parameter}: payloads with {key} are not understood here")
        if key == "octet-align":
            if parameter not in _OCTET_ALIGN:
                raise ConfigurationError(f"{spelled};{parameter}: octet-align=0 or octet-align=1")
            kept = parameter
    return Codec(known.name, known.clock_rate, known.sample_rate, channels, 0, kept)


def octet_aligned(codec: Codec) -> bool | None:
    """Which payload format of RFC 4867 was told; None: neither."""
    return _OCTET_ALIGN.get(codec.parameters)


STATIC: Final = {
    f.payload_type: Codec(f.name, f.clock_rate, f.sample_rate, 1, 0)
    for f in FORMATS.values()
    if f.payload_type is not None
}
