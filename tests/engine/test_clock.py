"""Streams on the receiver's clock: what the minimum-delay filter finds, however packets are cut."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np
import pytest
from depth import one_or_all, usual_or_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, batch_of, packet, run
from traffic import traffic

from strep._engine.engine import Engine
from strep._engine.release import Release
from strep._engine.streams.clock import ClockFilter
from strep._engine.streams.placement import Placement
from strep._model.blocks import BlockBatch
from strep._model.events import Ended
from strep._model.report import StreamReport, leg_created_ns, utc_text
from strep._model.time import position_ns

RATE = 8000
SECOND = 1_000_000_000


# --- any cut gives the same ------------------------------------------------------------------------------------------


def times(
    arrivals: Sequence[Arrival], cuts: Sequence[int] = (), *, live: bool = False, ticking: bool = False
) -> tuple[dict[int, dict[int, int]], list[StreamReport]]:
    """By stream: of each packet's position the time it is mapped to; and the final reports."""
    engine = Engine(release=Release(0 if live else 200 * MS))
    found: dict[int, dict[int, int]] = {}
    events = []
    done = 0
    for cut in [*cuts, len(arrivals)]:
        part = arrivals[done:cut]
        done = max(done, cut)
        if part:
            events += engine.receive(batch_of(part))
            if ticking:
                events += engine.advance(part[-1].ns)
    events += engine.flush()
    for batch in (e for e in events if isinstance(e, BlockBatch)):
        for i, stream in enumerate(batch.streams):
            first, last = batch.packet_first[i : i + 2]
            since = np.cumsum(np.r_[0, batch.packet_frames[first:last]])
            assert since[-1] == batch.frames[i]
            at = int(batch.position[i]) + since[:-1]
            offset = int(batch.time_ns[i]) - int(position_ns(batch.position[i], RATE))
            told = found.setdefault(stream.serial, {})
            for position, time_ns in zip(at.tolist(), (offset + position_ns(at, RATE)).tolist(), strict=True):
                # a packet that was trimmed away altogether stands where the next one does
                told.setdefault(position, time_ns)
    return found, [e.report for e in events if isinstance(e, Ended)]


@pytest.mark.parametrize(("streams", "trouble"), [(2, 0.01), (2, 0.0)])
@given(seed=st.integers(0, 1 << 32), cut_seed=st.integers(0, 1 << 32))
@settings(max_examples=usual_or_slow(2, 10), deadline=None, suppress_health_check=list(HealthCheck))
def test_any_cut_gives_the_same_time(streams: int, trouble: float, seed: int, cut_seed: int) -> None:
    arrivals = traffic(seed, streams, trouble, packets=1100)
    rng = np.random.default_rng(cut_seed)
    whole, reports = times(arrivals)
    assert sum(map(len, whole.values())) > 1000
    few = sorted(rng.integers(0, len(arrivals), 20).tolist())
    many = sorted(rng.integers(0, len(arrivals), len(arrivals) // 3).tolist())
    ways = [(few, True, False), (many, False, True), (many, True, True)]
    for cuts, live, ticking in one_or_all(ways, rng):
        other, others = times(arrivals, cuts, live=live, ticking=ticking)
        wrong = [(s, p) for s in whole for p in whole[s] if other[s].get(p) != whole[s][p]]
        assert not wrong[:3]  # a few: comparing all of them takes longer than all else
        assert {s: len(told) for s, told in other.items()} == {s: len(told) for s, told in whole.items()}
        assert [r.skew_ppm for r in others] == [r.skew_ppm for r in reports]


# --- what it finds ---------------------------------------------------------------------------------------------------


class Line:
    """One stream's packets of 20 ms into a filter, ``per`` to a batch; what each block was mapped to."""

    def __init__(self, rate: int = RATE, per: int = 10) -> None:
        self.filter = ClockFilter(2)
        self.filter.begin(1, rate, T0)
        self.rate, self.per = rate, per
        self.position = 0
        self.offset = np.zeros(0)  # ns beside T0, by packet

    @property
    def skew(self) -> float:
        return float(self.filter.skew_ppm[1])

    def feed(self, delay_ns: np.ndarray, anew: bool = False) -> np.ndarray:  # type: ignore[type-arg]
        """Packets that arrive so long after T0 + position; returns their offsets beside T0."""
        frames = self.rate // 50
        found = []
        for begin in range(0, len(delay_ns), self.per):
            delay = delay_ns[begin : begin + self.per]
            n = len(delay)
            at = self.position + frames * np.arange(n)
            placed = Placement(
                None, np.ones(n, np.int64), np.arange(n), np.zeros(n, np.int16), np.full(n, frames),
                np.full(n, frames), np.full(n, frames), None,
                at.astype(np.uint32), T0 + position_ns(at, self.rate) + delay.astype(np.int64), np.array([0, n]),
                np.ones(1, np.int64), at[:1], np.array([n * frames]), np.zeros(1, np.int64), np.zeros(1, np.uint8),
                np.ones(1, np.bool_) if anew and not begin else None,
            )  # fmt: skip
            placed, time_ns = self.filter.map(placed)
            assert placed.block_frames.sum() == n * frames
            offset = time_ns - T0 - position_ns(placed.position, self.rate)
            found.append(np.repeat(offset, np.diff(placed.packet_first)))
            self.position += n * frames
        return np.concatenate(found)


def drifting(seconds: int, ppm: float, jitter_ms: float, seed: int = 1, first: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    """How long after T0 + position packets arrive whose sender's clock is fast by so much."""
    n = np.arange(first * 50, (first + seconds) * 50)
    sent = n * 0.02e9 / (1 + ppm * 1e-6) - n * 0.02e9
    return sent + np.random.default_rng(seed).uniform(0, jitter_ms * 1e6, len(n))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("ppm", "rate"), [(200.0, 8000), (-200.0, 16_000), (0.0, 8000), (37.5, 44_100)])
def test_an_hour_of_drift(ppm: float, rate: int) -> None:
    line = Line(rate, per=30)
    delay = drifting(3600, ppm, 30)
    offset = line.feed(delay)
    true = drifting(3600, ppm, 0)
    assert line.skew == pytest.approx(ppm, abs=0.5)
    # from the first second on: the window's constant is off by half of what drifts in a window, and as much again
    # because the lowest offset of a window is not its middle's
    bound = 2e6 * abs(ppm) / 200 + 1e6
    assert np.abs(offset - true)[25 * 60 :].max() < bound
    # before the first window is complete, its first parts speak
    assert np.abs(offset - true)[50:1500].max() < 7e6


@pytest.mark.parametrize("ppm", [900.0, -900.0])
def test_clocks_that_are_worse_than_any_are_followed(ppm: float) -> None:
    line = Line()
    offset = line.feed(drifting(300, ppm, 10))
    assert line.skew == pytest.approx(ppm, abs=3)
    assert np.abs(offset - drifting(300, ppm, 0))[2000:].max() < 10e6


def test_a_clock_that_suddenly_runs_much_faster_is_followed() -> None:
    line = Line()
    true = np.concatenate([drifting(600, 10, 0), drifting(600, 700, 0) + drifting(601, 10, 0)[-1]])
    offset = line.feed(true + np.random.default_rng(2).uniform(0, 10e6, len(true)))
    assert np.abs(offset - true)[500:].max() < 30e6


def test_no_skew_before_three_windows() -> None:
    line = Line()
    line.feed(drifting(30, 100, 5))
    assert np.isnan(line.skew)
    line.feed(drifting(1, 100, 5, first=30))
    assert line.skew == pytest.approx(100, abs=60)


@pytest.mark.parametrize("step_ms", [40, -12])
def test_a_route_that_changes_is_followed_and_no_skew(step_ms: int) -> None:
    line = Line()
    delay = drifting(600, 50, 10) + 40e6
    delay[15_000:] += step_ms * 1e6
    offset = line.feed(delay)
    assert line.skew == pytest.approx(50, abs=2)
    true = drifting(600, 50, 0) + 40e6
    true[15_000:] += step_ms * 1e6
    assert np.abs(offset - true)[100:15_000].max() < 2e6
    assert np.abs(offset - true)[15_000 + 1500 :].max() < 2e6


def test_a_window_of_congestion_moves_nothing() -> None:
    line, other = Line(), Line()
    delay = drifting(300, -80, 10)
    other.feed(delay[: 50 * 300])
    delay[5000:5500] += 60e6
    offset = line.feed(delay)
    assert np.abs(offset - drifting(300, -80, 0))[3000:].max() < 2e6
    assert line.skew == pytest.approx(other.skew, abs=1)


def test_a_restart_is_no_skew() -> None:
    """The timeline is re-anchored by arrivals that had waited: a step of 25 ms, learned within half a second."""
    line = Line()
    line.feed(drifting(200, 100, 10))
    after = line.feed(drifting(200, 100, 10, first=200) - 25e6, anew=True)
    true = drifting(200, 100, 0, first=200) - 25e6
    assert np.abs(after - true)[:25].max() > 20e6
    assert np.abs(after - true)[100:].max() < 3e6
    assert line.skew == pytest.approx(100, abs=2)


def test_a_clock_whose_speed_changes_is_followed() -> None:
    line = Line()
    first = drifting(1800, 60, 10)
    second = drifting(1800, -60, 10) + drifting(1801, 60, 0)[-1]
    offset = line.feed(np.concatenate([first, second]))
    true = np.concatenate([drifting(1800, 60, 0), drifting(1800, -60, 0) + drifting(1801, 60, 0)[-1]])
    assert np.abs(offset - true)[500:].max() < 8e6


def test_a_window_with_few_packets_waits_for_more() -> None:
    """DTX: 1 packet a second, each with its own jitter."""
    line = Line(per=1)
    jitter = np.random.default_rng(3).uniform(0, 30e6, 1800)
    found = []
    for n in range(1800):
        line.position = n * RATE
        found.append(line.feed(jitter[n : n + 1]))
    assert np.abs(np.concatenate(found)[120:]).max() < 5e6
    assert abs(line.skew) < 5


@given(st.integers(0, 1 << 45), st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100, 48_000]))
def test_a_position_in_ns_is_exact(position: int, rate: int) -> None:
    assert int(position_ns(np.array([position]), rate)[0]) == position * SECOND // rate


# --- what is told ----------------------------------------------------------------------------------------------------


def v1(created_ns: int) -> uuid.UUID:
    """A version 1 UUID of that time, by RFC 9562's fields (4.1.4 of RFC 4122)."""
    ticks = created_ns // 100 + 0x01B21DD213814000
    low, mid, high = ticks & 0xFFFFFFFF, (ticks >> 32) & 0xFFFF, (ticks >> 48) & 0x0FFF
    return uuid.UUID(fields=(low, mid, high | 0x1000, 0x9A, 0x01, 0x0242AC120002))


def report_for(call: uuid.UUID) -> dict[str, object]:
    engine = Engine()
    events = engine.receive(batch_of([Arrival(T0 + 20 * k * MS + 7, packet(k, call=call)) for k in range(5)]))
    events += engine.flush()
    (report,) = [e.report for e in events if isinstance(e, Ended)]
    return report.as_dict()


def test_the_time_in_an_id() -> None:
    # the example of RFC 9562, appendix A.1: 2022-02-22 14:22:22 -05:00
    example = uuid.UUID("C232AB00-9414-11EC-B3C8-9F6BDECED846")
    assert utc_text(leg_created_ns(example, 1_645_557_742_000_000_000) or 0) == "2022-02-22T19:22:22.000000000Z"
    told = report_for(v1(T0 - 2_500_000_000))
    assert told["leg_created_ns"] == T0 - 2_500_000_000
    assert told["forked_late_s"] == 2.5
    assert told["first_arrival"] == "2023-11-14T22:13:20.000000007Z"
    assert told["first_arrival_ns"] == T0 + 7
    assert told["skew_ppm"] is None


@pytest.mark.parametrize(
    "call",
    [
        v1(T0 + 1_000_000_000),  # in the future
        v1(T0 - 31 * 86_400 * SECOND),  # older than any call
        uuid.UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1"),  # version 4
    ],
)
def test_ids_that_tell_no_time(call: uuid.UUID) -> None:
    told = report_for(call)
    assert told["leg_created_ns"] is None
    assert told["forked_late_s"] is None


@pytest.mark.parametrize("seconds", [20, 30, 45, 55])
def test_a_queue_of_many_seconds_that_bursts_moves_no_time(seconds: int) -> None:
    """Windows of packets that came at once make a line too, which comes down to the one before."""
    begin, end = 3000, 3000 + seconds * 50
    result = run(
        [
            Arrival(T0 + (end * 20 * MS - 5 * MS + (k - begin) if begin <= k < end else k * 20 * MS), packet(k))
            for k in range(end + 2000)
        ]
    )
    for batch in result.batches:
        np.testing.assert_allclose(batch.time_ns - batch.position * 125_000, T0, atol=20 * MS)
    assert result.only()[1].skew_ppm == pytest.approx(0, abs=1)
