"""What comes late is held back until the next packets tell a clock that stood from a queue. Nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from depth import usual_or_slow
from support import MS, T0, Arrival, batch_of, leg_id, packet, payload_of, pcmu, run

from strep._engine.engine import Engine, EngineConfig
from strep._engine.release import Release
from strep._model.blocks import BlockBatch
from strep._model.events import Event

TALK = 50  # packets before the pause
PAUSE = 3000 * MS
AFTER = TALK * 20 * MS + PAUSE  # when the first packet behind the pause is sent
TICK = 10 * MS


def behind(ns: int, timestamps: int, **options: object) -> list[Arrival]:
    """50 packets, then 50 from ``ns`` on, ``timestamps`` after where they would go on."""
    numbers = range(2 * TALK)
    return [
        Arrival(
            T0 + (k * 20 * MS if k < TALK else ns + (k - TALK) * 20 * MS),
            packet(k, timestamp=160 * k + timestamps * (k >= TALK), **options),  # type: ignore[arg-type]
        )
        for k in numbers
    ]


def stood(**options: object) -> list[Arrival]:
    return behind(AFTER, 0, **options)


def driven(arrivals: list[Arrival], latency_ms: int = 60, upto: int | None = None) -> tuple[dict[int, int], Engine]:
    """By each packet's arrival, when it was delivered by an engine that is asked for everything at once."""
    engine = Engine(EngineConfig(latency_ns=latency_ms * MS), release=Release(0))
    out: dict[int, int] = {}

    def take(events: list[Event], now: int) -> None:
        for event in events:
            if isinstance(event, BlockBatch):
                out.update(dict.fromkeys(event.packet_arrival_ns.tolist(), now))

    times = sorted({a.ns for a in arrivals})
    for now in times:
        while (deadline := engine.next_deadline_ns()) is not None and deadline < now:
            take(engine.advance(deadline), deadline)
        take(engine.receive(batch_of([a for a in arrivals if a.ns == now]), now), now)
        take(engine.advance(now), now)
    until = times[-1] + 300 * MS
    while (deadline := engine.next_deadline_ns()) is not None and deadline < until:
        take(engine.advance(deadline), deadline)
    return out, engine


@pytest.mark.parametrize("latency_ms", [0, 60, 200])
def test_packets_behind_a_clock_that_stood_wait_for_the_fourth_and_no_others(latency_ms: int) -> None:
    arrivals = stood()
    out, _ = driven(arrivals, latency_ms)
    waited = [out[a.ns] - a.ns for a in arrivals]
    assert waited[:2] == [20 * MS, 0]  # the first one proves nothing alone
    # 60 ms of proof, and the end of the tick
    assert waited[TALK : TALK + 4] == [70 * MS, 50 * MS, 30 * MS, 10 * MS]
    assert set(waited[2:TALK] + waited[TALK + 4 :]) == {0}


@pytest.mark.parametrize("late_ms", [150, 2000])
def test_a_pause_with_a_clock_that_runs_and_a_little_lateness_hold_nothing_back(late_ms: int) -> None:
    pause, late = (PAUSE, 0) if late_ms > 1000 else (0, late_ms * MS)
    arrivals = behind(TALK * 20 * MS + pause + late, pause // MS * 8)
    out, _ = driven(arrivals)
    assert {out[a.ns] - a.ns for a in arrivals[1:]} == {0}


def test_a_queue_that_bursts_is_known_within_a_tick() -> None:
    arrivals = [
        Arrival(T0 + (k * 20 * MS if not TALK <= k < 65 else 65 * 20 * MS - 5 * MS + k * 1000), packet(k))
        for k in range(100)
    ]
    out, _ = driven(arrivals)
    waited = [out[a.ns] - a.ns for a in arrivals]
    assert max(waited[TALK:65]) <= TICK
    assert set(waited[65:]) == {0}


def test_what_is_alone_behind_a_pause_waits_100_ms() -> None:
    arrivals = stood()[: TALK + 1]
    out, engine = driven(arrivals)
    assert out[arrivals[-1].ns] - arrivals[-1].ns == 100 * MS
    deadline = engine.next_deadline_ns()
    assert deadline is not None
    assert deadline >= engine.now_ns + TICK


@pytest.mark.parametrize("left", range(1, 8))
@pytest.mark.parametrize("how", ["flush", "end"])
def test_nothing_is_lost_when_the_stream_ends_meanwhile(how: str, left: int) -> None:
    arrivals = stood()[: TALK + left]
    end: dict[int, Callable[[Engine], list[Event] | None]] = {
        len(arrivals): lambda engine: engine.end(engine.registry.live(), "stopped")
    }
    for live in (False, True):
        result = run(arrivals, live=live, between=end if how == "end" else None)
        audio, report = result.only()
        gap = PAUSE // MS * 8 if left > 3 else 0  # three prove nothing
        assert (report.packets_received, report.gap_samples) == (len(arrivals), gap)
        expected = [pcmu(payload_of(k)) for k in range(len(arrivals))]
        expected.insert(TALK, np.zeros(gap, np.int16))
        np.testing.assert_array_equal(audio, np.concatenate(expected))


STREAMS = usual_or_slow(16, 40)


def test_many_streams_are_held_at_once_and_each_by_itself() -> None:
    """Of many streams every second one's clock stands; their pauses end 7 ms apart, and across a second's end."""
    arrivals: list[Arrival] = []
    for n in range(STREAMS):
        one = (stood if n % 2 else lambda **o: behind(AFTER, PAUSE // MS * 8, **o))(call=leg_id(n))
        arrivals += [Arrival(a.ns + n * 7 * MS - 150 * MS, a.data) for a in one]
    arrivals.sort(key=lambda a: a.ns)
    whole = run(arrivals)
    assert {tuple(gaps) for gaps in whole.gaps.values()} == {((TALK * 160, 24_000, cause),) for cause in ("hold",)}
    for options in ({"live": True, "ticking": True}, {"prompt": False}, {"live": True, "cuts": range(len(arrivals))}):
        other = run(arrivals, **{"cuts": range(0, len(arrivals), 17), **options})  # type: ignore[arg-type]
        assert other.totals == whole.totals
        assert {r.stream.call_leg_id: r.as_dict() for r in other.reports} == {
            r.stream.call_leg_id: r.as_dict() for r in whole.reports
        }
        assert other.gaps == whole.gaps
