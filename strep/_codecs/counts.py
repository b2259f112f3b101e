"""How much audio a payload stands for, without decoding it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.types import Codec
from . import amr
from .facts import octet_aligned

__all__ = ["HEAD_BYTES", "frame_count", "frame_counts"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

HEAD_BYTES: Final = 16  # first bytes of a payload that are looked at
_OPUS_MOST: Final = 5760  # 120 ms (RFC 6716 3.2.5, R5)


def _opus_frames() -> list[int]:
    """Samples at 48 kHz of one frame of each of the 32 configurations (RFC 6716 table 2)."""
    silk = [480, 960, 1920, 2880] * 3  # 10, 20, 40, 60 ms
    hybrid = [480, 960] * 2
    celt = [120, 240, 480, 960] * 4  # 2.5, 5, 10, 20 ms
    return silk + hybrid + celt


_OPUS_FRAMES: Final = _opus_frames()
_OPUS_TABLE: Final = np.array(_OPUS_FRAMES, np.int64)


def frame_counts(codec: Codec, heads: U8, length: I64) -> I64:
    """Sample frames at the codec's ``sample_rate`` that each payload stands for, int64 (n,); 0 for malformed ones.

    ``heads`` uint8 (n, HEAD_BYTES or more): the first bytes of the payloads, whatever follows those that are shorter;
    ``length`` int64 (n,): of the whole payloads. Equals :func:`frame_count` of each.
    """
    match codec.name:
        case "G722":
            return 2 * length
        case "G729":
            rest = length % 10
            return np.where((rest == 0) | (rest == 2), 80 * (length // 10 + (rest == 2)), 0)
        case "GSM":
            return np.where(length % 33 == 0, 160 * (length // 33), 0)
        case "iLBC":
            return np.where(length % 38 == 0, 160 * (length // 38), np.where(length % 50 == 0, 240 * (length // 50), 0))
        case "AMR":
            return 160 * amr.count_frames(heads, length, wide=False, octet_aligned=octet_aligned(codec))
        case "AMR-WB":
            return 320 * amr.count_frames(heads, length, wide=True, octet_aligned=octet_aligned(codec))
        case "opus":
            code = heads[:, 0] & 3
            frames = np.where(code == 0, 1, np.where(code == 3, heads[:, 1] & 63, 2)).astype(np.int64)
            samples = frames * _OPUS_TABLE[heads[:, 0] >> 3]
            return np.where((length >= 1 + (code == 3)) & (samples <= _OPUS_MOST), samples, 0)
    raise ValueError(f"{codec} is not packed")


def frame_count(codec: Codec, payload: bytes) -> int:
    """Sample frames that a payload stands for, 0 if it is malformed.

    G.722: 2 a byte. G.729: 80 for each 10 bytes, and for a SID of 2 bytes at the end (RFC 3551 4.5.6). GSM: 160 for
    each 33 bytes. iLBC: 160 for each 38 bytes, or 240 for each 50 (RFC 3952; a payload that is a multiple of both,
    950 bytes, counts as the first). AMR: 20 ms for each frame of the table of contents. opus: as the TOC says
    (RFC 6716 3.1); not more than 120 ms. What is behind the TOC is the decoder's to judge.
    """
    size = len(payload)
    match codec.name:
        case "G722":
            return 2 * size
        case "G729":
            return 80 * (size // 10 + (size % 10 == 2)) if size % 10 in (0, 2) else 0
        case "GSM":
            return 160 * (size // 33) if size % 33 == 0 else 0
        case "iLBC":
            if size % 38 == 0:
                return 160 * (size // 38)
            return 240 * (size // 50) if size % 50 == 0 else 0
        case "AMR" | "AMR-WB":
            wide = codec.name == "AMR-WB"
            frames = amr.unpack(payload, wide=wide, octet_aligned=octet_aligned(codec))
            return len(frames or ()) * (320 if wide else 160)
        case "opus":
            if not size:
                return 0
            code = payload[0] & 3
            if code == 3:
                frames_in_packet = payload[1] & 63 if size > 1 else 0
            else:
                frames_in_packet = 1 if code == 0 else 2
            samples = frames_in_packet * _OPUS_FRAMES[payload[0] >> 3]
            return samples if samples <= _OPUS_MOST else 0
    raise ValueError(f"{codec} is not packed")
