"""Capture files in and out, in batches."""

from .reader import PcapReader
from .writer import PcapWriter

__all__ = ["PcapReader", "PcapWriter"]
