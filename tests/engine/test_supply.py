"""Media ratio: seconds of audio sent for each second that passes; senders that are starved are told of."""

from __future__ import annotations

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, batch_of, leg_id, packet, run, steady

from strep._codecs.payload_types import PayloadTypes
from strep._engine.engine import Engine, EngineConfig
from strep._engine.release import Release
from strep._model.events import Ended, Event, Notice
from strep._model.types import StreamEvent

NOTE = "starved: {}% of the audio was sent in 10 s, though no packets are missing for the rest"


def observed(arrivals: list[Arrival], *, at_a_time: int = 50, live: bool = False) -> list[Event]:
    engine = Engine(release=Release(0 if live else 200 * MS, prompt=live))
    events: list[Event] = []
    for k in range(0, len(arrivals), at_a_time):
        part = arrivals[k : k + at_a_time]
        events += engine.receive(batch_of(part))
        if live:
            events += engine.advance(part[-1].ns)
    return events + engine.flush()


def told(events: list[Event]) -> list[tuple[int, float]]:
    """When streams were told to be starved, in seconds, and the media ratios."""
    found = [e for e in events if isinstance(e, StreamEvent) and e.kind == "starved"]
    return [((e.time_ns - T0) // (1000 * MS), e.data["media_ratio"]) for e in found]


def ratios(events: list[Event]) -> tuple[float | None, float | None]:
    (report,) = [e.report for e in events if isinstance(e, Ended)]
    entry = report.as_dict()
    return entry["media_ratio"], entry["media_ratio_min"]


def starved(
    count: int, *, ticks: int = 2, apart_ms: float = 40, first: int = 0, start_ns: int = T0, payload_type: int = 0
) -> list[Arrival]:
    """Sequence numbers without a gap; a packet of 20 ms each ``apart_ms``, whose timestamps advance by ``ticks``
    packets."""
    return [
        Arrival(
            start_ns + round(k * apart_ms * MS),
            packet(first + k, timestamp=(first + k * ticks) * 160, payload_type=payload_type),
        )
        for k in range(count)
    ]


@pytest.mark.parametrize("payload_type", [0, 9])
@pytest.mark.parametrize(("apart_ms", "ratio"), [(40, 0.5), (26, 0.7692), (75, 0.2667), (400, 0.05)])
@pytest.mark.parametrize("ticks", [1, 2])  # timestamps that count what was sent, or what should have been
def test_half_of_the_audio_never_sent(payload_type: int, apart_ms: float, ratio: float, ticks: int) -> None:
    count = round(40_000 / apart_ms)
    events = observed(starved(count, ticks=ticks, apart_ms=apart_ms, payload_type=payload_type))
    whole, least = ratios(events)
    assert whole == pytest.approx(ratio, rel=0.02)
    assert least == pytest.approx(ratio, rel=0.02)
    assert [at for at, _ in told(events)] == [0]
    (notice,) = [e.text for e in events if isinstance(e, Notice) and e.text.startswith("starved")]
    assert notice == NOTE.format(round(100 * told(events)[0][1]))
    (ended,) = [e for e in events if isinstance(e, Ended)]
    assert notice in ended.stream.notes


@pytest.mark.parametrize("ptime_ms", [10, 20, 60, 100, 120, 180])
def test_who_sends_all_of_it_is_not_starved(ptime_ms: int) -> None:
    frames = 8 * ptime_ms
    arrivals = [
        Arrival(T0 + k * ptime_ms * MS, packet(k, frames=frames, payload_type=8, payload=bytes(frames)))
        for k in range(30_000 // ptime_ms)
    ]
    engine = Engine(release=Release(200 * MS))
    events = engine.receive(batch_of(arrivals, width=4000)) + engine.flush()
    assert (told(events), ratios(events)) == ([], (1.0, 1.0))


def test_silence_suppression_is_not_told() -> None:
    """2 s of talk, 2 s of silence."""
    numbers = [n for n in range(2000) if n % 200 < 100]
    arrivals = [Arrival(T0 + n * 20 * MS, packet(i, timestamp=n * 160)) for i, n in enumerate(numbers)]
    events = observed(arrivals)
    assert (told(events), ratios(events)) == ([], (1.0, 1.0))


def test_comfort_noise_is_not_told() -> None:
    """1 s of talk, and 29 s of silence with a packet of comfort noise each 200 ms (RFC 3389)."""
    arrivals = steady(50)
    arrivals += [
        Arrival(
            T0 + (1000 + 200 * k) * MS, packet(50 + k, timestamp=(50 + 10 * k) * 160, payload_type=13, payload=b"\x50")
        )
        for k in range(145)
    ]
    arrivals += steady(1, first=195, start_ns=T0 + 30_000 * MS)
    events = observed(arrivals)
    assert told(events) == []


def test_a_hold_is_not_told() -> None:
    events = observed(steady(500) + steady(500, first=500, start_ns=T0 + 45_000 * MS))
    assert told(events) == []
    assert ratios(events)[0] == pytest.approx(1.0, abs=0.002)


@pytest.mark.parametrize("lost", [lambda n: n % 2, lambda n: n % 10 > 3, lambda n: 400 < n < 700])
def test_what_was_lost_was_sent(lost: object) -> None:
    arrivals = [a for n, a in enumerate(steady(2000)) if not lost(n)]  # type: ignore[operator]
    events = observed(arrivals)
    assert told(events) == []
    assert ratios(events)[0] == pytest.approx(1.0, abs=0.05) or ratios(events)[0] > 1


def test_it_is_told_each_time_and_noted_once() -> None:
    arrivals: list[Arrival] = []
    for part in range(4):
        first, start = 1000 * part, T0 + 40_000 * part * MS
        arrivals += steady(1000, first=first, start_ns=start)
        arrivals += starved(500, first=first + 1000, start_ns=start + 20_000 * MS, ticks=1)
        arrivals = [a for a in arrivals if a.ns >= 0]
    # sequence numbers that go on
    arrivals = [Arrival(a.ns, packet(k, timestamp=(a.ns - T0) // (20 * MS) * 160)) for k, a in enumerate(arrivals)]
    events = observed(arrivals)
    assert [at for at, _ in told(events)] == [20, 60, 100, 140]
    assert [r for _, r in told(events)] == pytest.approx([0.5] * 4, abs=0.01)
    assert len([e for e in events if isinstance(e, Notice) and e.text.startswith("starved")]) == 1
    assert ratios(events) == pytest.approx((0.75, 0.5), abs=0.01)


@settings(max_examples=usual_or_slow(3, 100), deadline=None)
@given(
    spurts=st.lists(
        st.tuples(
            st.integers(1, 400),  # packets
            st.sampled_from([20, 20, 30, 40, 60, 150]),  # ms apart
            st.sampled_from([1, 2]),
            st.sampled_from([0, 0, 100, 3000]),  # ms of silence behind
            st.sampled_from([0, 0, 2, 3]),  # each so-manieth is lost
        ),
        min_size=1,
        max_size=6,
    )
)
def test_the_ratio_is_that_of_the_packets_however_they_are_cut(spurts: list[tuple[int, int, int, int, int]]) -> None:
    """And by a plain count of them, where nothing is lost."""
    arrivals, at_ms, stamp, number = [], 0, 0, 0
    for count, apart, ticks, silence, lost in spurts:
        for k in range(count):
            if not lost or k % lost:
                arrivals.append(Arrival(T0 + at_ms * MS, packet(number, timestamp=stamp)))
            number, at_ms, stamp = number + 1, at_ms + apart, stamp + 160 * ticks
        at_ms, stamp = at_ms + silence, stamp + 8 * silence
    whole = observed(arrivals, at_a_time=len(arrivals) or 1)
    for other in (observed(arrivals, at_a_time=37), observed(arrivals, at_a_time=1, live=True)):
        assert told(other) == told(whole)
        assert [e.report.as_dict() for e in other if isinstance(e, Ended)] == [
            e.report.as_dict() for e in whole if isinstance(e, Ended)
        ]
    if any(lost for *_, lost in spurts) or len(arrivals) < 2:
        return
    apart_ms = np.diff([a.ns for a in arrivals]) / MS
    pauses = apart_ms[apart_ms > 90]
    counted = 2 * len(pauses) <= len(arrivals)
    time_s = (apart_ms.sum() + 20 - (pauses - 20).sum() * counted) / 1000
    assert ratios(whole)[0] == (
        pytest.approx(len(arrivals) * 0.02 / time_s, rel=1e-3, abs=1e-3) if time_s >= 1 else None
    )


def test_g729_with_silence_descriptors_is_not_told() -> None:
    """G.729 Annex B: after 1 s of talk a descriptor of two bytes each 200 ms."""
    types = PayloadTypes()
    numbers = [*range(50), *range(50, 1500, 10)]
    arrivals = [
        Arrival(T0 + n * 20 * MS, packet(i, timestamp=n * 160, payload_type=18, payload=bytes(20 if n < 50 else 2)))
        for i, n in enumerate(numbers)
    ]
    result = run(arrivals, config=EngineConfig(payload_types=types))
    (events,) = result.events.values() if result.events else [[]]
    assert not any("starved" in str(e) for e in events)


def test_reports_of_many_are_those_of_each() -> None:
    engine = Engine()
    for part in (steady(60, call=leg_id(1)), steady(60, call=leg_id(2), payload_type=9), steady(1, call=leg_id(3))):
        engine.receive(batch_of(part))
    engine.advance(engine.now_ns + 10**9)
    live = engine.registry.live()
    assert len(live) >= 2
    assert [repr(report) for report in engine.reports(live)] == [repr(engine.report(info)) for info in live]
    assert engine.reports([]) == []
