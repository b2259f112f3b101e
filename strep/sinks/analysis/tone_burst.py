"""A burst of a tone: windows of one tone, or of one pair of tones, one after another. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from .tonal import HOP, RATE, WINDOW

__all__ = ["ToneBurst", "ToneWindow"]

_BEEP_HZ: Final = (400.0, 2000.0)
_BEEP_S: Final = (0.075, 1.5)
_BEEP_PURITY: Final = 0.98  # share of the energy that is the tone
_BEEP_SPREAD: Final = 0.004  # standard deviation of its windows' frequencies, as a share of their mean
# children's voices reach 500 Hz, and now and then are pure: below so many Hz only what is at least so many seconds long
_BEEP_ABOVE_VOICES_HZ: Final = 600.0
_BEEP_LOW_S: Final = 0.2
_WINDOWS_KEPT: Final = 64  # of a burst: as many as fit into the longest beep
_FILLED: Final = 0.95  # share of the burst's power from which on it fills a window
_FILLED_BEEP: Final = 0.8  # the same for the windows that a beep is judged by
_SAME_TONE_HZ: Final = 10.0  # windows are of one tone up to so many Hz, or that share of their frequency, apart
_SAME_TONE_SHARE: Final = 0.012


class ToneWindow(NamedTuple):
    """A window that is a tone. ``position`` in samples at 8 kHz; ``pair``, ``frequency`` and ``purity`` as in
    :class:`.tonal.TonalWindows`; ``power`` is its mean square."""

    position: int
    time_ns: int
    pair: int
    frequency: float
    purity: float
    power: float


@dataclass(slots=True)
class ToneBurst:
    """Positions are in samples at 8 kHz; powers are mean squares of windows."""

    pair: int  # index into PAIRS; -1: a single tone
    frequency: float  # Hz, the mean so far
    first: int  # positions of the first and last window
    last: int
    time_ns: int  # of the first window
    before: float  # power just before the burst, clear of it
    prior: float  # power of the last window before its first one
    windows: list[ToneWindow] = field(default_factory=list)  # the first ones
    last_power: float = 0.0
    next: float = 0.0  # power of the first window after its last one
    power: float = 0.0  # of windows that it fills
    count: int = 0  # of windows
    begin: float = 0.0
    end: float = 0.0
    after: float | None = None  # power just after the burst, clear of it; None: not known yet

    def add(self, window: ToneWindow) -> None:
        self.last = window.position
        self.count += 1
        self.frequency += (window.frequency - self.frequency) / self.count
        self.last_power = window.power
        self.power = max(self.power, window.power)
        if self.count <= _WINDOWS_KEPT:
            self.windows.append(window)

    @property
    def seconds(self) -> float:
        return (self.end - self.begin) / RATE

    @property
    def begin_ns(self) -> int:
        """When it began, in ns on the receiver's clock."""
        return self.time_ns + round((self.begin - self.first) * 1e9 / RATE)

    def measure(self) -> None:
        """Find begin and end, by the share of the burst's power in the windows there. A window that the burst fills
        only in a small part may not look like a tone."""
        powers = (self.windows[0].power, self.last_power, self.prior, self.next)
        first, last, prior, after = (power / self.power for power in powers)
        self.begin, self.end = self.first + WINDOW * (1 - first), self.last + WINDOW * last
        if first > _FILLED and 0.5 < prior < _FILLED:
            self.begin = self.first + HOP - WINDOW * prior
        if last > _FILLED and 0.5 < after < _FILLED:
            self.end = self.last + HOP + WINDOW * after

    def fits(self, window: ToneWindow) -> bool:
        """Whether a window is of the same tone."""
        if window.pair != self.pair:
            return False
        near = max(_SAME_TONE_HZ, _SAME_TONE_SHARE * self.frequency)
        return self.pair >= 0 or abs(window.frequency - self.frequency) <= near

    @property
    def is_beep(self) -> bool:
        """Whether it is one pure and steady tone, as long as beeps are. Whether it stands alone is another question."""
        if self.pair >= 0 or not _BEEP_S[0] <= self.seconds <= _BEEP_S[1]:
            return False
        # not the first and last windows, which it fills in part only
        filled = [w for w in self.windows if w.power >= _FILLED_BEEP * self.power]
        full = np.array([(w.frequency, w.purity) for w in filled])
        mean, purity = full.mean(0)
        if len(full) < 2 or not _BEEP_HZ[0] <= mean <= _BEEP_HZ[1]:
            return False
        if mean < _BEEP_ABOVE_VOICES_HZ and self.seconds < _BEEP_LOW_S:
            return False
        return bool(purity >= _BEEP_PURITY and full[:, 0].std() <= _BEEP_SPREAD * mean)
