"""What this machine carries: loads from one core, the receiver on another, every answer checked. Floor 5."""

from ._machine import Machine, machine
from ._outcome import Outcome, Spread
from ._settings import Settings
from .workloads import WORKLOADS, run_workload

__all__ = ["WORKLOADS", "Machine", "Outcome", "Settings", "Spread", "machine", "run_workload"]
