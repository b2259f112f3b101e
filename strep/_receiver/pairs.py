"""Pairs of ports for plain RTP of one call leg each: which there are, and which are free."""

from __future__ import annotations

import selectors
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from .._edge.udp import UdpAddress, UdpSocket, parse_address
from .._model.exceptions import AddressError, BindError, ConfigurationError

__all__ = ["PairSockets", "PortPair", "PortPool", "parse_ports"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class PortPair:
    """Two bound ports: ``rx`` takes what the platform receives of a leg (inbound), ``tx`` what it transmits."""

    host: str
    rx: int
    tx: int
    call_leg_id: uuid.UUID | None = None

    @property
    def ports(self) -> tuple[int, int]:
        return self.rx, self.tx


def parse_ports(text: str) -> tuple[str, range]:
    """ "udp:0.0.0.0:20000-20999" as a host and its ports; one port 0 stands for any free ones.

    Raises AddressError.
    """
    head, dash, last = text.strip().rpartition("-")
    address = parse_address(head if dash else text)
    if not dash and not address.port:
        return address.host, range(0)
    if not last.isdigit() or not 1 <= address.port < int(last) <= 65_535:
        raise AddressError(
            f"{text!r} is no range of ports: write udp:0.0.0.0:20000-20999, or udp:0.0.0.0:0 for any that are free"
        )
    return address.host, range(address.port, int(last) + 1)


class PairSockets:
    """The open pairs and their sockets. With a thousand of them, which have something is asked of the kernel at once.

    ``watching``: the loop can watch sockets. ``fileno`` is what it watches for all of them; None where there is no such
    thing: then each socket is looked at.
    """

    def __init__(self, watching: bool) -> None:
        self.open: dict[PortPair, tuple[UdpSocket, UdpSocket]] = {}
        self._selects = watching and hasattr(selectors.DefaultSelector, "fileno")  # epoll, kqueue
        self._selector: selectors.BaseSelector | None = None

    def fileno(self) -> int | None:
        return None if self._selector is None or not self.open else self._selector.fileno()  # type: ignore[attr-defined]

    def add(self, pair: PortPair, sockets: tuple[UdpSocket, UdpSocket]) -> None:
        self.open[pair] = sockets
        if self._selects and self._selector is None:
            self._selector = selectors.DefaultSelector()  # a file descriptor: only who has pairs needs it
        if self._selector is not None:
            for socket in sockets:
                self._selector.register(socket.fileno(), selectors.EVENT_READ, socket)

    def remove(self, pair: PortPair) -> tuple[UdpSocket, UdpSocket]:
        sockets = self.open.pop(pair)
        if self._selector is not None:
            for socket in sockets:
                self._selector.unregister(socket.fileno())
        return sockets

    def ready(self) -> list[UdpSocket]:
        """Those that have something, or might."""
        if not self.open:
            return []
        if self._selector is None:
            return [socket for sockets in self.open.values() for socket in sockets]
        return [key.data for key, _ in self._selector.select(0)]

    def close(self) -> None:
        self.open.clear()
        if self._selector is not None:
            self._selector.close()
            self._selector = None


@dataclass(slots=True)
class PortPool:
    """Ports of one address. A port that was given back is taken again as late as possible: what is still on its way to
    its last leg would be taken for the next one's."""

    host: str
    ports: range  # empty: whatever the system has
    taken: set[int] = field(default_factory=set)
    _free: deque[int] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._free.extend(self.ports)

    @property
    def free(self) -> int | None:
        """How many are left; None: nobody counts them."""
        return len(self._free) if self.ports else None

    def take(self, bind: Callable[[UdpAddress], tuple[int, _T]]) -> tuple[int, _T]:
        """The first port that ``bind`` does not raise BindError for, and what else it gives.

        Raises BindError when there is none.
        """
        if not self.ports:
            port, bound = bind(UdpAddress(self.host, 0))
            self.taken.add(port)
            return port, bound
        problem: BindError | None = None
        for _ in range(len(self._free)):
            port = self._free.popleft()
            try:
                found = bind(UdpAddress(self.host, port))
            except BindError as error:  # another program has it
                problem = error
                self._free.append(port)
                continue
            except BaseException:
                self._free.append(port)
                raise
            self.taken.add(port)
            return found
        if problem is not None:
            raise problem
        raise BindError(
            f"all {len(self.ports)} ports of {self.host}:{self.ports[0]}-{self.ports[-1]} are in use: give more of them"
        )

    def give_back(self, port: int) -> None:
        if port not in self.taken:
            raise ConfigurationError(f"port {port} is not one that was taken from here")
        self.taken.remove(port)
        if self.ports:
            self._free.append(port)
