"""The last ten seconds of every stream, at any moment: python last_seconds.py [udp:ADDR:PORT] [SECONDS]"""

import asyncio
import sys

import numpy as np

import strep
from strep.sinks import ArraySink


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    kept = ArraySink(seconds=10, dtype="float32")
    async with strep.Receiver(listen, sinks=[kept]) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        await asyncio.sleep(float(seconds))
        for report in receiver.reports():
            audio = kept.get(report.stream)  # a copy: yours
            level = (
                20 * np.log10(np.sqrt(np.mean(audio.samples[audio.received] ** 2)) + 1e-6)
                if audio.received.any()
                else -120
            )
            print(f"{report.stream.name} {report.stream.direction.label}: {len(audio.samples) / audio.rate:.2f} s"
                  f" from {audio.position / audio.rate:.2f} s on, {level:.0f} dBFS")  # fmt: skip


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
