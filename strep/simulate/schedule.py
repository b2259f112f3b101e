"""Which packet of which stream a load sends at what time. Pure: sender and checker compute the same arrays.

A schedule is a list of packets by intended time. What a packet holds (durations, first sequence numbers, SSRC changes)
depends on its stream alone, so that the truth about a stream follows from the schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError

__all__ = ["PATTERNS", "Even", "Listed", "Schedule", "Shape", "Truth", "make_schedule", "truth_of"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

PATTERNS: Final = ("even", "phase", "impaired", "churn")
_PTIME_S: Final = 0.02
_GUARD_PACKETS: Final = 10  # at a stream's beginning, end and SSRC change, that nothing happens to
_LOSS, _DUPLICATES, _REORDERED, _MALFORMED = 0.01, 0.01, 0.02, 0.01  # probabilities of pattern "impaired"
_SHORTEST_PACKETS: Final = 50  # of streams at the beginning of pattern "churn"
_SSRC_PACKETS: Final = 1000  # after which the SSRC changes, in pattern "impaired"


@dataclass(frozen=True, slots=True)
class Shape:
    """What streams look like; arrays of shape (streams,)."""

    frames: I64  # sample frames a packet
    first_sequence: I64
    first_timestamp: I64
    change_every: int = 0  # packets after which a stream's SSRC is another one; 0: never
    phase: I64 | None = None  # packets by which the first change comes earlier

    def ssrc(self, stream: I64, number: I64) -> I64:
        if not self.change_every or self.phase is None:
            return stream + 1
        return stream + 1 + ((number + self.phase[stream]) // self.change_every << 24)


class Schedule(Protocol):
    """Packets 0 to ``total`` by intended time."""

    shape: Shape
    total: int

    def due(self, now_s: float) -> int:
        """How many packets should have left by then."""

    def intended_s(self, packet: int) -> float:
        """When a packet should leave, in seconds from the start."""

    def packets(self, begin: int, end: int) -> tuple[I64, I64, Bools | None]:
        """Stream, number within the stream, and which are to be damaged (None: none)."""


def _plain(streams: int) -> Shape:
    return Shape(np.full(streams, 160), np.zeros(streams, np.int64), np.zeros(streams, np.int64))


class Even:
    """A constant rate; streams take turns."""

    def __init__(self, streams: int, rate: float, duration_s: float) -> None:
        self.shape = _plain(streams)
        self.total = round(rate * duration_s) // streams * streams
        self._streams = streams
        self._rate = rate

    def due(self, now_s: float) -> int:
        return min(int(now_s * self._rate) + 1, self.total)

    def intended_s(self, packet: int) -> float:
        return packet / self._rate

    def packets(self, begin: int, end: int) -> tuple[I64, I64, Bools | None]:
        number, stream = np.divmod(np.arange(begin, end), self._streams)
        return stream, number, None


class Listed:
    """Packets one by one, ascending in time."""

    def __init__(
        self, shape: Shape, time_s: npt.NDArray[np.float64], stream: I64, number: I64, malformed: Bools | None = None
    ) -> None:
        self.shape = shape
        self.total = len(time_s)
        self.time_s = time_s
        self.stream = stream
        self.number = number
        self.malformed = malformed

    def due(self, now_s: float) -> int:
        return int(self.time_s.searchsorted(now_s, side="right"))

    def intended_s(self, packet: int) -> float:
        return float(self.time_s[packet])

    def packets(self, begin: int, end: int) -> tuple[I64, I64, Bools | None]:
        part = slice(begin, end)
        return self.stream[part], self.number[part], None if self.malformed is None else self.malformed[part]


def make_schedule(pattern: str, *, streams: int, rate: float, duration_s: float, churn: float = 200.0) -> Schedule:
    """A schedule of about ``rate`` packets/s over ``duration_s``.

    ``even``      streams take turns at a constant rate
    ``phase``     all streams at once, every ``streams / rate`` seconds
    ``impaired``  like even, with loss, duplicates, reordering, jitter, malformed datagrams, packets of 10, 20 and
                  30 ms, wraps of sequence numbers and timestamps, and SSRC changes
    ``churn``     ``streams`` live at any time; each second ``churn`` of them end and as many begin; packets of 20 ms,
                  so that ``rate`` follows from ``streams``

    Raises ConfigurationError.
    """
    if pattern == "even":
        return Even(streams, rate, duration_s)
    if pattern == "phase":
        return _in_phase(streams, rate, duration_s)
    if pattern == "impaired":
        return _impaired(streams, rate, duration_s)
    if pattern == "churn":
        return _churn(streams, duration_s, churn)
    raise ConfigurationError(f"no pattern {pattern!r}: choose from {', '.join(PATTERNS)}")


def _in_phase(streams: int, rate: float, duration_s: float) -> Listed:
    rounds = round(rate * duration_s) // streams
    time_s = np.repeat(np.arange(rounds) * (streams / rate), streams)
    number, stream = np.divmod(np.arange(rounds * streams), streams)
    return Listed(_plain(streams), time_s, stream, number)


def _impaired(streams: int, rate: float, duration_s: float) -> Listed:
    of_stream = np.arange(streams)
    rounds = round(rate * duration_s) // streams
    phase = 7 * of_stream % (_SSRC_PACKETS - 5 * _GUARD_PACKETS)
    # a source that sends only a packet or two, at the very end, would never be admitted
    phase += np.where((rounds - 1 + phase) % _SSRC_PACKETS < _GUARD_PACKETS, 2 * _GUARD_PACKETS, 0)
    shape = Shape(
        frames=np.array([160, 80, 160, 240])[of_stream % 4],
        first_sequence=65_536 - 60 - of_stream % 50,
        first_timestamp=2**32 - 16_000 - 160 * (of_stream % 100),
        change_every=_SSRC_PACKETS,
        phase=phase,
    )
    number, stream = np.divmod(np.arange(rounds * streams), streams)
    random = np.random.default_rng(streams)
    interval = streams / rate
    since_change = (number + phase[stream]) % _SSRC_PACKETS
    quiet = (number < _GUARD_PACKETS) | (number >= rounds - _GUARD_PACKETS)
    quiet |= (since_change < _GUARD_PACKETS) | (since_change >= _SSRC_PACKETS - _GUARD_PACKETS)
    dice = random.random(len(number))
    dice[quiet] = 1.0
    time_s = np.arange(len(number)) / rate + interval * random.uniform(0.0, 0.3, len(number))
    late = (dice >= _LOSS + _DUPLICATES) & (dice < _LOSS + _DUPLICATES + _REORDERED)
    time_s[late] += interval * random.uniform(1.5, 3.0, int(np.count_nonzero(late)))
    copied = np.flatnonzero((dice >= _LOSS) & (dice < _LOSS + _DUPLICATES))
    damaged = np.flatnonzero(random.random(len(number)) < _MALFORMED)
    kept = np.flatnonzero(dice >= _LOSS)
    time_s = np.r_[
        time_s[kept],
        time_s[copied] + interval * random.uniform(0.1, 2.0, len(copied)),
        time_s[damaged] + interval * random.uniform(0.0, 1.0, len(damaged)),
    ]
    which = np.r_[kept, copied, damaged]
    malformed = np.zeros(len(which), np.bool_)
    malformed[len(kept) + len(copied) :] = True
    order = np.argsort(time_s, kind="stable")
    which = which[order]
    return Listed(shape, time_s[order], stream[which], number[which], malformed[order])


def _churn(streams: int, duration_s: float, churn: float) -> Listed:
    """At time t the streams with numbers from t * churn to t * churn + streams live."""
    ever = streams + int(duration_s * churn)
    phase_s = np.arange(ever) * 0.618_034 % 1.0 * _PTIME_S
    begin_s = np.maximum((np.arange(ever) - streams) / churn, 0.0)
    end_s = np.minimum(np.arange(ever) / churn, duration_s)
    first = np.ceil((begin_s - phase_s) / _PTIME_S).astype(np.int64)
    count = np.ceil((end_s - phase_s) / _PTIME_S).astype(np.int64) - first
    count[count < _GUARD_PACKETS] = 0  # too short to be admitted
    # at the start all streams begin at once: the shortest would end before they are admitted
    count[(count < _SHORTEST_PACKETS) & (begin_s == 0)] = 0
    stream = np.repeat(np.arange(ever), count)
    number = np.arange(len(stream)) - np.repeat(np.cumsum(count) - count, count)
    time_s = (first[stream] + number) * _PTIME_S + phase_s[stream]
    order = np.argsort(time_s, kind="stable")
    return Listed(_plain(ever), time_s[order], stream[order], number[order])


@dataclass(frozen=True, slots=True)
class Truth:
    """What a receiver must find if it loses nothing, per stream int64 (streams,); terms of RFC 3550."""

    received: I64
    duplicates: I64
    reordered: I64
    lost: I64
    malformed: int  # datagrams


def truth_of(schedule: Schedule) -> Truth:
    """The truth about the streams of a schedule."""
    stream, number, malformed = schedule.packets(0, schedule.total)
    if malformed is not None:
        stream, number = stream[~malformed], number[~malformed]
    streams = len(schedule.shape.frames)
    received = np.bincount(stream, minlength=streams)
    order = np.argsort(stream, kind="stable")
    stream, number = stream[order], number[order]
    wide = int(number.max(initial=0)) + 1
    key = stream * wide + number
    _, first = np.unique(key, return_index=True)
    copy = np.ones(len(key), np.bool_)
    copy[first] = False
    highest = np.maximum.accumulate(key)  # streams ascend: another stream's only at a stream's beginning
    before = np.r_[-1, highest[:-1]]
    behind = (key < before) & ~copy
    duplicates = np.bincount(stream[copy], minlength=streams)
    distinct = received - duplicates
    last = np.zeros(streams, np.int64)
    np.maximum.at(last, stream, number)
    return Truth(
        received=received,
        duplicates=duplicates,
        reordered=np.bincount(stream[behind], minlength=streams),
        lost=np.where(received > 0, last + 1 - distinct, 0),
        malformed=0 if malformed is None else int(np.count_nonzero(malformed)),
    )
