"""Arrays, callbacks and the level meter; and what sinks that fail do to the others: nothing."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import hashes, listening, run_on, send_paced, until
from stopwatch import Stopwatch
from support import MS, T0, Arrival, batch_of, leg_id, packet, payload_of, pcmu, steady

import strep
import strep._delivery.dispatcher
from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine
from strep._engine.release import Release
from strep.sinks import ArraySink, BaseSink, BatchCallbackSink, CallbackSink, LevelMeter, WavSink

ALL = np.concatenate([pcmu(payload_of(k)) for k in range(100)])


def feed(sinks: list[Any], arrivals: list[Arrival], *, end: bool = True, step: int = 25) -> list[strep.StreamInfo]:
    engine = Engine(release=Release(40 * MS))
    dispatcher = Dispatcher(sinks)
    arrivals = sorted(arrivals, key=lambda a: a.ns)
    for begin in range(0, len(arrivals), step):
        dispatcher.handle(engine.receive(batch_of(arrivals[begin : begin + step])))
    live = engine.registry.live()
    dispatcher.handle(engine.flush() if end else engine.advance(arrivals[-1].ns + 1000 * MS))
    dispatcher.close(5)
    return live


MISSING = {40, 41}
lossy = [a for k, a in enumerate(steady(100)) if k not in MISSING]
GAPPED = np.concatenate([pcmu(payload_of(k)) * (k not in MISSING) for k in range(100)])


# --- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_everything_of_a_stream(dtype: str) -> None:
    sink = ArraySink(dtype=dtype)  # type: ignore[arg-type]
    (stream,) = feed([sink], lossy)
    view = sink.get(stream)
    wanted = GAPPED if dtype == "int16" else (GAPPED / np.float32(32768)).astype(np.float32)
    np.testing.assert_array_equal(view.samples, wanted)
    assert (view.samples.dtype, view.position, view.rate) == (np.dtype(dtype), 0, 8000)
    assert np.flatnonzero(~view.received).tolist() == list(range(40 * 160, 42 * 160))
    assert view.mask is view.received  # an older name
    np.testing.assert_array_equal(view.received, view.marks == strep.Mask.RECEIVED)
    sink.forget(stream)
    assert sink.get(stream).samples.shape == (0,)
    assert sink.report()["bytes"] == 0


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.23, 60])
def test_the_last_seconds(seconds: float) -> None:
    sink = ArraySink(seconds)
    (stream,) = feed([sink], lossy)
    view = sink.get(stream)
    kept = min(round(8000 * seconds), 16_000)
    assert view.position == 16_000 - kept
    np.testing.assert_array_equal(view.samples, GAPPED[-kept:])
    np.testing.assert_array_equal(view.mask, (np.arange(16_000) // 160 // 2 != 20)[-kept:])


def test_memory_is_bounded_and_what_does_not_fit_is_counted() -> None:
    sink = ArraySink(max_bytes=40_000)
    (stream,) = feed([sink], steady(1000))
    report = sink.report()
    assert report["bytes"] <= 40_000
    view = sink.get(stream)
    assert len(view.samples) + report["dropped_frames"] == 160_000
    with pytest.raises(strep.ConfigurationError):
        ArraySink(0)
    with pytest.raises(strep.ConfigurationError):
        ArraySink(dtype="int8")  # type: ignore[arg-type]


# --- callbacks -------------------------------------------------------------------------------------------------------


def test_callbacks_see_streams_begin_go_on_and_end() -> None:
    seen: list[Any] = []
    sink = CallbackSink(
        on_block=lambda block: seen.append((block.stream.serial, block.position, block.samples.copy(), block.gap)),
        on_started=lambda stream: seen.append(("started", stream.call_leg_id)),
        on_ended=lambda stream, report: seen.append(("ended", stream.call_leg_id, report.packets_lost)),
    )
    feed([sink], lossy)
    assert seen[0] == ("started", leg_id(0))
    assert seen[-1] == ("ended", leg_id(0), 2)
    blocks = seen[1:-1]
    audio = np.zeros(16_000, np.int16)
    for _, position, samples, _ in blocks:
        audio[position : position + len(samples)] = samples
    np.testing.assert_array_equal(audio, GAPPED)
    assert [gap for *_, gap in blocks if gap] == [strep.Gap(320, strep.GapCause.LOSS)]


def test_a_batch_holds_the_blocks_of_all_streams() -> None:
    batches: list[strep.BlockBatch] = []
    feed([BatchCallbackSink(batches.append)], [a for n in range(50) for a in steady(100, call=leg_id(n))], step=1250)
    assert max(len(b) for b in batches) >= 50
    for b in batches:
        assert len(b.samples) == b.offset[-1] == b.frames.sum()
        assert len(b.streams) == len(b.index) == len(b.position) == len(b.gap_frames) == len(b)
        assert b.packet_frames.sum() == b.frames.sum()
        assert b.payload_offset[-1] == len(b.payload)
        for block in b:
            wanted = ALL[block.position : block.position + len(block.samples)]
            np.testing.assert_array_equal(block.samples, wanted)


# --- level -----------------------------------------------------------------------------------------------------------


def tones(levels: list[float], seconds: float = 1.0) -> list[Arrival]:
    """A stream per amplitude, 1 kHz as L16 at 16 kHz."""
    n = round(seconds * 50)
    t = np.arange(n * 320) / 16_000
    out = []
    for number, amplitude in enumerate(levels):
        samples = np.rint(amplitude * np.sin(2 * np.pi * 1000 * t)).clip(-32_768, 32_767).astype(">i2")
        for k in range(n):
            payload = samples[320 * k : 320 * (k + 1)].tobytes()
            data = packet(k, call=leg_id(number), payload=payload, timestamp=320 * k, payload_type=96)
            out.append(Arrival(T0 + 20 * k * MS, data))
    return out


def test_levels_of_sines() -> None:
    from strep._codecs.payload_types import PayloadTypes
    from strep._engine.engine import EngineConfig

    amplitudes = [32_767.0, 3276.7, 327.67, 30.0, 0.0, 40_000.0]
    meter = LevelMeter()
    engine, dispatcher = Engine(EngineConfig(payload_types=PayloadTypes({96: "L16/16000"}))), Dispatcher([meter])
    dispatcher.handle(engine.receive(batch_of(sorted(tones(amplitudes), key=lambda a: a.ns), width=1024)))
    streams = {s.call_leg_id: s for s in engine.registry.live()}
    dispatcher.handle(engine.flush())
    dispatcher.close(5)
    found = [meter.snapshot(streams[leg_id(n)]) for n in range(len(amplitudes))]
    for amplitude, levels in zip(amplitudes[:4], found, strict=False):
        assert levels is not None
        # full scale is 32,768; a sine's RMS is 3.01 dB below its peak
        peak = 20 * np.log10(amplitude / 32_768)
        assert levels.peak_dbfs == pytest.approx(peak, abs=0.3)
        assert levels.rms_dbfs == pytest.approx(peak - 3.01, abs=0.3)
    quiet, silent, clipped = found[3:]
    assert quiet is not None
    assert silent is not None
    assert clipped is not None
    assert (silent.rms_dbfs, silent.peak_dbfs) == (-120, -120)
    for levels in (quiet, silent):
        assert levels.silent_s == pytest.approx(1)
        assert levels.silence_now_s == pytest.approx(1)
    assert found[0] is not None
    assert (found[0].silent_s, found[0].active_s) == (0, pytest.approx(1))
    # above full scale for acos(32768/40000) / (pi/2) of the time
    share = np.arccos(32_767 / 40_000) / (np.pi / 2)
    assert clipped.clipped == pytest.approx(16_000 * share, rel=0.05)
    columns = meter.levels()
    order = np.argsort(columns["serial"])
    np.testing.assert_allclose(columns["rms_dbfs"][order], [f.rms_dbfs for f in found if f])


def test_a_row_that_another_stream_took_is_not_mixed_up() -> None:
    meter = LevelMeter()
    first = feed([meter], steady(50))
    second = feed([meter], steady(50, call=leg_id(3)))
    assert first[0].index == second[0].index
    assert meter.snapshot(second[0]) is not None


# --- sinks that fail: faults.md 27 and 28 -----------------------------------------------------------------------------


class Slow(BaseSink):
    kind = "slow"

    def __init__(self) -> None:
        self.frames = 0

    def blocks(self, batch: strep.BlockBatch) -> None:
        time.sleep(0.03)
        self.frames += int(batch.frames.sum())


class Raising(BaseSink):
    kind = "raising"

    def __init__(self, inline: bool, after: int = 2) -> None:
        self.inline = inline
        self.left = after

    def blocks(self, batch: strep.BlockBatch) -> None:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("as tests do")


class Hanging(BaseSink):
    kind = "hanging"

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def blocks(self, batch: strep.BlockBatch) -> None:
        self.let_go.wait()


class HangingClose(Hanging):
    kind = "hanging-close"

    def blocks(self, batch: strep.BlockBatch) -> None: ...

    def close(self, timeout_s: float) -> None:
        self.let_go.wait()


@pytest.mark.sockets
def test_sinks_that_are_slow_raise_or_hang_cost_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(strep._delivery.lane, "QUEUE_BYTES", 60_000)
    datagrams = [packet(k, call=leg_id(n)) for k in range(400) for n in range(4)]

    async def main(folder: Path, sinks: list[Any]) -> tuple[strep.Receiver, float]:
        receiver = strep.Receiver("127.0.0.1:0", sinks=[WavSink(folder), *sinks])
        await receiver.start()
        await send_paced(listening(receiver), datagrams, chunk=80)
        await until(lambda: receiver.totals().datagrams == len(datagrams))
        watch = Stopwatch()
        await receiver.stop()
        return receiver, watch.seconds

    clean, _ = run_on("asyncio", main(tmp_path / "clean", []))
    slow, hanging, hanging_close = Slow(), Hanging(), HangingClose()
    troubled = [slow, Raising(True), Raising(False), hanging, hanging_close, Raising(True, 0)]
    receiver, took = run_on("asyncio", main(tmp_path / "troubled", troubled))
    assert took <= 5
    assert hashes(tmp_path / "troubled") == hashes(tmp_path / "clean")
    assert len(hashes(tmp_path / "clean")) == 4
    totals = [r.totals() for r in (clean, receiver)]
    assert [(t.delivered, t.unaccounted, t.kernel_dropped) for t in totals] == [(1600, 0, 0)] * 2
    reports = receiver.sink_reports()
    assert (reports[0]["failed"], reports[0]["dropped_frames"]) == (None, 0)
    # the slow one's own loss is counted to the frame
    assert reports[1]["dropped_frames"] + slow.frames == 1600 * 160
    assert reports[1]["dropped_frames"] > 0
    for i in (2, 3, 6):
        assert reports[i]["failed"] == "RuntimeError: as tests do"
    assert "did not finish" in reports[4]["failed"]
    assert "did not finish" in reports[5]["failed"]
    assert caplog.text.count("gets no more data") == 3
    for sink in (hanging, hanging_close):
        sink.let_go.set()


class Wrong(BaseSink):
    """Fails wherever else it is called."""

    kind = "wrong"

    def stream_started(self, stream: strep.StreamInfo) -> None:
        raise ValueError("started")

    def close(self, timeout_s: float) -> None:
        raise ValueError("close")

    def report(self) -> dict[str, Any]:
        raise ValueError("report")

    def files(self, stream: strep.StreamInfo) -> list[str]:
        raise ValueError("files")


@pytest.mark.sockets
def test_a_sink_may_fail_in_every_call(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> dict[str, Any]:
        async with strep.Receiver("127.0.0.1:0", sinks=[Wrong(), ArraySink()]) as receiver:
            await send_paced(listening(receiver), [packet(k) for k in range(20)])
            await until(lambda: receiver.totals().datagrams == 20)
        return receiver.summary()

    summary = run_on("asyncio", main())
    assert [bool(s["failed"]) for s in summary["sinks"]] == [True, False]
    assert summary["streams"][0]["files"] == []
