"""Packed codecs: payloads whose samples need a decoder (opus, AMR, G.722, G.729, GSM, iLBC). Floor 2.

Formats and counts need numpy only; decoders and encoders need PyAV (the extra ``codecs``) or the library they name.
"""

from . import amr, libopus
from .counts import HEAD_BYTES, frame_count, frame_counts
from .decoders import Decoder, available, installed, make_decoder
from .formats import FORMATS, STATIC, is_packed, packed_codec

__all__ = [
    "FORMATS",
    "HEAD_BYTES",
    "STATIC",
    "Decoder",
    "amr",
    "available",
    "frame_count",
    "frame_counts",
    "installed",
    "is_packed",
    "libopus",
    "make_decoder",
    "packed_codec",
]
