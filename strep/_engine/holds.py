"""Streams in question: a packet has come much later than its timestamp says, behind a pause with a clock that stood or
out of a queue. Which of them it was, the next packets tell (:mod:`.streams.judge`). So it waits for these in its ring,
and is placed together with them.

A hold ends, at a boundary between ticks, when

    packets come faster than they play, by 32 ms: a queue
    four packets have come in 60 ms or more that did not: a pause
    100 ms have passed (the latency, where that is longer; 200 ms at most)
    packets leave the ring all the same: a hole is given up, a run of them is long, the stream ends

What had come by then in sequence may be looked at (``Timeline.know``), and nothing else: so no outcome depends on
batches, nor on when what is ready is sent off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.time import NEVER_NS, TICK_NS
from .streams.judge import PROOF_NS, PROOF_PACKETS
from .streams.ring import JitterRing
from .streams.slots import SLOTS

__all__ = ["Holds"]

I64 = npt.NDArray[np.int64]

_LEAST_NS: Final = 100_000_000  # four packets of 20 ms, and jitter
_MOST_NS: Final = 200_000_000
_FALL_NS: Final = 32_000_000  # no less than where the judge says it, rounded
_NO_ROWS: Final[I64] = np.zeros(0, np.int64)


class Holds:
    """Rows are int64 (n,), distinct. ``tick_rate`` float64: timestamp units a nanosecond, by row. ``know(rows, ext)``
    is told up to which packets may be looked at."""

    def __init__(
        self,
        ring: JitterRing,
        tick_rate: npt.NDArray[np.float64],
        know: Callable[[I64, I64], None],
        *,
        latency_ns: int,
    ) -> None:
        self._ring = ring
        self._know = know
        self._tick_rate = tick_rate
        self._hold_ns = min(max(latency_ns, _LEAST_NS), _MOST_NS)
        self._rows = _NO_ROWS  # that are held
        self.held = np.zeros(len(tick_rate), np.bool_)
        self._until_ns = np.zeros(len(tick_rate), np.int64)

    @property
    def any(self) -> bool:
        """Whether any row is held."""
        return self._rows.size > 0

    def begin(self, rows: I64, arrival_ns: I64) -> None:
        """Hold rows back, for packets in question that came then."""
        self.held[rows] = True
        self._until_ns[rows] = np.minimum(arrival_ns, NEVER_NS - self._hold_ns) + self._hold_ns
        self._rows = self.held.nonzero()[0]

    def free(self, rows: I64) -> I64:
        """Those of these rows that are not held."""
        return rows[~self.held.take(rows)] if self._rows.size else rows

    def next_tick(self) -> int:
        """At whose beginning a hold ends at the latest."""
        return -(-int(self._until_ns[self._rows].min(initial=NEVER_NS)) // TICK_NS)

    def due(self, now_ns: int) -> I64:
        """Held rows of which enough is known, or that have waited long enough."""
        rows, ring = self._rows, self._ring
        run = ring.run(rows)
        over = self._until_ns[rows] <= now_ns
        some = (run > 1).nonzero()[0]
        if some.size:
            mine, count = rows[some], run[some]
            first = ring.next.take(mine)
            begin, end = (
                ring.meta_of(mine, ring.base.take(mine) + (ext & (SLOTS - 1))) for ext in (first, first + count - 1)
            )
            passed_ns = end[:, 1].view(np.int64) - begin[:, 1].view(np.int64)
            step = ((end[:, 0] >> np.uint64(32)) - (begin[:, 0] >> np.uint64(32))).astype(np.uint32).view(np.int32)
            fell = step - passed_ns * self._tick_rate.take(mine) >= _FALL_NS * self._tick_rate.take(mine)
            over[some] |= fell | ((count >= PROOF_PACKETS) & (passed_ns >= PROOF_NS))
        return rows[over]

    def end(self, rows: I64) -> None:
        """Hold these rows back no more, if they were: what waits there in sequence is known."""
        rows = rows[self.held.take(rows)]
        if rows.size:
            self._know(rows, self._ring.next[rows] + self._ring.run(rows) - 1)
            self.held[rows] = False
            self._rows = self.held.nonzero()[0]
