"""Simulated forks: calls with speech over real UDP, impaired on purpose, with the truth told."""

from .impair import Impairments
from .sender import SimulationReport, play, simulate
from .traffic import StreamTruth, Traffic, make_traffic

__all__ = ["Impairments", "SimulationReport", "StreamTruth", "Traffic", "make_traffic", "play", "simulate"]
