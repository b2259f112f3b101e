"""What a speech meter keeps of a call leg and its two directions: segments, the present turn, what goes on."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ..._model.types import StreamInfo
from .talk import Rules, converse

__all__ = ["Dialogue", "OpenTurn", "Party"]

_SEGMENTS_KEPT: Final = 50_000  # of a direction; the oldest are forgotten beyond
_SEGMENTS_SHOWN: Final = 1000  # of a direction, in a summary


class OpenTurn(NamedTuple):
    """A turn that may go on. Times in ns on the receiver's clock, ``position`` in the stream's sample frames."""

    begin_ns: int
    end_ns: int
    position: int


class Dialogue:
    """Both directions of a call leg. Times are in ns on the receiver's clock."""

    def __init__(self) -> None:
        self.parties: list[Party | None] = [None, None]  # by Direction
        self.segments: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])  # by Direction: begin, end
        self.begin_ns: int | None = None  # the first audio of either direction
        self.end_ns = 0
        self.dead_since_ns: int | None = None  # the dead air that goes on
        self.dead_party: Party | None = None  # the direction whose event told of it

    @property
    def over(self) -> bool:
        """Whether no direction is live."""
        return all(party is None or party.ended for party in self.parties)

    def live_parties(self) -> list[Party]:
        return [party for party in self.parties if party is not None and not party.ended]


class Party:
    """One direction of a dialogue."""

    __slots__ = (
        "dialogue", "ended", "one_way_cause", "one_way_ns", "open_ns", "segments", "side", "stream", "theirs", "turn",
    )  # fmt: skip

    def __init__(self, stream: StreamInfo, dialogue: Dialogue) -> None:
        self.stream = stream
        self.dialogue = dialogue
        self.side = int(stream.direction)
        self.segments, self.theirs = dialogue.segments[self.side], dialogue.segments[1 - self.side]
        self.ended = False
        self.open_ns: int | None = None  # when the present segment began; None: nobody speaks
        self.turn: OpenTurn | None = None
        self.one_way_ns: int | None = None  # since when the other direction is missing or mute; None: it is not
        self.one_way_cause = ""

    @property
    def other(self) -> Party | None:
        """The other direction."""
        return self.dialogue.parties[1 - self.side]

    def add(self, begin_ns: int, end_ns: int) -> None:
        """Add a segment that has ended."""
        segments = self.segments
        segments.append((begin_ns, end_ns))
        if len(segments) > _SEGMENTS_KEPT:
            del segments[: _SEGMENTS_KEPT // 10]

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
        """This direction's part of the conversation so far, in seconds from the dialogue's beginning."""
        dialogue = self.dialogue
        begin = dialogue.begin_ns or 0
        sides = []
        for side, party in enumerate(dialogue.parties):
            spans = list(dialogue.segments[side])
            if party is not None and party.open_ns is not None and dialogue.end_ns > party.open_ns:
                spans.append((party.open_ns, dialogue.end_ns))
            # what the clock's filter has put a moment before the beginning began with it
            sides.append([(max(b - begin, 0) / 1e9, max(e - begin, 0) / 1e9) for b, e in spans])
        length = (dialogue.end_ns - begin) / 1e9 if dialogue.begin_ns is not None else 0.0
        conversation = converse(sides[0], sides[1], 0.0, length, rules)
        own = sides[self.side]
        figures = conversation.figures(self.side)
        figures["silence_s"] = round(max(0.0, length - figures["talk_s"]), 3)
        figures["segments"] = [[round(b, 2), round(e, 2)] for b, e in own[:_SEGMENTS_SHOWN]]
        figures["segments_left_out"] = max(0, len(own) - _SEGMENTS_SHOWN)
        return figures
