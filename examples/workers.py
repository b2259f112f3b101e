"""Record with two processes on one port into calls/: python workers.py [udp:ADDR:PORT] [SECONDS]"""

import asyncio
import sys

import strep
from strep.sinks import Sink, WavSink


def sinks(worker: int) -> list[Sink]:
    # called in each worker; all of a call leg comes to one of them, so they may share a directory
    return [WavSink("calls")]


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    async with strep.Supervisor(listen, workers=2, sinks=sinks) as supervisor:
        print("listening on", supervisor.sockets[0].address, flush=True)
        await asyncio.sleep(float(seconds))
        for worker in supervisor.workers:
            print(f"worker {worker.index}: {worker.state}, {worker.restarts} restarts")
    summary = supervisor.summary()
    print(f"{summary['totals']['delivered']} packets of {len(summary['streams'])} streams delivered")


if __name__ == "__main__":  # workers import this file
    strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
