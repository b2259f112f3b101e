"""Senders whose RTP clock is not their codec's: measured by what payloads last, confirmed by arrival times.

A packet lasts ``span`` ticks of the codec's clock; the timestamp of the next one is ``step`` ticks later. With ``D``
the time that payloads last, ``T`` the time that timestamps say, and ``E`` the time in which packets came, summed over
pairs in sequence:

    step = span                       the codec's clock, as ever: eight such pairs, and the stream is looked at no more
    step = k × span, always the same k
        E near T                      the clock is right, and the sender leaves out audio
        E near D                      its clock runs k times as fast as the codec's: timestamps are put into the codec's
                                      clock from there on, and the stream's user is told

Examples: G.722 with a clock of 16 kHz, as its audio has: k = 2. G.711 with timestamps in ms: k = 1/8.

Until that is decided, timestamps count as what seems right so far: so little is out of place. What was counted as too
short is paid back as a gap if the clock was right after all. All of this is a function of packets in sequence alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from ..._codecs.facts import codec_facts
from ..._model.types import Codec
from ..streams.ring import RingPackets
from ..undo import Undo

__all__ = ["MeasuredClock", "SenderClocks"]

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
_T = TypeVar("_T", bound=np.generic)

_SETTLED: Final = 0  # the codec's clock
_WATCHED: Final = 1
_SCALED: Final = 2  # timestamps are put into the codec's clock

_PAIRS_THAT_AGREE: Final = 8  # and the clock is the codec's
_PAIRS_ALIKE: Final = 10  # at least, of one ratio that is not 1
_MEASURED_S: Final = 0.25  # of audio, at least
_PAIRS_LOOKED_AT: Final = 100  # then what seems right stays
_CLEARLY: Final = 3  # so many times nearer to the one than to the other
_MOST: Final = 0.8  # of the pairs have the ratio
_HALF: Final = 1 << 31
_WRAP: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class MeasuredClock:
    """``rate`` Hz of a stream's RTP clock; ``certain`` False: it could not be told for sure."""

    row: int
    codec: int
    rate: Fraction
    certain: bool

    def described(self, codec: Codec) -> str:
        """For users."""
        nominal = f"not at {codec.clock_rate} as {codec.name}'s should"
        if not self.certain:
            return (
                f"by its payloads the sender's RTP clock runs at {float(self.rate):g} Hz, {nominal}, but arrival times "
                "say neither: timestamps are taken as they are"
            )
        hint = ""
        if self.rate in codec_facts(codec).other_clocks:
            hint = f"; --pt N={codec.name}/{self.rate} says so from the start"
        return f"the sender's RTP clock runs at {float(self.rate):g} Hz, {nominal}: measured, and counted with{hint}"


@dataclass(slots=True)
class _Suspect:
    """A stream whose timestamps contradict its payloads; its last packet, and what was measured."""

    ext: int
    timestamp: int
    span: int
    arrival_ns: int
    mapped: int  # the last timestamp, as it was counted
    agreed: int
    ratio: Fraction = Fraction(1)  # step / span of the first pair that contradicts
    alike: int = 0  # pairs of this ratio
    pairs: int = 0
    lasted: int = 0  # D, in ticks
    stepped: int = 0  # T, in ticks
    came_ns: int = 0  # E
    wrong: bool = False  # what seems right so far: that the clock is not the codec's

    def verdict(self, clock_rate: int) -> bool | None:
        """Whether the clock is wrong, by arrival times; None: they do not tell."""
        came = self.came_ns * clock_rate // 1_000_000_000
        by_payload, by_timestamp = abs(came - self.lasted), abs(came - self.stepped)
        if by_payload * _CLEARLY <= min(by_timestamp, self.lasted):
            return True
        if by_timestamp * _CLEARLY <= min(by_payload, self.stepped):
            return False
        return None

    def take(self, step: int, since_ns: int, clock_rate: int) -> None:
        """The next packet in sequence."""
        ratio = Fraction(step, self.span)
        if ratio == 1:
            self.agreed += 1
        elif not self.alike:
            self.ratio = ratio
        self.alike += ratio == self.ratio != 1
        self.pairs += 1
        self.lasted += self.span
        self.stepped += step
        self.came_ns += since_ns
        told = self.verdict(clock_rate)
        if self.agreed:
            self.wrong = False
        elif self.alike == self.pairs and self.ratio < 1:
            self.wrong = True  # audio does not overlap
        elif told is not None:
            self.wrong = told
        elif self.alike == self.pairs:
            # what seems left out is paid back if it was
            came = self.came_ns * clock_rate // 1_000_000_000
            self.wrong = self.lasted <= 2 * came < self.lasted + self.stepped

    def decided(self, clock_rate: int) -> bool | None:
        """Whether the clock is wrong, for good; None: not yet."""
        if self.agreed >= _PAIRS_THAT_AGREE:
            return False
        if self.alike >= _PAIRS_ALIKE and self.lasted >= _MEASURED_S * clock_rate and self.alike >= _MOST * self.pairs:
            told = self.verdict(clock_rate)
            if told is not None:
                return told
        return self.wrong if self.pairs >= _PAIRS_LOOKED_AT else None


class SenderClocks:
    """Rows are streams. ``active``: how many are watched, or have timestamps that are put into another clock."""

    def __init__(self, rows: int, codecs: Sequence[Codec], undo: Undo | None = None) -> None:
        self._undo = undo or Undo(keep=False)
        self._codecs = tuple(codecs)
        self._clock = np.array([c.clock_rate for c in codecs] + [1, 1], np.int64)
        self._rate = np.array([c.sample_rate for c in codecs] + [1, 1], np.int64)
        self.active = 0
        self._state = np.zeros(rows, np.uint8)
        # of the last packet with audio; ext -2: there is none
        self._ext = np.zeros(rows, np.int64)
        self._timestamp = np.zeros(rows, np.uint32)
        self._span = np.zeros(rows, np.int64)
        self._arrival_ns = np.zeros(rows, np.int64)
        self._codec = np.zeros(rows, np.int16)  # whose clock is measured; -1: the first one's that comes
        self._agreed = np.zeros(rows, np.int64)
        self._suspects: dict[int, _Suspect] = {}
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
        self._ext[rows] = -2
        self._codec[rows] = -1
        self._agreed[rows] = 0
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

    def nominal(self, popped: RingPackets, codec: npt.NDArray[np.int16], frames: I64) -> RingPackets:
        """The packets with timestamps of their codecs' clocks. ``codec`` and ``frames`` as :class:`.sorter.Sorter` has
        them."""
        if not self.active:
            return popped
        state = self._state.take(popped.row)
        if not np.count_nonzero(state):
            return popped
        timestamp: U32 | None = None
        scaled = (state == _SCALED).nonzero()[0]
        if scaled.size:
            timestamp = popped.timestamp.copy()
            timestamp[scaled] = self._scale(popped.row[scaled], popped.timestamp[scaled], codec[scaled])
        watched = ((state == _WATCHED) & (codec >= 0) & (frames > 0)).nonzero()[0]
        if watched.size:
            spans = frames[watched] * self._clock.take(codec[watched]) // self._rate.take(codec[watched])
            odd = self._watch(popped, watched, codec[watched], spans)
            if odd.size:
                timestamp = popped.timestamp.copy() if timestamp is None else timestamp
                self._examine(popped, codec, frames, odd, timestamp)
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
        )

    # --- watched --------------------------------------------------------------------------------------------------

    def _watch(self, popped: RingPackets, which: I64, codec: npt.NDArray[np.int16], span: I64) -> I64:
        """Streams that have the clock of their codec, all at once. Returns the rows that must be examined."""
        row, ext = popped.row[which], popped.ext[which]
        timestamp = popped.timestamp[which]
        start = np.append(True, row[1:] != row[:-1]).nonzero()[0]
        rows = row[start]
        first = self._codec.take(rows)
        first = np.where(first < 0, codec[start], first)
        count = np.diff(np.append(start, len(row)))
        pair = ext == _behind(ext, start, self._ext.take(rows)) + 1
        step = timestamp - _behind(timestamp, start, self._timestamp.take(rows))
        odd = pair & (step != _behind(span, start, self._span.take(rows)))
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

    def _examine(
        self, popped: RingPackets, codec: npt.NDArray[np.int16], frames: I64, rows: I64, timestamps: U32
    ) -> None:
        """Packet by packet, so that cuts do not matter. Puts what they count as into ``timestamps``."""
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
                    rest = slice(i, at[row][1])
                    timestamps[rest] = self._scale(popped.row[rest], popped.timestamp[rest], codec[rest])
                    break
                index = int(codec[i])
                span = int(frames[i] * self._clock[index] // self._rate[index]) if index >= 0 else 0
                timestamps[i] = self._one(
                    row, index, int(popped.ext[i]), int(popped.timestamp[i]), span, int(popped.arrival_ns[i])
                )

    def _one(self, row: int, index: int, ext: int, timestamp: int, span: int, arrival_ns: int) -> int:
        """A packet of a stream that is examined: the timestamp that it counts as."""
        suspect = self._suspects.get(row)
        known = index == int(self._codec[row]) and span > 0
        if suspect is None:
            step = (timestamp - int(self._timestamp[row])) & _WRAP
            if not known:
                return timestamp
            follows = ext == int(self._ext[row]) + 1
            if not follows or step == int(self._span[row]):
                self._agreed[row] += follows
                self._ext[row], self._timestamp[row], self._span[row] = ext, timestamp, span
                self._arrival_ns[row] = arrival_ns
                if self._agreed[row] >= _PAIRS_THAT_AGREE:
                    self._settle(row)
                return timestamp
            suspect = self._suspects[row] = _Suspect(
                ext=int(self._ext[row]),
                timestamp=int(self._timestamp[row]),
                span=int(self._span[row]),
                arrival_ns=int(self._arrival_ns[row]),
                mapped=int(self._timestamp[row]),
                agreed=int(self._agreed[row]),
            )
        clock_rate = int(self._clock[self._codec[row]])
        step = (timestamp - suspect.timestamp) & _WRAP
        pair = known and ext == suspect.ext + 1 and 0 < step < _HALF
        if pair:
            suspect.take(step, arrival_ns - suspect.arrival_ns, clock_rate)
        if suspect.wrong:
            signed = ((step + _HALF) & _WRAP) - _HALF
            suspect.mapped += signed * suspect.ratio.denominator // suspect.ratio.numerator
        else:
            # what was counted as too short is paid back; what was too long stays
            ahead = ((suspect.mapped - suspect.timestamp + _HALF) & _WRAP) - _HALF
            suspect.mapped = timestamp + max(ahead, 0)
        mapped = suspect.mapped & _WRAP
        suspect.timestamp = timestamp
        if known:
            suspect.ext, suspect.span, suspect.arrival_ns = ext, span, arrival_ns
        else:
            suspect.ext = -2
        decided = suspect.decided(clock_rate) if pair else None
        if decided is not None:
            self._decide(row, suspect, mapped, wrong=decided)
        return mapped

    def _decide(self, row: int, suspect: _Suspect, mapped: int, *, wrong: bool) -> None:
        del self._suspects[row]
        clock_rate = int(self._clock[self._codec[row]])
        alike = suspect.alike >= _MOST * suspect.pairs
        if wrong or (alike and suspect.pairs >= _PAIRS_LOOKED_AT and suspect.verdict(clock_rate) is None):
            found = MeasuredClock(row, int(self._codec[row]), clock_rate * suspect.ratio, wrong and alike)
            self._undo.note((self._found, slice(len(self._found), None), []))
            self._found.append(found)
        if not wrong and mapped == suspect.timestamp:
            self._settle(row)
            return
        # also where nothing but a distance is left between the timestamps and what they count as
        ratio = suspect.ratio if wrong else Fraction(1)
        self._state[row] = _SCALED
        self._timestamp[row], self._mapped[row], self._rest[row] = suspect.timestamp, mapped, 0
        self._up[row], self._down[row] = ratio.denominator, ratio.numerator

    def _settle(self, row: int) -> None:
        self._state[row] = _SETTLED
        self.active -= 1

    # --- scaled ---------------------------------------------------------------------------------------------------

    def _scale(self, row: I64, timestamp: U32, codec: npt.NDArray[np.int16]) -> U32:
        """Timestamps in the codec's clock, whatever is left of a tick is carried on. Packets of other codecs go on with
        the clock that they have."""
        start = np.append(True, row[1:] != row[:-1]).nonzero()[0]
        rows = row[start]
        count = np.diff(np.append(start, len(row)))
        step = (timestamp - _behind(timestamp, start, self._timestamp.take(rows))).view(np.int32).astype(np.int64)
        down = self._down.take(row)
        other = (codec >= 0) & (codec != self._codec.take(row))
        total = np.cumsum(step * np.where(other, down, self._up.take(row)))
        before = np.append(0, total)[start]
        total += np.repeat(self._rest.take(rows) - before, count)
        mapped = np.repeat(self._mapped.take(rows), count) + total // down
        last = start + count - 1
        note = self._undo.note
        for column in (self._timestamp, self._mapped, self._rest):
            note((column, rows, column.take(rows)))
        self._timestamp[rows] = timestamp[last]
        self._mapped[rows] = mapped[last] & _WRAP
        self._rest[rows] = total[last] % down[last]
        return (mapped & _WRAP).astype(np.uint32)


def _behind(values: npt.NDArray[_T], start: I64, first: npt.NDArray[_T]) -> npt.NDArray[_T]:
    """Each packet's predecessor's value; ``first`` for the packets at ``start``."""
    behind = np.empty_like(values)
    behind[1:] = values[:-1]
    behind[start] = first
    return behind
