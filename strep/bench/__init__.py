"""What this machine carries: loads from one core, the receiver on another, every answer checked."""

from ._machine import Machine, machine
from ._outcome import Outcome, Spread
from ._settings import Settings
from .restart import Restart, measure_restart
from .steering import Steering, measure_steering
from .workloads import WORKLOADS, WRITING, run_workload

__all__ = [
    "WORKLOADS",
    "WRITING",
    "Machine",
    "Outcome",
    "Restart",
    "Settings",
    "Spread",
    "Steering",
    "machine",
    "measure_restart",
    "measure_steering",
    "run_workload",
]
