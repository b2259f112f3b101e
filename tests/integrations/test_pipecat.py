"""A stream as the input of a real pipecat pipeline: audio, keys, speech, interruption, end."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import warnings
import wave
from pathlib import Path

import numpy as np
import pytest
from live import listening, until
from support import LEG, packet

import strep
from strep._codecs.g711 import decode, encode
from strep.resample import resample

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pipecat's own
    pytest.importorskip("pipecat", reason="pipecat-ai is not installed")
    from pipecat.frames.frames import (
        EndFrame,
        Frame,
        InputAudioRawFrame,
        InputDTMFFrame,
        InterruptionFrame,
        VADUserStartedSpeakingFrame,
        VADUserStoppedSpeakingFrame,
    )
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.transports.base_transport import TransportParams
    from pipecat.workers.runner import WorkerRunner

    from strep.integrations.pipecat import StrepInputTransport

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.realtime]
PCMU = strep.Codec("PCMU", 8000, 8000, 1, 1)


class Kept(FrameProcessor):
    """Keeps what comes down the pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            self.frames.append(frame)
        await self.push_frame(frame, direction)


def call() -> np.ndarray:
    """A second of line noise, a second of voice, half a second of noise."""
    rng = np.random.default_rng(1)
    with wave.open(str(Path(strep.__file__).parent / "data" / "caller.wav")) as file:
        voice = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    voice = voice[np.flatnonzero(np.abs(voice) > 3000)[0] :][:8000]
    return np.concatenate([rng.normal(0, 20, 8000), voice, rng.normal(0, 20, 4000)]).astype(np.int16)


def play(address: tuple[str, int], begun: threading.Event) -> np.ndarray:
    """Line noise until the pipeline has begun, then the call, then a 5 that is pressed; returns the audio.
    In a thread: a sender that stands still meanwhile would be one that pauses."""
    noise = np.random.default_rng(2)
    sent: list[np.ndarray] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def say(audio: np.ndarray) -> None:
            payload = encode(PCMU, audio)
            sender.sendto(packet(len(sent), payload=payload.tobytes()), address)
            sent.append(decode(PCMU, payload))
            time.sleep(0.02)

        while not begun.is_set():
            say(noise.normal(0, 20, 160).astype(np.int16))
        audio = call()
        for k in range(len(audio) // 160):
            say(audio[160 * k : 160 * (k + 1)])
        for n in range(6):
            event = bytes([5, 0x80 * (n > 2) | 10]) + min(160 * (n + 1), 640).to_bytes(2)
            number = len(sent) + n
            sender.sendto(packet(number, timestamp=160 * len(sent), payload=event, payload_type=101), address)
            time.sleep(0.02)
    return np.concatenate(sent)


@pytest.mark.parametrize("rate", [16_000, 8000])
async def test_a_pipeline_hears_a_stream_and_ends_with_it(rate: int) -> None:
    kept, begun = Kept(), threading.Event()

    async def send(receiver: strep.Receiver) -> np.ndarray:
        playing = asyncio.create_task(asyncio.to_thread(play, listening(receiver), begun))
        await until(lambda: any(isinstance(frame, InputAudioRawFrame) for frame in kept.frames))
        begun.set()
        audio = await playing
        receiver.end(LEG)
        return audio

    async with strep.Receiver("udp:127.0.0.1:0", transport="portable") as receiver:
        sending = asyncio.create_task(send(receiver))
        stream = await anext(aiter(receiver))
        transport = StrepInputTransport(stream)
        worker = PipelineWorker(
            Pipeline([transport, kept]),
            params=PipelineParams(audio_in_sample_rate=rate),
            cancel_on_idle_timeout=False,
            enable_rtvi=False,
        )
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await asyncio.wait_for(runner.run(), 60)  # it ends because the stream does
        audio = await sending
    pushed = [frame for frame in kept.frames if isinstance(frame, InputAudioRawFrame)]
    assert {(frame.sample_rate, frame.num_channels) for frame in pushed} == {(rate, 1)}
    heard = np.frombuffer(b"".join(frame.audio for frame in pushed), "<i2")
    wanted = resample(audio, 8000, rate)
    sure = len(wanted) - rate // 20  # where the key begins the last frame is concealed
    np.testing.assert_array_equal(heard[:sure], wanted[:sure])
    assert transport.missed == 0
    kinds = [type(frame) for frame in kept.frames if not isinstance(frame, InputAudioRawFrame)]
    assert kinds.count(VADUserStartedSpeakingFrame) >= 1
    assert kinds.count(VADUserStoppedSpeakingFrame) == kinds.count(VADUserStartedSpeakingFrame)
    assert kinds.count(InterruptionFrame) == 1
    assert [frame.button.value for frame in kept.frames if isinstance(frame, InputDTMFFrame)] == ["5"]
    assert isinstance(kept.frames[-1], EndFrame)
    first = kept.frames.index(next(frame for frame in kept.frames if isinstance(frame, VADUserStartedSpeakingFrame)))
    before = sum(len(f.audio) // 2 for f in kept.frames[:first] if isinstance(f, InputAudioRawFrame))
    said_s = (len(audio) - len(call()) // 160 * 160) / 8000 + 1
    assert 0.0 <= before / rate - said_s <= 0.3  # told while it is said


def test_what_does_not_fit_is_refused() -> None:
    stream: strep.Stream = None  # type: ignore[assignment]
    with pytest.raises(strep.ConfigurationError, match="audio_in_enabled"):
        StrepInputTransport(stream, TransportParams())
    with pytest.raises(strep.ConfigurationError, match="channel"):
        StrepInputTransport(stream, TransportParams(audio_in_enabled=True, audio_in_channels=2))
    with pytest.raises(strep.ConfigurationError, match="vad"):
        StrepInputTransport(stream, vad="loud")  # type: ignore[arg-type]
