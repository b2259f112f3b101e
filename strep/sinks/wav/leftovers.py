"""WAV files that a dead process left under their partial names: found, completed and named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .file import PART
from .repair import mend

if TYPE_CHECKING:
    from ..._model.types import StreamInfo

__all__ = ["complete_file", "complete_files", "find_left_files"]

_NUMBER: Final = re.compile(r"(-\d+)?\.part\.wav$")


def find_left_files(root: Path, streams: Iterable[StreamInfo], since_s: float) -> dict[int, list[Path]]:
    """Partial files of ``streams`` that were written since then (UTC seconds), by serial.

    To be called when the process that wrote them has ended and no other has begun to write these streams: then they are
    nobody's any more. Whoever comes after chooses names that are free.
    """
    folders: dict[str, list[str]] = {}
    found = {}
    for stream in streams:
        files = []
        for folder, stem in ((stream.name, stream.stem), (stream.leg_name, stream.leg.label)):
            if folder not in folders:
                folders[folder] = _partial_files(root / folder, since_s)
            files += [root / folder / name for name in folders[folder] if _NUMBER.sub("", name) == stem]
        found[stream.serial] = files
    return found


def _partial_files(folder: Path, since_s: float) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.name.endswith(PART) and e.stat().st_mtime >= since_s)
    except OSError:
        return []


def complete_files(root: Path, left: dict[int, list[Path]]) -> dict[int, list[str]]:
    """Complete them; names relative to ``root``, by serial. What cannot be completed stays, and is named, as it is."""
    done: dict[Path, Path | None] = {}  # a stereo file is that of two streams
    for part in {part for parts in left.values() for part in parts}:
        done[part] = complete_file(part)
    return {
        serial: [name.relative_to(root).as_posix() for part in parts if (name := done[part]) is not None]
        for serial, parts in left.items()
    }


def complete_file(part: Path) -> Path | None:
    """Let the header speak of all that is in the file, and take the ``.part`` off its name; returns what it is called
    now. None: there was nothing in it, and it is gone."""
    try:
        directory = os.open(part.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return part
    try:
        found = mend(directory, part.name)
    finally:
        os.close(directory)
    return None if found.did == "removed" else part.with_name(found.name)
