"""JSON Schema (2020-12) of what strep writes: events, ``leg.json``, ``summary.json``, the header of a wire message."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Final

__all__ = ["NAMES", "schema"]

NAMES: Final = ("event", "leg", "summary", "wire-header")


def schema(name: str) -> dict[str, Any]:
    """One of :data:`NAMES`. Raises KeyError for others."""
    if name not in NAMES:
        raise KeyError(f"{name!r}: one of {', '.join(NAMES)}")
    found: dict[str, Any] = json.loads((resources.files(__name__) / f"{name}.json").read_text(encoding="utf-8"))
    return found
