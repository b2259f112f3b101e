"""Call-progress tones, fax tones and beeps in the audio of all streams.

Windows that are tones (``_tonal``) of one kind, one after another, make a *burst*; bursts in a cadence make a tone.

    tone       region  frequencies                cadence, s on / off          told after
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

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..._model.types import StreamEvent
from .analyzer import Analyzer
from .tonal import HOP, PAIRS, RATE, WINDOW, dbm0, find_tones, tone_bank

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo
    from .frame_batch import FrameBatch

__all__ = ["ToneDetector"]

_MISSING: Final = 3 * HOP  # a burst goes on after two windows that are no tones: noise, a phase reversal
_KEPT_TONES: Final = 200  # of a stream, one by one in its figures

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Cadence:
    """Seconds. ``pair`` index into PAIRS, or -1 and ``frequency`` (lowest, highest)."""

    tone: str
    region: str | None
    pair: int
    frequency: Range
    on: Range
    off: tuple[Range, ...] = ()
    bursts: int = 1

    def is_of(self, burst: _Burst) -> bool:
        if burst.pair != self.pair:
            return False
        return self.pair >= 0 or self.frequency[0] <= burst.frequency <= self.frequency[1]


_ANY: Final = (0.0, 0.0)
_EU: Final = (413.0, 437.0)
_CADENCES: Final = (
    _Cadence("ringback", "us", 1, _ANY, (1.5, 2.5), ((3.2, 4.8),)),
    _Cadence("busy", "us", 2, _ANY, (0.4, 0.6), ((0.4, 0.6),), 2),
    _Cadence("reorder", "us", 2, _ANY, (0.18, 0.33), ((0.18, 0.33),), 2),
    _Cadence("ringback", "uk", 3, _ANY, (0.32, 0.48), ((0.13, 0.27), (1.7, 2.3)), 2),
    _Cadence("ringback", "eu", -1, _EU, (0.75, 1.3), ((3.0, 5.2),), 2),
    _Cadence("busy", "eu", -1, _EU, (0.4, 0.6), ((0.4, 0.6),), 3),
    _Cadence("reorder", "eu", -1, _EU, (0.18, 0.33), ((0.18, 0.33),), 3),
    _Cadence("busy", "uk", -1, (390.0, 410.0), (0.3, 0.45), ((0.3, 0.45),), 3),
    _Cadence("cng", None, -1, (1062.0, 1138.0), (0.42, 0.58), ((2.5, 3.5),), 2),
)
_CONTINUOUS: Final = (
    _Cadence("dial", "us", 0, _ANY, (1.0, 1e9)),
    _Cadence("dial", "eu", -1, _EU, (2.0, 1e9)),
    _Cadence("ced", None, -1, (2079.0, 2121.0), (1.5, 1e9)),
)
_SIT: Final = ((900.0, 1000.0), (1350.0, 1450.0), (1750.0, 1850.0))
_SIT_ON: Final = (0.2, 0.45)
_SIT_PAUSE_S: Final = 0.08
_BEEP: Final = (400.0, 2000.0)
_BEEP_ON: Final = (0.075, 1.5)
_BEEP_PURITY: Final = 0.98
_BEEP_VOICE: Final = (
    600.0,
    0.2,
)  # children's voices reach 500 Hz, and now and then are pure: below, only what is longer
_BEEP_SPREAD: Final = 0.004  # standard deviation of its windows' frequencies
_FULL: Final = 0.95
_BEEP_WINDOWS: Final = 64  # as many as fit in the longest
_ALONE_S: Final = 1.0
_ALONE_POWER: Final = 0.05  # just before and just after, of the beep's own: 13 dB less
_NOT_BEEPS: Final = (*_EU, 0.7, 1.5), (1062.0, 1138.0, 0.4, 0.6)  # ringback's and CNG's single bursts


@dataclass(slots=True)
class _Burst:
    """Windows of one tone, or pair, one after another. Positions at 8 kHz."""

    pair: int
    frequency: float  # mean so far
    first: int
    last: int
    time_ns: int
    before: float  # power just before, clear of it
    prior: float  # and of the last window before its first one
    windows: list[tuple[float, float, float]] = field(default_factory=list)  # frequency, purity, power
    last_power: float = 0.0
    next: float = 0.0  # of the first window after its last one
    power: float = 0.0  # of windows that it fills
    count: int = 0
    begin: float = 0.0
    end: float = 0.0
    after: float | None = None  # power just after

    def add(self, position: int, frequency: float, purity: float, power: float) -> None:
        self.last = position
        self.count += 1
        self.frequency += (frequency - self.frequency) / self.count
        self.last_power = power
        self.power = max(self.power, power)
        if self.count <= _BEEP_WINDOWS:
            self.windows.append((frequency, purity, power))

    @property
    def seconds(self) -> float:
        return (self.end - self.begin) / RATE

    def measure(self) -> None:
        """Begin and end, by the share of its power that the windows there have: of a window that it fills in part only
        little may be a tone, by the look of it."""
        first, last, prior, after = (
            p / self.power for p in (self.windows[0][2], self.last_power, self.prior, self.next)
        )
        self.begin, self.end = self.first + WINDOW * (1 - first), self.last + WINDOW * last
        if first > _FULL and 0.5 < prior < _FULL:
            self.begin = self.first + HOP - WINDOW * prior
        if last > _FULL and 0.5 < after < _FULL:
            self.end = self.last + HOP + WINDOW * after

    def fits(self, pair: int, frequency: float) -> bool:
        return pair == self.pair and (pair >= 0 or abs(frequency - self.frequency) <= max(10.0, 0.012 * self.frequency))

    @property
    def is_beep(self) -> bool:
        """One pure and steady tone, as long as beeps are; whether it stands alone is another question."""
        if self.pair >= 0 or not _BEEP_ON[0] <= self.seconds <= _BEEP_ON[1]:
            return False
        # not the first and last windows, which it fills in part only
        full = np.array([w[:2] for w in self.windows if w[2] >= 0.8 * self.power])
        mean, purity = full.mean(0)
        if len(full) < 2 or not _BEEP[0] <= mean <= _BEEP[1]:
            return False
        if mean < _BEEP_VOICE[0] and self.seconds < _BEEP_VOICE[1]:
            return False
        return bool(purity >= _BEEP_PURITY and full[:, 0].std() <= _BEEP_SPREAD * mean)


@dataclass(slots=True)
class _Active:
    """A tone that was told and goes on."""

    cadence: _Cadence
    begin: float
    end: float
    time_ns: int
    data: dict[str, Any]


@dataclass(slots=True)
class _Row:
    stream: StreamInfo
    burst: _Burst | None = None
    bursts: deque[_Burst] = field(default_factory=lambda: deque(maxlen=8))
    active: _Active | None = None
    beep: _Burst | None = None  # that may turn out to stand alone
    told: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0

    @property
    def idle(self) -> bool:
        return self.burst is None and self.active is None and self.beep is None


class ToneDetector(Analyzer):
    """Tells dial, ringback, busy and reorder tones, special information tones, fax tones (CNG, CED) and beeps.

    An event's ``data``: ``tone`` and ``region`` as in the module's table (region None where there is none), ``state``
    "begin" as soon as it is known, "end" with its duration when it has ended, "whole" for what is told once, after its
    end (sit, beep); ``frequencies`` Hz, ``level_dbm0`` (0 dBm0 is 3.17 dB below a sine of full scale). Ends are known
    when the next burst does not come: for ringback 5 s after the last one. Tones from -36 dBm0 on, 15 dB over noise.

    A beep is told only when it stands alone: quiet just before and after it, and no other such tone within a second;
    below 600 Hz only from 0.2 s on, for voices reach that.
    """

    kind = "tones"

    def __init__(self, on_event: Callable[[StreamEvent], object] | None = None) -> None:
        super().__init__(on_event)
        self._bank = tone_bank(self.aside)
        self._rows: dict[int, _Row] = {}
        self._done: dict[int, dict[str, Any]] = {}  # figures by serial, of streams that ended
        self._busy = np.zeros(64, np.bool_)
        self._before = np.zeros((64, 3), np.float32)  # power of each row's last windows, by position / HOP modulo 3
        self._events: list[StreamEvent] = []

    def stream_started(self, stream: StreamInfo) -> None:
        with self._lock:
            row = stream.index
            if row >= len(self._busy):
                more = max(row + 1, 2 * len(self._busy)) - len(self._busy)
                self._busy = np.append(self._busy, np.zeros(more, np.bool_))
                self._before = np.concatenate([self._before, np.zeros((more, 3), np.float32)])
            self._bank.reset(row)
            self._rows[row] = _Row(stream)
            self._busy[row] = False
            self._before[row] = 0

    def _take(self, batch: BlockBatch) -> None:
        with self._lock:
            for frames in self._bank.push(batch):
                self.aside.frames(frames, self._eat)
        self._tell_all()

    def _abandon(self, stream: StreamInfo) -> None:
        with self._lock:
            row = self._rows.get(stream.index)
            self._bank.reset(stream.index)
            if row is not None and row.stream is stream:
                del self._rows[stream.index]
                self._busy[stream.index] = False

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        with self._lock:
            row = self._rows.get(stream.index)
            if row is None or row.stream.serial != stream.serial:
                return
            for frames in self._bank.flush(stream.index):
                self.aside.frames(frames, self._eat)
            if row.burst is not None:
                self._close(row)
            if row.beep is not None:
                self._settle_beep(row)
            if row.active is not None:
                self._finish(row)
            del self._rows[stream.index]
            self._busy[stream.index] = False
            if row.count:
                self._done[stream.serial] = {"tones": {"count": row.count, "events": row.told}}
            while len(self._done) > 10_000:
                del self._done[next(iter(self._done))]
        self._tell_all()

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        with self._lock:
            return self._done.get(stream.serial, {})

    def _tell_all(self) -> None:
        events, self._events = self._events, []
        for event in events:
            self.tell(event)

    # --- bursts -----------------------------------------------------------------------------------------------------

    def _eat(self, frames: FrameBatch) -> None:
        tonal = find_tones(frames)
        busy = self._busy.take(frames.row)
        busy[tonal.at] = False
        for i, pair, frequency, purity in zip(
            tonal.at.tolist(), tonal.pair.tolist(), tonal.frequency.tolist(), tonal.purity.tolist(), strict=True
        ):
            row = self._rows.get(int(frames.row[i]))
            if row is not None:
                position, time_ns, power = int(frames.position[i]), int(frames.time_ns[i]), float(tonal.power[i])
                self._for(row.stream, self._one, row, position, time_ns, pair, frequency, purity, power)
        for i in np.flatnonzero(busy).tolist():
            row = self._rows[int(frames.row[i])]
            self._for(row.stream, self._after, row, int(frames.position[i]), float(tonal.power[i]))
        self._before[frames.row, frames.position // HOP % 3] = tonal.power

    def _one(
        self, row: _Row, position: int, time_ns: int, pair: int, frequency: float, purity: float, power: float
    ) -> None:
        self._tone(row, position, time_ns, pair, frequency, purity, power)
        self._after(row, position, power)

    def _tone(
        self, row: _Row, position: int, time_ns: int, pair: int, frequency: float, purity: float, power: float
    ) -> None:
        burst = row.burst
        if burst is not None and (position - burst.last > _MISSING or not burst.fits(pair, frequency)):
            self._close(row)
            burst = None
        if burst is None:
            before = float(self._before[row.stream.index, position // HOP % 3])  # three windows ago
            prior = float(self._before[row.stream.index, (position // HOP - 1) % 3])
            burst = row.burst = _Burst(pair, frequency, position, position, time_ns, before, prior)
            self._busy[row.stream.index] = True
        burst.add(position, frequency, purity, power)
        if row.active is None:
            burst.measure()
            for cadence in _CONTINUOUS:
                if cadence.is_of(burst) and burst.seconds >= cadence.on[0]:
                    self._begin(row, cadence, burst)

    def _after(self, row: _Row, position: int, power: float) -> None:
        """What time brings: the end of bursts, tones and doubts."""
        burst = row.burst
        if burst is not None and position > burst.last:
            if position == burst.last + HOP:
                burst.next = power
            if position - burst.last >= _MISSING:
                self._close(row)
        beep = row.beep
        if beep is not None:
            if beep.after is None and position - beep.last >= _MISSING:
                beep.after = power
            if position - beep.end > _ALONE_S * RATE:
                self._settle_beep(row)
        active = row.active
        if active is not None:
            cadence = active.cadence
            longest = cadence.off[-1][1] if cadence.off else 0.0
            goes_on = row.burst is not None and cadence.is_of(row.burst)
            if not goes_on and position - active.end > (longest + 0.1) * RATE:
                self._finish(row)
        if row.idle:
            self._busy[row.stream.index] = False

    def _close(self, row: _Row) -> None:
        """A burst has ended: what do the last ones make?"""
        burst = row.burst
        if burst is None:
            return
        row.burst = None
        burst.measure()
        row.bursts.append(burst)
        active = row.active
        if active is not None and active.cadence.is_of(burst):
            if burst.seconds <= active.cadence.on[1] and self._follows(active, burst):
                active.end = max(active.end, burst.end)
                return
            self._finish(row)
        elif active is None:
            for cadence in _CADENCES:
                run = self._run(row, cadence)
                if len(run) >= cadence.bursts:
                    self._begin(row, cadence, run[0])
                    if row.active is not None:
                        row.active.end = burst.end
                    row.beep = None
                    return
            if self._sit(row):
                row.beep = None
                return
        self._maybe_beep(row, burst)

    @staticmethod
    def _follows(active: _Active, burst: _Burst) -> bool:
        pause = (burst.begin - active.end) / RATE
        return not active.cadence.off or any(low <= pause <= high for low, high in active.cadence.off) or pause <= 0

    @staticmethod
    def _run(row: _Row, cadence: _Cadence) -> list[_Burst]:
        """The last bursts, as many as keep to a cadence."""
        run: list[_Burst] = []
        for burst in reversed(row.bursts):
            if not cadence.is_of(burst) or not cadence.on[0] <= burst.seconds <= cadence.on[1]:
                break
            if run:
                pause = (run[0].begin - burst.end) / RATE
                if not any(low <= pause <= high for low, high in cadence.off):
                    break
            run.insert(0, burst)
        return run

    def _sit(self, row: _Row) -> bool:
        """Three rising tones, one right after another (ITU-T E.180; US: 913.8 or 985.2, 1370.6 or 1428.5, 1776.7)."""
        last = list(row.bursts)[-3:]
        if len(last) < 3:
            return False
        for burst, (low, high) in zip(last, _SIT, strict=True):
            if burst.pair >= 0 or not low <= burst.frequency <= high or not _SIT_ON[0] <= burst.seconds <= _SIT_ON[1]:
                return False
        if any((b.begin - a.end) / RATE > _SIT_PAUSE_S for a, b in pairwise(last)):
            return False
        data = {
            "tone": "sit",
            "region": None,
            "state": "whole",
            "frequencies": [round(b.frequency, 1) for b in last],
            "seconds": [round(b.seconds, 2) for b in last],
            "level_dbm0": dbm0(last[-1].power),
        }
        self._say(row, last[0].begin, self._time(last[0]), (last[-1].end - last[0].begin) / RATE, data)
        return True

    # --- beeps ------------------------------------------------------------------------------------------------------

    def _maybe_beep(self, row: _Row, burst: _Burst) -> None:
        if not burst.is_beep:
            return
        if row.beep is not None:
            # two in a second: a melody, a cadence; neither is one that stands alone
            row.beep = None
            return
        for other in list(row.bursts)[:-1]:
            if other.is_beep and burst.begin - other.end <= _ALONE_S * RATE:
                return
        if any(low <= burst.frequency <= high and a <= burst.seconds <= b for low, high, a, b in _NOT_BEEPS):
            return
        if row.active is None and burst.before <= _ALONE_POWER * burst.power:
            row.beep = burst

    def _settle_beep(self, row: _Row) -> None:
        beep, row.beep = row.beep, None
        if beep is None or (beep.after or 0.0) > _ALONE_POWER * beep.power:
            return
        if row.burst is not None and row.burst.count > 2 and row.burst.pair < 0:
            return  # another tone goes on
        data = {
            "tone": "beep",
            "region": None,
            "state": "whole",
            "frequencies": [round(beep.frequency, 1)],
            "level_dbm0": dbm0(beep.power),
        }
        self._say(row, beep.begin, self._time(beep), beep.seconds, data)

    # --- telling ----------------------------------------------------------------------------------------------------

    def _begin(self, row: _Row, cadence: _Cadence, first: _Burst) -> None:
        frequencies = list(PAIRS[cadence.pair]) if cadence.pair >= 0 else [round(first.frequency, 1)]
        data = {
            "tone": cadence.tone,
            "region": cadence.region,
            "state": "begin",
            "frequencies": frequencies,
            "level_dbm0": dbm0(first.power),
        }
        row.active = _Active(cadence, first.begin, first.end, self._time(first), data)
        self._busy[row.stream.index] = True
        self._say(row, first.begin, row.active.time_ns, 0.0, data, counts=False)

    def _finish(self, row: _Row) -> None:
        active = row.active
        if active is None:
            return
        row.active = None
        data = {**active.data, "state": "end"}
        self._say(row, active.begin, active.time_ns, (active.end - active.begin) / RATE, data)

    @staticmethod
    def _time(burst: _Burst) -> int:
        return burst.time_ns + round((burst.begin - burst.first) * 1e9 / RATE)

    def _say(
        self, row: _Row, begin: float, time_ns: int, seconds: float, data: dict[str, Any], *, counts: bool = True
    ) -> None:
        rate = row.stream.sample_rate or RATE
        self._events.append(StreamEvent(row.stream, "tone", round(begin * rate / RATE), time_ns, seconds, data))
        if not counts:
            return
        row.count += 1
        if len(row.told) < _KEPT_TONES:
            entry = {k: v for k, v in data.items() if k != "state"}
            row.told.append(entry | {"position_s": round(begin / RATE, 3), "duration_s": round(seconds, 3)})
