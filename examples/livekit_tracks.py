"""Every call as tracks in a LiveKit room: python livekit_tracks.py URL TOKEN [udp:ADDR:PORT] [SECONDS]"""

import asyncio
import sys

from livekit import rtc

import strep
from strep.integrations.livekit import publish_leg


async def main(url: str, token: str, listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    room = rtc.Room()
    await room.connect(url, token)  # the token lets it publish
    async with asyncio.TaskGroup() as tasks, strep.Receiver(listen) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        asyncio.get_running_loop().call_later(float(seconds), lambda: tasks.create_task(receiver.stop()))
        async for leg in receiver.legs():
            tasks.create_task(publish_leg(room, leg))
    await room.disconnect()


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
