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
Bools = npt.NDArray[np.bool_]

_PACKETS_A_ROUND: Final = 40  # of a stream: in sequence, they fit into the window


class HeldInsertion:
    """``insert(packets, rows)`` inserts packets of one tick."""

    def __init__(self, state: StreamState, playout: Playout, insert: Callable[[Packets, I64], None]) -> None:
        self._state = state
        self._ring = state.ring
        self._playout = playout
        self._insert = insert

    def insert(self, packets: Packets, rows: I64, holding: I64 | None = None) -> None:
        """Packets of several streams, by stream and in order of arrival. ``holding``: streams that hold others."""
        sequence = packets.sequence_number
        starts = np.append(True, rows[1:] != rows[:-1])
        follows = np.append(False, (sequence[1:] - sequence[:-1]).view(np.int16) == 1)
        smooth = starts | follows
        begin = np.flatnonzero(starts)
        length = np.diff(np.append(begin, len(rows)))
        by_tick = ~np.repeat(np.logical_and.reduceat(smooth, begin), length)
        if holding is not None and holding.size:
            by_tick |= np.isin(rows, holding)
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
            after = ~starts & follows
            proven = after | np.append(after[1:], False)
            self._insert_by_tick(packets.take(late), rows[late], number[late], proven[late])

    def _insert_by_tick(self, packets: Packets, rows: I64, number: I64, proven: Bools) -> None:
        """``proven``: in sequence with the packet before or after it."""
        tick = packets.arrival_ns // TICK_NS
        order = np.lexsort((number, tick))
        tick, number = tick[order], number[order]
        cuts = np.flatnonzero((tick[1:] != tick[:-1]) | (number[1:] != number[:-1])) + 1
        for low, high in pairwise([0, *cuts.tolist(), len(tick)]):
            self._insert_near_first(packets, rows, order[low:high], proven, int(tick[low]) * TICK_NS)

    def _insert_near_first(self, packets: Packets, rows: I64, which: I64, proven: Bools, now_ns: int) -> None:
        """Packets of a tick: those in their streams' windows, then room is made for the next ones. Far ones that
        nothing proves go with the first, and so on probation again."""
        while which.size:
            row = rows[which]
            streams = np.unique(row)
            self._playout.catch_up(streams, now_ns)
            near = self._ahead(packets, rows, which) < WINDOW
            stuck = which[~near & ~np.isin(row, row[near])]
            if stuck.size:
                self._make_room(packets.take(stuck), rows[stuck])
                near = self._ahead(packets, rows, which) < WINDOW
            # what has no room even now is no loss: another sequence
            near |= ~proven[which] | ~np.isin(row, row[near])
            mine = which[near]
            self._insert(packets.take(mine), rows[mine])
            which = which[~near]

    def _ahead(self, packets: Packets, rows: I64, which: I64) -> npt.NDArray[np.int16]:
        edge = self._ring.edge[rows[which]].astype(np.uint16)
        return (packets.sequence_number[which] - edge).view(np.int16)

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
