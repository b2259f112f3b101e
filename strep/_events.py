"""What an engine tells: streams that begin and end, notices, blocks. Floor 3."""

from __future__ import annotations

from dataclasses import dataclass

from ._blocks import BlockBatch
from ._report import StreamReport
from ._types import StreamEvent, StreamInfo

__all__ = ["Ended", "Event", "Notice", "Started"]


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


Event = Started | Ended | Notice | StreamEvent | BlockBatch
