"""What a payload type may be that nobody named: from payload sizes and timestamp steps. A guess, and told as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from ..._codecs.counts import HEAD_BYTES, frame_counts
from ..._model.types import Codec

__all__ = ["ENOUGH", "GIVEN_UP", "Seen", "guess"]

ENOUGH: Final = 5  # packets, the first of which cost their audio
GIVEN_UP: Final = 25
_EVENT_BYTES: Final = 4  # RFC 4733: one report
_L16_RATES: Final = (8000, 16_000, 24_000, 32_000, 44_100, 48_000)
_USUAL_PACKETS: Final = 50  # a second


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet of an unknown payload type. ``head``: the first bytes of its payload."""

    extended_sequence: int
    timestamp: int
    length: int
    head: bytes


def guess(seen: Sequence[Seen], candidates: Sequence[Codec]) -> Codec | str | None:
    """The first of ``candidates`` (packed codecs) whose packets would last just as long as the timestamps say; a codec
    L16; "telephone-event"; or None. A payload's structure must fit in every packet, so what fits is rarely wrong."""
    pairs = [(a, b) for a, b in pairwise(seen) if b.extended_sequence == a.extended_sequence + 1]
    if len(pairs) < ENOUGH - 2:
        return None
    steps = np.array([(b.timestamp - a.timestamp) & 0xFFFF_FFFF for a, b in pairs], np.int64)
    length = np.array([a.length for a, _ in pairs], np.int64)
    if not steps.any():
        return "telephone-event" if (length == _EVENT_BYTES).all() else None
    if (steps == 0).any() or (steps > 48_000).any():
        return None
    heads = np.zeros((len(pairs), HEAD_BYTES), np.uint8)
    for i, (a, _) in enumerate(pairs):
        part = a.head[:HEAD_BYTES]
        heads[i, : len(part)] = np.frombuffer(part, np.uint8)
    for codec in candidates:
        frames = frame_counts(codec, heads, length)
        if (frames * codec.clock_rate == steps * codec.sample_rate).all():
            return codec
    rate = int(steps[0]) * _USUAL_PACKETS
    if (length == 2 * steps).all() and (steps == steps[0]).all() and rate in _L16_RATES:
        return Codec("L16", rate, rate, 1, 2)
    return None
