"""IP addresses as pairs of uint64: IPv4 as ::ffff:a.b.c.d."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .exceptions import ConfigurationError

__all__ = ["MAPPED_PREFIX", "SourceFilter", "format_address", "host_and_port"]

MAPPED_PREFIX = 0xFFFF_0000_0000  # the upper half of the lower 64 bits of ::ffff:0:0/96
_LOW = 0xFFFF_FFFF_FFFF_FFFF

U64 = npt.NDArray[np.uint64]


@lru_cache(maxsize=1024)  # media of many calls come from few machines
def format_address(hi: int, lo: int) -> str:
    """Text of a 128-bit address; dotted when it is a mapped IPv4 address."""
    if hi == 0 and lo >> 32 == MAPPED_PREFIX >> 32:
        return str(ipaddress.IPv4Address(lo & 0xFFFF_FFFF))
    return str(ipaddress.IPv6Address(hi << 64 | lo))


def host_and_port(host: str, port: int) -> str:
    """Text of an address and a port: "127.0.0.1:9000", "[::1]:9000"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class SourceFilter:
    """Networks that may send.

    Raises ConfigurationError if one of them is no network in CIDR notation.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: list[tuple[np.uint64, np.uint64, np.uint64, np.uint64]] = []
        for text in networks:
            try:
                network = ipaddress.ip_network(text, strict=False)
            except ValueError:
                raise ConfigurationError(
                    f"{text!r} is not a network: give CIDR like 192.76.120.0/24, 10.0.0.7 or 2001:db8::/32"
                ) from None
            address, mask = int(network.network_address), int(network.netmask)
            if network.version == 4:
                address |= MAPPED_PREFIX
                mask |= ((1 << 128) - 1) ^ 0xFFFF_FFFF
            self._networks.append(
                (
                    np.uint64(address >> 64),
                    np.uint64(address & _LOW),
                    np.uint64(mask >> 64),
                    np.uint64(mask & _LOW),
                )
            )

    def allows(self, hi: U64, lo: U64) -> npt.NDArray[np.bool_]:
        """Which of the addresses are in one of the networks, bool shape (n,)."""
        allowed = np.zeros(len(hi), np.bool_)
        for net_hi, net_lo, mask_hi, mask_lo in self._networks:
            allowed |= ((hi & mask_hi) == net_hi) & ((lo & mask_lo) == net_lo)
        return allowed
