"""What `strep capture --workers` has its workers do. They import this module, and nothing that draws tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._workers import post_event
from ..sinks import Sink
from .events import EventSink
from .output import Output

__all__ = ["WorkerSinks"]


@dataclass(frozen=True)
class WorkerSinks:
    """Makes a worker's sinks."""

    out: Path | None
    output: Output
    as_json: bool

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.output.warm_up()  # once, where workers are forked from, instead of in each

    def __call__(self, index: int) -> list[Sink]:
        sinks = self.output.sinks(self.out)
        if self.as_json:
            sinks.append(EventSink(post_event))
        return sinks
