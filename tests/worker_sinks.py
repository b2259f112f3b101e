"""What workers in tests make their sinks with: functions that can be imported by name."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import strep
from strep._receiver.settings import Settings
from strep._workers.spec import PostEvent, PostingSinks
from strep.sinks import BaseSink, MutedSink, Sink, WavSink


class Telling(BaseSink):
    """Tells the parent which worker a stream came to."""

    wants_audio = False

    def __init__(self, index: int, post_event: PostEvent) -> None:
        self._index = index
        self._post_event = post_event

    def stream_started(self, stream: strep.StreamInfo) -> None:
        call = str(stream.call_leg_id or stream.ssrc)
        event = {"worker": self._index, "call": call, "direction": stream.direction.label, "process": os.getpid()}
        self._post_event(event)


@dataclass(frozen=True)
class Recording(PostingSinks):
    out: Path
    layout: str = "split"
    encoding: str = "pcm16"

    def make(self, index: int, post_event: PostEvent) -> list[Sink]:
        files = WavSink(self.out, layout=self.layout, encoding=self.encoding)  # type: ignore[arg-type]
        return [files, Telling(index, post_event)]


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
        timer = threading.Timer(0.5, os._exit, [3])
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
    from strep._receiver.pump import Pump
    from strep._workers.board import Board

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
    poll = Pump._poll

    def stand_still(self: Pump) -> None:
        if not broken():
            poll(self)
        elif how == "loop":
            time.sleep(3600)

    Pump._poll = stand_still  # type: ignore[method-assign]


class ShowingSettings(PostingSinks):
    """Each worker posts the settings of its receiver."""

    def make(self, index: int, post_event: PostEvent) -> list[Sink]:
        make = strep.Receiver.of

        def show(settings: Settings, *arguments: Any, **options: Any) -> strep.Receiver:
            post_event({"worker": index, "settings": settings})
            return make(settings, *arguments, **options)

        strep.Receiver.of = show  # type: ignore[method-assign]
        return []
