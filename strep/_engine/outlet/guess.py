"""What a payload type may be that nobody named: from payload sizes and timestamp steps. A guess, and told as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from ..._codecs.counts import HEAD_BYTES, frame_counts
from ..._codecs.facts import CODECS
from ..._model.types import Codec

__all__ = ["PACKETS_TO_GIVE_UP", "PACKETS_TO_GUESS", "Observation", "guess"]

PACKETS_TO_GUESS: Final = 5  # packets, the first of which cost their audio
PACKETS_TO_GIVE_UP: Final = 25
_EVENT_BYTES: Final = 4  # RFC 4733: one report
_USUAL_PACKETS: Final = 50  # a second


@dataclass(frozen=True, slots=True)
class Observation:
    """A packet of an unknown payload type. ``head``: the first bytes of its payload."""

    extended_sequence: int
    timestamp: int
    length: int
    head: bytes


def guess(seen: Sequence[Observation], candidates: Sequence[Codec]) -> Codec | str | None:
    """The first of ``candidates`` (packed codecs) whose packets would last just as long as the timestamps say; a plain
    codec (L16) of a usual rate; "telephone-event"; or None. A payload's structure must fit in every packet, so what
    fits is rarely wrong."""
    pairs = [(a, b) for a, b in pairwise(seen) if b.extended_sequence == a.extended_sequence + 1]
    if len(pairs) < PACKETS_TO_GUESS - 2:
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
    if (steps == steps[0]).all():
        for row in CODECS.values():
            if rate in row.guessed_rates and (length == row.sample_bytes * steps).all():
                return Codec(row.name, rate, rate, 1, row.sample_bytes)
    return None
