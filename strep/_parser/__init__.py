"""Bytes to columns and back. Knows no clock, socket or stream."""

from .batch import parse_apart, parse_batch
from .build import build_datagram, write_headers
from .columns import PacketColumns
from .layout import Status
from .scalar import Inspection, Packet, classify, inspect_datagram, parse_datagram

__all__ = [
    "Inspection",
    "Packet",
    "PacketColumns",
    "Status",
    "build_datagram",
    "classify",
    "inspect_datagram",
    "parse_apart",
    "parse_batch",
    "parse_datagram",
    "write_headers",
]
