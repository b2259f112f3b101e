"""Who spoke when in a call leg, and what follows from it: a function of the segments of both sides. Pure.

A *segment* is a time [start, end) in seconds in which one side speaks without a pause. The segments of a side are in
order and do not overlap. All of this follows from them alone:

talk            the sum of a side's segments; silence is the rest of the time that is looked at
turn            segments of a side, one after the other, as long as the pause before each is shorter than ``pause_s``
                and the other side begins no segment in that pause
overlap         time in which both speak
interruption    a side begins a turn during a segment of the other that began earlier, and that segment ends within
                ``yield_s``, during the new turn: the other gave way. (Otherwise it is only overlap: an "mhm", or a
                failed attempt to speak.) Counted for the side that came in.
response delay  of a turn that begins while nobody speaks, if the other side spoke last: the time since the other's turn
                ended. Counted for the side that responds.
dead air        stretches of ``dead_air_s`` or longer in which nobody speaks, from the beginning to the end of the time
                that is looked at; their whole length counts
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

__all__ = ["Conversation", "Rules", "Side", "converse", "turns_of"]

Segment = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits in the module's text, in seconds."""

    pause_s: float = 1.0
    yield_s: float = 2.0
    dead_air_s: float = 3.0


@dataclass(slots=True)
class Side:
    """What was found of one side, in seconds."""

    talk_s: float = 0.0
    turns: list[Segment] = field(default_factory=list)
    interruptions: list[float] = field(default_factory=list)  # when each began
    response_delays: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Conversation:
    """What :func:`converse` found; ``sides`` in the order of its arguments."""

    sides: tuple[Side, Side]
    overlap_s: float
    dead_air: list[Segment]

    def figures(self, side: int) -> dict[str, Any]:
        """One side's part, JSON-ready: seconds, counts, milliseconds; overlap and dead air are the same for both."""
        own = self.sides[side]
        delays = own.response_delays
        return {
            "talk_s": round(own.talk_s, 3),
            "turns": len(own.turns),
            "overlap_s": round(self.overlap_s, 3),
            "interruptions": len(own.interruptions),
            "response_delay_ms": {
                "count": len(delays),
                "median": round(1000 * median(delays)) if delays else None,
                "max": round(1000 * max(delays)) if delays else None,
            },
            "dead_air_s": round(sum(end - start for start, end in self.dead_air), 3),
            "dead_airs": len(self.dead_air),
        }


def turns_of(own: Sequence[Segment], other: Sequence[Segment], pause_s: float) -> list[Segment]:
    """A side's turns; ``other`` are the other side's segments."""
    starts = [start for start, _ in other]
    turns: list[Segment] = []
    for start, end in own:
        if turns:
            before = turns[-1][1]
            # does the other begin within [before, start)?
            between = bisect_right(starts, start) - bisect_right(starts, before)
            if start - before < pause_s and not between:
                turns[-1] = (turns[-1][0], end)
                continue
        turns.append((start, end))
    return turns


def converse(
    first: Sequence[Segment],
    second: Sequence[Segment],
    begin_s: float,
    end_s: float,
    rules: Rules = Rules(),
) -> Conversation:
    """Look at the segments of two sides on one clock, from ``begin_s`` to ``end_s``."""
    segments = (first, second)
    sides = (Side(), Side())
    for n, side in enumerate(sides):
        side.talk_s = sum(end - start for start, end in segments[n])
        side.turns = turns_of(segments[n], segments[1 - n], rules.pause_s)
    for n, side in enumerate(sides):
        theirs, their_turns = segments[1 - n], sides[1 - n].turns
        starts = [start for start, _ in theirs]
        turn_starts = [start for start, _ in their_turns]
        previous_end = float("-inf")
        for start, end in side.turns:
            i = bisect_right(starts, start) - 1
            if i >= 0 and starts[i] < start < theirs[i][1]:
                if theirs[i][1] <= min(start + rules.yield_s, end):
                    side.interruptions.append(start)
            else:
                j = bisect_right(turn_starts, start) - 1
                # a turn of theirs that goes on (in a pause of it) has not ended: no response
                if j >= 0 and turn_starts[j] < start and previous_end < their_turns[j][1] <= start:
                    side.response_delays.append(start - their_turns[j][1])
            previous_end = end
    union = _union(first, second)
    overlap = sides[0].talk_s + sides[1].talk_s - sum(end - start for start, end in union)
    dead: list[Segment] = []
    since = begin_s
    for start, end in [*union, (end_s, end_s)]:
        if min(start, end_s) - since >= rules.dead_air_s:
            dead.append((since, min(start, end_s)))
        since = max(since, end)
    return Conversation(sides, max(0.0, overlap), dead)


def _union(first: Sequence[Segment], second: Sequence[Segment]) -> list[Segment]:
    """Where either speaks."""
    out: list[Segment] = []
    for start, end in sorted([*first, *second]):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out
