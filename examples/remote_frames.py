"""Frames of streams that other machines receive (`strep capture --nats URL`): python remote_frames.py [URL] [GROUP]"""

import asyncio
import contextlib
import signal
import sys

import strep
import strep.remote


async def consume(stream: strep.Stream) -> None:
    heard = lost = 0
    async for frame in stream.frames(ms=20, rate=16_000, dtype="float32"):
        heard += len(frame.samples)  # frame.samples: float32, shape (320,): give it to a model
        if frame.gap:
            lost += frame.gap.samples  # lost before it was received, or on the way here
    told = f"{heard / 16_000:.2f} s, {lost / 16:.0f} ms of them missing"
    print(f"{stream.name} {stream.direction.label}: {told}", flush=True)


async def main(url: str = "nats://127.0.0.1:4222", group: str = "asr") -> None:
    async with asyncio.TaskGroup() as tasks, strep.remote.Receiver(url, group) as receiver:
        print("listening to", url, "as one of", group, flush=True)
        async for stream in receiver:  # each call leg is heard by one of the group
            tasks.create_task(consume(stream))


signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell began it with &
signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # ends as Ctrl-C does
with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main(*sys.argv[1:]))
