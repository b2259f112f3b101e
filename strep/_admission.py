"""Which streams there are: rows, names, bindings of ports, limits. One step per stream, never per packet. Floor 3."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._addresses import format_address
from ._packets import KIND_AUTO, KIND_BOUND, KIND_CALL_LEG, KIND_SHARED
from ._types import Direction, Leg, StreamInfo

__all__ = ["PortBinding", "PortRole", "Registry"]


class PortRole(enum.IntEnum):
    """What a local port is for; the numbers are what recordings carry."""

    LISTEN = 0  # STREP; plain RTP is taken too, one stream a SSRC
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


class Registry:
    """Rows of live streams and who they are."""

    def __init__(self, max_streams: int, bindings: Mapping[int, PortBinding], call_legs: frozenset[int] | None) -> None:
        self.info: list[StreamInfo | None] = []
        self._free: list[int] = []
        self._max_streams = max_streams
        self._call_legs = call_legs
        self._bindings = dict(bindings)
        self._legs = {b.pair: b.call_leg_id for b in bindings.values()}
        self._pair_names: dict[int, str] = {}
        self.started = 0

    def bind(self, bindings: Mapping[int, PortBinding]) -> None:
        """Bind further ports (those bound already stay as they are)."""
        for port, binding in bindings.items():
            if port not in self._bindings:
                self._bindings[port] = binding
                self._legs.setdefault(binding.pair, binding.call_leg_id)

    @property
    def room(self) -> int:
        """How many more streams there may be."""
        return len(self._free) + self._max_streams - len(self.info)

    def live(self) -> list[StreamInfo]:
        return [info for info in self.info if info is not None]

    def permits(self, hi: int, lo: int, tag: int) -> bool:
        """Whether the call-leg allow-list has this leg; plain RTP without a name is not on any list."""
        if self._call_legs is None:
            return True
        return (tag >> 2) & 3 == KIND_CALL_LEG and (hi << 64 | lo) in self._call_legs

    def admit(
        self,
        hi: int,
        lo: int,
        tag: int,
        *,
        direction: Direction | None,
        ssrc: int,
        source: tuple[int, int, int],
        local_port: int,
        payload_type: int,
        first_arrival_ns: int,
        origin_ns: int,
    ) -> StreamInfo:
        """Give a new stream its row and its name. The registry must not be full."""
        kind = (tag >> 2) & 3
        leg = Leg(tag & 1)
        if direction is None:
            direction = Direction((tag >> 1) & 1)
        call_leg_id = None
        name = f"rtp-{local_port}-{ssrc:08x}"
        stem = f"{leg.label}-{direction.label}"
        leg_name = name
        if kind == KIND_CALL_LEG:
            call_leg_id = uuid.UUID(int=hi << 64 | lo)
        elif kind == KIND_SHARED:
            call_leg_id = self._legs[lo]
        if call_leg_id is not None:
            name = leg_name = str(call_leg_id)
        elif kind in (KIND_BOUND, KIND_SHARED):
            stem = direction.label
            leg_name = self._pair_names.setdefault(lo, name)  # one stereo file for both
        if self._free:
            row = self._free.pop()
        else:
            row = len(self.info)
            self.info.append(None)
        info = StreamInfo(
            index=row,
            serial=self.started,
            call_leg_id=call_leg_id,
            leg=leg,
            direction=direction,
            name=name,
            stem=stem,
            leg_name=leg_name,
            local_port=local_port,
            ssrc=ssrc,
            source=(format_address(source[0], source[1]), source[2]),
            payload_type=payload_type,
            first_arrival_ns=first_arrival_ns,
            origin_ns=origin_ns,
            ssrcs=[ssrc],
        )
        self.info[row] = info
        self.started += 1
        return info

    def release(self, row: int) -> None:
        self.info[row] = None
        self._free.append(row)

    def key_words(
        self,
        strep: npt.NDArray[np.bool_],
        hi: npt.NDArray[np.uint64],
        lo: npt.NDArray[np.uint64],
        tag: npt.NDArray[np.uint64],
        ssrc: npt.NDArray[np.uint32],
        local_port: npt.NDArray[np.uint16],
    ) -> None:
        """Fill in the key columns of the packets that have no STREP header."""
        plain = ~strep
        port = local_port[plain].astype(np.uint64)
        with_ssrc = ssrc[plain].astype(np.uint64) << np.uint64(32)
        hi[plain] = 0
        lo[plain] = port
        tag[plain] = with_ssrc | np.uint64(KIND_AUTO << 2)
        for number, binding in self._bindings.items():
            if binding.role == PortRole.LISTEN:
                continue
            here = plain & (local_port == number)
            if not here.any():
                continue
            if binding.role == PortRole.BOTH:
                hi[here], lo[here] = 0, binding.pair
                tag[here] = (ssrc[here].astype(np.uint64) << np.uint64(32)) | np.uint64(KIND_SHARED << 2)
                continue
            direction = int(binding.role == PortRole.TX) << 1
            if binding.call_leg_id is not None:
                hi[here] = binding.call_leg_id.int >> 64
                lo[here] = binding.call_leg_id.int & 0xFFFF_FFFF_FFFF_FFFF
                tag[here] = direction | KIND_CALL_LEG << 2
            else:
                hi[here], lo[here] = 0, binding.pair
                tag[here] = direction | KIND_BOUND << 2
