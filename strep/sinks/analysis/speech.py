"""Who speaks when, in all streams at once; and what becomes of it in each call leg."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..._model.exceptions import ConfigurationError
from ..._model.types import StreamEvent, StreamInfo
from .analyzer import Analyzer
from .bank import FrameBank
from .columns import rows_of
from .frame_batch import FrameBatch
from .legs import Leg, Party
from .talk import Rules
from .vad import Detector, EnergyDetector, Segmenter, SileroDetector, levels_of

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport

__all__ = ["SpeechMeter"]

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
_Judgement = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], I64 | None]

_KEPT: Final = 20_000  # ended streams whose figures are kept
_AUDIBLE: Final = np.float32(-60)  # dBFS: a direction above this is not mute
_ALIVE_NS: Final = 500_000_000  # directions come in blocks: so far apart they may be
_HEARD_S: Final = 1.0  # speech that the other direction must have missed
_SECOND: Final = 1_000_000_000
_DETECTORS: Final[dict[str, Callable[[], Detector]]] = {"energy": EnergyDetector, "silero": SileroDetector}


class SpeechMeter(Analyzer):
    """Speech, turns, pauses and interruptions; dead air and one-way audio while they last.

    ``vad``: "energy" (an adaptive threshold above the noise, any number of streams) or "silero" (a neural network,
    about 1,000 streams a core; the extra ``vad``). Speech counts from -57 dBFS on, in frames of 20 (Silero: 32) ms;
    pauses up to 0.3 s belong to a segment. What a turn, an interruption, a response delay and dead air are, with
    ``pause_s``, ``yield_s`` and ``dead_air_s``, stands in :mod:`strep.sinks.analysis.talk`. Times of both directions
    are those of the receiver's clock (BlockBatch.time_ns), from the leg's first audio on.

    Events: "speech" when a segment ended, with its length · "turn" when a turn ended · "dead_air" when it has lasted
    ``dead_air_s`` (``ongoing`` true, duration 0) and when it ended (false, its length) · "one_way" likewise, told of
    the direction that is heard: for ``one_way_s`` (None: do not look) the other one was ``missing`` (no packets) or
    ``mute`` (it never spoke, and nothing was above -60 dBFS), and this one spoke for 1 s or more of that time. The
    direction that is there is the clock: both are told when no packet of the other ever comes.

    :meth:`arrays` gives all live streams as columns, :meth:`snapshot` one. In ``summary.json``: ``speech``.
    Thread-safe. Raises ConfigurationError for times that are not positive, MissingExtraError without what ``vad``
    needs.
    """

    kind = "speech"

    def __init__(
        self,
        vad: Literal["energy", "silero"] = "energy",
        on_event: Callable[[StreamEvent], object] | None = None,
        *,
        pause_s: float = 1.0,
        yield_s: float = 2.0,
        dead_air_s: float = 3.0,
        one_way_s: float | None = 5.0,
    ) -> None:
        super().__init__(on_event)
        if vad not in _DETECTORS:
            raise ConfigurationError(f"vad {vad!r}: 'energy' or 'silero'")
        if min(pause_s, yield_s, dead_air_s, one_way_s or 1.0) <= 0:
            raise ConfigurationError("pause_s, yield_s, dead_air_s and one_way_s: more than 0 (one_way_s may be None)")
        self._vad = vad
        self._rules = Rules(pause_s, yield_s, dead_air_s)
        self._pause_ns, self._dead_ns = round(pause_s * _SECOND), round(dead_air_s * _SECOND)
        self._one_way_ns = None if one_way_s is None else round(one_way_s * _SECOND)
        self._detector = _DETECTORS[vad]()
        self._segmenter = Segmenter(self._detector.start, self._detector.hangover, self._detector.size)
        self._bank = FrameBank(
            self._detector.size, rate=self._detector.rate, dtype=self._detector.dtype, aside=self.aside
        )
        self._frame_ns = self._detector.size * _SECOND // self._detector.rate
        self._scratch = np.zeros(512 * self._detector.size, np.float32)
        self._legs: dict[Any, Leg] = {}
        self._kept: OrderedDict[int, Party] = OrderedDict()  # ended, by serial
        self._told: list[StreamEvent] = []
        self._rows = 0
        self._party: list[Party | None] = []
        # by row; ns on the receiver's clock
        self._begin_ns = np.zeros(0, np.int64)  # the leg's first audio; 0: none so far
        self._last_ns = np.zeros(0, np.int64)  # the end of the last frame
        self._talk_ns = np.zeros(0, np.int64)  # the end of the last frame of speech
        self._theirs_ns = np.zeros(0, np.int64)  # the same of the other direction, which has ended
        self._audible_ns = np.zeros(0, np.int64)  # the end of the last frame that was no silence
        self._turn_ns = np.zeros(0, np.int64)  # the end of a turn that may go on; 0: none
        self._talk_frames = np.zeros(0, np.int64)
        self._missed_from = np.zeros(0, np.int64)  # talk frames when the other direction was last alive
        self._peer = np.zeros(0, np.int64)  # row of the other direction; -1
        self._spoke = np.zeros(0, np.bool_)
        self._dead_since = np.zeros(0, np.int64)  # the dead air that goes on; 0: none
        self._one_way = np.zeros(0, np.bool_)
        self._alone = np.zeros(0, np.bool_)  # the other direction has ended: not one-way
        self._grow(64)

    def _grow(self, rows: int) -> None:
        more = rows - self._rows
        for name in _COLUMNS:
            old: npt.NDArray[Any] = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros(more, old.dtype)]))
        self._party += [None] * more
        self._detector.grow(rows)
        self._segmenter.grow(rows)
        self._rows = rows

    def stream_started(self, stream: StreamInfo) -> None:
        with self._lock:
            self._start(stream)

    def _start(self, stream: StreamInfo) -> None:
        row = stream.index
        if row >= self._rows:
            self._grow(max(2 * self._rows, row + 1))
        for name in _COLUMNS:
            getattr(self, name)[row] = 0
        self._peer[row] = -1
        self._bank.reset(row)
        self._detector.reset(row)
        self._segmenter.reset(row)
        leg = self._legs.get(stream.pair)
        if leg is None or leg.over:
            leg = self._legs[stream.pair] = Leg()
        party = Party(stream, leg)
        leg.parties[party.side] = self._party[row] = party
        self._begin_ns[row] = leg.begin_ns or 0
        other = party.other
        if other is not None and not other.ended:
            self._peer[row], self._peer[other.stream.index] = other.stream.index, row

    def _take(self, batch: BlockBatch) -> None:
        with self._lock:
            if len(batch) and int(batch.index.max()) >= self._rows:
                self._grow(max(2 * self._rows, int(batch.index.max()) + 1))
            self._hear_all(self._bank.push(batch))
            if len(batch):
                row = batch.index
                self._watch(row[np.r_[True, row[1:] != row[:-1]]])
        self._tell_all()

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        with self._lock:
            self._finish(stream)
        self._tell_all()

    def _abandon(self, stream: StreamInfo) -> None:
        """For the other direction it has ended."""
        with self._lock:
            row = stream.index
            party = self._party[row] if row < self._rows else None
            self._bank.reset(row)
            if party is None or party.stream is not stream:
                return
            self._segmenter.talking[row] = False
            party.open_ns = party.turn = None
            self._leave(party, int(self._last_ns[row]))
            self._kept.pop(stream.serial, None)

    def _tell_all(self) -> None:
        told, self._told = self._told, []
        for event in told:
            self.tell(event)

    # --- frames -----------------------------------------------------------------------------------------------------

    def _hear_all(self, batches: list[FrameBatch]) -> None:
        levels: Sequence[F32 | None]
        try:
            levels = levels_of(batches, self._scratch)
        except Exception:  # each by itself, then
            levels = [None] * len(batches)
        for whole, level in zip(batches, levels, strict=True):
            judged = self.aside.frames(whole, partial(self._judge, whole, level))
            for frames, its_level, judgement in judged:
                self._hear(frames, its_level, judgement)

    def _judge(self, whole: FrameBatch, level: F32 | None, frames: FrameBatch) -> tuple[FrameBatch, F32, _Judgement]:
        """What the detector says of frames. ``level``: that of ``whole``, which they may be a part of."""
        if level is None or frames is not whole:
            (level,) = levels_of([frames], self._scratch)
        return frames, level, self._detector.judge(frames, rows_of(frames.row), level)

    def _hear(self, frames: FrameBatch, level: F32, judgement: _Judgement) -> None:
        row, position = frames.row, frames.position
        rows = rows_of(row)
        end_ns = frames.time_ns + self._frame_ns
        segmenter = self._segmenter
        for i in segmenter.gaps(row, rows, position):
            # what came before the gap: the clock may have been corrected in it, so its end is told by the last frame
            self._for(frames.stream(i), self._close, int(row[i]), int(self._talk_ns[row[i]]))
        surely, enough, wrong = judgement
        active, began, ended = segmenter.step(row, rows, position, surely, enough)
        self._last_ns[rows] = end_ns
        fresh = self._begin_ns[rows] == 0
        if fresh.any():
            self._first(frames, np.flatnonzero(fresh))
        self._audible_ns[rows] = np.where(level > _AUDIBLE, end_ns, self._audible_ns[rows])
        self._talk_ns[rows] = np.where(active, end_ns, self._talk_ns[rows])
        self._talk_frames[rows] += active
        for i in began.tolist():
            begin_ns = int(end_ns[i]) - self._detector.start * self._frame_ns
            self._for(frames.stream(i), self._open, int(row[i]), begin_ns)
        for i in ended.tolist():
            last_ns = int(end_ns[i]) - self._detector.hangover * self._frame_ns
            self._for(frames.stream(i), self._close, int(row[i]), last_ns)
        if wrong is not None:
            for i in wrong.tolist():
                self._for(frames.stream(i), self._withdraw, int(row[i]))

    def _first(self, frames: FrameBatch, some: I64) -> None:
        """The first frames of these streams."""
        for i in some.tolist():
            stream = frames.stream(i)
            self._for(stream, self._first_of, stream, int(frames.time_ns[i]))

    def _first_of(self, stream: StreamInfo, time_ns: int) -> None:
        row = stream.index
        party = self._party[row]
        if party is None:  # blocks of a stream that nobody announced
            self._start(stream)
            party = self._party[row]
        if party is not None:
            leg = party.leg
            leg.begin_ns = time_ns if leg.begin_ns is None else min(leg.begin_ns, time_ns)
            for each in leg.parties:
                if each is not None and not each.ended:
                    self._begin_ns[each.stream.index] = leg.begin_ns

    def _open(self, row: int, begin_ns: int) -> None:
        party = self._party[row]
        if party is not None:
            party.open_ns = begin_ns
            self._spoke[row] = True
            self._talk_frames[row] += self._detector.start - 1

    def _withdraw(self, row: int) -> None:
        """The present segment was none."""
        party = self._party[row]
        if party is not None and party.open_ns is not None:
            party.open_ns = None
            self._segmenter.talking[row] = False
            self._talk_frames[row] = self._missed_from[row] = 0
            segments = party.segments
            self._talk_ns[row] = segments[-1][1] if segments else 0
            self._spoke[row] = bool(segments)

    def _close(self, row: int, end_ns: int) -> None:
        """The present segment ended."""
        party = self._party[row]
        if party is None or party.open_ns is None:
            return
        begin_ns, party.open_ns = party.open_ns, None
        end_ns = max(end_ns, begin_ns)
        party.add(begin_ns, end_ns)
        stream = party.stream
        position = int(self._segmenter.begin[row]) * stream.sample_rate // self._detector.rate
        self._told.append(StreamEvent(stream, "speech", position, begin_ns, (end_ns - begin_ns) / _SECOND, {}))
        turn = party.turn
        if turn is not None:
            if begin_ns - turn[1] < self._pause_ns and not party.other_began(turn[1], begin_ns):
                begin_ns, position = turn[0], turn[2]
            else:
                self._end_turn(party)
        party.turn = (begin_ns, end_ns, position)
        self._turn_ns[row] = end_ns

    def _end_turn(self, party: Party) -> None:
        if party.turn is not None:
            begin_ns, end_ns, position = party.turn
            party.turn = None
            self._turn_ns[party.stream.index] = 0
            seconds = (end_ns - begin_ns) / _SECOND
            self._told.append(StreamEvent(party.stream, "turn", position, begin_ns, seconds, {}))

    def _event(
        self, party: Party, kind: str, position: int, begin_ns: int, duration_ns: int, **data: bool | str
    ) -> None:
        self._told.append(StreamEvent(party.stream, kind, position, begin_ns, duration_ns / _SECOND, data))

    def _position(self, party: Party, time_ns: int) -> int:
        """Where a time is on a stream's timeline, roughly."""
        begin = int(self._begin_ns[party.stream.index])
        return max(0, time_ns - begin) * party.stream.sample_rate // _SECOND

    # --- what goes on -----------------------------------------------------------------------------------------------

    def _watch(self, row: I64) -> None:
        """Turns that are over, dead air, one-way audio: of the streams that came."""
        rows = rows_of(row)
        now = self._last_ns[rows]
        if not now.all():
            row = rows = row[now > 0]
            now = self._last_ns[rows]
        turn = self._turn_ns[rows]
        talking = self._segmenter.talking[rows]
        for i in np.flatnonzero((turn > 0) & (now - turn >= self._pause_ns) & ~talking).tolist():
            party = self._party[row[i]]
            if party is not None:
                self._for(party.stream, self._end_turn, party)
        peer = self._peer.take(row)
        paired = peer >= 0
        begin = self._begin_ns.take(row)
        since = np.maximum(self._talk_ns.take(row), np.maximum(begin, self._theirs_ns.take(row)))
        np.maximum(since, np.where(paired, self._talk_ns[peer], 0), out=since)
        # the other direction's audio may come a little later than this one's
        theirs = np.where(paired, self._last_ns[peer], 0)
        known = np.where(now - theirs < _ALIVE_NS, np.minimum(now, theirs), now)
        dead = self._dead_since.take(row)
        changed = np.where(dead > 0, since > dead, known - since >= self._dead_ns)
        for i in np.flatnonzero(changed).tolist():
            party = self._party[row[i]]
            if party is not None and not dead[i]:
                self._for(party.stream, self._begin_dead_air, party, int(since[i]))
            elif party is not None:
                self._for(party.stream, self._end_dead_air, party.leg, int(since[i]))
        if self._one_way_ns is not None:
            self._watch_ways(row, now, peer, paired, begin, self._one_way_ns)

    def _begin_dead_air(self, party: Party, since_ns: int) -> None:
        leg = party.leg
        if leg.dead_since_ns is None:
            leg.dead_since_ns, leg.dead_party = since_ns, party
            self._mark_dead_air(leg, since_ns)
            self._event(party, "dead_air", self._position(party, since_ns), since_ns, 0, ongoing=True)

    def _end_dead_air(self, leg: Leg, end_ns: int) -> None:
        begin_ns, party = leg.dead_since_ns, leg.dead_party
        if begin_ns is None or party is None:
            return
        leg.dead_since_ns = leg.dead_party = None
        self._mark_dead_air(leg, 0)
        # somebody began: when, is known better than by the last frame
        begun = [p.open_ns for p in leg.parties if p is not None and p.open_ns is not None and p.open_ns >= begin_ns]
        length = max(0, min([end_ns, *begun]) - begin_ns)
        self._event(party, "dead_air", self._position(party, begin_ns), begin_ns, length, ongoing=False)

    def _mark_dead_air(self, leg: Leg, since_ns: int) -> None:
        for each in leg.parties:
            if each is not None and not each.ended:
                self._dead_since[each.stream.index] = since_ns

    def _watch_ways(
        self, row: I64, now: I64, peer: I64, paired: npt.NDArray[np.bool_], begin: I64, one_way_ns: int
    ) -> None:
        spoke = self._spoke[peer] & paired
        alive = np.where(paired, np.where(spoke, self._last_ns[peer], self._audible_ns[peer]), 0)
        quiet = now - np.maximum(alive, begin)
        well = paired & (now - alive < _ALIVE_NS)
        self._missed_from[row[well]] = self._talk_frames[row[well]]
        missed = (self._talk_frames.take(row) - self._missed_from.take(row)) * (self._frame_ns / _SECOND)
        flagged = self._one_way.take(row)
        bad = (quiet >= one_way_ns) & (missed >= _HEARD_S) & ~self._alone.take(row)
        for i in np.flatnonzero((bad & ~flagged) | (well & flagged)).tolist():
            party = self._party[row[i]]
            if party is None:
                continue
            if well[i]:
                self._for(party.stream, self._end_one_way, party, int(alive[i]))
                continue
            missing = not paired[i] or now[i] - self._last_ns[peer[i]] >= _ALIVE_NS
            cause = "missing" if missing else "mute"
            self._for(party.stream, self._begin_one_way, party, int(now[i] - quiet[i]), cause)

    def _begin_one_way(self, party: Party, since_ns: int, cause: str) -> None:
        party.one_way_ns, party.one_way_cause = since_ns, cause
        self._one_way[party.stream.index] = True
        self._event(party, "one_way", self._position(party, since_ns), since_ns, 0, ongoing=True, cause=cause)

    def _end_one_way(self, party: Party, end_ns: int) -> None:
        begin_ns, party.one_way_ns = party.one_way_ns, None
        if begin_ns is not None:
            self._one_way[party.stream.index] = False
            position, length = self._position(party, begin_ns), max(0, end_ns - begin_ns)
            self._event(party, "one_way", position, begin_ns, length, ongoing=False, cause=party.one_way_cause)

    # --- the end ----------------------------------------------------------------------------------------------------

    def _finish(self, stream: StreamInfo) -> None:
        row = stream.index
        party = self._party[row] if row < self._rows else None
        if party is None or party.stream is not stream:
            return
        self._hear_all(self._bank.flush(row))
        self._segmenter.talking[row] = False
        self._close(row, int(self._talk_ns[row]))
        self._end_turn(party)
        self._leave(party, int(self._last_ns[row]))
        self._kept[stream.serial] = party
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def _leave(self, party: Party, last_ns: int) -> None:
        """A direction is not there any more."""
        leg, stream, row = party.leg, party.stream, party.stream.index
        leg.end_ns = max(leg.end_ns, last_ns)
        self._end_one_way(party, last_ns)
        party.ended = True
        self._party[row] = None
        peer = int(self._peer[row])
        if peer >= 0:
            self._peer[peer] = -1
            self._alone[peer] = True
            self._theirs_ns[peer] = max(int(self._talk_ns[row]), int(self._theirs_ns[row]))
            other = party.other
            if other is not None and not other.ended:
                self._end_one_way(other, last_ns)
        if leg.over:
            self._end_dead_air(leg, leg.end_ns)
            if self._legs.get(stream.pair) is leg:
                del self._legs[stream.pair]

    # --- figures ----------------------------------------------------------------------------------------------------

    def snapshot(self, stream: StreamInfo) -> dict[str, Any] | None:
        """A stream's figures so far, as :meth:`figures` has them at the end; None of a stream that is not known."""
        with self._lock:
            party = self._kept.get(stream.serial)
            if party is None and stream.index < self._rows:
                party = self._party[stream.index]
            if party is None or party.stream is not stream:
                return None
            for each in party.leg.parties:
                if each is not None and not each.ended:
                    party.leg.end_ns = max(party.leg.end_ns, int(self._last_ns[each.stream.index]))
            return party.figures(self._rules)

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        found = self.snapshot(stream)
        return {} if found is None else {"speech": {"vad": self._vad, **found}}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All live streams as columns (n,): serial, talking, talk_s, segments, silence_now_s, noise_dbfs (NaN when not
        known), dead_air, one_way."""
        with self._lock:
            parties = [party for party in self._party if party is not None]
            rows = np.array([party.stream.index for party in parties], np.int64)
            since = np.maximum(self._talk_ns[rows], self._begin_ns[rows])
            return {
                "serial": np.array([party.stream.serial for party in parties], np.int64),
                "talking": self._segmenter.talking[rows],
                "talk_s": self._talk_frames[rows] * (self._frame_ns / _SECOND),
                "segments": np.array([len(p.segments) for p in parties], np.int64),
                "silence_now_s": (self._last_ns[rows] - since) / _SECOND,
                "noise_dbfs": self._detector.noise(rows),
                "dead_air": self._dead_since[rows] > 0,
                "one_way": self._one_way[rows],
            }


_COLUMNS: Final = (
    "_begin_ns", "_last_ns", "_talk_ns", "_theirs_ns", "_audible_ns", "_turn_ns", "_talk_frames", "_missed_from",
    "_peer", "_spoke", "_dead_since", "_one_way", "_alone",
)  # fmt: skip
