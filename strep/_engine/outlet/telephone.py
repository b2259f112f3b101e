"""Key presses from telephone-event packets (RFC 4733): one event for each key press, whatever got lost.

Payload, one to 16 reports of 4 bytes (RFC 4733, 2.3; each begins where the one before it ends). An empty payload, one
whose length is no multiple of 4, or one of more than 64 bytes is malformed. Which payload types are telephone-events,
``_codecs.payload_types`` tells.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     event     |E|R| volume    |          duration             |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

A sender repeats a report every 20 to 50 ms with a growing duration, and its last one, with E, three times. All carry
the timestamp of the press's start. So a press is known by its start and its event code; the marker bit is not used, for
senders get it wrong. A report belongs to the press that is going on when its code is the same and

    its start is the same                           another report, or a repeated one
    it starts within what is told, or at its end    a sender that moves the timestamp on; a duration that is longer
                                                    than the timestamp has moved counts from the press's start all
                                                    the same, and so does every later one of that press
    it starts n × 0xFFFF later (or earlier)         the next segment of a long press (2.5.1.3): duration has 16 bits

Once E was seen, nothing continues the press at its end or n × 0xFFFF later. A press is told when its E comes; when
another press's report comes; when audio stands more than 100 ms behind its end; when nothing came for 500 ms; or at the
stream's end. The last presses told are remembered, so that what comes of them late is not another press.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from typing import Final

from ..undo import Undo

__all__ = ["KeyPress", "TelephoneEvents", "event_name"]

_SEGMENT_TICKS: Final = 0xFFFF  # the longest duration that a report can tell, in timestamp units
_REPORTS_A_PAYLOAD: Final = 16  # nobody packs more
_PRESSES_REMEMBERED: Final = 8  # of a stream, after they were told
_SILENT_NS: Final = 500_000_000  # ten update intervals of 50 ms (2.5.1.2)
_MOVES_ON_MS: Final = 100  # at most, from one report to the next, where each is stamped with its own time
_AUDIO_BEHIND_MS: Final = 100  # some senders go on with audio between reports, just where these are

_KEYS: Final = "0123456789*#ABCD"
_NAMES: Final = {
    16: "flash",
    # RFC 4734: modems, fax and text telephones
    32: "ANS", 33: "/ANS", 34: "ANSam", 35: "/ANSam", 36: "CNG",
    37: "V.21 channel 1 0", 38: "V.21 channel 1 1", 39: "V.21 channel 2 0", 40: "V.21 channel 2 1",
    41: "CRdi", 42: "CRdr", 43: "CRe", 44: "ESi", 45: "ESr", 46: "MRdi", 47: "MRdr", 48: "MRe", 49: "CT",
    # RFC 2833, 3.13: line events, which RFC 4733 leaves out and gateways still send
    64: "off hook", 65: "on hook", 66: "dial tone", 67: "internal dial tone", 68: "special dial tone",
    69: "second dial tone", 70: "ringing tone", 71: "special ringing tone", 72: "busy tone", 73: "congestion tone",
    74: "special information tone", 75: "comfort tone", 76: "hold tone", 77: "record tone", 78: "caller waiting tone",
    79: "call waiting tone", 80: "pay tone", 81: "positive indication tone", 82: "negative indication tone",
    83: "warning tone", 84: "intrusion tone", 85: "calling card service tone", 86: "payphone recognition tone",
    87: "CPE alerting signal", 88: "off-hook warning tone", 89: "ring",
}  # fmt: skip


def event_name(event: int) -> str:
    """ "0" to "9", "*", "#", "A" to "D" for keys (0 to 15); otherwise a name, or the number where there is none."""
    return _KEYS[event] if event < len(_KEYS) else _NAMES.get(event, str(event))


@dataclass(frozen=True, slots=True)
class KeyPress:
    """One key press (or another event of RFC 4733), told once.

    ``event``        0 to 255; ``key`` is its name
    ``timestamp``    RTP timestamp at which it began
    ``position``     the same on the stream's timeline, in sample frames
    ``arrival_ns``   of the first of its packets that came
    ``duration``     in RTP timestamp units: the longest that was told, all segments together
    ``duration_s``   the same in seconds
    ``volume_dbm0``  power of the tone, 0 to -63 (RFC 4733, 2.3.4)
    ``ended``        its end was seen: else the duration is a lower limit
    ``packets``      how many told of it, repeated ones counted, until it was told
    """

    row: int
    event: int
    timestamp: int
    position: int
    arrival_ns: int
    duration: int
    duration_s: float
    volume_dbm0: int
    ended: bool
    packets: int

    @property
    def key(self) -> str:
        return event_name(self.event)

    @property
    def is_key(self) -> bool:
        """Of a keypad (DTMF), not a modem's tone or a line's state."""
        return self.event < len(_KEYS)


@dataclass(slots=True)
class _Press:
    event: int
    start: int
    end: int  # timestamp at which the last segment seen begins, plus its duration; not wrapped: start + duration
    segment: int  # where the last segment seen begins
    position: int
    volume: int
    clock_rate: int
    first_ns: int
    last_ns: int
    ended: bool = False
    packets: int = 0
    moving: bool = False  # each report is stamped with its own time, and tells the duration from the press's start


@dataclass(slots=True)
class _StreamPresses:
    """The press that goes on, and the last ones that were told."""

    press: _Press | None = None
    told: deque[_Press] = field(default_factory=lambda: deque(maxlen=_PRESSES_REMEMBERED))


class TelephoneEvents:
    """Makes :class:`KeyPress` of telephone-event packets, for any number of streams (rows).

    Feed packets in RTP order, as they leave the jitter ring. In any other order the number of presses is the same, and
    so are their starts, but they may be told in another order.

    ``malformed``  payloads that are no reports, since the beginning: ignored
    ``repeated``   reports that came after their press was told (repeated ends, mostly)
    ``pending``    rows with a press that goes on: only these care for :meth:`audio`
    """

    def __init__(self, undo: Undo | None = None) -> None:
        self._undo = undo or Undo(keep=False)
        self._rows: dict[int, _StreamPresses] = {}
        self.pending: set[int] = set()
        self.malformed = 0
        self.repeated = 0

    def open(self, row: int) -> None:
        """A new stream has this row, or a stream has a new source: nothing is known of it."""
        self._rows.pop(row, None)
        self.pending.discard(row)

    def note(self, rows: Iterable[int]) -> None:
        """Call this for rows before anything changes in them that may have to be undone."""
        undo = self._undo
        undo.note((self.__dict__, "malformed", self.malformed))
        undo.note((self.__dict__, "repeated", self.repeated))
        for row in rows:
            undo.call(self.pending.add if row in self.pending else self.pending.discard, row)
            state = self._rows.get(row)
            if state is None:
                undo.call(self._rows.pop, row, None)
            else:
                undo.note((self._rows, row, _StreamPresses(copy(state.press), state.told.copy())))

    def packet(
        self,
        row: int,
        ext: int,
        timestamp: int,
        marker: bool,
        payload: bytes,
        position: int,
        arrival_ns: int,
        *,
        clock_rate: int = 8000,
        sample_rate: int | None = None,
    ) -> list[KeyPress]:
        """A packet of a payload type that is telephone-event/``clock_rate``. ``ext``, its extended sequence number, and
        ``marker`` are not needed so far. ``position``: of ``timestamp`` on the stream's timeline, whose frames are
        ``sample_rate`` a second (default: the clock rate). Gives the presses that are complete now."""
        if not payload or len(payload) % 4 or len(payload) > 4 * _REPORTS_A_PAYLOAD:
            # 14 bytes, for example, are a report in SRTP: noise, not a key
            self.malformed += 1
            return []
        state = self._rows.setdefault(row, _StreamPresses())
        told: list[KeyPress] = []
        offset = 0
        for at in range(0, len(payload), 4):
            event, flags = payload[at], payload[at + 1]
            duration = payload[at + 2] << 8 | payload[at + 3]
            start = (timestamp + offset) & 0xFFFF_FFFF
            new = _Press(
                event=event,
                start=start,
                end=start + duration,
                segment=start,
                position=position + offset * (sample_rate or clock_rate) // clock_rate,
                volume=flags & 0x3F,
                clock_rate=clock_rate,
                first_ns=arrival_ns,
                last_ns=arrival_ns,
                # what another report follows in the same payload is complete
                ended=bool(flags & 0x80) or at + 4 < len(payload),
                packets=1,
            )
            self._report(row, state, new, told)
            offset += duration
        return told

    def _report(self, row: int, state: _StreamPresses, new: _Press, told: list[KeyPress]) -> None:
        press = state.press
        if press is not None and _same(press, new):
            _merge(press, new)
        elif any(_same(known, new) for known in state.told):
            self.repeated += 1
            return
        else:
            if press is not None and _signed(new.start - press.start) < 0:
                # an earlier press, of which nothing came in time: complete, for a later one has begun
                self._tell(row, state, new, told)
                return
            if press is not None:
                self._tell(row, state, press, told)
            state.press = press = new
        if press.ended:
            self._tell(row, state, press, told)
            state.press = None
            self.pending.discard(row)
        else:
            self.pending.add(row)

    def audio(self, row: int, timestamp: int) -> list[KeyPress]:
        """Audio of this stream has come as far as ``timestamp`` (same source). Only rows in ``pending`` need it."""
        state = self._rows.get(row)
        press = state.press if state is not None else None
        if press is None or _signed(timestamp - press.end) <= _AUDIO_BEHIND_MS * press.clock_rate // 1000:
            return []
        return self.end(row)

    def advance(self, now_ns: int, rows: Iterable[int] | None = None) -> list[KeyPress]:
        """The time has come to ``now_ns``: presses (of ``rows``; None: of all) of which nothing came for 500 ms, the
        earliest first."""
        late = [row for row in (self.pending if rows is None else rows) if self._last_ns(row) + _SILENT_NS <= now_ns]
        late.sort(key=lambda row: (self._last_ns(row), row))
        return [press for row in late for press in self.end(row)]

    def next_deadline_ns(self) -> int | None:
        """When :meth:`advance` has something to tell, if nothing else comes."""
        return min((self._last_ns(row) + _SILENT_NS for row in self.pending), default=None)

    def end(self, row: int) -> list[KeyPress]:
        """The stream has ended, or what it said is over: the press that goes on is told."""
        state = self._rows.get(row)
        if state is None or state.press is None:
            return []
        told: list[KeyPress] = []
        self._tell(row, state, state.press, told)
        state.press = None
        self.pending.discard(row)
        return told

    def _last_ns(self, row: int) -> int:
        press = self._rows[row].press
        return press.last_ns if press is not None else 0

    def _tell(self, row: int, state: _StreamPresses, press: _Press, told: list[KeyPress]) -> None:
        state.told.append(press)
        duration = press.end - press.start
        told.append(
            KeyPress(
                row=row,
                event=press.event,
                timestamp=press.start & 0xFFFF_FFFF,
                position=press.position,
                arrival_ns=press.first_ns,
                duration=duration,
                duration_s=duration / press.clock_rate,
                volume_dbm0=-press.volume,
                ended=press.ended,
                packets=press.packets,
            )
        )


def _same(press: _Press, new: _Press) -> bool:
    """Whether ``new`` tells of the same press."""
    if new.event != press.event:
        return False
    if new.start == press.start & 0xFFFF_FFFF:
        return True
    delta = _signed(new.start - press.start)
    length = press.end - press.start
    if delta < 0:
        # an earlier segment that comes late: such a one has no E and does not end within the press
        return not new.ended and delta % _SEGMENT_TICKS == 0
    if delta < length or (press.ended and new.start == press.segment & 0xFFFF_FFFF):
        return True
    if press.moving and delta - length <= press.clock_rate * _MOVES_ON_MS // 1000:
        # reports are as far apart as their timestamps; repeated ends may be stamped anew too
        told = new.end - new.start
        before = min(length, _SEGMENT_TICKS)
        return told == before if press.ended and new.ended else told >= before and not press.ended
    return not press.ended and (delta == length or delta % _SEGMENT_TICKS == 0)


def _merge(press: _Press, new: _Press) -> None:
    delta = _signed(new.start - press.start)
    told = new.end - new.start
    press.moving |= 0 < delta < told < _SEGMENT_TICKS
    if delta < 0:
        press.start += delta
        press.position = new.position
    else:
        # 16 bits may not be enough for a duration: then the timestamps tell it
        whole = told if press.moving and told < _SEGMENT_TICKS else delta + (0 if press.moving else told)
        end = press.start + max(whole, told)
        if end > press.end:
            press.end, press.segment, press.volume = end, new.start, new.volume
        elif press.moving:
            press.segment = new.start
    press.ended |= new.ended
    press.packets += 1
    press.last_ns = max(press.last_ns, new.last_ns)


def _signed(delta: int) -> int:
    """The distance of two timestamps."""
    return (delta + 0x8000_0000 & 0xFFFF_FFFF) - 0x8000_0000
