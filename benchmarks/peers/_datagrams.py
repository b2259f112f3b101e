"""What the Python peers share: a socket, a loop, the two lines they say. What they do to a datagram is theirs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import zlib
from collections.abc import Callable

__all__ = ["Collector", "serve"]

_BUFFER = 8 << 20
_SO_RCVBUFFORCE = 33


class Collector(asyncio.DatagramProtocol):
    """Keeps every stream's payload bytes by SSRC; a peer's datagram_received fills them."""

    def __init__(self) -> None:
        self.datagrams = 0
        self.payloads: dict[int, bytearray] = {}

    def keep(self, ssrc: int, payload: bytes | bytearray) -> None:
        kept = self.payloads.get(ssrc)
        if kept is None:
            kept = self.payloads[ssrc] = bytearray()
        kept += payload


async def _run(collector: Collector) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except OSError:  # not allowed to: what the machine permits
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    receiver.bind(("127.0.0.1", 0))
    receiver.setblocking(False)
    transport, _ = await loop.create_datagram_endpoint(lambda: collector, sock=receiver)
    print(json.dumps({"port": receiver.getsockname()[1], "pids": [os.getpid()]}), flush=True)
    await stop.wait()
    transport.close()
    streams = {ssrc: [len(kept), zlib.crc32(kept)] for ssrc, kept in collector.payloads.items()}
    print(json.dumps({"datagrams": collector.datagrams, "streams": streams}), flush=True)


def serve(collector: Collector, loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
    """Receive on a port of its own until SIGTERM."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_run(collector))
