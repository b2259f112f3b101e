"""A receiver's sockets: bound at the start or as pairs while it runs, shut at the end, their losses counted."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Final

from .._edge.udp import UdpAddress, UdpSocket
from .._edge.udp.base import Port, PortGroup, Reader, RingGroup
from .._edge.udp.edge import Edge
from .._engine.sources.port_keys import PortRole
from .._model.addresses import host_and_port
from .._model.exceptions import ConfigurationError
from .._threads.incidents import Incidents
from .pairs import PortPair, PortPool

__all__ = ["ClosingPair", "SocketSet", "SocketStatus"]

_COUNTING_S: Final = 1.0  # for what nobody has time to read: a million datagrams take half of it
_PAIR_COUNTING_S: Final = 0.05  # the same for a pair that is closed while others run
_PAIR_BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SocketStatus:
    """A bound socket: where it listens, and what the kernel granted and dropped. The packet ring, where there is one,
    has an entry of its own: what the kernel dropped is told there, for all ports.

    ``address``           HOST:PORT; of the ring, the names of its interfaces, "all" where it has none
    ``role``              what it is for: "listen", "rx", "tx", "rx+tx"; "ring", "sniff"
    ``transport``         how it is read: "recvmmsg", "portable", "ring"
    ``requested_buffer``  bytes of receive buffer that were asked for
    ``granted_buffer``    bytes that the kernel granted, as it counts them
    ``kernel_dropped``    datagrams that the kernel dropped because the buffer was full
    ``skipped``           of the ring: packets that are no usable datagrams, by cause, of which a socket would not have
                          told
    """

    address: str
    role: str
    transport: str
    requested_buffer: int
    granted_buffer: int
    kernel_dropped: int
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClosingPair:
    """A pair whose ports let nothing more in. ``rest`` reads what has come to them; ``dropped`` is what the kernel had
    dropped of each before."""

    pair: PortPair
    ports: tuple[Port, Port]
    rest: Reader
    dropped: tuple[int, int]


class SocketSet:
    """Ports, which are bound, and what reads them: each socket of the start itself, and one group for all pairs.

    ``watching``: the event loop can watch file descriptors; otherwise sockets wake the pump themselves.

    ``pool`` gives the ports of pairs. ``receive_buffer`` is in bytes. ``rings`` makes a packet ring, which then is the
    group of all ports.
    """

    def __init__(
        self,
        edge: Edge,
        pool: PortPool,
        incidents: Incidents,
        *,
        watching: bool,
        transport: str,
        receive_buffer: int,
        rings: Callable[[], RingGroup] | None = None,
    ) -> None:
        if rings is not None and not watching:
            raise ConfigurationError("a packet ring needs an event loop that watches file descriptors")
        self._rings = None if rings is None else rings()
        self._edge = edge
        self._pool = pool
        self._incidents = incidents
        self._watching = watching
        self._transport = transport if watching else "portable"
        self._receive_buffer = receive_buffer
        self._pairs: dict[PortPair, tuple[Port, Port]] = {}
        self._group: PortGroup | None = self._rings  # only who has pairs, or a ring, needs it
        self._roles: dict[Port, PortRole] = {}
        self.first: list[UdpSocket] = []
        """Those that were opened at the start."""
        self._closed_dropped = 0  # by the kernel, of pairs that are closed
        self._dropped_at_end: list[int] | None = None  # by the kernel, of each socket
        self.after_end = 0
        """Datagrams that came after the doors were shut."""

    @property
    def readers(self) -> list[Reader]:
        """What there is to read from."""
        return [*self.first, self._group] if self._group is not None else list(self.first)

    @property
    def group(self) -> PortGroup | None:
        """What reads the ports of pairs, if there were any."""
        return self._group

    @property
    def pairs_apart(self) -> bool:
        """Whether pairs are read apart from what all calls share; a ring is shared by all."""
        return self._rings is None

    @property
    def pairs(self) -> list[PortPair]:
        """The pairs that are open."""
        return list(self._pairs)

    @property
    def ports(self) -> list[tuple[int, PortRole]]:
        """Port numbers and what they are for."""
        return [(port.local_port, role) for port, role in self._roles.items()]

    # --- opening --------------------------------------------------------------------------------------------------

    def open(self, addresses: Iterable[tuple[UdpAddress, PortRole]]) -> None:
        """Bind the sockets of the start. Raises BindError, and ConfigurationError if two have the same port."""
        for address, role in addresses:
            if self._rings is not None:
                port = self._rings.open(address, self._receive_buffer)
                self._roles[port] = role
                self._rings.add(port)
                continue
            socket = self._edge.open(address, transport=self._transport, receive_buffer=self._receive_buffer)
            self._roles[socket] = role
            self.first.append(socket)
        ports = [port for port, _ in self.ports]
        if len(set(ports)) < len(ports):
            raise ConfigurationError(
                f"one port on several addresses ({ports}): streams are told apart by port, choose different ones"
            )

    async def attach(self, ports: Iterable[Port], wake: Callable[[], object]) -> None:
        """Where the loop cannot watch them: have these call ``wake`` when something comes."""
        if not self._watching:
            for port in ports:
                await port.attach(asyncio.get_running_loop(), wake)

    async def open_ports(self, wake: Callable[[], object]) -> tuple[Port, Port]:
        """Bind two ports for a pair. They are not read before :meth:`add_pair`. Raises BindError if none are left."""
        ports: list[Port] = []
        try:
            for _ in range(2):
                _, port = self._pool.take(self._open_port)
                ports.append(port)
            await self.attach(ports, wake)
        except BaseException:
            self.give_back(ports)
            raise
        rx, tx = ports
        return rx, tx

    def _open_port(self, address: UdpAddress) -> tuple[int, Port]:
        port = self._grouped().open(address, min(self._receive_buffer, _PAIR_BUFFER_BYTES))
        return port.local_port, port

    def _grouped(self) -> PortGroup:
        if self._group is None:
            self._group = self._edge.group(transport=self._transport, watching=self._watching)
        return self._group

    def give_back(self, ports: Iterable[Port]) -> None:
        """Close ports of :meth:`open_ports`, so that others may have them."""
        for port in ports:
            port.close()
            self._pool.give_back(port.local_port)

    def pair_of(self, ports: tuple[Port, Port], leg: uuid.UUID | None) -> PortPair:
        """Two ports of :meth:`open_ports` as a pair, of the call leg ``leg`` if it is named."""
        rx, tx = ports
        return PortPair(self._pool.host, rx.local_port, tx.local_port, leg)

    def add_pair(self, pair: PortPair, ports: tuple[Port, Port]) -> None:
        """Read these too, from now on."""
        for port in ports:
            self._grouped().add(port)
        self._pairs[pair] = ports
        self._roles |= dict(zip(ports, (PortRole.RX, PortRole.TX), strict=True))

    # --- reading --------------------------------------------------------------------------------------------------

    def watched(self, without: Container[Reader]) -> set[int]:
        """File descriptors that a sleeping pump watches: one a socket, and one that stands for all pairs."""
        return set(self.descriptors(without)) if self._watching else set()

    def descriptors(self, without: Container[Reader] = ()) -> list[int]:
        """File descriptors in which media may wait, whether the loop can watch them or not."""
        return [number for reader in self.readers if reader not in without for number in reader.watchable()]

    # --- closing --------------------------------------------------------------------------------------------------

    def __contains__(self, pair: object) -> bool:
        return pair in self._pairs

    def shut_pair(self, pair: PortPair) -> ClosingPair:
        """Let nothing more into a pair."""
        rx, tx = ports = self._pairs[pair]
        closing = ClosingPair(pair, ports, self._grouped().only(ports), (rx.kernel_dropped(), tx.kernel_dropped()))
        for port in ports:
            port.shut()
        return closing

    def remove_pair(self, closing: ClosingPair) -> None:
        """Read a pair no more."""
        for port in self._pairs.pop(closing.pair):
            self._grouped().remove(port)
            del self._roles[port]

    def close_pair(self, closing: ClosingPair) -> int:
        """Close its ports and give them back; returns how many datagrams nobody has received."""
        unread = 0
        for port, before in zip(closing.ports, closing.dropped, strict=True):
            self._closed_dropped += before
            unread += port.count_rest(self._edge.monotonic_s() + _PAIR_COUNTING_S)
            self.after_end += port.kernel_dropped() - before
        self.give_back(closing.ports)
        return unread

    def shut(self) -> None:
        """Let nothing more in."""
        self._dropped_at_end = self._dropped()
        if self._rings is not None:
            self._rings.shut()
            return
        for port in self._roles:
            port.shut()

    def count_unread(self) -> int:
        """How many datagrams came before the doors were shut and were not received."""
        until_s = self._edge.monotonic_s() + _COUNTING_S
        if self._rings is not None:
            return self._rings.count_rest()
        return sum(port.count_rest(until_s) for port in self._roles)

    def close(self) -> None:
        """Close everything, after :meth:`shut` or when the start has failed."""
        if self._dropped_at_end is not None:
            dropped = sum(port.kernel_dropped() for port in self._roles)
            self.after_end += dropped - sum(self._dropped_at_end)
            if self._rings is not None:
                self.after_end += self._rings.after_end()
        if self._group is not None:
            self._group.close()
            self._group = None
        for port in self._roles:
            port.close()
        for pair in self._pairs:
            for number in pair.ports:
                self._pool.give_back(number)
        self._pairs.clear()

    # --- figures --------------------------------------------------------------------------------------------------

    def status(self) -> list[SocketStatus]:
        """Each port that is open, or was at the end."""
        ports = [
            SocketStatus(
                address=host_and_port(*port.address),
                role=role.label,
                transport=port.transport,
                requested_buffer=port.requested_buffer,
                granted_buffer=port.granted_buffer,
                kernel_dropped=dropped,
            )
            for (port, role), dropped in zip(self._roles.items(), self._dropped(), strict=True)
        ]
        if self._rings is None:
            return ports
        ring = SocketStatus(
            address=self._rings.interfaces,
            role=self._rings.role,
            transport="ring",
            requested_buffer=self._rings.requested_buffer,
            granted_buffer=self._rings.granted_buffer,
            kernel_dropped=self._rings.kernel_dropped(),
            skipped=dict(sorted((+self._rings.skipped).items())),
        )
        return [*ports, ring]

    @property
    def smallest_buffer(self) -> int:
        """Bytes of receive buffer that were granted to the socket of the start that has least; 0 without sockets."""
        if self._rings is not None:
            return self._rings.granted_buffer
        return min((socket.granted_buffer for socket in self.first), default=0)

    @property
    def pair_buffer(self) -> int:
        """The same of a port of a pair, whichever was opened last; 0 if none is open, or a ring reads them."""
        if self._rings is not None:
            return 0
        rx, tx = next(reversed(self._pairs.values()), (None, None))
        return 0 if rx is None or tx is None else min(rx.granted_buffer, tx.granted_buffer)

    def kernel_dropped(self) -> int:
        """Datagrams that the kernel dropped until the doors were shut, of closed pairs too."""
        of_ring = 0 if self._rings is None else self._rings.kernel_dropped()
        return self._closed_dropped + sum(self._dropped()) + of_ring

    def _dropped(self) -> list[int]:
        """By the kernel, of each socket that is open, or was at the end."""
        if self._dropped_at_end is not None:
            return self._dropped_at_end
        return [port.kernel_dropped() for port in self._roles]
