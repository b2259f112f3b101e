"""Many writes to many files in one system call: Linux's io_submit, which does buffered writes one after the other.

A thread that calls ``pwrite`` ten thousand times a second releases the interpreter's lock as often, and a receiver on
the same core waits for it each time. With one call for hundreds of writes, it waits once.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import sys
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["ManyWrites"]

I64 = npt.NDArray[np.int64]

_SYSCALLS: Final = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}  # setup, destroy, getevents, submit
_PWRITE: Final = 1  # IOCB_CMD_PWRITE
_PWRITEV: Final = 8  # IOCB_CMD_PWRITEV
_DEPTH: Final = 1024  # writes in one call

_IOCB: Final = np.dtype(
    {
        "names": ["data", "opcode", "fd", "buf", "nbytes", "offset"],
        "formats": ["u8", "u2", "u4", "u8", "u8", "i8"],
        "offsets": [0, 16, 20, 24, 32, 40],
        "itemsize": 64,
    }
)
_EVENT: Final = np.dtype([("data", "u8"), ("obj", "u8"), ("res", "i8"), ("res2", "i8")])


class ManyWrites:
    """Raises OSError if the system has no such call, or if a sandbox forbids it."""

    def __init__(self) -> None:
        numbers = _SYSCALLS.get(platform.machine())
        if sys.platform != "linux" or numbers is None or sys.byteorder != "little":
            raise OSError(errno.ENOSYS, "io_submit is for Linux on x86-64 and ARM64")
        self._setup, self._destroy, self._getevents, self._submit = numbers
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        context = ctypes.c_ulong(0)
        self._context = 0
        self._call(self._setup, ctypes.c_long(_DEPTH), ctypes.byref(context))
        self._context = context.value
        self._iocbs = np.zeros(_DEPTH, _IOCB)
        self._iocbs["data"] = np.arange(_DEPTH)
        self._pointers = self._iocbs.ctypes.data + 64 * np.arange(_DEPTH, dtype=np.uint64)
        self._events = np.zeros(_DEPTH, _EVENT)

    def _call(self, number: int, *arguments: object) -> int:
        result = int(self._syscall(ctypes.c_long(number), *arguments))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, errno.errorcode.get(code, "?"))
        return result

    def write(self, fd: I64, address: npt.NDArray[np.uint64], length: I64, offset: I64) -> I64:
        """Write ``length`` bytes at ``address`` to ``offset`` of each ``fd``, in order. Returns, int64 (n,), how many
        bytes were written or a negative errno."""
        return self._write_all(_PWRITE, fd, address, length, offset)

    def write_pieces(self, fd: I64, pieces: npt.NDArray[np.uint64], count: I64, offset: I64) -> I64:
        """As :meth:`write`, of pieces that follow each other in the file: addresses and lengths, uint64 (n, k, 2), of
        which the first ``count`` of each row are written."""
        step = pieces.strides[0]  # struct iovec after struct iovec
        begin = np.uint64(pieces.ctypes.data) + np.uint64(step) * np.arange(len(fd), dtype=np.uint64)
        return self._write_all(_PWRITEV, fd, begin, count, offset)

    def _write_all(self, code: int, fd: I64, buffer: npt.NDArray[np.uint64], size: I64, offset: I64) -> I64:
        results = np.empty(len(fd), np.int64)
        for begin in range(0, len(fd), _DEPTH):
            part = slice(begin, min(begin + _DEPTH, len(fd)))
            iocbs = self._iocbs[: part.stop - begin]
            iocbs["opcode"], iocbs["fd"], iocbs["offset"] = code, fd[part], offset[part]
            iocbs["buf"], iocbs["nbytes"] = buffer[part], size[part]
            results[part] = self._submit_all(len(iocbs))
        return results

    def _submit_all(self, n: int) -> I64:
        results = np.full(n, -errno.EIO, np.int64)
        done = 0
        context = ctypes.c_ulong(self._context)
        while done < n:
            try:
                taken = self._call(
                    self._submit,
                    context,
                    ctypes.c_long(n - done),
                    ctypes.c_void_p(self._pointers.ctypes.data + 8 * done),
                )
            except OSError as error:
                # the first of them could not be begun (a bad descriptor, for example): the others may
                results[done] = -(error.errno or errno.EIO)
                done += 1
                continue
            waiting = taken
            while waiting:
                got = self._call(
                    self._getevents,
                    context,
                    ctypes.c_long(waiting),
                    ctypes.c_long(waiting),
                    ctypes.c_void_p(self._events.ctypes.data),
                    None,
                )
                results[self._events["data"][:got].astype(np.int64)] = self._events["res"][:got]
                waiting -= got
            done += taken
        return results

    def close(self) -> None:
        if self._context:
            self._call(self._destroy, ctypes.c_ulong(self._context))
            self._context = 0
