"""Loss, bursts and jitter of all streams, in windows of their timelines. Pure.

A window is so many seconds of a stream's own positions, so it holds the same packets however they came in batches. What
was lost belongs to the window in which packets go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from ..._model.types import GapCause
from ...quality import burst_ratio
from .bursts import Bursts

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch

__all__ = ["Closed", "Windows"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_DISCONTINUITY_NS: Final = 2e9  # as the engine has it: no jitter, but another clock
_INTS: Final = ("window", "window_frames", "received", "begin", "begin_ns", "prior_ns", "packet_frames")
_FLOATS: Final = (
    "rate",
    "clock",
    "jitter_sum",
    "jitter_count",
    "wait_sum",
    "jitter_all",
    "jitter_all_count",
    "wait_all",
)


@dataclass(frozen=True, slots=True)
class Closed:
    """Windows that are complete: columns (n,), at most one a stream.

    ``row`` · ``begin`` int64 position of the first packet that was expected · ``begin_ns`` int64 when it was due
    ``span_s`` of the packets that were expected · ``loss`` fraction · ``burst_r`` G.107's · ``burst_density``,
    ``burst_ms`` RFC 3611's · ``jitter_ms``, ``wait_ms`` means · ``packet_ms``
    """

    row: I64
    begin: I64
    begin_ns: I64
    span_s: F64
    loss: F64
    burst_r: F64
    burst_density: F64
    burst_ms: F64
    jitter_ms: F64
    wait_ms: F64
    packet_ms: F64

    def take(self, some: slice) -> Closed:
        return Closed(*(getattr(self, name)[some] for name in Closed.__slots__))


class Windows:
    """A row a stream. ``total`` holds the loss of whole streams."""

    def __init__(self, window_s: float, rows: int = 256) -> None:
        self._window_s = window_s
        self.rows = rows
        self._ints = np.zeros((len(_INTS), rows), np.int64)
        self._floats = np.zeros((len(_FLOATS), rows), np.float64)
        self._prior_timestamp = np.zeros(rows, np.uint32)
        self.total = Bursts(rows)
        self._bursts = Bursts(rows)
        self._point()

    def _point(self) -> None:
        (
            self._window,
            self._window_frames,
            self._received,
            self._begin,
            self._begin_ns,
            self._prior_ns,
            self._packet_frames,
        ) = self._ints
        (
            self.rate,
            self._clock,
            self._jitter_sum,
            self._jitter_count,
            self._wait_sum,
            self._jitter_all,
            self._jitter_all_count,
            self._wait_all,
        ) = self._floats

    def grow(self, rows: int) -> None:
        more = rows - self.rows
        self._ints = np.concatenate([self._ints, np.zeros((len(_INTS), more), np.int64)], axis=1)
        self._floats = np.concatenate([self._floats, np.zeros((len(_FLOATS), more), np.float64)], axis=1)
        self._prior_timestamp = np.append(self._prior_timestamp, np.zeros(more, np.uint32))
        self.total.grow(rows)
        self._bursts.grow(rows)
        self.rows = rows
        self._point()

    def open(self, row: int) -> None:
        """A stream begins in this row; its codec may be unknown until :meth:`learn`."""
        self._ints[:, row] = 0
        self._floats[:, row] = 0
        self._window[row] = -1
        self.total.reset(np.array([row]))
        self._bursts.reset(np.array([row]))

    def learn(self, row: int, sample_rate: int, clock_rate: int) -> None:
        self.rate[row] = sample_rate
        self._clock[row] = clock_rate
        self._window_frames[row] = max(1, round(self._window_s * sample_rate))

    def add(self, batch: BlockBatch) -> list[Closed]:
        """Count packets of streams whose codec is known; returns the windows that they completed, in order. All that
        packets can make wrong is worked out before anything is counted: what this raises has changed nothing."""
        first = batch.packet_first
        block = np.repeat(np.arange(len(batch)), np.diff(first))
        row = batch.index[block]
        frames = batch.packet_frames
        ahead = np.cumsum(frames) - frames
        ahead -= ahead[first[:-1]][block]  # frames of its block before each packet
        position = batch.position[block] + ahead
        window = position // self._window_frames[row]
        rate = self.rate[row]
        due_ns = batch.time_ns[block] + (ahead * (1e9 / rate)).astype(np.int64)
        wait = np.clip((batch.packet_arrival_ns - due_ns).astype(np.float64), 0.0, _DISCONTINUITY_NS)
        deviation, told, remember = self._deviation(batch, row)

        # segments: packets of one block in one window; before those that begin a block packets may be lost
        new = np.ones(len(row), np.bool_)
        new[1:] = (block[1:] != block[:-1]) | (window[1:] != window[:-1])
        start = np.flatnonzero(new)
        s_row, s_window = row[start], window[start]
        opens = np.zeros(len(row), np.bool_)
        opens[first[:-1]] = True
        lossy = opens[start] & (batch.gap_cause[block[start]] == GapCause.LOSS)
        gap = batch.gap_frames[block[start]]
        lost = np.where(lossy, np.maximum(np.rint(gap / frames[start]).astype(np.int64), 1), 0)
        received = np.diff(np.append(start, len(row)))

        # groups: a stream's segments in one window
        g_new = np.ones(len(start), np.bool_)
        g_new[1:] = (s_row[1:] != s_row[:-1]) | (s_window[1:] != s_window[:-1])
        group = np.flatnonzero(g_new)
        g_row, g_window, at = s_row[group], s_window[group], start[group]
        sums = [np.add.reduceat(values, at) for values in (deviation, told.astype(np.float64), wait)]
        g_received = np.add.reduceat(received, group)
        fresh = np.r_[True, g_row[1:] != g_row[:-1]]
        order = np.arange(len(group))
        rank = order - np.maximum.accumulate(np.where(fresh, order, 0))
        s_rank = rank[np.cumsum(g_new) - 1]
        self.total.add(s_row, lost, received)
        rows, arrival_ns, timestamp = remember
        self._prior_ns[rows], self._prior_timestamp[rows] = arrival_ns, timestamp
        closed: list[Closed] = []
        for turn in range(int(rank.max()) + 1):  # one, but where a batch holds many seconds (replays)
            now = np.flatnonzero(rank == turn) if rank.any() else order
            rows = g_row[now]
            other = self._window[rows] != g_window[now]
            if other.any():
                over = rows[other & (self._window[rows] >= 0)]
                if over.size:
                    closed.append(self.close(over))
                begins = rows[other]
                self._window[begins] = g_window[now][other]
                packet = at[now][other]
                ahead_of = lost[group[now][other]] * frames[packet]  # what was lost before is part of the window
                self._begin[begins] = position[packet] - ahead_of
                self._begin_ns[begins] = due_ns[packet] - (ahead_of * (1e9 / rate[packet])).astype(np.int64)
                self._packet_frames[begins] = frames[packet]
            mine = np.flatnonzero(s_rank == turn) if rank.any() else slice(None)
            self._bursts.add(s_row[mine], lost[mine], received[mine])
            self._received[rows] += g_received[now]
            self._jitter_sum[rows] += sums[0][now]
            self._jitter_count[rows] += sums[1][now]
            self._wait_sum[rows] += sums[2][now]
        return closed

    def _deviation(
        self, batch: BlockBatch, row: I64
    ) -> tuple[F64, npt.NDArray[np.bool_], tuple[I64, I64, npt.NDArray[np.uint32]]]:
        """|D| of RFC 3550 section 6.4.1 in ns, of each packet and the one before it; whether there is one; and what is
        to be remembered of the last ones: rows, arrival, timestamp."""
        arrival, timestamp = batch.packet_arrival_ns, batch.packet_rtp_timestamp
        start = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        rows, last = row[start], np.append(start[1:], len(row)) - 1
        prior_ns, prior_timestamp = np.empty_like(arrival), np.empty_like(timestamp)
        prior_ns[1:], prior_timestamp[1:] = arrival[:-1], timestamp[:-1]
        prior_ns[start], prior_timestamp[start] = self._prior_ns[rows], self._prior_timestamp[rows]
        sent_ns = (timestamp - prior_timestamp).view(np.int32) * (1e9 / self._clock[row])
        deviation = np.abs((arrival - prior_ns) - sent_ns)
        told = (prior_ns != 0) & (deviation < _DISCONTINUITY_NS)
        return np.where(told, deviation, 0.0), told, (rows, arrival[last], timestamp[last])

    def open_rows(self, rows: I64) -> I64:
        """Those of ``rows`` with a window that is not complete."""
        return rows[self._window[rows] >= 0]

    def close(self, rows: I64) -> Closed:
        """Take what there is of these rows' windows, and begin anew."""
        packet_s = self._packet_frames[rows] / self.rate[rows]
        counts = self._bursts.closed(rows)
        metrics = self._bursts.metrics(rows, 1e3 * packet_s)
        jitter, count = self._jitter_sum[rows], self._jitter_count[rows]
        wait, received = self._wait_sum[rows], self._received[rows]
        self._jitter_all[rows] += jitter
        self._jitter_all_count[rows] += count
        self._wait_all[rows] += wait
        done = Closed(
            row=rows,
            begin=self._begin[rows],
            begin_ns=self._begin_ns[rows],
            span_s=(counts["lost"] + counts["received"]) * packet_s,
            loss=metrics["loss"],
            burst_r=burst_ratio(counts["lost"], counts["runs"], counts["received"]),
            burst_density=metrics["burst_density"],
            burst_ms=metrics["burst_ms"],
            jitter_ms=jitter / np.maximum(count, 1) / 1e6,
            wait_ms=wait / np.maximum(received, 1) / 1e6,
            packet_ms=1e3 * packet_s,
        )
        self._bursts.reset(rows)
        self._received[rows] = 0
        self._window[rows] = -1
        for sums in (self._jitter_sum, self._jitter_count, self._wait_sum):
            sums[rows] = 0.0
        return done

    def whole(self, rows: I64) -> Closed:
        """The same of whole streams, as far as their windows have been closed."""
        packet_s = self._packet_frames[rows] / self.rate[rows]
        counts = self.total.closed(rows)
        metrics = self.total.metrics(rows, 1e3 * packet_s)
        none = np.zeros(len(rows), np.int64)
        return Closed(
            row=rows,
            begin=none,
            begin_ns=none,
            span_s=(counts["lost"] + counts["received"]) * packet_s,
            loss=metrics["loss"],
            burst_r=burst_ratio(counts["lost"], counts["runs"], counts["received"]),
            burst_density=metrics["burst_density"],
            burst_ms=metrics["burst_ms"],
            jitter_ms=self._jitter_all[rows] / np.maximum(self._jitter_all_count[rows], 1) / 1e6,
            wait_ms=self._wait_all[rows] / np.maximum(counts["received"], 1) / 1e6,
            packet_ms=1e3 * packet_s,
        )
