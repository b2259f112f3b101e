"""Admission of announced legs only: media that comes first, too late or never; ended legs; faults.md 23."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import LEG, MS, T0, Arrival, Result, batch_of, leg_id, packet, payload_of, pcmu, run, steady

from strep._engine.engine import Engine, EngineConfig
from strep._engine.sources.announcements import Announcements
from strep._engine.sources.port_keys import PortBinding, PortRole
from strep._model.addresses import SourceFilter
from strep._model.events import Event

ONLY = EngineConfig(pending_ns=5_000 * MS)
SPOOFER = (0xFFFF_C633_6407, 6666)  # 198.51.100.7


def announce(engine: Engine) -> list[Event]:
    return engine.announce(LEG)


def audio_of(sequences: range, missing: set[int] = frozenset()) -> np.ndarray:
    silence = np.zeros(160, np.int16)
    return np.concatenate([silence if s in missing else pcmu(payload_of(s)) for s in sequences])


def both_directions(count: int) -> list[Arrival]:
    return sorted(steady(count) + steady(count, direction=1, ssrc=0x99), key=lambda a: a.ns)


def check_whole(result: Result, count: int) -> None:
    assert [r.stream.stem for r in result.reports] == ["a-inbound", "a-outbound"]
    for report in result.reports:
        assert (report.packets_received, report.packets_lost, report.late) == (count, 0, 0)
        np.testing.assert_array_equal(result.audio[report.stream.serial], audio_of(range(count)))
    assert result.totals.rejected == 0


def test_an_announced_leg_is_admitted_and_another_one_is_not() -> None:
    others = steady(60, call=leg_id(1), start_ns=T0 + MS)
    result = run(sorted(steady(60) + others, key=lambda a: a.ns), config=ONLY, between={0: announce})
    audio, report = result.only()
    assert (report.stream.call_leg_id, report.packets_lost) == (LEG, 0)
    assert result.totals.rejected_by == {"unannounced": 60}
    np.testing.assert_array_equal(audio, audio_of(range(60)))


@pytest.mark.parametrize("when", [2, 3, 40, 79, 81, 90, 300, 498])
@pytest.mark.parametrize("live", [False, True])
def test_media_before_the_announcement_waits_and_is_whole(when: int, live: bool) -> None:
    result = run(both_directions(250), cuts=range(1, 500, 7), config=ONLY, between={when: announce}, live=live)
    check_whole(result, 250)
    assert [r.stream.first_arrival_ns for r in result.reports] == [T0, T0]


def test_media_that_had_ended_before_the_announcement_is_there_too() -> None:
    result = run(both_directions(100), config=ONLY, between={200: announce})
    check_whole(result, 100)


def troubled(seed: int) -> list[Arrival]:
    """240 packets with loss, duplicates and up to 60 ms of jitter."""
    rng = np.random.default_rng(seed)
    arrivals = [
        Arrival(a.ns + int(rng.integers(0, 60)) * MS, a.data)
        for k, a in enumerate(steady(240))
        for _ in range(1 if k < 3 else int(rng.choice([0, 1, 1, 1, 1, 1, 1, 2])))
    ]
    return sorted(arrivals, key=lambda a: a.ns)


def check_as_good(arrivals: list[Arrival], when: int, cuts: Sequence[int] = ()) -> None:
    """Announced after ``when`` arrivals: the same audio and figures as of a leg announced in time."""
    early = run(arrivals, config=ONLY, between={0: announce})
    late = run(arrivals, config=ONLY, cuts=cuts, between={when: announce})
    (audio, report), (other, figures) = early.only(), late.only()
    for name in ("packets_received", "packets_expected", "packets_lost", "duplicates", "late", "samples"):
        assert getattr(report, name) == getattr(figures, name), name
    np.testing.assert_array_equal(audio, other)


@settings(max_examples=usual_or_slow(6, 60), deadline=None)
@given(data=st.data())
def test_what_waited_is_as_good_as_what_did_not(data: st.DataObject) -> None:
    arrivals = troubled(data.draw(st.integers(0, 1 << 32)))
    when = data.draw(st.integers(2, len(arrivals)))
    check_as_good(arrivals, when, sorted(data.draw(st.sets(st.integers(1, len(arrivals)), max_size=8))))


@pytest.mark.parametrize(
    ("seed", "when"),
    [(112, 188), (40, 187), (49, 198), (67, 230), (77, 89), (84, 65), (100, 203), (29, 38)],
)
def test_what_waited_is_as_good_where_it_once_was_not(seed: int, when: int) -> None:
    check_as_good(troubled(seed), when)


def test_a_hole_that_was_overdue_at_the_announcement_does_not_hold_the_window_back() -> None:
    """Packet 60 is lost; 103, announced, and 104 come within one tick. Where 60 is still waited for, 104 is beyond the
    window, and rejected."""
    arrivals = [a for k, a in enumerate(steady(150)) if k != 60]
    at = next(n for n, a in enumerate(arrivals) if a.ns == T0 + 104 * 20 * MS)
    arrivals[at] = Arrival(T0 + 103 * 20 * MS + MS, arrivals[at].data)
    check_as_good(arrivals, at)


def test_a_short_backlog_that_reaches_far_does_not_hold_the_window_back() -> None:
    """31 packets wait, of 44 sequence numbers: all fit into the window, and the next one would not if it still began
    where the stream did."""
    arrivals = [a for k, a in enumerate(steady(150)) if not (k < 44 and k % 3 == 2)]
    at = next(n for n, a in enumerate(arrivals) if a.ns == T0 + 44 * 20 * MS)
    arrivals[at] = Arrival(T0 + 43 * 20 * MS + MS, arrivals[at].data)
    check_as_good(arrivals, at)


def test_bursts_of_loss_in_what_waited() -> None:
    arrivals = [a for k, a in enumerate(steady(240)) if not (60 <= k < 90 or 100 <= k < 180)]
    audio, report = run(arrivals, config=ONLY, between={len(arrivals): announce}).only()
    assert (report.packets_expected, report.packets_lost) == (240, 110)
    np.testing.assert_array_equal(audio, audio_of(range(240), {*range(60, 90), *range(100, 180)}))


def test_what_waits_too_long_is_rejected_and_what_follows_waits_anew() -> None:
    arrivals = steady(400)  # 8 s; announced after 7 s
    audio, report = run(arrivals, cuts=range(1, 400), config=ONLY, between={350: announce}).only()
    first = 400 - report.packets_received
    assert 250 <= first <= 253  # pending from the second packet on
    assert report.packets_lost == 0
    np.testing.assert_array_equal(audio, audio_of(range(first, 400)))


@pytest.mark.parametrize("more", [0, 300])
def test_a_leg_that_is_never_announced_is_counted(more: int) -> None:
    arrivals = steady(60) + steady(more, first=60, start_ns=T0 + 1200 * MS)
    engine = Engine(ONLY)
    for arrival in arrivals:
        engine.receive(batch_of([arrival]))
    deadline = engine.next_deadline_ns()
    assert deadline is not None
    assert deadline <= arrivals[-1].ns + ONLY.pending_ns  # type: ignore[operator]
    assert engine.advance(deadline + 20 * MS) == []
    totals = engine.totals()
    assert totals.rejected_by["unannounced"] >= 60
    assert (totals.unaccounted, totals.streams_started) == (0, 0)
    engine.advance(deadline + ONLY.pending_ns + 20 * MS)  # type: ignore[operator]
    assert engine.totals().rejected_by == {"unannounced": 60 + more}
    assert engine.next_deadline_ns() is None


def test_a_flood_of_legs_that_nobody_announced_is_bounded_and_hurts_no_call() -> None:
    flood = [Arrival(T0 + k * 100_000, packet(n, call=leg_id(10 + k), ssrc=k)) for k in range(6000) for n in (0, 1)]
    arrivals = sorted(flood + steady(30), key=lambda a: a.ns)
    result = run(arrivals, cuts=range(1, len(arrivals), 300), config=ONLY, between={0: announce})
    audio, report = result.only()
    assert report.packets_lost == 0
    assert result.totals.rejected_by == {"unannounced": 12_000}
    np.testing.assert_array_equal(audio, audio_of(range(30)))


def test_plain_rtp_needs_a_port_that_is_bound_to_a_leg() -> None:
    plain = [Arrival(a.ns, a.data, local_port=port) for port in (9000, 9002) for a in steady(20, call=None)]
    bindings = {9002: PortBinding(PortRole.RX, 9002)}
    config = EngineConfig(pending_ns=5_000 * MS, bindings=bindings)
    result = run(sorted(plain, key=lambda a: a.ns), config=config)
    assert [(r.stream.local_port, r.packets_received) for r in result.reports] == [(9002, 20)]
    assert result.totals.rejected_by == {"unannounced": 20}


def test_a_leg_that_is_forgotten_is_no_longer_admitted_and_what_lives_goes_on() -> None:
    def forget(engine: Engine) -> None:
        engine.forget(LEG)

    arrivals = sorted(steady(60) + steady(20, direction=1, start_ns=T0 + 700 * MS), key=lambda a: a.ns)
    result = run(arrivals, config=ONLY, between={0: announce, 30: forget})
    _, report = result.only()
    assert (report.packets_received, result.totals.rejected_by) == (60, {"unannounced": 20})


def test_an_ended_leg_stays_ended_for_a_while_and_can_be_announced_again() -> None:
    def end(engine: Engine) -> list[Event]:
        now = engine.now_ns
        engine.registry.shut_out(LEG, now + 300 * MS, now)
        return engine.end(engine.registry.live(), "stopped")

    result = run(steady(100), config=EngineConfig(), between={40: end})
    assert [(r.end, r.packets_received) for r in result.reports] == [("stopped", 40), ("closed", 46)]
    assert result.totals.rejected_by == {"ended": 14}
    np.testing.assert_array_equal(result.audio[0], audio_of(range(40)))
    result = run(steady(100), config=EngineConfig(), between={40: end, 42: announce})
    assert result.reports[0].packets_received == 40
    assert sum(r.packets_received for r in result.reports) + result.totals.rejected == 100
    assert result.totals.rejected <= 2


def test_rows_of_ended_streams_are_reused_cleanly_within_a_tick() -> None:
    def end(engine: Engine) -> list[Event]:
        return engine.end(engine.registry.live(), "stopped")

    other = steady(50, call=leg_id(1), start_ns=T0 + 400 * MS)
    result = run(sorted(steady(20) + other, key=lambda a: a.ns), between={20: end})
    assert [(r.stream.index, r.packets_received, r.packets_lost) for r in result.reports] == [(0, 20, 0), (0, 50, 0)]
    np.testing.assert_array_equal(result.audio[1], audio_of(range(50)))


def test_as_many_legs_as_streams_can_be_announced() -> None:
    table = Announcements(4, 1)
    assert all(table.announce(0, n) is not None for n in range(4))
    assert table.announce(0, 9) is None
    table.forget(0, 1)
    assert table.announce(0, 9) is not None
    assert (table.known(0, 1), table.known(0, 9)) == (False, True)


# --- faults.md 23 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [EngineConfig(), ONLY])
@pytest.mark.parametrize("packets", [2, 5, 30])
def test_a_spoof_that_races_the_first_packet_gives_the_stream_back_within_a_second(
    config: EngineConfig, packets: int
) -> None:
    spoof = [Arrival(a.ns, a.data, SPOOFER) for a in steady(packets, start_ns=T0 - 50 * MS, ssrc=0xBAD, first=30_000)]
    arrivals = sorted(spoof + steady(200), key=lambda a: a.ns)
    result = run(arrivals, cuts=range(1, len(arrivals)), config=config, between={0: announce})
    _, report = result.only()
    assert (report.sources, report.stream.ssrcs) == (2, [0xBAD, 0x1234])
    real = report.packets_received - packets
    silent_ms = max(0, packets * 20 - 50)
    assert (200 - real) * 20 <= max(silent_ms, 0) + 1000
    tail = audio_of(range(150, 200))
    np.testing.assert_array_equal(result.audio[0][-len(tail) :], tail)


def test_a_spoof_from_a_network_that_may_not_send_never_comes_in() -> None:
    spoof = [Arrival(a.ns, a.data, SPOOFER) for a in steady(300, start_ns=T0 - 50 * MS, ssrc=0xBAD, first=30_000)]
    config = EngineConfig(pending_ns=5_000 * MS, sources=SourceFilter(["10.0.0.0/8"]))
    result = run(sorted(spoof + steady(200), key=lambda a: a.ns), config=config, between={0: announce})
    audio, report = result.only()
    assert (report.sources, result.totals.rejected_by) == (1, {"source": 300})
    np.testing.assert_array_equal(audio, audio_of(range(200)))


def test_a_spoof_of_a_leg_that_is_not_announced_yet_meets_the_real_source_on_equal_terms() -> None:
    """Both wait; what proved itself first is admitted, and the other takes over when it is silent."""
    spoof = [Arrival(a.ns, a.data, SPOOFER) for a in steady(10, start_ns=T0 - 50 * MS, ssrc=0xBAD, first=30_000)]
    arrivals = sorted(spoof + steady(200), key=lambda a: a.ns)
    result = run(arrivals, cuts=range(1, len(arrivals)), config=ONLY, between={80: announce})
    tail = audio_of(range(150, 200))
    assert len(result.reports) == 1
    np.testing.assert_array_equal(result.audio[0][-len(tail) :], tail)
