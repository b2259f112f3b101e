"""What every UDP edge has in common: a bound socket with a big buffer, and a slab to receive into."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.addresses import MAPPED_PREFIX
from ..._model.datagrams import DatagramBatch
from ..._model.exceptions import BindError
from .address import UdpAddress
from .clock import SteadyClock
from .ending import count_waiting, shut

__all__ = ["SocketBase", "UdpSocket", "aligned_slab", "bind_socket", "dropped_by_kernel"]

_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
_MEMINFO_DROPS: Final = 8  # index of SK_MEMINFO_DROPS in the array of uint32


class SocketBase:
    """A non-blocking UDP socket. ``receive()`` gives a batch, valid until the next call, or None.

    ``bound`` is a socket that somebody has bound already (:func:`bind_socket`) and keeps: ``close`` closes only ours.
    """

    transport = "base"

    def __init__(
        self,
        address: UdpAddress,
        *,
        receive_buffer: int,
        rows: int,
        width: int,
        clock: SteadyClock,
        bound: socket.socket | None = None,
    ) -> None:
        self.requested_buffer = receive_buffer
        self._rows = rows
        self._width = width
        self._clock = clock
        self._socket = bind_socket(address, receive_buffer) if bound is None else bound
        name = self._socket.getsockname()
        self.address: tuple[str, int] = (name[0], name[1])
        self.local_port: int = name[1]
        self.granted_buffer = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.truncated = 0
        self.full = False  # the last receive() filled all rows: there is more
        self._slab = aligned_slab(rows, width)
        self._ports = np.full(rows, self.local_port, np.uint16)

    def receive(self, before_ns: int | None = None, most: int | None = None) -> DatagramBatch | None:
        """What has arrived, as much as there is room for, or about ``most``; None when nothing has.

        ``before_ns`` is a wish: what arrived since then should rather stand in the next batch, with what follows it.
        """
        raise NotImplementedError

    @property
    def held_back(self) -> int:
        """Datagrams that the next receive() gives first."""
        return 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def now_ns(self) -> int:
        """The clock of ``arrival_ns``."""
        return self._clock.now_ns()

    def kernel_dropped(self) -> int:
        """Datagrams the kernel threw away because the buffer was full (Linux; 0 elsewhere)."""
        return dropped_by_kernel(self._socket)

    def shut(self) -> None:
        """Let no datagram in any more; what has come before is still received."""
        shut(self._socket)

    def count_rest(self, until_s: float) -> int:
        """How many datagrams nobody has received: those in the kernel's queue and those held back. They are gone then.
        Ends at ``until_s`` on the monotonic clock."""
        return self.held_back + count_waiting(self._socket, until_s)

    def close(self) -> None:
        self._socket.close()


UdpSocket = SocketBase


def aligned_slab(rows: int, width: int) -> npt.NDArray[np.uint8]:
    """Zeros, uint8 (rows, width), aligned to a cache line, so that headers of plain packets lie in one."""
    raw = np.zeros(rows * width + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + rows * width].reshape(rows, width)


def dropped_by_kernel(sock: socket.socket) -> int:
    """The socket's own counter, whichever process reads it."""
    if sys.platform != "linux" or sock.fileno() < 0:
        return 0
    try:
        info = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
    except OSError:
        return 0
    return int(struct.unpack_from("I", info, 4 * _MEMINFO_DROPS)[0])


def bind_socket(
    address: UdpAddress, receive_buffer: int, prepare: Callable[[socket.socket], None] = lambda sock: None
) -> socket.socket:
    """A bound socket that does not block; ``prepare`` may set it up before it is bound. Raises BindError."""
    sock = socket.socket(address.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if address.family == socket.AF_INET6:
            # [::] takes IPv4 too, as mapped addresses
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        _grant_buffer(sock, receive_buffer)
        prepare(sock)
        sock.bind((address.host, address.port))
    except OSError as error:
        sock.close()
        reason = {
            errno.EADDRINUSE: "the port is taken by another program: choose another one, or end that one",
            errno.EACCES: "not permitted: choose a port of 1024 or more",
            errno.EADDRNOTAVAIL: "no interface of this machine has that address: use 0.0.0.0 for all",
        }.get(error.errno or 0, error.strerror or str(error))
        raise BindError(error.errno, f"cannot listen on udp:{address}: {reason}") from error
    return sock


def _grant_buffer(sock: socket.socket, size: int) -> None:
    if sys.platform == "linux":
        # past net.core.rmem_max, where we have CAP_NET_ADMIN
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
            return
    while size >= 1 << 16:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            return
        except OSError:  # BSDs refuse what they cannot grant
            size //= 2


def address_words(host: str) -> tuple[int, int]:
    """A numeric address as the upper and lower 64 bits, IPv4 mapped."""
    if ":" not in host:
        return 0, MAPPED_PREFIX | int.from_bytes(socket.inet_aton(host), "big")
    raw = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")
