"""What workers in tests make their sinks with: functions that can be imported by name."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import strep
from strep._workers.messages import post_event
from strep.sinks import BaseSink, MutedSink, Sink, WavSink


class Telling(BaseSink):
    """Tells the parent which worker a stream came to."""

    wants_audio = False

    def __init__(self, index: int) -> None:
        self._index = index

    def stream_started(self, stream: strep.StreamInfo) -> None:
        call = str(stream.call_leg_id or stream.ssrc)
        post_event({"worker": self._index, "call": call, "direction": stream.direction.label, "process": os.getpid()})


@dataclass(frozen=True)
class Recording:
    out: Path
    layout: str = "split"
    encoding: str = "pcm16"

    def __call__(self, index: int) -> list[Sink]:
        return [WavSink(self.out, layout=self.layout, encoding=self.encoding), Telling(index)]  # type: ignore[arg-type]


@dataclass(frozen=True)
class RecordingMuted:
    """Recordings behind a sink that takes the keys out."""

    out: Path

    def __call__(self, index: int) -> list[Sink]:
        return [MutedSink([WavSink(self.out)])]


def raising(index: int) -> list[Sink]:
    raise KeyError("no such thing")


def contradicting(index: int) -> list[Sink]:
    return [WavSink("never", layout="stereo", encoding="native")]


def dying(index: int) -> list[Sink]:
    """Worker 1 ends itself soon after its start, again and again."""
    if index == 1:
        timer = threading.Timer(0.2, os._exit, [3])
        timer.daemon = True
        timer.start()
    return []


class Failing(BaseSink):
    def stream_started(self, stream: strep.StreamInfo) -> None:
        raise RuntimeError("this sink cannot")


def failing(index: int) -> list[Sink]:
    return [Failing()]


@dataclass(frozen=True)
class Stuck:
    """The first process of worker 1 cannot go on; its successors can. ``how``: "pump", "loop" or "silent"."""

    how: str
    mark: Path  # made by the first one

    def __call__(self, index: int) -> list[Sink]:
        if index == 1 and not self.mark.exists():
            self.mark.write_text(str(os.getpid()))
            _break(self.how)
        return []


def _break(how: str) -> None:
    """In this process, half a second from now."""
    from strep._workers.board import Board
    from strep._workers.worker import AdoptingReceiver

    began = time.monotonic()

    def broken() -> bool:
        return time.monotonic() - began > 0.5

    if how == "silent":
        publish = Board.publish

        def nothing(self: Board, *arguments: Any) -> None:
            if not broken():
                publish(self, *arguments)

        Board.publish = nothing  # type: ignore[method-assign]
        return
    poll = AdoptingReceiver._poll

    def stand_still(self: AdoptingReceiver) -> None:
        if not broken():
            poll(self)
        elif how == "loop":
            time.sleep(3600)

    AdoptingReceiver._poll = stand_still  # type: ignore[method-assign]
