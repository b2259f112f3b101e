"""WAV files that a dead process left under their partial names: found, completed and named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._wavfile import WavFormat

if TYPE_CHECKING:
    from .._types import StreamInfo

__all__ = ["complete_file", "complete_files", "find_left_files"]

_PART: Final = ".part.wav"
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
            return sorted(e.name for e in entries if e.name.endswith(_PART) and e.stat().st_mtime >= since_s)
    except OSError:
        return []


def complete_files(root: Path, left: dict[int, list[Path]]) -> dict[int, list[str]]:
    """Complete them; names relative to ``root``, by serial. What cannot be completed stays, and is named, as it is."""
    done: dict[Path, str | None] = {}  # a stereo file is that of two streams
    for part in {part for parts in left.values() for part in parts}:
        try:
            if part.stat().st_size:
                done[part] = complete_file(part).relative_to(root).as_posix()
            else:  # killed before it had written a header
                part.unlink()
                done[part] = None
        except OSError:
            done[part] = part.relative_to(root).as_posix()
    return {serial: [name for part in parts if (name := done[part])] for serial, parts in left.items()}


def complete_file(part: Path) -> Path:
    """Let the header speak of all that is in the file, and take the ``.part`` off its name. Raises OSError."""
    with open(part, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        format_ = WavFormat.of_header(file.read(80))
        if format_ is not None:
            data = max(0, size - format_.header_bytes)
            data -= data % format_.frame_bytes
            file.seek(0)
            file.write(format_.header(data))
            if data % 2 and size == format_.header_bytes + data:
                file.seek(0, os.SEEK_END)
                file.write(b"\0")
    final = part.with_name(part.name.removesuffix(_PART) + ".wav")
    if final.exists():
        return part
    os.replace(part, final)
    return final
