"""Addresses as users write them: udp:HOST:PORT."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from ..._model.addresses import host_and_port
from ..._model.exceptions import AddressError

__all__ = ["UdpAddress", "parse_address"]


@dataclass(frozen=True, slots=True)
class UdpAddress:
    """Where a UDP socket is bound; ``str()`` gives HOST:PORT, with brackets around IPv6."""

    host: str  # a numeric address
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def __str__(self) -> str:
        return host_and_port(self.host, self.port)


def parse_address(text: str) -> UdpAddress:
    """ "udp:0.0.0.0:9000", "127.0.0.1:9000", "[::1]:9000", ":9000" (all addresses); the prefix is optional.

    Raises AddressError.
    """
    rest = text.strip()
    if rest.lower().startswith("udp:"):
        rest = rest[4:].removeprefix("//")
    host, colon, port = rest.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isdigit() or int(port) > 65_535 or (":" in host and not bracketed):
        raise AddressError(f"{text!r} is not udp:ADDR:PORT: write udp:0.0.0.0:9000, 127.0.0.1:9000 or [::1]:9000")
    host = host.strip("[]") or "0.0.0.0"  # no host: all addresses
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise AddressError(
            f"{text!r}: {host!r} is not an IP address: write a numeric one, like 0.0.0.0 or 127.0.0.1"
        ) from None
    return UdpAddress(host, int(port))
