"""Comfort noise (RFC 3389): each payload describes the silences that follow it, until the next one comes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..._model.types import GapCause
from ..streams.placement import Placement
from ..streams.ring import JitterRing, RingPackets
from ..undo import Undo

__all__ = ["ComfortNoise"]

I64 = npt.NDArray[np.int64]


class ComfortNoise:
    """What is in force, by stream (row). Blocks are numbers in a :class:`Placement`."""

    def __init__(self, ring: JitterRing, undo: Undo) -> None:
        self._ring = ring
        self._undo = undo
        self._in_force: dict[int, bytes] = {}

    def __bool__(self) -> bool:
        """Whether any stream has sent comfort noise."""
        return bool(self._in_force)

    def end(self, row: int) -> None:
        """The stream of this row has ended."""
        self._in_force.pop(row, None)

    def take(self, popped: RingPackets, which: I64, placed: Placement | None) -> dict[int, bytes]:
        """Remember the comfort noise in the packets ``which`` names, each for the silences that follow it. Gives the
        noise that is in force in the silence before blocks, by block."""
        noise: dict[int, bytes] = {}
        block_of = np.full(len(popped), -1)  # by packet: the block that it begins
        if placed is not None:
            at = placed.packet_first[:-1]
            block_of[at if placed.kept is None else placed.kept[at]] = np.arange(len(at))
        concerned = np.concatenate([np.flatnonzero(block_of >= 0), which])
        for i in np.sort(concerned).tolist():
            row, block = int(popped.row[i]), int(block_of[i])
            if block < 0:
                payload = self._ring.payload(popped, i)
                if payload:
                    self._note(row)
                    self._in_force[row] = payload
            elif placed is not None and row in self._in_force and placed.gap_cause[block] == int(GapCause.SILENCE):
                noise[block] = self._in_force[row]
        return noise

    def in_silences(self, placed: Placement) -> dict[int, bytes]:
        """No new comfort noise has come: that in force, by block with a silence before it."""
        noise: dict[int, bytes] = {}
        for block in np.flatnonzero(placed.gap_cause == int(GapCause.SILENCE)).tolist():
            row = int(placed.block_row[block])
            if row in self._in_force:
                noise[block] = self._in_force[row]
        return noise

    def _note(self, row: int) -> None:
        before = self._in_force.get(row)
        if before is None:
            self._undo.call(self._in_force.pop, row, None)
        else:
            self._undo.note((self._in_force, row, before))
