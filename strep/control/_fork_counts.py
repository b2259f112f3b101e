"""What the whole receiver has counted since a fork began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._protocols import MediaReceiver

__all__ = ["CountsSince"]


class CountsSince:
    """The receiver's counters less what they were when this was made."""

    def __init__(self, receiver: MediaReceiver) -> None:
        self._receiver = receiver
        self._before = receiver.totals()

    def facts(self, own_streams: int) -> dict[str, Any]:
        """Those facts of a :class:`Facts` that are the receiver's. own_streams: how many of the streams that began are
        the fork's own."""
        now, before = self._receiver.totals(), self._before
        return {
            "datagrams": now.datagrams - before.datagrams,
            "by_kind": _increase(now.by_kind, before.by_kind),
            "rejected_by": _increase(now.rejected_by, before.rejected_by),
            "malformed": now.malformed - before.malformed,
            "kernel_dropped": now.kernel_dropped - before.kernel_dropped,
            "others": max(0, now.streams_started - before.streams_started - own_streams),
        }


def _increase(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {str(name): n - before.get(name, 0) for name, n in now.items() if n > before.get(name, 0)}
