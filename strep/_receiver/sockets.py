"""A receiver's sockets: bound at the start or as pairs while it runs, shut at the end, their losses counted."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Final

from .._edge.udp import UdpAddress, UdpSocket
from .._edge.udp.edge import Edge
from .._engine.sources.port_keys import PortRole
from .._model.addresses import host_and_port
from .._model.exceptions import ConfigurationError
from .._threads.incidents import Incidents
from .pairs import PairSockets, PortPair, PortPool

__all__ = ["ClosingPair", "SocketSet", "SocketStatus"]

_COUNTING_S: Final = 1.0  # for what nobody has time to read: a million datagrams take half of it
_PAIR_COUNTING_S: Final = 0.05  # the same for a pair that is closed while others run
_PAIR_ROWS: Final = 64  # datagrams that are read at once from a pair's port: it carries one leg
_PAIR_BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SocketStatus:
    """A bound socket: where it listens, and what the kernel granted and dropped.

    ``address``           HOST:PORT
    ``role``              what it is for: "listen", "rx", "tx", "rx+tx"
    ``transport``         how it is read: "recvmmsg", "portable"
    ``requested_buffer``  bytes of receive buffer that were asked for
    ``granted_buffer``    bytes that the kernel granted, as it counts them
    ``kernel_dropped``    datagrams that the kernel dropped because the buffer was full
    """

    address: str
    role: str
    transport: str
    requested_buffer: int
    granted_buffer: int
    kernel_dropped: int


@dataclass(frozen=True, slots=True)
class ClosingPair:
    """A pair whose sockets let nothing more in; ``dropped`` is what the kernel had dropped of each before."""

    pair: PortPair
    sockets: tuple[UdpSocket, UdpSocket]
    dropped: tuple[int, int]


class SocketSet:
    """``watching``: the event loop can watch file descriptors; otherwise sockets wake the pump themselves.

    ``pool`` gives the ports of pairs. ``receive_buffer`` is in bytes.
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
    ) -> None:
        self._edge = edge
        self._pool = pool
        self._incidents = incidents
        self._watching = watching
        self._transport = transport if watching else "portable"
        self._receive_buffer = receive_buffer
        self._pairs = PairSockets(watching)
        self._roles: dict[UdpSocket, PortRole] = {}
        self.first: list[UdpSocket] = []
        """Those that were opened at the start."""
        self._closed_dropped = 0  # by the kernel, of pairs that are closed
        self._dropped_at_end: list[int] | None = None  # by the kernel, of each socket
        self.after_end = 0
        """Datagrams that came after the doors were shut."""

    @property
    def all(self) -> list[UdpSocket]:
        """All that are open, or were at the end."""
        return list(self._roles)

    @property
    def pairs(self) -> list[PortPair]:
        """The pairs that are open."""
        return list(self._pairs.open)

    @property
    def ports(self) -> list[tuple[int, PortRole]]:
        """Port numbers and what they are for."""
        return [(socket.local_port, role) for socket, role in self._roles.items()]

    # --- opening --------------------------------------------------------------------------------------------------

    def open(self, addresses: Iterable[tuple[UdpAddress, PortRole]]) -> None:
        """Bind the sockets of the start. Raises BindError, and ConfigurationError if two have the same port."""
        for address, role in addresses:
            socket = self._edge.open(address, transport=self._transport, receive_buffer=self._receive_buffer)
            self._roles[socket] = role
            self.first.append(socket)
        ports = [port for port, _ in self.ports]
        if len(set(ports)) < len(ports):
            raise ConfigurationError(
                f"one port on several addresses ({ports}): streams are told apart by port, choose different ones"
            )

    async def attach(self, sockets: Iterable[UdpSocket], wake: Callable[[], object]) -> None:
        """Where the loop cannot watch them: have these call ``wake`` when something comes."""
        if not self._watching:
            for socket in sockets:
                await socket.attach(asyncio.get_running_loop(), wake)

    async def open_ports(self, wake: Callable[[], object]) -> tuple[UdpSocket, UdpSocket]:
        """Bind two ports for a pair. They are not read before :meth:`add_pair`. Raises BindError if none are left."""
        sockets: list[UdpSocket] = []
        try:
            for _ in range(2):
                _, socket = self._pool.take(self._open_port)
                sockets.append(socket)
            await self.attach(sockets, wake)
        except BaseException:
            self.give_back(sockets)
            raise
        rx, tx = sockets
        return rx, tx

    def _open_port(self, address: UdpAddress) -> tuple[int, UdpSocket]:
        buffer = min(self._receive_buffer, _PAIR_BUFFER_BYTES)
        socket = self._edge.open(address, transport=self._transport, receive_buffer=buffer, rows=_PAIR_ROWS)
        return socket.local_port, socket

    def give_back(self, sockets: Iterable[UdpSocket]) -> None:
        """Close ports of :meth:`open_ports`, so that others may have them."""
        for socket in sockets:
            socket.close()
            self._pool.give_back(socket.local_port)

    def pair_of(self, sockets: tuple[UdpSocket, UdpSocket], leg: uuid.UUID | None) -> PortPair:
        """Two sockets of :meth:`open_ports` as a pair, of the call leg ``leg`` if it is named."""
        rx, tx = sockets
        return PortPair(self._pool.host, rx.local_port, tx.local_port, leg)

    def add_pair(self, pair: PortPair, sockets: tuple[UdpSocket, UdpSocket]) -> None:
        """Read these too, from now on."""
        self._pairs.add(pair, sockets)
        self._roles |= dict(zip(sockets, (PortRole.RX, PortRole.TX), strict=True))

    # --- reading --------------------------------------------------------------------------------------------------

    def ready_pairs(self) -> list[UdpSocket]:
        """Sockets of pairs that have something, or may have."""
        try:
            return self._pairs.ready()
        except Exception as error:
            self._incidents.fault("pump", error)
            return [socket for sockets in self._pairs.open.values() for socket in sockets]

    def watched(self, without: Container[UdpSocket]) -> set[int]:
        """File descriptors that a sleeping pump watches: one a socket, and one that stands for all pairs."""
        if not self._watching:
            return set()
        pairs = self._pairs.fileno()
        sockets = self._roles if pairs is None else self.first
        numbers = {socket.fileno() for socket in sockets if socket not in without}
        return numbers | ({pairs} if pairs is not None else set())

    def descriptors(self) -> list[int]:
        """File descriptors in which media may wait: as :meth:`watched`, or all if the loop watches none."""
        return list(self.watched(())) or [socket.fileno() for socket in self._roles]

    # --- closing --------------------------------------------------------------------------------------------------

    def __contains__(self, pair: object) -> bool:
        return pair in self._pairs.open

    def shut_pair(self, pair: PortPair) -> ClosingPair:
        """Let nothing more into a pair."""
        rx, tx = sockets = self._pairs.open[pair]
        closing = ClosingPair(pair, sockets, (rx.kernel_dropped(), tx.kernel_dropped()))
        for socket in sockets:
            socket.shut()
        return closing

    def remove_pair(self, closing: ClosingPair) -> None:
        """Read a pair no more."""
        for socket in self._pairs.remove(closing.pair):
            del self._roles[socket]

    def close_pair(self, closing: ClosingPair) -> int:
        """Close its ports and give them back; returns how many datagrams nobody has received."""
        unread = 0
        for socket, before in zip(closing.sockets, closing.dropped, strict=True):
            self._closed_dropped += before
            unread += socket.count_rest(self._edge.monotonic_s() + _PAIR_COUNTING_S)
            self.after_end += socket.kernel_dropped() - before
        self.give_back(closing.sockets)
        return unread

    def shut(self) -> None:
        """Let nothing more in."""
        self._dropped_at_end = self._dropped()
        for socket in self._roles:
            socket.shut()

    def count_unread(self) -> int:
        """How many datagrams came before the doors were shut and were not received."""
        until_s = self._edge.monotonic_s() + _COUNTING_S
        return sum(socket.count_rest(until_s) for socket in self._roles)

    def close(self) -> None:
        """Close everything, after :meth:`shut` or when the start has failed."""
        if self._dropped_at_end is not None:
            dropped = sum(socket.kernel_dropped() for socket in self._roles)
            self.after_end += dropped - sum(self._dropped_at_end)
        for socket in self._roles:
            socket.close()
        for pair in self._pairs.open:
            for port in pair.ports:
                self._pool.give_back(port)
        self._pairs.close()

    # --- figures --------------------------------------------------------------------------------------------------

    def status(self) -> list[SocketStatus]:
        """Each socket that is open, or was at the end."""
        return [
            SocketStatus(
                address=host_and_port(*socket.address),
                role=role.label,
                transport=socket.transport,
                requested_buffer=socket.requested_buffer,
                granted_buffer=socket.granted_buffer,
                kernel_dropped=dropped,
            )
            for (socket, role), dropped in zip(self._roles.items(), self._dropped(), strict=True)
        ]

    @property
    def smallest_buffer(self) -> int:
        """Bytes of receive buffer that were granted to the socket of the start that has least; 0 without sockets."""
        return min((socket.granted_buffer for socket in self.first), default=0)

    def kernel_dropped(self) -> int:
        """Datagrams that the kernel dropped until the doors were shut, of closed pairs too."""
        return self._closed_dropped + sum(self._dropped())

    def _dropped(self) -> list[int]:
        """By the kernel, of each socket that is open, or was at the end."""
        if self._dropped_at_end is not None:
            return self._dropped_at_end
        return [socket.kernel_dropped() for socket in self._roles]
