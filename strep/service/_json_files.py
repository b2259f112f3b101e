"""JSON files of legs, each written whole, and never over another run's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._receiver.summary import write_whole

__all__ = ["write_json"]


def write_json(directory: Path, stem: str, content: dict[str, Any], path: Path | None = None) -> Path:
    """Write ``directory/stem.json``, or overwrite ``path``, if given; the file is there whole or not at all. What
    another run has written stays: the name gets a number. Returns the path. Raises OSError if the disk does not take
    it."""
    directory.mkdir(parents=True, exist_ok=True)
    if path is None:
        path = next(p for p in _names(directory, stem) if not p.exists())
    write_whole(path, json.dumps(content, indent=1) + "\n")
    return path


def _names(directory: Path, stem: str) -> Iterable[Path]:
    yield directory / f"{stem}.json"
    number = 2
    while True:
        yield directory / f"{stem}-{number}.json"
        number += 1
