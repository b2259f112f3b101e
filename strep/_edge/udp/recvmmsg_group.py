"""Pairs' ports on Linux: a table of messages for all of them."""

from __future__ import annotations

import socket
from typing import Final

import numpy as np

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


class MmsgPort(BoundPort):
    """A port that is read by a :class:`MmsgGroup`."""

    transport = "recvmmsg"

    def __init__(self, address: UdpAddress, *, receive_buffer: int, clock: SteadyClock) -> None:
        super().__init__(address, receive_buffer=receive_buffer, clock=clock)
        stamp_datagrams(self._socket)


class MmsgGroup(SharedGroup[MmsgPort]):
    """``recvmmsg``: one system call for each port that has something. All ports are of one address family."""

    def __init__(self, clock: SteadyClock, spill: Spill, *, watching: bool, rows: int = _ROWS) -> None:
        super().__init__(rows, clock, watching=watching)
        self._spill = spill
        self._family: socket.AddressFamily | None = None
        self._table: MessageTable
        self._sorted = aligned_slab(rows, DENSE_BYTES)

    def open(self, address: UdpAddress, receive_buffer: int) -> MmsgPort:
        if self._family is None:
            self._family = address.family
            self._table = MessageTable(self._rows, self._spill, ipv6=address.family == socket.AF_INET6)
            self._fill = self._table.fill
        if address.family != self._family:
            raise ConfigurationError(f"udp:{address}: ports of pairs are of one address family, give them one host")
        return MmsgPort(address, receive_buffer=receive_buffer, clock=self._clock)

    def _begin(self) -> int:
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
