"""Figures of several processes as one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._model.report import Totals

__all__ = ["WORKER_DIED", "merge_sinks", "merge_totals", "totals_of_the_dead"]

WORKER_DIED = "worker_died"


def merge_totals(all_totals: Iterable[dict[str, Any]]) -> Totals:
    """Sums, cause by cause. ``kernel_dropped`` and ``after_end`` stay 0: the parent knows them from its sockets."""
    merged = Totals()
    for totals in all_totals:
        for name in Totals.__slots__:
            value = totals[name]
            if isinstance(value, dict):
                by = getattr(merged, name)
                for cause, count in value.items():
                    by[cause] = by.get(cause, 0) + count
            elif name not in ("kernel_dropped", "after_end"):
                setattr(merged, name, getattr(merged, name) + value)
    for name in ("malformed_by", "rejected_by", "dropped_by", "unused_copies_by", "faults"):
        setattr(merged, name, dict(sorted(getattr(merged, name).items())))
    return merged


def totals_of_the_dead(totals: dict[str, Any]) -> dict[str, Any]:
    """The last totals of a worker that died: what waited in its buffers is dropped, and its streams have ended."""
    waiting = totals["buffered"]
    dropped_by = dict(totals["dropped_by"])
    if waiting:
        dropped_by[WORKER_DIED] = dropped_by.get(WORKER_DIED, 0) + waiting
    return {
        **totals,
        "buffered": 0,
        "dropped": totals["dropped"] + waiting,
        "dropped_by": dropped_by,
        "streams_ended": totals["streams_started"],
    }


def merge_sinks(all_reports: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Reports of sinks of one kind become one: numbers are added, also within dicts; of messages the first is kept."""
    merged: dict[tuple[str, int], dict[str, Any]] = {}
    for reports in all_reports:
        seen: dict[str, int] = {}
        for report in reports:
            kind = str(report.get("kind"))
            number = seen[kind] = seen.get(kind, 0) + 1  # a worker may have several of a kind
            into = merged.setdefault((kind, number), {})
            for name, value in report.items():
                into[name] = _added(into.get(name), value)
    return list(merged.values())


def _added(old: Any, new: Any) -> Any:
    if old is None:
        return new
    if isinstance(new, bool) or isinstance(old, bool):
        return old or new
    if isinstance(new, int | float) and isinstance(old, int | float):
        return old + new
    if isinstance(new, dict) and isinstance(old, dict):
        return {**old, **{name: _added(old.get(name), value) for name, value in new.items()}}
    return old
