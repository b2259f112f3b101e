"""Streams that another machine receives: the same streams, frames, events, sinks and analyzers, heard through NATS.

::

    async with strep.remote.Receiver("nats://127.0.0.1:4222", group="asr") as receiver:
        async for stream in receiver:
            asyncio.create_task(consume(stream))
"""

from .receiver import Receiver, RemoteFigures

__all__ = ["Receiver", "RemoteFigures"]
