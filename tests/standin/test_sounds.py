"""What the stand-in lets calls hear: speech, files of this machine and of others, within bounds."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import shutil
import sys
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st

from strep._model.exceptions import ConfigurationError, MissingExtraError, StrepError
from strep.simulate.packets import wire_codec
from strep.standin import StandIn, _sounds
from strep.standin._playlist import Content, Named, Remote, Source, Speech
from strep.standin._sounds import Sounds
from strep.standin._waves import decode_file, to_clip, tone_of

av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")

PCMU = wire_codec("PCMU")
RATE = 8000
TONE = np.rint(9000 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.int16)


def wav_of(samples: np.ndarray[Any, Any], rate: int = RATE, **options: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", **{"subtype": "PCM_16", **options})
    return file.getvalue()


def mp3_of(samples: np.ndarray[Any, Any], rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="MP3")
    return file.getvalue()


def pitch_of(samples: np.ndarray[Any, Any], rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


def serve(handler: Any) -> httpx.MockTransport:
    return httpx.MockTransport(handler)


def load(source: Source, **options: Any) -> np.ndarray[Any, Any] | None:
    async def main() -> Any:
        return await Sounds(PCMU, 160, **{"speech": "tone", **options}).load(source)

    clip = asyncio.run(main())
    if clip is None:
        return None
    assert clip.samples.shape[1] == 160
    assert clip.duration_ns == len(clip.samples) * 20_000_000
    return clip.samples.reshape(-1)


# --- files


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (wav_of(TONE), 1.0),
        (wav_of(np.repeat(TONE, 2), 16_000), 1.0),
        (wav_of(np.stack([TONE, TONE], axis=1)), 1.0),
        (wav_of(TONE, subtype="ULAW"), 1.0),
        (wav_of(TONE, subtype="ALAW"), 1.0),
        (wav_of(TONE, subtype="PCM_24"), 1.0),
        (wav_of(TONE / 32768, subtype="FLOAT"), 1.0),
        (wav_of(TONE, subtype="PCM_U8"), 1.0),
        (mp3_of(TONE.astype(np.float32) / 32768, RATE), 1.0),
        (mp3_of(np.repeat(TONE, 3).astype(np.float32) / 32768, 3 * RATE), 1.0),
        (wav_of(TONE)[:4044], 0.25),  # cut off
    ],
    ids=["8k", "16k", "stereo", "ulaw", "alaw", "24", "float", "u8", "mp3", "mp3-24k", "cut"],
)
def test_wav_and_mp3_files_sound_as_they_should(data: bytes, seconds: float) -> None:
    samples = decode_file(data, RATE)
    assert samples.dtype == np.int16
    assert abs(len(samples) / RATE - seconds) < 0.15  # an MP3 begins and ends with silence of its own
    middle = samples[len(samples) // 4 :][: RATE // 8]
    assert abs(pitch_of(middle) - 440) <= 8
    assert 5000 < np.abs(middle.astype(int)).max() < 13_000


def test_16_bit_pcm_is_kept_bit_exact_and_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert decode_file(wav_of(TONE), RATE).tobytes() == TONE.tobytes()
    piped = bytearray(wav_of(TONE))
    piped[4:8] = piped[40:44] = b"\xff\xff\xff\x7f"  # as one that is written into a pipe
    assert decode_file(bytes(piped), RATE).tobytes() == TONE.tobytes()
    with pytest.raises(MissingExtraError, match="PyAV"):
        decode_file(wav_of(TONE, subtype="ULAW"), RATE)


def test_a_file_is_heard_for_ten_minutes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strep.standin._waves._LONGEST_S", 0.5)
    for data in (wav_of(TONE), wav_of(TONE, subtype="ULAW"), mp3_of(TONE / 32768, RATE)):
        assert len(decode_file(data, RATE)) == RATE // 2


@given(st.binary(max_size=300), st.sampled_from([wav_of(TONE[:300]), mp3_of(TONE / 32768, RATE), b""]), st.data())
@settings(max_examples=usual_or_slow(60, 2000), deadline=None)
def test_any_bytes_are_sound_or_an_error_of_ours(noise: bytes, file: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(file)))
    for hostile in (noise, file[:at] + noise + file[at + len(noise) :], file[:at]):
        try:
            samples = decode_file(hostile, RATE)
        except StrepError:
            continue
        assert samples.dtype == np.int16
        assert len(samples) <= 600 * RATE


def test_clips_are_whole_packets() -> None:
    clip = to_clip(TONE[:161], PCMU, 160)
    assert (clip.samples.shape, clip.duration_ns) == ((2, 160), 40_000_000)
    assert clip.samples.reshape(-1)[161:].any() == False  # noqa: E712
    stereo = to_clip(TONE[:100], wire_codec("L16/44100/2"), 50)
    assert stereo.samples.shape == (2, 100)
    assert (stereo.samples[0, ::2] == stereo.samples[0, 1::2]).all()


# --- what is somewhere else


def test_a_url_is_played_over_redirections_too() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/old":
            return httpx.Response(302, headers={"location": "/new.wav"})
        return httpx.Response(200, content=wav_of(TONE))

    for path in ("old", "new.wav"):
        samples = load(Remote(f"http://a.example/{path}"), transport=serve(handler))
        assert samples is not None
        assert samples.tobytes() == TONE.tobytes()


class Endless(httpx.AsyncByteStream):
    def __init__(self, pause_s: float) -> None:
        self.pause_s, self.sent = pause_s, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(self.pause_s)
            self.sent += 1 << 16
            yield bytes(1 << 16)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (httpx.Response(404), "the server says 404"),
        (httpx.Response(302, headers={"location": "file:///etc/passwd"}), "neither http nor https"),
        (httpx.Response(302, headers={"location": "/again"}), "more than 3 redirections"),
        (httpx.Response(302), "the server says 302"),
        (httpx.Response(200, content=b"<html>"), "no WAV or MP3 file"),
        (httpx.Response(200, content=b""), "no WAV or MP3 file"),
        (httpx.Response(200, content=wav_of(TONE[:0])), "no sound in it"),
        (httpx.ConnectError("refused"), "ConnectError: refused"),
    ],
    ids=["404", "file", "circle", "nowhere", "html", "nothing", "silent", "refused"],
)
def test_what_cannot_be_played_is_said(answer: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    with caplog.at_level(logging.WARNING, "strep.standin"):
        assert load(Remote("http://a.example/a.wav"), transport=serve(handler)) is None
    assert why in caplog.text


@pytest.mark.parametrize("pause_s", [0.0, 0.02])
def test_an_answer_without_end_is_cut_off(pause_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sounds, "_FETCH_S", 0.3)
    monkeypatch.setattr(_sounds, "_LARGEST_FILE_BYTES", 1 << 20)
    stream = Endless(pause_s)
    assert load(Remote("http://a.example/"), transport=serve(lambda _: httpx.Response(200, stream=stream))) is None
    assert 0 < stream.sent <= (1 << 20) + (1 << 16)


def test_media_have_names(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_of(TONE))
    media = {"greeting": tmp_path / "a.wav", "gone": tmp_path / "b.wav", "folder": tmp_path}
    samples = load(Named("greeting"), media=media)
    assert samples is not None
    assert samples.tobytes() == TONE.tobytes()
    for name in ("gone", "folder", "other", "../a.wav"):
        assert load(Named(name), media=media) is None


def test_a_file_of_media_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sounds, "_LARGEST_FILE_BYTES", 1000)
    (tmp_path / "a.wav").write_bytes(wav_of(TONE))
    assert load(Named("a"), media={"a": tmp_path / "a.wav"}) is None
    assert load(Content(wav_of(TONE))) is not None


# --- speech


def test_a_tone_stands_for_each_text() -> None:
    texts = ["Good day", "Good day to you", "x", "", "x" * 5000, "\ud800"]
    tones = [tone_of(text, RATE) for text in texts]
    assert [len(tone) / RATE for tone in tones] == [0.48, 0.9, 0.1, 0.1, 60, 0.1]
    assert all(np.array_equal(tone, tone_of(text, RATE)) for text, tone in zip(texts, tones, strict=True))
    pitches = [pitch_of(tone[:RATE]) for tone in tones[:3]]
    assert len({round(pitch / 20) for pitch in pitches}) == 3
    assert all(280 < pitch < 1320 for pitch in pitches)
    samples = load(Speech("Good day"))
    assert samples is not None
    assert samples[: len(tones[0])].tobytes() == tones[0].tobytes()


def test_the_same_speech_for_many_calls_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(_sounds, "tone_of", lambda *arguments: made.append(arguments) or tone_of(*arguments))

    async def main() -> None:
        sounds = Sounds(PCMU, 160, speech="tone")
        clips = await asyncio.gather(*(sounds.load(Speech("Good day")) for _ in range(50)))
        assert len({id(clip) for clip in clips}) == 1
        assert await sounds.load(Speech("Good day")) is clips[0]
        for number in range(300):
            await sounds.load(Speech(f"{number}"))
        assert len(sounds._kept) == 256
        assert not sounds._under_way

    asyncio.run(main())
    assert made[0] == ("Good day", RATE)
    assert len(made) == 301


def test_a_url_is_fetched_once_if_it_may_be_kept() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, content=wav_of(TONE))

    async def main() -> None:
        sounds = Sounds(PCMU, 160, transport=serve(handler))
        for path in ("kept", "kept", "new", "new"):
            assert await sounds.load(Remote(f"http://a.example/{path}", kept=path == "kept"))

    asyncio.run(main())
    assert asked == ["/kept", "/new", "/new"]


async def test_one_who_gives_up_takes_nothing_from_others() -> None:
    sounds = Sounds(PCMU, 160, transport=serve(lambda _: httpx.Response(200, content=wav_of(TONE))))
    source = Remote("http://a.example/", kept=True)
    first, second = (asyncio.ensure_future(sounds.load(source)) for _ in range(2))
    await asyncio.sleep(0)
    second.cancel()
    assert await first is not None
    assert (await asyncio.gather(second, return_exceptions=True))[0].__class__ is asyncio.CancelledError


@pytest.mark.witness
@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is missing (Debian: espeak-ng)")
def test_espeak_speaks_text_and_ssml() -> None:
    text = load(Speech("Good day. What can I do for you?"), speech="espeak")
    german = load(Speech("Guten Tag. Was kann ich für Sie tun?", "male", "de-DE"), speech="espeak")
    ssml = load(Speech('<speak>One <break time="2s"/> two</speak>', ssml=True), speech="espeak")
    for samples in (text, german, ssml):
        assert samples is not None
        assert 1.0 < len(samples) / RATE < 6
        assert np.abs(samples.astype(int)).max() > 3000
    assert ssml is not None
    quiet = np.abs(ssml.astype(int).reshape(-1, 160)).max(axis=1) < 200
    assert max(len(run) for run in "".join("q" if one else " " for one in quiet).split()) >= 75  # the pause
    option = load(Speech("--help"), speech="espeak")  # it is a text, no option
    assert option is not None
    assert len(option) / RATE < 3


@pytest.mark.skipif(sys.platform == "win32", reason="a script stands for the program")
@pytest.mark.parametrize("script", ["exit 1", "cat >/dev/null; echo nonsense", "exec sleep 60"])
def test_where_the_program_fails_a_tone_is_heard(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "espeak-ng"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(_sounds, "_SPEAK_S", 0.3)
    samples = load(Speech("Good day"), speech="auto")
    tone = tone_of("Good day", RATE)
    assert samples is not None
    assert samples[: len(tone)].tobytes() == tone.tobytes()


def test_wrong_arguments_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError, match="espeak-ng is not installed"):
        StandIn(speech="espeak")
    with pytest.raises(ConfigurationError, match="'auto', 'espeak' and 'tone'"):
        StandIn(speech="sing")  # type: ignore[arg-type]


def test_the_wave_module_agrees() -> None:
    """What we write for tests is what Python's own module reads."""
    with wave.open(io.BytesIO(wav_of(TONE))) as file:
        assert (file.getframerate(), file.getnframes(), file.getsampwidth()) == (RATE, RATE, 2)
