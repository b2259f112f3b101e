"""Plain RTP of one SSRC from several addresses, to one port: each its own stream, and one that moves goes on in it."""

from __future__ import annotations

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, Result, batch_of, packet, payload_of, pcmu, run

from strep._engine.engine import Engine, EngineConfig
from strep._engine.release import Release

ONE = (0xFFFF_0A00_0001, 20_000)  # 10.0.0.1
PORT = (0xFFFF_0A00_0001, 20_002)  # of the same host
TWO = (0xFFFF_0A00_0003, 30_000)  # 10.0.0.3
THREE = (0xFFFF_0A00_0103, 30_000)  # 10.0.1.3
SIX = (0x2001_0DB8_0000_0000_0000_0000_0000_0007, 4000)


def sent(
    numbers: range,
    source: tuple[int, int],
    *,
    first: int = 0,
    timestamp: int = 0,
    after_ms: int = 0,
    ssrc: int = 0,
    ptime_ms: int = 20,
) -> list[Arrival]:
    """Packets ``numbers``, each at its place in time; ``first`` and ``timestamp`` are those of packet 0."""
    return [
        Arrival(
            T0 + (after_ms + ptime_ms * n) * MS,
            packet(first + n, timestamp=timestamp + 160 * n, ssrc=ssrc, call=None, payload=payload_of(first + n)),
            source,
        )
        for n in numbers
    ]


def both(*parts: list[Arrival]) -> list[Arrival]:
    return sorted((a for part in parts for a in part), key=lambda a: a.ns)


def audio(first: int, count: int) -> np.ndarray:
    return np.concatenate([pcmu(payload_of(s)) for s in range(first, first + count)])


def by_name(result: Result) -> dict[str, tuple[int, int]]:
    return {r.stream.name: (r.packets_received, r.packets_lost) for r in result.reports}


NAME, SIBLING = "rtp-9000-00000000", "rtp-9000-00000000-10_0_0_3-30000"


@pytest.mark.parametrize(
    ("first", "timestamp"),
    [(9000, 77_777), (0, 1 << 30), (40_000, 0), (0, 0), (5, 800), (-3 & 0xFFFF, -480 & 0xFFFF_FFFF)],
)
@pytest.mark.parametrize("other", [TWO, PORT, SIX])
@pytest.mark.parametrize("count", [10, 250])  # the end comes before it is known, or after
def test_one_ssrc_from_two_addresses_is_two_streams(
    first: int, timestamp: int, other: tuple[int, int], count: int
) -> None:
    """Whether or not the sequences are near each other."""
    mine = sent(range(count), ONE)
    its = sent(range(count), other, first=first, timestamp=timestamp, after_ms=7)
    result = run(both(mine, its), cuts=range(1, 2 * count, 3))
    assert [r.stream.source[1] for r in result.reports] == [ONE[1], other[1]]
    assert [(r.packets_received, r.packets_lost, r.sources) for r in result.reports] == [(count, 0, 1)] * 2
    assert result.totals.rejected == 0
    for report, begins in zip(result.reports, (0, first), strict=True):
        np.testing.assert_array_equal(result.audio[report.stream.serial], audio(begins, count))
        assert report.stream.notes == []
    assert len({r.stream.name for r in result.reports} | {r.stream.leg_name for r in result.reports}) == 2


def test_their_names_differ_by_address() -> None:
    parts = [sent(range(50), a, first=5000 * k, timestamp=9 << 20, after_ms=k) for k, a in enumerate((ONE, TWO, SIX))]
    result = run(both(*parts))
    assert set(by_name(result)) == {NAME, SIBLING, "rtp-9000-00000000-2001_db8__7-4000"}


def test_forty_addresses_with_one_ssrc_are_forty_streams() -> None:
    parts = [
        sent(range(60), (ONE[0] + k, 20_000), first=1500 * k, timestamp=k << 24, after_ms=k % 20) for k in range(40)
    ]
    result = run(both(*parts), cuts=range(1, 2400, 17))
    assert [(r.packets_received, r.packets_lost) for r in result.reports] == [(60, 0)] * 40
    assert (result.totals.rejected, len({r.stream.name for r in result.reports})) == (0, 40)


@pytest.mark.parametrize("to", [TWO, PORT])
@pytest.mark.parametrize("first", [0, 65_450])
def test_a_source_that_moves_goes_on_in_its_stream(to: tuple[int, int], first: int) -> None:
    """As when a NAT gives another port, or after a re-INVITE."""
    arrivals = sent(range(100), ONE, first=first) + sent(range(100, 300), to, first=first)
    result = run(arrivals, cuts=range(1, 300, 7))
    heard, report = result.only()
    assert (report.packets_received, report.packets_lost, result.totals.rejected) == (300, 0, 0)
    assert report.stream.name == NAME
    assert len(report.stream.notes) == 1
    np.testing.assert_array_equal(heard, audio(first, 300))


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("to", [THREE, (TWO[0], 31_000)])
def test_each_of_two_may_move_and_goes_on_in_its_own_stream(who: int, to: tuple[int, int]) -> None:
    begins = (0, 9000)
    parts = [
        sent(range(300 if k != who else 150), a, first=begins[k], timestamp=k << 30, after_ms=7 * k)
        for k, a in enumerate((ONE, TWO))
    ]
    parts.append(sent(range(150, 300), to, first=begins[who], timestamp=who << 30, after_ms=7 * who))
    result = run(both(*parts), cuts=range(1, 600, 5))
    assert by_name(result) == {NAME: (300, 0), SIBLING: (300, 0)}
    assert result.totals.rejected == 0
    for report, first in zip(result.reports, begins, strict=True):
        np.testing.assert_array_equal(result.audio[report.stream.serial], audio(first, 300))


def test_who_sends_beside_a_stream_is_not_heard_in_it() -> None:
    """It knows SSRC, sequence and timestamps."""
    real, foreign = sent(range(300), ONE), sent(range(30, 200), TWO, after_ms=3)
    result = run(both(real, foreign), cuts=range(1, 470, 3))
    assert by_name(result) == {NAME: (300, 0), SIBLING: (170, 0)}
    np.testing.assert_array_equal(result.audio[result.reports[0].stream.serial], audio(0, 300))


@pytest.mark.parametrize(("pin", "streams"), [("address", 2), ("network", 1), ("off", 1)])
def test_what_counts_as_one_address_is_one_stream(pin: str, streams: int) -> None:
    arrivals = both(sent(range(100), ONE), sent(range(100), TWO, first=100, timestamp=16_000, after_ms=2100))
    result = run(both(arrivals, sent(range(100, 200), ONE)), config=EngineConfig(pin=pin))
    assert len(result.reports) == streams


def test_a_sibling_outlives_the_first_one_and_the_next_one_has_the_first_name() -> None:
    first = sent(range(50), ONE)
    sibling = sent(range(500), TWO, first=9000, timestamp=1 << 30, after_ms=7)
    third = sent(range(50), THREE, first=30_000, timestamp=1 << 29, after_ms=8000)
    result = run(both(first, sibling, third), cuts=range(1, 600, 9), config=EngineConfig(idle_ns=3000 * MS))
    assert sorted((r.stream.name, r.packets_received) for r in result.reports) == [
        (NAME, 50),
        (NAME, 50),
        (SIBLING, 500),
    ]
    assert result.totals.rejected == 0


def test_a_sibling_that_begins_anew_is_still_its_own_stream() -> None:
    """Another sequence, from the same address."""
    first = sent(range(300), ONE)
    sibling = sent(range(100), TWO, first=9000, timestamp=1 << 30, after_ms=7)
    anew = sent(range(150, 300), TWO, first=200, timestamp=1 << 29, after_ms=7)
    result = run(both(first, sibling, anew), cuts=range(1, 550, 3))
    assert by_name(result) == {NAME: (300, 0), SIBLING: (250, 0)}
    assert [r.restarts for r in result.reports] == [0, 1]


def test_no_table_of_siblings_is_left_behind() -> None:
    engine = Engine(EngineConfig(idle_ns=2000 * MS), release=Release(100 * MS))
    parts = [sent(range(50), (ONE[0] + k, 20_000), first=1500 * k, after_ms=k) for k in range(10)]
    engine.receive(batch_of(both(*parts)))
    assert (engine.live_streams, len(engine.state.siblings._key_of)) == (10, 9)
    engine.advance(T0 + 20_000 * MS)
    siblings = engine.state.siblings
    assert (engine.live_streams, bool(siblings), siblings._key_of, int(siblings.among.sum())) == (0, False, {}, 0)


def accounts(result: Result) -> tuple[object, ...]:
    totals = result.totals
    return totals.delivered, totals.duplicate, totals.late, totals.rejected, totals.streams_started


# --- whatever is sent, however it is cut --------------------------------------------------------------------------

_SENDERS = st.lists(
    st.tuples(
        st.sampled_from([ONE, PORT, TWO, THREE]),
        st.integers(0, 2500),  # begins, ms
        st.integers(1, 40),  # packets
        st.sampled_from([10, 20, 60]),  # ms between them
        st.sampled_from([0, 3, 50, 9000, 65_500]),  # first sequence number
        st.sampled_from([0, 480, 8000, 1 << 30]),  # first timestamp
        st.sampled_from([1, 1, 2]),
    ),
    min_size=2,
    max_size=5,
)


@settings(max_examples=usual_or_slow(8, 400), deadline=None)
@given(senders=_SENDERS, cuts=st.sets(st.integers(1, 400), max_size=12))
def test_any_senders_of_one_ssrc_in_any_cuts_come_to_the_same(
    senders: list[tuple[tuple[int, int], int, int, int, int, int, int]], cuts: set[int]
) -> None:
    arrivals = []
    for n, (source, begin, count, apart, first, timestamp, step) in enumerate(senders):
        for k in range(0, count, step):
            data = packet((first + k) & 0xFFFF, ssrc=0, call=None, timestamp=timestamp + k * 160)
            arrivals.append(Arrival(T0 + (begin + k * apart) * MS + n, data, source))
    arrivals.sort(key=lambda a: a.ns)
    whole = run(arrivals)
    parts = run(arrivals, cuts=sorted(c for c in cuts if c < len(arrivals)), live=True, ticking=True)
    single = run(arrivals, cuts=range(1, len(arrivals)))
    for other in (parts, single):
        assert accounts(other) == accounts(whole)
        assert [r.as_dict() for r in other.reports] == [r.as_dict() for r in whole.reports]
        for serial, samples in whole.audio.items():
            np.testing.assert_array_equal(other.audio[serial], samples)
    assert len({r.stream.name for r in whole.reports}) == len(whole.reports)
