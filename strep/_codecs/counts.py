"""How much audio a payload of a packed codec stands for, without decoding it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.types import Codec
from .facts import CodecFacts, bound, codec_facts

__all__ = ["HEAD_BYTES", "frame_count", "frame_counts", "mode_counts"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

HEAD_BYTES: Final = 16  # first bytes of a payload that are looked at


def frame_counts(codec: Codec, heads: U8, length: I64) -> I64:
    """Sample frames at the codec's ``sample_rate`` that each payload stands for, int64 (n,); 0 for malformed ones.

    ``heads`` uint8 (n, HEAD_BYTES or more): the first bytes of the payloads; whatever follows the end of a shorter one
    is ignored. ``length`` int64 (n,): of the whole payloads. Equals :func:`frame_count` of each. Raises ValueError if
    the codec is not packed.
    """
    row = _packed(codec)
    if row.counter:
        counts: I64 = bound(row.counter).frame_counts(codec, heads, length)
        return counts
    sizes = row.frame_sizes
    if len(sizes) == 1 and sizes[0].bytes == 1:
        return sizes[0].samples * length
    counts = np.zeros(len(length), np.int64)
    for size in reversed(sizes):
        number, rest = np.divmod(length, size.bytes)
        counts = np.where(rest == 0, size.samples * number, counts)
        if row.last_frame is not None:
            last = row.last_frame
            counts = np.where(rest == last.bytes, size.samples * number + last.samples, counts)
    return counts


def mode_counts(codec: Codec, heads: U8, length: I64) -> I64:
    """How much of each payload is coded in each of the codec's modes, int64 (n, modes): the order is that of
    :attr:`.facts.CodecFacts.impairment_modes`, the unit the codec's own. ``heads`` and ``length`` as in
    :func:`frame_counts`. Raises ValueError if the codec has no modes that differ."""
    row = codec_facts(codec)
    if not row.impairment_modes:
        raise ValueError(f"{codec} has no modes that differ")
    counts: I64 = bound(row.counter).mode_counts(codec, heads, length)
    return counts


def frame_count(codec: Codec, payload: bytes) -> int:
    """Sample frames that one payload stands for, 0 if it is malformed.

    By the codec's frame sizes: as many frames as the bytes are (the first size that divides them), and the last frame
    if it is there: G.729's silence descriptor. AMR: 20 ms for each frame of the table of contents. opus: as its first
    bytes say. What stands behind these is for the decoder to judge.
    """
    row = _packed(codec)
    if row.counter:
        count: int = bound(row.counter).frame_count(codec, payload)
        return count
    for size in row.frame_sizes:
        number, rest = divmod(len(payload), size.bytes)
        if rest == 0:
            return number * size.samples
        if row.last_frame is not None and rest == row.last_frame.bytes:
            return number * size.samples + row.last_frame.samples
    return 0


def _packed(codec: Codec) -> CodecFacts:
    row = codec_facts(codec)
    if not row.packed:
        raise ValueError(f"{codec} is not packed")
    return row
