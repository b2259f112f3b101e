"""Repair of WAV files of ours whose header does not say what is in them.

A header has one size per format and holds nothing but the format and sizes; it is rewritten in place. So whatever was
torn, the sizes come from the file itself, and the format from the parts of the old or new header that are whole: both
say the same. If nothing of the format is left, a file of the same kind beside it tells the format, or the usual one is
taken; such a format is reported as guessed.

A file is left alone if a process has it open for writing (writers lock their files), if it was written a short while
ago, if it is a symlink, or if its beginning is not that of a file of ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from ..folders import rename_apart
from .file import MAX_HEADER_BYTES, PART, WavFormat
from .tree import lock

__all__ = ["RepairResult", "mend", "mend_tree"]

_OURS: Final = re.compile(r"((a|b)(-(inbound|outbound))?|inbound|outbound|session)(-\d+)?(\.part)?\.wav$")
_FLAGS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_FORMAT_AT: Final = 52  # byte of a header: all headers are the same before it, except for sizes
_RATE_END: Final = 64  # byte of a header: if it was written up to here, the format is known
_HEADER_BYTES: Final = 80  # of the shortest header
# of our header: a file that begins with so many is ours, even if its name is not that of an unfinished one
_EVIDENCE_BYTES: Final = 16
_SIZE_FIELDS: Final = frozenset([*range(4, 8), *range(20, 48)])  # bytes of a header that hold sizes

Did = Literal["fine", "mended", "completed", "removed", "in use", "young", "not ours", "failed"]


@dataclass(frozen=True, slots=True)
class RepairResult:
    """What was done with a file. ``file`` was its name and ``name`` is it now, relative to the directory of the search.

    ``did``      "fine": nothing to do · "mended": its header · "completed": its header, and its name · "removed": there
                 was no sample in it · "in use", "young", "not ours": left alone · "failed": see ``why``
    ``frames``   in the file
    ``guessed``  nothing was left of its format
    """

    file: str
    did: Did
    name: str
    frames: int = 0
    guessed: bool = False
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "did": self.did,
            "name": self.name,
            "frames": self.frames,
            "guessed": self.guessed,
            "why": self.why,
        }


def mend_tree(root: Path, *, dry_run: bool = False, min_age_s: float = 60.0) -> Iterator[RepairResult]:
    """Repair all WAV files below ``root``, directory by directory; symlinks are not followed.

    ``dry_run``    only say what would be done
    ``min_age_s``  files that were written less than so many seconds ago are left alone

    Raises OSError if the root cannot be read; what goes wrong below it is in the results.
    """
    os.stat(root)
    for folder, folders, names, fd in os.fwalk(root, follow_symlinks=False):
        folders.sort()
        beside = Path(folder).relative_to(root).as_posix()
        prefix = "" if beside == "." else f"{beside}/"
        for name in sorted(names):
            if name.endswith(".wav"):
                found = mend(fd, name, dry_run=dry_run, min_age_s=min_age_s)
                yield replace(found, file=prefix + found.file, name=prefix + found.name)


def mend(directory: int, name: str, *, dry_run: bool = False, min_age_s: float = 0.0) -> RepairResult:
    """Repair one file in an open directory. Never raises: "failed" says why."""
    try:
        fd = os.open(name, (os.O_RDONLY if dry_run else os.O_RDWR) | _FLAGS, dir_fd=directory)
    except OSError as error:
        if _is_link(directory, name):
            return RepairResult(name, "not ours", name, why="a symlink")
        return RepairResult(name, "failed", name, why=str(error.strerror))
    try:
        return _FileRepair(directory, fd, name, dry_run).mend(min_age_s)
    except OSError as error:
        return RepairResult(name, "failed", name, why=str(error.strerror))
    finally:
        os.close(fd)


class _FileRepair:
    """The repair of one file, which is open."""

    def __init__(self, directory: int, fd: int, name: str, dry_run: bool) -> None:
        self._directory, self._fd, self._name, self._dry_run = directory, fd, name, dry_run
        self._status = os.fstat(fd)
        self._size = self._status.st_size
        self._partial = name.endswith(PART)
        regular = stat.S_ISREG(self._status.st_mode)
        self._head = os.pread(fd, MAX_HEADER_BYTES, 0) if regular else b""

    def mend(self, min_age_s: float) -> RepairResult:
        if not stat.S_ISREG(self._status.st_mode):
            return self._untouched("not ours", "no regular file")
        format_ = WavFormat.of_header(self._head)
        guessed = format_ is None
        if format_ is None:
            if not self._is_torn():
                return self._untouched("not ours", "no header of ours")
            format_ = _format_beside(self._directory, self._name) or _guess(self._name)
        data = _consistent_bytes(format_, self._head, self._size)
        if data is not None and not self._partial:
            return replace(self._untouched("fine", ""), frames=data // format_.frame_bytes)
        if not lock(self._fd, alone=True):
            return self._untouched("in use", "a process writes it")
        if time.time() - self._status.st_mtime < min_age_s:
            return self._untouched("young", f"written less than {min_age_s:g} s ago")
        if self._partial and self._size <= format_.header_bytes:
            if not self._dry_run:
                os.unlink(self._name, dir_fd=self._directory)
            return self._untouched("removed", "no sample is in it")
        if data is None:
            data = max(0, self._size - format_.header_bytes)
            data -= data % format_.frame_bytes
            self._write_header(format_, data)
        name = self._final_name() if self._partial else self._name
        did: Did = "completed" if self._partial else "mended"
        return RepairResult(self._name, did, name, data // format_.frame_bytes, guessed)

    def _untouched(self, did: Did, why: str) -> RepairResult:
        return RepairResult(self._name, did, self._name, why=why)

    def _is_torn(self) -> bool:
        """Whether a file whose format is not known may be one of ours: by its name, and by what is left of a header."""
        if not _OURS.match(self._name):
            return False
        written = self._head[:_FORMAT_AT].rstrip(b"\0")
        if any(self._head[_RATE_END:_HEADER_BYTES]) or (len(written) < _EVIDENCE_BYTES and not self._partial):
            return False
        whole = [WavFormat(encoding, 8000, 1).header(size) for encoding in ("pcm16", "PCMU") for size in (0, 1 << 33)]
        return any(
            all(b == w or at in _SIZE_FIELDS for at, (b, w) in enumerate(zip(written, h, strict=False))) for h in whole
        )

    def _write_header(self, format_: WavFormat, data: int) -> None:
        if self._dry_run:
            return
        # a sample that was half written is cut off; a chunk of odd size gets its padding byte
        whole = format_.header_bytes + data + data % 2
        if self._size != whole:
            os.ftruncate(self._fd, whole)
        os.pwrite(self._fd, format_.header(data), 0)

    def _final_name(self) -> str:
        """Take the ``.part`` off the name; a number is added rather than overwriting anything."""
        stem, number = self._name.removesuffix(PART), 1
        while True:
            final = f"{stem}.wav" if number == 1 else f"{stem}-{number}.wav"
            number += 1
            try:
                if self._dry_run:
                    os.stat(final, dir_fd=self._directory, follow_symlinks=False)
                    continue
                rename_apart(self._directory, self._name, final)
            except FileExistsError:
                continue
            except FileNotFoundError:
                if not self._dry_run:
                    raise
            return final


def _consistent_bytes(format_: WavFormat, head: bytes, size: int) -> int | None:
    """Bytes of samples, if the header is exactly the one that a file of that size has; otherwise None."""
    behind = size - format_.header_bytes
    for data in (behind, behind - 1):  # a chunk of odd size has a byte behind it
        whole = data >= 0 and data % format_.frame_bytes == 0 and data + data % 2 == behind
        if whole and head[: format_.header_bytes] == format_.header(data):
            return data
    return None


def _is_link(directory: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    return False


def _kind(name: str) -> str:
    """What sort of file has this name; files of one sort in a directory have one format: "direction", "leg" or
    "session"."""
    stem = re.sub(r"(-\d+)?(\.part)?\.wav$", "", name)
    return "direction" if stem.endswith("bound") else "session" if stem == "session" else "leg"


def _format_beside(directory: int, name: str) -> WavFormat | None:
    for other in sorted(os.listdir(directory)):
        if other != name and _OURS.match(other) and _kind(other) == _kind(name):
            with contextlib.suppress(OSError):
                fd = os.open(other, os.O_RDONLY | _FLAGS, dir_fd=directory)
                try:
                    found = WavFormat.of_header(os.pread(fd, MAX_HEADER_BYTES, 0))
                finally:
                    os.close(fd)
                if found is not None:
                    return found
    return None


def _guess(name: str) -> WavFormat:
    channels = {"direction": 1, "leg": 2, "session": 4}[_kind(name)]
    return WavFormat("pcm16", 8000, channels)
