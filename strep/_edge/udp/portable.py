"""Sockets for machines without recvmmsg: the same batches, with one Python call for each datagram."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._model.datagrams import ROW_BYTES, SLOT_MINIMUM, DatagramBatch, end_to_end
from ..._model.spans import copy_spans
from .address import UdpAddress
from .base import BoundPort, SocketBase, address_words
from .clock import SteadyClock
from .slab import aligned_slab
from .spill import LARGEST_BYTES
from .stamps import SO_TIMESTAMPNS, Stamps, stamp_datagrams

__all__ = ["PortablePort", "PortableSocket", "PortableTable"]


class PortableTable:
    """Room for ``rows`` datagrams of any sockets, each of which is read with one Python call."""

    def __init__(self, rows: int, clock: SteadyClock) -> None:
        self.rows = self.most = rows
        self.count = 0  # of rows that are filled
        self.stamped = sys.platform == "linux"  # by the kernel; otherwise on the steady clock, when they were read
        self._clock = clock
        self._slab = aligned_slab(rows, ROW_BYTES)
        self._views: list[memoryview] = []  # of rows that were ever used
        self._beyond = memoryview(bytearray(LARGEST_BYTES))  # what of a datagram is longer than a row, or all of it
        self._long: dict[int, bytes] = {}  # by row: what of its datagram is beyond it
        self._length = np.zeros(rows, np.int32)
        self._arrival = np.zeros(rows, np.int64)
        self._hi = np.zeros(rows, np.uint64)
        self._lo = np.zeros(rows, np.uint64)
        self._source_ports = np.zeros(rows, np.uint16)
        self._local_ports = np.zeros(rows, np.uint16)
        self._addresses: dict[str, tuple[int, int]] = {}

    def fill(self, sock: socket.socket, most: int, local_port: int) -> int:
        """Take up to ``most`` datagrams that wait in a socket; returns how many. Raises OSError."""
        begin = self.count
        while self.count - begin < most and self._receive_one(sock, local_port):
            pass
        return self.count - begin

    def stamps(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """When what is in these rows came, int64 ns, as the wall clock stood if it was stamped."""
        return self._arrival[begin:end].copy()

    def batch(self, arrival: npt.NDArray[np.int64]) -> DatagramBatch:
        """All there is, at least one datagram; then all rows are free."""
        count, self.count = self.count, 0
        slab, first_row = self._slab[:count], None
        if self._long:
            slab, first_row = self._end_to_end(count)
        return DatagramBatch(
            slab,
            self._length[:count].copy(),
            arrival,
            self._hi[:count].copy(),
            self._lo[:count].copy(),
            self._source_ports[:count].copy(),
            self._local_ports[:count].copy(),
            first_row=first_row,
        )

    def forget(self, local_port: int) -> int:
        """Take out what came to a port; returns how many datagrams."""
        ours = self._local_ports[: self.count] == local_port
        gone = int(np.count_nonzero(ours))
        if gone:
            kept = np.flatnonzero(~ours)
            self.count = len(kept)
            for column in (
                self._slab, self._length, self._arrival, self._hi, self._lo, self._source_ports, self._local_ports,
            ):  # fmt: skip
                column[: len(kept)] = column[kept]
            at = {int(row): i for i, row in enumerate(kept)}
            self._long = {at[row]: beyond for row, beyond in self._long.items() if row in at}
        return gone

    def _end_to_end(self, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """The datagrams in the first ``count`` rows, of which some are longer, each in one piece; their first rows."""
        length = self._length[:count]
        slab, first_row = end_to_end(length)
        flat = slab.reshape(-1)
        row = np.arange(count, dtype=np.int64)
        in_rows = np.minimum(length, ROW_BYTES)
        copy_spans(flat, first_row * SLOT_MINIMUM, self._slab.reshape(-1), row * ROW_BYTES, in_rows)
        for i, beyond in self._long.items():
            begin = int(first_row[i]) * SLOT_MINIMUM + ROW_BYTES
            flat[begin : begin + len(beyond)] = np.frombuffer(beyond, np.uint8)
        self._long.clear()
        return slab, first_row

    def _row(self) -> memoryview:
        """The next row, which must be there."""
        if self.count == len(self._views):
            self._views.append(memoryview(self._slab[self.count]))
        return self._views[self.count]

    def _receive_one(self, sock: socket.socket, local_port: int) -> bool:
        row = self._row()
        arrival = 0
        try:
            if hasattr(sock, "recvmsg_into"):
                size, ancillary, _, source = sock.recvmsg_into([row, self._beyond], 64)
                beyond = self._beyond[: max(size - ROW_BYTES, 0)]
                for level, kind, data in ancillary:
                    if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= 16:
                        seconds, nanoseconds = struct.unpack_from("qq", data)
                        arrival = seconds * 1_000_000_000 + nanoseconds
            else:
                size, source = sock.recvfrom_into(self._beyond)
                kept = min(size, ROW_BYTES)
                row[:kept] = self._beyond[:kept]
                beyond = self._beyond[kept:size]
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if isinstance(error, ConnectionError):
                return True
            raise
        if not arrival:
            arrival = time.time_ns() if self.stamped else self._clock.now_ns()
        if beyond:
            self._long[self.count] = bytes(beyond)
        self._put(size, source, arrival, local_port)
        return True

    def put(self, data: bytes, source: tuple[Any, ...], local_port: int) -> bool:
        """Take a datagram of an endpoint; False: there is no room."""
        if self.count == self.rows:
            return False
        kept = data[:ROW_BYTES]
        self._row()[: len(kept)] = kept
        if len(data) > ROW_BYTES:
            self._long[self.count] = data[ROW_BYTES:]
        self._put(len(data), source, self._clock.now_ns(), local_port)
        return True

    def _put(self, size: int, source: tuple[Any, ...], arrival: int, local_port: int) -> None:
        i = self.count
        self._length[i] = size
        self._arrival[i] = arrival
        words = self._addresses.get(source[0])
        if words is None:
            if len(self._addresses) > 10_000:  # bounded, however many addresses strangers send from
                self._addresses.clear()
            words = self._addresses[source[0]] = address_words(source[0])
        self._hi[i], self._lo[i] = words
        self._source_ports[i] = source[1]
        self._local_ports[i] = local_port
        self.count = i + 1


class PortablePort(BoundPort):
    """A port whose datagrams come into a table, which may be that of others too.

    Where the loop cannot watch file descriptors (Windows' proactor), a datagram endpoint fills the table."""

    transport = "portable"
    overflowed = 0

    def __init__(
        self,
        address: UdpAddress,
        table: PortableTable,
        *,
        receive_buffer: int,
        clock: SteadyClock,
        bound: socket.socket | None = None,
    ) -> None:
        super().__init__(address, receive_buffer=receive_buffer, clock=clock, bound=bound)
        self._table = table
        self._transport: asyncio.DatagramTransport | None = None
        if table.stamped:
            stamp_datagrams(self._socket)

    async def attach(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], object]) -> None:
        """Let the loop receive. ``wake`` is called when a first datagram waits."""
        transport, _ = await loop.create_datagram_endpoint(lambda: _Filler(self, wake), sock=self._socket)
        self._transport = transport

    @property
    def attached(self) -> bool:
        """Whether the loop receives."""
        return self._transport is not None

    def fill(self, most: int) -> int:
        """Take up to ``most`` datagrams that wait into the table; returns how many. Raises OSError."""
        return self._table.fill(self._socket, most, self.local_port)

    def put(self, data: bytes, source: tuple[Any, ...]) -> bool:
        """Take a datagram from the endpoint; True if it is the first of a batch. What does not fit is counted."""
        if not self._table.put(data, source, self.local_port):
            self.overflowed += 1
            return False
        return self._table.count == 1

    def kernel_dropped(self) -> int:
        """What the kernel dropped, and what an endpoint received faster than it was taken."""
        return super().kernel_dropped() + self.overflowed

    def count_rest(self, until_s: float) -> int:
        count = self._table.forget(self.local_port)
        # Windows' proactor has a receive of its own under way
        return count if self.attached and sys.platform == "win32" else count + super().count_rest(until_s)

    def close(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.close()
        super().close()


class PortableSocket(PortablePort, SocketBase):
    """Calls ``recvmsg_into``, or ``recvfrom_into`` where there is no such call, until nothing is left."""

    def __init__(
        self,
        address: UdpAddress,
        *,
        receive_buffer: int = 128 << 20,
        rows: int = 256,
        clock: SteadyClock | None = None,
        bound: socket.socket | None = None,
    ) -> None:
        clock = clock or SteadyClock()
        super().__init__(address, PortableTable(rows, clock), receive_buffer=receive_buffer, clock=clock, bound=bound)
        self._stamps = Stamps(clock, inherited=bound is not None) if self._table.stamped else None

    def receive(self, before_ns: int | None = None, limit: int | None = None) -> DatagramBatch | None:
        table = self._table
        room = min(limit or table.rows, table.rows)
        if self.attached:
            count = table.count
            self.full = count >= room
            return table.batch(table.stamps(0, count)) if count else None
        if self._stamps is not None:
            self._stamps.begin()
        count = self.fill(room)
        self.full = count >= room
        if not count:
            if self._stamps is not None:
                self._stamps.none()
            return None
        arrival = table.stamps(0, count)
        if self._stamps is not None:
            arrival = self._stamps.take(arrival, not self.full)
        return table.batch(arrival)


class _Filler(asyncio.DatagramProtocol):
    def __init__(self, owner: PortablePort, wake: Callable[[], object]) -> None:
        self._owner = owner
        self._wake = wake

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self._owner.put(data, addr):
            self._wake()

    def error_received(self, exc: Exception) -> None:
        """ICMP errors tell nothing about what is received."""
