"""What a workload found: rows for people, all figures for machines, and what was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

__all__ = ["Cell", "Outcome", "Spread", "spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure that was measured several times."""

    median: float
    low: float
    high: float
    runs: int


Cell = str | int | float | Spread | None


def spread(values: Sequence[float]) -> Spread | None:
    """None of no values."""
    if not values:
        return None
    return Spread(median(values), min(values), max(values), len(values))


@dataclass(slots=True)
class Outcome:
    workload: str
    title: str
    columns: Sequence[str]
    rows: list[list[Cell]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # answers that were not right; empty: everything was
    notes: list[str] = field(default_factory=list)
    file_system: str | None = None  # that files were written to; None: the workload writes none
    data: dict[str, Any] = field(default_factory=dict)  # every single measurement, JSON-ready

    def as_dict(self) -> dict[str, Any]:
        return {
            "workload": self.workload,
            "title": self.title,
            "columns": list(self.columns),
            "rows": [[_plain(cell) for cell in row] for row in self.rows],
            "wrong": self.wrong,
            "notes": self.notes,
            "file_system": self.file_system,
            "data": self.data,
        }


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Spread):
        return {"median": cell.median, "low": cell.low, "high": cell.high, "runs": cell.runs}
    return cell
