"""Senders with all kinds of habits, drawn, whose truth is known: where every packet they made belongs in time.

Each run draws 60 senders, four at a time (2,000 with ``--run-slow``). A sender goes on in events: it talks, pauses (its
RTP clock runs on, stands still, or jumps), its packets wait in a queue that bursts, are lost (1 to 500 of them, also in
a queue and behind it), its SSRC changes while the old source still sends. Its clock is off by up to 100 ppm, its
numbers wrap.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, leg_id, packet, run

from strep._model.blocks import BlockBatch
from strep._model.report import StreamReport

SENDERS_A_RUN = 4
STEP = 20 * MS
FRAME_NS = 125_000
NEAR_NS = 20 * MS
JITTER_NS = 8 * MS


@dataclass(repr=False)
class Sender:
    """``told``: what makes it again. ``made``: by arrival time, which no two packets share, when the packet's first
    sample was heard."""

    rng: np.random.Generator
    ppm: float
    call: uuid.UUID
    begins_ns: int
    now: int = 0
    made: dict[int, int] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    twice: list[tuple[int, int]] = field(default_factory=list)  # times in which two sources sent
    missing: list[tuple[int, int]] = field(default_factory=list)  # times of which nothing was sent or came
    lost: int = 0
    anchors: int = 0  # places that only the arrival of one packet tells, whose jitter adds to those before
    ssrc: int = 1
    told: str = ""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # as Hypothesis prints it
        printer.text(self.told)

    def __repr__(self) -> str:
        return self.told

    def __post_init__(self) -> None:
        self.sequence = int(self.rng.choice([0, 65_400, 65_535, self.rng.integers(65_536)]))
        self.timestamp = int(self.rng.choice([0, (1 << 32) - 20_000, self.rng.integers(1 << 32)]))

    def _next(self) -> bytes:
        data = packet(self.sequence, timestamp=self.timestamp, ssrc=self.ssrc, call=self.call)
        self.sequence, self.timestamp = self.sequence + 1, self.timestamp + 160
        return data

    def _deliver(self, data: bytes, made: int, not_before: int = 0) -> None:
        at = self.begins_ns + max(int(made * (1 - self.ppm * 1e-6)) + int(self.rng.integers(0, JITTER_NS)), not_before)
        while at in self.made:
            at += 1000
        self.made[at] = made
        self.arrivals.append(Arrival(at, data))

    def talk(self, packets: int, held_until: int = 0) -> None:
        for k in range(packets):
            self._deliver(self._next(), self.now, held_until + k * 10_000 if held_until else 0)
            self.now += STEP

    def pause(self, ms: int, clock: str) -> None:
        ns = ms * MS
        moves = {"runs": ns, "stands": 0, "lags": ns // 3, "leaps": 3600 * 10**9, "back": -3600 * 10**9}[clock]
        self.timestamp += moves // FRAME_NS
        self.missing.append((self.now, self.now + ns))
        self.anchors += clock != "runs"
        self.now += ns

    def lose(self, packets: int) -> None:
        self.sequence, self.timestamp = self.sequence + packets, self.timestamp + 160 * packets
        self.lost += packets
        self.missing.append((self.now, self.now + packets * STEP))
        self.now += packets * STEP

    def queue(self, packets: int, lose: tuple[int, int] | None) -> None:
        """Packets wait until all of them have been sent; of them, or behind them, some are lost."""
        until = self.now + packets * STEP - STEP // 2
        if lose is None:
            self.talk(packets, until)
            return
        at, missing = lose
        until += missing * STEP if at < packets else 0
        self.talk(at, until)
        self.lose(missing)
        self.talk(packets - at, until + at * 10_000 if at < packets else 0)

    def change(self, overlap: int) -> None:
        """Another SSRC, while the old source sends on for a while."""
        begin = self.now
        self.anchors += 1
        old = self.ssrc, self.sequence, self.timestamp
        self.ssrc += 1
        self.sequence, self.timestamp = (int(n) for n in self.rng.integers(0, (65_536, 1 << 32)))
        fresh = self.ssrc, self.sequence, self.timestamp
        self.ssrc, self.sequence, self.timestamp = old
        self.talk(overlap)
        self.now = begin
        self.ssrc, self.sequence, self.timestamp = fresh
        self.twice.append((begin, begin + overlap * STEP))
        self.talk(overlap + 60)


EVENTS = st.one_of(
    st.tuples(st.just("talk"), st.integers(10, 300)),
    st.tuples(st.just("pause"), st.integers(500, 20_000), st.sampled_from(["runs", "stands", "lags", "leaps", "back"])),
    st.tuples(st.just("queue"), st.integers(4, 300), st.none()),
    st.tuples(st.just("queue"), st.integers(20, 200), st.tuples(st.integers(0, 200), st.integers(1, 500))),
    st.tuples(st.just("lose"), st.integers(1, 500)),
    st.tuples(st.just("change"), st.integers(0, 30)),
)


def sent(seed: int, ppm: float, events: Sequence[tuple[object, ...]], number: int = 0, begins_ns: int = 0) -> Sender:
    sender = Sender(np.random.default_rng(seed), ppm, leg_id(number), T0 + begins_ns)
    sender.told = f"sent{(seed, ppm, events, number, begins_ns)}"
    sender.talk(50)
    for name, *arguments in events:
        if name == "queue" and arguments[1] is not None:
            count, (at, missing) = arguments  # type: ignore[misc]
            arguments = [count, (min(at, count), missing)]
        getattr(sender, str(name))(*arguments)
        sender.talk(40)
    sender.arrivals.sort(key=lambda a: a.ns)
    return sender


def places(batches: list[BlockBatch]) -> dict[int, dict[int, tuple[int, int]]]:
    """By stream and arrival time, each packet's position and frames."""
    found: dict[int, dict[int, tuple[int, int]]] = {}
    for batch in batches:
        for i, stream in enumerate(batch.streams):
            first, last = batch.packet_first[i : i + 2]
            frames = batch.packet_frames[first:last]
            at = int(batch.position[i]) + np.cumsum(frames) - frames
            one = zip(at.tolist(), frames.tolist(), strict=True)
            found.setdefault(stream.serial, {}).update(
                zip(batch.packet_arrival_ns[first:last].tolist(), one, strict=True)
            )
    return found


def within(spans: list[tuple[int, int]], ns: int) -> bool:
    return any(begin <= ns < end for begin, end in spans)


@st.composite
def senders(draw: st.DrawFn) -> list[Sender]:
    """Senders of legs of their own, who begin within half a second."""
    made = []
    for number in range(SENDERS_A_RUN):
        events = draw(st.lists(EVENTS, min_size=1, max_size=usual_or_slow(3, 6)))
        begins = draw(st.integers(0, 500)) * MS
        made.append(sent(draw(st.integers(0, 1 << 32)), draw(st.floats(-100, 100)), events, number, begins))
    return made


@given(
    made=senders(),
    cuts=st.lists(st.floats(0, 1), max_size=12),
    live=st.booleans(),
)
@settings(max_examples=usual_or_slow(15, 500), deadline=None, suppress_health_check=list(HealthCheck))
def test_every_packet_stands_where_it_belongs(made: list[Sender], cuts: list[float], live: bool) -> None:
    arrivals = sorted((a for sender in made for a in sender.arrivals), key=lambda a: a.ns)
    whole = run(arrivals)
    found = places(whole.batches)
    assert len(whole.reports) == len(made)
    by_leg = {sender.call: sender for sender in made}
    for report in whole.reports:
        assert report.stream.call_leg_id is not None
        check(by_leg[report.stream.call_leg_id], found[report.stream.serial], report)
    # nothing is missing or untold; of a source that begins beside another only what comes after that one counts
    apart = len(arrivals) - sum(len(packets) for packets in found.values())
    assert apart == whole.totals.rejected_by.get("probation", 0)
    other = run(arrivals, cuts=sorted(int(c * len(arrivals)) for c in cuts), live=live, ticking=live)
    assert other.totals == whole.totals
    assert [r.as_dict() for r in other.reports] == [r.as_dict() for r in whole.reports]
    assert other.gaps == whole.gaps
    for serial, samples in whole.audio.items():
        np.testing.assert_array_equal(other.audio[serial], samples)


def check(sender: Sender, found: dict[int, tuple[int, int]], report: StreamReport) -> None:
    audio = 0
    gaps = []
    end = 0
    for ns, (position, frames) in found.items():
        made = sender.made[ns]
        audio += frames
        if position > end:
            gaps.append((end, position))
        end = position + frames
        if frames and not within(sender.twice, made):
            off = position * FRAME_NS - made
            assert abs(off) <= max(NEAR_NS, sender.anchors * JITTER_NS), f"{off / MS:+.1f} ms at {made / MS:.0f} ms"
    for begin, until in sender.missing:
        near = [(from_, to) for from_, to in gaps if within([(begin - NEAR_NS, until)], from_ * FRAME_NS)]
        assert abs(sum(to - from_ for from_, to in near) * FRAME_NS - (until - begin)) <= NEAR_NS
    overlaps = sum((end - begin) // STEP for begin, end in sender.twice)
    assert len(sender.arrivals) - overlaps <= len(found) <= len(sender.arrivals)
    assert (report.packets_lost, report.late) == (sender.lost, 0)
    assert audio + report.trimmed == 160 * len(found)
    assert report.samples - report.gap_samples == audio
    assert abs(report.samples * FRAME_NS - sender.now) <= max(STEP, sender.anchors * JITTER_NS)


def made(events: list[tuple[object, ...]]) -> tuple[Sender, StreamReport, dict[int, tuple[int, int]]]:
    sender = sent(7, 0.0, events)
    result = run(sender.arrivals)
    (report,) = result.reports
    return sender, report, places(result.batches)[0]


@pytest.mark.parametrize("clock", ["stands", "lags", "leaps", "back", "runs"])
def test_a_pause_is_a_gap_whatever_the_clock_says(clock: str) -> None:
    sender, report, _ = made([("pause", 30_000, clock)])
    assert abs(report.gap_samples - 240_000) <= 80  # 10 ms: jitter
    assert list(report.gaps) in (["hold"], ["silence", "hold"])
    assert abs(report.samples * FRAME_NS - sender.now) <= STEP // 2
    assert report.timestamp_jumps == (clock in ("leaps", "back"))


def test_a_queue_that_bursts_is_no_pause() -> None:
    _, report, found = made([("queue", 60, None), ("queue", 250, None)])
    assert report.gaps == {}
    assert report.samples == 160 * len(found)


def test_loss_behind_a_queue_keeps_its_length() -> None:
    _, report, _ = made([("queue", 100, (100, 100))])
    assert report.gaps == {"loss": 16_000}
    assert report.packets_lost == 100


def test_what_two_sources_sent_at_once_is_heard_once_and_told() -> None:
    sender, report, found = made([("change", 15)])
    assert abs(report.samples * FRAME_NS - sender.now) <= STEP
    assert report.samples + report.trimmed == 160 * len(found)
    assert (report.sources, report.gap_samples) == (2, 0)


@pytest.mark.parametrize("at", [18, 22, 24])
@pytest.mark.parametrize("missing", [13, 20])
def test_a_loss_in_a_burst_costs_no_packet_at_the_edge_of_the_window(at: int, missing: int) -> None:
    """A packet or two are ahead of the window for a moment: in the burst, and before the hole is given up."""
    for count in (32, 35, 44):
        sender = sent(7, 0.0, [("queue", count, (at, missing))])
        for live in (False, True):
            _, report = run(sender.arrivals, live=live, ticking=live).only()
            assert (report.packets_lost, report.late) == (missing, 0)
            assert report.packets_received == len(sender.arrivals)
