"""Directories below a root and the files in them, by names that strangers may have chosen in part.

Where the system can do it (``dir_fd``), everything is done relative to open directories, and no symlink below the root
is ever followed. A directory whose name is taken by something else gets another name; a file whose name is taken is
never opened. On other systems the same is done by paths, with a check before.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import stat
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import Final

__all__ = ["Folders", "rename_apart", "safe_name"]

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")
_NAME_BYTES: Final = 200  # of a name; file systems take 255, and ".part.wav" and numbers come behind it
_NAMES_TRIED: Final = 1000  # for a directory
_BY_DESCRIPTOR: Final = {os.open, os.mkdir, os.rename, os.unlink, os.stat} <= os.supports_dir_fd
# one call, and no exception where there is nothing
_ACCESS: Final = os.access in os.supports_dir_fd and os.access in os.supports_follow_symlinks
_LOOK_S: Final = 0.1  # between two looks whether the root is still where it was
_FLAGS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
_NOREPLACE: Final = 1  # renameat2: never over something else
_UNSUPPORTED: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def safe_name(name: str) -> str:
    """``name`` made fit for a file: letters, digits, "_" and "-", at most 200 bytes. Names that are cut end in a hash
    of the whole name, so that they stay different."""
    safe = _UNSAFE.sub("_", name) or "_"
    if len(safe) <= _NAME_BYTES:
        return safe
    return f"{safe[: _NAME_BYTES - 17]}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:16]}"


class Folders:
    """Directories of one level below ``root``. Used by one thread. All methods raise OSError.

    ``keep``            how many directories stay open
    ``file_mode``       permissions of new files, less the process's umask
    ``directory_mode``  permissions of new directories, the root included, less the process's umask
    """

    def __init__(self, root: Path, *, keep: int, file_mode: int = 0o640, directory_mode: int = 0o750) -> None:
        self._root = root
        self._keep = keep
        self._file_mode = file_mode
        self._directory_mode = directory_mode
        self._root_fd = -1
        self._looked_s = 0.0  # for the root, monotonic
        self._fds: OrderedDict[str, int] = OrderedDict()
        self.blocked = 0  # directories that got another name because something else has theirs

    def make(self, name: str) -> str:
        """See that there is a directory of that name, or of that name and a number; returns its name."""
        if name in self._fds and self._is_there(name):
            return name
        self._check_root(again=False)
        for number in range(1, _NAMES_TRIED):
            called = name if number == 1 else f"{name}-{number}"
            self._drop(called)
            try:
                self._make(called)
                return called
            except NotADirectoryError:
                self.blocked += number == 1
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self._root / name))

    def open(self, folder: str, name: str, flags: int) -> int:
        """The descriptor of a file; never through a symlink."""
        if not _BY_DESCRIPTOR:
            path = self._root / folder / name
            if not flags & os.O_EXCL and path.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            return os.open(path, flags | _FLAGS, self._file_mode)
        return os.open(name, flags | _FLAGS, self._file_mode, dir_fd=self._fd(folder))

    def there(self, folder: str, name: str) -> bool:
        """Whether something has that name, even a broken link. What cannot be told counts as no: nothing is ever put
        over something else."""
        if _BY_DESCRIPTOR and _ACCESS:
            return os.access(name, os.F_OK, dir_fd=self._fd(folder), follow_symlinks=False)
        try:
            if _BY_DESCRIPTOR:
                os.stat(name, dir_fd=self._fd(folder), follow_symlinks=False)
            else:
                os.lstat(self._root / folder / name)
        except FileNotFoundError:
            return False
        return True

    def remove(self, folder: str, name: str) -> None:
        if _BY_DESCRIPTOR:
            os.unlink(name, dir_fd=self._fd(folder))
        else:
            os.unlink(self._root / folder / name)

    def rename(self, folder: str, old: str, new: str) -> None:
        """Never over something else: raises FileExistsError then."""
        if not _BY_DESCRIPTOR:
            if os.path.lexists(self._root / folder / new):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
            os.rename(self._root / folder / old, self._root / folder / new)
            return
        rename_apart(self._fd(folder), old, new)

    def probe(self) -> None:
        """Make a file below the root, write 64 KiB to it, and remove it: raises OSError if that is not possible."""
        name = f".strep-probe-{os.getpid()}"
        self._check_root()
        path = self._root / name
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        try:
            os.write(fd, bytes(1 << 16))
        finally:
            os.close(fd)
            os.unlink(path)

    def close(self) -> None:
        for name in list(self._fds):
            self._drop(name)
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1

    def shrink(self) -> bool:
        """Close one directory, so that its descriptor is free; False: none is open."""
        if not self._fds:
            return False
        self._drop(next(iter(self._fds)))
        return True

    # --- directories that are open --------------------------------------------------------------------------------

    def _check_root(self, *, again: bool = True) -> None:
        """Open the root; make it if it is not there, or has been deleted. ``again``: even if it was looked for just
        now."""
        if not _BY_DESCRIPTOR:
            self._root.mkdir(self._directory_mode, parents=True, exist_ok=True)
            return
        now = time.monotonic()
        if self._root_fd >= 0:
            if not again and now - self._looked_s < _LOOK_S:
                return
            self._looked_s = now
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(self._root), os.fstat(self._root_fd)):
                    return
            self.close()
        try:
            self._root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._root.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self._root.mkdir(self._directory_mode)
            self._root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _make(self, name: str) -> None:
        if not _BY_DESCRIPTOR:
            path = self._root / name
            if path.is_symlink():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
            try:
                path.mkdir(self._directory_mode)
            except FileExistsError:
                if not path.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
            return
        with contextlib.suppress(FileExistsError):
            try:
                os.mkdir(name, self._directory_mode, dir_fd=self._root_fd)
            except FileNotFoundError:  # the root has just been deleted
                self._check_root()
                os.mkdir(name, self._directory_mode, dir_fd=self._root_fd)
        self._fd(name)

    def _fd(self, name: str) -> int:
        fd = self._fds.get(name)
        if fd is not None:
            self._fds.move_to_end(name)
            return fd
        if self._root_fd < 0:
            self._check_root()
        while len(self._fds) >= self._keep:
            self.shrink()
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self._root_fd)
        except OSError as error:
            if error.errno == errno.ELOOP:  # as some systems say it of a symlink
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from None
            raise
        self._fds[name] = fd
        return fd

    def _is_there(self, name: str) -> bool:
        """Whether a directory that is open has been deleted since."""
        return os.fstat(self._fds[name]).st_nlink > 0

    def _drop(self, name: str) -> None:
        fd = self._fds.pop(name, None)
        if fd is not None:
            os.close(fd)


_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None


def rename_apart(directory: int, old: str, new: str) -> None:
    """Rename within an open directory, never over something else. Raises FileExistsError, OSError."""
    if _renameat2 is not None:
        names = (os.fsencode(old), os.fsencode(new))
        if _renameat2(directory, names[0], directory, names[1], _NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code), new)
    try:
        os.link(old, new, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (*_UNSUPPORTED, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # a file system without links: nothing better is left than to look first
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(new, dir_fd=directory, follow_symlinks=False).st_mode
            raise FileExistsError(errno.EEXIST, f"{stat.filemode(mode)} is in the way", new) from None
        os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)
    else:
        os.unlink(old, dir_fd=directory)
