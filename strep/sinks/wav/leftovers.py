"""WAV files that a dead process left under their partial names: how they are found and completed."""

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

_NUMBER_AND_PART: Final = re.compile(r"(-\d+)?\.part\.wav$")  # what follows the stem in a name


def find_left_files(root: Path, streams: Iterable[StreamInfo], since_s: float) -> dict[int, list[Path]]:
    """Partial files of ``streams`` that were written since ``since_s`` (UTC seconds), by serial.

    To be called when the process that wrote them has ended and no other has begun to write these streams: then no
    process uses these files. Whoever writes these streams next chooses names that are free.
    """
    folders: dict[str, list[str]] = {}
    found = {}
    for stream in streams:
        files = []
        for folder, stem in ((stream.leg_name, stream.stem), (stream.leg_name, stream.leg.label)):
            if folder not in folders:
                folders[folder] = _partial_files(root / folder, since_s)
            files += [root / folder / name for name in folders[folder] if _NUMBER_AND_PART.sub("", name) == stem]
        found[stream.serial] = files
    return found


def _partial_files(folder: Path, since_s: float) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.name.endswith(PART) and e.stat().st_mtime >= since_s)
    except OSError:
        return []


def complete_files(root: Path, left: dict[int, list[Path]]) -> dict[int, list[str]]:
    """Complete these files. Returns their names relative to ``root``, by serial. A file that cannot be completed keeps
    its name, which is returned."""
    done: dict[Path, Path | None] = {}  # a stereo file is that of two streams
    for part in {part for parts in left.values() for part in parts}:
        done[part] = complete_file(part)
    return {
        serial: [name.relative_to(root).as_posix() for part in parts if (name := done[part]) is not None]
        for serial, parts in left.items()
    }


def complete_file(part: Path) -> Path | None:
    """Bring the header up to date with what is in the file, and take the ``.part`` off its name. Returns its name now.
    None: there was nothing in it, and it was removed."""
    try:
        directory = os.open(part.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return part
    try:
        found = mend(directory, part.name)
    finally:
        os.close(directory)
    return None if found.did == "removed" else part.with_name(found.name)
