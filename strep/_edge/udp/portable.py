"""Sockets for machines without recvmmsg: the same batches, with one Python call for each datagram."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.datagrams import ROW_BYTES, SLOT_MINIMUM, DatagramBatch, end_to_end
from ..._model.spans import copy_spans
from .address import UdpAddress
from .base import SocketBase, address_words
from .clock import SteadyClock
from .spill import LARGEST_BYTES
from .stamps import Stamps

__all__ = ["PortableSocket"]

_SO_TIMESTAMPNS: Final = 35


class PortableSocket(SocketBase):
    """Calls ``recvmsg_into``, or ``recvfrom_into`` where there is no such call, until nothing is left."""

    transport = "portable"

    def __init__(
        self,
        address: UdpAddress,
        *,
        receive_buffer: int = 128 << 20,
        rows: int = 256,
        clock: SteadyClock | None = None,
        bound: socket.socket | None = None,
    ) -> None:
        super().__init__(address, receive_buffer=receive_buffer, rows=rows, clock=clock or SteadyClock(), bound=bound)
        self._stamps: Stamps | None = None
        if sys.platform == "linux":
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._stamps = Stamps(self._clock, inherited=bound is not None)
        self._views = [memoryview(row) for row in self._slab]
        self._beyond = memoryview(bytearray(LARGEST_BYTES))  # what of a datagram is longer than a row, or all of it
        self._long: dict[int, bytes] = {}  # by row: what of its datagram is beyond it
        self._length = np.zeros(rows, np.int32)
        self._arrival = np.zeros(rows, np.int64)
        self._hi = np.zeros(rows, np.uint64)
        self._lo = np.zeros(rows, np.uint64)
        self._source_ports = np.zeros(rows, np.uint16)
        self._addresses: dict[str, tuple[int, int]] = {}
        self._count = 0
        self._transport: asyncio.DatagramTransport | None = None

    def receive(self, before_ns: int | None = None, limit: int | None = None) -> DatagramBatch | None:
        room = min(limit or self._rows, self._rows)
        if self._transport is None:
            self._receive_all(room)
        count, self._count = self._count, 0
        self.full = count >= room
        if not count:
            return None
        slab, first_row = self._slab[:count], None
        if self._long:
            slab, first_row = self._end_to_end(count)
        return DatagramBatch(
            slab,
            self._length[:count].copy(),
            self._arrival[:count].copy(),
            self._hi[:count].copy(),
            self._lo[:count].copy(),
            self._source_ports[:count].copy(),
            self._ports[:count],
            first_row=first_row,
        )

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

    def _receive_all(self, room: int) -> None:
        """Fill so many rows, or take all there is."""
        if self._stamps is not None:
            self._stamps.begin()
        while self._count < room and self._receive_one():
            pass
        if self._stamps is None:
            return
        if self._count:
            arrival = self._arrival[: self._count]
            arrival[:] = self._stamps.take(arrival.copy(), self._count < room)
        else:
            self._stamps.none()

    def _receive_one(self) -> bool:
        row = self._views[self._count]
        arrival = 0
        try:
            if hasattr(self._socket, "recvmsg_into"):
                size, ancillary, _, source = self._socket.recvmsg_into([row, self._beyond], 64)
                beyond = self._beyond[: max(size - ROW_BYTES, 0)]
                for level, kind, data in ancillary:
                    if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= 16:
                        seconds, nanoseconds = struct.unpack_from("qq", data)
                        arrival = seconds * 1_000_000_000 + nanoseconds
            else:
                size, source = self._socket.recvfrom_into(self._beyond)
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
            arrival = self._clock.now_ns() if self._stamps is None else time.time_ns()
        if beyond:
            self._long[self._count] = bytes(beyond)
        self._put(size, source, arrival)
        return True

    def _put(self, size: int, source: tuple[Any, ...], arrival: int) -> None:
        i = self._count
        self._length[i] = size
        self._arrival[i] = arrival
        words = self._addresses.get(source[0])
        if words is None:
            if len(self._addresses) > 10_000:  # bounded, however many addresses strangers send from
                self._addresses.clear()
            words = self._addresses[source[0]] = address_words(source[0])
        self._hi[i], self._lo[i] = words
        self._source_ports[i] = source[1]
        self._count = i + 1

    # --- event loops without add_reader (Windows' proactor): a datagram endpoint fills the same rows ---------------

    async def attach(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], object]) -> None:
        """Let the loop receive. ``wake`` is called when a first datagram waits."""
        transport, _ = await loop.create_datagram_endpoint(lambda: _Filler(self, wake), sock=self._socket)
        self._transport = transport

    def put(self, data: bytes, source: tuple[Any, ...]) -> bool:
        """Take a datagram from the endpoint; True if it is the first of a batch. What does not fit is counted."""
        if self._count == self._rows:
            self.overflowed += 1
            return False
        kept = data[:ROW_BYTES]
        self._views[self._count][: len(kept)] = kept
        if len(data) > ROW_BYTES:
            self._long[self._count] = data[ROW_BYTES:]
        self._put(len(data), source, self._clock.now_ns())
        return self._count == 1

    overflowed = 0

    def kernel_dropped(self) -> int:
        """What the kernel dropped, and what an endpoint received faster than it was taken."""
        return super().kernel_dropped() + self.overflowed

    def count_rest(self, until_s: float) -> int:
        count, self._count = self._count, 0
        self._long.clear()
        # Windows' proactor has a receive of its own under way
        return count if self._transport is not None and sys.platform == "win32" else count + super().count_rest(until_s)

    def close(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.close()
        super().close()


class _Filler(asyncio.DatagramProtocol):
    def __init__(self, owner: PortableSocket, wake: Callable[[], object]) -> None:
        self._owner = owner
        self._wake = wake

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self._owner.put(data, addr):
            self._wake()

    def error_received(self, exc: Exception) -> None:
        """ICMP errors tell nothing about what is received."""
