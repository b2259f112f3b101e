"""Bursts and gaps of loss (RFC 3611 section 4.7.2) of all streams at once: the counters of its appendix A.2.

A burst begins and ends with a lost packet and has no ``GMIN`` received ones in a row within; a loss with at least GMIN
received packets on either side is isolated, and part of the gap between bursts. In the appendix's Markov chain: state 1
received in a gap, 4 lost in a gap, 3 lost in a burst, 2 received in a burst.

Two things are as section 4.7.2 says rather than as the appendix's code does: a session is preceded and followed by
GMIN received packets (the code takes the first loss of all for a burst, and does not see a last burst until something
else is lost); and a packet is counted once where bursts become gaps. So the example in 4.7.2 comes out as it stands.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .columns import Columns, column

__all__ = ["GMIN", "LossBursts"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

GMIN: Final = 16  # packets


class LossBursts(Columns):
    """The counters of appendix A.2, a row for each stream. Names as there: c13 counts changes from state 1 to 3."""

    pkt: I64 = column(np.int64)  # packets received since the last loss
    lost: I64 = column(np.int64)  # packets lost since the last gap
    runs: I64 = column(np.int64)  # of lost packets without a received one between
    c11: I64 = column(np.int64)
    c13: I64 = column(np.int64)
    c14: I64 = column(np.int64)
    c22: I64 = column(np.int64)
    c23: I64 = column(np.int64)
    c33: I64 = column(np.int64)
    lost_in_all: I64 = column(np.int64)
    received_in_all: I64 = column(np.int64)

    def __init__(self, rows: int, gmin: int = GMIN) -> None:
        super().__init__(rows)
        self._gmin = gmin

    def add(self, row: I64, lost: I64, received: I64) -> None:
        """What came next: per item ``lost`` packets, then ``received`` ones. Items of a row are adjacent, in order."""
        if not len(row):
            return
        start = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        rows = row[start]
        sums = np.add.reduceat(received, start)
        event = np.flatnonzero(lost)
        if not event.size:
            self.received_in_all[rows] += sums
            self.pkt[rows] += sums
            return
        # packets received before each item since the row's last loss; ``before`` is exclusive and runs on over rows
        before = np.cumsum(received) - received
        origin = np.repeat(before[start] - self.pkt[rows], np.diff(np.append(start, len(row))))
        at, count, e_row = before[event], lost[event], row[event]
        first = np.r_[True, e_row[1:] != e_row[:-1]]
        pkt = at - np.where(first, origin[event], np.r_[0, at[:-1]])
        e_rows = e_row[first]
        begun = self.lost[e_rows] > 0
        fresh = np.zeros(len(event), np.bool_)
        fresh[first] = ~begun  # the very first loss of a stream ends the first gap
        ends = (pkt >= self._gmin) | fresh
        # losses of the burst before each event: since the last end, or the state's and since the row's beginning
        total = np.cumsum(count) - count
        number = np.arange(len(event))
        head = np.maximum.accumulate(np.where(first, number, 0))
        ended = np.maximum.accumulate(np.where(ends, number, -1))
        ended = np.r_[-1, ended[:-1]]
        own = ended >= head
        lost_before = np.where(own, total - total[np.maximum(ended, 0)], total - total[head] + self.lost[e_row])
        within = ~ends
        isolated = ends & (lost_before == 1)
        burst = ends & (lost_before > 1)
        again = within & (pkt > 0)
        tail = np.flatnonzero(np.r_[e_row[1:] != e_row[:-1], True])
        e_start = np.flatnonzero(first)

        def tally(values: npt.NDArray[np.generic]) -> I64:
            return np.add.reduceat(values.astype(np.int64), e_start)

        self.received_in_all[rows] += sums
        self.c11[e_rows] += tally(pkt * ends)
        self.c13[e_rows] += tally(burst)
        self.c14[e_rows] += tally(isolated)
        self.c22[e_rows] += tally((pkt - 1) * again)
        self.c23[e_rows] += tally(again)
        self.c33[e_rows] += tally(count - 1 + (within & (pkt == 0)))
        self.runs[e_rows] += tally(ends | again)
        self.lost_in_all[e_rows] += tally(count)
        self.lost[e_rows] = np.where(ends[tail], 0, lost_before[tail]) + count[tail]
        quiet = np.ones(len(rows), np.bool_)
        quiet[np.isin(rows, e_rows)] = False
        self.pkt[rows[quiet]] += sums[quiet]
        closing = before[np.append(start[1:], len(row)) - 1] + received[np.append(start[1:], len(row)) - 1]
        self.pkt[e_rows] = closing[~quiet] - at[tail]

    def counts(self, rows: I64) -> dict[str, I64]:
        """The counters as if the session ended here, with GMIN received packets to follow: ``received_in_burst``,
        ``lost_in_burst``, ``bursts``, ``received_in_gap``, ``lost_in_gap``, ``runs``, ``lost``, ``received``."""
        pkt, lost = self.pkt[rows], self.lost[rows]
        bursts = self.c13[rows] + (lost > 1)
        # of the last burst's losses the first has been counted nowhere, like every burst's first: c31 = c13
        return {
            "received_in_burst": self.c22[rows] + self.c23[rows],
            "lost_in_burst": bursts + self.c23[rows] + self.c33[rows],
            "bursts": bursts,
            "received_in_gap": self.c11[rows] + pkt,
            "lost_in_gap": self.c14[rows] + (lost == 1),
            "runs": self.runs[rows],
            "lost": self.lost_in_all[rows],
            "received": self.received_in_all[rows],
        }

    def metrics(self, rows: I64, packet_ms: F64 | float) -> dict[str, F64]:
        """RFC 3611 section 4.7.2, as fractions and ms.

        ``burst_density``, ``gap_density`` lost of the packets expected in bursts, in gaps · ``burst_ms``, ``gap_ms``
        mean durations, per burst · ``bursts`` their number · ``loss`` lost of all that were expected (4.7.1)
        """
        c = {name: count.astype(np.float64) for name, count in self.counts(rows).items()}
        burst = c["received_in_burst"] + c["lost_in_burst"]
        gap = c["received_in_gap"] + c["lost_in_gap"]
        each = np.maximum(c["bursts"], 1.0)
        return {
            "burst_density": c["lost_in_burst"] / np.maximum(burst, 1.0),
            "gap_density": c["lost_in_gap"] / np.maximum(gap, 1.0),
            "burst_ms": burst * packet_ms / each,
            "gap_ms": gap * packet_ms / each,
            "bursts": c["bursts"],
            "loss": c["lost"] / np.maximum(c["lost"] + c["received"], 1.0),
        }
