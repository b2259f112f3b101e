"""Call-progress, fax and information tones, and beeps: each once, with its beginning and end; and none in speech."""

from __future__ import annotations

import subprocess
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from block_batches import Part, batch_of_blocks, stream
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from keypad import digit, int16, listen, silence, through_g711
from programs import needs
from speechlike import chords, hour
from support import T0

import strep
from strep._model.types import StreamEvent
from strep.sinks import DtmfDetector, ToneDetector

RATE = 8000
LEAD = 0.7
F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]


def tone(frequencies: tuple[float, ...], seconds: float, dbm0: float = -10.0) -> F64:
    """All together ``dbm0``."""
    t = np.arange(round(seconds * RATE)) / RATE
    amplitude = 10 ** ((dbm0 - 3.17) / 20) / len(frequencies) ** 0.5
    return sum((amplitude * np.sin(2 * np.pi * f * t + n) for n, f in enumerate(frequencies)), np.zeros(len(t)))


def cadence(frequencies: tuple[float, ...], times: list[tuple[float, float]], bursts: int, dbm0: float = -10.0) -> F64:
    parts = [silence(LEAD)]
    for k in range(bursts):
        on, off = times[k % len(times)]
        parts += [tone(frequencies, on, dbm0), silence(off)]
    return np.concatenate([*parts, silence(6.0)])


def noisy(audio: F64, dbm0: float, snr: float = 20.0, seed: int = 3) -> I16:
    noise = 10 ** ((dbm0 - snr - 3.17 - 3.01) / 20)
    return through_g711(int16(audio + np.random.default_rng(seed).normal(0, noise, len(audio))))


def heard(*audio: I16, **options: object) -> list[list[StreamEvent]]:
    events: list[StreamEvent] = []
    listen(audio, ToneDetector(events.append), **options)  # type: ignore[arg-type]
    return [[e for e in events if e.stream.index == row] for row in range(len(audio))]


def names(events: list[StreamEvent]) -> list[str]:
    return [f"{e.data['tone']} {e.data['region']} {e.data['state']}" for e in events]


# name, frequencies, (on, off), bursts, how long it is in all
CADENCES = [
    ("dial us", (350, 440), [(5.0, 0)], 1, 5.0),
    ("dial eu", (425,), [(5.0, 0)], 1, 5.0),
    ("ringback us", (440, 480), [(2.0, 4.0)], 3, 14.0),
    ("ringback eu", (425,), [(1.0, 4.0)], 3, 11.0),
    ("ringback uk", (400, 450), [(0.4, 0.2), (0.4, 2.0)], 6, 7.0),
    ("busy us", (480, 620), [(0.5, 0.5)], 6, 5.5),
    ("busy eu", (425,), [(0.5, 0.5)], 6, 5.5),
    ("busy uk", (400,), [(0.375, 0.375)], 6, 4.125),
    ("reorder us", (480, 620), [(0.25, 0.25)], 10, 4.75),
    ("reorder eu", (425,), [(0.25, 0.25)], 8, 3.75),
    ("cng None", (1100,), [(0.5, 3.0)], 4, 11.0),
    ("ced None", (2100,), [(3.3, 0)], 1, 3.3),
]


@pytest.mark.parametrize("dbm0", [-10, -20, -30])
def test_tones_in_their_cadences_begin_once_and_end_once(dbm0: int) -> None:
    """20 dB over noise, through µ-law; all streams at once."""
    audio = [noisy(cadence(f, times, n, dbm0), dbm0) for _, f, times, n, _ in CADENCES]
    for (name, _, _, _, seconds), events in zip(CADENCES, heard(*audio), strict=True):
        assert names(events) == [f"{name} begin", f"{name} end"]
        for event in events:
            assert event.kind == "tone"
            assert event.position / RATE == pytest.approx(LEAD, abs=0.015)
            assert event.time_ns == pytest.approx(T0 + LEAD * 1e9, abs=15e6)
            assert event.data["level_dbm0"] == pytest.approx(dbm0, abs=0.7)
        assert events[0].duration_s == 0
        assert events[1].duration_s == pytest.approx(seconds, abs=0.025)


@pytest.mark.parametrize("off", [-0.01, 0.01])
def test_frequencies_and_times_need_not_be_exact(off: float) -> None:
    audio = [
        noisy(
            cadence(tuple(x * (1 + off) for x in f), [(a * (1 - 5 * off), b * (1 + 5 * off)) for a, b in times], n), -10
        )
        for name, f, times, n, _ in CADENCES
        if not name.startswith("ced")
    ]
    expected = [name for name, *_ in CADENCES if not name.startswith("ced")]
    assert [names(e)[:1] for e in heard(*audio)] == [[f"{name} begin"] for name in expected]


def test_one_tone_after_another() -> None:
    """A call that rings twice and then finds the line busy."""
    ring = cadence((440, 480), [(2, 4)], 2)[: round((LEAD + 9) * RATE)]
    busy = cadence((480, 620), [(0.5, 0.5)], 5)
    (events,) = heard(int16(np.concatenate([ring, busy])))
    assert names(events) == ["ringback us begin", "ringback us end", "busy us begin", "busy us end"]


def test_a_stream_that_ends_ends_its_tones() -> None:
    sink_events: list[StreamEvent] = []
    sink = ToneDetector(sink_events.append)
    (info,) = listen([int16(cadence((440, 480), [(2, 4)], 2)[: round((LEAD + 7) * RATE)])], sink)
    assert names(sink_events) == ["ringback us begin", "ringback us end"]
    assert sink_events[1].duration_s == pytest.approx(7.0, abs=0.03)
    figures = sink.figures(info)["tones"]
    assert figures["count"] == 1
    assert figures["events"][0]["tone"] == "ringback"
    assert figures["events"][0]["duration_s"] == pytest.approx(7.0, abs=0.03)


def test_an_answering_modem_with_phase_reversals_is_one_tone() -> None:
    """ANSam (ITU-T V.8): amplitude modulated at 15 Hz, phase reversed every 450 ms."""
    x = tone((2100,), 3.3)
    t = np.arange(len(x)) / RATE
    x *= (1 + 0.2 * np.sin(2 * np.pi * 15 * t)) * np.where((t / 0.45).astype(int) % 2, -1, 1)
    (events,) = heard(noisy(np.concatenate([silence(0.5), x, silence(2)]), -10))
    assert names(events) == ["ced None begin", "ced None end"]
    assert events[1].duration_s == pytest.approx(3.3, abs=0.03)


SITS = [
    ((913.8, 0.274), (1370.6, 0.274), (1776.7, 0.380)),
    ((985.2, 0.380), (1370.6, 0.274), (1776.7, 0.380)),
    ((913.8, 0.274), (1428.5, 0.380), (1776.7, 0.380)),
    ((985.2, 0.380), (1428.5, 0.380), (1776.7, 0.380)),
    ((950.0, 0.330), (1400.0, 0.330), (1800.0, 0.330)),
]


@pytest.mark.parametrize("pause", [0.0, 0.03])
def test_special_information_tones(pause: float) -> None:
    audio = []
    for segments in SITS:
        x = [part for f, s in segments for part in (tone((f,), s, -20), silence(pause))]
        audio.append(noisy(np.concatenate([silence(0.5), *x, silence(2)]), -20))
    for segments, (event,) in zip(SITS, heard(*audio), strict=True):
        assert names([event]) == ["sit None whole"]
        assert event.data["frequencies"] == pytest.approx([f for f, _ in segments], rel=0.003)
        assert event.data["seconds"] == pytest.approx([s for _, s in segments], abs=0.04)
        assert event.duration_s == pytest.approx(sum(s for _, s in segments) + 2 * pause, abs=0.03)


@pytest.mark.parametrize(
    ("frequency", "seconds"),
    [(f, s) for f in (440, 620, 950, 1000, 1400, 1900) for s in (0.08, 0.25, 0.5, 1.4) if f > 600 or s > 0.2],
)
def test_a_beep_standing_alone(frequency: int, seconds: float) -> None:
    x = np.concatenate([silence(1), tone((frequency,), seconds, -20), silence(2)])
    (events,) = heard(noisy(x, -20))
    assert names(events) == ["beep None whole"]
    assert events[0].position / RATE == pytest.approx(1.0, abs=0.015)
    assert events[0].duration_s == pytest.approx(seconds, abs=0.02)
    assert events[0].data["frequencies"] == pytest.approx([frequency], rel=0.003)


def test_a_beep_after_an_announcement() -> None:
    with wave.open(str(Path(strep.__file__).parent / "data" / "agent.wav")) as file:
        speech = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    talk = np.trim_zeros(speech)
    x = np.concatenate([talk, silence(0.3), tone((1000,), 0.4), silence(0.3), talk])
    (events,) = heard(int16(x))
    assert names(events) == ["beep None whole"]
    assert events[0].position == pytest.approx(len(talk) + 2400, abs=120)


def test_what_is_no_beep() -> None:
    """Two of them in a second, a melody, a long tone, digits, one within noise, a short low one, a warbling one."""
    t = np.arange(RATE // 2) / RATE
    twice = np.concatenate([tone((1000,), 0.3), silence(0.4), tone((1000,), 0.3)])
    melody = np.concatenate([tone((f,), 0.25) for f in (523, 587, 659, 523, 659, 523, 659)])
    keys = np.concatenate([np.r_[digit(k, 0.1), silence(0.1)] for k in "123A456B789C*0#D"])
    loud = np.random.default_rng(1).normal(0, 0.05, RATE)
    low = np.concatenate([silence(1), tone((450,), 0.1), silence(1)])
    warble = 0.2 * np.sin(2 * np.pi * 1000 * t + 8 * np.sin(2 * np.pi * 6 * t))
    around = np.concatenate([loud, tone((1000,), 0.4), loud])
    for x in (twice, melody, keys, around, low, warble, tone((1000,), 3.0)):
        assert heard(int16(np.concatenate([silence(1), x, silence(2)]))) == [[]]


@settings(max_examples=6, deadline=None)
@given(st.sets(st.integers(1, 80_000), max_size=30))
def test_how_audio_is_cut_makes_no_difference(cuts: set[int]) -> None:
    x = int16(cadence((425,), [(0.5, 0.5)], 4))
    (whole,), (cut,) = heard(x), heard(x, cuts=sorted(cuts))
    assert [(e.position, e.duration_s, e.data) for e in cut] == [(e.position, e.duration_s, e.data) for e in whole]


def test_rows_are_used_again() -> None:
    events: list[StreamEvent] = []
    sink = ToneDetector(events.append)
    x = int16(cadence((480, 620), [(0.5, 0.5)], 2)[: round((LEAD + 0.45) * RATE)])
    for serial in range(3):
        # the first burst of a busy tone, and the stream ends: three of them make none
        info = stream(0, serial=serial)
        sink.stream_started(info)
        sink.blocks(batch_of_blocks([Part(info, 0, 0, x)]))
        sink.stream_ended(info, None)  # type: ignore[arg-type]
        assert sink.figures(info) == {}
    assert events == []


@pytest.mark.witness
@needs("sox")
def test_tones_that_sox_makes(tmp_path: Path) -> None:
    path = tmp_path / "busy.wav"
    command = ["sox", "-D", "-n", "-r", "8000", "-b", "16", "-c", "1", path, "synth", "0.5", "sine", "480",
               "synth", "0.5", "sine", "mix", "620", "gain", "-15", "pad", "0", "0.5", "repeat", "4"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    with wave.open(str(path)) as file:
        audio = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    (events,) = heard(audio)
    assert names(events) == ["busy us begin", "busy us end"]
    assert events[1].duration_s == pytest.approx(4.5, abs=0.03)


# --- talk-off ---------------------------------------------------------------------------------------------------------


MINUTES = usual_or_slow(20, 60)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> I16:
    return hour(tmp_path_factory.mktemp("voices"), streams=MINUTES)


def test_the_hour_is_an_hour_and_loud() -> None:
    x = chords(60, 1)
    assert len(x) == 60 * RATE
    assert np.sqrt((x**2).mean()) > 0.05


@pytest.mark.parametrize("detector", [DtmfDetector, ToneDetector])
def test_an_hour_of_voices_and_music_has_no_digits_and_no_tones(
    talk: I16, detector: type[DtmfDetector] | type[ToneDetector]
) -> None:
    assert talk.size == MINUTES * 60 * RATE
    assert (np.sqrt((talk.astype(np.float64) ** 2).mean(1)) > 100).all()  # nothing is silent: -50 dBFS at least
    events: list[StreamEvent] = []
    listen(list(talk), detector(events.append), cuts=range(RATE, talk.shape[1], RATE))
    assert [(e.stream.index, e.position, e.data) for e in events] == []


def test_digits_within_voices_are_heard(talk: I16) -> None:
    """Over quiet speech: 18 dB weaker than the digits."""
    pressed = "4155550123"
    x = np.concatenate([np.r_[digit(k, 0.1, dbm0=-10), silence(0.1)] for k in pressed] + [silence(0.3)])
    rows = [k for k in range(20) if k % 10 != 9]
    audio = []
    for row in rows:
        voice = talk[row, : len(x)].astype(np.float64)
        voice *= 0.155 * 10 ** (-18 / 20) / np.sqrt((voice**2).mean())
        audio.append(int16(x + voice))
    events: list[StreamEvent] = []
    listen(audio, DtmfDetector(events.append))
    for row in range(len(rows)):
        assert "".join(e.data["digit"] for e in events if e.stream.index == row) == pressed
