"""The outcome depends on datagrams and arrival times alone: not on batches, ticks, or when blocks are sent off."""

from __future__ import annotations

import numpy as np
import pytest
from depth import one_or_all, usual_or_slow
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, batch_of, leg_id, packet, run, steady
from traffic import traffic

from strep._engine.engine import Engine
from strep._engine.release import Release
from strep._engine.streams.ring import MISORDER
from strep._model.blocks import BlockBatch
from strep._model.events import Ended


@pytest.mark.parametrize(("streams", "trouble"), [(1, 0.1), (3, 0.05), (14, 0.004), (14, 0.0), (40, 0.01)])
@given(seed=st.integers(0, 1 << 32), cut_seed=st.integers(0, 1 << 32))
@settings(max_examples=usual_or_slow(2, 40), deadline=None, suppress_health_check=list(HealthCheck))
def test_any_split_gives_the_same(streams: int, trouble: float, seed: int, cut_seed: int) -> None:
    arrivals = traffic(seed, streams, trouble)
    rng = np.random.default_rng(cut_seed)
    whole = run(arrivals)
    few = sorted(rng.integers(0, len(arrivals), 20).tolist())
    many = sorted(rng.integers(0, len(arrivals), len(arrivals) // 2).tolist())
    ways = [
        (few, True, False, True),
        (few, False, False, False),
        (many, False, True, True),
        (many, False, True, False),
        (many, True, True, True),
    ]
    for cuts, live, ticking, prompt in one_or_all(ways, rng):
        other = run(arrivals, cuts=cuts, live=live, ticking=ticking, prompt=prompt)
        assert other.totals == whole.totals
        assert [r.as_dict() for r in other.reports] == [r.as_dict() for r in whole.reports]
        assert other.gaps == whole.gaps
        assert other.audio.keys() == whole.audio.keys()
        for serial, samples in whole.audio.items():
            np.testing.assert_array_equal(other.audio[serial], samples)


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=usual_or_slow(6, 200), deadline=None, suppress_health_check=list(HealthCheck))
def test_bursts_are_judged_the_same_however_they_are_cut(seed: int) -> None:
    """20 packets of each stream at once, now and then several such bursts in a tick: more than a window, more than a
    ring has room for if they came in one batch."""
    rng = np.random.default_rng(seed)
    at = T0 + np.cumsum(np.where(rng.random(12) < 0.8, 12.1, rng.choice([0.5, 25, 250], 12)) * MS).astype(np.int64)
    at += int(rng.integers(0, 10 * MS))
    arrivals = [
        Arrival(int(at[k // 20]) + 4000 * (k % 20), packet(k, call=leg_id(n), timestamp=160 * k))
        for k in range(240)
        for n in range(2)
    ]
    arrivals.sort(key=lambda a: a.ns)
    whole = run(arrivals)
    for number in (2, 8, 30):
        cuts = sorted(rng.integers(1, len(arrivals), number).tolist())
        live, ticking, prompt = rng.integers(2, size=3).astype(bool).tolist()
        other = run(arrivals, cuts=cuts, live=live, ticking=ticking, prompt=prompt)
        assert other.totals == whole.totals
        assert other.gaps == whole.gaps
        for serial, samples in whole.audio.items():
            np.testing.assert_array_equal(other.audio[serial], samples)


@pytest.mark.parametrize("behind", [63, 64, 65, MISORDER - 1, MISORDER])
def test_copies_of_a_late_packet_are_judged_the_same_however_they_are_cut(behind: int) -> None:
    arrivals = steady(200)
    # packet 149 was the last before this tick, whose edge so stands at 150
    late = packet(150 - behind)
    lost = [a for k, a in enumerate(arrivals) if k != 150 - behind]
    at = T0 + 150 * 20 * MS
    arrivals = sorted([*lost, Arrival(at + MS, late), Arrival(at + 2 * MS, late)], key=lambda a: a.ns)
    whole = run(arrivals)
    single = run(arrivals, cuts=list(range(1, len(arrivals))))
    assert (whole.totals.late, whole.totals.duplicate) == (1, 1)
    assert single.totals == whole.totals
    assert [r.as_dict() for r in single.reports] == [r.as_dict() for r in whole.reports]


def test_packet_by_packet_equals_at_once() -> None:
    arrivals = traffic(7, 3, 0.05)
    whole = run(arrivals)
    single = run(arrivals, cuts=list(range(1, len(arrivals))), live=True, ticking=True)
    assert single.totals == whole.totals
    assert [r.as_dict() for r in single.reports] == [r.as_dict() for r in whole.reports]
    for serial, samples in whole.audio.items():
        np.testing.assert_array_equal(single.audio[serial], samples)


def test_arrival_times_that_go_back_are_clamped() -> None:
    arrivals = traffic(3, 2, 0.0)
    stepped = [Arrival(a.ns - (3_600_000 * MS if 50 <= i < 60 else 0), a.data) for i, a in enumerate(arrivals)]
    result = run(stepped)
    assert result.totals.late == 0
    assert [r.packets_lost for r in result.reports] == [0, 0]


@pytest.mark.parametrize(("release_ns", "forgone"), [(0, True), (200 * MS, True), (200 * MS, False)])
@given(seed=st.integers(0, 1 << 32), share=st.floats(0.05, 0.9))
@example(seed=410, share=0.5)  # a packet that was kept fills the hole before one that was not
@settings(max_examples=usual_or_slow(2, 40), deadline=None, suppress_health_check=list(HealthCheck))
def test_audio_wanted_later_begins_with_whole_packets(release_ns: int, forgone: bool, seed: int, share: float) -> None:
    arrivals = traffic(seed, 4, 0.03)
    whole = run(arrivals)
    middle = int(share * len(arrivals))
    engine = Engine(release=Release(release_ns, audio=False, payloads=not forgone))
    assert not [e for e in engine.receive(batch_of(arrivals[:middle])) if isinstance(e, BlockBatch)]
    events = [*engine.receive(batch_of(arrivals[middle:]), release=Release(release_ns)), *engine.flush()]
    end: dict[int, int] = {}
    for batch in (e for e in events if isinstance(e, BlockBatch)):
        for block in batch:
            serial = block.stream.serial
            if serial in end:
                assert end[serial] == block.position - (block.gap.samples if block.gap else 0)
            end[serial] = block.position + len(block.samples)
            np.testing.assert_array_equal(
                block.samples.reshape(-1), whole.audio[serial][block.position : end[serial]], str(serial)
            )
    assert engine.totals() == whole.totals
    reports = {e.report.stream.serial: e.report.as_dict() for e in events if isinstance(e, Ended)}
    for report in whole.reports:
        if report.stream.serial in reports:  # the others ended before
            assert reports[report.stream.serial] == report.as_dict()
    half_second_later = [a for a in arrivals[middle:] if a.ns > arrivals[middle].ns + 500 * MS]
    if half_second_later:
        assert any(end[s] == len(whole.audio[s]) for s in end)
