"""Sends the media of all forks in real time: one task, one socket a family of addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from .._edge.udp.address import UdpAddress
from ..simulate._sendmmsg import ScatterSender
from ..simulate.truth import StreamTruth
from ._call import I64, Due, MediaFork

__all__ = ["DatagramSender", "MediaSender"]

_TICK_S: Final = 0.004  # what is due within it leaves together
_LONGEST_PAUSE_S: Final = 0.01  # a fork that is started meanwhile waits for its end
_DATAGRAMS_PER_TURN: Final = 4096  # of the event loop
_IPV6: Final = 1 << 32  # in a destination: it is an address of IPv6


class DatagramSender(Protocol):
    """Sends datagrams to many addresses of one family: :class:`ScatterSender`, or one of a test's."""

    def add(self, address: UdpAddress) -> int:
        """A destination; returns its number."""

    def send(
        self, slab: npt.NDArray[np.uint8], lengths: npt.NDArray[np.integer], to: npt.NDArray[np.integer] | None
    ) -> int:
        """Send the first ``lengths[i]`` bytes of row i to destination ``to[i]``; returns how many were taken."""

    def close(self) -> None:
        """Nothing more will be sent."""


class PacketPlan(Protocol):
    """Which packets are due, and what is in them: :class:`MediaPlan`, which says more."""

    @property
    def next_ns(self) -> int | None: ...

    def start(self, fork: MediaFork, destinations: tuple[int, int]) -> None: ...

    def stop(self, fork: MediaFork) -> list[StreamTruth]: ...

    def due(self, now_ns: int, most: int) -> Due: ...

    def to(self, due: Due) -> tuple[npt.NDArray[np.bool_], I64]: ...

    def datagrams(self, due: Due, *, strep: bool) -> npt.NDArray[np.uint8]: ...


class MediaSender:
    """``run`` it as a task. ``clock`` gives ns, UTC, as fast as the event loop's time goes. ``open_sender`` makes what
    sends to the addresses of a family.
    """

    def __init__(
        self,
        plan: PacketPlan,
        clock: Callable[[], int],
        open_sender: Callable[[socket.AddressFamily], DatagramSender] = ScatterSender,
    ) -> None:
        self.plan = plan
        self._clock = clock
        self._open_sender = open_sender
        self._senders: dict[socket.AddressFamily, DatagramSender] = {}
        self._wake = asyncio.Event()
        self.datagrams = 0
        self.refused = 0  # datagrams the network would not take
        self.behind_ns = 0  # how late one was sent at most

    def start(self, fork: MediaFork) -> None:
        rx, tx = fork.target or fork.rx, fork.target or fork.tx
        if rx is None or tx is None:
            raise ValueError("a fork has a target, or rx and tx")
        self.plan.start(fork, (self._destination(rx), self._destination(tx)))
        self._wake.set()

    def stop(self, fork: MediaFork) -> list[StreamTruth]:
        return self.plan.stop(fork)

    def _destination(self, address: UdpAddress) -> int:
        if address.family not in self._senders:
            self._senders[address.family] = self._open_sender(address.family)
        return self._senders[address.family].add(address) + _IPV6 * (address.family == socket.AF_INET6)

    async def run(self) -> None:
        while True:
            due_ns = self.plan.next_ns
            if due_ns is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            now_ns = self._clock()
            if due_ns <= now_ns:
                self.behind_ns = max(self.behind_ns, now_ns - due_ns)
                due = self.plan.due(now_ns, _DATAGRAMS_PER_TURN)
                self._send(due)
                if len(due) == _DATAGRAMS_PER_TURN:
                    await asyncio.sleep(0)
                    continue
                due_ns = self.plan.next_ns or now_ns
            await asyncio.sleep(min(max((due_ns - now_ns) / 1e9, _TICK_S), _LONGEST_PAUSE_S))

    def _send(self, due: Due) -> None:
        strep, destination = self.plan.to(due)
        six = destination >= _IPV6
        for family, sender in self._senders.items():
            for header in (True, False):
                rows = np.flatnonzero((strep == header) & (six == (family == socket.AF_INET6)))
                if rows.size:
                    part = Due(due.row[rows], due.number[rows])
                    slab = self.plan.datagrams(part, strep=header)
                    sent = sender.send(slab, np.full(len(slab), slab.shape[1]), destination[rows] & (_IPV6 - 1))
                    self.datagrams += sent
                    self.refused += len(slab) - sent

    def close(self) -> None:
        for sender in self._senders.values():
            sender.close()
        self._senders.clear()
