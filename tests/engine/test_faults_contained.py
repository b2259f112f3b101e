"""An exception in the engine costs at most the stream that caused it: others are exact, and so are the accounts."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, batch_of, leg_id, packet, steady
from traffic import traffic

import strep
from strep._delivery.dispatcher import Dispatcher
from strep._edge.pcap import PcapWriter
from strep._engine import engine as _engine
from strep._engine import intake as _intake
from strep._engine.bulk import BulkInsertion
from strep._engine.changes import SourceChanges
from strep._engine.endings import Endings
from strep._engine.engine import Engine, EngineConfig
from strep._engine.held_back import HeldInsertion
from strep._engine.insertion import Insertion
from strep._engine.outlet import outlet as _outlet
from strep._engine.outlet.noise import ComfortNoise
from strep._engine.outlet.outlet import Outlet
from strep._engine.outlet.presses import KeyPresses
from strep._engine.outlet.sorter import Sorter
from strep._engine.playout import Playout
from strep._engine.quarantine import Quarantine
from strep._engine.release import Release
from strep._engine.sources.key_table import KeyTable
from strep._engine.sources.registry import Registry
from strep._engine.sources.sources import Sources
from strep._engine.state import StreamState
from strep._engine.streams.clock import ClockFilter
from strep._engine.streams.gaps import Gaps
from strep._engine.streams.reception import Reception
from strep._engine.streams.ring import JitterRing
from strep._engine.streams.timeline import Timeline
from strep._model.blocks import BlockBatch
from strep._model.events import Ended, Event, Fault, Notice, Started
from strep._model.report import Totals
from strep._model.types import StreamEvent, StreamInfo
from strep.sinks import ArraySink

PACKAGE = str(Path(strep.__file__).parent)
Name = tuple[str, str]


@dataclass
class Heard:
    """Of one stream: what came out, and how it ended."""

    audio: list[np.ndarray] = field(default_factory=list)
    blocks: list[tuple[int, int, str, int, bytes]] = field(default_factory=list)
    told: list[object] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    streams: dict[Name, list[Heard]] = field(default_factory=dict)  # in the order in which they began
    faults: list[Fault] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)


def run(
    arrivals: Sequence[Arrival],
    cuts: Sequence[int] = (),
    *,
    live: bool = False,
    prompt: bool = True,
    config: EngineConfig | None = None,
    before: Callable[[Engine], None] | None = None,
    width: int = 256,
) -> Outcome:
    engine = Engine(config, release=Release(0 if live else 200 * MS, prompt=prompt))
    if before is not None:
        before(engine)
    outcome, heard = Outcome(), dict[int, Heard]()

    def take(events: list[Event]) -> None:
        for event in events:
            if isinstance(event, BlockBatch):
                for i, block in enumerate(event):
                    one = heard[block.stream.serial]
                    one.audio.append(block.samples.reshape(-1))
                    gap = (block.gap.samples, block.gap.cause.label) if block.gap else (0, "")
                    one.blocks.append((block.position, *gap, int(event.time_ns[i]), event.noise.get(i, b"")))
            elif isinstance(event, Started):
                one = heard[event.stream.serial] = Heard()
                outcome.streams.setdefault((event.stream.name, event.stream.stem), []).append(one)
            elif isinstance(event, Ended):
                heard[event.stream.serial].report = event.report.as_dict()
            elif isinstance(event, Notice):
                heard[event.stream.serial].told.append(event.text)
            elif isinstance(event, StreamEvent):
                what = (event.kind, event.position, event.time_ns, event.duration_s, dict(event.data))
                heard[event.stream.serial].told.append(what)
            elif isinstance(event, Fault):
                outcome.faults.append(event)
        assert engine.totals().unaccounted == 0

    done = 0
    for cut in [*sorted(set(cuts)), len(arrivals)]:
        part = arrivals[done:cut]
        done = max(done, cut)
        if part:
            take(engine.receive(batch_of(part, width=width)))
            take(engine.advance(part[-1].ns))
    take(engine.flush())
    outcome.totals = engine.totals()
    assert outcome.totals.buffered == 0
    assert outcome.totals.streams_started == outcome.totals.streams_ended
    return outcome


def assert_same(one: list[Heard], other: list[Heard]) -> None:
    assert [h.report for h in one] == [h.report for h in other]
    for a, b in zip(one, other, strict=True):
        assert a.told == b.told
        assert a.blocks == b.blocks
        np.testing.assert_array_equal(np.concatenate([*a.audio, []]), np.concatenate([*b.audio, []]))


# --- what fails, and when ---------------------------------------------------------------------------------------------


class Sabotaged(Exception):
    pass


class Saboteur:
    """Makes a function of ours raise when a stream is among those it works on: ``lines`` lines after it began, in it or
    in what of ours it calls, or at its end if that comes before. From its ``hit``-th such call on, and for as long as
    the stream lives."""

    def __init__(self, victim: Name | None, hit: int, lines: int, times: int = 1 << 30) -> None:
        self.victim, self.hit, self.lines, self.times = victim, hit, lines, times
        self.engine: Engine | None = None
        self.serial: int | None = None
        self.hits = 0

    def _concerns(self, arguments: dict[str, Any]) -> bool:
        if self.victim is None:
            return True
        live = [i for i in self.engine.registry.live() if (i.name, i.stem) == self.victim] if self.engine else []
        if not live or (self.serial is not None and live[0].serial != self.serial):
            return False
        for name in ("rows", "row", "popped", "placed", "packets"):
            value = arguments.get(name)
            rows = value if isinstance(value, (np.ndarray, int)) else getattr(value, "row", None)
            if rows is not None and live[0].index in np.atleast_1d(rows):
                self.serial = live[0].serial
                return True
        return False

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        names = list(inspect.signature(function).parameters)
        if inspect.isgeneratorfunction(function):
            return self._wrap_generator(function)

        def sabotaged(*values: Any, **named: Any) -> Any:
            if not self._concerns({**dict(zip(names, values, strict=False)), **named}):
                return function(*values, **named)
            self.hits += 1
            if self.hits < self.hit or self.times <= 0:
                return function(*values, **named)
            self.times -= 1
            with self._tripwire():
                function(*values, **named)
            raise Sabotaged("at its end")

        return sabotaged

    def _wrap_generator(self, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """Likewise, with what is done between its steps by whoever asks for them."""

        def sabotaged(*values: Any, **named: Any) -> Iterator[Any]:
            assert self.victim is None
            self.hits += 1
            if self.hits < self.hit or self.times <= 0:
                yield from function(*values, **named)
                return
            self.times -= 1
            with self._tripwire():
                yield from function(*values, **named)
            raise Sabotaged("at its end")

        return sabotaged

    @contextmanager
    def _tripwire(self) -> Iterator[None]:
        left = self.lines

        def trace(frame: FrameType, what: str, _: object) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.startswith(PACKAGE):
                return None
            if what == "line":
                left -= 1
                if left < 0:
                    sys.settrace(None)
                    raise Sabotaged(f"{frame.f_code.co_name}:{frame.f_lineno}")
            return trace

        outer = sys.gettrace()
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(outer)


PLACES: list[tuple[Any, str]] = [
    (JitterRing, "insert"), (JitterRing, "pop"), (JitterRing, "settle"), (JitterRing, "watch_holes"),
    (JitterRing, "skip_hole"), (JitterRing, "enlarge"), (JitterRing, "note_late"), (JitterRing, "came"),
    (Reception, "arrived"), (Reception, "came_late"), (StreamState, "note_types"), (Insertion, "_judge_and_put"),
    (Sorter, "sort"), (Timeline, "place"), (Timeline, "_place_any"), (Timeline, "_move_on"), (Gaps, "before"),
    (ClockFilter, "map"), (ClockFilter, "_begin_window"), (ClockFilter, "_begin_segment"),
    (KeyPresses, "take"), (KeyPresses, "advance"), (Outlet, "_place"), (Outlet, "_blocks"), (Outlet, "emit"),
    (ComfortNoise, "take"), (_outlet, "gather"),
]  # fmt: skip


@lru_cache(maxsize=4)
def calls(seed: int) -> tuple[Arrival, ...]:
    """Streams in every kind of trouble; key presses, comfort noise, large packets, unknown types."""
    rng = np.random.default_rng(seed)
    arrivals = traffic(seed, 6, 0.04, 50)
    for s in range(6):
        start = T0 + int(rng.integers(0, 20 * MS))
        for k in range(80):
            body: dict[str, Any] = {"sequence": k, "timestamp": 160 * k}
            if s < 3 and k % 20 in (8, 9, 10):
                press = bytes([k // 20, 0x80 * (k % 20 == 10), (k % 20 - 7) * 160 >> 8, (k % 20 - 7) * 160 & 0xFF])
                body |= {"payload": press, "payload_type": 101, "timestamp": 160 * (k - k % 20 + 8)}
            elif s in (1, 2) and k % 16 == 5:
                body |= {"payload": bytes([30 + k // 16]), "payload_type": 13}
            elif s in (1, 2) and k % 16 in (6, 7):
                continue
            elif s == 3 and k >= 50:
                body |= {"frames": 400, "timestamp": 8000 + 400 * (k - 50)}
            elif s == 4:
                body |= {"payload_type": 96 if k > 5 else 0, "payload": rng.bytes(33)}
            elif s == 5:
                body |= {"payload_type": 111, "payload": bytes([0x08]) + rng.bytes(40), "timestamp": 960 * k}
            if rng.random() > 0.03:
                at = start + k * 20 * MS + int(rng.integers(0, 30 * MS))
                arrivals.append(Arrival(at, packet(ssrc=77, call=leg_id(100 + s), **body)))
    return tuple(sorted(arrivals, key=lambda a: a.ns))


def cuts_of(count: int, how: int) -> tuple[int, ...]:
    rng = np.random.default_rng(how)
    return tuple(sorted(rng.integers(1, count, (3, 20, 80)[how]).tolist()))


@lru_cache(maxsize=64)
def undisturbed(seed: int, how: int, live: bool, prompt: bool) -> Outcome:
    return run(calls(seed), cuts_of(len(calls(seed)), how), live=live, prompt=prompt, width=512)


@given(
    place=st.sampled_from(PLACES), seed=st.integers(0, 1), how=st.integers(0, 2), live=st.booleans(),
    prompt=st.booleans(), who=st.integers(0, 11), hit=st.integers(1, 30), lines=st.integers(0, 150) | st.just(1 << 30),
    once=st.booleans(),
)  # fmt: skip
@settings(max_examples=usual_or_slow(5, 200), deadline=None, suppress_health_check=list(HealthCheck))
def test_a_fault_of_one_stream_costs_no_other_anything(
    place: tuple[Any, str], seed: int, how: int, live: bool, prompt: bool, who: int, hit: int, lines: int, once: bool
) -> None:
    arrivals = calls(seed)
    whole = undisturbed(seed, how, live, prompt)
    assert not whole.faults
    victim = sorted(whole.streams)[who]
    saboteur = Saboteur(victim, hit, lines, 1 if once else 1 << 30)

    def watch(engine: Engine) -> None:
        saboteur.engine = engine

    owner, name = place
    with mock.patch.object(owner, name, saboteur.wrap(getattr(owner, name))):
        cuts = cuts_of(len(arrivals), how)
        other = run(arrivals, cuts, live=live, prompt=prompt, width=512, before=watch)
    if saboteur.hits < hit:
        assert not other.faults
        assert other.totals == whole.totals
        return
    for key, heard in whole.streams.items():
        if key != victim:
            assert_same(other.streams[key], heard)
    assert other.streams.keys() == whole.streams.keys()
    told = [fault for fault in other.faults if fault.stream is not None]
    if not told:
        assert other.faults  # but it did not happen again when it was tried again
        assert other.totals == whole.totals
        assert_same(other.streams[victim], whole.streams[victim])
        return
    assert [(f.stream.name, f.stream.stem) for f in told if f.stream] == [victim]
    assert all(isinstance(fault.error, Sabotaged) for fault in other.faults)
    assert [heard.report["end"] for heard in other.streams[victim]].count("fault") == 1
    # what came of the victim before is as it was; afterwards it began anew
    first = next(n for n, heard in enumerate(other.streams[victim]) if heard.report["end"] == "fault")
    assert_same(other.streams[victim][:first], whole.streams[victim][:first])
    before = np.concatenate([*other.streams[victim][first].audio, []])
    np.testing.assert_array_equal(np.concatenate([*whole.streams[victim][first].audio, []])[: len(before)], before)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{getattr(place[0], '__name__', '')}.{place[1]}")
def test_a_fault_of_nobody_leaves_the_engine_alive(place: tuple[Any, str]) -> None:
    """Something always fails: that is no reason to end streams, and when it is over all go on."""
    arrivals, start = calls(0), T0 + 60_000 * MS
    arrivals = usual_or_slow(arrivals[: len(arrivals) // 3], arrivals)
    later = [Arrival(start + k * 20 * MS, packet(k, call=leg_id(500 + s))) for k in range(50) for s in range(3)]
    engine = Engine()
    faults: list[Fault] = []
    saboteur = Saboteur(None, 1, 5)
    owner, name = place
    with mock.patch.object(owner, name, saboteur.wrap(getattr(owner, name))):
        for begin in range(0, len(arrivals), 40):
            events = engine.receive(batch_of(arrivals[begin : begin + 40], width=512))
            assert engine.totals().unaccounted == 0
            events += engine.advance(arrivals[min(begin + 40, len(arrivals) - 1)].ns)
            assert engine.totals().unaccounted == 0
            faults += [event for event in events if isinstance(event, Fault)]
    assert bool(faults) == bool(saboteur.hits)
    assert all(isinstance(fault.error, Sabotaged) for fault in faults)
    assert sum(fault.packets for fault in faults) <= engine.totals().dropped_by.get("fault", 0)
    events = [*engine.advance(start), *engine.receive(batch_of(later)), *engine.flush()]
    new = [event.report for event in events if isinstance(event, Ended) and event.report.end == "closed"]
    mine = [report for report in new if report.stream.first_arrival_ns >= start]
    assert [(report.samples, report.packets_lost) for report in mine] == [(8000, 0)] * 3
    assert (engine.totals().unaccounted, engine.totals().buffered) == (0, 0)


def test_a_datagram_that_cannot_be_parsed_costs_itself() -> None:
    arrivals = steady(100) + steady(100, call=leg_id(1))
    arrivals.sort(key=lambda a: a.ns)
    bad = {77: b"\xee" * 40, 120: b"\xee" * 40}
    arrivals = [Arrival(a.ns, bad.get(i, a.data)) for i, a in enumerate(arrivals)]
    parse = _intake.parse_apart  # type: ignore[attr-defined]

    def fussy(slab: np.ndarray, length: np.ndarray) -> Any:
        if (slab[:, 0] == 0xEE).any():
            raise Sabotaged("parse")
        return parse(slab, length)

    with mock.patch.object(_intake, "parse_apart", fussy):
        outcome = run(arrivals)
    assert [(f.place, f.stream, f.packets) for f in outcome.faults] == [("parse", None, 1)] * 2
    assert outcome.totals.dropped_by == {"fault": 2}
    assert sum(outcome.totals.by_kind.values()) == outcome.totals.delivered == 198
    assert [h[0].report["packets_lost"] for h in outcome.streams.values()] == [1, 1]


def test_a_source_that_cannot_be_admitted_costs_no_other_anything() -> None:
    """Ten calls, each beginning at its own time; admission fails for one, as often as it tries."""
    victim = str(leg_id(4))
    arrivals = [a for s in range(10) for a in steady(200, call=leg_id(s), start_ns=T0 + s * 130 * MS)]
    arrivals.sort(key=lambda a: a.ns)
    cuts = list(range(0, len(arrivals), 7))
    whole = run(arrivals, cuts)
    admit = Registry.admit

    def fussy(self: Registry, hi: int, lo: int, tag: int, **options: Any) -> StreamInfo:
        info = admit(self, hi, lo, tag, **options)
        if info.name == victim:
            raise Sabotaged("admit")
        return info

    with mock.patch.object(Registry, "admit", fussy):
        outcome = run(arrivals, cuts)
    assert outcome.streams.keys() == {key for key in whole.streams if key[0] != victim}
    for key, heard in outcome.streams.items():
        assert_same(heard, whole.streams[key])
    assert 1 <= len(outcome.faults) <= 6
    assert {fault.place for fault in outcome.faults} == {"sources"}
    # it is shut out after a while, and costs a look-up a packet from then on
    assert outcome.totals.rejected_by["fault"] >= 180
    assert outcome.totals.dropped_by.get("fault", 0) == sum(fault.packets for fault in outcome.faults)


INNER = (
    (Engine, "_boundary"), (Engine, "_take_ticks"), (Engine, "_take_tick"), (Playout, "hand_over_waiting"),
    (Playout, "boundary"), (Playout, "_release_group"), (Playout, "drain"), (Endings, "end"), (Endings, "end_idle"),
    (Sources, "offer"), (Sources, "boundary"), (Sources, "close"), (SourceChanges, "_begin"),
    (SourceChanges, "_take_over"), (SourceChanges, "_tell_started"), (HeldInsertion, "insert"), (KeyTable, "find"),
    (KeyTable, "remove"), (Outlet, "end"), (StreamState, "open"), (StreamState, "close"), (StreamState, "report"),
    (_engine, "ticks_of"), (_intake, "parse_apart"), (BulkInsertion, "_choose"), (Registry, "release"),
)  # fmt: skip
LINES = (0, 3, 1 << 30)


@pytest.mark.parametrize(
    ("owner", "name", "lines"),
    [
        # each place with one of them every time; with --run-slow with all
        pytest.param(*place, lines, marks=[pytest.mark.slow] if (n + m) % len(LINES) else [])
        for n, place in enumerate(INNER)
        for m, lines in enumerate(LINES)
    ],
    ids=lambda one: getattr(one, "__name__", "").rpartition(".")[2] or str(one),
)
def test_nothing_leaves_the_engine(owner: Any, name: str, lines: int) -> None:
    """Whatever fails, wherever: the engine returns, tells it, has lost no account of any packet, and time goes on."""
    arrivals = calls(1)
    saboteur = Saboteur(None, 3, lines, 6)
    engine = Engine()
    events: list[Event] = []
    with mock.patch.object(owner, name, saboteur.wrap(getattr(owner, name))):
        for begin in range(0, len(arrivals), 50):
            events += engine.receive(batch_of(arrivals[begin : begin + 50], width=512))
            assert engine.totals().unaccounted == 0
            events += engine.advance(arrivals[begin].ns)
            assert engine.totals().unaccounted == 0
        assert engine.now_ns >= arrivals[-1].ns - 10 * MS
        events += engine.end([info for info in engine.registry.live() if info.serial % 2], "stopped")
        events += engine.flush()
    assert engine.totals().unaccounted == 0
    hit = saboteur.hits >= 3
    assert any(isinstance(event, Fault) for event in events) == hit
    # it serves new calls as if nothing had been
    start = T0 + 600_000 * MS
    later = [Arrival(start + k * 20 * MS, packet(k, call=leg_id(900 + s))) for k in range(50) for s in range(4)]
    events = [*engine.receive(batch_of(later)), *engine.flush()]
    ended = [e.report for e in events if isinstance(e, Ended) and e.report.stream.first_arrival_ns >= start]
    assert [(report.samples, report.packets_lost, report.end) for report in ended] == [(8000, 0, "closed")] * 4
    assert engine.totals().unaccounted == 0


def test_three_faults_in_ten_seconds_shut_a_stream_out_for_a_while() -> None:
    quarantine, key, second = Quarantine(), (1, 2, 3), 1_000_000_000
    words = tuple(np.array([word, 9], np.uint64) for word in key)

    def out(at_s: float) -> list[bool]:
        return quarantine.refused(*words, round(at_s * second)).tolist()

    quarantine.fault(key, 0)
    quarantine.fault(key, 9 * second)
    assert out(9) == [False, False]
    quarantine.fault(key, 12 * second)  # the first one is forgotten
    assert out(12) == [False, False]
    quarantine.fault(key, 13 * second)
    assert out(13) == out(42.9) == [True, False]
    assert out(43) == [False, False]
    for number in range(10_000):
        for _ in range(3):
            quarantine.fault((number, number, number), 50 * second)
    assert len(quarantine) == 256


_ABSURD_TIMES = (0, 5, T0, 1 << 62, (1 << 63) - 10**10)
_STEPS = (1 << 31, (1 << 31) - 1, -1, -159, -160, 1, 8000, 480_000, 1 << 30, 65_535)
_SIZES = (160, 0, 1, 2, 3, 4, 33, 320, 1500, 2049, 240, 20, 10)
_LEAPS_NS = (10**9, 10**12, 10**15, 10**17, -(10**12), -(10**18))


@pytest.mark.filterwarnings("error")
@given(
    seed=st.integers(0, 1 << 32), begin=st.sampled_from(_ABSURD_TIMES), live=st.booleans(), prompt=st.booleans(),
    idle_s=st.sampled_from([60, 10**6, 9 * 10**9]),
)  # fmt: skip
@settings(max_examples=usual_or_slow(5, 8), deadline=None, suppress_health_check=list(HealthCheck))
def test_absurd_values_are_nobodys_fault(seed: int, begin: int, live: bool, prompt: bool, idle_s: int) -> None:
    """Clocks that leap by years and reach the end of 63 bits, timestamps that go anywhere, payloads of any size: no
    fault, no loop without end, and no account is lost."""
    rng = np.random.default_rng(seed)
    at, arrivals = begin, list[Arrival]()
    types = rng.choice([0, 8, 10, 11, 9, 18, 3, 101, 13, 111, 96, 77], 6).tolist()
    sequence, timestamp = rng.integers(0, 65_536, 6).tolist(), rng.integers(0, 1 << 32, 6).tolist()
    for _ in range(800):
        s = int(rng.integers(6))
        chance = rng.random(5)
        sequence[s] += 1 if chance[0] > 0.02 else int(rng.integers(1, 65_536))
        timestamp[s] += 160 if chance[1] > 0.03 else int(rng.choice(_STEPS))
        at += int(rng.integers(0, 8 * MS)) if chance[2] > 0.01 else int(rng.choice(_LEAPS_NS))
        at = max(min(at, (1 << 63) - 1), -1 << 63)
        data = packet(
            sequence[s],
            timestamp=timestamp[s],
            payload_type=types[s],
            payload=rng.bytes(160 if chance[3] > 0.3 else int(rng.choice(_SIZES))),
            call=leg_id(s),
            ssrc=7 if chance[4] > 0.01 else 8,
        )
        arrivals.append(Arrival(at, data))
    engine = Engine(EngineConfig(idle_ns=idle_s * 10**9), release=Release(0 if live else 200 * MS, prompt=prompt))
    events: list[Event] = []
    for done in range(0, len(arrivals), 50):
        events += engine.receive(batch_of(arrivals[done : done + 50], width=4096))
        assert engine.totals().unaccounted == 0
        events += engine.advance(engine.now_ns + int(rng.integers(0, 10**9)))
    events += engine.flush()
    assert [event for event in events if isinstance(event, Fault)] == []
    assert (engine.totals().unaccounted, engine.totals().buffered) == (0, 0)
    assert sum(len(event.samples) for event in events if isinstance(event, BlockBatch)) < 800 * 2048


def test_a_replay_contains_faults_as_a_live_run_does(tmp_path: Path) -> None:
    """A stream that cannot be placed, and an event that cannot be handed on: the other stream is whole."""
    arrivals = sorted(steady(300) + steady(300, call=leg_id(1)), key=lambda a: a.ns)
    writer = PcapWriter(tmp_path / "two.pcap")
    writer.write(batch_of(arrivals))
    writer.close()
    place, handle = Timeline.place, Dispatcher.handle

    def fussy(self: Timeline, packets: Any, codec: Any, frames: Any) -> Any:
        if 0 in packets.row and packets.arrival_ns.max() > T0 + 3000 * MS:
            raise Sabotaged("place")
        return place(self, packets, codec, frames)

    def forgetful(self: Dispatcher, events: list[Event]) -> None:
        if any(isinstance(event, Ended) and event.report.end == "fault" for event in events):
            raise Sabotaged("handle")
        handle(self, events)

    with mock.patch.object(Timeline, "place", fussy), mock.patch.object(Dispatcher, "handle", forgetful):
        found = strep.replay(tmp_path / "two.pcap", sinks=[ArraySink()])
    totals = found.totals()
    assert totals.unaccounted == totals.buffered == 0
    assert set(totals.faults) == {"place", "replay"}
    assert totals.dropped_by["fault"] > 0
    (whole,) = [r for r in found.reports() if r.stream.name == str(leg_id(1))]
    assert (whole.samples, whole.packets_lost, whole.end) == (300 * 160, 0, "closed")
