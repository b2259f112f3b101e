"""The rings of a receiver, one for each version of IP that it listens on, and the ports that they are read for."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from ..._model.datagrams import DatagramBatch, joined
from ..._model.exceptions import BindError, ConfigurationError
from ..udp.address import UdpAddress
from ..udp.base import Port
from ..udp.clock import SteadyClock
from .expression import sniffing_program
from .frames import BATCH_FRAMES, SniffDecoder
from .guard import GuardPort
from .layout import ALL, IPV4, IPV6, IpVersion
from .machine import LocalAddresses, interfaces_of, named_interfaces
from .making import MakePacketSocket, own_socket
from .packet_socket import PacketSocket
from .reader import PortRing, RingReader

__all__ = ["Rings"]

_SHARE: Final = 2  # bytes for each that was asked for: as the kernel does for sockets, and a frame needs what they need


class Rings:
    """Ports that are read from rings: see :class:`PortGroup`.

    ``interfaces`` by name; none: those that the addresses belong to. With ``sniff`` there are no ports, but what that
    expression lets in. A ring takes all of its memory, twice ``receive_buffer`` bytes, when it is made: when the first
    port of its version of IP is opened. ``make`` makes their packet sockets; ``bound`` are sockets that another process
    has bound to ports, by address. Raises ConfigurationError.
    """

    name = "the packet ring"

    def __init__(
        self,
        interfaces: Sequence[str],
        *,
        receive_buffer: int,
        clock: SteadyClock,
        sniff: str | None = None,
        make: MakePacketSocket = own_socket,
        bound: Mapping[UdpAddress, socket.socket] | None = None,
    ) -> None:
        self._named = named_interfaces(interfaces)
        self._clock = clock
        self._make = make
        self._bound = bound or {}
        self._local = LocalAddresses()
        self._of: dict[IpVersion, PortRing] = {}
        self._readers: list[RingReader] = []
        self.requested_buffer = receive_buffer
        self.full = False
        self.emptied_ns = clock.now_ns()
        """What had come by then has been received."""
        self.rows = BATCH_FRAMES
        self.role = "ring" if sniff is None else "sniff"
        self.skipped: Counter[str] = Counter()
        """What came and is no usable datagram of ours, by cause."""
        if sniff is not None:
            self._readers = [self._sniffer(sniff)]

    def _sniffer(self, expression: str) -> RingReader:
        packets = PacketSocket(ALL, sniffing_program(expression, self._named), 0, _SHARE * self.requested_buffer)
        try:
            for index in self._named:
                packets.watch_all_of(index)
        except OSError as error:
            packets.close()
            raise BindError(error.errno, f"cannot see what others send: {error.strerror}") from error
        packets.join_fragments()
        return RingReader(packets, SniffDecoder(self.skipped), name=self.name, clock=self._clock)

    @property
    def interfaces(self) -> str:
        """Where it looks, for people."""
        if self._named:
            return ", ".join(map(socket.if_indextoname, self._named))
        indices = {index for ring in self._of.values() for index in ring.interfaces or (0,)}
        return "all" if not indices or 0 in indices else ", ".join(map(socket.if_indextoname, sorted(indices)))

    @property
    def granted_buffer(self) -> int:
        """Bytes of the smallest ring; 0: there is none."""
        return min((reader.granted_buffer for reader in self._readers), default=0)

    # --- ports ----------------------------------------------------------------------------------------------------

    def open(self, address: UdpAddress, receive_buffer: int, bound: socket.socket | None = None) -> GuardPort:
        """A bound port, or one on a socket that another process has bound. Nothing of it is read before :meth:`add`.

        Raises BindError, and ConfigurationError without the capability.
        """
        if self.role == "sniff":
            raise ConfigurationError("sniff takes traffic between others: there are no ports to open")
        for version in _versions(address):
            if version not in self._of:
                packets = self._make(version, _SHARE * self.requested_buffer)
                self._of[version] = ring = PortRing(
                    version, packets, clock=self._clock, local=self._local, skipped=self.skipped
                )
                self._readers.append(ring)
        return GuardPort(address, self, bound or self._bound.get(address))

    def add(self, port: Port) -> None:
        """Read it from now on. Raises OSError."""
        address = UdpAddress(*port.address)
        interfaces = self._named or interfaces_of([address])
        host = ipaddress.ip_address(address.host.partition("%")[0]).packed
        for version in _versions(address):
            here = host if len(host) == version.address_bytes else bytes(version.address_bytes)
            self._of[version].bind(port.local_port, here, interfaces)

    def stop(self, port: Port) -> None:
        """Let nothing more in that is for this port. What has come can be read until :meth:`remove`."""
        for ring in self._of.values():
            ring.stop(port.local_port)

    def remove(self, port: Port) -> None:
        """What is left of it in the rings is nobody's."""
        for ring in self._of.values():
            ring.forget(port.local_port)

    def only(self, ports: Sequence[Port]) -> Rings:
        """The ring has what came to them, between what came to others."""
        return self

    def failures(self) -> list[tuple[Port, Exception]]:
        """None: a ring is read or it is not, for all."""
        return []

    def retry(self, port: object) -> bool:
        """There is none that was left out."""
        return False

    # --- reading --------------------------------------------------------------------------------------------------

    def receive(self, before_ns: int | None = None, limit: int | None = None) -> DatagramBatch | None:
        """As :meth:`Reader.receive`."""
        asked_ns = self._clock.now_ns()
        batches = [batch for reader in self._readers if (batch := reader.receive(before_ns, limit)) is not None]
        self.full = any(reader.full for reader in self._readers)
        if not self.full:
            self.emptied_ns = asked_ns
        return joined(batches) if batches else None

    @property
    def held_back(self) -> int:
        """Frames that were looked at and are left for the next time."""
        return sum(reader.held_back for reader in self._readers)

    def watchable(self) -> list[int]:
        """File descriptors, one a ring."""
        return [reader.fileno() for reader in self._readers]

    # --- figures and the end --------------------------------------------------------------------------------------

    def kernel_dropped(self) -> int:
        """Packets that found no free frame; of the time before :meth:`shut`, once that is over."""
        return sum(reader.kernel_dropped() for reader in self._readers)

    def shut(self) -> None:
        """What comes from now on is not read any more, only counted."""
        for reader in self._readers:
            reader.shut()

    def after_end(self) -> int:
        """Packets that came after :meth:`shut`."""
        return sum(reader.after_end() for reader in self._readers)

    def count_rest(self) -> int:
        """Packets that came before :meth:`shut` and were not read."""
        return sum(reader.count_rest() for reader in self._readers)

    def close(self) -> None:
        """Give all memory back."""
        for reader in self._readers:
            reader.close()


def _versions(address: UdpAddress) -> list[IpVersion]:
    """[::] takes IPv4 too."""
    if address.family == socket.AF_INET:
        return [IPV4]
    return [IPV4, IPV6] if ipaddress.ip_address(address.host.partition("%")[0]).is_unspecified else [IPV6]
