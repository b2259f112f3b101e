"""Keys that are pressed: heard in the audio of all streams at once, and told by RFC 4733 events."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.redacted import REDACTED
from ..._model.types import StreamEvent
from .analyzer import Analyzer
from .bank import FrameBank
from .keys import HOP, RATE, WINDOW, KeyFinder
from .window_runs import runs_of_windows

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo
    from .frame_batch import FrameBatch
    from .keys import InbandDigit

__all__ = ["DtmfDetector"]

_SAME_PRESS_S: Final = 0.1  # a digit heard and one told by RFC 4733 that are this close are one press
_ENDED_STREAMS_KEPT: Final = 10_000  # whose figures can still be asked for
_PRESSES_LISTED: Final = 1_000  # of a stream, one by one in its figures
_PRESSES_COMPARED: Final = 32  # of a stream, the last ones told: they are known again


@dataclass(frozen=True, slots=True)
class _Press:
    """A key press, from either source. ``begin`` and ``end`` are in the stream's sample frames."""

    digit: str
    source: str
    begin: int
    end: int
    level_dbm0: float | None

    def is_same(self, other: _Press, near: int) -> bool:
        """Whether a digit in the audio is what an RFC 4733 event tells of: they touch, or are at most ``near`` sample
        frames apart."""
        if REDACTED not in (other.digit, self.digit) and other.digit != self.digit:
            return False
        return self.begin <= other.end + near and other.begin <= self.end + near


@dataclass(slots=True)
class _PressLog:
    """The key presses of a stream."""

    stream: StreamInfo
    presses: list[_Press] = field(default_factory=list)  # the first ones that were told
    count: int = 0  # of all that were told
    waiting: list[tuple[_Press, StreamEvent]] = field(default_factory=list)  # heard, and not told yet
    recent: deque[_Press] = field(default_factory=lambda: deque(maxlen=_PRESSES_COMPARED))  # the last ones told

    def add(self, press: _Press) -> None:
        """A press that was told."""
        self.count += 1
        self.recent.append(press)
        if len(self.presses) < _PRESSES_LISTED:
            self.presses.append(press)

    def in_order(self) -> list[_Press]:
        """The listed presses in order of time."""
        return sorted(self.presses, key=lambda press: press.begin)


class DtmfDetector(Analyzer):
    """Hears DTMF digits (ITU-T Q.23, Q.24) in the audio of all streams, and tells one event for each key press.

    ``redact``  digits are told as "•", and the summary only counts them. :func:`redacted` does the same to other events

    Events are of the kind ``dtmf``. Their ``data``: ``digit`` "0" to "9", "*", "#", "A" to "D" · ``source`` "inband" ·
    ``level_dbm0`` of both tones together (0 dBm0 is 3.17 dB below a sine of full scale). ``position`` and
    ``duration_s`` say where in the audio the digit stands, to 5 ms. An event is told 0.1 s after the digit's end. So a
    key that the engine tells from RFC 4733 packets (``source`` "rfc4733") is not told again when a gateway left its
    tone, or the beginning of it, in the audio.

    A digit is accepted if its tones are within 1.5 % of nominal (never beyond 3.5 %), each of them -36 dBm0 or louder,
    the high one from 8 dB weaker to 4 dB stronger than the low one, and if it lasts 40 ms. Pauses from 40 ms on divide
    digits, up to 20 ms they do not.

    Figures of a stream, under ``"dtmf"``: ``count``; and, unless redacted, ``digits`` and ``events`` with ``digit``,
    ``source``, ``position_s``, ``duration_s`` and ``level_dbm0`` of the first 1,000 presses, from both sources.
    """

    kind = "dtmf"
    event_kinds = ("dtmf",)

    def __init__(self, on_event: Callable[[StreamEvent], object] | None = None, *, redact: bool = False) -> None:
        super().__init__(on_event)
        self.redact = redact
        self._bank = FrameBank(WINDOW, HOP, RATE, aside=self.aside, apart=True)
        self._finder = KeyFinder(self.aside)
        self._logs: dict[int, _PressLog] = {}  # live, by row
        self._known: OrderedDict[int, _PressLog] = OrderedDict()  # by serial, ended ones too
        self._found: list[InbandDigit] | None = None  # since they were last taken; None: nobody takes them
        self._waiting: set[int] = set()  # rows with digits that are not told yet

    def stream_started(self, stream: StreamInfo) -> None:
        with self._lock:
            self._bank.reset(stream.index)
            self._finder.reset(stream.index)
            self._waiting.discard(stream.index)
            self._log(stream)

    def _log(self, stream: StreamInfo) -> _PressLog:
        log = self._logs.get(stream.index)
        if log is None or log.stream.serial != stream.serial:
            log = self._logs[stream.index] = self._known[stream.serial] = _PressLog(stream)
        return log

    def _take(self, batch: BlockBatch) -> None:
        events: list[StreamEvent] = []
        with self._lock:
            self._listen(self._bank.push(batch))
            if self._waiting:
                for row in sorted(self._waiting):
                    self._for(self._stream_in(row), self._add_due, row, self._finder.heard(row), events)
        self._tell_all(events)

    def _listen(self, batches: list[FrameBatch]) -> None:
        for run in runs_of_windows(batches, HOP):
            for found in self.aside.frames(run, self._finder.find):
                if self._found is not None:
                    self._found += found
                for key in found:
                    self._for(self._stream_in(key.row), self._note, key)

    def _stream_in(self, row: int) -> StreamInfo | None:
        log = self._logs.get(row)
        return None if log is None else log.stream

    def _add_due(self, row: int, heard: int | None, events: list[StreamEvent]) -> None:
        events += self._due(row, heard)

    def _abandon(self, stream: StreamInfo) -> None:
        row = stream.index
        with self._lock:
            self._bank.reset(row)
            self._finder.reset(row)
            self._waiting.discard(row)
            if self._stream_in(row) is stream:
                del self._logs[row]
                self._known.pop(stream.serial, None)

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        row = stream.index
        with self._lock:
            self._listen(self._bank.flush(row))
            found = self._finder.end(row)
            if self._found is not None:
                self._found += found
            for key in found:
                self._note(key)
            events = self._due(row, None)
            self._logs.pop(row, None)
            while len(self._known) - len(self._logs) > _ENDED_STREAMS_KEPT:
                serial = next(s for s, t in self._known.items() if self._logs.get(t.stream.index) is not t)
                del self._known[serial]
        self._tell_all(events)

    def event(self, event: StreamEvent) -> None:
        if event.kind != "dtmf" or event.data.get("source") != "rfc4733":
            return
        stream = event.stream
        rate = stream.sample_rate or RATE
        end = event.position + round(event.duration_s * rate)
        level = event.data.get("level_dbm0")
        press = _Press(str(event.data.get("digit", "")), "rfc4733", event.position, end, level)
        with self._lock:
            log = self._known.get(stream.serial) or self._log(stream)
            near = round(_SAME_PRESS_S * rate)
            log.waiting = [(heard, e) for heard, e in log.waiting if not heard.is_same(press, near)]
            if not log.waiting:
                self._waiting.discard(stream.index)
            if not any(p.source == "inband" and p.is_same(press, near) for p in log.recent):
                log.add(press)

    # --- in-band ----------------------------------------------------------------------------------------------------

    def _note(self, found: InbandDigit) -> None:
        log = self._logs.get(found.row)
        if log is None:
            return
        stream = log.stream
        rate = stream.sample_rate or RATE
        begin, end = found.begin * rate // RATE, found.end * rate // RATE
        press = _Press(found.key, "inband", begin, end, found.level_dbm0)
        if any(p.source == "rfc4733" and press.is_same(p, round(_SAME_PRESS_S * rate)) for p in log.recent):
            return
        duration = (found.end - found.begin) / RATE
        data = {
            "digit": REDACTED if self.redact else found.key,
            "source": "inband",
            "level_dbm0": found.level_dbm0,
        }
        log.waiting.append((press, StreamEvent(stream, "dtmf", press.begin, found.time_ns, duration, data)))
        self._waiting.add(found.row)

    def _due(self, row: int, heard: int | None) -> list[StreamEvent]:
        """Digits of which no RFC 4733 event has come in time; ``heard``: how far the audio has come, None: its end."""
        log = self._logs.get(row)
        if log is None:
            return []
        rate = log.stream.sample_rate or RATE
        limit = None if heard is None else heard * rate // RATE - round(_SAME_PRESS_S * rate)
        due = [(press, event) for press, event in log.waiting if limit is None or press.end <= limit]
        if due:
            log.waiting = log.waiting[len(due) :]
            for press, _ in due:
                log.add(press)
        if not log.waiting:
            self._waiting.discard(row)
        return [event for _, event in due]

    # --- for those who take keys out of the same audio, in the same thread -------------------------------------------

    def take_keys(self) -> list[InbandDigit]:
        """The digits that were found since the last call, told or not; from the first call on."""
        found, self._found = self._found or [], []
        return found

    def going(self, row: int) -> tuple[int, int] | None:
        """Begin and end so far, in samples at 8 kHz, of a digit that is sure and still goes on in a row."""
        return self._finder.going(row)

    @property
    def busy(self) -> Set[int]:
        """The rows in which a digit goes on, or may."""
        return self._finder.busy

    # --- what it knows ----------------------------------------------------------------------------------------------

    def active_mask(self, stream: StreamInfo, position: int, frames: int) -> npt.NDArray[np.bool_]:
        """bool (frames,): True where a digit stands in the audio, for statistics that leave digits out.

        Of the last 32 digits, and of one that goes on; what came in the last 60 ms may be a digit that is not sure yet.
        """
        mask = np.zeros(frames, np.bool_)
        with self._lock:
            log = self._known.get(stream.serial)
            if log is None:
                return mask
            spans = [(press.begin, press.end) for press in log.recent if press.source == "inband"]
            spans += [(press.begin, press.end) for press, _ in log.waiting]
            going = self._finder.going(stream.index) if self._logs.get(stream.index) is log else None
        if going is not None:
            rate = stream.sample_rate or RATE
            spans.append((going[0] * rate // RATE, (going[1] + HOP) * rate // RATE))
        for begin, end in spans:
            mask[max(0, begin - position) : max(0, end - position)] = True
        return mask

    def digits(self, stream: StreamInfo) -> str:
        """What was pressed so far, from both sources, in order of time; "•" each when redacted."""
        with self._lock:
            log = self._known.get(stream.serial)
            presses = log.in_order() if log is not None else []
        return "".join(REDACTED if self.redact else press.digit for press in presses)

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        with self._lock:
            log = self._known.get(stream.serial)
            if log is None or not log.count:
                return {}
            if self.redact:
                return {"dtmf": {"count": log.count}}
            presses = log.in_order()
            count = log.count
        rate = stream.sample_rate or RATE
        events = [
            {
                "digit": press.digit,
                "source": press.source,
                "position_s": round(press.begin / rate, 4),
                "duration_s": round((press.end - press.begin) / rate, 4),
                "level_dbm0": press.level_dbm0,
            }
            for press in presses
        ]
        return {"dtmf": {"count": count, "digits": "".join(press.digit for press in presses), "events": events}}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All live streams as columns (n,).

        ``serial`` int64 · ``presses`` int64, how many were told, from both sources · ``pressing`` bool, whether a digit
        goes on in the audio
        """
        with self._lock:
            logs = list(self._logs.items())
            return {
                "serial": np.array([log.stream.serial for _, log in logs], np.int64),
                "presses": np.array([log.count for _, log in logs], np.int64),
                "pressing": np.array([self._finder.going(row) is not None for row, _ in logs], np.bool_),
            }
