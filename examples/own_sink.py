"""A sink of your own: python own_sink.py [udp:ADDR:PORT] [SECONDS]

It is called from a thread of its own, behind a bounded queue: what it does may take its time. When it is too slow, its
own blocks are dropped and counted; when it raises, it is taken out and reported. The receiver never notices.
"""

import asyncio
import sys

import strep
from strep.sinks import BaseSink


class GapLog(BaseSink):
    kind = "gap-log"

    def stream_started(self, stream: strep.StreamInfo) -> None:
        print(f"{stream.name} {stream.direction.label} from {stream.source[0]}", flush=True)

    def blocks(self, batch: strep.BlockBatch) -> None:
        for i in batch.gap_frames.nonzero()[0].tolist():
            stream, cause = batch.streams[i], strep.GapCause(int(batch.gap_cause[i]))
            at = (batch.position[i] - batch.gap_frames[i]) / stream.sample_rate
            print(f"{stream.name} at {at:.2f} s: {batch.gap_frames[i]} samples of {cause.label}")

    def stream_ended(self, stream: strep.StreamInfo, report: strep.StreamReport) -> None:
        print(f"{stream.name} {stream.direction.label} ended ({report.end}): {report.packets_lost} lost")


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    async with strep.Receiver(listen, sinks=[GapLog()]) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        await asyncio.sleep(float(seconds))


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
