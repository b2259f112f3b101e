"""How long and how often workloads are measured."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """``quick``: answers in a minute or so a workload, from fewer and shorter runs."""

    quick: bool = False
    runs: int | None = None  # None: the workload's own number
    directory: str | os.PathLike[str] | None = None  # where files go until they are checked; None: the temporary one
    streams: int = 4000  # of the workload "ratio"
    rate: float = 250_000.0
    duration_s: float = 10.0
    transport: str = "auto"  # of the workload "ratio": how strep reads
    progress: Callable[[str], None] = lambda text: None

    def repeat(self, usual: int, quick: int = 1) -> int:
        return self.runs or (quick if self.quick else usual)

    @contextmanager
    def work(self) -> Iterator[Path]:
        """A directory that is gone at the end."""
        with tempfile.TemporaryDirectory(prefix="strep-bench-", dir=self.directory) as name:
            yield Path(name)
