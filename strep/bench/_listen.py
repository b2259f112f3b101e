"""Receivers that are measured beside ``strep capture``: ``python -m strep.bench._listen MODE [FILE]``.

They speak like ``strep capture --json``: a line when they listen, a summary at SIGTERM.

``arrays``      every stream's samples as arrays, in the loop's thread, and nothing kept
``iterate``     every stream iterated in 20 ms frames, latency 0; when each came goes to FILE
``ring``        a sink behind the jitter ring, latency 60 ms; when each packet came goes to FILE
``stall-sink``  like arrays, with a second sink that does nothing for 2 s once
``stall-loop``  like arrays, with an event loop that does nothing for 0.5 s once
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from .._delivery.stream import Stream
from .._model.blocks import BlockBatch
from .._receiver.receiver import Receiver
from .._workers.event_loop import loop_factory
from ..sinks.base import BaseSink, Sink

__all__ = ["RING_LATENCY_MS", "STALLED_LOOP_S", "STALLED_SINK_S", "Arrivals", "iterate", "main", "say_listening"]

RING_LATENCY_MS: Final = 60.0
STALLED_SINK_S: Final = 2.0
STALLED_LOOP_S: Final = 0.5
_BEFORE_STALL_S: Final = 1.0
_WARM_UP_S: Final = 1.5


class _DecodingSink(BaseSink):
    inline = True

    def __init__(self) -> None:
        self.frames = 0

    def blocks(self, batch: BlockBatch) -> None:
        self.frames += len(batch.samples)


class _StallingSink(BaseSink):
    """Has a thread of its own, and hangs in it."""

    kind = "stalled"

    def __init__(self) -> None:
        self.frames = 0
        self.stalled = False
        self._first = 0.0

    def blocks(self, batch: BlockBatch) -> None:
        now = time.monotonic()
        self._first = self._first or now
        if not self.stalled and now - self._first > _BEFORE_STALL_S:
            self.stalled = True
            time.sleep(STALLED_SINK_S)
        self.frames += len(batch.samples)

    def report(self) -> dict[str, Any]:
        return {"kind": self.kind, "failed": None, "dropped_frames": 0, "frames": self.frames, "stalled": self.stalled}


class Arrivals:
    """When each packet reached its consumer: CLOCK_MONOTONIC ns, SSRC, RTP timestamp."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray[Any, Any]] = []
        self._single: list[tuple[int, int, int]] = []

    def note(self, now_ns: int, ssrc: int, timestamp: int) -> None:
        self._single.append((now_ns, ssrc, timestamp))

    def note_batch(self, batch: BlockBatch) -> None:
        now_ns = time.monotonic_ns()
        ssrc = np.array([stream.ssrc for stream in batch.streams], np.int64)
        part = np.empty((len(batch.packet_frames), 3), np.int64)
        part[:, 0] = now_ns
        part[:, 1] = np.repeat(ssrc, np.diff(batch.packet_first))
        part[:, 2] = batch.packet_rtp_timestamp
        self._parts.append(part)

    def save(self, path: str) -> None:
        if self._single:
            self._parts.append(np.array(self._single, np.int64))
        np.save(path, np.concatenate(self._parts) if self._parts else np.zeros((0, 3), np.int64))


class _ArrivalSink(BaseSink):
    inline = True

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals

    def blocks(self, batch: BlockBatch) -> None:
        batch.samples  # noqa: B018  # a consumer wants them decoded
        self._arrivals.note_batch(batch)


async def iterate(receiver: Receiver, arrivals: Arrivals) -> None:
    """Iterate every stream, and note when each frame came, until the receiver stops."""
    consumers = [asyncio.create_task(_note_frames(stream, arrivals)) async for stream in receiver]
    await asyncio.gather(*consumers)


async def _note_frames(stream: Stream, arrivals: Arrivals) -> None:
    ssrc = stream.info.ssrc
    async for frame in stream.frames(ms=20):
        arrivals.note(time.monotonic_ns(), ssrc, frame.rtp_timestamp)


def say_listening(addresses: Sequence[str]) -> None:
    """Tell who measures, and let what lives from now on not be looked through again at each collection: as a service
    would once its calls are up."""
    print(json.dumps({"event": "listening", "sockets": [{"address": one} for one in addresses]}), flush=True)
    asyncio.get_running_loop().call_later(_WARM_UP_S, gc.freeze)


async def _run(mode: str, path: str) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    arrivals = Arrivals()
    decode = _DecodingSink()
    special: dict[str, list[Sink]] = {
        "iterate": [],
        "ring": [_ArrivalSink(arrivals)],
        "stall-sink": [decode, _StallingSink()],
    }
    sinks = special.get(mode, [decode])
    latency_ms = {"iterate": 0.0, "ring": RING_LATENCY_MS}.get(mode)
    async with Receiver("127.0.0.1:0", sinks=sinks, latency_ms=latency_ms) as receiver:
        iterating = asyncio.create_task(iterate(receiver, arrivals)) if mode == "iterate" else None
        say_listening([socket.address for socket in receiver.sockets])
        if mode == "stall-loop":
            while not receiver.totals().delivered and not stop.is_set():  # noqa: ASYNC110  # a measurement's own clock
                await asyncio.sleep(0.05)
            loop.call_later(_BEFORE_STALL_S, time.sleep, STALLED_LOOP_S)
        await stop.wait()
    if iterating is not None:
        await iterating
    if path:
        arrivals.save(path)
    summary = {"event": "summary", **receiver.summary()}
    if decode in sinks:
        summary["frames"] = decode.frames
    print(json.dumps(summary))
    return 0


def main(arguments: list[str] | None = None) -> int:
    mode, *rest = sys.argv[1:] if arguments is None else arguments
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(mode, rest[0] if rest else ""))


if __name__ == "__main__":
    sys.exit(main())
