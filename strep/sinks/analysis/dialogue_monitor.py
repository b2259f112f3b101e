"""What goes on in the dialogues of all call legs at once: turns, dead air, one-way audio. Pure.

The state is columns with a row for each stream. Python runs when somebody begins or stops to speak, not for frames.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.time import SECOND_NS
from ..._model.types import StreamEvent, StreamInfo
from .columns import Columns, Rows, column, rows_of
from .dialogue import Dialogue, OpenTurn, Party
from .talk import Rules

__all__ = ["DialogueMonitor"]

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_ENDED_STREAMS_KEPT: Final = 20_000  # whose figures can still be asked for
_AUDIBLE_DBFS: Final = np.float32(-60)  # a direction above this is not mute
_ALIVE_NS: Final = 500_000_000  # two directions may come so far apart, for they come in blocks
_MISSED_SPEECH_S: Final = 1.0  # so much speech the other direction must have missed before audio is called one-way


class _Hearing(Columns):
    """What is known of each direction. ``_ns``: times on the receiver's clock; 0: none so far."""

    begin_ns: I64 = column(np.int64)  # the dialogue's first audio
    last_ns: I64 = column(np.int64)  # the end of the last frame
    talk_ns: I64 = column(np.int64)  # the end of the last frame of speech
    theirs_ns: I64 = column(np.int64)  # the same of the other direction, when that has ended
    audible_ns: I64 = column(np.int64)  # the end of the last frame above ``_AUDIBLE_DBFS``
    # the end of the first frame, and of the first audible one, since such frames come without a long pause
    last_since_ns: I64 = column(np.int64)
    audible_since_ns: I64 = column(np.int64)
    turn_ns: I64 = column(np.int64)  # the end of a turn that may go on
    dead_since_ns: I64 = column(np.int64)  # the beginning of the dead air that goes on
    talk_frames: I64 = column(np.int64)
    missed_from: I64 = column(np.int64)  # ``talk_frames`` when the other direction was last there
    peer: I64 = column(np.int64, -1)  # row of the other direction; -1: it is not there
    spoke: Bools = column(np.bool_)
    one_way: Bools = column(np.bool_)
    alone: Bools = column(np.bool_)  # the other direction has ended, so this is not one-way audio


class DialogueMonitor:
    """Follows the dialogues of all call legs, frame by frame, and makes events of what it finds.

    ``frame_ns``: how long a frame of the detector is · ``one_way_s``: None to not look for one-way audio ·
    ``sure_frames``: so many frames of speech make a segment · ``for_one(stream, work, *arguments)`` does work for one
    stream, and sets that stream aside if the work raises.

    Call :meth:`mark`, :meth:`hear`, :meth:`open` and :meth:`close` for each batch of frames, then :meth:`watch` once a
    batch of blocks, then take :attr:`events`.
    """

    def __init__(
        self,
        rules: Rules,
        one_way_s: float | None,
        frame_ns: int,
        for_one: Callable[..., None],
        rows: int = 64,
        *,
        sure_frames: int = 0,
    ) -> None:
        self._rules = rules
        self._pause_ns, self._dead_ns = round(rules.pause_s * SECOND_NS), round(rules.dead_air_s * SECOND_NS)
        self._one_way_ns = None if one_way_s is None else round(one_way_s * SECOND_NS)
        self._frame_ns = frame_ns
        self._sure_ns = sure_frames * frame_ns
        self._for = for_one
        self._dialogues: dict[Any, Dialogue] = {}  # live ones, by StreamInfo.pair
        self._ended: OrderedDict[int, Party] = OrderedDict()  # by serial
        self._party: list[Party | None] = [None] * rows  # by row
        self.hearing = _Hearing(rows)
        self._events: list[StreamEvent] = []

    @property
    def rows(self) -> int:
        return self.hearing.rows

    def make_room(self, row: int) -> bool:
        """Returns whether there are more rows than before."""
        grew = self.hearing.make_room(row)
        self._party += [None] * (self.rows - len(self._party))
        return grew

    def take_events(self) -> list[StreamEvent]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events

    def party_of(self, stream: StreamInfo) -> Party | None:
        """The live direction of a stream."""
        party = self._party[stream.index] if stream.index < self.rows else None
        return party if party is not None and party.stream is stream else None

    def start(self, stream: StreamInfo) -> None:
        """A stream begins in its row."""
        row = stream.index
        self.hearing.reset(row)
        dialogue = self._dialogues.get(stream.pair)
        if dialogue is None or dialogue.over:
            dialogue = self._dialogues[stream.pair] = Dialogue()
        party = Party(stream, dialogue)
        dialogue.parties[party.side] = self._party[row] = party
        self.hearing.begin_ns[row] = dialogue.begin_ns or 0
        other = party.other
        if other is not None and not other.ended:
            self.hearing.peer[row], self.hearing.peer[other.stream.index] = other.stream.index, row

    # --- frames -----------------------------------------------------------------------------------------------------

    def mark(self, rows: Rows, end_ns: I64) -> I64:
        """Frames of these rows came. Returns the indices of those that are their streams' first."""
        hearing = self.hearing
        last_ns = hearing.last_ns[rows]
        again = end_ns - last_ns >= _ALIVE_NS
        if again.any():
            hearing.last_since_ns[rows] = np.where(again, end_ns, hearing.last_since_ns[rows])
        fresh = last_ns == 0  # not by begin_ns: the other direction may have told that already
        hearing.last_ns[rows] = end_ns
        return np.flatnonzero(fresh) if fresh.any() else _NOTHING

    def begin(self, stream: StreamInfo, time_ns: int) -> None:
        """The first audio of a stream."""
        party = self._party[stream.index]
        if party is not None:
            dialogue = party.dialogue
            first_ns = time_ns if dialogue.begin_ns is None else min(dialogue.begin_ns, time_ns)
            dialogue.begin_ns = first_ns
            for each in dialogue.live_parties():
                self.hearing.begin_ns[each.stream.index] = first_ns

    def has_party(self, row: int) -> bool:
        return self._party[row] is not None

    def hear(self, rows: Rows, end_ns: I64, level: F32, active: Bools) -> None:
        """What is heard in frames: their level in dBFS, and whether they are speech."""
        hearing = self.hearing
        audible, audible_ns = level > _AUDIBLE_DBFS, hearing.audible_ns[rows]
        again = audible & (end_ns - audible_ns >= _ALIVE_NS)
        if again.any():
            hearing.audible_since_ns[rows] = np.where(again, end_ns, hearing.audible_since_ns[rows])
        hearing.audible_ns[rows] = np.where(audible, end_ns, audible_ns)
        hearing.talk_ns[rows] = np.where(active, end_ns, hearing.talk_ns[rows])
        hearing.talk_frames[rows] += active

    def open(self, row: int, begin_ns: int, earlier_frames: int, begin: int, rate: int) -> None:
        """A segment began at position ``begin``, in samples at ``rate`` Hz, ``earlier_frames`` before the frame that
        made it sure."""
        party = self._party[row]
        if party is not None:
            self._event(party, "speech_started", begin * party.stream.sample_rate // rate, begin_ns, 0)
            party.open_ns = begin_ns
            self.hearing.spoke[row] = True
            self.hearing.talk_frames[row] += earlier_frames

    def withdraw(self, row: int) -> bool:
        """The present segment was a mistake. Returns whether there was one."""
        party = self._party[row]
        if party is None or party.open_ns is None:
            return False
        party.open_ns = None
        hearing, segments = self.hearing, party.segments
        hearing.talk_frames[row] = hearing.missed_from[row] = 0
        hearing.talk_ns[row] = segments[-1][1] if segments else 0
        hearing.spoke[row] = bool(segments)
        return True

    def close(self, row: int, end_ns: int, begin: int, rate: int) -> None:
        """The present segment ended. It began at position ``begin``, in samples at ``rate`` Hz."""
        party = self._party[row]
        if party is None or party.open_ns is None:
            return
        begin_ns, party.open_ns = party.open_ns, None
        end_ns = max(end_ns, begin_ns)
        party.add(begin_ns, end_ns)
        position = begin * party.stream.sample_rate // rate
        self._event(party, "speech", position, begin_ns, end_ns - begin_ns)
        turn = party.turn
        if turn is not None:
            if begin_ns - turn.end_ns < self._pause_ns and not party.other_began(turn.end_ns, begin_ns):
                begin_ns, position = turn.begin_ns, turn.position
            else:
                self._end_turn(party)
        party.turn = OpenTurn(begin_ns, end_ns, position)
        self.hearing.turn_ns[row] = end_ns

    def _end_turn(self, party: Party) -> None:
        turn = party.turn
        if turn is not None:
            party.turn = None
            self.hearing.turn_ns[party.stream.index] = 0
            self._event(party, "turn", turn.position, turn.begin_ns, turn.end_ns - turn.begin_ns)

    def _event(
        self, party: Party, kind: str, position: int, begin_ns: int, duration_ns: int, **data: bool | str
    ) -> None:
        self._events.append(StreamEvent(party.stream, kind, position, begin_ns, duration_ns / SECOND_NS, data))

    def _position(self, party: Party, time_ns: int) -> int:
        """Where a time is on a stream's timeline, roughly."""
        begin = int(self.hearing.begin_ns[party.stream.index])
        return max(0, time_ns - begin) * party.stream.sample_rate // SECOND_NS

    # --- what goes on -----------------------------------------------------------------------------------------------

    def watch(self, row: I64, talking: Bools) -> None:
        """Look for turns that are over, dead air and one-way audio in the streams that came. ``talking``: by row."""
        hearing = self.hearing
        rows = rows_of(row)
        now = hearing.last_ns[rows]
        if not now.all():
            row = rows = row[now > 0]
            now = hearing.last_ns[rows]
        turn = hearing.turn_ns[rows]
        # a segment that begins just before the pause is long enough is known a little later, and goes on with the turn
        over = (turn > 0) & (now - turn >= self._pause_ns + self._sure_ns) & ~talking[rows]
        for i in np.flatnonzero(over).tolist():
            party = self._party[row[i]]
            if party is not None:
                self._for(party.stream, self._end_turn, party)
        peer = hearing.peer.take(row)
        paired = peer >= 0
        begin = hearing.begin_ns.take(row)
        self._watch_dead_air(row, now, peer, paired, begin)
        if self._one_way_ns is not None:
            self._watch_one_way(row, now, peer, paired, begin, self._one_way_ns)

    def _watch_dead_air(self, row: I64, now: I64, peer: I64, paired: Bools, begin: I64) -> None:
        hearing = self.hearing
        since = np.maximum(hearing.talk_ns.take(row), np.maximum(begin, hearing.theirs_ns.take(row)))
        np.maximum(since, np.where(paired, hearing.talk_ns[peer], 0), out=since)
        # the other direction's audio may come a little later than this one's
        theirs = np.where(paired, hearing.last_ns[peer], 0)
        known = np.where(now - theirs < _ALIVE_NS, np.minimum(now, theirs), now)
        dead = hearing.dead_since_ns.take(row)
        changed = np.where(dead > 0, since > dead, known - since >= self._dead_ns)
        for i in np.flatnonzero(changed).tolist():
            party = self._party[row[i]]
            if party is not None and not dead[i]:
                self._for(party.stream, self._begin_dead_air, party, int(since[i]))
            elif party is not None:
                self._for(party.stream, self._end_dead_air, party.dialogue, int(since[i]))

    def _begin_dead_air(self, party: Party, since_ns: int) -> None:
        dialogue = party.dialogue
        if dialogue.dead_since_ns is None:
            dialogue.dead_since_ns, dialogue.dead_party = since_ns, party
            self._mark_dead_air(dialogue, since_ns)
            self._event(party, "dead_air", self._position(party, since_ns), since_ns, 0, ongoing=True)

    def _end_dead_air(self, dialogue: Dialogue, end_ns: int) -> None:
        begin_ns, party = dialogue.dead_since_ns, dialogue.dead_party
        if begin_ns is None or party is None:
            return
        dialogue.dead_since_ns = dialogue.dead_party = None
        self._mark_dead_air(dialogue, 0)
        # where somebody began to speak, the segment's beginning is more exact than the last frame
        parties = dialogue.parties
        begun = [p.open_ns for p in parties if p is not None and p.open_ns is not None and p.open_ns >= begin_ns]
        length = max(0, min([end_ns, *begun]) - begin_ns)
        self._event(party, "dead_air", self._position(party, begin_ns), begin_ns, length, ongoing=False)

    def _mark_dead_air(self, dialogue: Dialogue, since_ns: int) -> None:
        for each in dialogue.live_parties():
            self.hearing.dead_since_ns[each.stream.index] = since_ns

    def _watch_one_way(self, row: I64, now: I64, peer: I64, paired: Bools, begin: I64, one_way_ns: int) -> None:
        hearing = self.hearing
        spoke = hearing.spoke[peer] & paired
        alive = np.where(paired, np.where(spoke, hearing.last_ns[peer], hearing.audible_ns[peer]), 0)
        quiet = now - np.maximum(alive, begin)
        well = paired & (now - alive < _ALIVE_NS)
        hearing.missed_from[row[well]] = hearing.talk_frames[row[well]]
        missed = (hearing.talk_frames.take(row) - hearing.missed_from.take(row)) * (self._frame_ns / SECOND_NS)
        told = hearing.one_way.take(row)
        bad = (quiet >= one_way_ns) & (missed >= _MISSED_SPEECH_S) & ~hearing.alone.take(row)
        for i in np.flatnonzero((bad & ~told) | (well & told)).tolist():
            party = self._party[row[i]]
            if party is None:
                continue
            if well[i]:
                # when it was heard first, however many frames have come since
                came_again = party.one_way_cause == "missing" and bool(spoke[i])
                since_ns = int((hearing.last_since_ns if came_again else hearing.audible_since_ns)[peer[i]])
                begun_ns = party.one_way_ns or 0
                heard_ns = since_ns if begun_ns < since_ns <= alive[i] else int(alive[i])
                self._for(party.stream, self._end_one_way, party, heard_ns)
                continue
            missing = not paired[i] or now[i] - hearing.last_ns[peer[i]] >= _ALIVE_NS
            cause = "missing" if missing else "mute"
            self._for(party.stream, self._begin_one_way, party, int(now[i] - quiet[i]), cause)

    def _begin_one_way(self, party: Party, since_ns: int, cause: str) -> None:
        party.one_way_ns, party.one_way_cause = since_ns, cause
        self.hearing.one_way[party.stream.index] = True
        self._event(party, "one_way", self._position(party, since_ns), since_ns, 0, ongoing=True, cause=cause)

    def _end_one_way(self, party: Party, end_ns: int) -> None:
        begin_ns, party.one_way_ns = party.one_way_ns, None
        if begin_ns is not None:
            self.hearing.one_way[party.stream.index] = False
            position, length = self._position(party, begin_ns), max(0, end_ns - begin_ns)
            self._event(party, "one_way", position, begin_ns, length, ongoing=False, cause=party.one_way_cause)

    # --- the end ----------------------------------------------------------------------------------------------------

    def finish(self, party: Party) -> None:
        """A direction has ended; its figures are kept."""
        self._end_turn(party)
        self._leave(party)
        self._ended[party.stream.serial] = party
        if len(self._ended) > _ENDED_STREAMS_KEPT:
            self._ended.popitem(last=False)

    def drop(self, party: Party) -> None:
        """Forget a direction. For the other one it has ended."""
        party.open_ns = party.turn = None
        self._leave(party)
        self._ended.pop(party.stream.serial, None)

    def _leave(self, party: Party) -> None:
        dialogue, stream, row, hearing = party.dialogue, party.stream, party.stream.index, self.hearing
        last_ns = int(hearing.last_ns[row])
        dialogue.end_ns = max(dialogue.end_ns, last_ns)
        self._end_one_way(party, last_ns)
        party.ended = True
        self._party[row] = None
        peer = int(hearing.peer[row])
        if peer >= 0:
            hearing.peer[peer] = -1
            hearing.alone[peer] = True
            hearing.theirs_ns[peer] = max(int(hearing.talk_ns[row]), int(hearing.theirs_ns[row]))
            other = party.other
            if other is not None and not other.ended:
                self._end_one_way(other, last_ns)
        if dialogue.over:
            self._end_dead_air(dialogue, dialogue.end_ns)
            if self._dialogues.get(stream.pair) is dialogue:
                del self._dialogues[stream.pair]

    # --- figures ----------------------------------------------------------------------------------------------------

    def figures(self, stream: StreamInfo) -> dict[str, Any] | None:
        """A stream's figures so far, or at its end; None of a stream that is not known."""
        party = self._ended.get(stream.serial) or self.party_of(stream)
        if party is None or party.stream is not stream:
            return None
        dialogue = party.dialogue
        for each in dialogue.live_parties():
            dialogue.end_ns = max(dialogue.end_ns, int(self.hearing.last_ns[each.stream.index]))
        return party.figures(self._rules)

    def arrays(self) -> tuple[I64, dict[str, npt.NDArray[Any]]]:
        """The rows of all live streams, and what is known of them, as columns."""
        parties = [party for party in self._party if party is not None]
        rows = np.array([party.stream.index for party in parties], np.int64)
        hearing = self.hearing
        since = np.maximum(hearing.talk_ns[rows], hearing.begin_ns[rows])
        return rows, {
            "serial": np.array([party.stream.serial for party in parties], np.int64),
            "talk_s": hearing.talk_frames[rows] * (self._frame_ns / SECOND_NS),
            "segments": np.array([len(p.segments) for p in parties], np.int64),
            "silence_now_s": (hearing.last_ns[rows] - since) / SECOND_NS,
            "dead_air": hearing.dead_since_ns[rows] > 0,
            "one_way": hearing.one_way[rows],
        }


_NOTHING: Final = np.zeros(0, np.int64)
