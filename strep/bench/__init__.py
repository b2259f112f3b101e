"""What this machine carries: load on one core, the receiver on another, every answer checked. Floor 5."""

from ._machine import Machine, machine
from .capacity import Capacity, Trial, measure_capacity

__all__ = ["Capacity", "Machine", "Trial", "machine", "measure_capacity"]
