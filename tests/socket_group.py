"""A group of ports as one socket each, each with a slab of its own: the reference for groups that share one, and what
receivers in virtual time have."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Collection, Sequence

from strep._edge.udp.address import UdpAddress
from strep._edge.udp.base import Port, Reader, UdpSocket
from strep._model.datagrams import DatagramBatch, joined

__all__ = ["SocketGroup"]


class SocketGroup:
    """See :class:`PortGroup`. ``bind`` makes a socket of an address and a receive buffer; ``watching``: the loop can
    watch file descriptors."""

    name = "the ports of pairs"

    def __init__(self, bind: Callable[[UdpAddress, int], UdpSocket], now_ns: Callable[[], int], *, watching: bool):
        self.emptied_ns = now_ns()
        self.rows = 4096
        self._now_ns = now_ns
        self.full = False
        self._bind = bind
        self._sockets: list[UdpSocket] = []
        self._again: list[UdpSocket] = []
        self._left_out: set[UdpSocket] = set()
        self._failures: list[tuple[Port, Exception]] = []
        self._selector: selectors.BaseSelector | None = None
        if watching and hasattr(selectors.DefaultSelector, "fileno"):  # epoll, kqueue
            self._selector = selectors.DefaultSelector()

    def open(self, address: UdpAddress, receive_buffer: int) -> Port:
        return self._bind(address, receive_buffer)

    def add(self, port: Port) -> None:
        socket: UdpSocket = port  # type: ignore[assignment]
        self._sockets.append(socket)
        if self._selector is not None:
            self._selector.register(socket.fileno(), selectors.EVENT_READ, socket)

    def remove(self, port: Port) -> None:
        if port not in self._sockets:
            return
        self._leave_out(port)
        self._left_out.discard(port)
        self._sockets.remove(port)

    def _leave_out(self, socket: UdpSocket) -> None:
        if self._selector is not None and socket not in self._left_out:
            self._selector.unregister(socket)
        self._left_out.add(socket)

    def only(self, ports: Sequence[Port]) -> Reader:
        part = SocketGroup(self._bind, self._now_ns, watching=False)
        for port in ports:
            part.add(port)
        return part

    def failures(self) -> list[tuple[Port, Exception]]:
        failures, self._failures = self._failures, []
        return failures

    def retry(self, port: object) -> bool:
        if port not in self._left_out:
            return False
        self._again.append(port)
        return True

    def receive(self, before_ns: int | None = None, limit: int | None = None) -> DatagramBatch | None:
        batches: list[DatagramBatch] = []
        ready, self._again = [*self._again, *self._ready()], []
        self.full = False
        begun_ns = self._now_ns()
        for socket in ready:
            try:
                batch = socket.receive(limit=limit)
            except Exception as error:
                self._leave_out(socket)
                self._failures.append((socket, error))
                continue
            self.full |= socket.full
            if socket in self._left_out:
                self._left_out.discard(socket)
                if self._selector is not None:
                    self._selector.register(socket.fileno(), selectors.EVENT_READ, socket)
            if batch is not None:
                batches.append(batch)
        if not self.full:
            self.emptied_ns = begun_ns
        return joined(batches) if batches else None

    def _ready(self) -> list[UdpSocket]:
        if self._selector is None:
            return [socket for socket in self._sockets if socket not in self._left_out]
        return [key.data for key, _ in self._selector.select(0)]

    @property
    def held_back(self) -> int:
        return 0

    def watchable(self) -> Collection[int]:
        if self._selector is not None:
            return (self._selector.fileno(),)  # type: ignore[attr-defined]
        return [socket.fileno() for socket in self._sockets if socket not in self._left_out]

    def close(self) -> None:
        self._sockets.clear()
        if self._selector is not None:
            self._selector.close()
            self._selector = None
