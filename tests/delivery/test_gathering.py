"""Audio that waits for more of it: nothing is lost, doubled or out of order, whoever takes whose row meanwhile."""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from block_batches import Part, batch_of_blocks, stream
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0

import strep._delivery.lane_group as lane_group_module
from strep._delivery.dispatcher import Dispatcher
from strep._delivery.gathering import Gathering
from strep._model.blocks import BlockBatch
from strep._model.events import Ended, Event, Started
from strep._model.gathered import gathered
from strep._model.types import Direction, Leg, Mask, StreamEvent, StreamInfo
from strep._threads.incidents import Incident, Incidents
from strep.sinks import BaseSink, DtmfDetector, LevelMeter, MutedSink, SpeechMeter

MS = 1_000_000
ROWS = 4


def part(info: StreamInfo, position: int, value: int, arrival_ns: int, frames: int = 160, gap: int = 0) -> Part:
    return Part(info, position, gap, np.full(frames, value, np.int16), arrival_ns=arrival_ns)


def ended(info: StreamInfo) -> Ended:
    return Ended(info, None)  # type: ignore[arg-type]  # nobody looks at its report here


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """What happens in a few rows: streams begin, speak, are told of and end; rows are taken again at once."""
    events: list[Event] = []
    live: dict[int, tuple[StreamInfo, int]] = {}
    serial, value, now_ns = 0, 0, T0
    for _ in range(draw(st.integers(1, 40))):
        now_ns += draw(st.integers(0, 40)) * MS
        what = draw(st.sampled_from(["start", "blocks", "blocks", "blocks", "event", "end"]))
        row = draw(st.integers(0, ROWS - 1))
        if what == "start" and row not in live:
            info = stream(row, serial=serial)
            serial += 1
            live[row] = info, 0
            events.append(Started(info))
        elif what == "blocks" and live:
            parts = []
            for each in sorted(draw(st.sets(st.sampled_from(sorted(live)), min_size=1))):
                info, position = live[each]
                value += 1
                gap = draw(st.sampled_from([0, 0, 160])) if position else 0
                parts.append(part(info, position + gap, value, now_ns, gap=gap))
                live[each] = info, position + gap + 160
            events.append(batch_of_blocks(parts))
        elif what == "event" and row in live:
            events.append(StreamEvent(live[row][0], "x", 0, now_ns, 0.0))
        elif what == "end" and row in live:
            events.append(ended(live.pop(row)[0]))
    return events


def told(events: list[Event]) -> dict[int, list[Any]]:
    """What each stream is told, in order: its first and last word, and its samples with their positions."""
    found: dict[int, list[Any]] = defaultdict(list)
    for event in events:
        if isinstance(event, BlockBatch):
            for block in event:
                at = enumerate(block.samples.tolist(), block.position)
                found[block.stream.serial] += [(position, value) for position, value in at]
        elif isinstance(event, Started | Ended):
            found[event.stream.serial].append(type(event))
    return found


@settings(max_examples=usual_or_slow(60, 1000), deadline=None)
@given(histories(), st.sampled_from([10, 60, 200]))
def test_each_stream_is_told_all_in_order_and_no_row_is_shared(events: list[Event], within_ms: int) -> None:
    gathering = Gathering(within_ms)
    out: list[Event] = []
    for event in events:
        if isinstance(event, BlockBatch):
            before = gathering.waits
            now = gathering.take(event)
            if not before and within_ms:
                assert not any(isinstance(e, BlockBatch) for e in now)
            out += now
        else:
            out += gathering.take(event)
    out += gathering.flush(whole=True)
    assert not gathering.waits
    assert told(out) == told(events)
    assert sum(isinstance(e, StreamEvent) for e in out) == sum(isinstance(e, StreamEvent) for e in events)
    holder: dict[int, int] = {}
    for event in out:
        if isinstance(event, Started):
            assert event.stream.index not in holder
            holder[event.stream.index] = event.stream.serial
        elif isinstance(event, Ended):
            assert holder.pop(event.stream.index) == event.stream.serial
        elif isinstance(event, BlockBatch):
            assert bool((np.diff(event.index) >= 0).all())
            assert all(holder[info.index] == info.serial for info in event.streams)


def test_blocks_come_together_once_they_span_the_time() -> None:
    info = stream(0)
    gathering = Gathering(100)
    out = [gathering.take(batch_of_blocks([part(info, n * 160, n, T0 + n * 20 * MS)])) for n in range(12)]
    assert [len(each) for each in out] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]
    (batch,) = out[5]
    assert isinstance(batch, BlockBatch)
    assert (batch.frames.tolist(), batch.packet_frames.tolist()) == ([960], [160] * 6)  # they go on: they are one


def test_what_was_gathered_is_what_came() -> None:
    rng = np.random.default_rng(3)
    infos = [stream(n, (8000, 16_000)[n % 2]) for n in range(7)]
    position = [0] * 7
    batches = []
    for tick in range(9):
        parts = []
        for n, info in enumerate(infos):
            if rng.random() < 0.7:
                gap = int(rng.choice([0, 0, 160]))
                samples = rng.integers(-9, 9, int(rng.choice([160, 320, 77]))).astype(np.int16)
                mask = np.full(len(samples), rng.choice([Mask.RECEIVED, Mask.LOST]), np.uint8)
                parts.append(Part(info, position[n] + gap, gap, samples, mask, arrival_ns=T0 + tick * MS))
                position[n] += gap + len(samples)
        batches.append(batch_of_blocks(parts))
    whole = gathered(batches)
    assert whole.error is None
    for info in infos:
        came = [b for batch in batches for b in batch if b.stream is info]
        got = [b for b in whole if b.stream is info]
        for name in ("samples", "mask"):
            np.testing.assert_array_equal(*(np.concatenate([getattr(b, name) for b in bs]) for bs in (came, got)))
        assert [b.gap for b in got if b.gap] == [b.gap for b in came if b.gap]
        assert [b.position for b in got] == [b.position for b in came if b.gap or not b.position]
    assert int(whole.packet_frames.sum()) == int(whole.frames.sum())
    assert whole.payload_offset[-1] == len(whole.payload) == sum(len(b.payload) for b in batches)


def test_blocks_by_another_clock_do_not_become_one() -> None:
    info = stream(0)
    one, other = part(info, 0, 1, T0), part(info, 160, 2, T0)
    other.time_ns = T0 + 20 * MS + 1  # corrected for drift
    whole = gathered([batch_of_blocks([one]), batch_of_blocks([other])])
    assert (whole.frames.tolist(), whole.time_ns.tolist()) == ([160, 160], [T0, T0 + 20 * MS + 1])


class Stuck(BaseSink):
    """Takes nothing until it is let go."""

    gather_ms = 1.0

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.frames = 0

    def blocks(self, batch: BlockBatch) -> None:
        self.let_go.wait(20)
        self.frames += int(batch.frames.sum())


def test_analyzers_that_are_late_are_told_of_before_anything_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_group_module, "QUEUE_BYTES", 40_000)
    info, sink, said = stream(0), Stuck(), list[Incident]()
    incidents = Incidents(lambda: T0)
    incidents.listen(said.append)
    dispatcher = Dispatcher([sink, LevelMeter()], incidents=incidents)
    dispatcher.handle([Started(info)])
    lost_at_first_word = None
    for n in range(200):
        dispatcher.handle([batch_of_blocks([part(info, n * 160, 1, T0 + n * 20 * MS)])])
        if said and lost_at_first_word is None:
            lost_at_first_word = dispatcher.reports()[0]["dropped_frames"]
    assert [i.kind for i in said] == ["analysis_late"]
    assert lost_at_first_word == 0
    sink.let_go.set()
    dispatcher.close(20)
    reports = dispatcher.reports()
    assert reports[0]["dropped_frames"] + sink.frames == 200 * 160
    assert reports[0]["dropped_frames"] == reports[1]["dropped_frames"] > 0  # they share what there is no room for


def test_nothing_waits_for_packets_that_do_not_come() -> None:
    info, heard = stream(0), threading.Event()

    class Hearing(BaseSink):
        gather_ms = 30.0

        def blocks(self, batch: BlockBatch) -> None:
            heard.set()

    dispatcher = Dispatcher([Hearing()])
    dispatcher.handle([Started(info), batch_of_blocks([part(info, 0, 1, T0)])])
    assert heard.wait(20)
    dispatcher.close(5)


def leg_of(n: int) -> StreamInfo:
    info = stream(n)
    return StreamInfo(
        n, n, uuid.UUID(int=1), Leg.A, Direction(n), "x", "x", "a-inbound", 9000, 1, ("127.0.0.1", 1), 96, T0, T0,
        info.codec,
    )  # fmt: skip


@pytest.mark.parametrize("gather_ms", [0, 60, 200])
def test_what_analyzers_find_does_not_depend_on_what_is_gathered(gather_ms: float) -> None:
    """Nor on who looks for the keys that are kept from levels and speech."""
    rng = np.random.default_rng(5)
    t = np.arange(24_000) / 8000
    audio = []
    for n in range(2):
        speech = rng.normal(0, 2000, len(t)) * ((t * (2 + n)).astype(int) % 2) + rng.normal(0, 20, len(t))
        key = (t > 1) & (t < 1.2)
        speech[key] = 6000 * (np.sin(2 * np.pi * 770 * t) + np.sin(2 * np.pi * 1336 * t))[key]
        audio.append(np.clip(np.rint(speech), -32_768, 32_767).astype(np.int16))

    def run(gather_ms: float, shared: bool) -> tuple[list[Any], list[dict[str, Any]]]:
        events: list[Any] = []
        detector, inner = DtmfDetector(events.append), [LevelMeter(), SpeechMeter(on_event=events.append)]
        for analyzer in (detector, *inner):
            analyzer.gather_ms = gather_ms
        sinks: list[Any] = [MutedSink(inner, detector)] if shared else [MutedSink(inner), detector]
        infos = [leg_of(n) for n in range(2)]
        dispatcher = Dispatcher(sinks, lossless=True)
        dispatcher.handle([Started(info) for info in infos])
        for at in range(0, 24_000, 480):
            parts = [
                Part(i, at, 0, a[at : at + 480], arrival_ns=T0 + at * 125_000)
                for i, a in zip(infos, audio, strict=True)
            ]
            dispatcher.handle([batch_of_blocks(parts)])
        dispatcher.handle([ended(info) for info in infos])
        dispatcher.close(20)
        told = sorted((e.kind, e.stream.serial, e.position, e.duration_s, repr(e.data)) for e in events)
        return told, [dispatcher.figures(info) for info in infos]

    events, figures = run(0, shared=False)
    assert [kind for kind, *_ in events].count("dtmf") == 2
    for shared in (True, False):
        again, same = run(gather_ms, shared)
        assert again == events
        for one, other in zip(figures, same, strict=True):
            assert one["speech"] == other["speech"]
            assert one["dtmf"] == other["dtmf"]
            for name, value in one["level"].items():
                assert other["level"][name] == pytest.approx(value, abs=0.011), name


@pytest.mark.parametrize("cut", [160, 480, 3200])
def test_turns_and_one_way_audio_end_at_the_same_time_however_audio_is_cut(cut: int) -> None:
    rng = np.random.default_rng(8)
    t = np.arange(9 * 8000) / 8000
    # a pause that is just too short to end a turn; and a direction that is mute for seven seconds
    talks = [((t > 0.5) & (t < 2)) | ((t > 2.98) & (t < 6)), (t > 7.1) & (t < 8)]
    noise = [20.0, 0.0]
    audio = [
        np.rint(rng.normal(0, 3000, len(t)) * on + rng.normal(0, 1, len(t)) * some).astype(np.int16)
        for on, some in zip(talks, noise, strict=True)
    ]
    events: list[StreamEvent] = []
    meter, infos = SpeechMeter(on_event=events.append), [leg_of(n) for n in range(2)]
    for info in infos:
        meter.stream_started(info)
    for at in range(0, len(t), cut):
        both = zip(infos, audio, strict=True)
        meter.blocks(batch_of_blocks([Part(info, at, 0, samples[at : at + cut]) for info, samples in both]))
    for info in infos:
        meter.stream_ended(info, None)  # type: ignore[arg-type]
    ended = [(e.stream.index, round(e.duration_s, 2)) for e in events if e.data == {"ongoing": False, "cause": "mute"}]
    assert ended == [(0, 7.12)]  # the end of the first frame in which the other one is heard
    turns = [(e.position, round(e.duration_s, 2)) for e in events if e.kind == "turn" and not e.stream.index]
    assert turns == [(4000, 5.5)]
