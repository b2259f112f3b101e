"""The sinks of workers of `strep capture --workers`. Workers import this module, and nothing that draws tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._workers.spec import PostEvent, PostingSinks
from ..sinks.base import Sink
from .events import EventSink
from .output import Output

__all__ = ["WorkerSinks"]


@dataclass(frozen=True)
class WorkerSinks(PostingSinks):
    """Makes the sinks of a worker."""

    out: Path | None
    output: Output
    as_json: bool

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.output.warm_up()  # once, in the process that workers are forked from

    def make(self, index: int, post_event: PostEvent) -> list[Sink]:
        sinks = self.output.sinks(self.out)
        if self.as_json:
            sinks.append(EventSink(post_event))
        return sinks
