"""A guess at what an unknown payload type is, from payloads, timestamp steps and arrival times. Users are told that it
is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from ..._codecs.counts import HEAD_BYTES, frame_counts
from ..._codecs.facts import CODECS, CodecFacts
from ..._codecs.g711 import likelier_law
from ..._model.time import SECOND_NS
from ..._model.types import Codec

__all__ = ["PACKETS_TO_GIVE_UP", "PACKETS_TO_GUESS", "PAYLOAD_BYTES", "Observation", "guess"]

PACKETS_TO_GUESS: Final = 5  # that a guess is made from, at least; their audio is lost
PACKETS_TO_GIVE_UP: Final = 25  # without a guess: then the type is told, and looked at no more
PAYLOAD_BYTES: Final = 240  # of a payload that are looked at
_G711_RATE: Final = 8000

# plain codecs do not say their rates: a packet lasts as long as it takes until the next one comes
_PACKETS_MS: Final = (5, 10, 20, 30, 40, 60)  # what senders make
_TOLERANCE: Final = 0.15  # of the time from the first packet to the last; lengths differ by a quarter at least
_UNEVEN: Final = 0.5  # of a packet, by which none may come early or late, if it are few that a guess is made from
_PACKETS_IF_UNEVEN: Final = 12

# RFC 4733
_REPORT_BYTES: Final = 4
_LAST_EVENT: Final = 16  # digits and flash
_RESERVED: Final = 0x40


@dataclass(frozen=True, slots=True)
class Observation:
    """A packet of an unknown payload type. ``payload``: its first bytes."""

    extended_sequence: int
    timestamp: int
    length: int
    payload: bytes
    arrival_ns: int = 0


def guess(seen: Sequence[Observation], candidates: Sequence[Codec]) -> Codec | str | None:
    """The first of ``candidates`` (packed codecs) whose packets would last just as long as the timestamps say; a plain
    codec whose packets would last as long as the arrival times say: L16, or the law of G.711 that the sound is more
    like; "telephone-event"; or None. A payload's structure must fit in every packet, so what fits is rarely wrong."""
    if _are_reports(seen):
        return "telephone-event"
    # no packed codec has so many bytes; but silence, all zeros, has the first byte of an opus packet
    linear = _linear(seen)
    if linear is not None:
        return _rated(seen, linear)
    return _packed(seen[-PACKETS_TO_GUESS:], candidates) or _companded(seen)


def _are_reports(seen: Sequence[Observation]) -> bool:
    """Whether all payloads are reports of key presses: some belong together, and their durations do not shrink."""
    together = 0
    for a, b in pairwise(seen):
        if a.timestamp == b.timestamp or b.extended_sequence == a.extended_sequence + 1:
            same = a.payload[:1] == b.payload[:1]
            if same and a.timestamp == b.timestamp and b.payload[2:4] < a.payload[2:4]:
                return False
            together += same
    one = all(s.length == _REPORT_BYTES and s.payload[0] <= _LAST_EVENT and not s.payload[1] & _RESERVED for s in seen)
    return one and together >= PACKETS_TO_GUESS // 2


def _steps(seen: Sequence[Observation]) -> tuple[list[Observation], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Packets that the next one of is known, and the timestamp steps to it. int64 (n,); none if the packets are too
    few, or the steps no length of a packet."""
    pairs = [(a, b) for a, b in pairwise(seen) if b.extended_sequence == a.extended_sequence + 1]
    steps = np.array([(b.timestamp - a.timestamp) & 0xFFFF_FFFF for a, b in pairs], np.int64)
    if len(pairs) < PACKETS_TO_GUESS - 2 or (steps == 0).any() or (steps > 48_000).any():
        return [], steps[:0]
    return [a for a, _ in pairs], steps


def _packed(seen: Sequence[Observation], candidates: Sequence[Codec]) -> Codec | None:
    packets, steps = _steps(seen)
    if not packets:
        return None
    length = np.array([a.length for a in packets], np.int64)
    heads = np.zeros((len(packets), HEAD_BYTES), np.uint8)
    for i, packet in enumerate(packets):
        part = packet.payload[:HEAD_BYTES]
        heads[i, : len(part)] = np.frombuffer(part, np.uint8)
    for codec in candidates:
        frames = frame_counts(codec, heads, length)
        if (frames * codec.clock_rate == steps * codec.sample_rate).all():
            return codec
    return None


def _alike(seen: Sequence[Observation]) -> tuple[Sequence[Observation], int, int]:
    """The last packets that are of one length, that length, and the timestamp step between them; 0: there is none."""
    alike = next((n for n, s in enumerate(reversed(seen)) if s.length != seen[-1].length), len(seen))
    seen = seen[len(seen) - alike :]
    packets, steps = _steps(seen)
    same = bool(packets) and bool((steps == steps[0]).all())
    return seen, seen[-1].length, int(steps[0]) if same else 0


def _linear(seen: Sequence[Observation]) -> CodecFacts | None:
    """The plain codec of any rate whose packets are as long as the timestamps step."""
    _, length, step = _alike(seen)
    return next((row for row in CODECS.values() if row.guessed_rates and 0 < length == row.sample_bytes * step), None)


def _rated(seen: Sequence[Observation], row: CodecFacts) -> Codec | None:
    alike, _, step = _alike(seen)
    rate = _rate(alike, step, row.guessed_rates)
    return Codec(row.name, rate, rate, 1, row.sample_bytes) if rate else None


def _companded(seen: Sequence[Observation]) -> Codec | None:
    alike, length, step = _alike(seen)
    if 0 < length == step and _rate(alike, step, (_G711_RATE,)):
        return likelier_law(np.frombuffer(b"".join(s.payload for s in alike), np.uint8))
    return None


def _rate(seen: Sequence[Observation], step: int, rates: Sequence[int]) -> int | None:
    """The rate at which packets last a usual time, and as long as it took them to come."""
    for rate in rates:
        usual = step * 1000 % rate == 0 and step * 1000 // rate in _PACKETS_MS
        # also without the first packet, or the last one: a single one that is late does not decide
        if usual and all(_lasts(part, rate) for part in (seen, seen[1:], seen[:-1])):
            even = _come_evenly(seen, rate)
            return rate if even or len(seen) >= _PACKETS_IF_UNEVEN else None
    return None


def _lasts(seen: Sequence[Observation], rate: int) -> bool:
    """Whether packets took as long to come as they last at this rate, about."""
    lasts_ns = ((seen[-1].timestamp - seen[0].timestamp) & 0xFFFF_FFFF) * SECOND_NS // rate
    return abs(seen[-1].arrival_ns - seen[0].arrival_ns - lasts_ns) <= _TOLERANCE * lasts_ns


def _come_evenly(seen: Sequence[Observation], rate: int) -> bool:
    step_ns = ((seen[-1].timestamp - seen[-2].timestamp) & 0xFFFF_FFFF) * SECOND_NS // rate
    for a, b in pairwise(seen):
        lasts_ns = ((b.timestamp - a.timestamp) & 0xFFFF_FFFF) * SECOND_NS // rate
        if abs(b.arrival_ns - a.arrival_ns - lasts_ns) > _UNEVEN * step_ns:
            return False
    return True
