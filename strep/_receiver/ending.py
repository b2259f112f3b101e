"""What has come before the end is read until it is all read, or the time is up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from .._edge.udp import UdpSocket
from .._model.datagrams import DatagramBatch, merged

__all__ = ["read_now", "read_rest"]

_FIRST: Final = 256  # datagrams: strangers can make them dear
_LEAST: Final = 128
_MOST: Final = 4096
_TURN_S: Final = 0.1


async def read_rest(sockets: Sequence[UdpSocket], take: Callable[[DatagramBatch], None], until_s: float) -> None:
    """Read until nothing is left, or until ``until_s`` on the monotonic clock; 0.1 s at a time, whatever it costs."""
    most, in_vain = _FIRST, 0
    while in_vain < 2 and (began_s := time.monotonic()) < until_s:
        if _read(sockets, take, most):
            most, in_vain = _next(most, time.monotonic() - began_s), 0
        else:
            in_vain += 1
        await asyncio.sleep(0)  # lets others run, and datagram endpoints read


def read_now(sockets: Sequence[UdpSocket], take: Callable[[DatagramBatch], None], limit_s: float) -> None:
    """The same at one go."""
    most, now_s = _FIRST, time.monotonic()
    until_s = now_s + limit_s
    while now_s < until_s and _read(sockets, take, most):
        before_s, now_s = now_s, time.monotonic()
        most = _next(most, now_s - before_s)


def _read(sockets: Sequence[UdpSocket], take: Callable[[DatagramBatch], None], most: int) -> bool:
    received = [batch for socket in sockets if (batch := socket.receive(most=most)) is not None]
    for batch in merged(received):
        take(batch)
    return bool(received)


def _next(most: int, spent_s: float) -> int:
    """How many at once next, after so many took so long."""
    return max(_LEAST, min(2 * most, int(most * _TURN_S / max(spent_s, 1e-4)), _MOST))
