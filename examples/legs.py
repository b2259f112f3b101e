"""Both sides of each call in one array, and who talks: python legs.py [udp:ADDR:PORT] [SECONDS]"""

import asyncio
import sys

import numpy as np

import strep


async def consume(leg: strep.CallLeg) -> None:
    talk = np.zeros(2)  # seconds in which each side is loud
    both = total = 0.0
    async for frame in leg.frames(ms=20, rate=8000, dtype="float32"):  # frame.samples: (2, 160), at the same time
        loud = np.square(frame.samples).mean(axis=1) > 1e-5
        talk += 0.02 * loud
        both += 0.02 * bool(loud.all())
        total += 0.02
    print(f"{leg.name}: {total:.1f} s, inbound {talk[0]:.1f} s, outbound {talk[1]:.1f} s, both at once {both:.1f} s")


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    async with asyncio.TaskGroup() as tasks, strep.Receiver(listen) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        asyncio.get_running_loop().call_later(float(seconds), lambda: tasks.create_task(receiver.stop()))
        async for leg in receiver.legs():
            tasks.create_task(consume(leg))


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
