"""How long an opus packet lasts, by its first bytes (RFC 6716 section 3.1, table 2).

 0 1 2 3 4 5 6 7
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
| config  |s| c |v|p|     M     |     c: 0 one frame, 1 and 2 two frames, 3 as many as the second byte says (M)
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.types import Codec

__all__ = ["PACKET_SAMPLES_LIMIT", "RATE", "frame_count", "frame_counts", "mode_counts"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

RATE: Final = 48_000  # Hz
PACKET_SAMPLES_LIMIT: Final = 5760  # 120 ms (RFC 6716 3.2.5, R5)

# Samples at 48 kHz of a frame, by configuration (RFC 6716 table 2)
_FRAME_SAMPLES: Final = (
    *(480, 960, 1920, 2880) * 3,  # SILK: 10, 20, 40, 60 ms
    *(480, 960) * 2,  # hybrid: 10, 20 ms
    *(120, 240, 480, 960) * 4,  # CELT: 2.5, 5, 10, 20 ms
)
_FRAME_TABLE: Final = np.array(_FRAME_SAMPLES, np.int64)

# Bandwidth by configuration (RFC 6716 tables 1 and 2): 0 narrowband, mediumband, wideband, super-wideband, 4 fullband
_BANDWIDTHS: Final = 5
_BANDWIDTH_TABLE: Final = np.repeat([0, 1, 2, 3, 4, 0, 2, 3, 4], [4, 4, 4, 2, 2, 4, 4, 4, 4])
_UNIT: Final = 120  # samples: the shortest frame


def frame_counts(codec: Codec, heads: U8, length: I64) -> I64:
    """Sample frames of each payload: see :func:`.counts.frame_counts`. 0 for more than 120 ms."""
    code = heads[:, 0] & 3
    frames = np.where(code == 0, 1, np.where(code == 3, heads[:, 1] & 63, 2)).astype(np.int64)
    samples = frames * _FRAME_TABLE[heads[:, 0] >> 3]
    return np.where((length >= 1 + (code == 3)) & (samples <= PACKET_SAMPLES_LIMIT), samples, 0)


def mode_counts(codec: Codec, heads: U8, length: I64) -> I64:
    """How long each payload lasts in each bandwidth, in units of 2.5 ms: int64 (n, 5), narrowband to fullband."""
    counts = np.zeros((len(length), _BANDWIDTHS), np.int64)
    counts[np.arange(len(length)), _BANDWIDTH_TABLE[heads[:, 0] >> 3]] = frame_counts(codec, heads, length) // _UNIT
    return counts


def frame_count(codec: Codec, payload: bytes) -> int:
    """Sample frames of one payload: see :func:`.counts.frame_count`."""
    if not payload:
        return 0
    code = payload[0] & 3
    if code == 3:
        frames = payload[1] & 63 if len(payload) > 1 else 0
    else:
        frames = 1 if code == 0 else 2
    samples = frames * _FRAME_SAMPLES[payload[0] >> 3]
    return samples if samples <= PACKET_SAMPLES_LIMIT else 0
