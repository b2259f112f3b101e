"""Keys that are pressed: heard in the audio of all streams at once, and told by RFC 4733 events."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.redacted import REDACTED
from ..._model.types import StreamEvent
from .analyzer import Analyzer
from .keys import HOP, RATE, KeyFinder, key_bank

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo
    from .frame_batch import FrameBatch
    from .keys import FoundKey

__all__ = ["DtmfDetector"]

_TOGETHER_S: Final = 0.1  # a key heard and told by RFC 4733 this close is one
_KEPT_STREAMS: Final = 10_000  # ended streams whose figures are still known
_KEPT_KEYS: Final = 1_000  # keys of a stream that stand in its figures one by one


@dataclass(frozen=True, slots=True)
class _Key:
    digit: str
    source: str
    begin: int  # in the stream's sample frames
    end: int
    level_dbm0: float | None


@dataclass(slots=True)
class _Track:
    stream: StreamInfo
    keys: list[_Key] = field(default_factory=list)
    count: int = 0
    waiting: list[tuple[_Key, StreamEvent]] = field(default_factory=list)
    recent: deque[_Key] = field(default_factory=lambda: deque(maxlen=32))  # told, to find the same one again

    def told(self, key: _Key) -> None:
        self.count += 1
        self.recent.append(key)
        if len(self.keys) < _KEPT_KEYS:
            self.keys.append(key)


class DtmfDetector(Analyzer):
    """Hears DTMF digits (ITU-T Q.23, Q.24) in the audio of all streams, and tells one event for each key press.

    An event's ``data``: ``digit`` "0" to "9", "*", "#", "A" to "D"; ``source`` "inband"; ``level_dbm0`` of both tones
    together (0 dBm0 is 3.17 dB below a sine of full scale); ``position`` and ``duration_s`` say where in the audio the
    digit stands, to 5 ms. It is told 0.1 s after the digit's end, so that a key which the engine tells from RFC 4733
    packets (``source`` "rfc4733") is not told again when a gateway left its tone, or the beginning of it, in the audio.

    ``redact``  digits are told as "•", and the summary counts them only; :func:`redacted` does the same to other events

    Accepted: tones within 1.5 % of nominal (none beyond 3.5 %), each from -36 dBm0 on, the high one 4 dB stronger to
    8 dB weaker than the low one, from 40 ms on; pauses from 40 ms on divide digits, up to 20 ms they do not.
    """

    kind = "dtmf"

    def __init__(self, on_event: Callable[[StreamEvent], object] | None = None, *, redact: bool = False) -> None:
        super().__init__(on_event)
        self.redact = redact
        self._bank = key_bank(self.aside)
        self._finder = KeyFinder(self.aside)
        self._tracks: dict[int, _Track] = {}  # live, by row
        self._known: OrderedDict[int, _Track] = OrderedDict()  # by serial, ended ones too
        self._waiting: set[int] = set()  # rows with digits that are not told yet

    def stream_started(self, stream: StreamInfo) -> None:
        with self._lock:
            self._bank.reset(stream.index)
            self._finder.reset(stream.index)
            self._waiting.discard(stream.index)
            self._track(stream)

    def _track(self, stream: StreamInfo) -> _Track:
        track = self._tracks.get(stream.index)
        if track is None or track.stream.serial != stream.serial:
            track = self._tracks[stream.index] = self._known[stream.serial] = _Track(stream)
        return track

    def _take(self, batch: BlockBatch) -> None:
        events: list[StreamEvent] = []
        with self._lock:
            self._listen(self._bank.push(batch))
            if self._waiting:
                for row in sorted(self._waiting):
                    self._for(self._of(row), self._add_due, row, self._finder.heard(row), events)
        self._tell(events)

    def _listen(self, batches: list[FrameBatch]) -> None:
        for frames in batches:
            for found in self.aside.frames(frames, self._finder.find):
                for key in found:
                    self._for(self._of(key.row), self._note, key)

    def _of(self, row: int) -> StreamInfo | None:
        track = self._tracks.get(row)
        return None if track is None else track.stream

    def _add_due(self, row: int, heard: int | None, events: list[StreamEvent]) -> None:
        events += self._due(row, heard)

    def _abandon(self, stream: StreamInfo) -> None:
        row = stream.index
        with self._lock:
            self._bank.reset(row)
            self._finder.reset(row)
            self._waiting.discard(row)
            if self._of(row) is stream:
                del self._tracks[row]
                self._known.pop(stream.serial, None)

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        row = stream.index
        with self._lock:
            self._listen(self._bank.flush(row))
            for found in self._finder.end(row):
                self._note(found)
            events = self._due(row, None)
            self._tracks.pop(row, None)
            while len(self._known) - len(self._tracks) > _KEPT_STREAMS:
                serial = next(s for s, t in self._known.items() if self._tracks.get(t.stream.index) is not t)
                del self._known[serial]
        self._tell(events)

    def event(self, event: StreamEvent) -> None:
        if event.kind != "dtmf" or event.data.get("source") != "rfc4733":
            return
        stream = event.stream
        rate = stream.sample_rate or RATE
        end = event.position + round(event.duration_s * rate)
        level = event.data.get("level_dbm0")
        key = _Key(str(event.data.get("digit", "")), "rfc4733", event.position, end, level)
        with self._lock:
            track = self._known.get(stream.serial) or self._track(stream)
            near = round(_TOGETHER_S * rate)
            track.waiting = [(k, e) for k, e in track.waiting if not _same(k, key, near)]
            if not track.waiting:
                self._waiting.discard(stream.index)
            if not any(k.source == "inband" and _same(k, key, near) for k in track.recent):
                track.told(key)

    # --- in-band ----------------------------------------------------------------------------------------------------

    def _note(self, found: FoundKey) -> None:
        track = self._tracks.get(found.row)
        if track is None:
            return
        stream = track.stream
        rate = stream.sample_rate or RATE
        key = _Key(found.key, "inband", found.begin * rate // RATE, found.end * rate // RATE, found.level_dbm0)
        if any(k.source == "rfc4733" and _same(key, k, round(_TOGETHER_S * rate)) for k in track.recent):
            return
        duration = (found.end - found.begin) / RATE
        data = {
            "digit": REDACTED if self.redact else found.key,
            "source": "inband",
            "level_dbm0": found.level_dbm0,
        }
        track.waiting.append((key, StreamEvent(stream, "dtmf", key.begin, found.time_ns, duration, data)))
        self._waiting.add(found.row)

    def _due(self, row: int, heard: int | None) -> list[StreamEvent]:
        """Digits of which no RFC 4733 event has come in time; ``heard``: how far the audio has come, None: its end."""
        track = self._tracks.get(row)
        if track is None:
            return []
        rate = track.stream.sample_rate or RATE
        limit = None if heard is None else heard * rate // RATE - round(_TOGETHER_S * rate)
        due = [(k, e) for k, e in track.waiting if limit is None or k.end <= limit]
        if due:
            track.waiting = track.waiting[len(due) :]
            for key, _ in due:
                track.told(key)
        if not track.waiting:
            self._waiting.discard(row)
        return [event for _, event in due]

    def _tell(self, events: list[StreamEvent]) -> None:
        for event in events:
            self.tell(event)

    # --- what it knows ----------------------------------------------------------------------------------------------

    def active_mask(self, stream: StreamInfo, position: int, frames: int) -> npt.NDArray[np.bool_]:
        """bool (frames,): True where a digit stands in the audio, for statistics that leave digits out.

        Of the last 32 digits, and of one that goes on; what came in the last 60 ms may be a digit that is not sure yet.
        """
        mask = np.zeros(frames, np.bool_)
        with self._lock:
            track = self._known.get(stream.serial)
            if track is None:
                return mask
            spans = [(k.begin, k.end) for k in track.recent if k.source == "inband"]
            spans += [(k.begin, k.end) for k, _ in track.waiting]
            going = self._finder.going(stream.index) if self._tracks.get(stream.index) is track else None
        if going is not None:
            rate = stream.sample_rate or RATE
            spans.append((going[0] * rate // RATE, (going[1] + HOP) * rate // RATE))
        for begin, end in spans:
            mask[max(0, begin - position) : max(0, end - position)] = True
        return mask

    def digits(self, stream: StreamInfo) -> str:
        """What was pressed so far, from both sources, in order of time; "•" each when redacted."""
        with self._lock:
            track = self._known.get(stream.serial)
            keys = sorted(track.keys, key=lambda k: k.begin) if track is not None else []
        return "".join(REDACTED if self.redact else k.digit for k in keys)

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        with self._lock:
            track = self._known.get(stream.serial)
            if track is None or not track.count:
                return {}
            if self.redact:
                return {"dtmf": {"count": track.count}}
            keys = sorted(track.keys, key=lambda k: k.begin)
            count = track.count
        rate = stream.sample_rate or RATE
        events = [
            {
                "digit": k.digit,
                "source": k.source,
                "position_s": round(k.begin / rate, 4),
                "duration_s": round((k.end - k.begin) / rate, 4),
                "level_dbm0": k.level_dbm0,
            }
            for k in keys
        ]
        return {"dtmf": {"count": count, "digits": "".join(k.digit for k in keys), "events": events}}


def _same(heard: _Key, told: _Key, near: int) -> bool:
    """Whether a digit in the audio is what an RFC 4733 event tells of: they touch, or nearly so."""
    if REDACTED not in (told.digit, heard.digit) and told.digit != heard.digit:
        return False
    return heard.begin <= told.end + near and told.begin <= heard.end + near
