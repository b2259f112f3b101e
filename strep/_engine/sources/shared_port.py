"""rx and tx on one port: nothing but the SSRC tells the two directions apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..._model.types import Direction, StreamInfo
from ..state import StreamState
from .keys import KIND_SHARED

__all__ = ["Replacement", "SharedPorts"]

_SILENCE_NS: Final = 500_000_000  # after which another SSRC of the same address may have a direction's place
_FOREIGN_SILENCE_NS: Final = 1_000_000_000  # another address


@dataclass(frozen=True, slots=True)
class Replacement:
    """The new source takes the place of the stream in this row."""

    row: int


class SharedPorts:
    """What becomes of a new source on the port of a pair: a direction of its own, another one's place, or nothing yet.

    The first source is taken for inbound, the second for outbound. A further one takes the place of the one that has
    been silent longest, if it has been for long enough; so does a second one when there is only one, silent since a
    while. Other addresses than that of the port's streams have to wait until all of them are silent.
    """

    def __init__(self, state: StreamState) -> None:
        self._state = state

    def place_of(self, pair: int, source: int, since_ns: int) -> Direction | Replacement | None:
        """For a source that has been there since then: a free direction, the place of another one, or None, not now."""
        state = self._state
        streams = self._streams(pair)
        if not streams:
            return Direction.INBOUND
        quiet_ns = {s.index: since_ns - int(state.reception.last_arrival_ns[s.index]) for s in streams}
        foreign = all(int(state.source[s.index]) != source for s in streams)
        if foreign and min(quiet_ns.values()) < _FOREIGN_SILENCE_NS:
            return None
        longest = max(quiet_ns, key=lambda row: quiet_ns[row])
        free = [d for d in Direction if d not in {s.direction for s in streams}]
        if free and quiet_ns[longest] <= _SILENCE_NS:
            return free[0]
        return Replacement(longest) if quiet_ns[longest] > _SILENCE_NS else None

    def _streams(self, pair: int) -> list[StreamInfo]:
        state = self._state
        rows = np.flatnonzero(state.first_arrival_ns[: len(state.registry.info)])
        hi, lo, tag = state.table.keys(rows)
        rows = rows[(hi == 0) & (lo == np.uint64(pair)) & ((tag >> np.uint64(2)) & np.uint64(3) == KIND_SHARED)]
        return [info for row in rows.tolist() if (info := state.registry.info[row]) is not None]
