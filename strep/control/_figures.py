"""What became of a client's requests, and how long they took. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

__all__ = ["LATENCY_S", "Latencies", "RequestFigures"]

# upper ends of the buckets in seconds; what took longer is in one more
LATENCY_S: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass
class Latencies:
    """How long the requests of an operation took: ``counts`` of each bucket (not summed up), ``total_s`` of all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_S) + 1))
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(LATENCY_S, seconds)] += 1
        self.total_s += seconds


class RequestFigures:
    """Every attempt counts: a command that is retried is several requests.

    ``outcomes``: how many by (operation, outcome), where an outcome is the status ("200", "429"), "timeout" or
    "connection" (none came). ``latencies``: by operation, from sending until the answer, or until it was given up.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.latencies: dict[str, Latencies] = {}

    def add(self, operation: str, outcome: str, seconds: float) -> None:
        self.outcomes[operation, outcome] += 1
        self.latencies.setdefault(operation, Latencies()).add(seconds)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Counts by operation and outcome, JSON-ready."""
        found: dict[str, dict[str, int]] = {}
        for (operation, outcome), count in sorted(self.outcomes.items()):
            found.setdefault(operation, {})[outcome] = count
        return found
