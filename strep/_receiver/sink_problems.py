"""What is wrong with sinks now, in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

__all__ = ["SinkProblems"]

_LATELY_S: Final = 60.0  # a stream that was refused is a problem for so long


class SinkProblems:
    """Remembers counters between calls, to tell whether they have grown lately. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: dict[str, tuple[int, float]] = {}  # by sink: how many streams so far, until when that counts

    def __call__(self, reports: Iterable[Mapping[str, Any]]) -> list[str]:
        """The problems that there are now, a sentence each, from the present reports of sinks. A report's ``problem``
        tells what is wrong now. A report without one has ``failed``: what is wrong for good."""
        problems = []
        for report in reports:
            kind = str(report.get("kind"))
            wrong = report["problem"] if "problem" in report else report.get("failed")
            if wrong:
                problems.append(f"sink {kind}: {wrong}")
            refused = int(report.get("refused_streams") or 0)
            if self._lately(kind, refused):
                problems.append(f"sink {kind}: streams were refused within the last minute, {refused} in all")
        return problems

    def _lately(self, kind: str, refused: int) -> bool:
        before, until = self._refused.get(kind, (0, 0.0))
        now = self._clock()
        if refused > before:
            until = now + _LATELY_S
        self._refused[kind] = refused, until
        return now < until
