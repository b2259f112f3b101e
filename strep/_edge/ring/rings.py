"""The rings of a receiver, one for each version of IP that it listens on, and the ports that they are read for."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Sequence

from ..udp.address import UdpAddress
from ..udp.clock import SteadyClock
from .guard import GuardPort
from .layout import IPV4, IPV6, IpVersion
from .machine import LocalAddresses, interfaces_of, named_interfaces
from .reader import RingReader

__all__ = ["Rings"]


class Rings:
    """``interfaces`` by name; none: those that the addresses belong to. Raises ConfigurationError.

    A ring takes all of its memory, ``receive_buffer`` bytes, when the first port of its version of IP is opened.
    """

    def __init__(self, interfaces: Sequence[str], *, receive_buffer: int, clock: SteadyClock) -> None:
        self._named = named_interfaces(interfaces)
        self._clock = clock
        self._local = LocalAddresses()
        self._of: dict[IpVersion, RingReader] = {}
        self.requested_buffer = receive_buffer

    @property
    def readers(self) -> list[RingReader]:
        """What is to be read."""
        return list(self._of.values())

    @property
    def granted_buffer(self) -> int:
        """Bytes of the smallest ring; 0: there is none."""
        return min((reader.granted_buffer for reader in self._of.values()), default=0)

    def open(self, address: UdpAddress, bound: socket.socket | None = None) -> GuardPort:
        """A bound port, or one on a socket that another process has bound. Nothing of it is read before :meth:`admit`.

        Raises BindError, and ConfigurationError without the capability.
        """
        for version in _versions(address):
            if version not in self._of:
                self._of[version] = RingReader(
                    version, ring_bytes=self.requested_buffer, clock=self._clock, local=self._local
                )
        return GuardPort(address, self, bound)

    def admit(self, port: GuardPort) -> None:
        """Read it from now on. Raises OSError."""
        address = UdpAddress(*port.address)
        interfaces = self._named or interfaces_of([address])
        host = ipaddress.ip_address(address.host.partition("%")[0]).packed
        for version in _versions(address):
            here = host if len(host) == version.address_bytes else bytes(version.address_bytes)
            self._of[version].bind(port.local_port, here, interfaces)

    def stop(self, port: GuardPort) -> None:
        """Let nothing more in that is for this port. What has come can be read until :meth:`forget`."""
        for reader in self._of.values():
            reader.stop(port.local_port)

    def forget(self, port: GuardPort) -> None:
        """The port is closed: what is left of it in the rings is nobody's."""
        for reader in self._of.values():
            reader.forget(port.local_port)

    @property
    def skipped(self) -> Counter[str]:
        """What came and is no usable datagram of ours, by cause."""
        return sum((+reader.skipped for reader in self._of.values()), Counter())

    def kernel_dropped(self) -> int:
        """Packets that found no free frame; of the time before :meth:`shut`, once that is over."""
        return sum(reader.kernel_dropped() for reader in self._of.values())

    def shut(self) -> None:
        """What comes from now on is not read any more, only counted."""
        for reader in self._of.values():
            reader.shut()

    def after_end(self) -> int:
        """Packets that came after :meth:`shut`."""
        return sum(reader.after_end() for reader in self._of.values())

    def count_rest(self) -> int:
        """Packets that came before :meth:`shut` and were not read."""
        return sum(reader.count_rest() for reader in self._of.values())

    def close(self) -> None:
        """Give all memory back."""
        for reader in self._of.values():
            reader.close()


def _versions(address: UdpAddress) -> list[IpVersion]:
    """[::] takes IPv4 too."""
    if address.family == socket.AF_INET:
        return [IPV4]
    return [IPV4, IPV6] if ipaddress.ip_address(address.host.partition("%")[0]).is_unspecified else [IPV6]
