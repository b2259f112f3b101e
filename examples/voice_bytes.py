"""16-bit frames for voice frameworks that take bytes: python voice_bytes.py [udp:ADDR:PORT] [SECONDS]

What pipecat (InputAudioRawFrame: audio, sample_rate, num_channels) and LiveKit (rtc.AudioFrame: data, sample_rate,
num_channels, samples_per_channel) want is `frame.pcm`, 16-bit little-endian. AudioFrame stands in for either.
"""

import asyncio
import sys
from dataclasses import dataclass

import strep


@dataclass
class AudioFrame:
    audio: bytes
    sample_rate: int
    num_channels: int


class Bot:
    """Stands in for a pipeline: takes frames of 20 ms."""

    def __init__(self) -> None:
        self.bytes = 0
        self.frames = 0

    async def push_frame(self, frame: AudioFrame) -> None:
        assert len(frame.audio) == 2 * frame.sample_rate // 50 * frame.num_channels
        self.bytes += len(frame.audio)
        self.frames += 1


async def serve(stream: strep.Stream) -> None:
    bot = Bot()
    async for frame in stream.frames(ms=20, rate=16_000):
        await bot.push_frame(AudioFrame(frame.pcm, 16_000, 1))
    print(f"{stream.name} {stream.direction.label}: {bot.frames} frames, {bot.bytes} bytes")


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    async with asyncio.TaskGroup() as tasks, strep.Receiver(listen) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        asyncio.get_running_loop().call_later(float(seconds), lambda: tasks.create_task(receiver.stop()))
        async for stream in receiver:
            tasks.create_task(serve(stream))


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
