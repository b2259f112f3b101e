"""Who speaks in all streams at once: what each stream's own detector says of it, whoever else is in the batch."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from block_batches import Part, batch_of_blocks, stream

import strep
from strep._speech.energy import EnergyVoice
from strep.sinks import VoiceBatch, VoiceSink

FRAME, HANG = 160, 15


def lines() -> list[np.ndarray]:
    """Voices with pauses of noise, each stream other ones."""
    rng = np.random.default_rng(3)
    out = []
    for name in ("caller.wav", "agent.wav"):
        with wave.open(str(Path(strep.__file__).parent / "data" / name)) as file:
            audio = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        for shift, noise in ((0, 5), (3000, 60), (9000, 300)):
            part = np.roll(audio, shift) + rng.normal(0, noise, len(audio))
            out.append(np.clip(part, -32_768, 32_767).astype(np.int16))
    size = min(map(len, out)) // FRAME * FRAME
    return [audio[:size] for audio in out]


def alone(audio: np.ndarray) -> tuple[list[bool], list[int], list[int]]:
    """The oracle: whether each frame is speech, and the frames by which it begins and ends."""
    voice = EnergyVoice()
    speech, began, ended = [], [], []
    talking, run, last = False, 0, 0
    for k in range(len(audio) // FRAME):
        verdict = voice.judge(audio[k * FRAME : (k + 1) * FRAME], 1.0)
        run = run + 1 if verdict.surely else 0
        if talking:
            last = k if verdict.enough else last
            if k - last >= HANG or verdict.mistaken:
                talking = False
                ended.append(k)
        elif run >= 3:
            talking, last = True, k
            began.append(k)
        speech.append(talking)
    return speech, began, ended


def test_every_stream_as_if_it_were_alone() -> None:
    found: dict[int, tuple[list[bool], list[int], list[int]]] = {}

    def hear(voices: VoiceBatch) -> None:
        frames = voices.frames
        assert voices.level.shape == voices.speech.shape == frames.row.shape
        for i, (row, position) in enumerate(zip(frames.row.tolist(), frames.position.tolist(), strict=True)):
            speech, began, ended = found.setdefault(row, ([], [], []))
            assert position == FRAME * len(speech)
            speech.append(bool(voices.speech[i]))
            began += [len(speech) - 1] * (i in voices.began)
            ended += [len(speech) - 1] * (i in voices.ended)

    audio = lines()
    streams = [stream(7 * k) for k in range(len(audio))]
    sink = VoiceSink(hear)
    for info in streams:
        sink.stream_started(info)
    rng = np.random.default_rng(1)
    at = [0] * len(audio)
    while any(a < len(audio[0]) for a in at):
        parts = []
        for k, info in enumerate(streams):
            count = int(rng.integers(0, 900))
            samples = audio[k][at[k] : at[k] + count]
            if len(samples):
                parts.append(Part(info, at[k], 0, samples))
                at[k] += len(samples)
        if parts:
            sink.blocks(batch_of_blocks(parts))
    for k, info in enumerate(streams):
        speech, began, ended = alone(audio[k])
        assert found[info.index][1:] == (began, ended)
        assert found[info.index][0] == speech
        assert began


def test_a_gap_ends_what_is_said() -> None:
    ended: list[int] = []
    sink = VoiceSink(lambda voices: ended.extend(voices.frames.position[voices.ended].tolist()))
    info = stream(0)
    sink.stream_started(info)
    rng = np.random.default_rng(1)
    quiet, loud = rng.normal(0, 20, 8000).astype(np.int16), rng.normal(0, 5000, 3200).astype(np.int16)
    sink.blocks(batch_of_blocks([Part(info, 0, 0, quiet), Part(info, 8000, 0, loud)]))
    assert not ended
    sink.blocks(batch_of_blocks([Part(info, 43_200, 32_000, loud)]))
    assert ended == [43_200]


def test_wrong_arguments() -> None:
    with pytest.raises(strep.ConfigurationError, match="'energy' or 'silero'"):
        VoiceSink(print, "loud")  # type: ignore[arg-type]
    with pytest.raises(strep.ConfigurationError, match="hang_ms"):
        VoiceSink(print, hang_ms=-1)
