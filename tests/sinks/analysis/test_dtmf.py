"""DTMF in audio: every digit once, where and as long as it was; nothing else; and gone from the audio on request."""

from __future__ import annotations

import subprocess
import sys
import wave
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from block_batches import Part, batch_of_blocks, stream
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from keypad import F64, HIGH, I16, KEYS, LOW, RATE, digit, frequencies, int16, listen, silence, through_g711
from programs import needs
from support import T0, Arrival, batch_of, packet, pcmu, run, steady

import strep
from strep._edge.pcap import PcapWriter
from strep._model.blocks import BlockBatch
from strep._model.redacted import REDACTED, redacted
from strep._model.types import StreamEvent, StreamInfo
from strep.sinks import ArraySink, DtmfDetector, LevelMeter, MutedSink, SpeechMeter, WavSink
from strep.sinks.muting import KeyMuter


def heard(audio: Sequence[I16], **options: object) -> list[list[StreamEvent]]:
    events: list[StreamEvent] = []
    listen(audio, DtmfDetector(events.append), **options)  # type: ignore[arg-type]
    return [[e for e in events if e.stream.index == row] for row in range(len(audio))]


def digits(events: list[StreamEvent]) -> str:
    return "".join(e.data["digit"] for e in events)


def count(audio: F64) -> int:
    return len(heard([int16(audio)])[0])


# --- what must be heard -----------------------------------------------------------------------------------------------


def test_all_digits_at_minus_25_dbm0_with_noise_and_1_5_percent_off() -> None:
    """Through µ-law, 20 dB over white noise: once each, begin and length to 20 ms (5 ms, in fact)."""
    rng = np.random.default_rng(1)
    audio, truth = [], []
    for key in KEYS:
        for off in [(a, b) for a in (-1.5, 0, 1.5) for b in (-1.5, 0, 1.5)]:
            parts, marks, at = [silence(0.2)], [], 0.2
            for seconds in rng.permutation([0.05, 0.08, 0.12, 0.2]):
                parts += [digit(key, seconds, dbm0=-25, off=off), silence(0.045)]
                marks.append((at, seconds))
                at += round(seconds * RATE) / RATE + 0.045
            x = np.concatenate([*parts, silence(0.3)])
            noise = 10 ** ((-25 - 20 - 3.17 - 3.01) / 20)
            audio.append(through_g711(int16(x + rng.normal(0, noise, len(x)))))
            truth.append((key, marks))
    for events, (key, marks) in zip(heard(audio), truth, strict=True):
        assert digits(events) == 4 * key
        for event, (begin, seconds) in zip(events, marks, strict=True):
            assert event.position / RATE == pytest.approx(begin, abs=0.005)
            assert event.duration_s == pytest.approx(seconds, abs=0.006)
            assert event.data["level_dbm0"] == pytest.approx(-25, abs=0.5)
            assert event.data["source"] == "inband"
            assert event.time_ns == pytest.approx(T0 + begin * 1e9, abs=5e6)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"seconds": 0.040}, 1), ({"seconds": 0.023}, 0),  # Q.24: accept from 40 ms on, not below 23
        ({"off": (1.5, -1.5)}, 1), ({"off": (3.5, 0)}, 0), ({"off": (0, 3.5)}, 0),
        ({"off": (-3.5, 0)}, 0), ({"off": (0, -3.5)}, 0),
        ({"twist": 4}, 1), ({"twist": -8}, 1), ({"twist": 7}, 0), ({"twist": -11}, 0),
        ({"dbm0": 0}, 1), ({"dbm0": -30}, 1), ({"dbm0": -45}, 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", "15C#")
def test_limits(key: str, options: dict[str, object], found: int) -> None:
    tone = digit(key, **{"seconds": 0.1, **options})  # type: ignore[arg-type]
    assert count(np.concatenate([silence(0.1), tone, silence(0.2)])) == found


@pytest.mark.parametrize(("pause", "found"), [(0.01, 1), (0.02, 1), (0.04, 2), (0.05, 2), (0.1, 2)])
def test_pauses(pause: float, found: int) -> None:
    """Up to 20 ms is an interruption, from 40 ms on it is the same key twice."""
    for shift in range(0, 80, 7):
        x = [np.zeros(800 + shift), digit("7", 0.08), silence(pause), digit("7", 0.06), silence(0.2)]
        events = heard([int16(np.concatenate(x))])[0]
        assert len(events) == found
        assert sum(e.duration_s for e in events) == pytest.approx(0.14 + (pause if found == 1 else 0), abs=0.012)


def test_one_key_right_after_another() -> None:
    x = np.concatenate([digit(k, 0.06) for k in "159D"] + [silence(0.2)])
    assert digits(heard([int16(x)])[0]) == "159D"


def test_single_tones_harmonics_and_noise_are_none() -> None:
    t = np.arange(RATE) / RATE
    rng = np.random.default_rng(2)
    for f in (*LOW, *HIGH, 440):
        assert count(0.2 * np.sin(2 * np.pi * f * t)) == 0
    assert count(rng.normal(0, 0.1, 10 * RATE)) == 0
    rich = digit("1", 1.0) + sum(0.06 * np.sin(2 * np.pi * 2 * f * t) for f in frequencies("1"))
    assert count(rich) == 0


def test_other_rates() -> None:
    for rate in (16_000, 48_000):
        x = np.concatenate([np.zeros(rate // 5), digit("8", 0.1, rate=rate), np.zeros(rate // 2)])
        (event,) = heard([int16(x)], rate=rate)[0]
        assert event.data["digit"] == "8"
        assert event.position / rate == pytest.approx(0.2, abs=0.005)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(1, 9599), max_size=30))
def test_how_audio_is_cut_makes_no_difference(cuts: set[int]) -> None:
    x = int16(np.concatenate([silence(0.05), digit("3", 0.1), silence(0.06), digit("3", 0.05), silence(0.94)]))
    assert [(e.position, e.duration_s, e.data) for e in heard([x], cuts=sorted(cuts))[0]] == [
        (e.position, e.duration_s, e.data) for e in heard([x])[0]
    ]


def test_a_digit_at_the_very_end_or_before_a_gap_is_told() -> None:
    sink_events: list[StreamEvent] = []
    sink = DtmfDetector(sink_events.append)
    info = stream(0)
    sink.stream_started(info)
    x = int16(digit("4", 0.1))
    sink.blocks(
        batch_of_blocks([Part(info, 0, 0, x), Part(info, 24_000, 23_200, x), Part(info, 48_000, 23_200, x[:200])])
    )
    sink.stream_ended(info, None)  # type: ignore[arg-type]
    assert [e.position for e in sink_events] == [0, 24_000]
    assert all(e.duration_s == pytest.approx(0.1, abs=0.012) for e in sink_events)


# --- together with RFC 4733 -------------------------------------------------------------------------------------------


def rfc4733(info: StreamInfo, key: str, position: int, seconds: float = 0.1) -> StreamEvent:
    data = {"digit": key, "source": "rfc4733", "level_dbm0": -10}
    return StreamEvent(info, "dtmf", position, 0, seconds, data)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_key_seen_both_ways_is_told_once(when: str) -> None:
    """The event may come before the tone's end is heard, or up to 100 ms of audio after it."""
    told: list[StreamEvent] = []
    sink = DtmfDetector(told.append)
    info = stream(0)
    sink.stream_started(info)
    x = int16(np.concatenate([silence(0.1), digit("5", 0.1), silence(0.3), digit("6", 0.1), silence(0.4)]))
    event = rfc4733(info, "5", 1000)
    if when == "before":
        sink.event(event)
    sink.blocks(batch_of_blocks([Part(info, 0, 0, x[:2300])]))
    if when == "after":
        sink.event(event)
    sink.blocks(batch_of_blocks([Part(info, 2300, 0, x[2300:])]))
    sink.stream_ended(info, None)  # type: ignore[arg-type]
    assert digits(told) == "6"
    assert sink.figures(info)["dtmf"]["digits"] == "56"
    assert [e["source"] for e in sink.figures(info)["dtmf"]["events"]] == ["rfc4733", "inband"]


def test_another_key_or_another_time_is_not_the_same() -> None:
    told: list[StreamEvent] = []
    sink = DtmfDetector(told.append)
    info = stream(0)
    sink.stream_started(info)
    sink.event(rfc4733(info, "5", 0))
    sink.event(rfc4733(info, "6", 4000))
    x = np.concatenate([silence(0.5), digit("5", 0.1), silence(0.5)])
    sink.blocks(batch_of_blocks([Part(info, 0, 0, int16(x))]))
    assert digits(told) == "5"
    assert sink.digits(info) == "565"


def test_redaction_leaves_no_digit_anywhere() -> None:
    told: list[StreamEvent] = []
    sink = DtmfDetector(told.append, redact=True)
    info = stream(0)
    x = int16(np.concatenate([digit("4", 0.1), silence(0.1), digit("2", 0.1), silence(0.3)]))
    (info,) = listen([x], sink)
    assert digits(told) == 2 * REDACTED
    assert sink.digits(info) == 2 * REDACTED
    assert sink.figures(info) == {"dtmf": {"count": 2}}
    event = rfc4733(info, "7", 0)
    assert redacted(event).data == {**event.data, "digit": REDACTED}
    speech = StreamEvent(info, "speech", 0, 0, 1.0)
    assert redacted(speech) is speech


def test_rows_are_used_again_and_figures_stay() -> None:
    sink = DtmfDetector()
    infos = [stream(0, serial=n) for n in range(3)]
    for info, key in zip(infos, "12 ", strict=True):
        sink.stream_started(info)
        x = silence(0.3) if key == " " else digit(key, 0.1)
        sink.blocks(batch_of_blocks([Part(info, 0, 0, int16(x))]))
        sink.stream_ended(info, None)  # type: ignore[arg-type]
    assert [sink.figures(i).get("dtmf", {}).get("digits") for i in infos] == ["1", "2", None]


def test_where_digits_stand_can_be_left_out_of_statistics() -> None:
    sink = DtmfDetector()
    x = int16(np.concatenate([silence(0.1), digit("9", 0.1), silence(0.1), digit("9", 0.2)]))
    (info,) = listen([x], sink, end=False)
    mask = sink.active_mask(info, 0, len(x))
    truth = np.zeros(len(x), np.bool_)
    truth[800:1600] = truth[2400:] = True
    assert (mask != truth).sum() <= 4 * 40
    assert (sink.active_mask(info, 1000, 100) == mask[1000:1100]).all()


# --- muting -----------------------------------------------------------------------------------------------------------


def mute(x: I16, cuts: Sequence[int], info: StreamInfo | None = None) -> tuple[I16, KeyMuter]:
    stage = KeyMuter()
    info = info or stream(0)
    out = np.full(len(x), 1, np.int16)
    filled = np.zeros(len(x), np.int64)
    edges = [0, *cuts, len(x)]
    batches = [stage.process(batch_of_blocks([Part(info, a, 0, x[a:b])])) for a, b in pairwise(edges) if a < b]
    for batch in [*batches, stage.end(info)]:
        for block in batch or ():
            out[block.position : block.position + len(block.samples)] = block.samples
            filled[block.position : block.position + len(block.samples)] += 1
    assert (filled == 1).all()
    return out, stage


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(1, 8000), max_size=40))
def test_muting_takes_digits_and_nothing_else(cuts: set[int]) -> None:
    rng = np.random.default_rng(5)
    noise = rng.integers(-300, 300, 8080).astype(np.int16)
    spans = [(800, 1600), (2000, 2400), (2720, 3120), (5000, 8080)]  # the last one goes on until the end
    x = noise.copy()
    for (begin, end), key in zip(spans, "4#41", strict=True):
        x[begin:end] += int16(digit(key, (end - begin) / RATE))
    out, stage = mute(x, sorted(cuts))
    muted = np.zeros(len(x), np.bool_)
    for begin, end in spans:
        assert not out[begin:end].any()
        muted[begin - 80 : end + 80] = True
    assert (out[~muted] == x[~muted]).all()
    assert (out == mute(x, [])[0]).all()
    zeroed = sum(end - begin for begin, end in spans)
    assert zeroed <= stage.muted_frames <= zeroed + 7 * 80


Let = tuple[int, int, int, int, int, int, bytes, bytes]


def let_through(parts: list[list[Part]], ends: dict[int, list[StreamInfo]]) -> tuple[dict[int, list[Let]], int]:
    """Batches of parts through a muter; ``ends``: streams that end behind a batch. What of each serial came out."""
    stage, found = KeyMuter(), dict[int, list[Let]]()

    def keep(batch: BlockBatch | None) -> None:
        if batch is None:
            return
        for i, block in enumerate(batch):
            found.setdefault(block.stream.serial, []).append(
                (
                    block.position, int(batch.frames[i]), int(batch.gap_frames[i]), block.rtp_timestamp,
                    block.arrival_ns, int(batch.time_ns[i]), block.samples.tobytes(), block.mask.tobytes(),
                )
            )  # fmt: skip

    for number, some in enumerate(parts):
        if some:
            keep(stage.process(batch_of_blocks(some)))
        for info in ends.get(number, ()):
            keep(stage.end(info))
    assert stage.streams == []
    return found, stage.muted_frames


@settings(max_examples=usual_or_slow(8, 300), deadline=None)
@given(st.integers(0, 1 << 32))
def test_streams_are_muted_together_as_each_alone(seed: int) -> None:
    """Gaps, masks, channels, rates, rows that go to the next stream: what comes out of each, and how it is cut."""
    rng = np.random.default_rng(seed)
    batches: list[list[Part]] = []
    ends: dict[int, list[StreamInfo]] = {}
    rows: dict[int, tuple[StreamInfo, int, I16]] = {}
    serial = 0
    for number in range(12):
        some: list[Part] = []
        for row in rng.permutation(5).tolist():
            if rng.random() < 0.3:
                continue
            if row not in rows:
                info = stream(row, int(rng.choice([8000, 16_000])), int(rng.choice([1, 1, 2])), serial)
                tones = np.concatenate([part for k in "15" for part in (digit(k, 0.07), silence(0.11))])
                sound = int16(np.tile(tones, 12)) + rng.integers(-200, 200, len(tones) * 12).astype(np.int16)
                sound = np.repeat(sound, info.sample_rate // 8000)  # 16 kHz with its images: still digits
                rows[row] = info, int(rng.integers(0, 3000)), sound
                serial += 1
            info, at, sound = rows[row]
            for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
                gap = int(rng.choice([0, 0, 0, 160, 2000]))
                frames = int(rng.choice([1, 160, 160, 320, 777, 1600]))
                at += gap
                block = np.repeat(sound[np.arange(at, at + frames) % len(sound)], info.channels)
                mask = rng.integers(0, 3, frames).astype(np.uint8) if rng.random() < 0.2 else None
                some.append(Part(info, at, gap, block, mask))
                at += frames
            rows[row] = info, at, sound
            if rng.random() < 0.1:
                ends.setdefault(number, []).append(info)
                del rows[row]
        batches.append(some)
    batches.append([])
    ends[12] = [info for info, _, _ in rows.values()]
    together, muted = let_through(batches, ends)
    assert muted > 0
    alone: dict[int, list[Let]] = {}
    for each in range(serial):
        own = [[part for part in some if part.stream.serial == each] for some in batches]
        found, one = let_through(own, {n: [i for i in infos if i.serial == each] for n, infos in ends.items()})
        muted -= one
        alone |= found
        # nothing is lost, nothing doubled
        assert sum(let[1] for let in found[each]) == sum(len(p.samples) // p.stream.channels for s in own for p in s)
    assert muted == 0
    assert together == alone


@pytest.mark.parametrize("shift", range(0, 160, 20))
def test_a_packet_lost_within_a_digit(shift: int) -> None:
    """It stays one digit, and both parts of it are muted."""
    info, told = stream(0), list[StreamEvent]()
    x = int16(np.concatenate([np.zeros(800 + shift), digit("5", 0.1), silence(0.4)]))
    parts = [Part(info, 0, 0, x[:1120]), Part(info, 1280, 160, x[1280:])]
    sink, stage = DtmfDetector(told.append), KeyMuter()
    sink.stream_started(info)
    out = np.zeros(len(x), np.int16)
    for part in parts:
        sink.blocks(batch_of_blocks([part]))
        for block in stage.process(batch_of_blocks([part])) or ():
            assert block.position + len(block.samples) <= 1120 or block.position >= 1280
            out[block.position : block.position + len(block.samples)] = block.samples
    sink.stream_ended(info, None)  # type: ignore[arg-type]
    (event,) = told
    assert event.position == pytest.approx(800 + shift, abs=60)
    assert event.duration_s == pytest.approx(0.1, abs=0.012)
    assert not out.any()


def test_statistics_of_speech_know_nothing_of_keys() -> None:
    """Digits at -6 dBm0 in silence: no level, no speech; behind a MutedSink."""
    keys = np.concatenate([np.concatenate([digit(k, 0.3, dbm0=-6), silence(0.2)]) for k in "123456"])
    audio = int16(np.concatenate([silence(1), keys, silence(1)]))
    heard = {}
    for muted in (False, True):
        level, speech = LevelMeter(), SpeechMeter()
        sink = MutedSink([level, speech])
        info = stream(0)
        for one in [sink] if muted else sink.sinks:
            one.stream_started(info)
            for at in range(0, len(audio), 800):
                batch = batch_of_blocks([Part(info, at, 0, audio[at : at + 800])])
                batch.time_ns += T0
                one.blocks(batch)
            one.stream_ended(info, None)  # type: ignore[arg-type]
        heard[muted] = level.figures(info)["level"]["peak_dbfs"]
        assert speech.figures(info)["speech"]["talk_s"] == 0.0
    assert heard[False] > -10
    assert heard[True] == -120.0
    assert sink.report()["sinks"] == ["level", "speech"]


def test_files_and_arrays_without_keys(tmp_path: Path) -> None:
    x = int16(np.concatenate([silence(0.2) + 0.01, digit("5", 0.1), silence(0.2) + 0.01, digit("6", 0.08)]))
    with pytest.raises(strep.ConfigurationError, match="native"):
        WavSink(tmp_path, encoding="native", mute_keys=True)
    wav, array = WavSink(tmp_path, mute_keys=True), ArraySink(mute_keys=True)
    info = stream(0)
    for sink in (wav, array):
        for begin in range(0, len(x), 160):
            sink.blocks(batch_of_blocks([Part(info, begin, 0, x[begin : begin + 160])]))
        sink.stream_ended(info, replace(run(steady(3)).reports[0], stream=info))
    wav.close(5.0)
    assert wav.report()["failed"] is None
    with wave.open(str(tmp_path / wav.files(info)[0])) as file:
        written = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert len(written) == len(x)
    assert not written[1600:2400].any()
    assert not written[4000:].any()
    assert (written[:1540] == x[:1540]).all()
    assert (array.get(info).samples == written).all()


# --- witnesses --------------------------------------------------------------------------------------------------------


def sox_call(directory: Path, pressed: str) -> I16:
    """Digits that SoX makes."""
    out = [np.zeros(1600, np.int16)]
    for n, key in enumerate(pressed):
        low, high = frequencies(key)
        path = directory / "digit.wav"
        seconds = str(0.06 + 0.01 * (n % 5))
        subprocess.run(
            ["sox", "-D", "-n", "-r", "8000", "-b", "16", "-c", "1", path, "synth", seconds, "sine", str(low), "synth",
             seconds, "sine", "mix", str(high), "gain", "-12", "pad", "0", "0.06"],
            check=True, capture_output=True,
        )  # fmt: skip
        with wave.open(str(path)) as file:
            out.append(np.frombuffer(file.readframes(file.getnframes()), "<i2"))
    return np.concatenate([*out, np.zeros(1600, np.int16)])


def multimon(directory: Path, audio: I16) -> str:
    """What multimon-ng hears."""
    raw, fast = directory / "audio.raw", directory / "audio22.raw"
    audio.astype("<i2").tofile(raw)
    form = ["-t", "raw", "-e", "signed", "-b", "16", "-c", "1"]
    subprocess.run(["sox", "-D", "-r", "8000", *form, raw, "-r", "22050", *form, fast], check=True, capture_output=True)
    done = subprocess.run(
        ["multimon-ng", "-q", "-a", "DTMF", "-t", "raw", fast], check=True, capture_output=True, text=True
    )
    return "".join(line.split()[1] for line in done.stdout.splitlines() if line.startswith("DTMF:"))


@pytest.mark.witness
@needs("sox")
def test_digits_that_sox_makes(tmp_path: Path) -> None:
    pressed = KEYS + "00112233" + KEYS[::-1]
    assert digits(heard([sox_call(tmp_path, pressed)])[0]) == pressed


@pytest.mark.witness
@needs("sox")
@needs("multimon-ng")
def test_multimon_hears_the_same_and_nothing_when_muted(tmp_path: Path) -> None:
    x = sox_call(tmp_path, KEYS)
    assert multimon(tmp_path, x) == KEYS == digits(heard([x])[0])
    assert multimon(tmp_path, mute(x, range(160, len(x), 160))[0]) == ""


@pytest.mark.witness
@needs("ffmpeg")
def test_digits_that_ffmpeg_makes(tmp_path: Path) -> None:
    pressed = "19*D"
    audio = [np.zeros(800, np.int16)]
    for key in pressed:
        low, high = frequencies(key)
        done = subprocess.run(
            ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"sine=f={low}:r=8000:d=0.08", "-f", "lavfi", "-i",
             f"sine=f={high}:r=8000:d=0.08", "-filter_complex", "amix=2,apad=pad_dur=0.06", "-f", "s16le", "-"],
            check=True, capture_output=True,
        )  # fmt: skip
        audio.append(np.frombuffer(done.stdout, "<i2"))
    assert digits(heard([np.concatenate([*audio, np.zeros(1600, np.int16)])])[0]) == pressed


# --- through the engine -----------------------------------------------------------------------------------------------


def mulaw(audio: I16) -> bytes:
    """Encoded, by looking for the nearest value."""
    table = pcmu(bytes(range(256))).astype(np.int64)
    order = np.argsort(table, kind="stable")
    middle = (table[order][1:] + table[order][:-1]) / 2
    return order[np.searchsorted(middle, audio)].astype(np.uint8).tobytes()


def capture_with_keys(path: Path) -> I16:
    """ "5" as audio and, beside it, as telephone-events; "6" as audio only; "7" as events only, instead of audio."""
    x = int16(
        np.concatenate(
            [silence(0.4), digit("5", 0.1), silence(0.4), digit("6", 0.1), silence(0.6), silence(0.1), silence(0.5)]
        )
        + 0.002
    )
    arrivals, sequence = [], 0

    def send(at: int, timestamp: int, payload: bytes, payload_type: int) -> None:
        nonlocal sequence
        data = packet(sequence, timestamp=timestamp, payload=payload, payload_type=payload_type)
        arrivals.append(Arrival(T0 + at * 125_000, data))
        sequence += 1

    events = {3200: 5, 12_800: 7}
    for at in range(0, len(x), 160):
        for start, key in events.items():
            if start <= at < start + 800:
                end = at == start + 640
                for _ in range(3 if end else 1):
                    report = bytes([key, end << 7 | 10]) + (at + 160 - start).to_bytes(2, "big")
                    send(at + 160, start, report, 101)
        if not 12_800 <= at < 13_600:
            send(at + 160, at, mulaw(x[at : at + 160]), 0)
    writer = PcapWriter(path)
    writer.write(batch_of(arrivals))
    writer.close()
    return x


def test_both_sources_through_the_engine(tmp_path: Path) -> None:
    capture_with_keys(tmp_path / "a.pcap")
    told: list[StreamEvent] = []
    done = strep.replay(tmp_path / "a.pcap", sinks=[DtmfDetector(told.append)])
    assert digits(told) == "6"
    (entry,) = done.summary()["streams"]
    assert entry["dtmf"]["digits"] == "567"
    assert [e["source"] for e in entry["dtmf"]["events"]] == ["rfc4733", "inband", "rfc4733"]
    assert [e["position_s"] for e in entry["dtmf"]["events"]] == pytest.approx([0.4, 0.9, 1.6], abs=0.01)


def test_a_file_whose_stream_never_ended_has_all_of_it(tmp_path: Path) -> None:
    x = int16(np.concatenate([silence(0.3) + 0.01, digit("5", 0.1), silence(0.05) + 0.01]))
    sink = WavSink(tmp_path, mute_keys=True)
    sink.blocks(batch_of_blocks([Part(stream(0), 0, 0, x)]))
    sink.close(5.0)
    (path,) = tmp_path.rglob("*.wav")
    with wave.open(str(path)) as file:
        written = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert len(written) == len(x)
    assert not written[2400:3200].any()
    assert (written[3260:] == x[3260:]).all()


def test_concealed_losses_are_muted_too(tmp_path: Path) -> None:
    """A packet lost within a digit and one lost elsewhere: both are made up, and the digit's is silent."""
    t = np.arange(8000) / RATE
    x = int16(0.1 * np.sin(2 * np.pi * 200 * t))
    x[3200:4000] = int16(digit("5", 0.1))
    arrivals = [
        Arrival(T0 + at * 125_000, packet(n, timestamp=at, payload=mulaw(x[at : at + 160])))
        for n, at in enumerate(range(0, len(x), 160))
        if at not in (1600, 3520)
    ]
    writer = PcapWriter(tmp_path / "a.pcap")
    writer.write(batch_of(arrivals))
    writer.close()
    sink = WavSink(tmp_path / "out", mute_keys=True, conceal=True)
    strep.replay(tmp_path / "a.pcap", sinks=[sink])
    (path,) = (tmp_path / "out").rglob("*.wav")
    with wave.open(str(path)) as file:
        written = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert len(written) == len(x)
    assert not written[3200:4000].any()
    assert np.abs(written[1600:1760]).max() > 1000


def test_the_command_mutes_keys(tmp_path: Path) -> None:
    x = capture_with_keys(tmp_path / "a.pcap")
    for name, more in (("plain", []), ("muted", ["--mute-keys"])):
        command = [
            sys.executable,
            "-m",
            "strep",
            "replay",
            str(tmp_path / "a.pcap"),
            "--out",
            str(tmp_path / name),
            *more,
        ]
        subprocess.run(command, check=True, capture_output=True)
    written = {}
    for name in ("plain", "muted"):
        (path,) = (tmp_path / name).rglob("*.wav")
        with wave.open(str(path)) as file:
            written[name] = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    plain, muted = written["plain"], written["muted"]
    assert len(plain) == len(muted) == len(x)
    different = np.flatnonzero(plain != muted)
    for begin, end in ((3200, 4000), (7200, 8000)):
        assert not muted[begin:end].any()
        assert plain[begin:end].any()
        different = different[(different < begin - 80) | (different >= end + 80)]
    assert not different.size
