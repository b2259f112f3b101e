"""Which streams get files, what one's fault costs the others, how long a file may become, what the end leaves."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from captures import record
from depth import one_or_all, usual_or_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import hashes, samples_of
from stopwatch import Stopwatch
from support import LEG, MS, T0, Arrival, batch_of, leg_id, packet, payload_of, pcmu, run, steady

from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine, EngineConfig
from strep._engine.release import Release
from strep._model.blocks import BlockBatch
from strep.sinks import WavSink
from strep.sinks.wav.lanes import WavLanes
from strep.sinks.wav.silence_bound import SLACK_S, SilenceBound, SkippedGaps
from strep.sinks.wav.tree import WavTree

pytestmark = pytest.mark.realtime

SECOND = 1000 * MS


def expected(first: int, count: int) -> np.ndarray:
    return np.concatenate([pcmu(payload_of(k)) for k in range(first, first + count)])


# --- streams that do not last ----------------------------------------------------------------------------------------

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"encoding": "native"},
    {"rate": 16_000},
    {"layout": "stereo"},
    {"layout": "session", "sessions": lambda stream: "s" if stream.call_leg_id == LEG else None},
    {"mute_keys": True},
    {"conceal": True},
]


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize("release_ms", [0, 100, 300])
def test_what_falls_silent_at_once_leaves_nothing(tmp_path: Path, options: dict[str, Any], release_ms: int) -> None:
    """Of streams with 2 to 40 packets those have a file that lasted for half a second; and all of theirs is in it."""
    sink = WavSink(tmp_path / "out", **options)
    engine = Engine(EngineConfig(idle_ns=2 * SECOND), release=Release(release_ms * MS))
    dispatcher = Dispatcher([sink])
    counts = [2, 3, 10, 24, 25, 26, 40]
    arrivals = [a for n, count in enumerate(counts) for a in steady(count, call=leg_id(n + 1))]
    arrivals += [Arrival(T0 + at * MS, packet(k, call=leg_id(20))) for k, at in enumerate((0, 300, 700))]  # slowly
    arrivals += steady(300)  # a call that goes on
    arrivals.sort(key=lambda a: a.ns)
    for begin in range(0, len(arrivals), 50):
        dispatcher.handle(engine.receive(batch_of(arrivals[begin : begin + 50])))
    dispatcher.handle(engine.flush())
    dispatcher.close(20)
    report = sink.report()
    assert (report["failed"], report["dropped_frames"]) == (None, 0)
    assert (report["short_streams"], report["short_frames"]) == (4, (2 + 3 + 10 + 24) * 160)
    lasted = {leg_id(n + 1): counts[n] for n in (4, 5, 6)} | {leg_id(20): 3, LEG: 300}
    found = {r.stream.call_leg_id: sink.files(r.stream) for r in dispatcher.ended}
    assert {call for call, names in found.items() if names} == set(lasted)
    assert all(sink.settled(r.stream) for r in dispatcher.ended)
    files = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert files == {name for names in found.values() for name in names}
    folders = {p.name for p in (tmp_path / "out").iterdir()}
    assert folders == {name.partition("/")[0] for name in files}
    if not options or "encoding" in options:
        for call, count in lasted.items():
            np.testing.assert_array_equal(samples_of(tmp_path / "out" / found[call][0]), expected(0, count))


@pytest.mark.parametrize("options", LAYOUTS)
def test_whoever_is_ended_has_a_file(tmp_path: Path, options: dict[str, Any]) -> None:
    """A call may be as short as it likes: it is ended by us, or by who records it."""
    sink = WavSink(tmp_path / "out", **options)
    engine, dispatcher = Engine(), Dispatcher([sink])
    dispatcher.handle(engine.receive(batch_of([*steady(5), *steady(7, call=leg_id(1))])))
    dispatcher.handle(engine.end([i for i in engine.registry.live() if i.call_leg_id == LEG], "stopped"))
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    assert [len(sink.files(r.stream)) for r in dispatcher.ended] == [1, 1]
    assert (sink.report()["short_streams"], sink.report()["dropped_frames"]) == (0, 0)
    for report in dispatcher.ended:
        rate = options.get("rate", 8000)
        assert soundfile.info(tmp_path / "out" / sink.files(report.stream)[0]).frames == report.samples * rate // 8000


@pytest.mark.parametrize("options", LAYOUTS)
def test_files_are_the_same_as_those_of_streams_that_need_not_last(tmp_path: Path, options: dict[str, Any]) -> None:
    missing = {7, 8, 26, 60}
    arrivals = [
        a for d in (0, 1) for k, a in enumerate(steady(100, direction=d, start_ns=T0 + d * MS)) if k not in missing
    ]
    arrivals += steady(70, call=leg_id(1), start_ns=T0 + 250 * MS)
    record(tmp_path / "at once", arrivals, shortest_s=0.0, **options)
    record(tmp_path / "later", arrivals, **options)
    assert hashes(tmp_path / "at once") == hashes(tmp_path / "later")


def test_without_a_shortest_time_every_stream_has_a_file(tmp_path: Path) -> None:
    record(tmp_path / "out", steady(2) + steady(100, call=leg_id(1)), {"idle_timeout_s": 1}, shortest_s=0)
    assert {p.parent.name for p in (tmp_path / "out").rglob("*.wav")} == {str(LEG), str(leg_id(1))}


def test_one_direction_ends_while_the_other_waits(tmp_path: Path) -> None:
    """One file for both, though the first was over before the second had lasted."""
    sink = WavSink(tmp_path, layout="stereo", drift_correction=False)
    engine, dispatcher = Engine(release=Release(0)), Dispatcher([sink])
    arrivals = [*steady(50), *steady(10, direction=1, start_ns=T0 + 800 * MS)]
    dispatcher.handle(engine.receive(batch_of(sorted(arrivals, key=lambda a: a.ns))))
    dispatcher.handle(engine.end([i for i in engine.registry.live() if i.direction == 0], "stopped"))
    dispatcher.handle(engine.receive(batch_of(steady(40, direction=1, first=10, start_ns=T0 + 1000 * MS))))
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    assert {p.name for p in tmp_path.rglob("*.wav")} == {"a.wav"}
    both = samples_of(tmp_path / str(LEG) / "a.wav")
    np.testing.assert_array_equal(both[: 50 * 160, 0], expected(0, 50))
    np.testing.assert_array_equal(both[6400 : 6400 + 50 * 160, 1], expected(0, 50))


# --- a stream's fault ------------------------------------------------------------------------------------------------


class Guilty:
    """Whatever is done with the blocks of one stream raises, from a block on, for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
        self.call = call
        self.active = False
        write, write_channel, lanes = WavTree.write, WavTree.write_channel, WavLanes.write
        self.fails = lambda stream: self.active and stream.call_leg_id == call

        def one(tree: WavTree, file: Any, data: Any, at: int) -> None:
            if self.active and file.folder == str(call):
                raise ValueError("a bug of ours")
            write(tree, file, data, at)

        def channel(tree: WavTree, file: Any, *arguments: Any) -> None:
            if self.active and file.folder == str(call):
                raise ValueError("a bug of ours")
            write_channel(tree, file, *arguments)

        def together(some: WavLanes, batch: BlockBatch, *arguments: Any) -> Any:
            if any(self.fails(s) for s in batch.streams):
                raise ZeroDivisionError("in all lanes at once")
            return lanes(some, batch, *arguments)

        monkeypatch.setattr(WavTree, "write", one)
        monkeypatch.setattr(WavTree, "write_channel", channel)
        monkeypatch.setattr(WavLanes, "write", together)


@pytest.mark.parametrize("options", LAYOUTS)
def test_a_stream_s_fault_costs_its_own_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """The others' files are those of a run without it; what it lost is counted to the frame, and silent."""
    guilty = Guilty(monkeypatch, leg_id(2))
    frames: dict[bool, int] = {}
    for fails in (False, True):
        sink = WavSink(tmp_path / str(fails), **options)
        engine, dispatcher = Engine(release=Release(20 * MS)), Dispatcher([sink])
        lost = 0
        for step in range(20):
            guilty.active = fails and 8 <= step < 12
            start = T0 + step * 200 * MS
            streams = [steady(10, first=10 * step, start_ns=start, call=leg_id(n)) for n in range(5)]
            events = engine.receive(batch_of([a for together in zip(*streams, strict=True) for a in together]))
            for event in events:
                if isinstance(event, BlockBatch):
                    lost += sum(int(f) for s, f in zip(event.streams, event.frames, strict=True) if guilty.fails(s))
            dispatcher.handle(events)
            while not sink._thread.idle:
                time.sleep(0.001)
        guilty.active = False
        dispatcher.handle(engine.flush())
        dispatcher.close(10)
        report = sink.report()
        frames[fails] = report["dropped_frames"]
        assert (report["failed"], report["problem"], report["refused_streams"]) == (None, None, 0)
        assert dispatcher.incidents.faults().keys() == ({"wav"} if fails else set())
        if not fails:
            assert report["dropped_frames"] == 0
        elif "mute_keys" in options:  # what is held back comes to the disk 0.1 s later
            assert abs(report["dropped_frames"] - lost) <= 800
        else:
            assert report["dropped_frames"] == lost == 40 * 160
    good, bad = hashes(tmp_path / "False"), hashes(tmp_path / "True")
    assert good.keys() == bad.keys()
    assert {name for name in good if good[name] != bad[name]} <= {n for n in good if str(leg_id(2)) in n}
    assert sum(good[name] == bad[name] for name in good) == 4
    (own,) = (name for name in good if good[name] != bad[name])
    right, wrong = samples_of(tmp_path / "False" / own), samples_of(tmp_path / "True" / own)
    assert len(right) == len(wrong)
    assert not wrong[wrong != right].any()


def test_a_stream_whose_file_cannot_be_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = WavTree.create

    def fails(tree: WavTree, directory: str, *arguments: Any) -> Any:
        if directory == str(leg_id(1)):
            raise RuntimeError("a bug of ours")
        return create(tree, directory, *arguments)

    monkeypatch.setattr(WavTree, "create", fails)
    sink = WavSink(tmp_path)
    engine, dispatcher = Engine(), Dispatcher([sink])
    dispatcher.handle(engine.receive(batch_of([a for n in range(3) for a in steady(50, call=leg_id(n))])))
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    report = sink.report()
    assert (report["dropped_frames"], report["refused_streams"], report["files"]) == (50 * 160, 1, 2)
    assert all(sink.settled(r.stream) for r in dispatcher.ended)
    assert dispatcher.incidents.faults() == {"wav": 1}


# --- F9: how long a file may become ----------------------------------------------------------------------------------


def longest(frames: int, there_ns: int) -> int:
    """Frames that a file may have at 8 kHz whose streams brought that many and were there that long."""
    return frames + max(there_ns * 8 // 1_000_000, frames) + (SLACK_S + 3) * 8000


@st.composite
def traffic(draw: st.DrawFn) -> list[Arrival]:
    """Both directions of a leg, by a sender of any timestamps and sequence numbers."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    jumps = draw(st.lists(st.sampled_from([1, -1, 8000, 7999, 80_000, 1 << 30, (1 << 31) - 1, -(1 << 31)]), min_size=1))
    often = draw(st.sampled_from([0.02, 0.3, 1.0]))
    arrivals = []
    for direction in range(draw(st.integers(1, 2))):
        now, timestamp, sequence, ssrc = T0, int(rng.integers(1 << 32)), int(rng.integers(1 << 16)), 7
        for _ in range(draw(st.integers(2, 150))):
            arrivals.append(Arrival(now, packet(sequence, timestamp=timestamp, ssrc=ssrc, direction=direction)))
            now += int(rng.choice([0, 1, 20, 20, 20, 40])) * MS
            timestamp += 160 + (int(rng.choice(jumps)) if rng.random() < often else 0)
            sequence += 1 if rng.random() < 0.8 else int(rng.choice([2, 5, 40, 3000]))
            ssrc += rng.random() < 0.02
    return sorted(arrivals, key=lambda a: a.ns)


@given(traffic(), st.integers(0, 1 << 32))
@settings(max_examples=usual_or_slow(14, 20), deadline=None, suppress_health_check=list(HealthCheck))
def test_no_timestamps_make_a_long_file(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[Arrival], seed: int
) -> None:
    for n, options in enumerate(one_or_all(LAYOUTS, np.random.default_rng(seed))):
        folder = tmp_path_factory.mktemp("long") / str(n)
        replayed = record(folder, arrivals, shortest_s=0, **options)
        reports = replayed.reports()
        there = max((r.last_arrival_ns for r in reports), default=0) - T0
        limit = longest(sum(r.samples - r.gap_samples for r in reports), there)
        for path in folder.rglob("*.wav"):
            info = soundfile.info(path)
            assert info.frames * 8000 // info.samplerate <= limit
            assert path.stat().st_size <= 94 + (limit * info.samplerate // 8000) * 2 * info.channels
        assert replayed.sink_reports()[0]["dropped_frames"] == 0


@pytest.mark.parametrize("options", LAYOUTS)
def test_the_255_datagrams_that_made_8_gigabytes(tmp_path: Path, options: dict[str, Any]) -> None:
    """A second packet 74 hours ahead, then losses: faults.md 8."""
    arrivals = [
        Arrival(T0 + max(k - 1, 0) * 20 * MS, packet(k, timestamp=0x7FFF_FF00 if k == 1 else k * 160))
        for k in range(260)
        if k % 50 != 49
    ]
    record(tmp_path / "out", arrivals, **options)
    (path,) = (tmp_path / "out").rglob("*.wav")
    info = soundfile.info(path)
    assert 250 * 160 <= info.frames * 8000 // info.samplerate <= 260 * 160 + 1600


def test_a_second_ahead_with_each_packet(tmp_path: Path) -> None:
    """What the timeline believes of one packet it must not believe for ever: 50 times as long as the call."""
    arrivals = [Arrival(T0 + k * 20 * MS, packet(k, timestamp=k * 8000)) for k in range(300)]
    for n, options in enumerate(LAYOUTS):
        record(tmp_path / str(n), arrivals, **options)
        for path in (tmp_path / str(n)).rglob("*.wav"):
            info = soundfile.info(path)
            assert info.frames / info.samplerate <= 2 * 6 + SLACK_S + 3
    assert run(arrivals).only()[1].samples > 290 * 8000


def test_who_tells_the_truth_is_never_cut(tmp_path: Path) -> None:
    """DTX with long silences, heavy loss, and both faster than real time: all stands where its timestamps say."""
    slots = [k + 400 * (k // 25) for k in range(200)]
    dtx = [Arrival(T0 + at * 20 * MS, packet(k, timestamp=at * 160)) for k, at in enumerate(slots)]
    lossy = [a for k, a in enumerate(steady(600, call=leg_id(1))) if k % 10 not in (3, 4, 5, 6)]
    fast = [Arrival(T0 + k * MS, packet(k, call=leg_id(2))) for k in range(600) if k < 20 or k % 10 not in (3, 4, 5, 6)]
    record(tmp_path / "out", dtx + lossy + fast)
    folder = tmp_path / "out"
    assert len(samples_of(folder / str(LEG) / "a-inbound.wav")) == (slots[-1] + 1) * 160
    for n in (1, 2):
        samples = samples_of(folder / str(leg_id(n)) / "a-inbound.wav").reshape(-1, 160)
        assert len(samples) == 600
        for k in (0, 19, 100, 599):
            np.testing.assert_array_equal(samples[k], pcmu(payload_of(k)))


# --- the end ---------------------------------------------------------------------------------------------------------


class Crowd:
    """Real streams that have lasted, and strangers that have just begun; what is still to be written, at the end."""

    def __init__(self, folder: Path, real: int, strangers: int) -> None:
        self.sink = WavSink(folder)
        self.engine = Engine(release=Release(20 * MS))
        self.dispatcher = Dispatcher([self.sink])
        self.frames = 0
        for start in range(0, 100, 20):
            self.feed([(n, start, 20) for n in range(real)])
        self.feed([(n, 100, 30) for n in range(real)] + [(n, 100, 30) for n in range(real, real + strangers)])

    def feed(self, streams: list[tuple[int, int, int]]) -> None:
        parts = [steady(c, first=f, start_ns=T0 + f * 20 * MS, call=leg_id(n)) for n, f, c in streams]
        events = self.engine.receive(batch_of([a for together in zip(*parts, strict=True) for a in together]))
        self.frames += sum(int(e.frames.sum()) for e in events if isinstance(e, BlockBatch))
        self.dispatcher.handle(events)

    def end(self, timeout_s: float) -> None:
        events = self.engine.flush()
        self.frames += sum(int(e.frames.sum()) for e in events if isinstance(e, BlockBatch))
        self.dispatcher.handle(events)
        self.dispatcher.close(timeout_s)


def test_those_that_lasted_longest_are_finished_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a file takes 20 ms, as a slow disk does it; there is time for a part of 40 strangers' only."""
    slow = threading.Event()
    make = WavTree._make

    def slowly(tree: WavTree, file: Any) -> None:
        if slow.is_set():
            time.sleep(0.02)
        make(tree, file)

    monkeypatch.setattr(WavTree, "_make", slowly)
    crowd = Crowd(tmp_path, 10, 0)
    while not crowd.sink._thread.idle:
        time.sleep(0.001)
    slow.set()
    crowd.feed([(n, 130, 30) for n in range(10)] + [(n, 130, 30) for n in range(10, 50)])
    crowd.end(0.5)
    names = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.wav")]
    for n in range(10):
        assert f"{leg_id(n)}/a-inbound.wav" in names
        np.testing.assert_array_equal(samples_of(tmp_path / str(leg_id(n)) / "a-inbound.wav"), expected(0, 160))
    report = crowd.sink.report()
    assert 0 < report["refused_streams"] < 40
    written = sum(soundfile.info(tmp_path / name).frames for name in names)
    assert written + report["dropped_frames"] == crowd.frames
    assert report["dropped_frames"] == report["refused_streams"] * 30 * 160


def test_a_call_has_its_file_before_those_who_send_a_packet_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """90 strangers last as long as the call, of two packets each; making a file takes 20 ms."""
    make, made = WavTree._make, []

    def slowly(tree: WavTree, file: Any) -> None:
        time.sleep(0.02)
        make(tree, file)
        made.append(file)

    monkeypatch.setattr(WavTree, "_make", slowly)
    crowd = Crowd(tmp_path, 0, 0)
    arrivals = [Arrival(T0 + at * MS, packet(k, call=leg_id(n))) for k, at in ((0, 0), (1, 700)) for n in range(90)]
    arrivals += steady(30, start_ns=T0 + 400 * MS, call=leg_id(200))
    events = crowd.engine.receive(batch_of(sorted(arrivals, key=lambda a: a.ns)))
    crowd.dispatcher.handle(events + crowd.engine.advance(T0 + 1400 * MS))
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob(f"{leg_id(200)}/*.wav")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert len(made) < 60
    crowd.end(5.0)
    np.testing.assert_array_equal(samples_of(tmp_path / str(leg_id(200)) / "a-inbound.wav"), expected(0, 30))


@pytest.mark.parametrize("hangs", [True, False])
def test_what_is_not_written_at_the_end_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """The disk is too slow, or hangs in a system call: to the frame, and close comes back in time."""
    over = threading.Event()
    write = WavLanes.write

    def slowly(lanes: WavLanes, batch: BlockBatch, *arguments: Any) -> Any:
        over.wait(20 if hangs else 0.1)
        return write(lanes, batch, *arguments)

    crowd = Crowd(tmp_path, 10, 0)
    while not crowd.sink._thread.idle or crowd.sink._writer.waiting_frames:
        time.sleep(0.001)
    on_disk = crowd.sink.report()["dropped_frames"]
    assert on_disk == 0
    monkeypatch.setattr(WavLanes, "write", slowly)
    for start in range(130, 430, 10):
        crowd.feed([(n, start, 10) for n in range(10)])
    watch = Stopwatch()
    crowd.end(0.6)
    assert watch.seconds < 2.0
    report = crowd.sink.report()
    assert report["failed"]
    time.sleep(0.05 if hangs else 0)
    over.set()
    assert crowd.sink._thread._queue.close(100)
    written = sum(soundfile.info(p).frames for p in tmp_path.rglob("*.wav"))
    assert crowd.sink.report()["dropped_frames"] == report["dropped_frames"] > 0
    if hangs:  # what was in the kernel's hands may have been written behind our back
        assert 10 * 100 * 160 <= crowd.frames - report["dropped_frames"] <= written
    else:
        assert written + report["dropped_frames"] == crowd.frames


# --- many calls begin at once -----------------------------------------------------------------------------------------


def _slow_files(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    make = WavTree._make

    def slowly(tree: WavTree, file: Any) -> None:
        time.sleep(seconds)
        make(tree, file)

    monkeypatch.setattr(WavTree, "_make", slowly)


@pytest.mark.parametrize("encoding", ["pcm16", "native"])
def test_many_calls_at_once_lose_nothing_where_files_are_slow_to_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: Any
) -> None:
    """100 streams of 3 s, as a replay hands them over; a file takes 10 ms, a fifth of the audio may wait for one."""
    _slow_files(monkeypatch, 0.01)
    streams, packets, step = 100, 150, 10
    size = 160 if encoding == "native" else 320
    limit = streams * packets * size // 5
    sink = WavSink(tmp_path, queue_bytes=4 * limit, encoding=encoding)
    engine, dispatcher = Engine(release=Release(20 * MS)), Dispatcher([sink])
    highest = 0
    for begin in range(0, packets, step):
        parts = [steady(step, first=begin, start_ns=T0 + begin * 20 * MS, call=leg_id(n)) for n in range(streams)]
        dispatcher.handle(engine.receive(batch_of([a for row in zip(*parts, strict=True) for a in row])))
        sink.wait_for_room()
        highest = max(highest, sink._pending.size)
    dispatcher.handle(engine.flush())
    dispatcher.close(60)
    assert sink.report()["dropped_frames"] == 0
    assert highest <= limit
    for n in range(streams):
        assert soundfile.info(tmp_path / str(leg_id(n)) / "a-inbound.wav").frames == packets * 160
    samples = samples_of(tmp_path / str(leg_id(streams - 1)) / "a-inbound.wav")
    np.testing.assert_array_equal(samples, expected(0, packets))


def test_calls_that_have_files_go_on_while_a_few_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two batches files are made for 50 ms when most streams have one, for 0.4 s when none has."""
    crowd = Crowd(tmp_path, 20, 0)
    while not crowd.sink._thread.idle:
        time.sleep(0.001)
    thread = crowd.sink._thread
    writer = crowd.sink._writer
    assert (thread._turns(), writer.share_without_file) == (1, 0.0)
    monkeypatch.setattr(crowd.sink._writer.files, "work", lambda until: None)
    crowd.feed([(n, 130, 30) for n in range(20, 22)])
    while thread._queue._items or thread._queue._working:
        time.sleep(0.001)
    assert writer.share_without_file == 2 / 22
    assert thread._turns() == 2
    writer._tracks.clear()
    assert (writer.share_without_file, thread._turns()) == (1.0, 8)


# --- a disk that hangs under lossy traffic ---------------------------------------------------------------------------


def test_a_disk_that_hangs_costs_no_more_memory_the_longer_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of batches that there is no room for only gaps are kept, a row a stream; what is written later stands right."""
    hanging = threading.Event()
    sink = WavSink(tmp_path, queue_bytes=100_000, shortest_s=0)
    write = sink._writer.write

    def hang(*arguments: Any) -> None:
        assert hanging.wait(60)
        write(*arguments)

    monkeypatch.setattr(sink._writer, "write", hang)
    dispatcher, engine = Dispatcher([sink]), Engine()
    engine.release_ns = 20 * MS
    streams, packets = 5, 3000  # a minute, every third packet is missing
    queued = []
    for begin in range(0, packets, 10):
        parts = [steady(10, first=begin, start_ns=T0 + begin * 20 * MS, call=leg_id(n)) for n in range(streams)]
        together = [a for row in zip(*parts, strict=True) for a in row]
        kept = [a for k, a in enumerate(together) if (begin + k // streams) % 3 != 1 or begin + k // streams < 4]
        dispatcher.handle(engine.receive(batch_of(kept)) + engine.advance(kept[-1].ns + 19 * MS))
        queued.append(len(sink._thread._queue))
    assert queued[-1] == queued[30]  # what comes does not add to it
    skipped = [job for job, _ in sink._thread._queue._items if isinstance(job, SkippedGaps)]
    assert sum(len(gaps) for gaps in skipped) <= streams * len(skipped)
    assert len(skipped) <= len(queued) // 10
    hanging.set()
    while not sink._thread.idle:
        time.sleep(0.001)
    for begin in range(packets, packets + 100, 10):
        parts = [steady(10, first=begin, start_ns=T0 + begin * 20 * MS, call=leg_id(n)) for n in range(streams)]
        dispatcher.handle(engine.receive(batch_of([a for row in zip(*parts, strict=True) for a in row])))
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    for n in range(streams):
        samples = samples_of(tmp_path / str(leg_id(n)) / "a-inbound.wav").reshape(-1, 160)
        assert len(samples) == packets + 100
        for k in (0, packets, packets + 99):
            np.testing.assert_array_equal(samples[k], pcmu(payload_of(k)))


@pytest.mark.parametrize("lost", [range(10, 11), range(10, 20), range(10, 28)])
def test_gaps_of_lost_batches_count_as_silence(lost: range) -> None:
    """A sender is a second ahead with each packet. No batch is lost, or some are: of silence there is as much."""
    engine, lossless, lossy = Engine(), SilenceBound(), SilenceBound()
    arrivals = [Arrival(T0 + k * 20 * MS, packet(k, timestamp=k * 8000)) for k in range(300)]
    events = [e for a in arrivals for e in engine.receive(batch_of([a]))] + engine.flush()
    batches = [e for e in events if isinstance(e, BlockBatch)]
    assert len(batches) > lost.stop
    gaps = SkippedGaps()
    for n, batch in enumerate(batches):
        expected = lossless.apply(batch).position.tolist()
        if n in lost:
            assert gaps.add(batch)
            assert len(gaps) == 1  # one stream
            if n == lost[-1]:
                lossy.skip(gaps.take())
                assert not gaps.add(batch)  # then others are needed
        else:
            assert lossy.apply(batch).position.tolist() == expected
    assert lossy.cut_frames == lossless.cut_frames > 200 * 8000
