"""Audio with the keys taken out: a stage between the engine and what writes or keeps audio. Pure.

A tone is recognized as a digit at most 60 ms after it began, but by then a file would have it already. So the last
100 ms of each stream are held back until more of its audio has come, or it has ended. In what is let through, digits
are set to zero. Nothing depends on clocks or on how the audio was cut: a stream gives the same samples, live and in a
replay.

Of a digit that was interrupted for more than 30 ms, less than 35 ms of tone may remain: no receiver takes that for a
digit (ITU-T Q.24). RFC 4733 digits are not in the audio at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from .analysis.bank import FrameBank
from .analysis.columns import Columns, column
from .analysis.keys import HOP, RATE, WINDOW, KeyFinder
from .analysis.window_runs import runs_of_windows
from .exclusion import StreamExclusion
from .held_audio import HeldAudio, Pieces

if TYPE_CHECKING:
    from .._model.blocks import BlockBatch
    from .._model.types import StreamInfo
    from .analysis.frame_batch import FrameBatch
    from .analysis.keys import InbandDigit
    from .key_source import KeySource

__all__ = ["HELD_S", "KeyMuter"]

I64 = npt.NDArray[np.int64]

HELD_S: Final = 0.1  # how much of each stream is held back
_MARGIN_SAMPLES: Final = 40  # at 8 kHz, 5 ms on either side: how exactly beginnings and ends of digits are known

Span = tuple[int, int]  # of a digit, in samples at 8 kHz


class _Streams(Columns):
    """What is known of each row's stream."""

    serial: I64 = column(np.int64, -1)  # -1: none of which anything came
    channels: I64 = column(np.int64, 1)
    rate: I64 = column(np.int64)  # Hz; 0: not known
    clock: I64 = column(np.int64)
    wanted: npt.NDArray[np.bool_] = column(np.bool_)  # False but while a batch is looked at
    rank: I64 = column(np.int64)  # in the batch that is looked at


@dataclass(frozen=True, slots=True)
class _Ready:
    """Pieces of some streams, a row each: row n has the pieces ``order[first[n] : first[n + 1]]``."""

    pieces: Pieces
    order: I64
    first: I64  # (n + 1,)

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def row(self) -> I64:
        return self.pieces.row[self.order[self.first[:-1]]]

    def stream(self, i: int) -> StreamInfo:
        found: StreamInfo = self.pieces.streams[self.order[self.first[i]]]
        return found

    def take(self, some: slice | I64) -> _Ready:
        begin, count = self.first[:-1][some], np.diff(self.first)[some]
        first = np.zeros(len(count) + 1, np.int64)
        np.cumsum(count, out=first[1:])
        within = np.arange(int(first[-1])) - np.repeat(first[:-1], count)
        return _Ready(self.pieces, self.order[np.repeat(begin, count) + within], first)


@dataclass(frozen=True, slots=True)
class _Released:
    """What came of it. ``spans``: by row, the digits that still matter."""

    free: Pieces
    held: Pieces
    muted_frames: int
    spans: dict[int, list[Span]]


class KeyMuter:
    """Lets audio through 100 ms late, with DTMF digits zeroed.

    The BlockBatches that come out have no payload bytes: sinks that keep the encoded form cannot be muted this way.
    Call :meth:`process` with each batch, :meth:`end` when a stream has ended. Not thread-safe.

    When looking for keys in a stream raises, the stream is set aside: nothing more of it is let through, not even what
    was held back.

    ``keys``: who has looked for keys in each batch before it comes here, and in streams before their end; None: that is
    done here.

    ``muted_frames``  sample frames zeroed so far
    ``aside``         streams that were set aside, and the frames that this has cost
    """

    def __init__(self, keys: KeySource | None = None) -> None:
        self.aside = StreamExclusion("mute keys")
        self._bank = FrameBank(WINDOW, HOP, RATE, aside=self.aside, apart=True)
        self._finder = KeyFinder(self.aside)
        self._found_elsewhere = keys
        self._keys: KeySource | KeyFinder = self._finder if keys is None else keys
        if keys is not None:
            keys.take_keys()
        self._streams = _Streams()
        self._held = HeldAudio()
        self._spans: dict[int, list[Span]] = {}  # by row
        self._held_s = HELD_S
        self.muted_frames = 0

    def process(self, batch: BlockBatch) -> BlockBatch | None:
        """What may go now, of the streams that ``batch`` is of."""
        batch = self.aside.rest_of(batch)
        if not len(batch):
            return None
        row, known = batch.index, self._streams
        serial = self._learn(batch)
        if self._found_elsewhere is None:
            self._listen(self._bank.push(batch))
        else:
            self._note(self._found_elsewhere.take_keys())
        fresh = Pieces.of(batch, serial, known.channels[row], known.rate[row], known.clock[row])
        rows = row[np.r_[True, row[1:] != row[:-1]]]
        known.wanted[rows] = True
        waiting = self._held.pop(known.wanted, known.serial)
        known.wanted[rows] = False
        known.rank[rows] = np.arange(len(rows))
        return self._let_go(Pieces.joined([*waiting, fresh]), HELD_S)

    def _learn(self, batch: BlockBatch) -> I64:
        """Whose blocks they are, int64 (m,); rows that others have now begin anew."""
        known, row = self._streams, batch.index
        known.make_room(int(row.max()))
        serial = np.array([stream.serial for stream in batch.streams], np.int64)
        for i in np.flatnonzero(known.serial[row] != serial).tolist():
            stream, its_row = batch.streams[i], int(row[i])
            if known.serial[its_row] not in (-1, stream.serial):  # not told that the row's old stream ended
                self._forget(its_row)
            known.serial[its_row], known.channels[its_row] = stream.serial, stream.channels
            known.rate[its_row] = stream.sample_rate
            known.clock[its_row] = stream.codec.clock_rate if stream.codec else 0
        return serial

    def _let_go(self, pieces: Pieces, held_s: float) -> BlockBatch | None:
        """What may go of these, which are all that there is of their streams; the rest is held."""
        rank = self._streams.rank[pieces.row]
        order = np.argsort(rank, kind="stable")
        rank = rank[order]
        first = np.flatnonzero(np.r_[True, rank[1:] != rank[:-1], True])
        ready = _Ready(pieces, order, first)
        self._held_s = held_s
        done = self.aside.frames(ready, self._release)
        for stream in self.aside.take_fresh(None) if self.aside.fresh else ():
            self.aside.dropped_frames += int(pieces.frames[pieces.serial == stream.serial].sum())
            self._forget(stream.index)
        for released in done:
            self._held.put(released.held)
            self.muted_frames += released.muted_frames
            for row, spans in released.spans.items():
                if spans:
                    self._spans[row] = spans
                else:
                    self._spans.pop(row, None)
        return Pieces.joined([released.free for released in done]).batch() if done else None

    @property
    def streams(self) -> list[StreamInfo]:
        """Streams of which something is held."""
        return self._held.streams(self._streams.serial)

    def end(self, stream: StreamInfo) -> BlockBatch | None:
        """What is still held of a stream that has ended."""
        row, known, free = stream.index, self._streams, None
        if row < known.rows and known.serial[row] == stream.serial:
            try:
                if self._found_elsewhere is None:
                    self._listen(self._bank.flush(row))
                    self._note(self._finder.end(row))
                else:
                    self._note(self._found_elsewhere.take_keys())
            except Exception as error:
                self.aside.put(stream, error)
            known.wanted[row] = True
            waiting = self._held.pop(known.wanted, known.serial)
            known.wanted[row] = False
            if waiting:
                free = self._let_go(Pieces.joined(waiting), 0.0)
            self._forget(row)
        self.aside.forget(stream)
        return free

    def _forget(self, row: int) -> None:
        """What is held of the row's stream is gone too: it is of no stream that is known."""
        self._streams.reset(row)
        self._spans.pop(row, None)
        self._bank.reset(row)
        self._finder.reset(row)

    def _listen(self, frames: Sequence[FrameBatch]) -> None:
        for run in runs_of_windows(frames, HOP):
            for keys in self.aside.frames(run, self._finder.find):
                self._note(keys)

    def _note(self, keys: Sequence[InbandDigit]) -> None:
        for found in keys:
            self._spans.setdefault(found.row, []).append((found.begin, found.end))

    def _release(self, ready: _Ready) -> _Released:
        """Divide what there is of streams into what may go and what is held. Changes nothing else."""
        pieces, at = ready.pieces, ready.order
        last = at[ready.first[1:] - 1]
        rate = np.where(pieces.rate[last] > 0, pieces.rate[last], RATE)
        cut = pieces.position[last] + pieces.frames[last] - np.rint(self._held_s * rate).astype(np.int64)
        owner = np.repeat(np.arange(len(ready)), np.diff(ready.first))
        frames = pieces.frames[at]
        going = np.clip(cut[owner] - pieces.position[at], 0, frames)  # frames of each piece
        whole = pieces.position[at] + frames <= cut[owner]
        go, stay = np.flatnonzero(whole | (going > 0)), np.flatnonzero(~whole)
        free = pieces.sections(at[go], np.zeros(len(go), np.int64), going[go])
        held = pieces.sections(at[stay], going[stay], frames[stay] - going[stay])
        spans: dict[int, list[Span]] = {}
        muted = 0
        if with_keys := self._spans.keys() | self._keys.busy:
            begins = np.cumsum(free.frames * free.channels) - free.frames * free.channels
            rows = ready.row
            for n in np.flatnonzero(np.isin(rows, list(with_keys))).tolist():
                row = int(rows[n])
                digits = list(self._spans.get(row, ()))
                if row in self._spans:
                    limit = int(cut[n]) * RATE
                    spans[row] = [s for s in digits if (s[1] + _MARGIN_SAMPLES) * int(rate[n]) > limit]
                present = self._keys.going(row)
                if present is not None:
                    digits.append((present[0], present[1] + HOP))
                if digits:
                    for i in range(*np.searchsorted(owner[go], (n, n + 1)).tolist()):
                        muted += _mute(free, i, int(begins[i]), digits, int(rate[n]))
        return _Released(free, held, muted, spans)


def _mute(pieces: Pieces, i: int, begins: int, spans: Sequence[Span], rate: int) -> int:
    """Zero the digits in a piece, whose samples begin at ``begins``; returns how many sample frames of it."""
    position, frames, channels = int(pieces.position[i]), int(pieces.frames[i]), int(pieces.channels[i])
    muted = 0
    for begin, end in spans:
        first = max(0, (begin - _MARGIN_SAMPLES) * rate // RATE - position)
        last = min(frames, -(-(end + _MARGIN_SAMPLES) * rate // RATE) - position)
        if first < last:
            pieces.samples[begins + first * channels : begins + last * channels] = 0
            muted += last - first
    return muted
