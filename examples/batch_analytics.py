"""Who is loudest of thousands of calls: python batch_analytics.py [udp:ADDR:PORT] [SECONDS]

One call per tick with the blocks of all streams, end to end in one array: the cost hardly grows with the number of
calls.
"""

import asyncio
import sys

import numpy as np

import strep
from strep.sinks import BatchCallbackSink

ENERGY = np.zeros(20_000)  # by row of the stream: a stream's row is its own while it lives
NAMES: dict[int, str] = {}


def analyze(batch: strep.BlockBatch) -> None:
    if len(batch.samples):
        # sum of squares of each block, whatever their lengths
        squares = np.add.reduceat(np.square(batch.samples, dtype=np.float64), batch.offset[:-1])
        np.add.at(ENERGY, batch.index, squares)
    for stream in batch.streams:
        NAMES[stream.index] = f"{stream.name} {stream.direction.label}"


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    async with strep.Receiver(listen, sinks=[BatchCallbackSink(analyze)]) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        await asyncio.sleep(float(seconds))
    for row in sorted(NAMES, key=lambda row: -ENERGY[row])[:5]:
        print(f"{NAMES[row]}: {10 * np.log10(ENERGY[row] + 1):.1f} dB")


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
