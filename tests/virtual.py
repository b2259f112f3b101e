"""Receivers in virtual time: hours pass in milliseconds, and a test never waits for a clock.

Three things, which fit together::

    async def main() -> None:
        async with in_memory(idle_timeout_s=60) as receiver:
            await send(receiver, [packet(k) for k in range(50)])
            await asyncio.sleep(61)  # takes no time
            assert [r.end for r in receiver.reports()] == ["idle"]

    run_virtually(main())

``VirtualLoop``   an asyncio loop with a clock of its own. When no callback is ready and no socket has anything, it
                  jumps to the next timer, as trio's autojump clock does. So the order of events is that of their times,
                  and the same in each run.
``MemoryEdge``    what to hand to ``Receiver.of(edge=...)``: its sockets are in memory, its UTC clock follows the
                  running loop. :meth:`MemoryEdge.send` puts datagrams into them, of any source and arrival time.
``MemorySocket``  one of them, for tests that want to make it fail, or to look at what was done to it.

What to know:

- Threads know nothing of virtual time. While one of the loop's executor works (``asyncio.to_thread``, the end of a
  receiver), time passes as it really does; then the loop jumps again. For other threads it does not wait, unless it has
  a ``grace_s``. So a sink with a thread of its own may lag behind: look at what it has after the receiver has stopped,
  or give it ``inline = True``.
- Real sockets work too (HTTP between a client and a stand-in in the same loop): what the kernel has at hand comes
  before any jump. If the other end is another process or thread, give the loop a ``grace_s``.
- ``time.monotonic`` and ``time.time`` go on as ever. Use ``loop.time()`` and ``edge.now_ns()``; :func:`until` of this
  module waits in virtual time, that of ``live`` in real time.
- A loop that waits for nothing at all raises, instead of hanging.
"""

from __future__ import annotations

import asyncio
import errno
import selectors
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

import numpy as np
from socket_group import SocketGroup
from support import slab_of

from strep._edge.udp.address import UdpAddress
from strep._edge.udp.base import address_words
from strep._edge.udp.edge import Edge
from strep._model.datagrams import ROW_BYTES, DatagramBatch
from strep._model.exceptions import BindError
from strep._receiver.receiver import Receiver
from strep._receiver.settings import Settings
from strep.sinks import Sink

__all__ = [
    "EPOCH_NS",
    "MemoryEdge",
    "MemorySocket",
    "VirtualLoop",
    "edge_of",
    "in_memory",
    "run_virtually",
    "send",
    "until",
]

EPOCH_NS = 1_700_000_000_000_000_000  # UTC at the loop's time 0
_START_S = 1000.0  # on the loop's clock
_HANGING_S = 20.0  # of real time, without anything to wait for
_FIRST_PORT = 40_000
_OVERHEAD_BYTES = 768  # that a datagram takes of the receive buffer beside its own: Linux's are of that order
_ROWS = 4096

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """``grace_s``: how long (really) to wait for sockets and threads before each jump."""

    def __init__(self, grace_s: float = 0.0) -> None:
        self._now_s = _START_S
        self._threads_at_work = 0
        self._grace_s = grace_s
        super().__init__(_JumpingSelector(self._pass_time))

    def time(self) -> float:
        return self._now_s

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        future = super().run_in_executor(executor, func, *args)
        self._threads_at_work += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: object) -> None:
        self._threads_at_work -= 1

    async def shutdown_default_executor(self, *arguments: Any) -> None:
        self._threads_at_work += 1
        try:
            await super().shutdown_default_executor(*arguments)
        finally:
            self._threads_at_work -= 1

    def _pass_time(self, timeout: float | None, select: Callable[[float | None], list[Any]]) -> list[Any]:
        """What the selector does instead of waiting for ``timeout`` seconds (None: for whatever comes)."""
        ready = select(0 if timeout == 0 or self._threads_at_work else self._grace_s)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            ready = select(_HANGING_S)
            if not ready:
                raise RuntimeError("nothing will ever happen in this loop: no timer, no socket, no thread")
            return ready
        if self._threads_at_work:
            began_s = time.monotonic()
            ready = select(timeout)
            self._now_s += min(time.monotonic() - began_s, timeout) if ready else timeout
            return ready
        self._now_s += timeout
        return select(0)


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    def __init__(self, pass_time: Callable[[float | None, Callable[[float | None], list[Any]]], list[Any]]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> list[Any]:
        return self._pass_time(timeout if timeout is None else max(timeout, 0), super().select)


def run_virtually(main: Coroutine[Any, Any, T], seconds: float = 86_400, *, grace_s: float = 0.0) -> T:
    """Run it in a virtual loop, for at most so many virtual seconds."""

    async def bounded() -> T:
        return await asyncio.wait_for(main, seconds)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(grace_s)) as runner:
        return runner.run(bounded())


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something, in virtual time; its own error when it does not happen."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        if loop.time() > deadline:
            raise AssertionError(f"not within {seconds} s")
        await asyncio.sleep(0.005)


class MemorySocket:
    """As ``strep._edge.udp.base.UdpSocket``: datagrams that :meth:`put` was given.

    When its receive buffer is full, or after :meth:`shut`, it drops what comes and counts that, as Linux does.
    """

    transport = "memory"

    def __init__(self, address: UdpAddress, now_ns: Callable[[], int], receive_buffer: int, rows: int) -> None:
        self.address = (address.host, address.port)
        self.local_port = address.port
        self.requested_buffer = self.granted_buffer = receive_buffer
        self.full = False
        self.closed = False
        self._now_ns = now_ns
        self._rows = rows
        self._queue: deque[tuple[int, bytes, tuple[str, int]]] = deque()
        self._queued_bytes = 0
        self._held_back = 0
        self._shut = False
        self._dropped = 0
        self._wake: Callable[[], object] = lambda: None

    def put(self, data: bytes, source: tuple[str, int], arrival_ns: int | None = None) -> bool:
        """A datagram comes, now, stamped with ``arrival_ns`` (None: now). False: it was dropped."""
        size = len(data) + _OVERHEAD_BYTES
        if self._shut or self._queued_bytes + size > self.granted_buffer:
            self._dropped += 1
            return False
        self._queue.append((self._now_ns() if arrival_ns is None else arrival_ns, data, source))
        self._queued_bytes += size
        if len(self._queue) == 1:
            asyncio.get_running_loop().call_soon(self._wake)
        return True

    def receive(self, before_ns: int | None = None, limit: int | None = None) -> DatagramBatch | None:
        room = min(limit or self._rows, self._rows)
        taken: list[tuple[int, bytes, tuple[str, int]]] = []
        while self._queue and len(taken) < room and (before_ns is None or self._queue[0][0] < before_ns):
            taken.append(self._queue.popleft())
            self._queued_bytes -= len(taken[-1][1]) + _OVERHEAD_BYTES
        self.full = len(taken) == room
        self._held_back = 0 if self.full else len(self._queue)
        if not taken:
            return None
        slab, first_row = slab_of([data for _, data, _ in taken], ROW_BYTES)
        words = [address_words(host) for _, _, (host, _) in taken]
        return DatagramBatch(
            slab,
            np.array([len(data) for _, data, _ in taken], np.int32),
            np.array([arrival_ns for arrival_ns, _, _ in taken], np.int64),
            np.array([hi for hi, _ in words], np.uint64),
            np.array([lo for _, lo in words], np.uint64),
            np.array([port for _, _, (_, port) in taken], np.uint16),
            np.full(len(taken), self.local_port, np.uint16),
            first_row=first_row,
        )

    @property
    def held_back(self) -> int:
        return self._held_back

    @property
    def name(self) -> str:
        return f"udp:{self.address[0]}:{self.address[1]}"

    def fileno(self) -> int:
        return -1

    def watchable(self) -> tuple[int, ...]:
        return ()

    async def attach(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], object]) -> None:
        self._wake = wake

    def now_ns(self) -> int:
        return self._now_ns()

    def kernel_dropped(self) -> int:
        return self._dropped

    def shut(self) -> None:
        self._shut = True

    def count_rest(self, until_s: float) -> int:
        count = len(self._queue)
        self._queue.clear()
        return count

    def close(self) -> None:
        self.closed = True


class MemoryEdge(Edge):
    """Sockets in memory, and a clock that follows the running loop (or the one that is given).

    ``sockets`` are those that are open, by port, in the order in which they were opened.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._next_port = _FIRST_PORT
        self._opened: dict[int, MemorySocket] = {}

    def now_ns(self) -> int:
        return EPOCH_NS + round(self._loop.time() * 1e9)

    def monotonic_ns(self) -> int:
        return round(self._loop.time() * 1e9)

    def can_watch(self, loop: asyncio.AbstractEventLoop) -> bool:
        return False

    def group(self, *, transport: str, watching: bool) -> SocketGroup:
        return SocketGroup(
            lambda address, buffer: self.open(address, transport=transport, receive_buffer=buffer),
            self.now_ns,
            watching=watching,
        )

    def open(
        self, address: UdpAddress, *, transport: str, receive_buffer: int, rows: int | None = None
    ) -> MemorySocket:
        port = address.port
        if port == 0:
            port, self._next_port = self._next_port, self._next_port + 1
        if port in self.sockets:
            raise BindError(errno.EADDRINUSE, f"cannot listen on udp:{address}: the port is taken")
        socket = MemorySocket(UdpAddress(address.host, port), self.now_ns, receive_buffer, rows or _ROWS)
        self._opened[port] = socket
        return socket

    @property
    def sockets(self) -> dict[int, MemorySocket]:
        return {port: socket for port, socket in self._opened.items() if not socket.closed}

    @property
    def first(self) -> tuple[str, int]:
        """Address of the socket that was opened first."""
        return next(iter(self.sockets.values())).address

    def send(
        self,
        address: tuple[str, int],
        data: bytes,
        *,
        source: tuple[str, int] = ("192.0.2.1", 4000),
        arrival_ns: int | None = None,
    ) -> bool:
        """A datagram comes now, stamped with ``arrival_ns`` (None: now). False: nobody got it."""
        socket = self.sockets.get(address[1])
        return socket is not None and socket.put(data, source, arrival_ns)

    async def send_paced(
        self,
        address: tuple[str, int],
        datagrams: Sequence[bytes],
        chunk: int = 20,
        pause_s: float = 0.012,
        *,
        source: tuple[str, int] = ("192.0.2.1", 4000),
    ) -> None:
        """As ``live.send_paced``, in virtual time: ``chunk`` datagrams, a pause, and so on."""
        for begin in range(0, len(datagrams), chunk):
            for data in datagrams[begin : begin + chunk]:
                self.send(address, data, source=source)
            await asyncio.sleep(pause_s)


def in_memory(listen: str | None = "127.0.0.1:0", *, sinks: Sequence[Sink] = (), **options: Any) -> Receiver:
    """A receiver on an edge of its own, in the running loop."""
    return Receiver.of(Settings(listen, **options), sinks, edge=MemoryEdge())


def edge_of(receiver: Receiver) -> MemoryEdge:
    """The edge of :func:`in_memory`."""
    edge = receiver._edge
    assert isinstance(edge, MemoryEdge)
    return edge


async def send(receiver: Receiver, datagrams: Sequence[bytes], role: str = "listen", **options: Any) -> None:
    """:meth:`MemoryEdge.send_paced` to the port of that role; options as there."""
    (address,) = [s.address for s in receiver.sockets if s.role == role]
    host, _, port = address.rpartition(":")
    await edge_of(receiver).send_paced((host, int(port)), datagrams, **options)
