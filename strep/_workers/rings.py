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

    # --- for the workers ------------------------------------------------------------------------------------------

    def descriptors_of(self, index: int) -> list[int]:
        """The states of all rings; one worker's guards and packet sockets."""
        assert self._group is not None
        guards = [guard.fileno() for guard in self._sockets(index)]
        return [self._group.fd, *guards, *self._rings[index].watchable()]

    def addresses_of(self, index: int) -> dict[str, str]:
        """As :meth:`SharedPorts.addresses_of`."""
        mine = self._sockets(index)
        return {
            name: str(_address(guard))
            for plan, guard in self._guards
            if guard in mine
            for name in plan.label.split("+")
        }

    @property
    def numbers(self) -> list[int]:
        """The ports."""
        return [_port(guard) for _, guard in self._guards]

    # --- figures --------------------------------------------------------------------------------------------------

    def dropped(self) -> list[int]:
        """Packets that found no room, by worker."""
        if self._rings:
            self._dropped = [rings.kernel_dropped() for rings in self._rings]
        return self._dropped

    def status(self, transport: str, requested: int) -> list[SocketStatus]:
        """One entry a port, and one for the rings: its buffer is each worker's."""
        if self._rings:
            ports = [
                SocketStatus(str(_address(guard)), plan.label, "ring", requested, self._rings[0].granted_buffer, 0)
                for plan, guard in self._guards
            ]
            granted = min(rings.granted_buffer for rings in self._rings)
            self._status = [*ports, SocketStatus(self._rings[-1].interfaces, "ring", "ring", requested, granted, 0)]
        *ports, ring = self._status
        return [*ports, replace(ring, kernel_dropped=sum(self.dropped()))]

    # --- the end --------------------------------------------------------------------------------------------------

    def shut(self) -> None:
        """What comes from now on no worker reads any more."""
        for rings in self._rings:
            rings.shut()

    def count_after_end(self) -> int:
        """Packets that came after :meth:`shut`."""
        return sum(rings.after_end() for rings in self._rings)

    def count_rest(self, index: int, until_s: float) -> int:
        """Packets that a worker has not read."""
        return self._rings[index].count_rest()

    def close(self) -> None:
        self.dropped()
        if self._guards:
            self.status("ring", 0)
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
