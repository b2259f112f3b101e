"""Which streams there are: rows, names, bindings of ports, limits. One step per stream, never per packet."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..._model.addresses import format_address
from ..._model.types import Direction, Leg, StreamInfo
from ..packets import KIND_AUTO, KIND_BOUND, KIND_CALL_LEG, KIND_SHARED
from .announcements import Announcements

__all__ = ["PortBinding", "PortRole", "Registry"]

U64 = npt.NDArray[np.uint64]


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

    def __init__(
        self,
        max_streams: int,
        bindings: Mapping[int, PortBinding],
        call_legs: frozenset[int] | None,
        announcements: Announcements | None = None,
    ) -> None:
        self.announcements = announcements  # None: every leg is admitted
        self.info: list[StreamInfo | None] = []
        self._free: list[int] = []
        self._max_streams = max_streams
        self._call_legs = call_legs
        self._bindings: dict[int, PortBinding] = {}
        self._legs: dict[int, uuid.UUID | None] = {}
        self._pair_names: dict[int, str] = {}
        self._ended: dict[tuple[int, int], int] = {}  # legs whose late packets begin nothing, and until when
        self._keys = _KeysOfPorts()
        self.started = 0
        self.bind(bindings)

    def bind(self, bindings: Mapping[int, PortBinding]) -> None:
        """Bind further ports (those bound already stay as they are)."""
        for port, binding in bindings.items():
            if port not in self._bindings:
                self._bindings[port] = binding
                self._legs.setdefault(binding.pair, binding.call_leg_id)
                self._keys.bind(port, binding)

    def unbind(self, ports: Iterable[int]) -> None:
        """Forget ports that have been closed and whose streams have ended."""
        for port in ports:
            binding = self._bindings.pop(port, None)
            if binding is not None:
                self._legs.pop(binding.pair, None)
                self._pair_names.pop(binding.pair, None)
                self._keys.unbind(port)

    def shut_out(self, leg: uuid.UUID, until_ns: int, now_ns: int) -> None:
        """What still comes of a leg that was ended begins no new stream until then."""
        self._ended = {one: until for one, until in self._ended.items() if until > now_ns}
        self._ended[_words(leg)] = until_ns

    def let_in(self, leg: uuid.UUID) -> None:
        self._ended.pop(_words(leg), None)

    @property
    def legs_are_known(self) -> bool:
        """Nobody can have streams of legs that he invented."""
        return self.announcements is not None or self._call_legs is not None

    @property
    def room(self) -> int:
        """How many more streams there may be."""
        return len(self._free) + self._max_streams - len(self.info)

    def live(self) -> list[StreamInfo]:
        return [info for info in self.info if info is not None]

    def objection(self, hi: int, lo: int, tag: int, at_ns: int) -> str | None:
        """Why a stream is not to be: "call_leg", not on the allow-list (plain RTP without a name is on none), "ended",
        of a leg that was. None: it may."""
        named = (tag >> 2) & 3 == KIND_CALL_LEG
        if self._call_legs is not None and not (named and (hi << 64 | lo) in self._call_legs):
            return "call_leg"
        return "ended" if named and at_ns < self._ended.get((hi, lo), 0) else None

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
        hi[plain], lo[plain], tag[plain] = self._keys.of(local_port[plain], ssrc[plain])


class _KeysOfPorts:
    """The key that plain RTP has by the port it comes to: three words for each port."""

    def __init__(self) -> None:
        self._hi = np.zeros(65_536, np.uint64)
        self._lo = np.arange(65_536, dtype=np.uint64)
        self._tag = np.full(65_536, KIND_AUTO << 2, np.uint64)
        self._by_ssrc = np.ones(65_536, np.uint64)

    def bind(self, port: int, binding: PortBinding) -> None:
        if binding.role == PortRole.LISTEN:
            return
        hi, lo, kind = 0, binding.pair, KIND_SHARED
        direction = int(binding.role == PortRole.TX) << 1
        if binding.role != PortRole.BOTH:
            kind = KIND_BOUND
            if binding.call_leg_id is not None:
                kind = KIND_CALL_LEG
                hi, lo = _words(binding.call_leg_id)
        self._hi[port], self._lo[port], self._tag[port] = hi, lo, direction | kind << 2
        self._by_ssrc[port] = kind == KIND_SHARED

    def unbind(self, port: int) -> None:
        self._hi[port], self._lo[port], self._tag[port], self._by_ssrc[port] = 0, port, KIND_AUTO << 2, 1

    def of(self, port: npt.NDArray[np.uint16], ssrc: npt.NDArray[np.uint32]) -> tuple[U64, U64, U64]:
        tag = ssrc.astype(np.uint64) << np.uint64(32)
        tag *= self._by_ssrc.take(port)
        tag |= self._tag.take(port)
        return self._hi.take(port), self._lo.take(port), tag


def _words(leg: uuid.UUID) -> tuple[int, int]:
    return leg.int >> 64, leg.int & 0xFFFF_FFFF_FFFF_FFFF
