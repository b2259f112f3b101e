"""Newline-delimited JSON events on stdout, for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._model.report import StreamReport
from .._model.types import StreamEvent, StreamInfo
from .._threads.worker_queue import WorkerQueue
from ..sinks import BaseSink

if TYPE_CHECKING:
    from .._receiver.receiver import Receiver
    from .._workers import Supervisor

__all__ = ["EventSink", "EventWriter", "emit", "tell_incidents"]


def emit(event: dict[str, Any]) -> None:
    """One event, one line, at once. Who closed the pipe no longer listens."""
    try:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115  # nothing more can be said


async def tell_incidents(receiver: Receiver | Supervisor, write: Callable[[dict[str, Any]], None]) -> None:
    """Tell what happens to a receiver itself, until it has stopped."""
    async for incident in receiver.incidents():
        write(incident.as_dict())


class EventSink(BaseSink):
    """``stream_started`` and ``stream_ended`` as they happen. Has a thread of its own: a reader may be slow."""

    kind = "events"
    wants_audio = False

    def __init__(self, write: Callable[[dict[str, Any]], None] = emit) -> None:
        self._write = write

    def stream_started(self, stream: StreamInfo) -> None:
        self._write(
            {
                "event": "stream_started",
                "call_leg_id": str(stream.call_leg_id) if stream.call_leg_id else None,
                "name": stream.name,
                "leg": stream.leg.label,
                "direction": stream.direction.label,
                "ssrc": stream.ssrc,
                "payload_type": stream.payload_type,
                "source": f"{stream.source[0]}:{stream.source[1]}",
                "local_port": stream.local_port,
                "first_arrival_ns": stream.first_arrival_ns,
            }
        )

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        self._write({"event": "stream_ended", **report.as_dict()})

    def event(self, event: StreamEvent) -> None:
        self._write(event.as_dict())


class EventWriter:
    """Call it with events; a thread prints them in order, so that a slow reader holds up nobody who looks after
    workers."""

    def __init__(self) -> None:
        self._queue = WorkerQueue(emit, name="strep-events")

    def __call__(self, event: dict[str, Any]) -> None:
        self._queue.put(event)

    def close(self, timeout_s: float = 1.0) -> None:
        """Wait until all are printed, but no longer than ``timeout_s``."""
        self._queue.close(timeout_s)
