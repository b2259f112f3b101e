"""Senders whose RTP clock is not their codec's: timestamps are put into the codec's clock, so that all else holds.

    timestamps step as payloads last          the codec's clock, as ever: after eight pairs of packets the stream is
                                              looked at no more
    they step k times as far, always the      examined, packet by packet: see :mod:`.clock_evidence`
    same k

Examples: G.722 with a clock of 16 kHz, as its audio has: k = 2. G.711 with timestamps in ms: k = 1/8.

Until that is decided, timestamps count as what seems right so far: so little is out of place. What was counted as too
short is paid back as a gap if the clock was right after all; so is what a single odd step made too long: such as an
encoder's first, which its delay makes shorter. All of this is a function of packets in sequence alone.

A clock in ms cannot tell packets of 21.3 ms: steps within a tick of what payloads last count as just that.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from fractions import Fraction
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from ..._codecs.facts import codec_facts, mistaken_clocks
from ..._model.types import Codec
from ..streams.ring_packets import RingPackets
from ..undo import Undo
from .clock_evidence import MOST_APART, NONE_BEFORE, MeasuredClock, Suspect

__all__ = ["SenderClocks"]

I64 = npt.NDArray[np.int64]
I16 = npt.NDArray[np.int16]
U32 = npt.NDArray[np.uint32]
_T = TypeVar("_T", bound=np.generic)

_SETTLED: Final = 0  # the codec's clock
_WATCHED: Final = 1
_SCALED: Final = 2  # timestamps are put into the codec's clock

_PAIRS_THAT_AGREE: Final = 8  # and the clock is the codec's
_HALF: Final = 1 << 31
_WRAP: Final = (1 << 32) - 1


class SenderClocks:
    """Rows are streams. ``active``: how many are watched, or have timestamps that are put into another clock."""

    def __init__(self, rows: int, codecs: Sequence[Codec], undo: Undo | None = None) -> None:
        self._undo = undo or Undo(keep=False)
        self._codecs = tuple(codecs)
        self._clock = np.array([c.clock_rate for c in codecs] + [1, 1], np.int64)
        self._rate = np.array([c.sample_rate for c in codecs] + [1, 1], np.int64)
        self.active = 0
        self._state = np.zeros(rows, np.uint8)
        # of the last packet with audio
        self._ext = np.full(rows, NONE_BEFORE, np.int64)
        self._timestamp = np.zeros(rows, np.uint32)
        self._span = np.zeros(rows, np.int64)
        self._arrival_ns = np.zeros(rows, np.int64)
        self._codec = np.zeros(rows, np.int16)  # whose clock is measured; -1: the first one's that comes
        self._agreed = np.zeros(rows, np.int64)
        self._suspects: dict[int, Suspect] = {}
        # scaled: the last timestamp in the codec's clock, the rest of it in 1 / down, and the factor
        self._mapped = np.zeros(rows, np.int64)
        self._rest = np.zeros(rows, np.int64)
        self._up = np.ones(rows, np.int64)
        self._down = np.ones(rows, np.int64)
        self._found: list[MeasuredClock] = []

    def open(self, rows: I64) -> None:
        """New streams, or new sources of streams, have these rows: their clocks are not known."""
        self.active += int(np.count_nonzero(self._state[rows] == _SETTLED))
        self._state[rows] = _WATCHED
        self._ext[rows] = NONE_BEFORE
        self._codec[rows] = -1
        self._agreed[rows] = 0
        if self._suspects:
            for row in rows.tolist():
                self._suspects.pop(row, None)

    def close(self, row: int) -> None:
        self.active -= int(self._state[row] != _SETTLED)
        self._state[row] = _SETTLED
        self._suspects.pop(row, None)

    def watched(self, rows: I64) -> I64:
        """Those of these rows whose clock is not settled."""
        found: I64 = rows[self._state.take(rows) == _WATCHED] if self.active else rows[:0]
        return found

    def take_found(self) -> list[MeasuredClock]:
        """Clocks that are not their codec's, found since the last call."""
        found = self._found
        if found:
            self._undo.note((self.__dict__, "_found", found))
            self._found = []
        return found

    def nominal(self, popped: RingPackets, codec: I16, frames: I64) -> RingPackets:
        """The packets with timestamps of their codecs' clocks. ``codec`` and ``frames`` as :class:`.sorter.Sorter` has
        them."""
        if not self.active:
            return popped
        state = self._state.take(popped.row)
        if not np.count_nonzero(state):
            return popped
        timestamp: U32 | None = None
        span = frames * self._clock.take(codec) // self._rate.take(codec)
        scaled = (state == _SCALED).nonzero()[0]
        if scaled.size:
            timestamp = popped.timestamp.copy()
            timestamp[scaled] = self._scale(popped.take(scaled), codec[scaled], span[scaled])
        watched = ((state == _WATCHED) & (codec >= 0) & (span > 0)).nonzero()[0]
        odd = self._watch(popped, watched, codec[watched], span[watched]) if watched.size else watched
        if self._suspects:  # also those of which nothing but packets without audio are at hand
            odd = np.union1d(odd, popped.row[np.isin(popped.row, list(self._suspects))])
        if odd.size:
            timestamp = popped.timestamp.copy() if timestamp is None else timestamp
            self._examine(popped, codec, span, odd, timestamp)
        if timestamp is None:
            return popped
        return RingPackets(
            row=popped.row,
            ext=popped.ext,
            slot=popped.slot,
            timestamp=timestamp,
            length=popped.length,
            payload_type=popped.payload_type,
            arrival_ns=popped.arrival_ns,
            recovered=popped.recovered,
        )

    # --- watched --------------------------------------------------------------------------------------------------

    def _watch(self, popped: RingPackets, which: I64, codec: I16, span: I64) -> I64:
        """Streams that have the clock of their codec, all at once. Returns the rows that must be examined."""
        row, ext = popped.row[which], popped.ext[which]
        timestamp = popped.timestamp[which]
        start = np.append(True, row[1:] != row[:-1]).nonzero()[0]
        rows = row[start]
        first = self._codec.take(rows)
        first = np.where(first < 0, codec[start], first)
        count = np.diff(np.append(start, len(row)))
        apart = ext - _behind(ext, start, self._ext.take(rows))
        pair = (apart >= 1) & (apart <= MOST_APART)
        step = timestamp - _behind(timestamp, start, self._timestamp.take(rows))
        odd = pair & (step != apart * _behind(span, start, self._span.take(rows)))
        # a packet of another codec, or one that is not in sequence, is looked at too
        odd |= codec != first.repeat(count)
        odd_row = np.logical_or.reduceat(odd, start)
        if self._suspects:
            odd_row |= np.isin(rows, list(self._suspects))
        smooth = ~odd_row
        last = (start + count - 1)[smooth]
        rows_on = rows[smooth]
        agreed = self._agreed.take(rows_on) + np.add.reduceat(pair, start, dtype=np.int64)[smooth]
        self._note_rows(rows)
        self._codec[rows] = first
        self._ext[rows_on], self._timestamp[rows_on] = ext[last], timestamp[last]
        self._span[rows_on], self._arrival_ns[rows_on] = span[last], popped.arrival_ns[which[last]]
        self._agreed[rows_on] = agreed
        done = rows_on[agreed >= _PAIRS_THAT_AGREE]
        self._state[done] = _SETTLED
        self.active -= len(done)
        return rows[odd_row]

    def _note_rows(self, rows: I64) -> None:
        note = self._undo.note
        for column in (
            self._state, self._ext, self._timestamp, self._span, self._arrival_ns, self._codec, self._agreed,
            self._mapped, self._rest, self._up, self._down,
        ):  # fmt: skip
            note((column, rows, column.take(rows)))
        note((self.__dict__, "active", self.active))

    def _examine(self, popped: RingPackets, codec: I16, span: I64, rows: I64, timestamps: U32) -> None:
        """Packet by packet, so that cuts do not matter. Puts what they count as into ``timestamps``."""
        self._note_rows(rows)
        start = popped.starts()
        end = np.append(start[1:], len(popped))
        at = dict(zip(popped.row[start].tolist(), zip(start.tolist(), end.tolist(), strict=True), strict=True))
        for row in rows.tolist():
            suspect = self._suspects.get(row)
            if suspect is None:
                self._undo.call(self._suspects.pop, row, None)
            else:
                self._undo.note((self._suspects, row, copy(suspect)))
            for i in range(*at[row]):
                if self._state[row] == _SETTLED:
                    break
                if self._state[row] == _SCALED:
                    rest = np.arange(i, at[row][1])
                    timestamps[rest] = self._scale(popped.take(rest), codec[rest], span[rest])
                    break
                timestamps[i] = self._one(
                    row=row,
                    index=int(codec[i]),
                    ext=int(popped.ext[i]),
                    timestamp=int(popped.timestamp[i]),
                    span=int(span[i]),
                    arrival_ns=int(popped.arrival_ns[i]),
                )

    def _one(self, row: int, index: int, ext: int, timestamp: int, span: int, arrival_ns: int) -> int:
        """A packet of a stream that is examined: the timestamp that it counts as."""
        suspect = self._suspects.get(row)
        known = index == int(self._codec[row]) and span > 0
        if suspect is None:
            if not known:
                return timestamp
            before = self._before(row)
            due = before.due(ext)
            if not due or (timestamp - before.timestamp) & _WRAP == due:
                self._agreed[row] += due > 0
                self._ext[row], self._timestamp[row], self._span[row] = ext, timestamp, span
                self._arrival_ns[row] = arrival_ns
                if self._agreed[row] >= _PAIRS_THAT_AGREE:
                    self._settle(row)
                return timestamp
            suspect = self._suspects[row] = before
        step = ((timestamp - suspect.timestamp + _HALF) & _WRAP) - _HALF
        due = suspect.due(ext) if known else 0
        pair = due > 0 and step > 0
        if pair:
            suspect.take(step, due, arrival_ns - suspect.arrival_ns)
        if suspect.wrong:
            ratio = suspect.ratio
            exact = due > 0 and suspect.explains(step, due)
            suspect.mapped += due if exact else step * ratio.denominator // ratio.numerator
        elif suspect.odd < 2:
            suspect.mapped = timestamp  # one odd step was no evidence
        else:
            # what was counted as too short is paid back; what was too long stays
            ahead = ((suspect.mapped - suspect.timestamp + _HALF) & _WRAP) - _HALF
            suspect.mapped = timestamp + max(ahead, 0)
        mapped = suspect.mapped & _WRAP
        suspect.timestamp = timestamp
        if known:
            suspect.ext, suspect.span, suspect.arrival_ns = ext, span, arrival_ns
        else:
            suspect.ext = NONE_BEFORE
        decided = suspect.decided() if pair else None
        if decided is not None:
            self._decide(row, suspect, mapped, wrong=decided)
        return mapped

    def _before(self, row: int) -> Suspect:
        """A stream that may come to be suspected, with its last packet."""
        codec = self._codecs[int(self._codec[row])]
        return Suspect(
            codec=codec,
            mistaken=mistaken_clocks(codec),
            ext=int(self._ext[row]),
            timestamp=int(self._timestamp[row]),
            span=int(self._span[row]),
            arrival_ns=int(self._arrival_ns[row]),
            mapped=int(self._timestamp[row]),
            agreed=int(self._agreed[row]),
        )

    def _decide(self, row: int, suspect: Suspect, mapped: int, *, wrong: bool) -> None:
        del self._suspects[row]
        why_not = "" if wrong else suspect.why_not()
        if why_not is not None:
            self._undo.note((self._found, slice(len(self._found), None), []))
            nameable = suspect.rate in codec_facts(suspect.codec).other_clocks
            self._found.append(MeasuredClock(row, int(self._codec[row]), suspect.rate, why_not, nameable))
        if not wrong and mapped == suspect.timestamp:
            self._settle(row)
            return
        # also where nothing but a distance is left between the timestamps and what they count as
        ratio = suspect.ratio if wrong else Fraction(1)
        self._state[row] = _SCALED
        self._timestamp[row], self._mapped[row], self._rest[row] = suspect.timestamp, mapped, 0
        self._ext[row], self._span[row] = suspect.ext, suspect.span
        self._up[row], self._down[row] = ratio.denominator, ratio.numerator

    def _settle(self, row: int) -> None:
        self._state[row] = _SETTLED
        self.active -= 1

    # --- scaled ---------------------------------------------------------------------------------------------------

    def _scale(self, packets: RingPackets, codec: I16, span: I64) -> U32:
        """Timestamps in the codec's clock, whatever is left of a tick is carried on. Packets of other codecs go on with
        the clock that they have."""
        row, ext, timestamp = packets.row, packets.ext, packets.timestamp
        start = np.append(True, row[1:] != row[:-1]).nonzero()[0]
        rows = row[start]
        count = np.diff(np.append(start, len(row)))
        step = (timestamp - _behind(timestamp, start, self._timestamp.take(rows))).view(np.int32).astype(np.int64)
        up, down = self._up.take(row), self._down.take(row)
        own = codec == self._codec.take(row)
        span = np.where(own, span, 0)
        # all in 1 / down ticks of the codec's clock
        passed = step * np.where((codec >= 0) & ~own, down, up)
        apart = ext - _behind(ext, start, self._ext.take(rows))
        due = apart * _behind(span, start, self._span.take(rows)) * down
        exact = own & (due > 0) & (apart <= MOST_APART) & (np.abs(passed - due) < up)
        total: I64 = np.where(exact, due, passed).cumsum()
        before = np.append(0, total)[start]
        total += np.repeat(self._rest.take(rows) - before, count)
        mapped = np.repeat(self._mapped.take(rows), count) + total // down
        last = start + count - 1
        note = self._undo.note
        for column in (self._timestamp, self._mapped, self._rest, self._ext, self._span):
            note((column, rows, column.take(rows)))
        self._timestamp[rows] = timestamp[last]
        self._mapped[rows] = mapped[last] & _WRAP
        self._rest[rows] = total[last] % down[last]
        self._ext[rows], self._span[rows] = ext[last], span[last]
        return (mapped & _WRAP).astype(np.uint32)


def _behind(values: npt.NDArray[_T], start: I64, first: npt.NDArray[_T]) -> npt.NDArray[_T]:
    """Each packet's predecessor's value; ``first`` for the packets at ``start``."""
    behind = np.empty_like(values)
    behind[1:] = values[:-1]
    behind[start] = first
    return behind
