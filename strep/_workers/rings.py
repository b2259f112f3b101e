"""The packet rings of all workers: made once, in order, and open as long as the parent lives."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from .._edge.ring.guard import GuardPort
from .._edge.ring.making import Group
from .._edge.ring.rings import Rings
from .._edge.udp import SteadyClock, UdpAddress
from .._edge.udp.base import bind_socket
from .._edge.udp.ending import refuse_all
from .._model.exceptions import BindError
from .._receiver.sockets import SocketStatus
from . import steering
from .ports import PortPlan, SteeringError, WorkerPorts

__all__ = ["SharedRings"]

_SMALLEST_BUFFER: Final = 16 << 20  # bytes: below that, several workers take more than one would
_GUARD_BUFFER_BYTES: Final = 1 << 12


class SharedRings(WorkerPorts):
    """A ring a worker, one more where IPv6 is listened on, and one guard a port that all share.

    The rings share the memory that one process would have. ``interfaces`` by name; none: those of the addresses.
    """

    def __init__(self, interfaces: Sequence[str]) -> None:
        super().__init__()
        self._interfaces = interfaces
        self._rings: list[Rings] = []
        self._guards: list[tuple[PortPlan, socket.socket]] = []
        self._group: Group | None = None
        self._clock = SteadyClock()
        self._status: list[SocketStatus] = []
        self._dropped: list[int] = []

    def _bind_all(self, plans: Sequence[PortPlan], workers: int, receive_buffer: int) -> None:
        self.workers = workers
        for plan in plans:
            self._guards.append((plan, bind_socket(plan.address, _GUARD_BUFFER_BYTES, refuse_all)))
        last = [_port(guard) for plan, guard in self._guards if not plan.shared]
        self._group = group = Group(workers, partial(steering.ring_program, workers=workers, last=last))
        share = max(receive_buffer // workers, min(receive_buffer, _SMALLEST_BUFFER))
        ports: list[tuple[Rings, GuardPort]] = []
        for number in range(workers):
            rings = Rings(self._interfaces, receive_buffer=share, clock=self._clock, make=group.maker(number))
            self._rings.append(rings)
            try:
                # all have rings of all versions of IP: the members of a group are numbered
                ports += [(rings, rings.open(_address(guard), share, guard)) for _, guard in self._guards]
            except BindError:
                raise
            except OSError as error:
                raise SteeringError(f"the kernel does not steer packets to rings: {error.strerror or error}") from error
        for rings, port in ports:  # the group is complete
            if any(guard.getsockname()[1] == port.local_port for guard in self._sockets(self._rings.index(rings))):
                rings.add(port)

    def _sockets(self, index: int) -> list[socket.socket]:
        """The guards of a worker's ports."""
        return [guard for plan, guard in self._guards if plan.shared or index == self.workers - 1]

    @property
    def readers(self) -> list[Rings]:
        """The rings, by worker, for who reads them in this process."""
        return list(self._rings)

    # --- for the workers ------------------------------------------------------------------------------------------

    def descriptors_of(self, index: int) -> list[int]:
        """The states of all rings; one worker's guards and packet sockets."""
        assert self._group is not None
        guards = [guard.fileno() for guard in self._sockets(index)]
        return [self._group.fd, *guards, *self._rings[index].watchable()]

    def addresses_of(self, index: int) -> dict[str, str]:
        mine = self._sockets(index)
        return {
            name: str(_address(guard))
            for plan, guard in self._guards
            if guard in mine
            for name in plan.label.split("+")
        }

    @property
    def numbers(self) -> list[int]:
        return [_port(guard) for _, guard in self._guards]

    # --- figures --------------------------------------------------------------------------------------------------

    def dropped(self) -> list[int]:
        if self._rings:
            self._dropped = [rings.kernel_dropped() for rings in self._rings]
        return self._dropped

    def status(self, transport: str, requested: int) -> list[SocketStatus]:
        """One entry a port, and one for all rings: buffers are each worker's."""
        if self._rings:
            asked, granted = self._rings[0].requested_buffer, min(rings.granted_buffer for rings in self._rings)
            places = [(str(_address(guard)), plan.label) for plan, guard in self._guards]
            places.append((self._rings[-1].interfaces, "ring"))  # the last worker has all ports
            self._status = [SocketStatus(address, role, "ring", asked, granted, 0) for address, role in places]
        *ports, ring = self._status
        return [*ports, replace(ring, kernel_dropped=sum(self.dropped()))]

    # --- the end --------------------------------------------------------------------------------------------------

    def shut(self) -> None:
        for rings in self._rings:
            rings.shut()

    def count_after_end(self) -> int:
        return sum(rings.after_end() for rings in self._rings)

    def count_rest(self, index: int, until_s: float) -> int:
        return self._rings[index].count_rest()

    def close(self) -> None:
        if self._rings and self._guards:
            self.status("ring", 0)  # for who asks later
        for rings in self._rings:
            rings.close()
        for _, guard in self._guards:
            guard.close()
        if self._group is not None:
            self._group.close()
        self._rings, self._guards, self._group = [], [], None


def _port(guard: socket.socket) -> int:
    return int(guard.getsockname()[1])


def _address(guard: socket.socket) -> UdpAddress:
    return UdpAddress(*guard.getsockname()[:2])
