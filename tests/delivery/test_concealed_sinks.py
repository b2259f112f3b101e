"""Who wants gaps concealed gets them so, who does not does not; each gap is concealed once."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import capture_file
from commands import strep_command
from live import listening, run_on, samples_of, send_paced, until
from support import MS, T0, Arrival, batch_of, packet, payload_of, pcmu, steady

import strep
from strep import BlockBatch, ConfigurationError, Mask
from strep._delivery.conceal import Concealer
from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine
from strep._engine.release import Release
from strep.sinks import ArraySink, BaseSink, WavSink

MISSING = {20, 21, 33, *range(40, 45)}
GONE = [k for k in range(60) if k in MISSING]
AUDIO = np.concatenate([pcmu(payload_of(k)) * (k not in MISSING) for k in range(60)])
MARKS = np.repeat([k not in MISSING for k in range(60)], 160).astype(np.uint8)
for first, count in ((20, 320), (33, 160), (40, 480)):
    MARKS[160 * first : 160 * first + count] = Mask.CONCEALED
LOSSY = [a for k, a in enumerate(steady(60)) if k not in MISSING]


class Counting(Concealer):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[BlockBatch] = []

    def fill(self, batch: BlockBatch) -> BlockBatch:
        self.seen.append(batch)
        return super().fill(batch)


class Keeping(BaseSink):
    def __init__(self, concealment: bool, inline: bool = False) -> None:
        self.concealment = concealment
        self.inline = inline
        self.got: list[BlockBatch] = []
        self.threads: set[int] = set()

    def blocks(self, batch: BlockBatch) -> None:
        self.got.append(batch)
        self.threads.add(threading.get_ident())


def feed(sinks: list[Any], concealer: Concealer, arrivals: list[Arrival] = LOSSY) -> list[strep.StreamInfo]:
    engine = Engine(release=Release(40 * MS))
    dispatcher = Dispatcher(sinks, concealer=concealer)
    for begin in range(0, len(arrivals), 4):
        dispatcher.handle(engine.receive(batch_of(arrivals[begin : begin + 4])))
    live = engine.registry.live()
    dispatcher.handle(engine.flush())
    dispatcher.close(5)
    assert not any(report["failed"] for report in dispatcher.reports())
    return live


def test_each_batch_is_filled_once_and_in_order_for_all_who_want_it() -> None:
    plain, first, second = Keeping(False, inline=True), Keeping(True), Keeping(True)
    concealer = Counting()
    feed([plain, first, second], concealer)
    assert concealer.seen == plain.got
    assert first.got == second.got == [b.filled for b in plain.got]
    assert threading.get_ident() not in first.threads
    audio = np.concatenate([b.samples for b in first.got])
    mask = np.concatenate([b.mask for b in first.got])
    assert np.array_equal(mask, MARKS)
    assert not any(b.gap_frames.any() for b in first.got)
    assert np.abs(audio[160 * 20 : 160 * 22]).max() > 500
    assert sum(int(b.gap_frames.sum()) for b in plain.got) == 160 * len(GONE)
    # what has no gap is not copied
    assert any(b.filled is b for b in plain.got)
    assert any(b.filled is not b for b in plain.got)


def test_nobody_wants_it_nothing_is_done() -> None:
    plain, concealer = Keeping(False), Counting()
    feed([plain, ArraySink()], concealer)
    assert concealer.seen == []
    assert all(b.fill is None and b.filled is b for b in plain.got)


def test_arrays(tmp_path: Path) -> None:
    plain, concealed, last = ArraySink(), ArraySink(conceal=True), ArraySink(seconds=0.5, conceal=True)
    (stream,) = feed([plain, concealed, last], Concealer())
    view = plain.get(stream)
    assert np.array_equal(view.samples, AUDIO)
    assert np.array_equal(view.marks, np.where(MARKS == Mask.RECEIVED, Mask.RECEIVED, Mask.LOST))
    better = concealed.get(stream)
    assert np.array_equal(better.marks, MARKS)
    assert np.array_equal(better.mask, view.mask)
    assert not better.samples[MARKS == Mask.LOST].any()
    assert np.abs(better.samples[MARKS == Mask.CONCEALED]).max() > 500
    short = last.get(stream)
    assert np.array_equal(short.marks, MARKS[-4000:])
    assert np.array_equal(short.samples, better.samples[-4000:])


def test_arrays_tell_silence_from_loss() -> None:
    arrivals = [Arrival(T0 + 20 * MS * (k + 5 * (k >= 10)), packet(k, timestamp=160 * (k + 5 * (k >= 10))))
                for k in range(20)]  # fmt: skip
    sink = ArraySink()
    (stream,) = feed([sink], Concealer(), arrivals)
    marks = sink.get(stream).marks
    assert np.flatnonzero(marks == Mask.SILENCE).tolist() == list(range(1600, 2400))
    assert np.bincount(marks, minlength=4).tolist() == [0, 3200, 0, 800]


@pytest.mark.parametrize("options", [{}, {"layout": "stereo"}, {"rate": 16_000}])
def test_wav_files(tmp_path: Path, options: dict[str, Any]) -> None:
    plain = WavSink(tmp_path / "plain", **options)
    concealed = WavSink(tmp_path / "concealed", conceal=True, **options)
    memory = ArraySink(conceal=True)
    (stream,) = feed([plain, concealed, memory], Concealer())
    (a,), (b,) = ([samples_of(p) for p in (tmp_path / n).rglob("*.wav")] for n in ("plain", "concealed"))
    assert a.shape == b.shape
    times = options.get("rate", 8000) // 8000
    if times == 1:
        left = (lambda x: x[:, 0]) if a.ndim > 1 else (lambda x: x)
        assert np.array_equal(left(a), AUDIO)
        assert np.array_equal(left(b), memory.get(stream).samples)
    hole = slice(160 * 20 * times + 40, 160 * 22 * times - 40)
    assert np.abs(a[hole]).max() < np.abs(b[hole]).max() / 4


def test_native_files_hold_what_came() -> None:
    with pytest.raises(ConfigurationError, match="pcm16"):
        WavSink("unused", encoding="native", conceal=True)


def test_the_option(tmp_path: Path) -> None:
    path = capture_file(tmp_path / "a.pcap", LOSSY)
    done = strep_command("replay", path, "--out", tmp_path / "out", "--conceal")
    assert done.returncode == 0, done.stderr
    sink = ArraySink(conceal=True)
    (report,) = strep.replay(path, sinks=[sink]).reports()
    (file,) = (tmp_path / "out").rglob("*.wav")
    assert np.array_equal(samples_of(file), sink.get(report.stream).samples)
    wrong = strep_command("replay", path, "--out", tmp_path / "b", "--conceal", "--encoding", "native")
    assert wrong.returncode == 2
    assert "pcm16" in wrong.stderr


@pytest.mark.sockets
def test_frames_and_blocks_of_streams() -> None:
    """Side by side: one consumer wants it, others do not."""

    async def main() -> None:
        tasks: list[asyncio.Task[Any]] = []

        async def collect(source: Any) -> list[Any]:
            return [item async for item in source]

        async def follow() -> None:
            async for stream in receiver:
                tasks.extend(
                    asyncio.create_task(collect(source))
                    for source in (
                        stream.frames(conceal=True),
                        stream.frames(),
                        stream.blocks(conceal=True),
                        stream.blocks(),
                        stream.frames(conceal=True, rate=16_000, dtype="float32", ms=10),
                    )
                )

        memory = ArraySink(conceal=True)
        async with strep.Receiver("127.0.0.1:0", latency_ms=40, sinks=[memory]) as receiver:
            follower = asyncio.create_task(follow())
            await send_paced(listening(receiver), [packet(k) for k in range(8)])
            await until(lambda: receiver._hub._concealing == 3)  # all listen
            await send_paced(listening(receiver), [packet(k) for k in range(8, 60) if k not in MISSING], chunk=8)
            await until(lambda: receiver.totals().datagrams == 60 - len(MISSING))
        await follower
        concealed, plain, filled, blocks, wide = [await task for task in tasks]
        wanted = memory.get(receiver.reports()[0].stream)
        assert np.array_equal(np.concatenate([f.samples for f in concealed]), wanted.samples)
        assert {k for k, f in enumerate(concealed) if f.mask is not None} == MISSING
        assert np.array_equal(np.concatenate([f.mask for f in concealed if f.mask is not None]),
                              np.concatenate([MARKS[160 * k : 160 * (k + 1)] for k in GONE]))  # fmt: skip
        assert not any(f.gap for f in concealed)
        assert [f.position for f in concealed] == [f.rtp_timestamp for f in concealed] == list(range(0, 9600, 160))
        # who comes second begins with what comes then
        late = plain[0].position
        assert late <= 160 * 8
        assert np.array_equal(np.concatenate([f.samples for f in plain]), AUDIO[late:])
        assert {f.position // 160 for f in plain if f.gap} == MISSING
        assert all(f.mask is not None and not f.mask.any() for f in plain if f.gap)
        assert np.array_equal(np.concatenate([b.samples for b in filled]), wanted.samples[late:])
        assert np.array_equal(np.concatenate([b.mask for b in filled]), MARKS[late:])
        assert not any(b.gap for b in filled)
        assert all((b.mask == Mask.RECEIVED).all() and len(b.mask) == len(b.samples) for b in blocks)
        assert sum(b.gap.samples for b in blocks if b.gap) == 160 * len(GONE)
        masks = [np.full(160, Mask.RECEIVED) if f.mask is None else f.mask for f in wide]
        assert np.array_equal(np.concatenate(masks)[::2], MARKS[wide[0].position // 2 :])
        assert {f.samples.dtype for f in wide} == {np.dtype(np.float32)}

    run_on("asyncio", main())


@pytest.mark.sockets
def test_who_stops_listening_costs_nothing_any_more() -> None:
    async def main() -> None:
        async with strep.Receiver("127.0.0.1:0", latency_ms=0) as receiver:
            streams = aiter(receiver)
            waiting = asyncio.ensure_future(anext(streams))
            await send_paced(listening(receiver), [packet(k) for k in range(20)])
            stream = await waiting
            assert receiver._hub.concealment is False
            frames = stream.frames(conceal=True)
            await anext(frames)
            assert receiver._hub.concealment == "later"
            await frames.aclose()
            assert receiver._hub.concealment is False

    run_on("asyncio", main())
