"""A pipecat pipeline for each stream: python pipecat_input.py [udp:ADDR:PORT] [SECONDS]"""

import asyncio
import sys

from pipecat.frames.frames import Frame, InputAudioRawFrame, VADUserStartedSpeakingFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

import strep
from strep.integrations.pipecat import StrepInputTransport


class Listener(FrameProcessor):  # in its place: a recognizer, a model, whatever answers
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, VADUserStartedSpeakingFrame):
            print("somebody speaks", flush=True)
        if not isinstance(frame, InputAudioRawFrame):  # 20 ms each, at the pipeline's rate
            await self.push_frame(frame, direction)


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    async with asyncio.TaskGroup() as tasks, strep.Receiver(listen) as receiver:
        print("listening on", receiver.sockets[0].address, flush=True)
        asyncio.get_running_loop().call_later(float(seconds), lambda: tasks.create_task(receiver.stop()))
        async for stream in receiver:
            runner = WorkerRunner(handle_sigint=False)  # ends with its stream
            await runner.add_workers(PipelineWorker(Pipeline([StrepInputTransport(stream), Listener()])))
            tasks.create_task(runner.run())


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
