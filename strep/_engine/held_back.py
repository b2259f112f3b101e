"""Packets that waited on probation go in, as if they came only now, each in its tick: what waited is as good as what
did not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.time import TICK_NS
from .packets import Packets
from .playout import Playout
from .state import StreamState
from .streams.ring import MAX_DROPOUT, WINDOW

__all__ = ["HeldInsertion"]

I64 = npt.NDArray[np.int64]

_PACKETS_A_ROUND: Final = 40  # of a stream: in sequence, they fit into the window


class HeldInsertion:
    """``insert(packets, rows)`` inserts packets of one tick."""

    def __init__(self, state: StreamState, playout: Playout, insert: Callable[[Packets, I64], None]) -> None:
        self._state = state
        self._ring = state.ring
        self._playout = playout
        self._insert = insert

    def insert(self, packets: Packets, rows: I64) -> None:
        """Packets of several streams, by stream and in order of arrival."""
        sequence = packets.sequence_number
        starts = np.append(True, rows[1:] != rows[:-1])
        smooth = starts | (np.append(0, (sequence[1:] - sequence[:-1]).view(np.int16)) == 1)
        begin = np.flatnonzero(starts)
        length = np.diff(np.append(begin, len(rows)))
        by_tick = ~np.repeat(np.logical_and.reduceat(smooth, begin), length)
        number = (np.arange(len(rows)) - np.repeat(begin, length)) // _PACKETS_A_ROUND
        # streams that are in sequence need no ticks
        in_sequence = np.where(by_tick, 0, number)
        for round_number in range(int(in_sequence.max()) + 1):
            part = np.flatnonzero((in_sequence == round_number) & ~by_tick)
            if part.size:
                self._insert(packets.take(part), rows[part])
                self._playout.catch_up(rows[part[np.append(True, rows[part[1:]] != rows[part[:-1]])]], 0)
        late = np.flatnonzero(by_tick)
        if late.size:
            self._insert_by_tick(packets.take(late), rows[late], number[late])

    def _insert_by_tick(self, packets: Packets, rows: I64, number: I64) -> None:
        tick = packets.arrival_ns // TICK_NS
        order = np.lexsort((number, tick))
        tick, number = tick[order], number[order]
        cuts = np.flatnonzero((tick[1:] != tick[:-1]) | (number[1:] != number[:-1])) + 1
        for low, high in pairwise([0, *cuts.tolist(), len(tick)]):
            part = order[low:high]
            one, row = packets.take(part), rows[part]
            self._playout.catch_up(np.unique(row), int(tick[low]) * TICK_NS)
            self._make_room(one, row)
            self._insert(one, row)

    def _make_room(self, packets: Packets, rows: I64) -> None:
        """Of packets that came together, so many or with so much lost that the window is too small: give up the holes
        that stand in their way, and skip a loss that is longer than the window."""
        ring = self._ring
        while True:
            ahead = (packets.sequence_number - ring.edge[rows].astype(np.uint16)).view(np.int16)
            far = ahead >= WINDOW
            holed = np.unique(rows[far & (ring.present[rows] != 0)])
            if not holed.size:
                break
            self._playout.make_way(holed)
        for row in np.unique(rows[far]).tolist():
            nearest = int(ahead[far & (rows == row)].min())
            if nearest < MAX_DROPOUT and not (~far & (rows == row)).any():
                self._state.skip(np.array([row]), np.array([nearest]))
