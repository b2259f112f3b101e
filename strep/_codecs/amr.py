"""AMR and AMR-WB payloads (RFC 4867), one channel, without interleaving, CRC and robust sorting.

Bandwidth-efficient (4.3): fields follow each other bit by bit.   Octet-aligned (4.4): each begins a new byte.

     0                   1                                         0                   1
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5                               0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                             +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  CMR  |F|  FT   |Q|F|  FT   |Q| ... speech bits, padding    |  CMR  |0 0 0 0|F|  FT   |Q|0 0| ... speech bytes
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                             +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

F: another entry follows. FT: frame type (speech mode, SID, 15 NO_DATA). Q: 0 if the frame is damaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .._model.types import Codec

__all__ = [
    "FRAMES_LIMIT",
    "NO_DATA",
    "SPEECH_BITS",
    "SPEECH_LOST",
    "AmrFrame",
    "count_frames",
    "frame_count",
    "frame_counts",
    "frame_samples",
    "is_wide",
    "mode_counts",
    "octet_aligned",
    "pack",
    "unpack",
]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

NO_DATA: Final = 15  # frame type: nothing was sent
SPEECH_LOST: Final = 14  # frame type of AMR-WB
FRAMES_LIMIT: Final = 15  # of 20 ms in a payload; the table of contents then ends within 16 bytes in either format
_ANY_CMR: Final = 15  # no mode is asked for

# Bits of each frame type, -1: reserved, "packets MUST be discarded" (RFC 4867 4.3.2; 3GPP TS 26.101, TS 26.201)
SPEECH_BITS: Final = {
    False: (95, 103, 118, 134, 148, 159, 204, 244, 39, -1, -1, -1, -1, -1, -1, 0),
    True: (132, 177, 253, 285, 317, 365, 397, 461, 477, 40, -1, -1, -1, -1, 0, 0),
}


def is_wide(codec: Codec) -> bool:
    """Whether it is AMR-WB, not AMR."""
    return codec.name == "AMR-WB"


def frame_samples(codec: Codec) -> int:
    """Samples of a frame of 20 ms."""
    return codec.sample_rate // 50


def octet_aligned(codec: Codec) -> bool | None:
    """Which payload format of RFC 4867 the codec's parameters name; None: neither, so each payload is looked at."""
    return {"octet-align=0": False, "octet-align=1": True}.get(codec.parameters)


class AmrFrame(NamedTuple):
    """A frame of 20 ms: its type, whether it is sound (Q), and its speech bits, the last byte padded with zeros."""

    type: int
    sound: bool
    data: bytes

    @property
    def stored(self) -> bytes:
        """As in a file (RFC 4867 5.3), which is what decoders eat."""
        return bytes([self.type << 3 | self.sound << 2]) + self.data


def unpack(payload: bytes, *, wide: bool, octet_aligned: bool | None) -> list[AmrFrame] | None:
    """The frames of a payload; None if it is malformed. ``octet_aligned`` None: the payload tells which format it has.

    If the format is given, bytes may follow the frames; if it is found out, the payload must be exactly as long as its
    table of contents says. What fits both formats is taken for bandwidth-efficient, the default of RFC 4867, unless
    that reading has a damaged frame: AMR of 4.75 kbit/s in the octet-aligned format fits both, and reads as Q = 0 in
    the other.
    """
    if octet_aligned is not None:
        return _unpack(payload, wide, octet_aligned, exact=False)
    efficient = _unpack(payload, wide, False, exact=True)
    if efficient and all(frame.sound for frame in efficient):
        return efficient
    return _unpack(payload, wide, True, exact=True) or efficient


def _unpack(payload: bytes, wide: bool, aligned: bool, exact: bool) -> list[AmrFrame] | None:
    total = 8 * len(payload)
    number = int.from_bytes(payload, "big")

    def field(begin: int, bits: int) -> int:
        return number >> total - begin - bits & (1 << bits) - 1

    at, step = (8, 8) if aligned else (4, 6)
    reserved = field(4, 4) if aligned and total >= 8 else 0
    entries: list[tuple[int, bool]] = []
    more = 1
    while more:
        if at + step > total or len(entries) == FRAMES_LIMIT:
            return None
        more = field(at, 1)
        entries.append((field(at + 1, 4), bool(field(at + 5, 1))))
        reserved |= field(at + 6, 2) if aligned else 0
        at += step
    sizes = [SPEECH_BITS[wide][kind] for kind, _ in entries]
    if min(sizes) < 0:
        return None
    taken = [-(-bits // 8) * 8 for bits in sizes] if aligned else sizes
    end = at + sum(taken)
    if end > total or (exact and (-(-end // 8) * 8 != total or reserved)):
        return None
    frames = []
    for (kind, sound), bits, step in zip(entries, sizes, taken, strict=True):
        size = -(-bits // 8)
        frames.append(AmrFrame(kind, sound, (field(at, bits) << 8 * size - bits).to_bytes(size, "big")))
        at += step
    return frames


def pack(frames: Sequence[AmrFrame], *, wide: bool, octet_aligned: bool, mode_request: int = _ANY_CMR) -> bytes:
    """A payload of 1 to 15 frames: the inverse of :func:`unpack`."""
    if not 1 <= len(frames) <= FRAMES_LIMIT:
        raise ValueError(f"{len(frames)} frames in a payload: 1 to {FRAMES_LIMIT}")
    number, total = mode_request, 4

    def add(value: int, bits: int) -> None:
        nonlocal number, total
        number, total = number << bits | value, total + bits

    add(0, 4 if octet_aligned else 0)
    for i, frame in enumerate(frames):
        add((i < len(frames) - 1) << 5 | frame.type << 1 | frame.sound, 6)
        add(0, 2 if octet_aligned else 0)
    for frame in frames:
        bits = SPEECH_BITS[wide][frame.type]
        size = -(-bits // 8)
        add(int.from_bytes(frame.data, "big") >> 8 * size - bits, bits)
        add(0, 8 * size - bits if octet_aligned else 0)
    add(0, -total % 8)
    return number.to_bytes(total // 8, "big")


def frame_counts(codec: Codec, heads: U8, length: I64) -> I64:
    """Sample frames of each payload: see :func:`.counts.frame_counts`."""
    counts = count_frames(heads, length, wide=is_wide(codec), octet_aligned=octet_aligned(codec))
    return frame_samples(codec) * counts


def frame_count(codec: Codec, payload: bytes) -> int:
    """Sample frames of one payload: see :func:`.counts.frame_count`."""
    frames = unpack(payload, wide=is_wide(codec), octet_aligned=octet_aligned(codec))
    return len(frames or ()) * frame_samples(codec)


def count_frames(heads: U8, length: I64, *, wide: bool, octet_aligned: bool | None) -> I64:
    """How many frames each payload has, 0 if malformed, int64 (n,): ``len(unpack(...))``, for many at once.

    ``heads`` uint8 (n, 16 or more): the payloads' first bytes; ``length`` int64 (n,).
    """
    efficient, aligned = _counts(heads, length, wide, octet_aligned)
    return efficient + aligned


def mode_counts(codec: Codec, heads: U8, length: I64) -> I64:
    """How many speech frames of each mode each payload has, int64 (n, modes): 8 modes of AMR, 9 of AMR-WB. Silence
    descriptors, and frames that were not sent or are lost, are none; malformed payloads have none.

    ``heads`` and ``length`` as in :func:`count_frames`.
    """
    wide = is_wide(codec)
    modes = SPEECH_BITS[wide].index(40 if wide else 39)  # speech modes come before the silence descriptor
    counts = np.zeros((len(length), modes), np.int64)
    formats = zip(_counts(heads, length, wide, octet_aligned(codec)), (4, 8), (6, 8), strict=True)
    for count, at, step in formats:
        for frame in range(int(count.max(initial=0))):
            row = np.flatnonzero(count > frame)
            byte, bit = divmod(at + frame * step + 1, 8)
            two = heads[row, byte].astype(np.int64) << 8 | heads[row, min(byte + 1, heads.shape[1] - 1)]
            kind = two >> (12 - bit) & 15
            speech = kind < modes
            counts[row[speech], kind[speech]] += 1
    return counts


def _counts(heads: U8, length: I64, wide: bool, octet_aligned: bool | None) -> tuple[I64, I64]:
    """Frames of each payload by its format: bandwidth-efficient, octet-aligned; at most one of these is not 0."""
    none = np.zeros(len(length), np.int64)
    if octet_aligned is not None:
        count = _count(heads, length, wide, octet_aligned, exact=False)[0]
        return (none, count) if octet_aligned else (count, none)
    efficient, sound = _count(heads, length, wide, False, exact=True)
    aligned, _ = _count(heads, length, wide, True, exact=True)
    first = (efficient > 0) & (sound | (aligned == 0))
    return np.where(first, efficient, 0), np.where(first, 0, aligned)


def _count(heads: U8, length: I64, wide: bool, aligned: bool, exact: bool) -> tuple[I64, Bools]:
    """Frames of each payload in one format, 0 if it is not that; and whether all of them are sound."""
    n = len(length)
    table = np.array(SPEECH_BITS[wide], np.int64)
    bits = np.unpackbits(heads[:, : FRAMES_LIMIT + 1], axis=1)
    total = 8 * length
    at, step = (8, 8) if aligned else (4, 6)
    more, fine, sound = np.ones(n, np.bool_), np.ones(n, np.bool_), np.ones(n, np.bool_)
    count, end = np.zeros(n, np.int64), np.full(n, at, np.int64)
    zeros = ~bits[:, 4:8].any(axis=1) if aligned else np.ones(n, np.bool_)
    for _ in range(FRAMES_LIMIT):
        fine &= ~more | (at + step <= total)
        kind = bits[:, at + 1 : at + 5] @ np.array([8, 4, 2, 1], np.uint8)
        size = table[kind]
        fine &= ~more | (size >= 0)
        end += more * (step + (-(-size // 8) * 8 if aligned else size))
        count += more
        sound &= ~more | (bits[:, at + 5] == 1)
        if aligned:
            zeros &= ~more | ~bits[:, at + 6 : at + 8].any(axis=1)
        more &= bits[:, at] == 1
        at += step
        if not (more & fine).any():
            break
    fine &= ~more & (end <= total)
    if exact:
        fine &= (-(-end // 8) == length) & zeros
    return np.where(fine, count, 0), sound
