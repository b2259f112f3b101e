"""Pairs of ports for plain RTP of one call leg each: which are open, and which are free."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from .._edge.udp.address import UdpAddress, parse_address
from .._model.exceptions import AddressError, BindError, ConfigurationError

__all__ = ["PortPair", "PortPool", "parse_ports"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class PortPair:
    """Two bound ports of one call leg: ``rx`` takes what the platform receives (inbound), ``tx`` what it transmits."""

    host: str
    rx: int
    tx: int
    call_leg_id: uuid.UUID | None = None

    @property
    def ports(self) -> tuple[int, int]:
        """Both port numbers, rx first."""
        return self.rx, self.tx


def parse_ports(text: str) -> tuple[str, range]:
    """ "udp:0.0.0.0:20000-20999" as a host and its ports. Port 0 alone stands for any free ports: an empty range.

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


@dataclass(slots=True)
class PortPool:
    """Ports of one address that can be taken and given back.

    A port that was given back is taken again as late as possible: datagrams of its last leg that are still on their way
    would be taken for those of the next one.
    """

    host: str
    ports: range  # empty: any that the system has
    taken: set[int] = field(default_factory=set)
    _free: deque[int] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._free.extend(self.ports)

    @property
    def free(self) -> int | None:
        """How many are left; None if they are any that the system has."""
        return len(self._free) if self.ports else None

    def take(self, bind: Callable[[UdpAddress], tuple[int, _T]]) -> tuple[int, _T]:
        """The first free port that ``bind`` can bind, and what else ``bind`` returns.

        ``bind`` raises BindError for a port that another program has: then the next one is tried. Raises BindError if
        there is none.
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
        """The port is free again."""
        if port not in self.taken:
            raise ConfigurationError(f"port {port} is not one that was taken from here")
        self.taken.remove(port)
        if self.ports:
            self._free.append(port)
