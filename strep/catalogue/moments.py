"""Moments as people type them. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from .._model.exceptions import ConfigurationError

__all__ = ["moment"]

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)(?:\s+ago)?")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_DAYS: Final = {"today": 0, "yesterday": -1}


def moment(text: str, now: datetime) -> int:
    """UTC nanoseconds of "yesterday 15:00", "today", "15:00", "2026-11-29", "2026-11-29 15:00", "2h" (ago), or an ISO
    time with a zone. Days and times without a zone are those of ``now``. Raises ConfigurationError."""
    words = text.strip().lower()
    ago = _AGO.fullmatch(words)
    try:
        if words == "now":
            found = now
        elif ago:
            found = now - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        else:
            found = _named(words, now) or _iso(text.strip(), now)
        return int(found.timestamp()) * 1_000_000_000 + found.microsecond * 1000
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f'time {text!r}: give one like "yesterday 15:00", "2h", "2026-11-29", or "2026-11-29T15:00:00Z"'
        ) from None


def _named(words: str, now: datetime) -> datetime | None:
    """A day by its name and a time, or a time of today."""
    day, _, clock = words.partition(" ")
    if day not in _DAYS:
        day, clock = "today", words
        if not _CLOCK.fullmatch(clock):
            return None
    found = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=_DAYS[day])
    if not clock:
        return found
    parts = _CLOCK.fullmatch(clock.strip())
    if parts is None:
        raise ValueError(clock)
    return found.replace(hour=int(parts[1]), minute=int(parts[2]), second=int(parts[3] or 0))


def _iso(text: str, now: datetime) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=now.tzinfo)
