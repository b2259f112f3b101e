"""UDP sockets that give datagrams in batches."""

from __future__ import annotations

import os
import socket
from typing import Any

from ..._model.exceptions import ConfigurationError
from .address import UdpAddress, parse_address
from .base import UdpSocket
from .clock import SteadyClock
from .portable import PortableSocket
from .recvmmsg import MmsgSocket, recvmmsg_available
from .spill import Spill

__all__ = [
    "MmsgSocket",
    "PortableSocket",
    "Spill",
    "SteadyClock",
    "UdpAddress",
    "UdpSocket",
    "open_socket",
    "parse_address",
    "recvmmsg_available",
    "transport_named",
]


def open_socket(
    address: UdpAddress,
    *,
    transport: str = "auto",
    receive_buffer: int = 128 << 20,
    rows: int | None = None,
    clock: SteadyClock | None = None,
    bound: socket.socket | None = None,
    spill: Spill | None = None,
) -> UdpSocket:
    """A bound socket of the named transport, or that transport on a socket that is ``bound`` already.

    ``receive_buffer`` is in bytes; ``rows`` is how many datagrams it reads at once, None: as its transport likes;
    ``spill`` may be shared by sockets that one thread reads. Raises BindError, ConfigurationError.
    """
    kind = transport_named(transport)
    options: dict[str, Any] = {"receive_buffer": receive_buffer, "clock": clock, "bound": bound}
    if rows is not None:
        options["rows"] = rows
    if kind is MmsgSocket:
        options["spill"] = spill
    return kind(address, **options)


def transport_named(name: str) -> type[MmsgSocket] | type[PortableSocket]:
    """ "recvmmsg" (Linux), "portable", or "auto": the better of them that works here, unless the environment variable
    STREP_TRANSPORT names one (the tests run with both). Raises ConfigurationError."""
    if name == "auto":
        name = os.environ.get("STREP_TRANSPORT", "auto")
    if name == "recvmmsg" and not recvmmsg_available():
        raise ConfigurationError('transport "recvmmsg" needs 64-bit Linux: use "auto" or "portable"')
    if name == "ring":
        raise ConfigurationError('transport "ring": a packet ring is read for all ports; it is no socket')
    if name == "portable" or (name == "auto" and not recvmmsg_available()):
        return PortableSocket
    return MmsgSocket
