"""Sends the media of all forks in real time: one task, one socket a family of addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import numpy as np

from .._edge.udp import UdpAddress
from ..simulate._sendmmsg import ScatterSender
from ..simulate.truth import StreamTruth
from ._calls import Fork
from ._media import Due, MediaPlan

__all__ = ["MediaSender"]

_TICK_S: Final = 0.004  # what is due within it leaves together
_PAUSE_S: Final = 0.01
_MOST: Final = 4096  # datagrams at most before the event loop has its turn
_SIX: Final = 1 << 32  # of a destination: it is an IPv6 address


class MediaSender:
    """``run`` it as a task. ``clock`` gives ns, UTC."""

    def __init__(self, plan: MediaPlan, clock: Callable[[], int]) -> None:
        self.plan = plan
        self._clock = clock
        self._senders: dict[socket.AddressFamily, ScatterSender] = {}
        self._wake = asyncio.Event()
        self.datagrams = 0
        self.refused = 0  # datagrams the network would not take
        self.behind_ns = 0  # how late one was sent at most

    def start(self, fork: Fork) -> None:
        rx, tx = fork.target or fork.rx, fork.target or fork.tx
        if rx is None or tx is None:
            raise ValueError("a fork has a target, or rx and tx")
        self.plan.start(fork, (self._destination(rx), self._destination(tx)))
        self._wake.set()

    def stop(self, fork: Fork) -> list[StreamTruth]:
        return self.plan.stop(fork)

    def _destination(self, address: UdpAddress) -> int:
        if address.family not in self._senders:
            self._senders[address.family] = ScatterSender(address.family)
        return self._senders[address.family].add(address) + _SIX * (address.family == socket.AF_INET6)

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
                due = self.plan.due(now_ns, _MOST)
                self._send(due)
                if len(due) == _MOST:
                    await asyncio.sleep(0)
                    continue
                due_ns = self.plan.next_ns or now_ns
            # a fork that is started meanwhile is not looked at before
            await asyncio.sleep(min(max((due_ns - now_ns) / 1e9, _TICK_S), _PAUSE_S))

    def _send(self, due: Due) -> None:
        strep, destination = self.plan.to(due)
        six = destination >= _SIX
        for family, sender in self._senders.items():
            for header in (True, False):
                rows = np.flatnonzero((strep == header) & (six == (family == socket.AF_INET6)))
                if rows.size:
                    part = Due(due.row[rows], due.number[rows])
                    slab = self.plan.datagrams(part, strep=header)
                    sent = sender.send(slab, np.full(len(slab), slab.shape[1]), destination[rows] & (_SIX - 1))
                    self.datagrams += sent
                    self.refused += len(slab) - sent

    def close(self) -> None:
        for sender in self._senders.values():
            sender.close()
        self._senders.clear()
