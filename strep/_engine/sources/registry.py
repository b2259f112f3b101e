"""Which streams there are: their rows, their names, and which legs may have any. One step a stream, never a packet."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.addresses import format_address
from ..._model.types import Direction, Leg, StreamInfo
from .announcements import Announcements
from .keys import KIND_AUTO, KIND_BOUND, KIND_CALL_LEG, KIND_SHARED, Key, kind_of, kind_of_tag
from .port_keys import PortBinding, PortKeys

__all__ = ["Registry"]

U64 = npt.NDArray[np.uint64]

_UNSAFE: Final = re.compile(r"[^0-9A-Za-z]")
# looking members up, and their labels, costs as much as the rest of admitting a stream
_LEGS: Final = (Leg(0), Leg(1))
_DIRECTIONS: Final = (Direction(0), Direction(1))
_STEMS: Final = {(leg, direction): f"{leg.label}-{direction.label}" for leg in Leg for direction in Direction}


class Registry:
    """Rows of live streams and who they are. ``info`` is by row, None where no stream lives."""

    def __init__(
        self,
        max_streams: int,
        bindings: Mapping[int, PortBinding],
        call_legs: frozenset[int] | None,
        announcements: Announcements | None = None,
    ) -> None:
        """``call_legs``: only these may have streams, call_leg_ids as integers; None: all. ``announcements``: only legs
        that were announced; None: all."""
        self.announcements = announcements
        self.info: list[StreamInfo | None] = []
        self.started = 0  # streams so far: the serial of the next one
        self._free: list[int] = []
        self._max_streams = max_streams
        self._call_legs = call_legs
        self._ports = PortKeys(bindings)
        self._sibling_names: set[str] = set()  # of streams that live
        self._named: dict[str, int] = {}  # by name: lo of the keys of streams that live and are no siblings
        self._shut_out: dict[tuple[int, int], int] = {}  # by hi and lo of a leg: until when it may begin no stream

    # --- who may ----------------------------------------------------------------------------------------------------

    def shut_out(self, leg: uuid.UUID, until_ns: int, now_ns: int) -> None:
        """What still comes of a leg that was ended begins no new stream until then."""
        self._shut_out = {one: until for one, until in self._shut_out.items() if until > now_ns}
        self._shut_out[divmod(leg.int, 1 << 64)] = until_ns

    def let_in(self, leg: uuid.UUID) -> None:
        """Undo :meth:`shut_out`."""
        self._shut_out.pop(divmod(leg.int, 1 << 64), None)

    @property
    def legs_are_known(self) -> bool:
        """Whether nobody can have streams of legs that he invented."""
        return self.announcements is not None or self._call_legs is not None

    def expected(self, hi: U64, lo: U64, tag: U64) -> npt.NDArray[np.bool_]:
        """Of keys of new streams, which nobody can invent, bool (n,): there are only as many as ports of pairs and
        legs that are known."""
        expected = self._ports.are_of_ports(hi, lo, tag)
        if self.legs_are_known:
            expected |= kind_of(tag) == KIND_CALL_LEG
        return expected

    @property
    def room(self) -> int:
        """How many more streams there may be."""
        return len(self._free) + self._max_streams - len(self.info)

    def objection(self, key: Key, at_ns: int) -> str | None:
        """Why a stream may not begin: "call_leg", its leg is not on the allow-list (plain RTP without a name is on
        none), or "ended", its leg was ended and is shut out. None: it may."""
        hi, lo, tag = key
        named = kind_of_tag(tag) == KIND_CALL_LEG
        if self._call_legs is not None and not (named and (hi << 64 | lo) in self._call_legs):
            return "call_leg"
        return "ended" if named and at_ns < self._shut_out.get((hi, lo), 0) else None

    # --- ports ------------------------------------------------------------------------------------------------------

    def bind(self, bindings: Mapping[int, PortBinding]) -> None:
        """Bind further ports. Those that are bound already stay as they are."""
        self._ports.bind(bindings)

    def unbind(self, ports: Iterable[int]) -> None:
        """Forget ports that have been closed and whose streams have ended."""
        self._ports.unbind(ports)

    def key_words(
        self,
        strep: npt.NDArray[np.bool_],
        hi: U64,
        lo: U64,
        tag: U64,
        ssrc: npt.NDArray[np.uint32],
        local_port: npt.NDArray[np.uint16],
        destination: U64 | None = None,
    ) -> None:
        """Fill in the key columns ``hi``, ``lo`` and ``tag`` of the packets that have no STREP header. ``destination``
        as of :meth:`PortKeys.keys_of`."""
        plain = ~strep
        where = None if destination is None else destination[plain]
        hi[plain], lo[plain], tag[plain] = self._ports.keys_of(local_port[plain], ssrc[plain], where)

    # --- rows -------------------------------------------------------------------------------------------------------

    def live(self) -> list[StreamInfo]:
        """The streams that live, by row."""
        return [info for info in self.info if info is not None]

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
        """Give a new stream its row and its name. The registry must not be full. ``direction`` None: as the tag says;
        ``source``: address (two words of 64 bits) and port."""
        kind = kind_of_tag(tag)
        leg = _LEGS[tag & 1]
        if direction is None:
            direction = _DIRECTIONS[(tag >> 1) & 1]
        call_leg_id = None
        name = f"rtp-{local_port}-{ssrc:08x}"
        # another stream has this name: of a sibling, or of who sends to another address
        if kind == KIND_AUTO and (hi or self._named.setdefault(name, lo) != lo):
            address = _UNSAFE.sub("_", format_address(source[0], source[1]))
            name = base = f"{name}-{address}-{source[2]}"
            number = 1
            while name in self._sibling_names:  # of one that was there, and has moved
                number += 1
                name = f"{base}-{number}"
            self._sibling_names.add(name)
        stem = _STEMS[leg, direction]
        leg_name = name
        if kind == KIND_CALL_LEG:
            call_leg_id = uuid.UUID(int=hi << 64 | lo)
        elif kind == KIND_SHARED:
            call_leg_id = self._ports.call_legs[lo]
        if call_leg_id is not None:
            name = leg_name = str(call_leg_id)
        elif kind in (KIND_BOUND, KIND_SHARED):
            stem = direction.label
            leg_name = self._ports.pair_names.setdefault(lo, name)  # one stereo file for both
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
        """A stream has ended: another may have its row."""
        info = self.info[row]
        if info is not None:
            self._sibling_names.discard(info.name)
            self._named.pop(info.name, None)
        self.info[row] = None
        self._free.append(row)
