"""WAV files that a dead process left under their partial names: found, completed and named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ._wavfile import WavFormat

if TYPE_CHECKING:
    from .._types import StreamInfo

__all__ = ["complete_file", "complete_left_files"]


def complete_left_files(root: Path, streams: Iterable[StreamInfo], since_s: float) -> dict[int, list[str]]:
    """Complete what has been written of ``streams`` since then (UTC seconds); names relative to ``root``, by serial.

    Only a process that has ended may have written them. Whoever writes now chooses names that are free, so a file keeps
    its name but for the ``.part``. What cannot be completed stays as it is, and is named as it is.
    """
    done: dict[tuple[str, str], list[str]] = {}
    found: dict[int, list[str]] = {}
    for stream in streams:
        names = []
        for folder, stem in ((stream.name, stream.stem), (stream.leg_name, stream.leg.label)):
            if (folder, stem) not in done:
                done[folder, stem] = _complete_all(root, root / folder, stem, since_s)
            names += done[folder, stem]
        found[stream.serial] = names
    return found


def _complete_all(root: Path, folder: Path, stem: str, since_s: float) -> list[str]:
    ours = re.compile(re.escape(stem) + r"(-\d+)?\.part\.wav")
    names = []
    try:
        parts = [Path(e.path) for e in os.scandir(folder) if ours.fullmatch(e.name) and e.stat().st_mtime >= since_s]
    except OSError:
        return []
    for part in sorted(parts):
        try:
            if not part.stat().st_size:  # killed before it had written a header
                part.unlink()
                continue
            path = complete_file(part)
        except OSError:
            path = part
        names.append(path.relative_to(root).as_posix())
    return names


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
    final = part.with_name(part.name.removesuffix(".part.wav") + ".wav")
    if final.exists():
        return part
    os.replace(part, final)
    return final
