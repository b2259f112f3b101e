"""Simulated forks: calls with speech over real UDP, impaired on purpose, with the truth told."""

from .calls import make_traffic
from .impair import Impairments
from .sender import SimulationReport, play, simulate
from .traffic import Traffic
from .truth import StreamTruth

__all__ = ["Impairments", "SimulationReport", "StreamTruth", "Traffic", "make_traffic", "play", "simulate"]
