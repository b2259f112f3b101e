"""summary.json, written at once or not at all. Floor 5."""

from __future__ import annotations

import json
import os
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["write_summary"]


def write_summary(directory: str | PathLike[str], summary: dict[str, Any]) -> Path:
    """Write ``DIR/summary.json``: whoever reads it sees the old one or the new one, whole. Raises OSError."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "summary.json"
    partial = folder / f".summary.{os.getpid()}.json"
    partial.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return path
