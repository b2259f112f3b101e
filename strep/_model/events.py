"""What an engine tells: streams that begin and end, notices, blocks."""

from __future__ import annotations

from dataclasses import dataclass

from .blocks import BlockBatch
from .report import StreamReport
from .types import StreamEvent, StreamInfo

__all__ = ["Ended", "Event", "Fault", "Limited", "Notice", "Started"]


@dataclass(frozen=True, slots=True)
class Started:
    stream: StreamInfo


@dataclass(frozen=True, slots=True)
class Ended:
    stream: StreamInfo
    report: StreamReport


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about a stream that is worth one line, said once."""

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
    """New streams are being refused: ``limit`` is "streams", there are as many as may be, or "source", one address
    begins them faster than may be. ``address`` is where one of them comes from."""

    limit: str
    address: str


Event = Started | Ended | Notice | Fault | Limited | StreamEvent | BlockBatch
