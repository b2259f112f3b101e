"""Files that are written at once or not at all, summary.json above all. Floor 5."""

from __future__ import annotations

import contextlib
import json
import os
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["write_summary", "write_whole"]


def write_summary(directory: str | PathLike[str], summary: dict[str, Any]) -> Path:
    """Write ``DIR/summary.json``: whoever reads it sees the old one or the new one, whole. Raises OSError."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "summary.json"
    write_whole(path, _text(summary))
    return path


def write_whole(path: Path, text: str) -> None:
    """Whoever reads the file sees the old one or the new one, whole. Raises OSError; nothing is left over then."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def _text(summary: dict[str, Any]) -> str:
    """JSON to be read by people too: a line for each stream (and json's C encoder, which cannot indent)."""
    lines = []
    for key, value in summary.items():
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        else:
            text = json.dumps(value)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
