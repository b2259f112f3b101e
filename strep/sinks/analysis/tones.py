"""Call-progress tones, fax tones and beeps in the audio of all streams.

Windows that are tones (:mod:`.tonal`) of one kind, one after another, make a burst (:mod:`.tone_burst`). Bursts in a
cadence make a tone; the table of tones stands in :mod:`strep.sinks.analysis.tone_cadences`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.types import StreamEvent
from .analyzer import Analyzer
from .bank import FrameBank
from .columns import Columns, column
from .dbm0 import dbm0_of_power
from .tonal import HOP, PAIRS, RATE, WINDOW, find_tones, prepare
from .tone_burst import ToneBurst, ToneWindow
from .tone_cadences import CADENCES, CONTINUOUS_TONES, Cadence, is_single_burst_of_a_cadence, is_special_information
from .window_runs import runs_of_windows

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo
    from .frame_batch import FrameBatch
    from .window_runs import WindowRun

__all__ = ["ToneDetector"]

_BURST_GAP: Final = 3 * HOP  # samples; a burst goes on after two windows that are no tones: noise, a phase reversal
_BURSTS_KEPT: Final = 8  # of a stream: no cadence needs more
_TONES_KEPT: Final = 200  # of a stream, one by one in its figures
_ENDED_STREAMS_KEPT: Final = 10_000  # whose figures can still be asked for
_ALONE_S: Final = 1.0  # nothing like a beep stands so close to a beep
_QUIET_SHARE: Final = 0.05  # power just before and just after a beep, of its own: 13 dB less
_LATE_S: Final = 0.1  # a burst may come so much later than its cadence says


@dataclass(slots=True)
class _OngoingTone:
    """A tone that was told and goes on. Positions in samples at 8 kHz."""

    cadence: Cadence
    begin: float
    end: float
    time_ns: int
    data: dict[str, Any]

    def goes_on_with(self, burst: ToneBurst) -> bool:
        """Whether a burst of the same tone is one of this cadence."""
        pause = (burst.begin - self.end) / RATE
        return burst.seconds <= self.cadence.on[1] and (
            not self.cadence.off or self.cadence.allows_pause(pause) or pause <= 0
        )


@dataclass(slots=True)
class _StreamTones:
    """What is known of a stream's tones."""

    stream: StreamInfo
    burst: ToneBurst | None = None  # that goes on
    bursts: deque[ToneBurst] = field(default_factory=lambda: deque(maxlen=_BURSTS_KEPT))  # that ended
    ongoing: _OngoingTone | None = None
    beep: ToneBurst | None = None  # that may turn out to stand alone
    figures: list[dict[str, Any]] = field(default_factory=list)  # an entry for each tone that has ended
    count: int = 0  # of those

    @property
    def idle(self) -> bool:
        return self.burst is None and self.ongoing is None and self.beep is None


class _Powers(Columns):
    serial: npt.NDArray[np.int64] = column(np.int64, -1)  # of the row's live stream; -1: none
    busy: npt.NDArray[np.bool_] = column(np.bool_)  # whether the next window must be looked at, tone or not
    before: npt.NDArray[np.float32] = column(np.float32, shape=(3,))  # of the last windows, by position / HOP modulo 3


class ToneDetector(Analyzer):
    """Finds dial, ringback, busy and reorder tones, special information tones, fax tones (CNG, CED) and beeps.

    Events are of the kind ``tone``. Their ``data``:

    ``tone``, ``region``  as in the table of :mod:`strep.sinks.analysis.tone_cadences`; region None where it has none
    ``state``             "begin" as soon as the tone is known; "end" when it has ended, with its duration; "whole" for
                          tones that are told once, after their end (sit, beep)
    ``frequencies``       list of Hz
    ``level_dbm0``        0 dBm0 is 3.17 dB below a sine of full scale
    ``seconds``           the length of each of the three tones; of sit only

    ``position`` is where the tone began. The end of a cadence is known when the next burst does not come: for ringback
    5 s after the last one. Tones are found from -36 dBm0 on, 15 dB above noise.

    A beep is told only if it stands alone: it is quiet just before and after it, and no other such tone comes within a
    second. Below 600 Hz it must last 0.2 s, for voices reach that.

    Figures of a stream, under ``"tones"``: ``count``, and ``events`` with ``data`` (but ``state``), ``position_s`` and
    ``duration_s`` of the first 200.
    """

    kind = "tones"
    event_kinds = ("tone",)

    def __init__(self, on_event: Callable[[StreamEvent], object] | None = None) -> None:
        super().__init__(on_event)
        prepare()
        self._bank = FrameBank(WINDOW, HOP, RATE, aside=self.aside, apart=True)
        self._streams: dict[int, _StreamTones] = {}  # live, by row
        self._ended: OrderedDict[int, dict[str, Any]] = OrderedDict()  # figures by serial
        self._powers = _Powers(64)
        self._events: list[StreamEvent] = []

    def stream_started(self, stream: StreamInfo) -> None:
        with self._lock:
            row = stream.index
            self._powers.make_room(row)
            self._powers.reset(row)
            self._powers.serial[row] = stream.serial
            self._bank.reset(row)
            self._streams[row] = _StreamTones(stream)

    def _take(self, batch: BlockBatch) -> None:
        with self._lock:
            self._hear(self._bank.push(batch))
        self._tell_all(self._take_events())

    def _abandon(self, stream: StreamInfo) -> None:
        with self._lock:
            self._bank.reset(stream.index)
            self._forget(stream)

    def _forget(self, stream: StreamInfo) -> None:
        tones = self._streams.get(stream.index)
        if tones is not None and tones.stream is stream:
            del self._streams[stream.index]
            self._powers.busy[stream.index] = False
            self._powers.serial[stream.index] = -1

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        with self._lock:
            tones = self._streams.get(stream.index)
            if tones is None or tones.stream.serial != stream.serial:
                return
            self._hear(self._bank.flush(stream.index))
            if tones.burst is not None:
                self._close(tones)
            if tones.beep is not None:
                self._settle_beep(tones)
            if tones.ongoing is not None:
                self._finish(tones)
            self._forget(tones.stream)
            if tones.count:
                self._ended[stream.serial] = {"tones": {"count": tones.count, "events": tones.figures}}
            while len(self._ended) > _ENDED_STREAMS_KEPT:
                self._ended.popitem(last=False)
        self._tell_all(self._take_events())

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        with self._lock:
            return self._ended.get(stream.serial, {})

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All live streams as columns (n,).

        ``serial`` int64 · ``tones`` int64, how many have ended · ``ongoing`` bool, whether one goes on
        """
        with self._lock:
            rows = np.flatnonzero(self._powers.serial >= 0)
            streams = [self._streams[row] for row in rows.tolist()]
            return {
                "serial": self._powers.serial[rows],
                "tones": np.array([tones.count for tones in streams], np.int64),
                "ongoing": np.array([tones.ongoing is not None for tones in streams], np.bool_),
            }

    def _take_events(self) -> list[StreamEvent]:
        events, self._events = self._events, []
        return events

    # --- bursts -----------------------------------------------------------------------------------------------------

    def _hear(self, batches: list[FrameBatch]) -> None:
        for run in runs_of_windows(batches, HOP):
            self.aside.frames(run, self._eat)

    def _eat(self, run: WindowRun) -> None:
        found = find_tones(run)
        row, powers = run.row, self._powers
        busy = powers.busy.take(row)
        tones_at = np.searchsorted(found.number, np.arange(run.count + 1)).tolist()
        columns = found.at.tolist(), found.pair.tolist(), found.frequency.tolist(), found.purity.tolist()
        entries = list(zip(*columns, strict=True))
        some_busy = bool(busy.any())
        for j in range(run.count) if entries or some_busy else ():
            its = entries[tones_at[j] : tones_at[j + 1]]
            if not its and not some_busy:
                continue
            frames = run.frames[j]
            concerned = np.union1d(np.flatnonzero(busy), np.array([i for i, *_ in its], np.int64))
            for before in range(max(0, j - 3), j):  # what the windows before these had
                positions = run.frames[before].position[concerned]
                powers.before[row[concerned], positions // HOP % 3] = found.power[concerned, before]
            for i, pair, frequency, purity in its:
                busy[i] = False
                tones = self._streams.get(int(row[i]))
                if tones is not None:
                    position, time_ns, power = int(frames.position[i]), int(frames.time_ns[i]), float(found.power[i, j])
                    window = ToneWindow(position, time_ns, pair, frequency, purity, power)
                    self._for(tones.stream, self._hear_tone, tones, window)
            for i in np.flatnonzero(busy).tolist():
                tones = self._streams[int(row[i])]
                self._for(tones.stream, self._after, tones, int(frames.position[i]), float(found.power[i, j]))
            busy = powers.busy.take(row)
            some_busy = bool(busy.any())
        for j in range(max(0, run.count - 3), run.count):
            powers.before[row, run.frames[j].position // HOP % 3] = found.power[:, j]

    def _hear_tone(self, tones: _StreamTones, window: ToneWindow) -> None:
        self._tone(tones, window)
        self._after(tones, window.position, window.power)

    def _tone(self, tones: _StreamTones, window: ToneWindow) -> None:
        """A window is a tone: it belongs to the present burst, or begins one."""
        burst, position = tones.burst, window.position
        if burst is not None and (position - burst.last > _BURST_GAP or not burst.fits(window)):
            self._close(tones)
            burst = None
        if burst is None:
            row = tones.stream.index
            powers = self._powers.before[row]
            burst = tones.burst = ToneBurst(
                pair=window.pair,
                frequency=window.frequency,
                first=position,
                last=position,
                time_ns=window.time_ns,
                before=float(powers[position // HOP % 3]),  # three windows ago
                prior=float(powers[(position // HOP - 1) % 3]),
            )
            self._powers.busy[row] = True
        burst.add(window)
        if tones.ongoing is None:
            burst.measure()
            for cadence in CONTINUOUS_TONES:
                if cadence.is_of(burst) and burst.seconds >= cadence.on[0]:
                    self._begin(tones, cadence, burst)

    def _after(self, tones: _StreamTones, position: int, power: float) -> None:
        """What time brings: the end of bursts, tones and doubts."""
        burst = tones.burst
        if burst is not None and position > burst.last:
            if position == burst.last + HOP:
                burst.next = power
            if position - burst.last >= _BURST_GAP:
                self._close(tones)
        beep = tones.beep
        if beep is not None:
            if beep.after is None and position - beep.last >= _BURST_GAP:
                beep.after = power
            if position - beep.end > _ALONE_S * RATE:
                self._settle_beep(tones)
        ongoing = tones.ongoing
        if ongoing is not None:
            cadence = ongoing.cadence
            sounds = tones.burst is not None and cadence.is_of(tones.burst)
            if not sounds and position - ongoing.end > (cadence.longest_pause_s + _LATE_S) * RATE:
                self._finish(tones)
        if tones.idle:
            self._powers.busy[tones.stream.index] = False

    def _close(self, tones: _StreamTones) -> None:
        """A burst has ended: what do the last ones make?"""
        burst = tones.burst
        if burst is None:
            return
        tones.burst = None
        burst.measure()
        tones.bursts.append(burst)
        ongoing = tones.ongoing
        if ongoing is not None and ongoing.cadence.is_of(burst):
            if ongoing.goes_on_with(burst):
                ongoing.end = max(ongoing.end, burst.end)
                return
            self._finish(tones)
        elif ongoing is None:
            for cadence in CADENCES:
                run = cadence.last_run(tones.bursts)
                if len(run) >= cadence.bursts:
                    self._begin(tones, cadence, run[0]).end = burst.end
                    tones.beep = None
                    return
            last = list(tones.bursts)[-3:]
            if is_special_information(last):
                self._tell_special_information(tones, last)
                tones.beep = None
                return
        self._maybe_beep(tones, burst)

    # --- beeps ------------------------------------------------------------------------------------------------------

    def _maybe_beep(self, tones: _StreamTones, burst: ToneBurst) -> None:
        if not burst.is_beep:
            return
        if tones.beep is not None:
            # two in a second: a melody, a cadence; neither is one that stands alone
            tones.beep = None
            return
        for other in list(tones.bursts)[:-1]:
            if other.is_beep and burst.begin - other.end <= _ALONE_S * RATE:
                return
        if is_single_burst_of_a_cadence(burst):
            return
        if tones.ongoing is None and burst.before <= _QUIET_SHARE * burst.power:
            tones.beep = burst

    def _settle_beep(self, tones: _StreamTones) -> None:
        """A second has passed since a beep: did it stand alone?"""
        beep, tones.beep = tones.beep, None
        if beep is None or (beep.after or 0.0) > _QUIET_SHARE * beep.power:
            return
        if tones.burst is not None and tones.burst.count > 2 and tones.burst.pair < 0:
            return  # another tone goes on
        data = {
            "tone": "beep",
            "region": None,
            "state": "whole",
            "frequencies": [round(beep.frequency, 1)],
            "level_dbm0": dbm0_of_power(beep.power),
        }
        self._add_event(tones, beep.begin, beep.begin_ns, beep.seconds, data)

    # --- events -----------------------------------------------------------------------------------------------------

    def _tell_special_information(self, tones: _StreamTones, bursts: list[ToneBurst]) -> None:
        first, last = bursts[0], bursts[-1]
        data = {
            "tone": "sit",
            "region": None,
            "state": "whole",
            "frequencies": [round(burst.frequency, 1) for burst in bursts],
            "seconds": [round(burst.seconds, 2) for burst in bursts],
            "level_dbm0": dbm0_of_power(last.power),
        }
        self._add_event(tones, first.begin, first.begin_ns, (last.end - first.begin) / RATE, data)

    def _begin(self, tones: _StreamTones, cadence: Cadence, first: ToneBurst) -> _OngoingTone:
        frequencies = list(PAIRS[cadence.pair]) if cadence.pair >= 0 else [round(first.frequency, 1)]
        data = {
            "tone": cadence.tone,
            "region": cadence.region,
            "state": "begin",
            "frequencies": frequencies,
            "level_dbm0": dbm0_of_power(first.power),
        }
        ongoing = tones.ongoing = _OngoingTone(cadence, first.begin, first.end, first.begin_ns, data)
        self._powers.busy[tones.stream.index] = True
        self._add_event(tones, first.begin, first.begin_ns, 0.0, data, counts=False)
        return ongoing

    def _finish(self, tones: _StreamTones) -> None:
        """The tone that went on has ended."""
        ongoing, tones.ongoing = tones.ongoing, None
        if ongoing is not None:
            data = {**ongoing.data, "state": "end"}
            self._add_event(tones, ongoing.begin, ongoing.time_ns, (ongoing.end - ongoing.begin) / RATE, data)

    def _add_event(
        self,
        tones: _StreamTones,
        begin: float,
        time_ns: int,
        seconds: float,
        data: dict[str, Any],
        *,
        counts: bool = True,
    ) -> None:
        rate = tones.stream.sample_rate or RATE
        self._events.append(StreamEvent(tones.stream, "tone", round(begin * rate / RATE), time_ns, seconds, data))
        if not counts:
            return
        tones.count += 1
        if len(tones.figures) < _TONES_KEPT:
            entry = {key: value for key, value in data.items() if key != "state"}
            entry |= {"position_s": round(begin / RATE, 3), "duration_s": round(seconds, 3)}
            tones.figures.append(entry)
