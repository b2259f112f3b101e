"""The events of an engine: streams begin and end, faults, limits, notices, blocks."""

from __future__ import annotations

from dataclasses import dataclass

from .blocks import BlockBatch
from .report import StreamReport
from .types import StreamEvent, StreamInfo

__all__ = ["Ended", "Event", "Fault", "Limited", "Notice", "Started"]


@dataclass(frozen=True, slots=True)
class Started:
    """A stream begins."""

    stream: StreamInfo


@dataclass(frozen=True, slots=True)
class Ended:
    """A stream has ended; these are its last figures."""

    stream: StreamInfo
    report: StreamReport


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about a stream that is worth one line. It is told once, and stands in the notes of the stream too."""

    stream: StreamInfo
    text: str


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception that was contained. It cost ``packets``, of ``stream`` if it was that of one."""

    place: str  # a short constant of ours: "insert", "place", "decode", ...
    error: Exception
    stream: StreamInfo | None = None
    packets: int = 0


@dataclass(frozen=True, slots=True)
class Limited:
    """New streams are being refused. ``limit`` says why: "streams", there are as many as are allowed; or "source", one
    address begins them too fast. ``address``: where one of them comes from."""

    limit: str
    address: str


Event = Started | Ended | Notice | Fault | Limited | StreamEvent | BlockBatch
