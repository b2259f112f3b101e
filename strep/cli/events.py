"""Newline-delimited JSON events on stdout, for machines."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

from .._model.report import StreamReport
from .._model.types import StreamEvent, StreamInfo
from .._threads.incidents import Incident
from .._threads.worker_queue import WorkerQueue
from ..sinks.base import BaseSink

__all__ = ["EventSink", "EventWriter", "emit", "events_lost", "write_incidents"]

log = logging.getLogger("strep")

_LAST_EVENTS_S: Final = 30.0  # for a reader that is slow
_unprinted = False


def emit(event: dict[str, Any]) -> None:
    """Print an event as one line, at once. When the reader has closed the pipe, or the disk takes no more of it (which
    is said), nothing is printed any more."""
    try:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _print_no_more()
    except OSError as error:
        _print_no_more()
        global _unprinted
        _unprinted = True
        log.error("events cannot be printed any more: %s", error)  # noqa: TRY400  # a full disk is no bug


def _print_no_more() -> None:
    nothing = open(os.devnull, "w")  # noqa: SIM115
    with contextlib.suppress(OSError, ValueError):  # what is left in the buffer goes there too, or fails at the end
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    sys.stdout = nothing


def events_lost() -> bool:
    """Whether some could not be printed, other than because nobody reads them."""
    return _unprinted


class IncidentSource(Protocol):
    """A receiver, or a supervisor."""

    def incidents(self) -> AsyncIterator[Incident]:
        """What happens to it, until it has stopped."""


async def write_incidents(source: IncidentSource, write: Callable[[dict[str, Any]], None]) -> None:
    """Write what happens to a receiver itself, until it has stopped."""
    async for incident in source.incidents():
        write(incident.as_dict())


class EventSink(BaseSink):
    """Writes when streams start and end, and what happens in them. It is not inline, as a reader may be slow."""

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
    """Call it with events: a thread prints them in order, so that a slow reader does not hold up the caller."""

    def __init__(self) -> None:
        self._queue = WorkerQueue(emit, name="strep-events")

    def __call__(self, event: dict[str, Any]) -> None:
        self._queue.put(event)

    def close(self, timeout_s: float = _LAST_EVENTS_S) -> None:
        """Wait until all are printed, for at most ``timeout_s``."""
        self._queue.close(timeout_s)
