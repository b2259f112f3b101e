"""The files of a recording: names, descriptors, positions. Used by one thread. All methods may raise OSError."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ..folders import Folders, safe_name
from .file import PART, WavFile, WavFormat

if sys.platform != "win32":
    import fcntl

__all__ = ["WavTree", "descriptor_budget", "lock"]

_FILL_BYTES: Final = 1 << 16  # of silence that are written at once
_WHOLE_BYTES: Final = 1 << 20  # up to this a file's beginning is written in one piece


class WavTree:
    """Opens files below ``root`` under their partial names, keeps at most ``max_open`` open, renames them at the end.

    An open file is locked (``flock``, shared), so that the repair of what dead processes left does not touch it.

    ``files``    made so far
    ``evicted``  a file had to be closed to open another one: there are more files than may be open
    """

    def __init__(self, root: Path, max_open: int, *, file_mode: int = 0o640, directory_mode: int = 0o750) -> None:
        self.root = root
        self._max_open = max(1, max_open)
        keep = min(64, max(2, max_open // 4))
        self.folders = Folders(root, keep=keep, file_mode=file_mode, directory_mode=directory_mode)
        self._open: OrderedDict[int, WavFile] = OrderedDict()  # by id(), least recently used first
        self.files = 0
        self.evicted = False

    def create(self, directory: str, stem: str, format_: WavFormat) -> WavFile:
        """Make a new file DIR/directory/stem.part.wav; if that name is taken, with a number. Its header is written with
        the first samples."""
        folder = self.folders.make(safe_name(directory))
        file = WavFile(format_, folder, safe_name(stem))
        self._make(file)
        self.files += 1
        return file

    def _make(self, file: WavFile) -> None:
        number = 1
        while True:
            file.stem = file.wanted if number == 1 else f"{file.wanted}-{number}"
            number += 1
            try:
                file.fd = self._open_fd(file, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                continue
            # checked after it was made: a file that a dead process left may just have been given that name
            if not self.folders.there(file.folder, file.stem + ".wav"):
                break
            os.close(file.fd)
            self.folders.remove(file.folder, file.part)
        self._open[id(file)] = file
        file.header_end = -1

    def _open_fd(self, file: WavFile, flags: int) -> int:
        while len(self._open) >= self._max_open:
            self._close_oldest()
        while True:
            try:
                fd = self.folders.open(file.folder, file.part, flags)
                break
            except OSError as error:
                # others use descriptors too: close one of ours, but not an old file for a new one
                if error.errno not in (errno.EMFILE, errno.ENFILE) or flags & os.O_CREAT or not self._make_room():
                    raise
        lock(fd)
        return fd

    def _make_room(self) -> bool:
        if not self._open:
            return self.folders.shrink()
        self._close_oldest()
        return True

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
            file.fd = self._open_fd(file, os.O_RDWR)
            self._open[id(file)] = file
        else:
            self._open.move_to_end(id(file))
        return file.fd

    def is_gone(self, file: WavFile) -> bool:
        """Whether somebody has deleted the file while we write it."""
        try:
            gone = os.fstat(self.descriptor(file)).st_nlink == 0
        except FileNotFoundError:
            return True
        if not gone:
            file.checked = file.end
        return gone

    def make_again(self, file: WavFile) -> None:
        """Make a file that was deleted again, with silence as far as it went."""
        self._forget(file)
        file.folder = self.folders.make(file.folder)
        self._make(file)
        end, file.end = file.end, 0
        _write_all(file.fd, file.format.header(0), 0)
        file.header_end = 0
        if file.format.silence:
            self._fill(file.fd, file, end)
        os.ftruncate(file.fd, file.format.header_bytes + end)
        file.end = file.checked = end

    def begin(self, file: WavFile, pieces: Sequence[tuple[int, bytearray]]) -> None:
        """Write a new file's first samples, (byte position, bytes) in order, and its header in one write."""
        at, data = pieces[-1]
        end = at + len(data)
        if not at:  # the usual case: there is no hole
            _write_all(self.descriptor(file), file.format.header(end) + data, 0)
            file.end = file.header_end = end
            return
        if end > _WHOLE_BYTES:
            for at, data in pieces:
                self.write(file, data, at)
            return
        header = file.format.header_bytes
        whole = bytearray(bytes([file.format.silence]) * (header + end))
        whole[:header] = file.format.header(end)
        for at, data in pieces:
            whole[header + at : header + at + len(data)] = data
        _write_all(self.descriptor(file), bytes(whole), 0)
        file.end = file.header_end = end

    def write(self, file: WavFile, data: memoryview | bytes | bytearray, at: int) -> None:
        """Write samples at a byte position. ``file.end`` moves only behind what was written as a whole."""
        fd = self.descriptor(file)
        if file.header_end < 0:
            _write_all(fd, file.format.header(0), 0)
            file.header_end = 0
        self._write_rest(file)
        if at > file.end and file.format.silence:
            self._fill(fd, file, at)
        _write_all(fd, data, file.format.header_bytes + at)
        file.end = max(file.end, at + len(data))

    def _write_rest(self, file: WavFile) -> None:
        if file.rest:
            _write_all(self.descriptor(file), file.rest, file.format.header_bytes + file.end)
            file.end += len(file.rest)
            file.rest = b""

    def _fill(self, fd: int, file: WavFile, until: int) -> None:
        silence = bytes([file.format.silence]) * min(_FILL_BYTES, until - file.end)
        while file.end < until:
            part = silence[: until - file.end]
            _write_all(fd, part, file.format.header_bytes + file.end)
            file.end += len(part)

    def write_channel(self, file: WavFile, channel: int, samples: npt.NDArray[np.int16], frame: int) -> None:
        """Write one channel of a PCM file at a frame; the other channels keep what they have."""
        channels, frame_bytes = file.format.channels, file.format.frame_bytes
        at, size = frame * frame_bytes, len(samples) * frame_bytes
        all_ = np.zeros((len(samples), channels), np.int16)
        if at < file.end:
            old = os.pread(self.descriptor(file), min(size, file.end - at), file.format.header_bytes + at)
            all_.reshape(-1)[: len(old) // 2] = np.frombuffer(old, np.int16)
        all_[:, channel] = samples
        self.write(file, all_.reshape(-1).view(np.uint8).data, at)

    def shift(self, file: WavFile, frames: int) -> None:
        """Move everything later by ``frames``, because a stream began before the first one."""
        fd, header = self.descriptor(file), file.format.header_bytes
        old = os.pread(fd, file.end, header)
        _write_all(fd, bytes(frames * file.format.frame_bytes) + old, header)
        file.end += frames * file.format.frame_bytes

    def write_header(self, file: WavFile, now: float, *, again: bool = False) -> None:
        """Write what was not written yet, and bring the header up to date. ``again``: even if it is."""
        self._write_rest(file)
        if file.header_end != file.end or again:
            _write_all(self.descriptor(file), file.format.header(file.end), 0)
            file.header_end = file.end
        file.header_written_at = now

    def finish(self, file: WavFile) -> str:
        """Complete the file and give it its final name, which is returned, relative to the root. Raises
        FileNotFoundError if somebody has deleted it."""
        fd = self.descriptor(file)
        self._write_rest(file)
        if file.end % 2:
            _write_all(fd, b"\0", file.format.header_bytes + file.end)
        self.write_header(file, 0.0)
        while True:
            try:
                self.folders.rename(file.folder, file.part, file.stem + ".wav")
                break
            except FileExistsError:
                file.stem = self._other_name(file)
        self._forget(file)
        return self.relative(file, file.stem + ".wav")

    def _other_name(self, file: WavFile) -> str:
        """Another stem that is free, for the partial file too: the final name was taken since the file was made."""
        number = 2
        while True:
            stem = f"{file.wanted}-{number}"
            number += 1
            if not self.folders.there(file.folder, stem + ".wav"):
                with contextlib.suppress(FileExistsError):
                    self.folders.rename(file.folder, file.part, stem + PART)
                    return stem

    def abandon(self, file: WavFile) -> str | None:
        """Leave the file as it is, under its partial name, which is returned. None: it is not there."""
        with contextlib.suppress(OSError):
            self.write_header(file, 0.0)
        there = True
        with contextlib.suppress(OSError):
            there = not self.is_gone(file)
        self._forget(file)
        return self.relative(file, file.part) if there else None

    def discard(self, file: WavFile) -> None:
        """Remove a new file that nothing could be written to."""
        self._forget(file)
        self.files -= 1
        with contextlib.suppress(OSError):
            self.folders.remove(file.folder, file.part)

    def relative(self, file: WavFile, name: str) -> str:
        return f"{file.folder}/{name}"

    def close(self) -> None:
        for file in list(self._open.values()):
            self._forget(file)
        self.folders.close()


def lock(fd: int, *, alone: bool = False) -> bool:
    """Lock an open file, shared with others or ``alone``. False: somebody else has locked it. On systems without locks
    always True."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
    return True


def _write_all(fd: int, data: memoryview | bytes | bytearray, at: int) -> None:
    done = os.pwrite(fd, data, at)
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)


def descriptor_budget() -> int:
    """How many files may be open: the process's limit, raised as far as it may be, less what others need."""
    try:
        import resource
    except ImportError:  # Windows
        return 400
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(16, soft - 256) if soft != resource.RLIM_INFINITY else 1 << 20
