"""What UDP sockets are to a receiver, and what those of this machine have in common: a big buffer.

What is bound is a :class:`Port`; what is read is a :class:`Reader`. A plain socket is both. The ports of pairs
share one reader (:mod:`.group`).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from asyncio import AbstractEventLoop
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

from ..._model.addresses import MAPPED_PREFIX, host_and_port
from ..._model.datagrams import DatagramBatch
from ..._model.exceptions import BindError
from .address import UdpAddress
from .clock import SteadyClock
from .ending import count_waiting, shut

__all__ = [
    "BoundPort",
    "Port",
    "PortGroup",
    "Reader",
    "RingGroup",
    "SocketBase",
    "UdpSocket",
    "bind_socket",
    "dropped_by_kernel",
    "grant_buffer",
]

_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
_MEMINFO_DROPS: Final = 8  # index of SK_MEMINFO_DROPS in the array of uint32


class Port(Protocol):
    """What is bound: it lets datagrams in until it is shut, and knows what it lost.

    ``name``              for people: "udp:HOST:PORT".
    ``address``           (host, port) that it is bound to; ``local_port`` is that port.
    ``transport``         how it is read: "recvmmsg", "portable".
    ``requested_buffer``, ``granted_buffer``  bytes of receive buffer: asked for, and as the kernel counts them.
    """

    transport: str
    address: tuple[str, int]
    local_port: int
    requested_buffer: int
    granted_buffer: int

    @property
    def name(self) -> str: ...

    async def attach(self, loop: AbstractEventLoop, wake: Callable[[], object]) -> None:
        """For loops that cannot watch file descriptors: call ``wake`` when a first datagram waits, from now on."""

    def kernel_dropped(self) -> int:
        """Datagrams that were lost before anybody could read them, because the buffer was full."""

    def shut(self) -> None:
        """Let no more datagrams in. Those that have arrived can still be received."""

    def count_rest(self, until_s: float) -> int:
        """How many datagrams have arrived and were not received. They are thrown away. Counting stops at ``until_s`` on
        the monotonic clock."""

    def close(self) -> None:
        """Give the port and its memory back."""


class Reader(Protocol):
    """What is read: it gives the datagrams of one port, or of many, in batches, and never blocks.

    ``name``  for people.
    ``full``  whether the last :meth:`receive` stopped for lack of room: there may be more. May be set.
    """

    full: bool

    @property
    def name(self) -> str: ...

    def receive(self, before_ns: int | None = None, limit: int | None = None) -> DatagramBatch | None:
        """What has arrived: as much as there is room for, or about ``limit`` datagrams. None if nothing has arrived.

        The batch is valid until the next call. ``before_ns`` is a wish: datagrams that arrived at or after it should
        wait for the next batch, together with what follows them. Raises OSError.
        """

    @property
    def held_back(self) -> int:
        """How many datagrams were read but wait for the next :meth:`receive`, because of ``before_ns``."""

    def watchable(self) -> Collection[int]:
        """File descriptors that a loop can watch: one of them is readable when something has come. None where there
        are no such things."""


class PortGroup(Reader, Protocol):
    """Ports that come and go, and are read together. A port that cannot be read keeps no other from being read.

    ``emptied_ns``  what had come to any of them by then has been received, on the clock of ``arrival_ns``.
    ``rows``        how many datagrams a batch has at most.
    """

    emptied_ns: int
    rows: int

    def open(self, address: UdpAddress, receive_buffer: int) -> Port:
        """Bind a port. It is not read before :meth:`add`. Raises BindError, ConfigurationError."""

    def add(self, port: Port) -> None:
        """Read this one too, from now on."""

    def remove(self, port: Port) -> None:
        """Read this one no more. It is not closed. Safe to call twice."""

    def only(self, ports: Sequence[Port]) -> Reader:
        """What reads these and no others, for ports that are about to be closed. Its batches share the group's room."""

    def failures(self) -> list[tuple[Port, Exception]]:
        """Ports that could not be read, and why, since this was asked last. They are left out until :meth:`retry`."""

    def retry(self, port: object) -> bool:
        """The next :meth:`receive` tries this one again. False: it is none that was left out."""

    def close(self) -> None:
        """Forget all ports, which are not closed, and give the memory back."""


class RingGroup(PortGroup, Protocol):
    """A packet ring, that all ports share; or one that sniffs, and has none.

    ``role``        "ring", "sniff"; ``interfaces``: where it looks, for people.
    ``requested_buffer``, ``granted_buffer``  bytes of the ring.
    ``skipped``     what came and is no usable datagram, by cause.
    """

    role: str
    requested_buffer: int
    skipped: Counter[str]

    @property
    def interfaces(self) -> str: ...

    @property
    def granted_buffer(self) -> int: ...

    def kernel_dropped(self) -> int:
        """Packets for which there was no room; of the time before :meth:`shut`, once that is over."""

    def shut(self) -> None:
        """What comes from now on is not read any more, only counted."""

    def after_end(self) -> int:
        """Packets that came after :meth:`shut`."""

    def count_rest(self) -> int:
        """Packets that came before :meth:`shut` and were not read."""


class UdpSocket(Port, Reader, Protocol):
    """A port that is its own reader."""

    @property
    def name(self) -> str: ...

    def fileno(self) -> int:
        """Its file descriptor; below 0 if there is none."""

    def now_ns(self) -> int:
        """UTC nanoseconds on the clock of ``arrival_ns``."""


class BoundPort:
    """A real socket that is bound: see :class:`Port`.

    ``bound`` is a socket that another process has bound (:func:`bind_socket`), holds too and will go on with: then
    ``shut`` and ``count_rest`` leave what waits in it to that process, and ``close`` closes only ours.
    """

    transport = "base"

    def __init__(
        self,
        address: UdpAddress,
        *,
        receive_buffer: int,
        clock: SteadyClock,
        bound: socket.socket | None = None,
    ) -> None:
        self.requested_buffer = receive_buffer
        self._clock = clock
        self._lent = bound is not None
        self._socket = bind_socket(address, receive_buffer) if bound is None else bound
        name = self._socket.getsockname()
        self.address: tuple[str, int] = (name[0], name[1])
        self.local_port: int = name[1]
        self.granted_buffer = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    @property
    def name(self) -> str:
        return f"udp:{host_and_port(*self.address)}"

    def fileno(self) -> int:
        return self._socket.fileno()

    async def attach(self, loop: AbstractEventLoop, wake: Callable[[], object]) -> None:
        raise NotImplementedError(f"the {self.transport} transport needs a loop that watches file descriptors")

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def kernel_dropped(self) -> int:
        """Linux counts them; elsewhere this is 0."""
        return dropped_by_kernel(self._socket)

    def shut(self) -> None:
        if not self._lent:
            shut(self._socket)

    def count_rest(self, until_s: float) -> int:
        return 0 if self._lent else count_waiting(self._socket, until_s)

    def close(self) -> None:
        self._socket.close()


class SocketBase(BoundPort):
    """A port that is its own reader: see :class:`UdpSocket`."""

    full = False

    def receive(self, before_ns: int | None = None, limit: int | None = None) -> DatagramBatch | None:
        raise NotImplementedError

    @property
    def held_back(self) -> int:
        return 0

    def watchable(self) -> Collection[int]:
        number = self.fileno()
        return () if number < 0 else (number,)

    def count_rest(self, until_s: float) -> int:
        return self.held_back + super().count_rest(until_s)


def dropped_by_kernel(sock: socket.socket) -> int:
    """How many datagrams the kernel dropped because the socket's buffer was full. Linux counts them; 0 elsewhere. All
    processes that hold the socket see the same number."""
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
    """A bound socket that does not block. ``receive_buffer`` is in bytes; ``prepare`` sets the socket up before it is
    bound. Raises BindError."""
    sock = socket.socket(address.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if address.family == socket.AF_INET6:
            # [::] takes IPv4 too, as mapped addresses
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        grant_buffer(sock, receive_buffer)
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


def grant_buffer(sock: socket.socket, size: int) -> None:
    """Ask for so many bytes of receive buffer; the kernel may grant less."""
    if sys.platform == "linux":
        # beyond net.core.rmem_max if we have CAP_NET_ADMIN
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
            return
    while size >= 1 << 16:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            return
        except OSError:  # BSDs refuse sizes that they cannot grant
            size //= 2


def address_words(host: str) -> tuple[int, int]:
    """A numeric address as the upper and lower 64 bits, IPv4 mapped."""
    if ":" not in host:
        return 0, MAPPED_PREFIX | int.from_bytes(socket.inet_aton(host), "big")
    raw = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")
