"""Memory that the kernel writes datagrams to, and what stands in it as columns. Nothing here runs per datagram.

Most datagrams of calls are small, so the kernel scatters each over two places: the first 320 bytes into a dense slab
that stays in the core's cache, the rest elsewhere. Where many are larger the slab's rows are whole datagrams. What is
beyond 2,048 bytes, up to the largest datagram that there is, goes to a third place, the :class:`Spill`: then the batch
has its datagrams end to end, copied once.

The kernel's structures are numpy structured arrays over preallocated memory, so lengths, sources and time stamps are
columns for free. Their layout is that of 64-bit Linux (``struct mmsghdr``, ``iovec``, ``sockaddr_in6``, ``cmsghdr``).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import time
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.addresses import MAPPED_PREFIX
from ..._model.datagrams import ROW_BYTES, SLOT_MINIMUM, end_to_end
from ..._model.spans import copy_spans
from .slab import aligned_slab
from .spill import Spill
from .stamps import SO_TIMESTAMPNS

__all__ = ["DENSE_BYTES", "MESSAGE", "MessageTable", "recvmmsg_available"]

_MSG_DONTWAIT: Final = 0x40
_MSG_TRUNC: Final = 0x20  # as a flag: tell the length on the wire, not what fitted
_NAME_BYTES: Final = 32
_CONTROL_BYTES: Final = 64
_ROWS_WHILE_LONG: Final = 256  # are read at once after a batch with a quarter as many beyond 2,048 bytes: 16 MiB
_IOVECS_BYTES: Final = 48  # three of 16
DENSE_BYTES: Final = 320  # 30 ms of G.711 are 276; an odd number of cache lines, so that columns use all of the cache
# rows become whole when more than one datagram of so many is larger than a dense row,
_WHOLE_IF_LARGE_1_IN: Final = 4
_DENSE_IF_LARGE_1_IN: Final = 16  # and dense again when fewer than one of so many is

MESSAGE: Final = np.dtype(  # struct mmsghdr
    {
        "names": ["name", "namelen", "iov", "iovlen", "control", "controllen", "flags", "len"],
        "formats": ["u8", "u4", "u8", "u8", "u8", "u8", "i4", "u4"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)
_READ_FLAGS: Final = _MSG_DONTWAIT | _MSG_TRUNC
_NOTHING: Final = frozenset((errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH))


def recvmmsg_available() -> bool:
    """Whether this machine has the system call with the layout known here."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        return False
    try:
        return ctypes.CDLL(None).recvmmsg is not None
    except (OSError, AttributeError):
        return False


class MessageTable:
    """Room for ``rows`` datagrams of any sockets of one address family. ``spill``: for what is beyond 2,048 bytes of
    them. ``most``: how many rows should be filled at once at the moment."""

    def __init__(self, rows: int, spill: Spill, *, ipv6: bool) -> None:
        self.rows = self.most = rows
        self._ipv6 = ipv6
        self._names = np.zeros((rows, _NAME_BYTES), np.uint8)
        self._controls = np.zeros((rows, _CONTROL_BYTES), np.uint8)
        self._iovecs = np.zeros((rows, 3), np.dtype([("base", "u8"), ("len", "u8")]))
        self._slab = aligned_slab(rows, ROW_BYTES)
        self._dense = aligned_slab(rows, DENSE_BYTES)
        self._rest = np.empty((rows, ROW_BYTES - DENSE_BYTES), np.uint8)
        self._spill = spill
        self._beyond = spill.rows(rows)
        self._messages = np.zeros(rows, MESSAGE)
        order = np.arange(rows, dtype=np.uint64)
        self._messages["name"] = self._names.ctypes.data + order * np.uint64(_NAME_BYTES)
        self._messages["iov"] = self._iovecs.ctypes.data + order * np.uint64(_IOVECS_BYTES)
        self._messages["control"] = self._controls.ctypes.data + order * np.uint64(_CONTROL_BYTES)
        self._whole_rows = False
        self._scatter(False)
        # views that are used each time
        self._namelen = self._messages["namelen"]
        self._controllen = self._messages["controllen"]
        self.length: npt.NDArray[np.uint32] = self._messages["len"]
        self._kinds = self._controls.view(np.uint64)[:, 1]  # cmsg_level and cmsg_type as one word
        self._seconds = self._controls.view(np.int64)[:, 2]
        self._nanoseconds = self._controls.view(np.int64)[:, 3]
        self._name_words = self._names.view(">u4")
        self._source_ports = self._names.view(">u2")[:, 1]
        self._used = rows
        self._whole_slab = False  # where the last batch's rows are: in the slab, or in the dense one
        self._held: tuple[int, int] = 0, 0  # which rows of the last batch come first in the next one
        self._in_front = False  # whether they stand there already
        self._held_beyond: tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]] | None = None
        self._call = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
        self._pointer = self._messages.ctypes.data

    def _scatter(self, whole_rows: bool) -> None:
        """Tell the kernel where datagrams go."""
        self._whole_rows = whole_rows
        memories = [self._slab, self._beyond] if whole_rows else [self._dense, self._rest, self._beyond]
        for part, memory in enumerate(memories):
            step = memory.shape[1]
            self._iovecs["base"][:, part] = memory.ctypes.data + np.arange(self.rows, dtype=np.uint64) * np.uint64(step)
            self._iovecs["len"][:, part] = step
        self._messages["iovlen"] = len(memories)

    # --- what is held back ----------------------------------------------------------------------------------------

    def hold(self, begin: int, end: int) -> None:
        """These rows of the last batch are to come first in the next one."""
        self._held = begin, end
        long = np.flatnonzero(self.length[begin:end] > ROW_BYTES) if self._whole_slab else np.zeros(0, np.intp)
        if long.size:
            self._held_beyond = long, self._beyond[begin + long]

    def bring_forward(self) -> int:
        """Move the rows that were held back to the front; returns how many."""
        begin, end = self._held
        self._held = 0, 0
        count = end - begin
        if not count:
            return 0
        if self._in_front:
            self._in_front = False
        else:
            self._move(slice(0, count), slice(begin, end))
        if self._held_beyond is not None:
            long, beyond = self._held_beyond
            self._beyond[long] = beyond
            self._held_beyond = None
        return count

    def put_back(self, count: int) -> None:
        """The rows that were brought forward wait on: nothing could be read behind them."""
        self._held, self._in_front = (0, count), bool(count)
        long = np.flatnonzero(self.length[:count] > ROW_BYTES)
        if long.size:
            self._held_beyond = long, self._beyond[long]

    def _move(self, here: slice, there: slice) -> None:
        self._names[here] = self._names[there]
        self.length[here] = self.length[there]
        if not self._whole_slab:
            self._dense[here] = self._dense[there]
        elif self._whole_rows:
            self._slab[here] = self._slab[there]
        else:
            self._dense[here] = self._slab[there, :DENSE_BYTES]
            self._rest[here] = self._slab[there, DENSE_BYTES:]

    @property
    def held_back(self) -> int:
        return self._held[1] - self._held[0]

    # --- reading --------------------------------------------------------------------------------------------------

    def begin(self, held: int = 0) -> None:
        """From row ``held`` on all rows are free, and about to be filled in order."""
        # the kernel writes into both what it used; rows not used since are as they were
        self._namelen[held : self._used] = _NAME_BYTES
        self._controllen[held : self._used] = _CONTROL_BYTES
        self._used = self.rows  # unless what follows goes well

    def fill(self, number: int, at: int, most: int) -> int:
        """Let the kernel fill up to ``most`` rows from ``at`` on with what waits in a socket, which is given by its
        file descriptor; returns how many. Raises OSError."""
        count: int = self._call(number, self._pointer + 64 * at, most, _READ_FLAGS, None)
        if count < 0:
            code = ctypes.get_errno()
            # ICMP errors of other sockets' traffic and interruptions say nothing of ours
            if code not in _NOTHING:
                raise OSError(code, os.strerror(code))
            return 0
        return count

    def end(self, used: int) -> None:
        """So many rows have been filled since :meth:`begin`, with those that were held."""
        self._used = used

    # --- columns --------------------------------------------------------------------------------------------------

    def stamps(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """When what is in these rows came, as the wall clock stood, int64 ns."""
        stamps: npt.NDArray[np.int64] = self._seconds[begin:end] * 1_000_000_000
        stamps += self._nanoseconds[begin:end]
        unstamped = self._kinds[begin:end] != _STAMP
        if np.count_nonzero(unstamped):
            stamps[unstamped] = time.time_ns()
        return stamps

    def sources(self, count: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint16]]:
        """Upper and lower halves of the addresses in the first ``count`` rows, and the ports."""
        words = self._name_words
        if self._ipv6:
            quads = words[:count, 2:6].astype(np.uint64)
            hi = quads[:, 0] << np.uint64(32) | quads[:, 1]
            lo = quads[:, 2] << np.uint64(32) | quads[:, 3]
        else:
            lo = words[:count, 1].astype(np.uint64)
            lo |= np.uint64(MAPPED_PREFIX)
            hi = np.zeros(count, np.uint64)
        return hi, lo, self._source_ports[:count].astype(np.uint16)

    def gathered(self, length: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        """The slab of what has been received, with rows as long as the longest datagram needs, up to 2,048 bytes."""
        count = len(length)
        self.most = self.rows
        small = length <= DENSE_BYTES
        if self._whole_rows:
            self._whole_slab = True
            if count - int(np.count_nonzero(small)) < count // _DENSE_IF_LARGE_1_IN:
                self._scatter(False)
            return self._slab[:count]
        self._whole_slab = not small.all()
        if not self._whole_slab:
            return self._dense[:count]
        large = np.flatnonzero(~small)
        self._slab[:count, :DENSE_BYTES] = self._dense[:count]
        self._slab[large, DENSE_BYTES:] = self._rest[large]
        if len(large) > count // _WHOLE_IF_LARGE_1_IN:
            self._scatter(True)
        return self._slab[:count]

    def end_to_end(
        self, slab: npt.NDArray[np.uint8], length: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Datagrams of which some are longer than their rows in the slab, each in one piece, and their first rows."""
        out, first_row = end_to_end(length)
        flat, to = out.reshape(-1), first_row * SLOT_MINIMUM
        row = np.arange(len(length), dtype=np.int64)
        copy_spans(flat, to, slab.reshape(-1), row * ROW_BYTES, np.minimum(length, ROW_BYTES))
        long = np.flatnonzero(length > ROW_BYTES)
        beyond = self._beyond.reshape(-1)
        copy_spans(flat, to[long] + ROW_BYTES, beyond, long * self._beyond.shape[1], length[long] - ROW_BYTES)
        self._spill.used(int(long[-1]) + 1)
        if len(long) > _ROWS_WHILE_LONG // 4:
            self.most = _ROWS_WHILE_LONG
        return out, first_row


_STAMP: Final = np.uint64(SO_TIMESTAMPNS << 32 | socket.SOL_SOCKET)
