"""One program at a time writes into a directory: a lock that the kernel lets go of when the program is gone.

Only the lock on ``DIR/.strep.lock`` counts, not that it is there: a program that was killed leaves nothing behind that
somebody would have to remove.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from pathlib import Path
from typing import Final

from .._model.exceptions import ConfigurationError

__all__ = ["DirectoryLock"]

log = logging.getLogger("strep")

_FILE_NAME: Final = ".strep.lock"
_MAX_READ_BYTES: Final = 200  # of the file: what stands there may be anybody's
_HELD_ERRORS: Final = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


class DirectoryLock:
    """Holds ``directory`` from :meth:`take` to :meth:`release`, or until the process ends, however it does.

    ``what`` is the command that writes there, told to whoever comes second. Programs that this one starts do not
    inherit it.
    """

    def __init__(self, directory: Path, what: str) -> None:
        self._directory = directory
        self._what = what
        self._fd = -1
        self.since_ns = 0  # when it was taken, by the directory's file system: what is older is not ours

    def take(self) -> None:
        """Raises ConfigurationError when another program has it; that says which, and what to do.

        A file system that knows no locks is warned of and used all the same.
        """
        while not self._has(fd := self._open()):
            os.close(fd)  # whoever had it has removed it on leaving
        with contextlib.suppress(OSError):  # a full disk keeps nobody from it
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"strep {self._what} (process {os.getpid()})\n".encode(), 0)
        self.since_ns = os.fstat(fd).st_mtime_ns
        self._fd = fd

    def _open(self) -> int:
        path = self._directory / _FILE_NAME
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            fd = os.open(path, flags, 0o640)
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}; choose a directory that can be written") from error
        try:
            _lock(fd)
        except OSError as error:
            if error.errno in _HELD_ERRORS:
                holder = _read(fd)
                os.close(fd)
                raise ConfigurationError(
                    f"{self._directory} is being written by {holder}: two would take each other's calls and files; "
                    "end that one first, or give this one another --out"
                ) from None
            log.warning("%s cannot be locked (%s): see that no other strep writes there", self._directory, error)
        return fd

    def _has(self, fd: int) -> bool:
        """Whether the file that is locked is still the one that others find."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(fd), os.stat(self._directory / _FILE_NAME, follow_symlinks=False))
        return False

    def release(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):  # Windows removes nothing that is open
                if self._has(fd):
                    os.unlink(self._directory / _FILE_NAME)
            os.close(fd)

    def __enter__(self) -> DirectoryLock:
        self.take()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


if sys.platform == "win32":
    import msvcrt

    _BYTE: Final = 1 << 30  # beyond what is read: others may not read what is locked

    def _lock(fd: int) -> None:
        os.lseek(fd, _BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read(fd: int) -> str:
    """Who holds it, as that one wrote; printable."""
    with contextlib.suppress(OSError):
        os.lseek(fd, 0, os.SEEK_SET)
        text = os.read(fd, _MAX_READ_BYTES).decode("utf-8", "replace").strip()
        if text.startswith("strep ") and text.isprintable():
            return text
    return "another program"
