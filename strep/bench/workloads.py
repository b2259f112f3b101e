"""All workloads by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .._model.exceptions import ConfigurationError
from . import churn, growth, impairment, latency, offline, ratio, search, stages, stalls, workers
from ._machine import core_pair
from ._outcome import Outcome
from ._settings import Settings

__all__ = ["WORKLOADS", "run_workload"]

WORKLOADS: Final[dict[str, tuple[str, Callable[[Settings], Outcome]]]] = {
    "stages": ("ns per packet of each stage by batch size, from memory", stages.measure),
    "zero-loss": ("the highest rate without loss on one core", search.measure),
    "ratio": ("CPU per packet beside a C program that only receives", ratio.measure),
    "growth": ("CPU per packet from 10 to 20,000 streams; a small user; idle", growth.measure),
    "latency": ("from intended sending to the consumer", latency.measure),
    "impairment": ("loss, duplicates, reordering, wraps, SSRC changes: exact, and how dear", impairment.measure),
    "churn": ("streams that come and go: does memory grow?", churn.measure),
    "stalls": ("a sink or the event loop hangs", stalls.measure),
    "workers": ("two processes on one port: steering, cost, a worker killed", workers.measure),
    "offline": ("replay of a large capture", offline.measure),
}


def run_workload(name: str, settings: Settings | None = None) -> Outcome:
    """Measure one workload. Blocks for a minute to a quarter of an hour.

    Raises ConfigurationError for an unknown name or a machine that cannot measure, MeasurementError.
    """
    if name not in WORKLOADS:
        raise ConfigurationError(f"no workload {name!r}: choose from {', '.join(WORKLOADS)}")
    core_pair()
    settings = settings or Settings()
    if settings.runs is not None and settings.runs < 1:
        raise ConfigurationError(f"{settings.runs} runs: at least one")
    return WORKLOADS[name][1](settings)
