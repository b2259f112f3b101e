"""A receiver that only decodes: every stream's samples as arrays, in the loop's thread, and nothing kept.

``python -m strep.bench._arrays`` speaks like ``strep capture --json``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from .._blocks import BlockBatch
from .._receiver import Receiver
from ..sinks import BaseSink

__all__ = ["main"]


class _Decode(BaseSink):
    inline = True

    def __init__(self) -> None:
        self.frames = 0

    def blocks(self, batch: BlockBatch) -> None:
        self.frames += len(batch.samples)


async def _run(address: str) -> int:
    sink = _Decode()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Receiver(address, sinks=[sink]) as receiver:
        listening = [{"address": s.address} for s in receiver.sockets]
        print(json.dumps({"event": "listening", "sockets": listening}), flush=True)
        await stop.wait()
    print(json.dumps({"event": "summary", **receiver.summary(), "frames": sink.frames}))
    return 0


def main() -> int:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run("127.0.0.1:0"))


if __name__ == "__main__":
    sys.exit(main())
