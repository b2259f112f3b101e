"""What a speech meter keeps of a call leg and its two directions: segments, turns, what goes on."""

from __future__ import annotations

from typing import Any, Final

from ..._model.types import StreamInfo
from .talk import Rules, converse

__all__ = ["Leg", "Party"]

_MOST: Final = 50_000  # segments of a direction; the oldest are forgotten beyond
_SHOWN: Final = 1000  # segments in a summary


class Leg:
    """Both directions of a call leg on the receiver's clock; times in ns."""

    def __init__(self) -> None:
        self.parties: list[Party | None] = [None, None]  # by Direction
        self.segments: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self.begin_ns: int | None = None
        self.end_ns = 0
        self.dead_since_ns: int | None = None
        self.dead_party: Party | None = None  # whose event it was

    @property
    def over(self) -> bool:
        return all(party is None or party.ended for party in self.parties)


class Party:
    """One direction."""

    __slots__ = (
        "ended", "leg", "one_way_cause", "one_way_ns", "open_ns", "segments", "side", "stream", "theirs", "turn",
    )  # fmt: skip

    def __init__(self, stream: StreamInfo, leg: Leg) -> None:
        self.stream = stream
        self.leg = leg
        self.side = int(stream.direction)
        self.segments, self.theirs = leg.segments[self.side], leg.segments[1 - self.side]
        self.ended = False
        self.open_ns: int | None = None  # when the present segment began
        self.turn: tuple[int, int, int] | None = None  # begin, end, position of the turn that may go on
        self.one_way_ns: int | None = None  # since when the other direction is missing or mute
        self.one_way_cause = ""

    @property
    def other(self) -> Party | None:
        return self.leg.parties[1 - self.side]

    def add(self, begin_ns: int, end_ns: int) -> None:
        segments = self.segments
        segments.append((begin_ns, end_ns))
        if len(segments) > _MOST:
            del segments[: _MOST // 10]

    def other_began(self, after_ns: int, until_ns: int) -> bool:
        """Whether the other side began a segment in (after, until]."""
        other = self.other
        if other is not None and other.open_ns is not None and after_ns < other.open_ns <= until_ns:
            return True
        for begin, _ in reversed(self.theirs):
            if begin <= after_ns:
                return False
            if begin <= until_ns:
                return True
        return False

    def figures(self, rules: Rules) -> dict[str, Any]:
        """This direction's part of the conversation so far; seconds from the leg's beginning."""
        leg = self.leg
        begin = leg.begin_ns or 0
        sides = []
        for side, party in enumerate(leg.parties):
            segments = [((b - begin) / 1e9, (e - begin) / 1e9) for b, e in leg.segments[side]]
            if party is not None and party.open_ns is not None and leg.end_ns > party.open_ns:
                segments.append(((party.open_ns - begin) / 1e9, (leg.end_ns - begin) / 1e9))
            sides.append(segments)
        length = (leg.end_ns - begin) / 1e9 if leg.begin_ns is not None else 0.0
        found = converse(sides[0], sides[1], 0.0, length, rules)
        own = sides[self.side]
        figures = found.figures(self.side)
        figures["silence_s"] = round(max(0.0, length - figures["talk_s"]), 3)
        figures["segments"] = [[round(b, 2), round(e, 2)] for b, e in own[:_SHOWN]]
        figures["segments_left_out"] = max(0, len(own) - _SHOWN)
        return figures
