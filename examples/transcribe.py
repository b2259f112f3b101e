"""Windows of speech for a recognizer: python transcribe.py [udp:ADDR:PORT] [SECONDS]

Whisper wants float32 at 16 kHz, up to 30 s at once, best cut where nobody speaks. Frames of 20 ms are gathered while
somebody speaks and handed on after 0.5 s of silence, or when 30 s are full; then 1 s is kept, so that no word is cut.
`recognize` stands in for the model: it runs in a thread, and while it does frames wait (queue_s).
"""

import asyncio
import sys

import numpy as np
import numpy.typing as npt

import strep

F32 = npt.NDArray[np.float32]

RATE = 16_000
FRAME = 320
WINDOW, KEPT = 30 * RATE, RATE  # longest utterance; what the next one repeats of it
PAUSE = 25  # frames of silence that end an utterance


def recognize(samples: F32) -> str:
    return f"{len(samples) / RATE:.1f} s of speech at {10 * np.log10(np.square(samples).mean() + 1e-12):.0f} dBFS"


async def consume(stream: strep.Stream) -> None:
    said: list[np.ndarray] = []
    begin, quiet = 0, PAUSE

    async def hand_on() -> None:
        text = await asyncio.to_thread(recognize, np.concatenate(said))
        print(f"{stream.name} {stream.direction.label} at {begin / RATE:.2f} s: {text}", flush=True)

    async for frame in stream.frames(n=FRAME, rate=RATE, dtype="float32", queue_s=60):
        quiet = 0 if np.square(frame.samples).mean() > 1e-5 else quiet + 1
        if quiet < PAUSE:
            begin = begin if said else frame.position
            said.append(frame.samples)
        elif said:
            await hand_on()
            said.clear()
        if len(said) * FRAME >= WINDOW:
            await hand_on()
            del said[: -KEPT // FRAME]
            begin = frame.position + FRAME - KEPT
    if said:
        await hand_on()


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    async with asyncio.TaskGroup() as tasks, strep.Receiver(listen) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        asyncio.get_running_loop().call_later(float(seconds), lambda: tasks.create_task(receiver.stop()))
        async for stream in receiver:
            tasks.create_task(consume(stream))


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
