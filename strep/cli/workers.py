"""What `strep capture --workers` has its workers do. They import this module, and nothing that draws tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._workers import post_event
from ..resample import prepare
from ..sinks import Sink, WavSink
from .events import EventSink

__all__ = ["WorkerSinks"]


@dataclass(frozen=True)
class WorkerSinks:
    """Makes a worker's sinks."""

    out: Path | None
    wav: dict[str, Any]  # WavSink's arguments
    as_json: bool

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.out is not None and (self.wav["rate"] is not None or self.wav["layout"] != "split"):
            prepare()  # once, where workers are forked from, instead of in each

    def __call__(self, index: int) -> list[Sink]:
        sinks: list[Sink] = []
        if self.out is not None:
            sinks.append(WavSink(self.out, **self.wav))
        if self.as_json:
            sinks.append(EventSink(post_event))
        return sinks
