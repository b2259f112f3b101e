"""What workers are told when they start."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .._model.exceptions import ConfigurationError, StrepError
from .._receiver.settings import LATENCY_MS, LATENCY_WITHOUT_SINKS_MS, Settings
from ..sinks.base import Sink

__all__ = ["PostEvent", "PostingSinks", "SinkMaker", "WorkerSpec", "recording_of"]

PostEvent = Callable[[dict[str, Any]], None]
"""Sends an event from a worker to its parent, where ``Supervisor.on_event`` gets it."""


class PostingSinks(ABC):
    """Makes the sinks of a worker; some of them have something to tell the parent."""

    @abstractmethod
    def make(self, index: int, post_event: PostEvent) -> Sequence[Sink]:
        """The sinks of worker ``index``. ``post_event`` may be called from any thread, and does not block."""


SinkMaker = Callable[[int], Sequence[Sink]] | PostingSinks


@dataclass(frozen=True)
class WorkerSpec:
    """The same for all workers. It is pickled."""

    settings: tuple[Settings, ...]  # by index of the worker; ports are those that are bound
    sinks: SinkMaker | None
    log_level: int = logging.WARNING

    @property
    def rows(self) -> int:
        """Streams that a worker may have at the same time."""
        return self.settings[0].max_streams

    def settings_of(self, index: int, generation: int, *, sinks: bool) -> Settings:
        """What a worker's receiver is made of. ``generation`` counts the processes of that worker, from 1; ``sinks``
        says whether it has any, for they decide the default latency."""
        own = self.settings[index]
        if own.latency_ms is None:
            own = replace(own, latency_ms=LATENCY_MS if sinks else LATENCY_WITHOUT_SINKS_MS)
        return own if own.pcap is None else replace(own, pcap=recording_of(Path(own.pcap), index, generation))

    def make_sinks(self, index: int, post_event: PostEvent) -> list[Sink]:
        """Raises ConfigurationError if that fails."""
        if self.sinks is None:
            return []
        try:
            if isinstance(self.sinks, PostingSinks):
                return list(self.sinks.make(index, post_event))
            return list(self.sinks(index))
        except StrepError:
            raise
        except Exception as error:
            raise ConfigurationError(f"sinks failed in worker {index}: {type(error).__name__}: {error}") from error


def recording_of(path: Path, index: int, generation: int) -> Path:
    """FILE-stem.INDEX.pcap; a process that replaces a dead one takes the next free name."""
    own = path.with_name(f"{path.stem}.{index}{path.suffix}")
    number = 2
    while generation > 1 and own.exists():
        own = path.with_name(f"{path.stem}.{index}-{number}{path.suffix}")
        number += 1
    return own
