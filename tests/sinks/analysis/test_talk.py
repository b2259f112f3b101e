"""Conversations whose turns, interruptions and pauses are known because they were written down."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strep.sinks.analysis.dialogue import Dialogue, Party
from strep.sinks.analysis.talk import Rules, Segment, converse, turns_of


def test_a_conversation_in_turn() -> None:
    a = [(0.5, 2.0), (2.4, 3.0), (7.0, 8.0)]
    b = [(3.6, 6.0)]
    found = converse(a, b, 0.0, 12.0)
    assert found.sides[0].turns == [(0.5, 3.0), (7.0, 8.0)]
    assert found.sides[1].turns == [(3.6, 6.0)]
    assert found.sides[0].talk_s == pytest.approx(3.1)
    assert found.sides[1].response_delays == [pytest.approx(0.6)]
    assert found.sides[0].response_delays == [pytest.approx(1.0)]
    assert (found.overlap_s, found.sides[0].interruptions, found.sides[1].interruptions) == (pytest.approx(0), [], [])
    assert found.dead_air == [(8.0, 12.0)]
    assert found.figures(1) == {
        "talk_s": 2.4, "turns": 1, "overlap_s": 0.0, "interruptions": 0,
        "response_delay_ms": {"count": 1, "median": 600, "max": 600}, "dead_air_s": 4.0, "dead_airs": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("b", "interruptions", "overlap"),
    [
        ([(4.0, 7.0)], [4.0], 1.0),  # comes in, the other gives way after a second
        ([(4.0, 4.5)], [], 0.5),  # an "mhm": the other talks on
        ([(2.0, 7.0)], [], 3.0),  # the other talks on for more than two seconds
        ([(5.0, 7.0)], [], 0.0),  # exactly when the other ends: a response
        ([(4.0, 5.0)], [4.0], 1.0),  # both end at once
        ([(4.0, 4.3), (4.6, 6.0)], [4.0], 0.7),  # comes in in two pieces of one turn
    ],
)
def test_who_interrupts(b: list[Segment], interruptions: list[float], overlap: float) -> None:
    found = converse([(0.0, 5.0)], b, 0.0, 8.0)
    assert found.sides[1].interruptions == interruptions
    assert found.overlap_s == pytest.approx(overlap)
    assert found.sides[0].interruptions == []
    assert converse(b, [(0.0, 5.0)], 0.0, 8.0).sides[0].interruptions == interruptions


def test_what_is_no_response() -> None:
    # after one's own turn, after nobody's, and into a pause of the other's turn
    assert converse([(1.0, 2.0), (5.0, 6.0)], [], 0, 6).sides[0].response_delays == []
    found = converse([(0.0, 1.0), (1.9, 3.0)], [(1.4, 1.6)], 0, 3)
    assert found.sides[0].turns == [(0.0, 1.0), (1.9, 3.0)]
    assert found.sides[1].response_delays == [pytest.approx(0.4)]
    assert found.sides[0].response_delays == [pytest.approx(0.3)]


def test_dead_air_at_the_beginning_in_the_middle_and_at_the_end() -> None:
    found = converse([(4.0, 5.0)], [(5.5, 6.0), (9.0, 10.0)], 1.0, 12.9, Rules(dead_air_s=3.0))
    assert found.dead_air == [(1.0, 4.0), (6.0, 9.0)]
    assert converse([], [], 0.0, 2.9).dead_air == []
    assert converse([], [], 0.0, 3.0).dead_air == [(0.0, 3.0)]


sides = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40)), max_size=12).map(
    lambda steps: [
        (sum(a + b for a, b in steps[:i]) + steps[i][0], sum(a + b for a, b in steps[: i + 1]))
        for i in range(len(steps))
    ]
)


@given(sides, sides, st.integers(0, 40))
def test_times_are_those_of_a_count_by_ticks(a: list[Segment], b: list[Segment], tail: int) -> None:
    end = int(max([e for _, e in a + b], default=0)) + tail
    found = converse(a, b, 0, end, Rules(pause_s=10, yield_s=20, dead_air_s=15))
    on = [[any(s <= t < e for s, e in side) for t in range(end)] for side in (a, b)]
    assert [side.talk_s for side in found.sides] == [sum(side) for side in on]
    assert found.overlap_s == sum(x and y for x, y in zip(*on, strict=True))
    run, dead = 0, 0
    for t in range(end + 1):
        if t < end and not on[0][t] and not on[1][t]:
            run += 1
        else:
            dead += run if run >= 15 else 0
            run = 0
    assert sum(e - s for s, e in found.dead_air) == dead
    for n, (own, other) in enumerate([(a, b), (b, a)]):
        side = found.sides[n]
        assert side.turns == turns_of(own, other, 10)
        assert {s for s, _ in side.turns} <= {s for s, _ in own}
        assert sum(e - s for s, e in side.turns) >= side.talk_s
        for when in side.interruptions:  # the other spoke then, had begun before, and fell silent while this one talked
            assert on[1 - n][int(when) - 1]
            assert on[1 - n][int(when)]
            stopped = next(t for t in range(int(when), end + 1) if t == end or not on[1 - n][t])
            assert stopped - when <= 20
        assert len(side.interruptions) + len(side.response_delays) <= len(side.turns)


@pytest.mark.parametrize("early_ns", [0, 1, 3_000_000, 40_000_000])
def test_no_segment_begins_before_the_conversation(early_ns: int) -> None:
    """The clock's filter may put the first audio a little before where the dialogue was taken to begin: never -0.0."""
    dialogue = Dialogue()
    party = Party(SimpleNamespace(direction=0), dialogue)  # type: ignore[arg-type]
    dialogue.parties[0] = party
    dialogue.begin_ns, dialogue.end_ns = 10**18, 10**18 + 3 * 10**9
    party.add(dialogue.begin_ns - early_ns, dialogue.begin_ns + 10**9)
    party.open_ns = dialogue.begin_ns + 2 * 10**9
    found = party.figures(Rules())
    assert str(found["segments"]) == "[[0.0, 1.0], [2.0, 3.0]]"
    assert (found["talk_s"], found["silence_s"]) == (2.0, 1.0)
