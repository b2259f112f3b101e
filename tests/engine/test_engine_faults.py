"""faults.md 1 to 9: loss, duplicates, reordering, SSRC changes, restarts, jumps, DTX, durations. Virtual time."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from support import LEG, MS, T0, Arrival, Result, leg_id, packet, payload_of, pcmu, run, steady

from strep._engine.engine import EngineConfig


def expected_audio(sequences: range, missing: set[int] = frozenset()) -> np.ndarray:
    silence = np.zeros(160, np.int16)
    return np.concatenate([silence if s in missing else pcmu(payload_of(s)) for s in sequences])


@pytest.mark.parametrize("first", [0, 1, 65_434, 65_535])
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.1, 0.3])
def test_loss_leaves_gaps_and_keeps_length(first: int, loss: float) -> None:
    rng = np.random.default_rng(int(loss * 100) + first)
    arrivals = steady(500, first=first)
    missing = {first + k for k in range(2, 499) if rng.random() < loss}
    kept = [a for k, a in enumerate(arrivals) if first + k not in missing]
    audio, report = run(kept).only()
    assert report.packets_lost == report.rfc3550_lost == len(missing)
    assert report.packets_expected == 500
    assert report.samples == 500 * 160
    assert report.gap_samples == 160 * len(missing)
    np.testing.assert_array_equal(audio, expected_audio(range(first, first + 500), missing))


def test_burst_loss_longer_than_the_window() -> None:
    arrivals = steady(400)
    kept = arrivals[:100] + arrivals[300:]
    result = run(kept)
    audio, report = result.only()
    assert (report.packets_lost, report.samples, report.restarts) == (200, 400 * 160, 0)
    assert result.gaps[0] == [(100 * 160, 200 * 160, "loss")]
    np.testing.assert_array_equal(audio, expected_audio(range(400), set(range(100, 300))))


def test_duplicates_are_dropped_once() -> None:
    arrivals = steady(300)
    rng = np.random.default_rng(1)
    copies = [Arrival(a.ns + int(rng.integers(0, 90)) * MS, a.data) for a in arrivals if rng.random() < 0.1]
    result = run(sorted(arrivals + copies, key=lambda a: a.ns))
    audio, report = result.only()
    assert report.duplicates == result.totals.duplicate == len(copies) > 10
    assert (report.packets_lost, report.rfc3550_lost, report.reordered) == (0, -len(copies), 0)
    assert report.packets_received == 300 + len(copies)
    np.testing.assert_array_equal(audio, expected_audio(range(300)))


def test_reordering_within_the_window_is_restored() -> None:
    arrivals = steady(300)
    rng = np.random.default_rng(2)
    shuffled = sorted((Arrival(a.ns + int(rng.integers(0, 150)) * MS, a.data) for a in arrivals), key=lambda a: a.ns)
    highest, reordered = -1, 0
    for a in shuffled:
        sequence = int.from_bytes(a.data[26:28], "big")
        reordered += sequence < highest
        highest = max(highest, sequence)
    audio, report = run(shuffled).only()
    # packets before the first two in sequence count as reordered too: the anchor is the lowest
    assert (report.packets_lost, report.late, report.reordered) == (0, 0, reordered)
    np.testing.assert_array_equal(audio, expected_audio(range(300)))


@pytest.mark.parametrize("delay_ms", [211, 300, 500, 900, 1270])
def test_too_late_is_late(delay_ms: int) -> None:
    """A packet is late when a hole for it has been given up: at the first grid point 200 ms after its successor."""
    arrivals = steady(200)
    moved = {50, 90, 130}
    late = sorted(
        (Arrival(a.ns + (delay_ms + 20) * MS * (k in moved), a.data) for k, a in enumerate(arrivals)),
        key=lambda a: a.ns,
    )
    result = run(late)
    audio, report = result.only()
    assert report.late == result.totals.late == 3
    assert report.packets_lost == 0  # they came
    assert report.gap_samples == 3 * 160
    np.testing.assert_array_equal(audio, expected_audio(range(200), moved))


@pytest.mark.parametrize("delay_ms", [30, 100, 180])
def test_not_yet_late(delay_ms: int) -> None:
    arrivals = steady(200)
    delayed = sorted(
        (Arrival(a.ns + (delay_ms + 20) * MS * (k in (50, 90)), a.data) for k, a in enumerate(arrivals)),
        key=lambda a: a.ns,
    )
    audio, report = run(delayed).only()
    assert (report.late, report.gap_samples) == (0, 0)
    np.testing.assert_array_equal(audio, expected_audio(range(200)))


def test_jitter_below_the_latency_loses_nothing() -> None:
    rng = np.random.default_rng(5)
    arrivals = sorted((Arrival(a.ns + int(rng.integers(0, 195 * MS)), a.data) for a in steady(500)), key=lambda a: a.ns)
    audio, report = run(arrivals).only()
    assert (report.packets_lost, report.late, report.gap_samples) == (0, 0, 0)
    assert report.jitter_ms_mean > 10
    np.testing.assert_array_equal(audio, expected_audio(range(500)))


@pytest.mark.parametrize("first", [65_400, 65_534, 65_535, 0])
def test_sequence_and_timestamp_wrap_are_invisible(first: int) -> None:
    near_wrap = (1 << 32) - 50 * 160
    arrivals = [Arrival(T0 + k * 20 * MS, packet(first + k, timestamp=near_wrap + k * 160)) for k in range(300)]
    result = run(arrivals)
    audio, report = result.only()
    assert (report.packets_lost, report.restarts, report.timestamp_jumps, report.gap_samples) == (0, 0, 0, 0)
    np.testing.assert_array_equal(audio, expected_audio(range(first, first + 300)))


def test_ssrc_change_is_a_new_source_of_the_same_stream() -> None:
    first = steady(100, ssrc=1)
    second = steady(100, first=40_000, start_ns=T0 + 100 * 20 * MS, ssrc=2, timestamp=None)
    result = run(first + second)
    audio, report = result.only()
    assert report.stream.ssrcs == [1, 2]
    assert (report.sources, report.restarts, report.packets_lost, report.packets_expected) == (2, 1, 0, 200)
    np.testing.assert_array_equal(audio, np.r_[expected_audio(range(100)), expected_audio(range(40_000, 40_100))])


def test_two_ssrcs_at_once_do_not_tear_the_stream() -> None:
    """A second source that sends beside the first stays on probation: nobody splices into a live stream."""
    first = steady(200, ssrc=1)
    second = steady(150, first=7000, start_ns=T0 + 500 * MS + 7 * MS, ssrc=2)
    result = run(sorted(first + second, key=lambda a: a.ns))
    audio, report = result.only()
    assert report.stream.ssrcs == [1]
    assert result.totals.rejected_by == {"probation": 150}
    np.testing.assert_array_equal(audio, expected_audio(range(200)))


@pytest.mark.parametrize("again", [0, 20_000, 40_000, 65_500])
def test_sequence_restart_loses_nothing(again: int) -> None:
    first = steady(100, first=30_000)
    second = [Arrival(T0 + (100 + k) * 20 * MS, packet(again + k, timestamp=(30_100 + k) * 160)) for k in range(100)]
    audio, report = run(first + second).only()
    assert (report.restarts, report.packets_lost, report.sources) == (1, 0, 1)
    assert report.samples == 200 * 160
    np.testing.assert_array_equal(audio[100 * 160 :], expected_audio(range(again, again + 100)))


@pytest.mark.parametrize("hours", [1, -1])
def test_timestamp_jump_is_re_anchored(hours: int) -> None:
    jump = hours * 3600 * 8000

    def measured(far: int) -> tuple[Result, int]:
        """And how many bytes there were at once."""
        stamps = [k * 160 + 10**9 + (far if k >= 50 else 0) for k in range(100)]
        arrivals = [Arrival(T0 + k * 20 * MS, packet(k, timestamp=stamps[k])) for k in range(100)]
        run(arrivals[:50])  # what is imported and kept anyway
        tracemalloc.start()
        result = run(arrivals)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result, peak

    _, usual = measured(0)
    result, peak = measured(jump)
    audio, report = result.only()
    assert (report.timestamp_jumps, report.samples, report.gap_samples, report.packets_lost) == (1, 100 * 160, 0, 0)
    print(f"{peak - usual:+,} bytes for the jump")
    assert peak - usual < 16_000  # a second of audio; the hour that was jumped over is 57,600,000
    np.testing.assert_array_equal(audio, expected_audio(range(100)))


def test_silence_suppression_is_a_gap_of_its_own_kind() -> None:
    slots = [k + (30 if k >= 50 else 0) for k in range(100)]
    arrivals = [Arrival(T0 + at * 20 * MS, packet(k, timestamp=at * 160)) for k, at in enumerate(slots)]
    result = run(arrivals)
    _, report = result.only()
    assert result.gaps[0] == [(50 * 160, 30 * 160, "silence")]
    assert (report.packets_lost, report.samples) == (0, 130 * 160)


def test_hold_is_told_from_silence_and_keeps_time() -> None:
    pause = 40 * 50  # packets: 40 s
    slots = [k + (pause if k >= 50 else 0) for k in range(100)]
    arrivals = [Arrival(T0 + at * 20 * MS, packet(k, timestamp=at * 160)) for k, at in enumerate(slots)]
    result = run(arrivals)
    assert result.gaps[0] == [(50 * 160, pause * 160, "hold")]
    assert result.reports[0].duration_s == 42.0


@pytest.mark.parametrize("ptime_ms", [5, 10, 20, 30, 40, 60])
def test_packets_of_any_duration(ptime_ms: int) -> None:
    frames = 8 * ptime_ms
    arrivals = steady(200, frames=frames, ptime_ms=ptime_ms)
    del arrivals[100]
    audio, report = run(arrivals, width=640).only()
    assert (report.samples, report.gap_samples, report.packets_lost) == (200 * frames, frames, 1)
    before = np.concatenate([pcmu(payload_of(k, frames)) for k in range(100)])
    np.testing.assert_array_equal(audio[: 100 * frames], before)


def test_duration_changes_in_mid_stream() -> None:
    sizes = [80, 160, 240, 480, 160, 80, 320] * 20
    timestamp, ns, arrivals, truth = 0, T0, [], []
    for k, frames in enumerate(sizes):
        arrivals.append(Arrival(ns, packet(k, timestamp=timestamp, payload=payload_of(k, frames))))
        truth.append(pcmu(payload_of(k, frames)))
        timestamp, ns = timestamp + frames, ns + frames * MS // 8
    audio, report = run(arrivals, width=640).only()
    assert report.gap_samples == 0
    np.testing.assert_array_equal(audio, np.concatenate(truth))


def test_overlapping_timestamps_are_trimmed() -> None:
    arrivals = [Arrival(T0 + k * 20 * MS, packet(k, timestamp=k * 160 - (40 if k >= 10 else 0))) for k in range(20)]
    audio, report = run(arrivals).only()
    assert report.samples == 20 * 160 - 40
    np.testing.assert_array_equal(audio[1600:1720], pcmu(payload_of(10))[40:])


def test_unknown_payload_type_is_said_once_and_never_heard() -> None:
    arrivals = steady(100)
    arrivals[40:60] = [Arrival(a.ns, packet(40 + k, payload_type=77)) for k, a in enumerate(arrivals[40:60])]
    result = run(arrivals)
    audio, report = result.only()
    assert len(result.notices) == 1
    assert "77" in result.notices[0]
    assert report.payload_types == [0, 77]
    assert report.undecoded == result.totals.dropped_by["payload_type"] == 20
    assert report.packets_lost == 0
    assert not audio[40 * 160 : 60 * 160].any()
    np.testing.assert_array_equal(audio[60 * 160 :], expected_audio(range(60, 100)))


def test_streams_of_a_call_are_kept_apart() -> None:
    arrivals = []
    for leg in (0, 1):
        for direction in (0, 1):
            arrivals += steady(50, first=1000 * (2 * leg + direction), leg=leg, direction=direction)
    result = run(sorted(arrivals, key=lambda a: a.ns))
    names = [(r.stream.call_leg_id, r.stream.stem) for r in result.reports]
    assert sorted(names) == [(LEG, "a-inbound"), (LEG, "a-outbound"), (LEG, "b-inbound"), (LEG, "b-outbound")]
    for report in result.reports:
        first = 1000 * (2 * report.stream.leg + report.stream.direction)
        np.testing.assert_array_equal(result.audio[report.stream.serial], expected_audio(range(first, first + 50)))


def test_invented_ids_open_nothing_and_a_real_call_loses_nothing() -> None:
    rng = np.random.default_rng(3)
    flood = [
        Arrival(T0 + i * 50_000, packet(int(rng.integers(0, 65_536)), call=leg_id(1000 + i), ssrc=i))
        for i in range(20_000)
    ]
    real = steady(50)
    result = run(sorted(flood + real, key=lambda a: a.ns), cuts=list(range(0, 20_000, 500)))
    audio, report = result.only()
    assert report.packets_lost == 0
    assert result.totals.rejected_by == {"probation": 20_000}
    np.testing.assert_array_equal(audio, expected_audio(range(50)))


def test_the_first_packets_are_kept_even_when_reordered() -> None:
    arrivals = steady(20)
    order = [2, 0, 1, 4, 3, 5]
    swapped = [Arrival(arrivals[i].ns, arrivals[k].data) for i, k in enumerate(order)] + arrivals[6:]
    audio, report = run(swapped).only()
    assert report.packets_lost == 0
    np.testing.assert_array_equal(audio, expected_audio(range(20)))


def test_more_streams_than_allowed_refuses_the_newest() -> None:
    arrivals = []
    for number in range(10):
        arrivals += steady(30, call=leg_id(number), start_ns=T0 + number * MS)
    result = run(sorted(arrivals, key=lambda a: a.ns), config=EngineConfig(max_streams=6))
    assert [r.stream.call_leg_id for r in result.reports] == [leg_id(n) for n in range(6)]
    assert all(r.packets_lost == 0 for r in result.reports)
    assert result.totals.streams_refused >= 4
    assert result.totals.rejected == 4 * 30


def test_an_idle_stream_ends_and_may_come_back() -> None:
    arrivals = steady(50) + steady(50, first=50, start_ns=T0 + 70_000 * MS)
    result = run(arrivals)
    assert [r.end for r in result.reports] == ["idle", "closed"]
    assert [r.packets_received for r in result.reports] == [50, 50]


def test_stray_packets_far_out_of_sequence_do_not_move_the_stream() -> None:
    arrivals = steady(100)
    strays = [Arrival(T0 + (k * 200 + 5) * MS, packet(30_000 + 97 * k)) for k in range(10)]
    result = run(sorted(arrivals + strays, key=lambda a: a.ns))
    audio, report = result.only()
    assert (report.packets_lost, report.restarts) == (0, 0)
    assert result.totals.rejected_by == {"probation": 10}
    np.testing.assert_array_equal(audio, expected_audio(range(100)))
