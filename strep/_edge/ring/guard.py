"""A port that a ring is read for: bound, so that nobody else has it and no ICMP answers its senders; no more."""

from __future__ import annotations

import socket
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Final, Protocol

from ..._model.addresses import host_and_port
from ..udp.address import UdpAddress
from ..udp.base import Port, bind_socket, dropped_by_kernel
from ..udp.ending import refuse_all

__all__ = ["GuardPort", "ReadElsewhere"]

_GUARD_BUFFER_BYTES: Final = 1 << 12  # it never holds anything


class ReadElsewhere(Protocol):
    """Who reads what comes to a port."""

    requested_buffer: int

    @property
    def granted_buffer(self) -> int: ...

    def stop(self, port: Port) -> None:
        """Let nothing more in that is for this port."""

    def remove(self, port: Port) -> None:
        """The port is closed."""


class GuardPort:
    """A bound UDP socket whose filter refuses everything. The kernel counts what it refuses among the drops of that
    socket and in Udp: InErrors of the machine: that is no loss.

    ``bound`` is a socket that another process has bound. Raises BindError.
    """

    transport = "ring"

    def __init__(self, address: UdpAddress, ring: ReadElsewhere, bound: socket.socket | None = None) -> None:
        self._ring = ring
        if bound is None:
            self._socket = bind_socket(address, _GUARD_BUFFER_BYTES, refuse_all)
        else:
            self._socket = bound
            refuse_all(bound)
        name = self._socket.getsockname()
        self.address: tuple[str, int] = (name[0], name[1])
        self.local_port: int = name[1]
        self.requested_buffer, self.granted_buffer = ring.requested_buffer, ring.granted_buffer  # all ports share it
        self._refused_at_end: int | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"udp:{host_and_port(*self.address)}"

    async def attach(self, loop: AbstractEventLoop, wake: Callable[[], object]) -> None:
        raise NotImplementedError("a packet ring needs a loop that watches file descriptors")

    def kernel_dropped(self) -> int:
        """What came after :meth:`shut`; before, nothing: drops are those of the ring."""
        return 0 if self._refused_at_end is None else dropped_by_kernel(self._socket) - self._refused_at_end

    def shut(self) -> None:
        """Let nothing more in. What is in the ring can still be read."""
        if self._refused_at_end is None:
            self._ring.stop(self)
            self._refused_at_end = dropped_by_kernel(self._socket)

    def count_rest(self, until_s: float) -> int:
        """Nothing: the ring has it."""
        return 0

    def close(self) -> None:
        """Give the port back."""
        self._ring.remove(self)
        self._socket.close()
