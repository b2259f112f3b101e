"""Where a receiver's datagrams and its time come from. The one thing to hand in for a receiver to run elsewhere."""

from __future__ import annotations

import socket
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import MmsgSocket, open_socket, transport_named
from .address import UdpAddress
from .base import PortGroup, RingGroup, UdpSocket
from .clock import SteadyClock
from .portable_group import PortableGroup
from .recvmmsg_group import MmsgGroup
from .spill import Spill

__all__ = ["Edge"]

Lent = Callable[..., object]


class Edge:
    """Makes a receiver's sockets, and is its clock: of this machine. Tests have one of their own, in virtual time.

    ``bound``  sockets that another process has bound already and holds too, by address: they are used instead of new
               ones. Then nothing that this process does at its end takes anything from them: whoever goes on has it.
    ``lent``   gives the packet sockets that another process has made: see :class:`Rings`.
    ``clock``  gives UTC that does not step.
    """

    def __init__(
        self,
        *,
        bound: Mapping[UdpAddress, socket.socket] | None = None,
        lent: Lent | None = None,
        clock: SteadyClock | None = None,
    ):
        self._bound = dict(bound or {})
        self._lent = lent
        self._clock = clock or SteadyClock()
        self._spill = Spill()  # one thread reads all sockets of a receiver

    def now_ns(self) -> int:
        """UTC in nanoseconds: the clock of arrival times. From any thread."""
        return self._clock.now_ns()

    def monotonic_ns(self) -> int:
        """Nanoseconds on a clock that nobody sets, for how long something takes. From any thread."""
        return time.monotonic_ns()

    def monotonic_s(self) -> float:
        """The same clock in seconds."""
        return self.monotonic_ns() / 1e9

    def can_watch(self, loop: AbstractEventLoop) -> bool:
        """Whether the loop can tell when a socket of :meth:`open` is readable (Windows' proactor loop cannot).
        Otherwise :meth:`UdpSocket.attach` is used."""
        ours, other = socket.socketpair()
        with ours, other:
            try:
                loop.add_reader(ours.fileno(), int)
            except NotImplementedError:
                return False
            loop.remove_reader(ours.fileno())
            return True

    def group(self, *, transport: str, watching: bool) -> PortGroup:
        """An empty group, for ports that come and go. ``watching``: the loop can watch file descriptors. Raises
        ConfigurationError."""
        if transport_named(transport) is MmsgSocket and watching:
            return MmsgGroup(self._clock, self._spill, watching=True)
        return PortableGroup(self._clock, watching=watching)

    def rings(self, interfaces: Sequence[str], *, receive_buffer: int, sniff: str | None) -> RingGroup:
        """Packet rings, for all ports. ``interfaces`` by name; ``receive_buffer`` in bytes, of each ring; ``sniff``:
        see :class:`Rings`. Raises ConfigurationError, BindError."""
        from ..ring.rings import Rings  # only who has a ring needs it

        options: dict[str, Any] = {} if self._lent is None else {"make": self._lent, "bound": self._bound}
        return Rings(interfaces, receive_buffer=receive_buffer, clock=self._clock, sniff=sniff, **options)

    def open(self, address: UdpAddress, *, transport: str, receive_buffer: int, rows: int | None = None) -> UdpSocket:
        """A bound socket. ``receive_buffer`` is in bytes; ``rows`` is how many datagrams it reads at once, None: as its
        transport likes. Raises BindError, ConfigurationError."""
        bound = self._bound.get(address)
        return open_socket(
            address,
            transport=transport,
            receive_buffer=receive_buffer,
            rows=rows,
            clock=self._clock,
            bound=bound,
            spill=self._spill,
        )
