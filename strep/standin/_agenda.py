"""When which call arrives, is answered or ends, or what is played on it does. Pure."""

from __future__ import annotations

import heapq

from ._call import NEVER_NS, Call

__all__ = ["Agenda"]


class Agenda:
    """Calls by when something happens to them by itself; at the same time, first come, first served."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Call]] = []  # when, a count, which
        self._count = 0

    def add(self, call: Call) -> None:
        """Something will happen to this call when its present state ends by itself."""
        due_ns = _due_ns(call)
        if due_ns < NEVER_NS:
            self._count += 1
            heapq.heappush(self._heap, (due_ns, self._count, call))

    def next_ns(self) -> int | None:
        """When the next thing happens; None: nothing will."""
        while self._heap:
            due_ns, _, call = self._heap[0]
            if _due_ns(call) == due_ns:
                return due_ns
            heapq.heappop(self._heap)  # a command came first
        return None

    def pop(self) -> Call:
        """Whose turn it is, after :meth:`next_ns`."""
        return heapq.heappop(self._heap)[2]


def _due_ns(call: Call) -> int:
    if call.state == "scheduled":
        return call.initiated_ns
    if call.state == "parked":
        return call.answers_ns
    if call.answered_ns is None or call.state == "hangup":
        return NEVER_NS
    return min(call.answered_ns + call.length_ns, call.playlist.next_ns)
