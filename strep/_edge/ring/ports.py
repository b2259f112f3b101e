"""Which ports are bound, and to which addresses. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["PortTable"]

_NOBODY: Final = 0
_ANYBODY: Final = 1

Mask = npt.NDArray[np.bool_]


class PortTable:
    """The bound ports of one version of IP, each for one address, or for all of the machine."""

    def __init__(self, address_bytes: int) -> None:
        self._any = bytes(address_bytes)
        self._owner = np.zeros(1 << 16, np.uint16)  # by port: nobody, anybody, or from 2 on an address
        self._hosts: list[bytes] = []

    def bind(self, port: int, host: bytes) -> None:
        """Take what comes to this port; all zeros: at any address."""
        if host == self._any:
            owner = _ANYBODY
        else:
            if host not in self._hosts:
                self._hosts.append(host)
            owner = 2 + self._hosts.index(host)
        self._owner[port] = owner

    def unbind(self, port: int) -> None:
        """Take it no more."""
        self._owner[port] = _NOBODY

    def takes(self, port: int, host: bytes) -> bool:
        """Whether what comes to this port at this address is for a bound port."""
        owner = int(self._owner[port])
        return owner == _ANYBODY or (owner > _ANYBODY and self._hosts[owner - 2] == host)

    def wanted(self, port: npt.NDArray[np.uint16], destination: npt.NDArray[np.uint8]) -> Mask | None:
        """Which datagrams are for a bound port, bool (n,); None: all. ``destination`` uint8 (n, 4 or 16), or (1, 4 or
        16): of all."""
        owner = self._owner.take(port)
        wanted: Mask = owner == _ANYBODY
        if wanted.all():
            return None
        for number, host in enumerate(self._hosts, 2):
            here = owner == number
            if not here.any():
                continue
            wanted |= here & (destination == np.frombuffer(host, np.uint8)).all(axis=1)
        return None if wanted.all() else wanted
