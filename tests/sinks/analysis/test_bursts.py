"""Bursts and gaps: against the code of RFC 3611 appendix A.2, against the definition in 4.7.2, and its example."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strep.sinks.analysis.loss_bursts import GMIN, LossBursts


@dataclass
class AppendixA2:
    """RFC 3611 appendix A.2, in Python: a packet at a time, with the names it has there.

    ``lost`` begins with 1: the session is preceded by a gap (section 4.7.2), so its first loss ends one.
    """

    gmin: int = GMIN
    pkt: int = 0
    lost: int = 1
    c11: int = 0
    c13: int = 0
    c14: int = 0
    c22: int = 0
    c23: int = 0
    c33: int = 0
    loss_count: int = 0

    def feed(self, packet_lost: bool) -> None:
        if packet_lost:
            self.loss_count += 1
        if not packet_lost:
            self.pkt += 1
        else:
            if self.pkt >= self.gmin:
                if self.lost == 1:
                    self.c14 += 1
                else:
                    self.c13 += 1
                self.lost = 1
                self.c11 += self.pkt
            else:
                self.lost += 1
                if self.pkt == 0:
                    self.c33 += 1
                else:
                    self.c23 += 1
                    self.c22 += self.pkt - 1
            self.pkt = 0

    def burst_density(self) -> float:
        c31, c32 = self.c13, self.c23
        p32 = c32 / (c31 + c32 + self.c33)
        p23 = 1.0 if self.c22 + self.c23 < 1 else 1 - self.c22 / (self.c22 + self.c23)
        return p23 / (p23 + p32)


def appendix(pattern: str) -> AppendixA2:
    """Its counters, the session preceded and followed by GMIN received packets, as section 4.7.2 has it."""
    machine = AppendixA2()
    for packet in "1" * GMIN + pattern + "1" * GMIN + "0":
        machine.feed(packet == "0")
    return machine


def items(pattern: str) -> tuple[list[int], list[int]]:
    """Runs: ``lost`` packets, then ``received`` ones."""
    runs = re.findall(r"(0*)(1*)", pattern)[:-1]
    return [len(lost) for lost, _ in runs], [len(received) for _, received in runs]


def counted(pattern: str) -> LossBursts:
    bursts = LossBursts(1)
    lost, received = items(pattern)
    bursts.add(np.zeros(len(lost), np.int64), np.array(lost, np.int64), np.array(received, np.int64))
    return bursts


EXAMPLE = "11110111111111111111111X111X1011110111111111111111111X1111111111".replace("X", "0")
ROW = np.array([0])

patterns = st.one_of(
    st.text("01", max_size=200),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=20).map(
        lambda runs: "".join("0" * lost + "1" * received for lost, received in runs)
    ),
)


def test_the_example_of_the_rfc() -> None:
    """4.7.2: 64 packets of 10 ms; burst 120 ms of density 0.33, gap 230 + 290 ms of density 0.04."""
    found = counted(EXAMPLE).metrics(ROW, 10.0)
    assert {name: value.item() for name, value in found.items()} == {
        "burst_density": pytest.approx(4 / 12),
        "gap_density": pytest.approx(2 / 52),
        "burst_ms": 120,
        "gap_ms": 520,
        "bursts": 1,
        "loss": pytest.approx(6 / 64),
    }


@given(patterns)
def test_counters_are_those_of_appendix_a2(pattern: str) -> None:
    machine, found = appendix(pattern), counted(pattern)
    c = {name: int(value[0]) for name, value in found.counts(ROW).items()}
    if "0" not in pattern:
        assert c["received_in_gap"] == len(pattern)
        assert c["lost"] == c["bursts"] == c["lost_in_gap"] == 0
        return
    # the packets before and after are not the session's; the loss before it was isolated
    assert c["received_in_gap"] == machine.c11 - 2 * GMIN
    assert c["lost_in_gap"] == machine.c14 - 1
    assert c["bursts"] == machine.c13
    assert c["received_in_burst"] == machine.c22 + machine.c23
    assert c["lost_in_burst"] == machine.c13 + machine.c23 + machine.c33
    assert c["lost"] == machine.loss_count - 1
    if machine.c13:
        assert found.metrics(ROW, 20.0)["burst_density"][0] == pytest.approx(machine.burst_density())


@given(patterns)
def test_bursts_are_what_section_4_7_2_defines(pattern: str) -> None:
    """The longest sequences that begin and end with a loss and hold no GMIN received packets in a row."""
    c = {name: int(value[0]) for name, value in counted(pattern).counts(ROW).items()}
    spans = [m.group() for m in re.finditer(rf"0(?:1{{0,{GMIN - 1}}}0)*", pattern)]
    bursts = [span for span in spans if span != "0"]
    inside = "".join(bursts)
    assert c["bursts"] == len(bursts)
    assert (c["lost_in_burst"], c["received_in_burst"]) == (inside.count("0"), inside.count("1"))
    assert c["lost_in_gap"] == len(spans) - len(bursts)
    assert c["received_in_gap"] == pattern.count("1") - inside.count("1")
    assert (c["lost"], c["received"]) == (pattern.count("0"), pattern.count("1"))
    assert c["runs"] == len(re.findall("0+", pattern))


@given(st.lists(patterns, min_size=1, max_size=5), st.integers(1, 7), st.data())
def test_how_it_is_cut_and_who_else_is_there_makes_no_difference(
    streams: list[str], every: int, data: st.DataObject
) -> None:
    together = LossBursts(2)
    together.grow(len(streams) + 1)
    left = [list(zip(*items(pattern), strict=True)) for pattern in streams]
    while any(left):
        taken = [rows[:every] for rows in left]
        left = [rows[every:] for rows in left]
        row = [number for number, part in enumerate(taken) for _ in part]
        flat = [item for part in taken for item in part]
        columns = np.array(flat, np.int64).reshape(-1, 2)
        together.add(np.array(row, np.int64), columns[:, 0], columns[:, 1])
    rows = np.arange(len(streams))
    found = together.counts(rows)
    for number, pattern in enumerate(streams):
        alone = counted(pattern).counts(ROW)
        assert {k: int(v[number]) for k, v in found.items()} == {k: int(v[0]) for k, v in alone.items()}
    reset = data.draw(st.integers(0, len(streams) - 1))
    together.reset(np.array([reset]))
    assert all(int(v[0]) == 0 for v in together.counts(np.array([reset])).values())
