"""Reading what has arrived before the end: all of it, or until the time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from .._edge.udp.base import Reader
from .._model.datagrams import DatagramBatch, merged

__all__ = ["read_now", "read_rest"]

# datagrams that each reader gives in one turn: strangers can make them expensive, so it begins with few
_FIRST_DATAGRAMS: Final = 256
_FEWEST_DATAGRAMS: Final = 128
_MOST_DATAGRAMS: Final = 4096
_TURN_S: Final = 0.1  # how long a turn should take

Clock = Callable[[], float]  # monotonic seconds


async def read_rest(
    readers: Sequence[Reader], take: Callable[[DatagramBatch], None], until_s: float, clock_s: Clock
) -> None:
    """Read until nothing is left, or until ``until_s`` on ``clock_s``. Others run after each turn of about 0.1 s."""
    limit, empty_turns = _FIRST_DATAGRAMS, 0
    while empty_turns < 2 and (began_s := clock_s()) < until_s:
        if _read(readers, take, limit):
            limit, empty_turns = _next_limit(limit, clock_s() - began_s), 0
        else:
            empty_turns += 1
        await asyncio.sleep(0)  # lets others run, and datagram endpoints read


def read_now(
    readers: Sequence[Reader], take: Callable[[DatagramBatch], None], time_limit_s: float, clock_s: Clock
) -> None:
    """The same, but nobody else runs meanwhile."""
    limit, now_s = _FIRST_DATAGRAMS, clock_s()
    until_s = now_s + time_limit_s
    while now_s < until_s and _read(readers, take, limit):
        before_s, now_s = now_s, clock_s()
        limit = _next_limit(limit, now_s - before_s)


def _read(readers: Sequence[Reader], take: Callable[[DatagramBatch], None], limit: int) -> bool:
    received = [batch for reader in readers if (batch := reader.receive(limit=limit)) is not None]
    for batch in merged(received):
        take(batch)
    return bool(received)


def _next_limit(limit: int, spent_s: float) -> int:
    """How many datagrams to read in the next turn, when ``limit`` of them took ``spent_s``."""
    fitting = int(limit * _TURN_S / max(spent_s, 1e-4))
    return max(_FEWEST_DATAGRAMS, min(2 * limit, fitting, _MOST_DATAGRAMS))
