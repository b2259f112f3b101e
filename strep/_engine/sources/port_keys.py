"""What local ports are for, and the lookup keys of plain RTP, by local port."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .keys import KIND_AUTO, KIND_BOUND, KIND_CALL_LEG, KIND_SHARED, KIND_SHIFT, Keys, kind_of

__all__ = ["PortBinding", "PortKeys", "PortRole"]

U64 = npt.NDArray[np.uint64]

_PORTS: Final = 65_536


class PortRole(enum.IntEnum):
    """What a local port is for; recordings carry the numbers."""

    LISTEN = 0  # STREP; plain RTP is taken too, a stream for each SSRC
    RX = 1  # plain RTP: what the platform received
    TX = 2  # plain RTP: what it transmitted
    BOTH = 3  # rx and tx on one port: the SSRC tells them apart

    @property
    def label(self) -> str:
        return ("listen", "rx", "tx", "rx+tx")[self]


@dataclass(frozen=True, slots=True)
class PortBinding:
    """A port that belongs to one direction, or both, of a call leg that the caller may have named."""

    role: PortRole
    pair: int  # the same number for the rx and the tx port of a leg
    call_leg_id: uuid.UUID | None = None


class PortKeys:
    """Bound ports, and the three words of the key, for each of the 65,536 ports."""

    def __init__(self, bindings: Mapping[int, PortBinding]) -> None:
        self.call_legs: dict[int, uuid.UUID | None] = {}  # by pair
        self.pair_names: dict[int, str] = {}  # by pair: the name that both directions of an unnamed leg share
        self._bindings: dict[int, PortBinding] = {}  # by port
        self._legs: dict[tuple[int, int], set[int]] = {}  # by hi and lo of a named leg: its ports of one direction each
        self._hi = np.zeros(_PORTS, np.uint64)
        self._lo = np.arange(_PORTS, dtype=np.uint64)
        self._tag = np.full(_PORTS, KIND_AUTO << KIND_SHIFT, np.uint64)
        self._by_ssrc = np.ones(_PORTS, np.uint64)  # 1: the tag holds the SSRC too
        self.bind(bindings)

    def bind(self, bindings: Mapping[int, PortBinding]) -> None:
        """Bind further ports. Those that are bound already stay as they are."""
        for port, binding in bindings.items():
            if port not in self._bindings:
                self._bindings[port] = binding
                self.call_legs.setdefault(binding.pair, binding.call_leg_id)
                self._give_key(port, binding)

    def _give_key(self, port: int, binding: PortBinding) -> None:
        if binding.role == PortRole.LISTEN:
            return
        hi, lo, kind = 0, binding.pair, KIND_SHARED
        direction = int(binding.role == PortRole.TX) << 1
        if binding.role != PortRole.BOTH:
            kind = KIND_BOUND
            if binding.call_leg_id is not None:
                kind = KIND_CALL_LEG
                hi, lo = divmod(binding.call_leg_id.int, 1 << 64)
                self._legs.setdefault((hi, lo), set()).add(port)
        self._hi[port], self._lo[port], self._tag[port] = hi, lo, direction | kind << KIND_SHIFT
        self._by_ssrc[port] = kind == KIND_SHARED

    def unbind(self, ports: Iterable[int]) -> None:
        """Forget ports that have been closed and whose streams have ended."""
        for port in ports:
            binding = self._bindings.pop(port, None)
            if binding is not None:
                self.call_legs.pop(binding.pair, None)
                self.pair_names.pop(binding.pair, None)
                leg = int(self._hi[port]), int(self._lo[port])
                if port in (ports_of_leg := self._legs.get(leg, set())):
                    ports_of_leg.remove(port)
                    if not ports_of_leg:
                        del self._legs[leg]
                self._hi[port], self._lo[port], self._tag[port] = 0, port, KIND_AUTO << KIND_SHIFT
                self._by_ssrc[port] = 1

    def keys_of(
        self, port: npt.NDArray[np.uint16], ssrc: npt.NDArray[np.uint32], destination: U64 | None = None
    ) -> Keys:
        """The keys of plain RTP packets, by local port and SSRC: three columns, uint64 (n,). ``destination``: words of
        the addresses that they were sent to, of which the lowest 16 bits are 0; None: ours."""
        tag: U64 = ssrc.astype(np.uint64) << np.uint64(32)
        tag *= self._by_ssrc.take(port)
        tag |= self._tag.take(port)
        lo = self._lo.take(port)
        if destination is not None:
            lo |= np.where(kind_of(tag) == KIND_AUTO, destination, 0)
        return self._hi.take(port), lo, tag

    def are_of_ports(self, hi: U64, lo: U64, tag: U64) -> npt.NDArray[np.bool_]:
        """Of keys, which are of legs that have ports of their own, one for each direction, bool (n,)."""
        kind = kind_of(tag)
        found: npt.NDArray[np.bool_] = kind == KIND_BOUND
        if self._legs:
            for i in np.flatnonzero(kind == KIND_CALL_LEG).tolist():
                found[i] = (int(hi[i]), int(lo[i])) in self._legs
        return found
