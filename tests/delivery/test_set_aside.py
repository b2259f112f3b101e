"""A stream is a fault's boundary: sinks and analyzers go on without the stream that makes them raise, exactly."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support import MS, T0, Arrival, batch_of, leg_id, packet

import strep
from strep import Incident
from strep._codecs.g711 import encode
from strep._delivery.conceal import Concealer
from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine
from strep._engine.release import Release
from strep._model.blocks import BlockBatch, joined
from strep._model.events import Ended, Event, Started
from strep._model.types import Codec, StreamEvent, StreamInfo
from strep._receiver.sink_problems import SinkProblems
from strep._threads.incidents import Incidents
from strep.sinks import (
    ArraySink,
    BaseSink,
    BatchCallbackSink,
    CallbackSink,
    DtmfDetector,
    FrameSink,
    LevelMeter,
    MutedSink,
    QualityMeter,
    Sink,
    Spectrum,
    SpeechMeter,
    ToneDetector,
)
from strep.sinks import muting as mute_module
from strep.sinks.analysis import bank as bank_module
from strep.sinks.analysis import dialogue_monitor as monitor_module
from strep.sinks.analysis import frame_cutter as cutter_module
from strep.sinks.analysis import keys as keys_module
from strep.sinks.analysis import level as level_module
from strep.sinks.analysis import p56 as p56_module
from strep.sinks.analysis import quality as quality_module
from strep.sinks.analysis import spectrum as spectrum_module
from strep.sinks.analysis import speech as speech_module
from strep.sinks.analysis import tones as tones_module
from strep.sinks.analysis import vad as vad_module

PCMU = Codec("PCMU", 8000, 8000, 1, 1)
STREAMS = 8
GUILTY = 3
PACKETS = 200
FRAMES = 160


def audio_of(stream: int) -> npt.NDArray[np.int16]:
    """Speech-like noise in turns, keys, a ringback tone and a beep: something for every analyzer to find."""
    rng = np.random.default_rng(stream)
    t = np.arange(PACKETS * FRAMES) / 8000
    x = rng.normal(0, 30, len(t))
    talk = (np.floor(t * 1.3 + stream * 0.37) % 2).astype(bool)
    x[talk] += rng.normal(0, 3000, int(talk.sum()))
    low, high = ((697, 1209), (770, 1336), (852, 1477), (941, 1633))[stream % 4]
    key = (t > 0.9 + 0.01 * stream) & (t < 1.0 + 0.01 * stream)
    x[key] = 4000 * (np.sin(2 * np.pi * low * t[key]) + np.sin(2 * np.pi * high * t[key]))
    tone = (t > 2.6) & (t < 3.2)
    x[tone] = 5000 * np.sin(2 * np.pi * (1000 + 20 * stream) * t[tone])
    x[(t > 2.0) & (t < 2.6)] = 0
    x[t > 3.2] = 0
    return np.clip(x, -32_000, 32_000).astype(np.int16)


def make_events() -> list[Event]:
    """What an engine tells of eight streams, with a loss here and there."""
    engine = Engine(release=Release(60 * MS))
    payloads = [encode(PCMU, audio_of(n)).tobytes() for n in range(STREAMS)]
    events: list[Event] = []
    for k in range(PACKETS):
        at = T0 + k * 20 * MS
        arrivals = [
            Arrival(
                at + n * 1000,
                packet(k, payload=payloads[n][k * FRAMES : (k + 1) * FRAMES], call=leg_id(n // 2), direction=n % 2),
            )
            for n in range(STREAMS)
            if (k + 7 * n) % 41
        ]
        events += engine.receive(batch_of(arrivals))
        events += engine.advance(at + 15 * MS)
    return events + engine.flush()


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return make_events()


def guilty_in(rows: Any) -> bool:
    return GUILTY in np.atleast_1d(np.asarray(rows)).tolist()


def stream_of(events: list[Event], number: int) -> StreamInfo:
    (found,) = [e.stream for e in events if isinstance(e, Started) and e.stream.index == number]
    return found


def frames_of(events: list[Event], number: int) -> int:
    return sum(
        block.samples.shape[0]
        for e in events
        if isinstance(e, BlockBatch)
        for block in e.filled
        if block.stream.index == number
    )


class Heard(BaseSink):
    inline = True
    wants_audio = False

    def __init__(self) -> None:
        self.events: list[StreamEvent] = []

    def event(self, event: StreamEvent) -> None:
        self.events.append(event)


def run(events: list[Event], *sinks: Sink) -> tuple[Dispatcher, list[StreamEvent], list[Incident]]:
    heard = Heard()
    told: list[Incident] = []
    incidents = Incidents(lambda: T0)
    incidents.listen(told.append)
    dispatcher = Dispatcher([*sinks, heard], lossless=True, incidents=incidents)
    for event in events:
        if isinstance(event, BlockBatch):
            event.fill = None
    dispatcher.handle(events)
    dispatcher.close(30)
    return dispatcher, heard.events, told


# --- batches in parts ------------------------------------------------------------------------------------------------


def same_batch(one: BlockBatch, other: BlockBatch) -> None:
    names = (
        "index", "position", "frames", "gap_frames", "gap_cause", "rtp_timestamp", "arrival_ns", "time_ns", "offset",
        "payload", "payload_offset", "packet_first", "packet_frames", "packet_arrival_ns", "packet_rtp_timestamp",
        "samples", "mask",
    )  # fmt: skip
    for name in names:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert list(one.streams) == list(other.streams)


def test_a_part_of_a_batch_is_what_it_was_of_the_whole(events: list[Event]) -> None:
    for batch in [e for e in events if isinstance(e, BlockBatch)][:20]:
        same_batch(batch.take(np.arange(len(batch))), batch)
        blocks = list(batch)
        some = np.arange(1, len(batch), 2)
        for found, i in zip(batch.take(some), some.tolist(), strict=True):
            assert (found.stream, found.position, found.gap) == (
                blocks[i].stream, blocks[i].position, blocks[i].gap,
            )  # fmt: skip
            np.testing.assert_array_equal(found.samples, blocks[i].samples)
        starts = batch.starts()
        parts = [batch.take(np.arange(a, b)) for a, b in itertools.pairwise(starts)]
        assert all(len({stream.serial for stream in part.streams}) == 1 for part in parts)
        same_batch(joined(parts), batch)


# --- any sink --------------------------------------------------------------------------------------------------------


class Recording(BaseSink):
    """Notes every block that it is given; raises in what it is told to."""

    kind = "recording"
    inline = True

    def __init__(self, wrong: Callable[[str, StreamInfo, int], bool], *, repeatable: bool = False) -> None:
        self.repeatable = repeatable
        self._wrong = wrong
        self.calls = 0
        self.took: dict[int, list[tuple[int, int]]] = {}
        self.ended: list[int] = []
        self.started: list[int] = []
        self.heard: list[int] = []

    def _check(self, method: str, stream: StreamInfo) -> None:
        if self._wrong(method, stream, self.calls):
            raise ValueError(f"{method} of {stream.index}")

    def stream_started(self, stream: StreamInfo) -> None:
        self._check("started", stream)
        self.started.append(stream.index)

    def blocks(self, batch: BlockBatch) -> None:
        self.calls += 1
        taken = []
        for block in batch:
            if self.repeatable:
                self._check("blocks", block.stream)
                taken.append(block)
            else:  # half of a batch may have been taken
                self._take(block)
                self._check("blocks", block.stream)
        for block in taken:
            self._take(block)

    def _take(self, block: strep.Block) -> None:
        self.took.setdefault(block.stream.index, []).append((block.position, len(block.samples)))

    def stream_ended(self, stream: StreamInfo, report: strep.StreamReport) -> None:
        self.ended.append(stream.index)
        self._check("ended", stream)

    def event(self, event: StreamEvent) -> None:
        self._check("event", event.stream)
        self.heard.append(event.stream.index)

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        self._check("figures", stream)
        return {"recorded": stream.index}

    def files(self, stream: StreamInfo) -> list[str]:
        self._check("files", stream)
        return [str(stream.index)]


def plain_frames(events: list[Event]) -> dict[int, int]:
    total: dict[int, int] = {}
    for e in events:
        if isinstance(e, BlockBatch):
            for block in e:
                total[block.stream.index] = total.get(block.stream.index, 0) + len(block.samples)
    return total


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("after", [0, 5])
def test_a_repeatable_sink_loses_the_stream_it_raises_for_and_nothing_else(
    events: list[Event], inline: bool, after: int
) -> None:
    sink = Recording(lambda m, s, n: m == "blocks" and s.index == GUILTY and n > after, repeatable=True)
    sink.inline = inline
    dispatcher, _, told = run(events, sink)
    whole = plain_frames(events)
    got = {index: sum(n for _, n in blocks) for index, blocks in sink.took.items()}
    assert {i: n for i, n in got.items() if i != GUILTY} == {i: n for i, n in whole.items() if i != GUILTY}
    assert all(blocks == sorted(set(blocks)) for blocks in sink.took.values())  # nothing twice, all in order
    (report, _) = dispatcher.reports()
    assert report["failed"] is None
    assert report["set_aside"] == 1
    assert report["dropped_frames"] == whole[GUILTY] - got.get(GUILTY, 0) > 0
    assert sorted(sink.ended) == list(range(STREAMS))  # told of its end: it may hold something
    assert [(i.kind, i.data["place"], i.data["stream"]) for i in told] == [
        ("fault", "sink recording", stream_of(events, GUILTY).stem)
    ]
    assert dispatcher.incidents.faults() == {"sink recording": 1}


@pytest.mark.parametrize("after", [0, 5])
def test_any_other_sink_gets_no_block_twice_and_loses_one_batch(events: list[Event], after: int) -> None:
    sink = Recording(lambda m, s, n: m == "blocks" and s.index == GUILTY and n > after)
    dispatcher, _, _ = run(events, sink)
    assert all(blocks == sorted(set(blocks)) for blocks in sink.took.values())
    batches = [e for e in events if isinstance(e, BlockBatch)]
    culprits = [i for i, b in enumerate(batches) if guilty_in(b.index)]
    first = next(i for i in culprits if i >= after)
    later = sum(len(block.samples) for b in batches[first + 1 :] for block in b if block.stream.index == GUILTY)
    lost = int(batches[first].frames.sum())
    report = dispatcher.reports()[0]
    assert (report["failed"], report["set_aside"]) == (None, 1)
    assert report["dropped_frames"] == lost + later
    whole = plain_frames(events)
    for index in set(range(STREAMS)) - {GUILTY}:
        got = sum(n for _, n in sink.took[index])
        # of the batch that raised it took what stood before the guilty one
        missing = sum(len(b.samples) for b in batches[first] if b.stream.index == index)
        assert got in (whole[index], whole[index] - missing)
    assert dispatcher.incidents.faults() == {"sink recording": 1 if set(batches[first].index) == {GUILTY} else 2}


@pytest.mark.parametrize("method", ["started", "ended", "event", "figures", "files"])
def test_what_a_sink_raises_for_one_stream_costs_that_one(events: list[Event], method: str) -> None:
    sink = Recording(lambda m, s, n: m == method and s.index == GUILTY, repeatable=True)
    dispatcher, _, _ = run(events, DtmfDetector(), sink)
    whole = plain_frames(events)
    got = {index: sum(n for _, n in blocks) for index, blocks in sink.took.items()}
    report = dispatcher.reports()[1]
    assert report["failed"] is None
    others = set(range(STREAMS)) - {GUILTY}
    assert {i: got[i] for i in others} == {i: whole[i] for i in others}
    assert report["dropped_frames"] == whole[GUILTY] - got.get(GUILTY, 0)
    figures = [dispatcher.figures(stream_of(events, n)).get("recorded") for n in range(STREAMS)]
    files = [dispatcher.files(stream_of(events, n)) for n in range(STREAMS)]
    assert figures == [None if method == "figures" and n == GUILTY else n for n in range(STREAMS)]
    assert files == [[] if method == "files" and n == GUILTY else [str(n)] for n in range(STREAMS)]
    assert dispatcher.incidents.faults() == {"sink recording": 1}
    assert sorted(set(sink.ended) | {GUILTY}) == list(range(STREAMS))
    assert (GUILTY in sink.ended) is (method != "started")
    if method == "started":
        assert got.get(GUILTY) is None


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("method", ["blocks", "started", "ended", "event"])
def test_a_sink_that_raises_whatever_it_is_given_is_quarantined(
    events: list[Event], method: str, repeatable: bool
) -> None:
    sink = Recording(lambda m, s, n: m == method, repeatable=repeatable)
    dispatcher, _, _ = run(events, DtmfDetector(), sink)
    report = dispatcher.reports()[1]
    assert report["failed"].startswith(f"ValueError: {method} of ")
    assert report["set_aside"] >= 3
    assert dispatcher.reports()[0]["failed"] is None


def test_two_streams_that_hurt_do_not_make_a_quarantine(events: list[Event]) -> None:
    sink = Recording(lambda m, s, n: m == "blocks" and s.index in (2, 3, 4, 5), repeatable=True)
    dispatcher, _, _ = run(events, sink)
    report = dispatcher.reports()[0]
    assert (report["failed"], report["set_aside"]) == (None, 4)  # for the others between them it did not raise
    whole = plain_frames(events)
    assert {i: sum(n for _, n in b) for i, b in sink.took.items()} == {i: whole[i] for i in (0, 1, 6, 7)}


def test_samples_that_cannot_be_made_are_no_fault_of_those_who_want_them(events: list[Event]) -> None:
    batches = [e for e in events if isinstance(e, BlockBatch)]
    broken = batches[4]

    def fail() -> npt.NDArray[np.int16]:
        raise RuntimeError("no such codec")

    bad = broken.take(np.arange(len(broken)))
    bad._decode = fail
    given = [bad if e is broken else e for e in events]
    sinks: list[BaseSink] = [
        Recording(lambda m, s, n: False), Recording(lambda m, s, n: False, repeatable=True), ArraySink(), LevelMeter(),
        SpeechMeter(), DtmfDetector(), ToneDetector(), Spectrum(), CallbackSink(lambda block: None),
        FrameSink(lambda frames: None), MutedSink([LevelMeter()]),
    ]  # fmt: skip
    for sink in sinks:
        sink.gather_ms = 0  # each batch by itself
    dispatcher, _, told = run(given, *sinks)
    lost = int(broken.frames.sum())
    for report in dispatcher.reports()[:-1]:
        assert (report["failed"], report.get("set_aside", 0), report["dropped_frames"]) == (None, 0, lost), report
    assert set(dispatcher.incidents.faults()) == {"decode"}
    assert [i.data["place"] for i in told] == ["decode"]


# --- analyzers -------------------------------------------------------------------------------------------------------


class Poison:
    """Raises in a function whenever it has to do with the guilty stream, from its n-th call on."""

    def __init__(self, function: Callable[..., Any], concerns: Callable[..., bool], after: int) -> None:
        self.function, self.concerns, self.left = function, concerns, after
        self.raised = 0

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return lambda *a, **o: self(instance, *a, **o)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.concerns(*arguments, **options):
            self.left -= 1
            if self.left < 0:
                self.raised += 1
                raise FloatingPointError("poisoned")
        return self.function(*arguments, **options)


def in_frames(*arguments: Any) -> bool:
    return any(guilty_in(a.row) for a in arguments if hasattr(a, "row"))


def in_list(*arguments: Any) -> bool:
    return any(guilty_in(f.row) for a in arguments if isinstance(a, list) for f in a)


def in_batch(*arguments: Any) -> bool:
    return any(guilty_in(a.index) for a in arguments if isinstance(a, BlockBatch))


def in_row(_: Any, row: Any, *rest: Any) -> bool:
    return guilty_in(row if isinstance(row, int) else getattr(row, "row", GUILTY + 1))


def in_track(_: Any, row: Any, *rest: Any) -> bool:
    return bool(row.stream.index == GUILTY)


def in_rows(_: Any, dense: Any, row: Any, *rest: Any) -> bool:
    return guilty_in(row)


FAULTS: dict[str, tuple[Callable[[], Any], Any, str, Callable[..., bool]]] = {
    "level: sums": (LevelMeter, level_module.LevelMeter, "_measure", in_batch),
    "level: bank": (LevelMeter, cutter_module.FrameCutter, "cut", in_rows),
    "level: envelope": (LevelMeter, p56_module.ActiveLevel, "_frame", in_frames),
    "level: measure": (LevelMeter, p56_module.ActiveLevel, "_measure", in_list),
    "speech: samples": (SpeechMeter, bank_module, "mono_samples", in_batch),
    "speech: bank": (SpeechMeter, cutter_module.FrameCutter, "cut", in_rows),
    "speech: levels": (SpeechMeter, speech_module, "levels_of", in_list),
    "speech: detector": (SpeechMeter, vad_module.EnergyDetector, "judge", in_frames),
    "speech: segment": (SpeechMeter, monitor_module.DialogueMonitor, "open", in_row),
    "speech: segment's end": (SpeechMeter, monitor_module.DialogueMonitor, "close", in_row),
    "speech: turn": (SpeechMeter, monitor_module.DialogueMonitor, "_end_turn", in_track),
    "dtmf: samples": (DtmfDetector, bank_module, "unreceived_runs", in_batch),
    "dtmf: bank": (DtmfDetector, cutter_module.FrameCutter, "cut", in_rows),
    "dtmf: windows": (DtmfDetector, keys_module.KeyFinder, "find", in_frames),
    "dtmf: hit": (DtmfDetector, keys_module.KeyFinder, "_hit", in_row),
    "dtmf: miss": (DtmfDetector, keys_module.KeyFinder, "_miss", in_row),
    "dtmf: key": (DtmfDetector, DtmfDetector, "_note", in_row),
    "tones: bank": (ToneDetector, bank_module.FrameBank, "_emit", lambda *a: in_rows_of_pieces(*a)),
    "tones: windows": (ToneDetector, tones_module, "find_tones", in_frames),
    "tones: burst": (ToneDetector, ToneDetector, "_tone", in_track),
    "tones: after": (ToneDetector, ToneDetector, "_after", in_track),
    "quality: windows": (lambda: QualityMeter(1.0), quality_module.QualityWindows, "_deviation", in_batch),
    "quality: model": (lambda: QualityMeter(1.0), QualityMeter, "_rate", in_frames),
    "quality: codec": (lambda: QualityMeter(1.0), QualityMeter, "_learn", lambda _, s: s.index == GUILTY),
    "spectrum: bank": (Spectrum, cutter_module.FrameCutter, "cut", in_rows),
    "spectrum: transform": (Spectrum, spectrum_module.Spectrum, "_add", in_frames),
    "muted level: bank": (lambda: MutedSink([LevelMeter()]), cutter_module.FrameCutter, "cut", in_rows),
    "muted level: keys": (lambda: MutedSink([LevelMeter()]), keys_module.KeyFinder, "find", in_frames),
    "muted level: release": (lambda: MutedSink([LevelMeter()]), mute_module.KeyMuter, "_release", in_row),
}


def in_rows_of_pieces(_: Any, pieces: Sequence[Any], *rest: Any) -> bool:
    return any(guilty_in(piece.row) for piece in pieces)


def findings(dispatcher: Dispatcher, heard: list[StreamEvent], events: list[Event]) -> dict[int, Any]:
    """All that is said of each stream but the guilty one, and of the other direction of its leg."""
    told: dict[int, list[Any]] = {}
    for event in heard:
        told.setdefault(event.stream.index, []).append(
            # matrix products of other sizes round otherwise, by some ns
            (event.kind, event.position, round(event.time_ns, -4), event.duration_s, repr(sorted(event.data.items())))
        )
    pair = stream_of(events, GUILTY).pair
    return {
        n: (sorted(told.get(n, [])), repr(dispatcher.figures(stream_of(events, n))))
        for n in range(STREAMS)
        if stream_of(events, n).pair != pair
    }


@pytest.fixture(scope="module")
def undisturbed(events: list[Event]) -> Callable[[Callable[[], Any]], dict[int, Any]]:
    """What a sink finds while nothing fails; of each kind once."""

    @functools.cache
    def found(make: Callable[[], Any]) -> dict[int, Any]:
        clean, heard, _ = run(events, make())
        assert clean.reports()[0]["dropped_frames"] == 0
        return findings(clean, heard, events)

    return found


SELDOM = {"speech: turn", "quality: codec", "dtmf: key"}  # called once or twice


@pytest.mark.parametrize(
    ("fault", "after"),
    [  # from the first call on or from the third one, in turn; with --run-slow both
        pytest.param(fault, after, marks=[pytest.mark.slow] if fault not in SELDOM and n % 2 != after // 2 else [])
        for n, fault in enumerate(FAULTS)
        for after in (0, 2)
        if not after or fault not in SELDOM
    ],
)
def test_an_analyzer_goes_on_without_the_stream_that_makes_it_raise(
    events: list[Event],
    undisturbed: Callable[[Callable[[], Any]], dict[int, Any]],
    fault: str,
    after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, holder, name, concerns = FAULTS[fault]
    expected = undisturbed(make)
    poison = Poison(getattr(holder, name), concerns, after)
    monkeypatch.setattr(holder, name, poison)
    sink = make()
    dispatcher, heard, told = run(events, sink)
    monkeypatch.undo()
    assert poison.raised
    assert findings(dispatcher, heard, events) == expected
    report = dispatcher.reports()[0]
    assert (report["failed"], report["set_aside"]) == (None, 1)
    assert 0 < report["dropped_frames"] <= frames_of(events, GUILTY)
    assert [i.kind for i in told] == ["fault"]
    (place,) = dispatcher.incidents.faults()
    assert place in (f"sink {report['kind']}", "mute keys")
    # the next stream in its row is heard again
    assert not getattr(sink, "aside", None)


def test_of_a_stream_that_is_set_aside_from_the_beginning_each_frame_counts(
    events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tones_module, "find_tones", Poison(tones_module.find_tones, in_frames, 0))
    detector = ToneDetector()
    detector.gather_ms = 0  # each batch by itself
    dispatcher, _, _ = run(events, detector)
    # what the sink was given of that stream, from the batch on that completed a first window of 400 samples
    concealer = Concealer()
    filled = [concealer.fill(e) for e in events if isinstance(e, BlockBatch)]
    given = np.array([int(b.frames[b.index == GUILTY].sum()) for b in filled])
    first = int(np.argmax(np.cumsum(given) >= 400))
    assert dispatcher.reports()[0]["dropped_frames"] == int(given[first:].sum()) > 0


def test_what_a_listener_raises_costs_neither_the_analyzer_nor_the_stream(events: list[Event]) -> None:
    def wrong(event: StreamEvent) -> None:
        raise KeyError(event.kind)

    _, heard, _ = run(events, DtmfDetector())
    dispatcher, again, _ = run(events, DtmfDetector(wrong))
    assert [(e.kind, e.position) for e in again] == [(e.kind, e.position) for e in heard] != []
    assert dispatcher.reports()[0].get("set_aside", 0) == 0
    assert dispatcher.incidents.faults() == {"sink dtmf": len(heard)}


# --- callbacks -------------------------------------------------------------------------------------------------------


def test_a_callback_is_not_called_any_more_for_the_stream_that_it_raised_for(events: list[Event]) -> None:
    took: dict[int, int] = {}

    def on_block(block: strep.Block) -> None:
        index = block.stream.index
        if index == GUILTY and took.get(index, 0) >= 1000:
            raise ZeroDivisionError
        took[index] = took.get(index, 0) + len(block.samples)

    ended: list[int] = []
    sink = CallbackSink(on_block, on_ended=lambda stream, report: ended.append(stream.index))
    dispatcher, _, _ = run(events, sink)
    whole = plain_frames(events)
    assert {i: n for i, n in took.items() if i != GUILTY} == {i: n for i, n in whole.items() if i != GUILTY}
    report = dispatcher.reports()[0]
    assert (report["failed"], report["set_aside"]) == (None, 1)
    assert report["dropped_frames"] == whole[GUILTY] - took[GUILTY]
    assert sorted(ended) == list(range(STREAMS))


def test_a_callback_that_always_raises_is_quarantined_and_so_is_a_batch_function(events: list[Event]) -> None:
    def wrong(thing: object) -> None:
        raise ZeroDivisionError("as tests do")

    sinks = [CallbackSink(wrong), BatchCallbackSink(wrong), BatchCallbackSink(wrong, repeatable=True), FrameSink(wrong)]
    dispatcher, _, _ = run(events, *sinks)
    assert [r["failed"] for r in dispatcher.reports()[:4]] == ["ZeroDivisionError: as tests do"] * 4


def test_a_frame_function_gets_streams_singly_after_it_raised_and_no_frame_twice(events: list[Event]) -> None:
    got: dict[int, list[int]] = {}

    def function(frames: strep.sinks.FrameBatch) -> None:
        for row, position in zip(frames.row.tolist(), frames.position.tolist(), strict=True):
            got.setdefault(row, []).append(position)
        if GUILTY in frames.row.tolist():
            raise ZeroDivisionError

    dispatcher, _, _ = run(events, FrameSink(function, 320, rate=8000))
    report = dispatcher.reports()[0]
    assert (report["failed"], report["set_aside"]) == (None, 1)
    assert all(positions == sorted(set(positions)) for positions in got.values())
    assert len(got[GUILTY]) == 2  # with the others, then alone
    assert {n: len(p) for n, p in got.items() if n != GUILTY} == dict.fromkeys(sorted(set(range(8)) - {GUILTY}), 100)


# --- concealment -----------------------------------------------------------------------------------------------------


def test_gaps_of_others_are_filled_when_those_of_one_cannot_be(
    events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    from strep._delivery import conceal as _conceal

    batches = [e for e in events if isinstance(e, BlockBatch)]
    clean = Concealer()
    expected = [clean.fill(b) for b in batches]
    blamed: list[int] = []
    poisoned = Concealer(on_fault=lambda stream, error: blamed.append(stream.index))
    poison = Poison(_conceal._Filling._continue, lambda own, past, gaps: guilty_in(own._batch.index[gaps]), after=1)
    monkeypatch.setattr(_conceal._Filling, "_continue", poison)
    found = [poisoned.fill(b) for b in batches]
    assert blamed == [GUILTY]
    assert poison.raised
    gaps_left = 0
    for one, two, plain in zip(expected, found, batches, strict=True):
        assert [s.serial for s in one.streams] == [s.serial for s in two.streams]
        others = np.flatnonzero(plain.index != GUILTY)
        same_batch(one.take(others), two.take(others))
        gaps_left += int(np.count_nonzero(two.gap_frames[two.index == GUILTY]))
        own = np.flatnonzero(plain.index == GUILTY)
        if two.gap_frames[two.index == GUILTY].any():
            same_batch(plain.take(own), two.take(own))
    all_gaps = sum(int(np.count_nonzero(plain.gap_frames[plain.index == GUILTY])) for plain in batches)
    assert gaps_left == all_gaps - 1 > 1  # the first one went well


# --- MutedSink hands on everything ------------------------------------------------------------------------------------


def test_muted_sinks_have_all_that_sinks_have() -> None:
    """Every hook of a sink reaches those within, and their answers come back."""
    called: list[str] = []

    class Inner(BaseSink):
        kind = "inner"
        prompt = False
        concealment = False

        def report_to(self, incidents: Incidents) -> None:
            called.append("report_to")

        def connect(self, publish: Callable[[StreamEvent], object]) -> None:
            called.append("connect")

        def wait_for_room(self) -> None:
            called.append("wait_for_room")

        def settled(self, stream: StreamInfo) -> bool:
            called.append("settled")
            return False

        def event(self, event: StreamEvent) -> None:
            called.append("event")

        def figures(self, stream: StreamInfo) -> dict[str, Any]:
            return {"inner": 1}

        def files(self, stream: StreamInfo) -> list[str]:
            return ["a.wav"]

        def close(self, timeout_s: float) -> None:
            called.append("close")

        def report(self) -> dict[str, Any]:
            return {
                "kind": "inner", "failed": None, "dropped_frames": 7, "paused": True, "problem": "ENOSPC: full",
                "refused_streams": 2,
            }  # fmt: skip

    inner = Inner()
    muted = MutedSink([inner, LevelMeter()])
    events = make_events()[:40]
    stream = next(e.stream for e in events if isinstance(e, Started))
    dispatcher = Dispatcher([muted])
    assert called == ["report_to", "connect"]
    assert (muted.prompt, muted.concealment, muted.wants_audio) == (False, False, True)
    inner.concealment = True  # a sink may change its mind
    assert muted.concealment is True
    dispatcher.settle()
    assert not dispatcher.settled(stream)
    dispatcher.publish(StreamEvent(stream, "x", 0, 0, 0.0))
    dispatcher.close(5)
    assert called[2:4] == ["wait_for_room", "settled"]
    assert sorted(called[4:]) == ["close", "event"]
    (report,) = dispatcher.reports()
    assert (report["dropped_frames"], report["paused"], report["problem"]) == (7, True, "ENOSPC: full")
    assert report["refused_streams"] == 2
    assert dispatcher.figures(stream)["inner"] == 1
    assert dispatcher.files(stream) == ["a.wav"]


def test_one_of_muted_sinks_raises_and_the_others_go_on(events: list[Event]) -> None:
    alone = LevelMeter()
    clean, _, _ = run(events, MutedSink([alone]))
    wrong = Recording(lambda m, s, n: True)
    dispatcher, _, _ = run(events, MutedSink([wrong, LevelMeter()]))
    for n in range(STREAMS):
        stream = stream_of(events, n)
        assert dispatcher.figures(stream)["level"] == clean.figures(stream)["level"]
    assert dispatcher.reports()[0]["failed"].startswith("ValueError")


# --- problems that come and go ---------------------------------------------------------------------------------------


def test_problems_come_and_go_with_what_sinks_report() -> None:
    now = [0.0]
    problems = SinkProblems(lambda: now[0])
    wav = {"kind": "wav", "failed": None, "refused_streams": 0, "paused": False, "problem": None}
    assert problems([wav]) == []
    assert problems([{**wav, "paused": True, "problem": "ENOSPC: no space left"}]) == [
        "sink wav: ENOSPC: no space left"
    ]
    # it goes on; that there was something stays in "failed"
    assert problems([{**wav, "failed": "ENOSPC: full"}]) == []
    assert problems([{"kind": "dtmf", "failed": "KeyError: x"}]) == ["sink dtmf: KeyError: x"]
    now[0] = 100.0
    assert problems([{**wav, "refused_streams": 3}]) == [
        "sink wav: streams were refused within the last minute, 3 in all"
    ]
    now[0] = 159.0
    assert len(problems([{**wav, "refused_streams": 3}])) == 1
    now[0] = 160.0
    assert problems([{**wav, "refused_streams": 3}]) == []
    assert len(problems([{**wav, "refused_streams": 4}])) == 1


def test_all_of_a_callback_that_blocks_nothing(events: list[Event]) -> None:
    """Ended streams leave nothing behind in what sets them aside."""
    sink = Recording(lambda m, s, n: m == "blocks" and s.index == GUILTY, repeatable=True)
    dispatcher, _, _ = run(events, sink)
    guarded = dispatcher._lanes[0].guarded
    assert not guarded.aside
    assert not guarded._unknown
    assert len([e for e in events if isinstance(e, Ended)]) == STREAMS


@pytest.mark.sockets
def test_the_loop_hears_of_incidents_from_any_thread() -> None:
    async def main() -> list[str]:
        async with strep.Receiver("127.0.0.1:0") as receiver:
            heard: list[str] = []

            async def hear() -> None:
                async for incident in receiver.incidents():
                    heard.append(incident.kind)  # noqa: PERF401  # they are read while they come

            hearing = asyncio.create_task(hear())
            await asyncio.sleep(0)
            await asyncio.to_thread(receiver._incidents.tell, "disk_paused", "no room")
            receiver._incidents.tell("disk_resumed", "room")
        await hearing
        return heard

    assert asyncio.run(main()) == ["disk_paused", "disk_resumed"]
