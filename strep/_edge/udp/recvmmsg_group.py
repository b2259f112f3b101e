"""Pairs' ports on Linux: a table of messages for all of them."""

from __future__ import annotations

import socket
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.datagrams import ROW_BYTES, DatagramBatch
from ..._model.exceptions import ConfigurationError
from .address import UdpAddress
from .base import BoundPort
from .clock import SteadyClock
from .group import SharedGroup, Turn, in_order
from .messages import DENSE_BYTES, MessageTable
from .slab import aligned_slab
from .spill import Spill
from .stamps import stamp_datagrams

__all__ = ["MmsgGroup"]

_ROWS: Final = 4096
_MOST_ROWS: Final = 32_768
_ROWS_A_PORT: Final = 16  # what comes to one of a call in a third of a second


class MmsgPort(BoundPort):
    """A port that is read by a :class:`MmsgGroup`."""

    transport = "recvmmsg"

    def __init__(self, address: UdpAddress, *, receive_buffer: int, clock: SteadyClock) -> None:
        super().__init__(address, receive_buffer=receive_buffer, clock=clock)
        stamp_datagrams(self._socket)


class MmsgGroup(SharedGroup[MmsgPort]):
    """``recvmmsg``: one system call for each port that has something. All ports are of one address family. The more
    ports there are, the more rows the table has: what comes to all of them between two looks; but not with ``rows``."""

    def __init__(self, clock: SteadyClock, spill: Spill, *, watching: bool, rows: int | None = None) -> None:
        super().__init__(_ROWS if rows is None else rows, clock, watching=watching)
        self._spill = spill
        self._family: socket.AddressFamily | None = None
        self._table: MessageTable
        self._sorted: npt.NDArray[np.uint8]
        self._most_rows = _MOST_ROWS if rows is None else rows

    def open(self, address: UdpAddress, receive_buffer: int) -> MmsgPort:
        if self._family is None:
            self._family = address.family
            self._make_table(self.rows)
        if address.family != self._family:
            raise ConfigurationError(f"udp:{address}: ports of pairs are of one address family, give them one host")
        return MmsgPort(address, receive_buffer=receive_buffer, clock=self._clock)

    def _make_table(self, rows: int) -> None:
        self._table = MessageTable(rows, self._spill, ipv6=self._family == socket.AF_INET6)
        self._sorted = aligned_slab(rows, DENSE_BYTES)
        self._fill = self._table.fill
        self.rows = rows

    def _grow(self, rows: int) -> None:
        """More rows, all of them free. Without memory for them, more looks read what comes."""
        try:
            self._make_table(rows)
        except (OSError, MemoryError):
            self._most_rows = self.rows

    def _begin(self) -> int:
        wanted = min(len(self._entries) * _ROWS_A_PORT, self._most_rows)
        if wanted > self.rows:
            self._grow(1 << (wanted - 1).bit_length())
        self._table.begin()
        return self._table.most

    def _end(self, filled: int) -> None:
        self._table.end(filled)

    def _batch(self, turn: Turn) -> DatagramBatch:
        table, count = self._table, turn.filled
        arrival = turn.arrival(table.stamps(0, count), self._stamps)
        hi, lo, source_port = table.sources(count)
        length = table.length[:count].astype(np.int32)
        slab, first_row = table.gathered(length), None
        if int(length.max()) > ROW_BYTES:
            slab, first_row = table.end_to_end(slab, length)
        batch = DatagramBatch(slab, length, arrival, hi, lo, source_port, turn.local_port(), first_row=first_row)
        return in_order(batch, self._sorted)
