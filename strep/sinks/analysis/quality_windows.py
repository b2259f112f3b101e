"""Loss, bursts and jitter of all streams, in windows of their timelines. Pure.

A window is so many seconds of a stream's own positions, so it holds the same packets however they came in batches. What
was lost belongs to the window in which packets go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..._model.supply import PAUSE_NS, STARVED_RATIO
from ..._model.types import GapCause
from ...quality import burst_ratio
from .columns import Columns, column
from .loss_bursts import LossBursts
from .quality_modes import CodecModes

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.types import Codec

__all__ = ["QualityWindows", "WindowFigures"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_DISCONTINUITY_NS: Final = 2e9  # as the engine has it: this is no jitter, but another clock


class WindowFigures(NamedTuple):
    """The figures of windows that are complete, columns (n,) with at most one window of each stream."""

    row: I64
    begin: I64  # position of the first packet that was expected, in sample frames
    begin_ns: I64  # when it was due, on the receiver's clock
    end: I64  # where the window ends, in sample frames, whatever came until then
    span_s: F64  # length of the packets that were expected
    loss: F64  # fraction of them, 0 to 1
    burst_r: F64  # G.107's
    burst_density: F64  # RFC 3611's, a fraction
    burst_ms: F64  # RFC 3611's, a mean
    jitter_ms: F64  # a mean
    wait_ms: F64  # a mean
    packet_ms: F64
    modes: F64  # (n, MODES): how much came in each mode of the codec
    media_ratio: F64  # seconds of audio sent for each second that passed, pauses not counted

    @property
    def missing(self) -> F64:
        """Fraction of the audio that is not there, 0 to 1: lost, or never sent by a sender that is starved."""
        starved = self.media_ratio < STARVED_RATIO
        missing: F64 = 1.0 - (1.0 - self.loss) * np.where(starved, self.media_ratio, 1.0)
        return missing

    def take(self, some: slice) -> WindowFigures:
        return WindowFigures._make(values[some] for values in self)


class QualityWindows(Columns):
    """The present window of each stream, a row a stream. ``total`` holds the loss of whole streams."""

    rate: F64 = column(np.float64)  # sample frames a second; 0: not known
    clock: F64 = column(np.float64)  # of RTP timestamps, Hz
    window_frames: I64 = column(np.int64)  # length of a window
    packet_frames: I64 = column(np.int64)  # length of a packet
    window: I64 = column(np.int64, -1)  # number of the present window; -1: none
    begin: I64 = column(np.int64)  # of the present window, as in WindowFigures
    begin_ns: I64 = column(np.int64)
    received: I64 = column(np.int64)  # packets in the present window
    prior_ns: I64 = column(np.int64)  # arrival of the last packet; 0: none came
    prior_timestamp: npt.NDArray[np.uint32] = column(np.uint32)  # its RTP timestamp
    # sums in ns, and counts: of the present window, and of all windows that are complete
    jitter_sum: F64 = column(np.float64)
    jitter_count: F64 = column(np.float64)
    wait_sum: F64 = column(np.float64)
    jitter_all: F64 = column(np.float64)
    jitter_all_count: F64 = column(np.float64)
    wait_all: F64 = column(np.float64)
    suppresses: npt.NDArray[np.bool_] = column(np.bool_)  # the codec is one that suppresses silence
    # the same of supply: audio sent in ns, time that passed without pauses, pauses in ns, their number, and packets
    supply: F64 = column(np.float64, shape=(5,))
    supply_all: F64 = column(np.float64, shape=(5,))

    def __init__(self, window_s: float, rows: int = 256) -> None:
        self._window_s = window_s
        self.total = LossBursts(0)
        self._bursts = LossBursts(0)  # of the present window
        self.modes = CodecModes()
        super().__init__(rows)

    def grow(self, rows: int) -> None:
        super().grow(rows)
        self.total.grow(rows)
        self._bursts.grow(rows)
        self.modes.grow(rows)

    def open(self, row: int) -> None:
        """A stream begins in this row; its codec may be unknown until :meth:`learn`."""
        self.reset(row)
        self.total.reset(row)
        self._bursts.reset(row)
        self.modes.reset(row)

    def learn(self, row: int, codec: Codec) -> None:
        self.rate[row] = codec.sample_rate
        self.clock[row] = codec.clock_rate
        self.window_frames[row] = max(1, round(self._window_s * codec.sample_rate))
        self.modes.learn(row, codec)

    def add(self, batch: BlockBatch) -> list[WindowFigures]:
        """Count packets of streams whose codec is known; returns the windows that they completed, in order. All that
        packets can make wrong is worked out before anything is counted: what this raises has changed nothing."""
        first = batch.packet_first
        block = np.repeat(np.arange(len(batch)), np.diff(first))
        row = batch.index[block]
        frames = batch.packet_frames
        ahead = np.cumsum(frames) - frames
        ahead -= ahead[first[:-1]][block]  # frames of its block before each packet
        position = batch.position[block] + ahead
        window = position // self.window_frames[row]
        rate = self.rate[row]
        due_ns = batch.time_ns[block] + (ahead * (1e9 / rate)).astype(np.int64)
        wait = np.clip((batch.packet_arrival_ns - due_ns).astype(np.float64), 0.0, _DISCONTINUITY_NS)
        deviation, told, remember, apart_ns = self._deviation(batch, row)
        modes = self.modes.count(batch, row)

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
        supply = _supply(frames * (1e9 / rate), apart_ns, start, lost)

        # groups: a stream's segments in one window
        g_new = np.ones(len(start), np.bool_)
        g_new[1:] = (s_row[1:] != s_row[:-1]) | (s_window[1:] != s_window[:-1])
        group = np.flatnonzero(g_new)
        g_row, g_window, at = s_row[group], s_window[group], start[group]
        sums = [np.add.reduceat(values, at) for values in (deviation, told.astype(np.float64), wait)]
        g_supply = np.add.reduceat(supply, at)
        g_received = np.add.reduceat(received, group)
        g_modes = None if modes is None else np.add.reduceat(modes, at, axis=0)
        fresh = np.r_[True, g_row[1:] != g_row[:-1]]
        order = np.arange(len(group))
        rank = order - np.maximum.accumulate(np.where(fresh, order, 0))
        s_rank = rank[np.cumsum(g_new) - 1]
        self.total.add(s_row, lost, received)
        rows, arrival_ns, timestamp = remember
        self.prior_ns[rows], self.prior_timestamp[rows] = arrival_ns, timestamp
        complete: list[WindowFigures] = []
        for turn in range(int(rank.max()) + 1):  # one, but where a batch holds many seconds (replays)
            now = np.flatnonzero(rank == turn) if rank.any() else order
            rows = g_row[now]
            other = self.window[rows] != g_window[now]
            if other.any():
                over = rows[other & (self.window[rows] >= 0)]
                if over.size:
                    complete.append(self.close(over))
                begins = rows[other]
                self.window[begins] = g_window[now][other]
                packet = at[now][other]
                ahead_of = lost[group[now][other]] * frames[packet]  # what was lost before is part of the window
                self.begin[begins] = position[packet] - ahead_of
                self.begin_ns[begins] = due_ns[packet] - (ahead_of * (1e9 / rate[packet])).astype(np.int64)
                self.packet_frames[begins] = frames[packet]
            mine = np.flatnonzero(s_rank == turn) if rank.any() else slice(None)
            self._bursts.add(s_row[mine], lost[mine], received[mine])
            self.received[rows] += g_received[now]
            self.jitter_sum[rows] += sums[0][now]
            self.jitter_count[rows] += sums[1][now]
            self.wait_sum[rows] += sums[2][now]
            if g_modes is not None:
                self.modes.now[rows] += g_modes[now]
            self.supply[rows] += g_supply[now]
        return complete

    def _deviation(
        self, batch: BlockBatch, row: I64
    ) -> tuple[F64, npt.NDArray[np.bool_], tuple[I64, I64, npt.NDArray[np.uint32]], F64]:
        """|D| of RFC 3550 section 6.4.1 in ns, of each packet and the one before it; whether there is one; and what is
        to be remembered of the last ones: rows, arrival, timestamp; and how much later it came, in ns, NaN for the
        first one."""
        arrival, timestamp = batch.packet_arrival_ns, batch.packet_rtp_timestamp
        start = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        rows, last = row[start], np.append(start[1:], len(row)) - 1
        prior_ns, prior_timestamp = np.empty_like(arrival), np.empty_like(timestamp)
        prior_ns[1:], prior_timestamp[1:] = arrival[:-1], timestamp[:-1]
        prior_ns[start], prior_timestamp[start] = self.prior_ns[rows], self.prior_timestamp[rows]
        sent_ns = (timestamp - prior_timestamp).view(np.int32) * (1e9 / self.clock[row])
        deviation = np.abs((arrival - prior_ns) - sent_ns)
        told = (prior_ns != 0) & (deviation < _DISCONTINUITY_NS)
        apart_ns = np.where(prior_ns != 0, (arrival - prior_ns).astype(np.float64), np.nan)
        return np.where(told, deviation, 0.0), told, (rows, arrival[last], timestamp[last]), apart_ns

    def open_rows(self, rows: I64) -> I64:
        """Those of ``rows`` with a window that is not complete."""
        return rows[self.window[rows] >= 0]

    def close(self, rows: I64) -> WindowFigures:
        """Take what there is of these rows' windows, and begin anew."""
        packet_s = self.packet_frames[rows] / self.rate[rows]
        counts = self._bursts.counts(rows)
        metrics = self._bursts.metrics(rows, 1e3 * packet_s)
        jitter, count = self.jitter_sum[rows], self.jitter_count[rows]
        wait, received = self.wait_sum[rows], self.received[rows]
        self.jitter_all[rows] += jitter
        self.jitter_all_count[rows] += count
        self.wait_all[rows] += wait
        self.supply_all[rows] += self.supply[rows]
        done = WindowFigures(
            row=rows,
            begin=self.begin[rows],
            begin_ns=self.begin_ns[rows],
            end=(self.window[rows] + 1) * self.window_frames[rows],
            span_s=(counts["lost"] + counts["received"]) * packet_s,
            loss=metrics["loss"],
            burst_r=burst_ratio(counts["lost"], counts["runs"], counts["received"]),
            burst_density=metrics["burst_density"],
            burst_ms=metrics["burst_ms"],
            jitter_ms=jitter / np.maximum(count, 1) / 1e6,
            wait_ms=wait / np.maximum(received, 1) / 1e6,
            packet_ms=1e3 * packet_s,
            modes=self.modes.close(rows),
            media_ratio=_media_ratio(self.supply[rows], self.suppresses[rows]),
        )
        self._bursts.reset(rows)
        self.received[rows] = 0
        self.window[rows] = -1
        for sums in (self.jitter_sum, self.jitter_count, self.wait_sum):
            sums[rows] = 0.0
        self.supply[rows] = 0.0
        return done

    def whole(self, rows: I64) -> WindowFigures:
        """The same of whole streams, as far as their windows have been closed."""
        packet_s = self.packet_frames[rows] / self.rate[rows]
        counts = self.total.counts(rows)
        metrics = self.total.metrics(rows, 1e3 * packet_s)
        none = np.zeros(len(rows), np.int64)
        return WindowFigures(
            row=rows,
            begin=none,
            begin_ns=none,
            end=none,
            span_s=(counts["lost"] + counts["received"]) * packet_s,
            loss=metrics["loss"],
            burst_r=burst_ratio(counts["lost"], counts["runs"], counts["received"]),
            burst_density=metrics["burst_density"],
            burst_ms=metrics["burst_ms"],
            jitter_ms=self.jitter_all[rows] / np.maximum(self.jitter_all_count[rows], 1) / 1e6,
            wait_ms=self.wait_all[rows] / np.maximum(counts["received"], 1) / 1e6,
            packet_ms=1e3 * packet_s,
            modes=self.modes.total[rows],
            media_ratio=_media_ratio(self.supply_all[rows], self.suppresses[rows]),
        )


def _supply(length_ns: F64, apart_ns: F64, start: I64, lost: I64) -> F64:
    """What each packet adds to ``QualityWindows.supply``, (n, 5). Packets at ``start`` come after ``lost`` others."""
    sent_ns = length_ns.copy()
    sent_ns[start] *= 1 + lost
    pause_ns = apart_ns - sent_ns
    pause = apart_ns > PAUSE_NS
    pause[start[lost > 0]] = False
    passed_ns = np.where(pause | np.isnan(apart_ns), sent_ns, apart_ns)
    return np.stack([sent_ns, passed_ns, np.where(pause, pause_ns, 0.0), pause, np.ones(len(pause))], axis=1)


def _media_ratio(supply: F64, suppresses: npt.NDArray[np.bool_]) -> F64:
    """Of ``QualityWindows.supply``, (n, 5): most packets come after pauses where a sender is starved very much."""
    sent_ns, passed_ns, paused_ns, pauses, packets = supply.T
    passed_ns = passed_ns + np.where(~suppresses & (2 * pauses > packets), paused_ns, 0.0)
    ratio: F64 = sent_ns / np.where(passed_ns > 0, passed_ns, 1.0)
    return np.where(passed_ns > 0, ratio, 1.0)
