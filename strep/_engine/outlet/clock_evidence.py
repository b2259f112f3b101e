"""What speaks for a sender's RTP clock not being its codec's: payloads, timestamps and arrival times of a stream.

Of packets in sequence, or of two with a few missing between them, the first lasts ``due`` ticks of the codec's clock
until the second, whose timestamp is ``step`` ticks later. A *rate* explains them if ``step = due × rate / codec's
rate``, but for the rounding of a slow clock. Over all pairs that one rate explains, with ``D`` the time that payloads
last, ``T`` the time that timestamps say, and ``E`` the time in which packets came:

    E near T      the clock is right, and the sender leaves out audio
    E near D      the clock is wrong

Only clocks that senders are known to have (``mistaken_clocks`` of a codec's facts) are ever counted
with; others are told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from ..._model.types import Codec

__all__ = ["MOST_APART", "NONE_BEFORE", "MeasuredClock", "Suspect"]

MOST_APART: Final = 8  # in sequence: that makes a pair
NONE_BEFORE: Final = -(1 << 40)  # the number of a packet that never was

_PAIRS_THAT_AGREE: Final = 8  # and the clock is the codec's
_PAIRS_ALIKE: Final = 10  # at least, of one other rate
_MEASURED_S: Final = 0.25  # of audio, at least
_PAIRS_LOOKED_AT: Final = 100  # then it stays undecided
_CLEARLY: Final = 3  # so many times nearer to the one than to the other
_MOST: Final = 0.8  # of the pairs have the rate
_OWED_S: Final = 0.8  # of audio that timestamps leave out, at most, while arrival times do not tell


@dataclass(frozen=True, slots=True)
class MeasuredClock:
    """``rate`` Hz of a stream's RTP clock; ``why_not``: it is not counted with, because; "": it is. ``nameable``: users
    may say so beforehand."""

    row: int
    codec: int
    rate: Fraction
    why_not: str
    nameable: bool

    def described(self, codec: Codec, payload_type: int | None) -> str:
        """For users. ``payload_type``: that they may name; None: it is not known which."""
        nominal = f"at {float(self.rate):g} Hz, not at {codec.clock_rate} as {codec.name}'s should"
        if self.why_not:
            return f"by its payloads the sender's RTP clock runs {nominal}, but {self.why_not}"
        hint = ""
        if payload_type is not None and self.nameable:
            hint = f"; --pt {payload_type}={codec.name}/{self.rate} says so from the start"
        return f"the sender's RTP clock runs {nominal}: measured, and counted with{hint}"


@dataclass(slots=True)
class Suspect:
    """A stream whose timestamps contradict its payloads; its last packet, and what was measured."""

    codec: Codec
    mistaken: tuple[int, ...]  # clocks in Hz that senders are known to have instead
    ext: int
    timestamp: int
    span: int  # ticks that it lasts
    arrival_ns: int
    mapped: int  # its timestamp, as it was counted
    agreed: int  # pairs of the codec's clock
    rate: Fraction = field(default=Fraction(0))  # Hz, that explains most of the other pairs
    known: bool = False  # some senders have that one
    votes: int = 0  # pairs that it explains, less those that only another one does
    # since the rate was assumed
    alike: int = 0  # pairs that it explains
    pairs: int = 0
    lasted: int = 0  # D, in ticks
    stepped: int = 0  # T, in ticks
    came_ns: int = 0  # E
    looked_at: int = 0  # pairs in all
    odd: int = 0  # of them, those that contradict the codec's clock
    wrong: bool = False  # what seems right so far: that the clock is not the codec's

    @property
    def ratio(self) -> Fraction:
        """How much faster than the codec's the clock runs."""
        return self.rate / self.codec.clock_rate

    @property
    def usual(self) -> bool:
        """Whether the rate explains most pairs."""
        return self.alike >= _MOST * self.pairs

    def due(self, ext: int) -> int:
        """Ticks from the last packet to the start of this one, if none was left out; 0: nobody knows."""
        apart = ext - self.ext
        return apart * self.span if 1 <= apart <= MOST_APART else 0

    def explains(self, step: int, due: int) -> bool:
        clock = self.codec.clock_rate
        if self.known:
            return abs(step * clock - due * self.rate) < clock
        return step * clock == due * self.rate

    def verdict(self) -> bool | None:
        """Whether the clock is wrong, by arrival times; None: they do not tell."""
        came = self.came_ns * self.codec.clock_rate // 1_000_000_000
        by_payload, by_timestamp = abs(came - self.lasted), abs(came - self.stepped)
        if by_payload * _CLEARLY <= min(by_timestamp, self.lasted):
            return True
        if by_timestamp * _CLEARLY <= min(by_payload, self.stepped):
            return False
        return None

    def take(self, step: int, due: int, since_ns: int) -> None:
        """The next pair."""
        self.looked_at += 1
        self.pairs += 1
        if step == due:
            if not self._is_pause(step, due, since_ns):
                self.agreed += 1
                self.votes = max(self.votes - 1, 0)
                self.wrong = False
            return
        self.odd += 1
        alike = self.explains(step, due)
        if not alike and not self.votes:
            self._assume(step, due)
            alike = True
        self.votes += 1 if alike else -1
        if not alike:
            return
        self.alike += 1
        self.lasted += due
        self.stepped += step
        self.came_ns += since_ns
        self.wrong = self.known and self.votes > self.agreed and self._seems_wrong()

    def _assume(self, step: int, due: int) -> None:
        clock = self.codec.clock_rate
        self.rate, self.known = Fraction(step * clock, due), False
        nearest = min(self.mistaken, key=lambda rate: abs(step * clock - due * rate))
        if abs(step * clock - due * nearest) < clock:
            self.rate, self.known = Fraction(nearest), True
        self.pairs, self.alike, self.lasted, self.stepped, self.came_ns = 1, 0, 0, 0, 0

    def _is_pause(self, step: int, due: int, since_ns: int) -> bool:
        """Whether a step that goes with the codec's clock is, by a slower clock that seems right, a pause."""
        if not self.wrong or self.rate >= self.codec.clock_rate:
            return False
        return abs(since_ns - step * 1e9 / self.rate) < abs(since_ns - due * 1e9 / self.codec.clock_rate)

    def _seems_wrong(self) -> bool:
        if self.rate < self.codec.clock_rate:
            return True  # audio does not overlap
        told = self.verdict()
        if told is None:  # what seems left out is paid back if it was
            return self.stepped - self.lasted <= _OWED_S * self.codec.clock_rate
        return told

    def decided(self) -> bool | None:
        """Whether the clock is wrong, for good; None: not yet."""
        if self.agreed >= _PAIRS_THAT_AGREE:
            return False
        if self.alike >= _PAIRS_ALIKE and self.lasted >= _MEASURED_S * self.codec.clock_rate and self.usual:
            told = self.verdict()
            if told is not None:
                return told and self.known
        if self.looked_at < _PAIRS_LOOKED_AT:
            return None
        return self.usual and self.known and self.rate < self.codec.clock_rate and self.verdict() is None

    def why_not(self) -> str | None:
        """Why a rate that was found is not counted with; None: there is none to tell of."""
        if not self.usual or self.alike < _PAIRS_ALIKE:
            return None
        told = self.verdict()
        if told:
            return "no sender is known to have that: timestamps are taken as they are"
        if told is None:
            return "arrival times say neither: timestamps are taken as they are"
        if self.rate < self.codec.clock_rate:
            return "packets come as fast as their timestamps say: what overlaps is left out"
        return None
