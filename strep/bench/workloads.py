"""All workloads by name. A workload's module is imported when it is run."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

from .._model.exceptions import ConfigurationError
from ._disk import file_system_of
from ._machine import core_pair
from ._outcome import Outcome
from ._settings import Settings

__all__ = ["WORKLOADS", "WRITING", "run_workload"]


def _of_module(name: str) -> Callable[[Settings], Outcome]:
    def measure(settings: Settings) -> Outcome:
        outcome: Outcome = import_module(f".{name}", __package__).measure(settings)
        return outcome

    return measure


WORKLOADS: Final[dict[str, tuple[str, Callable[[Settings], Outcome]]]] = {
    "stages": ("ns per packet of each stage by batch size, from memory", _of_module("stages")),
    "zero-loss": ("the highest rate without loss on one core", _of_module("search")),
    "ratio": ("CPU per packet beside a C program that only receives", _of_module("ratio")),
    "pairs": ("10 to 2,000 rx/tx pairs beside as many calls on one port", _of_module("pairs")),
    "growth": ("CPU per packet from 10 to 20,000 streams; a small user; idle", _of_module("growth")),
    "latency": ("from intended sending to the consumer", _of_module("latency")),
    "impairment": ("loss, duplicates, reordering, wraps, SSRC changes: exact, and how dear", _of_module("impairment")),
    "burst": ("thousands of calls begin within a second, each with its file", _of_module("burst")),
    "churn": ("streams that come and go: does memory grow?", _of_module("churn")),
    "stalls": ("a sink or the event loop hangs", _of_module("stalls")),
    "workers": ("two processes on one port: steering, cost, a worker killed", _of_module("workers")),
    "offline": ("replay of a large capture", _of_module("offline")),
}

WRITING: Final = ("stages", "zero-loss", "ratio", "burst", "impairment", "churn", "offline")
"""Those whose figures depend on the disk."""


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
    outcome = WORKLOADS[name][1](settings)
    if name in WRITING:
        outcome.file_system = file_system_of(settings.place)
        outcome.title += f"; files on {outcome.file_system}"
    return outcome
