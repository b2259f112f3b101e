"""A task per stream, frames as speech recognition wants them: python frames.py [udp:ADDR:PORT] [SECONDS]"""

import asyncio
import sys

import strep


async def consume(stream: strep.Stream) -> None:
    heard = lost = 0
    async for frame in stream.frames(ms=20, rate=16_000, dtype="float32"):
        heard += len(frame.samples)  # frame.samples: float32, shape (320,): give it to a model
        if frame.gap:
            lost += frame.gap.samples  # these of them never came; they are zeros
    report = stream.report()
    print(f"{stream.name} {stream.direction.label}: {heard / 16_000:.2f} s, {lost / 16:.0f} ms of them missing,"
          f" {report.packets_lost} packets lost, jitter {report.jitter_ms_mean:.1f} ms")  # fmt: skip


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    async with asyncio.TaskGroup() as tasks, strep.Receiver(listen) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        asyncio.get_running_loop().call_later(float(seconds), lambda: tasks.create_task(receiver.stop()))
        async for stream in receiver:  # ends when the receiver stops
            tasks.create_task(consume(stream))


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
