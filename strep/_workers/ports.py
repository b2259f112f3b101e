"""What all workers receive on, their sockets: bound once, in order, and open as long as the parent lives."""

from __future__ import annotations

import logging
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .._edge.udp import UdpAddress
from .._edge.udp.base import bind_socket, dropped_by_kernel
from .._edge.udp.ending import admit_all, count_waiting, refuse_all, shut
from .._model.exceptions import BindError, ConfigurationError
from .._receiver.sockets import SocketStatus
from . import steering

__all__ = ["PortPlan", "SharedPort", "SharedPorts", "SteeringError", "WorkerPorts", "bind_group"]

_log = logging.getLogger("strep")

_SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h


class SteeringError(Exception):
    """The kernel does not steer here; the message says why. Nothing is left bound."""


@dataclass(frozen=True, slots=True)
class PortPlan:
    """A port that is to be bound."""

    address: UdpAddress
    label: str  # "listen", "rx", "tx" or "rx+tx"
    shared: bool  # by all workers; otherwise it is the last one's


def bind_group(address: UdpAddress, workers: int, receive_buffer: int) -> list[socket.socket]:
    """``workers`` sockets on one port; socket i gets the datagrams of which :func:`steering.worker_of` says i.

    The first one is bound without SO_REUSEPORT, which fails where anybody else has the port. Until all are there every
    socket refuses what comes, so that no datagram goes to the wrong worker. A program of the same user that joins the
    port later gets nothing: the steering never names its place. Raises BindError, SteeringError.
    """
    sockets: list[socket.socket] = []
    try:
        if workers == 1:
            sockets.append(bind_socket(address, receive_buffer))
        else:
            sockets.append(bind_socket(address, receive_buffer, refuse_all))
            sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            same = UdpAddress(*sockets[0].getsockname()[:2])
            while len(sockets) < workers:
                sockets.append(bind_socket(same, receive_buffer, _share))
            steering.attach_program(sockets[0], workers)
            for sock in sockets:
                admit_all(sock)
        if sys.platform == "linux":
            for sock in sockets:  # what comes before the worker looks has its arrival time all the same
                sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError as error:
        for sock in sockets:
            sock.close()
        if isinstance(error, BindError):
            raise
        raise SteeringError(f"the kernel does not steer datagrams to workers: {error.strerror or error}") from error
    return sockets


def _share(sock: socket.socket) -> None:
    refuse_all(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


class SharedPort:
    """A port and its sockets, one a worker: None where a worker has none."""

    def __init__(self, label: str, sockets: Sequence[socket.socket | None]) -> None:
        self.label = label
        self.sockets = sockets
        self.present = [s for s in sockets if s is not None]
        self.address = UdpAddress(*self.present[0].getsockname()[:2])
        self.granted_buffer = self.present[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        # what an incomplete group refused was never ours
        self._refused = {s: dropped_by_kernel(s) for s in self.present}

    def dropped(self, index: int) -> int:
        """Datagrams for this worker that the kernel dropped."""
        sock = self.sockets[index]
        return 0 if sock is None else max(0, dropped_by_kernel(sock) - self._refused[sock])

    def count_rest(self, index: int, until_s: float) -> int:
        """Datagrams that this worker has not received; ``until_s`` on the monotonic clock it gives up counting."""
        sock = self.sockets[index]
        return 0 if sock is None else count_waiting(sock, until_s)


class WorkerPorts(ABC):
    """What the workers of a supervisor receive on: bound by the parent, which holds it as long as it lives."""

    def __init__(self) -> None:
        self.workers = 0
        self.fallback: str | None = None  # why there is one worker only, where more were asked for

    def bind(self, plans: Sequence[PortPlan], workers: int, receive_buffer: int) -> None:
        """Bind them for ``workers``; for one, if the kernel does not steer. Raises BindError, ConfigurationError."""
        try:
            try:
                self._bind_all(plans, workers, receive_buffer)
            except SteeringError as error:
                self.close()
                self.fallback = str(error)
                _log.warning("%s: one process does it all", error)
                self._bind_all(plans, 1, receive_buffer)
            numbers = self.numbers
            if len(set(numbers)) < len(numbers):
                raise ConfigurationError(
                    f"one port on several addresses ({numbers}): streams are told apart by port, choose different ones"
                )
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _bind_all(self, plans: Sequence[PortPlan], workers: int, receive_buffer: int) -> None:
        """Raises BindError, ConfigurationError, SteeringError; then :meth:`close` is called."""

    @property
    @abstractmethod
    def numbers(self) -> list[int]:
        """The ports."""

    @abstractmethod
    def descriptors_of(self, index: int) -> list[int]:
        """What one worker gets; it has duplicates of them."""

    @abstractmethod
    def addresses_of(self, index: int) -> dict[str, str]:
        """One worker's ports as arguments of a receiver: addresses by "listen", "rx" and "tx"."""

    @abstractmethod
    def status(self, transport: str, requested: int) -> list[SocketStatus]:
        """As :attr:`Supervisor.sockets` has them, those that are closed too."""

    @abstractmethod
    def dropped(self) -> list[int]:
        """What the kernel dropped, by worker; of the time before :meth:`shut`, once that is over."""

    @abstractmethod
    def shut(self) -> None:
        """Let nothing more in, for any worker."""

    @abstractmethod
    def count_after_end(self) -> int:
        """Datagrams that came after :meth:`shut`."""

    @abstractmethod
    def count_rest(self, index: int, until_s: float) -> int:
        """Datagrams that a worker has not received; ``until_s`` on the monotonic clock counting is given up."""

    @abstractmethod
    def close(self) -> None:
        """Give all back."""


class SharedPorts(WorkerPorts):
    """Sockets, one a worker for each port."""

    def __init__(self) -> None:
        super().__init__()
        self._described: list[SharedPort] = []  # in the order of the plan; they stay here when they are closed
        self._open: list[SharedPort] = []
        self._dropped_at_end: list[list[int]] = []

    def _bind_all(self, plans: Sequence[PortPlan], workers: int, receive_buffer: int) -> None:
        self.workers = workers
        for plan in plans:
            own = bind_group(plan.address, workers if plan.shared else 1, receive_buffer)
            nobody = [None] * (workers - len(own))
            self._open.append(SharedPort(plan.label, [*nobody, *own]))
        self._described = list(self._open)

    @property
    def numbers(self) -> list[int]:
        return [port.address.port for port in self._open]

    def descriptors_of(self, index: int) -> list[int]:
        return [sock.fileno() for port in self._open if (sock := port.sockets[index]) is not None]

    def addresses_of(self, index: int) -> dict[str, str]:
        mine = [port for port in self._open if port.sockets[index] is not None]
        return {name: str(port.address) for port in mine for name in port.label.split("+")}

    def status(self, transport: str, requested: int) -> list[SocketStatus]:
        """``granted_buffer`` is each worker's, ``kernel_dropped`` that of all together."""
        return [
            SocketStatus(str(port.address), port.label, transport, requested, port.granted_buffer, sum(dropped))
            for port, dropped in zip(self._described, self._dropped(), strict=True)
        ]

    def dropped(self) -> list[int]:
        return [sum(port) for port in zip(*self._dropped(), strict=True)] or [0] * self.workers

    def _dropped(self) -> list[list[int]]:
        """By port and worker."""
        return self._dropped_at_end or self._dropped_now()

    def _dropped_now(self) -> list[list[int]]:
        return [[port.dropped(i) for i in range(self.workers)] for port in self._open]

    def shut(self) -> None:
        self._dropped_at_end = self._dropped_now()
        for port in self._open:
            for sock in port.present:
                shut(sock)

    def count_after_end(self) -> int:
        return sum(map(sum, self._dropped_now())) - sum(map(sum, self._dropped_at_end))

    def count_rest(self, index: int, until_s: float) -> int:
        return sum(port.count_rest(index, until_s) for port in self._open)

    def close(self) -> None:
        for port in self._open:
            for sock in port.present:
                sock.close()
        self._open = []
