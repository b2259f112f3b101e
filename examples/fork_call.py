"""Fork a call here while it lives, and listen: python fork_call.py CALL_CONTROL_ID IP[:PORT] [udp:ADDR:PORT] [SECONDS]

IP[:PORT] is where the platform reaches this machine. The key is taken from TELNYX_API_KEY; for the stand-in, which
`strep simulate --api 127.0.0.1:8080 --json` is, TELNYX_BASE_URL says where it is.
"""

import asyncio
import contextlib
import sys

import strep
from strep.control import CallControl


async def listen_to(stream: strep.Stream) -> None:
    seconds = 0.0
    async for frame in stream.frames(ms=20):
        seconds += len(frame.samples) / stream.info.sample_rate
    print(f"{stream.direction.label}: {seconds:.2f} s, {stream.report().packets_lost} packets lost")


async def main(call_control_id: str, advertise: str, listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    async with CallControl() as control, strep.Receiver(listen) as receiver, asyncio.TaskGroup() as tasks:
        fork = control.fork(call_control_id, receiver, advertise=advertise, on_event=lambda e: print(e.kind, e.text))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(seconds)), fork:  # stopped in the end, whatever happens
                async for stream in fork:  # until the call ends
                    tasks.create_task(listen_to(stream))


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
