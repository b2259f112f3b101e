"""Record every direction of every call leg: python record.py [udp:ADDR:PORT] [DIR] [SECONDS]"""

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import strep
from strep.sinks import WavSink


async def main(listen: str = "udp:0.0.0.0:9000", folder: str = "calls", seconds: str = "3600") -> None:
    async with strep.Receiver(listen, sinks=[WavSink(folder, layout="stereo")]) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C: the rest is to be done all the same
            await asyncio.sleep(float(seconds))
    # after the receiver has stopped, all files are complete
    summary = receiver.summary()
    Path(folder).mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # all is over
    Path(folder, "summary.json").write_text(json.dumps(summary, indent=1))  # noqa: ASYNC240
    for stream in summary["streams"]:
        print(stream["call_leg_id"], stream["direction"], f"{stream['duration_s']:.2f} s", *stream["files"])


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
