"""The Linux edge: recvmmsg into a slab, up to 4,096 datagrams a call. Nothing here runs per datagram."""

from __future__ import annotations

import socket

import numpy as np
import numpy.typing as npt

from ..._model.datagrams import ROW_BYTES, DatagramBatch
from .address import UdpAddress
from .base import SocketBase
from .clock import SteadyClock
from .messages import MessageTable, recvmmsg_available
from .spill import Spill
from .stamps import Stamps, stamp_datagrams

__all__ = ["MmsgSocket", "recvmmsg_available"]


class MmsgSocket(SocketBase):
    """``recvmmsg``: one system call for up to ``rows`` datagrams. ``spill``: for what is beyond 2,048 bytes of them;
    sockets that one thread reads may share it; None: its own."""

    transport = "recvmmsg"

    def __init__(
        self,
        address: UdpAddress,
        *,
        receive_buffer: int = 128 << 20,
        rows: int = 4096,
        clock: SteadyClock | None = None,
        bound: socket.socket | None = None,
        spill: Spill | None = None,
    ) -> None:
        super().__init__(address, receive_buffer=receive_buffer, clock=clock or SteadyClock(), bound=bound)
        stamp_datagrams(self._socket)
        self._rows = rows
        self._ports = np.full(rows, self.local_port, np.uint16)
        self._table = MessageTable(rows, spill or Spill(), ipv6=address.family == socket.AF_INET6)
        self._held_arrival = np.zeros(0, np.int64)
        self._stamps = Stamps(self._clock, inherited=bound is not None)

    @property
    def held_back(self) -> int:
        return self._table.held_back

    def _receive_behind(self, held: int, limit: int) -> int:
        """Let the kernel fill up to ``limit`` rows from ``held`` on; returns how many rows are filled then."""
        table = self._table
        table.begin(held)
        self.full = False
        room = min(self._rows - held, limit, table.most)
        try:
            count = table.fill(self._socket.fileno(), held, room)
        except OSError:
            table.put_back(held)
            raise
        self.full = count == room
        table.end(held + count)
        return held + count

    def _arrival(self, held: int, count: int) -> npt.NDArray[np.int64]:
        """When what is in the first ``count`` rows came; of the first ``held`` that is known."""
        if count == held:
            self._stamps.none()
            return self._held_arrival
        arrival = self._stamps.take(self._table.stamps(held, count), not self.full)
        return np.concatenate([self._held_arrival, arrival]) if held else arrival

    def receive(self, before_ns: int | None = None, limit: int | None = None) -> DatagramBatch | None:
        table = self._table
        self._stamps.begin()
        held = table.bring_forward()
        count = self._receive_behind(held, limit or self._rows)
        arrival = self._arrival(held, count)
        if not count:
            return None
        hi, lo, source_port = table.sources(count)
        length = table.length[:count].astype(np.int32)
        slab = table.gathered(length)
        if before_ns is not None:
            late = arrival >= before_ns
            if late[-1] and (cut := int(late.argmax())) >= count - self._rows // 2:
                table.hold(cut, count)
                self._held_arrival = arrival[cut:].copy()  # the batch's are the engine's
                if not cut:
                    return None
                count = cut
        first_row = None
        slab = slab[:count]
        if int(length[:count].max()) > ROW_BYTES:
            slab, first_row = table.end_to_end(slab, length[:count])
        return DatagramBatch(
            slab,
            length[:count],
            arrival[:count],
            hi[:count],
            lo[:count],
            source_port[:count],
            self._ports[:count],
            first_row=first_row,
        )
