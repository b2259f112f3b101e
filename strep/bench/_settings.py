"""How long and how often workloads are measured."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .._model.exceptions import ConfigurationError
from ._disk import spread_directories

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """``quick``: answers in a minute or so a workload, from fewer and shorter runs."""

    quick: bool = False
    runs: int | None = None  # None: the workload's own number
    directory: str | os.PathLike[str] | None = None  # where files go until they are checked; None: the working one
    streams: int = 4000  # this and what follows: of the workload "ratio"
    rate: float = 250_000.0
    duration_s: float = 10.0
    transport: str = "auto"  # of the workload "ratio": how strep reads
    progress: Callable[[str], None] = lambda text: None

    def repeat(self, usual: int, quick: int = 1) -> int:
        return self.runs or (quick if self.quick else usual)

    @contextmanager
    def work(self) -> Iterator[Path]:
        """A directory that is gone at the end. Those that are made in it do not suffer from what was deleted before."""
        with tempfile.TemporaryDirectory(prefix="strep-bench-", dir=self.place) as name:
            spread_directories(Path(name))
            yield Path(name)

    @property
    def place(self) -> Path:
        """Where files go. Raises ConfigurationError if nothing can be written there."""
        place = Path.cwd() if self.directory is None else Path(self.directory)
        if not os.access(place, os.W_OK | os.X_OK):
            raise ConfigurationError(f"{place} cannot be written to: name a directory of a disk with --out")
        return place
