"""Capture files in and out, in batches."""

from .annotated import AnnotatedWriter, Flow
from .reader import PcapReader
from .writer import PcapWriter

__all__ = ["AnnotatedWriter", "Flow", "PcapReader", "PcapWriter"]
