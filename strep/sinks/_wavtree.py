"""The files of a recording: names, descriptors, positions. Used by one thread; errors of the disk are OSErrors."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ._wavfile import WavFormat

__all__ = ["WavFile", "WavTree"]

_FILL: Final = 1 << 16
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")


class WavFile:
    """A file that grows. ``end`` is how many bytes of samples it has; what lies between writes is silence."""

    def __init__(self, format_: WavFormat, part: Path, final: Path) -> None:
        self.format = format_
        self.part = part
        self.final = final
        self.end = 0
        self.told = 0  # bytes the header on disk speaks of
        self.told_at = 0.0
        self.fd = -1


class WavTree:
    """Opens files below ``root`` under their partial names, keeps at most ``max_open`` open, renames at the end."""

    def __init__(self, root: Path, max_open: int) -> None:
        self.root = root
        self._max_open = max(1, max_open)
        self._open: OrderedDict[int, WavFile] = OrderedDict()  # by id(), least recently used first
        self.files = 0
        self.evicted = False  # a descriptor had to be closed: there are more files than may be open

    def create(self, directory: str, stem: str, format_: WavFormat) -> WavFile:
        """A new file DIR/directory/stem.part.wav; a number is added rather than overwriting anything."""
        # names are made of parsed ids; should one ever not be, it cannot leave the directory
        folder = self.root / _UNSAFE.sub("_", directory)
        stem = _UNSAFE.sub("_", stem)
        folder.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            name = stem if number == 1 else f"{stem}-{number}"
            part, final = folder / f"{name}.part.wav", folder / f"{name}.wav"
            number += 1
            if final.exists():
                continue
            file = WavFile(format_, part, final)
            try:
                file.fd = self._open_fd(part, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                continue
            if not final.exists():
                break
            # whoever finishes what a dead process left has given its file this name since we looked
            os.close(file.fd)
            part.unlink()
        self._open[id(file)] = file
        self.files += 1
        try:
            _write_all(file.fd, format_.header(0), 0)
        except OSError:
            self._forget(file)
            with contextlib.suppress(OSError):
                part.unlink()
            self.files -= 1
            raise
        return file

    def _open_fd(self, path: Path, flags: int) -> int:
        while len(self._open) >= self._max_open:
            self._close_oldest()
        try:
            return os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0), 0o644)
        except OSError as error:
            # others use descriptors too: make room among ours, but never refuse an old file for a new one
            if error.errno not in (errno.EMFILE, errno.ENFILE) or flags & os.O_CREAT or not self._open:
                raise
            self._close_oldest()
            return os.open(path, flags)

    def _close_oldest(self) -> None:
        self.evicted = True
        _, file = self._open.popitem(last=False)
        fd, file.fd = file.fd, -1
        os.close(fd)

    def _forget(self, file: WavFile) -> None:
        self._open.pop(id(file), None)
        if file.fd >= 0:
            fd, file.fd = file.fd, -1
            os.close(fd)

    def descriptor(self, file: WavFile) -> int:
        if file.fd < 0:
            file.fd = self._open_fd(file.part, os.O_RDWR)
            self._open[id(file)] = file
        else:
            self._open.move_to_end(id(file))
        return file.fd

    def write(self, file: WavFile, data: memoryview | bytes, at: int) -> None:
        """Samples at a byte position. A file advances only past what has been written whole."""
        fd = self.descriptor(file)
        if at > file.end and file.format.silence:
            self._fill(fd, file, at)
        _write_all(fd, data, file.format.header_bytes + at)
        file.end = max(file.end, at + len(data))

    def _fill(self, fd: int, file: WavFile, until: int) -> None:
        silence = bytes([file.format.silence]) * min(_FILL, until - file.end)
        while file.end < until:
            part = silence[: until - file.end]
            _write_all(fd, part, file.format.header_bytes + file.end)
            file.end += len(part)

    def write_channel(self, file: WavFile, channel: int, samples: npt.NDArray[np.int16], frame: int) -> None:
        """One channel of a PCM file; the others keep what they have."""
        channels, frame_bytes = file.format.channels, file.format.frame_bytes
        at, size = frame * frame_bytes, len(samples) * frame_bytes
        all_ = np.zeros((len(samples), channels), np.int16)
        if at < file.end:
            old = os.pread(self.descriptor(file), min(size, file.end - at), file.format.header_bytes + at)
            all_.reshape(-1)[: len(old) // 2] = np.frombuffer(old, np.int16)
        all_[:, channel] = samples
        self.write(file, all_.reshape(-1).view(np.uint8).data, at)

    def shift(self, file: WavFile, frames: int) -> None:
        """Move everything later by ``frames``: a direction turned out to begin before the other."""
        fd, header = self.descriptor(file), file.format.header_bytes
        old = os.pread(fd, file.end, header)
        _write_all(fd, bytes(frames * file.format.frame_bytes) + old, header)
        file.end += frames * file.format.frame_bytes

    def tell(self, file: WavFile, now: float) -> None:
        """Bring the header up to date with what has been written."""
        if file.told != file.end:
            _write_all(self.descriptor(file), file.format.header(file.end), 0)
            file.told = file.end
        file.told_at = now

    def finish(self, file: WavFile) -> str:
        """Complete the file and give it its name; returns it relative to the root."""
        fd = self.descriptor(file)
        if file.end % 2:
            _write_all(fd, b"\0", file.format.header_bytes + file.end)
        file.told = -1
        self.tell(file, 0.0)
        self._forget(file)
        os.replace(file.part, file.final)
        return self.relative(file.final)

    def abandon(self, file: WavFile) -> str:
        """Leave the file as it is, under its partial name."""
        with contextlib.suppress(OSError):
            self.tell(file, 0.0)
        self._forget(file)
        return self.relative(file.part)

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _write_all(fd: int, data: memoryview | bytes, at: int) -> None:
    done = os.pwrite(fd, data, at)
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)
