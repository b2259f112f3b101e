"""Key presses without their digits: card numbers and PINs are not everybody's."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from .types import StreamEvent

__all__ = ["REDACTED", "redacted"]

REDACTED: Final = "•"


def redacted(event: StreamEvent) -> StreamEvent:
    """The same event without the digit, when it is a key press (card numbers, PINs)."""
    if event.kind != "dtmf" or event.data.get("digit") == REDACTED:
        return event
    return replace(event, data={**event.data, "digit": REDACTED})
