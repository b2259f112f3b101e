"""Level, loss and jitter, once a second: python monitor.py [udp:ADDR:PORT] [SECONDS]"""

import asyncio
import sys

import strep
from strep.sinks import LevelMeter


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    meter = LevelMeter()
    async with strep.Receiver(listen, sinks=[meter]) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        for _ in range(round(float(seconds))):
            await asyncio.sleep(1)
            totals = receiver.totals()
            print(
                f"{receiver.live_streams} streams, {totals.datagrams} datagrams, {totals.kernel_dropped} kernel drops"
            )
            for report in receiver.top(3, "lost"):  # only those: cheap with thousands
                level = meter.snapshot(report.stream)
                dbfs = level.last_rms_dbfs if level else -120
                print(f"  {report.stream.name} {report.stream.direction.label}: {report.packets_lost} lost,"
                      f" jitter {report.jitter_ms_last:.1f} ms, {dbfs:.0f} dBFS")  # fmt: skip


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
