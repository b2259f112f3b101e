"""UDP edges: sockets that give datagrams in batches. Floor 5."""

from __future__ import annotations

import os

from .._exceptions import ConfigurationError
from .address import UdpAddress, parse_address
from .base import UdpSocket
from .clock import SteadyClock
from .portable import PortableSocket
from .recvmmsg import MmsgSocket, recvmmsg_available

__all__ = [
    "MmsgSocket",
    "PortableSocket",
    "SteadyClock",
    "UdpAddress",
    "UdpSocket",
    "open_socket",
    "parse_address",
    "recvmmsg_available",
]


def open_socket(
    address: UdpAddress,
    *,
    transport: str = "auto",
    receive_buffer: int = 128 << 20,
    clock: SteadyClock | None = None,
) -> UdpSocket:
    """A bound socket: "recvmmsg" (Linux), "portable", or "auto" for the better of them that works here (or the one that
    the environment's STREP_TRANSPORT names: the tests run with both).

    Raises BindError, ConfigurationError.
    """
    if transport == "auto":
        transport = os.environ.get("STREP_TRANSPORT", "auto")
    if transport == "recvmmsg" and not recvmmsg_available():
        raise ConfigurationError('transport "recvmmsg" needs 64-bit Linux: use "auto" or "portable"')
    if transport == "portable" or (transport == "auto" and not recvmmsg_available()):
        return PortableSocket(address, receive_buffer=receive_buffer, clock=clock)
    return MmsgSocket(address, receive_buffer=receive_buffer, clock=clock)
