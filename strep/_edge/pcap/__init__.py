"""Capture files in and out, in batches. Floor 5."""

from .reader import PcapReader
from .writer import PcapWriter

__all__ = ["PcapReader", "PcapWriter"]
