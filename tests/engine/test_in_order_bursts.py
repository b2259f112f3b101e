"""Packets that come all at once, in order: delivered, however many. FAULTS row 51."""

from __future__ import annotations

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, packet, payload_of, pcmu, run, steady

from strep._engine.engine import EngineConfig


def burst(count: int, *, before: int = 50, after: int = 50, every_ns: int = 10_000) -> list[Arrival]:
    """A queue holds ``count`` packets back, lets them go at once, and is gone."""
    numbers = range(before + count + after)
    at = [k * 20 * MS if not before <= k < before + count else (before + count) * 20 * MS - 5 * MS for k in numbers]
    return [Arrival(T0 + ns + (k - before) * every_ns * (before <= k < before + count), packet(k)) for k, ns in
            zip(numbers, at, strict=True)]  # fmt: skip


@pytest.mark.parametrize("count", [45, 76, 77, 250, 499, 2400])
@pytest.mark.parametrize("live", [False, True])
def test_a_burst_of_any_size_is_delivered(count: int, live: bool) -> None:
    arrivals = sorted(burst(count, every_ns=1000), key=lambda a: a.ns)
    audio, report = run(arrivals, live=live, config=EngineConfig()).only()
    assert (report.late, report.packets_lost, report.gap_samples, report.restarts) == (0, 0, 0, 0)
    assert report.packets_received == len(arrivals)
    np.testing.assert_array_equal(audio, np.concatenate([pcmu(payload_of(k)) for k in range(len(arrivals))]))


@given(
    counts=st.lists(st.integers(2, 300), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 900), max_size=30),
    live=st.booleans(),
    ticking=st.booleans(),
)
@settings(max_examples=usual_or_slow(15, 200), deadline=None, suppress_health_check=list(HealthCheck))
def test_bursts_are_the_same_however_they_are_cut(
    counts: list[int], cuts: list[int], live: bool, ticking: bool
) -> None:
    """Two streams in the same ticks, one of which brings junk as well."""
    arrivals: list[Arrival] = []
    sequence, ns = 0, T0
    for count in counts:
        for k in range(count):
            arrivals.append(Arrival(ns + k * 3000, packet(sequence)))
            arrivals.append(Arrival(ns + k * 3000, packet(sequence, ssrc=5, direction=1)))
            if k % 7 == 3:  # far ahead, far behind, none of it in sequence
                arrivals.append(Arrival(ns + k * 3000, packet(sequence + 60 + 97 * k, ssrc=5, direction=1)))
            sequence += 1
        ns += count * 20 * MS
    whole = run(arrivals)
    reports = {r.stream.direction: r for r in whole.reports}
    assert (reports[0].packets_lost, reports[0].late, reports[0].packets_received) == (0, 0, sequence)
    assert reports[1].late == 0
    other = run(arrivals, cuts=sorted(c for c in cuts if c < len(arrivals)), live=live, ticking=ticking)
    assert other.totals == whole.totals
    assert [r.as_dict() for r in other.reports] == [r.as_dict() for r in whole.reports]
    for serial, samples in whole.audio.items():
        np.testing.assert_array_equal(other.audio[serial], samples)


@given(
    parts=st.lists(st.tuples(st.integers(1, 120), st.integers(0, 150)), min_size=1, max_size=6),
    within_ns=st.integers(0, 9_999_999),
    cuts=st.lists(st.integers(1, 900), max_size=20),
    live=st.booleans(),
)
@settings(max_examples=usual_or_slow(15, 400), deadline=None, suppress_health_check=list(HealthCheck))
def test_losses_in_a_burst_cost_nothing_but_themselves(
    parts: list[tuple[int, int]], within_ns: int, cuts: list[int], live: bool
) -> None:
    """In one burst, that may end in the next tick, packets come in order and packets are missing, in turn: what came
    is heard, where it belongs, and what is missing is lost. (One packet alone behind a loss that is longer than the
    ring proves nothing, so here there are two or more.)"""
    numbers = list(range(50))
    for come, missing in parts:
        numbers += range(numbers[-1] + 1, numbers[-1] + 1 + come)
        numbers += [numbers[-1] + missing + 1]
    count = len(numbers)
    numbers += range(numbers[-1] + 1, numbers[-1] + 41)
    burst_ns = 20 * MS * numbers[count - 1] // (10 * MS) * 10 * MS + within_ns
    at = [20 * MS * n if i < 50 else burst_ns + (i - 50) * 2000 for i, n in enumerate(numbers[:count])]
    at += [burst_ns + 20 * MS * (i + 1) for i in range(40)]
    arrivals = [Arrival(T0 + ns, packet(n)) for ns, n in zip(at, numbers, strict=True)]
    whole = run(arrivals, config=EngineConfig())
    audio, report = whole.only()
    assert (report.packets_lost, report.late) == (sum(missing for _, missing in parts), 0)
    assert report.packets_received == len(arrivals)
    expected = np.zeros((numbers[-1] + 1, 160), np.int16)
    for n in numbers:
        expected[n] = pcmu(payload_of(n))
    np.testing.assert_array_equal(audio, expected.reshape(-1))
    other = run(arrivals, cuts=sorted(c for c in cuts if c < len(arrivals)), live=live, config=EngineConfig())
    assert other.totals == whole.totals
    np.testing.assert_array_equal(other.only()[0], audio)


@pytest.mark.parametrize("behind", [1, 63, 64, 65, 99, 100])
def test_copies_are_duplicates_however_late(behind: int) -> None:
    """Each of 500 packets comes again, so many packets later."""
    arrivals = steady(500 + behind)
    copies = [Arrival(a.ns + behind * 20 * MS + MS, a.data) for a in arrivals[:500]]
    report = run(sorted(arrivals + copies, key=lambda a: a.ns)).only()[1]
    assert (report.packets_lost, report.duplicates, report.late) == (0, 500, 0)


def test_copies_of_what_came_before_a_long_loss_are_duplicates() -> None:
    arrivals = steady(300)
    kept = arrivals[:100] + arrivals[150:]
    copies = [Arrival(arrivals[152].ns + MS + k, arrivals[99 - k].data) for k in range(30)]
    report = run(sorted(kept + copies, key=lambda a: a.ns)).only()[1]
    assert (report.packets_lost, report.duplicates, report.late) == (50, 30, 0)
