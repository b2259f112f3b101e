"""The tones of the telephone network as bursts in a cadence. Pure.

    tone       region  frequencies, Hz            cadence, s on / off          told after
    dial       us      350+440                    continuous                   1 s
    dial       eu      425                        continuous                   2 s
    ringback   us      440+480                    2 / 4                        1 burst
    ringback   eu      425                        1 / 4                        2
    ringback   uk      400+450                    0.4 / 0.2, 0.4 / 2           2
    busy       us      480+620                    0.5 / 0.5                    2
    busy       eu      425                        0.5 / 0.5                    3
    busy       uk      400                        0.375 / 0.375                3
    reorder    us      480+620                    0.25 / 0.25                  2
    reorder    eu      425                        0.25 / 0.25                  3
    cng                1100                       0.5 / 3                      2         calling fax (ITU-T T.30)
    ced                2100, also with reversals  2.6 to 4                     1.5 s     answering fax, modem (V.25)
    sit                950, 1400, 1800 (± 50)     0.33 each, one by one        its end   special information (E.180)
    beep               400 to 2000, one steady    0.08 to 1.5, standing alone  1 s       recorder, voicemail

ITU-T E.180 has the cadences of the world; us and eu are its most common ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from .tonal import RATE
from .tone_burst import ToneBurst

__all__ = ["CADENCES", "CONTINUOUS_TONES", "Cadence", "is_single_burst_of_a_cadence", "is_special_information"]

Span = tuple[float, float]  # lowest, highest


@dataclass(frozen=True, slots=True)
class Cadence:
    """Bursts of a tone in their rhythm. ``pair``: index into PAIRS, or -1 and ``frequency`` (Hz). ``on``: the bursts'
    length, ``off``: the pauses that may stand between them, seconds. ``bursts``: so many make the tone."""

    tone: str
    region: str | None
    pair: int
    frequency: Span
    on: Span
    off: tuple[Span, ...] = ()
    bursts: int = 1

    def is_of(self, burst: ToneBurst) -> bool:
        """Whether a burst is of this tone, whatever its length."""
        if burst.pair != self.pair:
            return False
        return self.pair >= 0 or self.frequency[0] <= burst.frequency <= self.frequency[1]

    def allows_pause(self, seconds: float) -> bool:
        return any(low <= seconds <= high for low, high in self.off)

    @property
    def longest_pause_s(self) -> float:
        return self.off[-1][1] if self.off else 0.0

    def last_run(self, bursts: Sequence[ToneBurst]) -> list[ToneBurst]:
        """The last bursts, as many as keep to the cadence."""
        run: list[ToneBurst] = []
        for burst in reversed(bursts):
            if not self.is_of(burst) or not self.on[0] <= burst.seconds <= self.on[1]:
                break
            if run and not self.allows_pause((run[0].begin - burst.end) / RATE):
                break
            run.insert(0, burst)
        return run


_PAIR: Final = (0.0, 0.0)  # no single frequency
_EU: Final = (413.0, 437.0)
_CNG: Final = (1062.0, 1138.0)
_ENDLESS_S: Final = 1e9
CADENCES: Final = (
    Cadence("ringback", "us", 1, _PAIR, (1.5, 2.5), ((3.2, 4.8),)),
    Cadence("busy", "us", 2, _PAIR, (0.4, 0.6), ((0.4, 0.6),), 2),
    Cadence("reorder", "us", 2, _PAIR, (0.18, 0.33), ((0.18, 0.33),), 2),
    Cadence("ringback", "uk", 3, _PAIR, (0.32, 0.48), ((0.13, 0.27), (1.7, 2.3)), 2),
    Cadence("ringback", "eu", -1, _EU, (0.75, 1.3), ((3.0, 5.2),), 2),
    Cadence("busy", "eu", -1, _EU, (0.4, 0.6), ((0.4, 0.6),), 3),
    Cadence("reorder", "eu", -1, _EU, (0.18, 0.33), ((0.18, 0.33),), 3),
    Cadence("busy", "uk", -1, (390.0, 410.0), (0.3, 0.45), ((0.3, 0.45),), 3),
    Cadence("cng", None, -1, _CNG, (0.42, 0.58), ((2.5, 3.5),), 2),
)
CONTINUOUS_TONES: Final = (
    Cadence("dial", "us", 0, _PAIR, (1.0, _ENDLESS_S)),
    Cadence("dial", "eu", -1, _EU, (2.0, _ENDLESS_S)),
    Cadence("ced", None, -1, (2079.0, 2121.0), (1.5, _ENDLESS_S)),
)
# ringback's and CNG's single bursts look like beeps: frequency, length
_SINGLE_BURSTS: Final = ((_EU, (0.7, 1.5)), (_CNG, (0.4, 0.6)))
_SIT_HZ: Final = ((900.0, 1000.0), (1350.0, 1450.0), (1750.0, 1850.0))
_SIT_ON_S: Final = (0.2, 0.45)
_SIT_PAUSE_S: Final = 0.08  # at most, between its tones


def is_single_burst_of_a_cadence(burst: ToneBurst) -> bool:
    return any(
        low <= burst.frequency <= high and shortest <= burst.seconds <= longest
        for (low, high), (shortest, longest) in _SINGLE_BURSTS
    )


def is_special_information(bursts: Sequence[ToneBurst]) -> bool:
    """Whether three bursts are the rising tones of special information, one right after another (ITU-T E.180; US:
    913.8 or 985.2, 1370.6 or 1428.5, 1776.7 Hz)."""
    if len(bursts) != len(_SIT_HZ):
        return False
    for burst, (low, high) in zip(bursts, _SIT_HZ, strict=True):
        if burst.pair >= 0 or not low <= burst.frequency <= high or not _SIT_ON_S[0] <= burst.seconds <= _SIT_ON_S[1]:
            return False
    return all((b.begin - a.end) / RATE <= _SIT_PAUSE_S for a, b in pairwise(bursts))
