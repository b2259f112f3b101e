"""Source addresses as single words, by which a stream knows its own. Floor 3."""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np
import numpy.typing as npt

from .._exceptions import ConfigurationError

__all__ = ["PIN_MODES", "SOURCE_BITS", "SourcePins"]

U64 = npt.NDArray[np.uint64]

PIN_MODES: Final = ("address", "network", "off")
# of a candidate's key these bits tell its source; a stream's own tag has zeros there
SOURCE_BITS: Final = np.uint64(0x0000_0000_FFFF_FFF0)
_SHIFT: Final = np.uint64(32)  # the upper half of a product is the better mixed one
_ALL: Final = 0xFFFF_FFFF_FFFF_FFFF
_NETWORK_HI: Final = np.uint64(_ALL << 16 & _ALL)  # IPv6: /48, what one site gets (RFC 6177)
_NETWORK_LO: Final = np.uint64(_ALL << 8 & _ALL)  # IPv4: /24
_IPV4: Final = np.uint64(0xFFFF)  # the upper half of the lower word of a mapped address


class SourcePins:
    """Turns source addresses into words, uint64 (n,), equal for what counts as one source.

    ``mode``  "address": the IP address; the port may change, as behind a NAT. "network": its /24 (IPv4) or /48 (IPv6).
              "off": all sources count as one.

    The words are seeded, so that nobody outside can make those of two addresses meet. Raises ConfigurationError.
    """

    def __init__(self, mode: str = "address", seed: int | None = None) -> None:
        if mode not in PIN_MODES:
            raise ConfigurationError(f'pin {mode!r}: "address", "network" or "off"')
        self.mode = mode
        rng = np.random.default_rng(secrets.randbits(64) if seed is None else seed)
        keys = rng.integers(1 << 62, 1 << 63, 3, dtype=np.uint64) | np.uint64(1)
        self._k1, self._k2, self._k3 = keys

    def words(self, hi: U64, lo: U64) -> U64:
        """The words of addresses as :func:`strep._addresses.format_address` has them. Never 0 but for "off"."""
        if self.mode == "off":
            return np.zeros(len(hi), np.uint64)
        if self.mode == "network":
            mapped = (hi == 0) & (lo >> np.uint64(32) == _IPV4)
            hi, lo = hi & _NETWORK_HI, np.where(mapped, lo & _NETWORK_LO, np.uint64(0))
        word: U64 = hi * self._k1
        word += lo
        word *= self._k2
        word |= np.uint64(1)
        return word

    def bits(self, words: U64) -> U64:
        """What of words stands in the keys of candidates: within :data:`SOURCE_BITS`."""
        mixed: U64 = words * self._k3
        mixed >>= _SHIFT
        mixed &= SOURCE_BITS
        return mixed
