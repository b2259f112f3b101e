"""Pairs' ports where there is no recvmmsg: one table for all of them, filled with one Python call for each datagram."""

from __future__ import annotations

from collections import deque
from typing import Final

from ..._model.datagrams import ROW_BYTES, DatagramBatch
from .address import UdpAddress
from .clock import SteadyClock
from .group import SharedGroup, Turn, in_order
from .portable import PortablePort, PortableTable
from .slab import aligned_slab

__all__ = ["PortableGroup"]

_ROWS: Final = 1024


class PortableGroup(SharedGroup[PortablePort]):
    """Watched sockets, or (Windows' proactor loop) endpoints that fill the table themselves."""

    def __init__(self, clock: SteadyClock, *, watching: bool, rows: int = _ROWS) -> None:
        super().__init__(rows, clock, watching=watching)
        self._table = PortableTable(rows, clock)
        self._fill = self._fill_next
        self._sorted = aligned_slab(rows, ROW_BYTES)

    def open(self, address: UdpAddress, receive_buffer: int) -> PortablePort:
        return PortablePort(address, self._table, receive_buffer=receive_buffer, clock=self._clock)

    def read(self, waiting: deque[int], begun_ns: int, limit: int | None = None) -> DatagramBatch | None:
        if not any(entry.port.attached for entry in self._entries.values()):
            return super().read(waiting, begun_ns, limit)
        waiting.clear()
        count = self._table.count
        return in_order(self._table.batch(self._table.stamps(0, count)), self._sorted) if count else None

    def _begin(self) -> int:
        return self.rows

    def _fill_next(self, number: int, at: int, most: int) -> int:
        return self._entries[number].port.fill(most)

    def _batch(self, turn: Turn) -> DatagramBatch:
        arrival = self._table.stamps(0, turn.filled)
        if self._table.stamped:
            arrival = turn.arrival(arrival, self._stamps)
        return in_order(self._table.batch(arrival), self._sorted)
