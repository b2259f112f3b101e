"""Blocks that wait for more of them, and what came meanwhile: few large batches cost less than many small ones. Pure.

Each stream's events stay in order. Between streams only what cannot be told apart changes: a stream's beginning is told
at once, its blocks later, its end behind them. Where another stream has taken the row of one whose end waits, its
beginning waits too, and its blocks are not in one batch with those of the other.
"""

from __future__ import annotations

import numpy as np

from .._model.blocks import BlockBatch
from .._model.events import Ended, Event, Started
from .._model.gathered import gathered
from .._model.types import StreamEvent

__all__ = ["Gathering"]

_NS_PER_MS = 1_000_000


class Gathering:
    """Holds blocks back until those that came over ``within_ms`` are together, by their time of arrival.

    ``waits``  whether anything is held back
    """

    def __init__(self, within_ms: float) -> None:
        self.within_ns = round(within_ms * _NS_PER_MS)
        self._blocks: list[BlockBatch] = []
        self._since_ns: int | None = None  # arrival of the first of them
        self._ended: list[Ended] = []
        self._rows: set[int] = set()  # of those
        self._next: list[Event] = []  # of streams that have taken such rows: for when these are free
        self._next_rows: set[int] = set()

    @property
    def waits(self) -> bool:
        return bool(self._blocks or self._ended)

    def take(self, event: Event) -> list[Event]:
        """What may go on now, in order."""
        if isinstance(event, BlockBatch):
            return self._take_blocks(event)
        if isinstance(event, Ended):
            if event.stream.index in self._next_rows:
                self._next.append(event)
            else:
                self._ended.append(event)
                self._rows.add(event.stream.index)
            return []
        if isinstance(event, Started | StreamEvent):
            row = event.stream.index
            if row in self._next_rows or (isinstance(event, Started) and row in self._rows):
                self._next.append(event)
                self._next_rows.add(row)
                return []
        return [event]

    def _take_blocks(self, batch: BlockBatch) -> list[Event]:
        if not len(batch):
            return []
        if self._since_ns is None:
            self._since_ns = int(batch.arrival_ns.max())
        last_ns = int(batch.arrival_ns.max())
        if self._next_rows:
            of_next = np.isin(batch.index, list(self._next_rows))
            if of_next.any():
                self._next.append(batch.take(np.flatnonzero(of_next)))
                batch = batch.take(np.flatnonzero(~of_next))
        if len(batch):
            self._blocks.append(batch)
        return self.flush() if last_ns - self._since_ns >= self.within_ns else []

    def flush(self, *, whole: bool = False) -> list[Event]:
        """All that waits, in order; but for what young streams in rows of others have: that waits for more of it.
        ``whole``: that too."""
        out: list[Event] = []
        while self.waits or self._next:
            if self._blocks:
                out.append(gathered(self._blocks))
            out += self._ended
            waiting, self._next = self._next, []
            self._blocks, self._ended, self._since_ns = [], [], None
            self._rows, self._next_rows = set(), set()
            for event in waiting:
                out += self.take(event)
            if not whole and not self._ended:
                break
        return out
