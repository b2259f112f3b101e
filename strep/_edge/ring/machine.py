"""What the kernel knows of this machine's interfaces and addresses (rtnetlink)."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Final

from ..._model.exceptions import ConfigurationError
from ..udp.address import UdpAddress

__all__ = ["LocalAddresses", "interfaces_of", "named_interfaces"]

_GET_ADDRESS: Final = 22  # RTM_GETADDR
_GET_ROUTE: Final = 26
_REQUEST: Final = 1
_DUMP: Final = 0x301  # NLM_F_REQUEST, NLM_F_ROOT, NLM_F_MATCH
_ERROR: Final = 2
_DONE: Final = 3
_DESTINATION: Final = 1  # RTA_DST
_ADDRESS: Final = 1  # IFA_ADDRESS
_LOCAL: Final = 2  # IFA_LOCAL; RTN_LOCAL
_MOST_ANSWER_BYTES: Final = 1 << 16
_KNOWN_S: Final = 2.0  # so long an answer is good
_MOST_KNOWN: Final = 256
_LOOPBACK: Final = "lo"


def _ask(message: bytes) -> list[tuple[int, bytes]]:
    """Type and body of each message of the answer. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(1.0)
        sock.sendto(message, (0, 0))
        found: list[tuple[int, bytes]] = []
        while True:
            data = sock.recv(_MOST_ANSWER_BYTES)
            at = 0
            several = False
            while at + 16 <= len(data):
                size, kind, flags = struct.unpack_from("=IHH", data, at)
                if kind == _DONE or size < 16:
                    return found
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", data, at + 16)[0]
                    raise OSError(code, errno.errorcode.get(code, "netlink"))
                found.append((kind, data[at + 16 : at + size]))
                several |= bool(flags & 2)
                at += -(-size // 4) * 4
            if not several:
                return found


def _header(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def _attributes(body: bytes, at: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at + 4 <= len(body):
        size, kind = struct.unpack_from("=HH", body, at)
        if size < 4:
            break
        found[kind] = body[at + 4 : at + size]
        at += -(-size // 4) * 4
    return found


def addresses() -> list[tuple[int, bytes]]:
    """(interface's index, address) of this machine, 4 or 16 bytes each. Raises OSError."""
    found = []
    for _, body in _ask(_header(_GET_ADDRESS, _DUMP, struct.pack("=BBBBi", 0, 0, 0, 0, 0))):
        (index,) = struct.unpack_from("=I", body, 4)
        attributes = _attributes(body, 8)
        address = attributes.get(_LOCAL) or attributes.get(_ADDRESS)
        if address is not None:
            found.append((index, address))
    return found


def named_interfaces(names: Iterable[str]) -> list[int]:
    """Their indices. Raises ConfigurationError if there is none of that name."""
    found = []
    for name in names:
        try:
            found.append(socket.if_nametoindex(name))
        except OSError:
            there = ", ".join(sorted(name for _, name in socket.if_nameindex()))
            raise ConfigurationError(f"there is no interface {name!r}: there are {there}") from None
    return found


def interfaces_of(listening: Iterable[UdpAddress]) -> list[int]:
    """The interfaces, by index, that packets to these addresses come in by: those that have the addresses, and
    loopback, for what this machine sends itself. Empty: all; for an address that stands for all, or that loopback has
    for others (it is announced elsewhere)."""
    there: list[tuple[int, bytes]] | None = None
    found: set[int] = set()
    for address in listening:
        raw = socket.inet_pton(address.family, address.host.partition("%")[0])
        if not any(raw):
            return []
        if raw[0] == 127 or raw == bytes(15) + b"\1":
            found.add(socket.if_nametoindex(_LOOPBACK))
            continue
        there = addresses() if there is None else there
        loopback = socket.if_nametoindex(_LOOPBACK)
        mine = {index for index, one in there if one == raw}
        if not mine or loopback in mine:
            return []
        found |= mine | {loopback}
    return sorted(found)


class LocalAddresses:
    """Whether addresses are this machine's, as its routes have it. Answers are remembered for 2 s."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._known: dict[bytes, tuple[float, bool]] = {}

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, bytes):
            return False
        now_s = self._clock_s()
        known = self._known.get(address)
        if known is not None and now_s < known[0]:
            return known[1]
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        local = _is_local(address)
        self._known[address] = now_s + _KNOWN_S, local
        return local


def _is_local(address: bytes) -> bool:
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    body = struct.pack("=BBBBBBBBI", family, 8 * len(address), 0, 0, 0, 0, 0, 0, 0)
    body += struct.pack("=HH", 4 + len(address), _DESTINATION) + address
    with contextlib.suppress(OSError, struct.error, IndexError):
        for _, answer in _ask(_header(_GET_ROUTE, _REQUEST, body)):
            return answer[7] == _LOCAL
    return False
