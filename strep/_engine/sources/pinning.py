"""Source transport addresses as single words, by which a stream knows its own."""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.exceptions import ConfigurationError
from .keys import SOURCE_BITS

__all__ = ["PIN_MODES", "SourcePins"]

U64 = npt.NDArray[np.uint64]

PIN_MODES: Final = ("address", "network", "off")
_MIXED: Final = np.uint64(32)  # the upper half of a product is the better mixed one
_PORT_BITS: Final = np.uint64(16)
_ALL_BITS: Final = 0xFFFF_FFFF_FFFF_FFFF
_NETWORK_HI: Final = np.uint64(_ALL_BITS << 16 & _ALL_BITS)  # IPv6: /48, what one site gets (RFC 6177)
_NETWORK_LO: Final = np.uint64(_ALL_BITS << 8 & _ALL_BITS)  # IPv4: /24
_MAPPED: Final = np.uint64(0xFFFF)  # the upper half of the lower word of a mapped IPv4 address
_IPV6: Final = np.uint64(1 << 47)  # marks a host that is a hash
_HASH_BITS: Final = np.uint64((1 << 47) - 1)


class SourcePins:
    """Turns source transport addresses into words, uint64 (n,), equal for addresses that count as one source.

    ``mode``  "address": the IP address and the port (RFC 3550's source transport address). "network": the address's
              /24 (IPv4) or /48 (IPv6), any port. "off": all sources count as one, which is 0.

    A word is 48 bits for the host (IPv4 as it is, IPv6 as a seeded hash: nobody outside can make two meet), and 16 for
    the port. Raises ConfigurationError if ``mode`` is none of these.
    """

    def __init__(self, mode: str = "address", seed: int | None = None) -> None:
        if mode not in PIN_MODES:
            raise ConfigurationError(f'pin {mode!r}: "address", "network" or "off"')
        self.mode = mode
        rng = np.random.default_rng(secrets.randbits(64) if seed is None else seed)
        keys = rng.integers(1 << 62, 1 << 63, 3, dtype=np.uint64) | np.uint64(1)
        self._k1, self._k2, self._k3 = keys

    def words(self, hi: U64, lo: U64, port: npt.NDArray[np.uint16]) -> U64:
        """The words of addresses as :func:`strep._model.addresses.format_address` has them, with their ports."""
        if self.mode == "off":
            return np.zeros(len(hi), np.uint64)
        network = self.mode == "network"
        host: U64 = (lo & _NETWORK_LO) if network else lo.copy()
        host &= np.uint64(0xFFFF_FFFF)
        mapped = lo >> np.uint64(32) == _MAPPED
        mapped &= hi == 0
        if not mapped.all():
            six = (~mapped).nonzero()[0]
            upper, lower = hi[six], lo[six]
            host[six] = self._hash(upper & _NETWORK_HI, lower * np.uint64(0)) if network else self._hash(upper, lower)
        host <<= _PORT_BITS
        if not network:
            host |= port
        return host

    def _hash(self, hi: U64, lo: U64) -> U64:
        mixed: U64 = hi * self._k1
        mixed += lo
        mixed *= self._k2
        mixed >>= np.uint64(17)
        return mixed & _HASH_BITS | _IPV6

    @staticmethod
    def hosts(words: U64) -> U64:
        """The part of words that is the same for all ports of an address, uint64 (n,)."""
        return words >> _PORT_BITS

    def bits(self, words: U64) -> U64:
        """A hash of words for the keys of sources on probation: within ``keys.SOURCE_BITS``."""
        mixed: U64 = words * self._k3
        mixed ^= mixed >> _MIXED
        mixed *= self._k1
        mixed >>= _MIXED
        mixed &= SOURCE_BITS
        return mixed
