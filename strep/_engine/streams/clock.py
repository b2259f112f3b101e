"""Streams on the receiver's clock: a minimum-delay filter over arrival times, for all streams at once.

A packet that begins at ``position`` was sampled ``position / rate`` seconds after the stream's first frame, by the
sender's clock. Its offset, ``arrival - position / rate``, is the time the first frame had arrived, plus what the packet
waited in the network, less what the sender's clock has run ahead since. Waiting only ever adds: the smallest offset of
many packets is that of the one that waited least.

    window     10 s of stream position; its lowest offset stands for it (the first one speaks at 0.5, 1, 2 and 5 s too)
    skew       slope of a line through the windows' lowest offsets, least squares; from 3 windows on
    level      where the line is now: follows the windows slowly, so that a clock whose speed changes is followed too
    segment    windows between which nothing but drift moves the offset. A re-anchored timeline (RESTART) begins a new
               one, so does a step: two windows on end that stand off the line, and agree. One that stands 100 ms below
               it is enough: no packet comes before it was sent. Slopes within segments count, steps between them do
               not. Three windows on end that are off the line, but make one, are one: a clock that is far off. Not so
               when they come down to the line: a queue of 30 s that empties.

Within a window the offset is one constant, made of the windows complete before it: ``time = offset + position / rate``.
It is a function of the packets alone. A block never holds packets of two windows, so it is the same however packets
were cut into batches, for every frame. At 200 ppm it steps by 2 ms every 10 s.

Example: at 8 kHz, lowest offsets of T, T - 2 ms, T - 4 ms: a skew of +200 ppm; the next window's offset is T - 6 ms.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.time import NEVER_NS, SECOND_NS, position_ns
from ..undo import Undo
from .judge import LEAN_BITS, UNKNOWN_FLOOR
from .placement import Placement

__all__ = ["WINDOW_S", "ClockFilter"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

WINDOW_S: Final = 10  # of stream position
_EARLY_TENTHS: Final = (5, 10, 20, 50)  # of a second: when a segment's first window speaks before it is complete
_WINDOW_PACKETS: Final = 20  # at least; with fewer a window goes on into the next
_STEP_NS: Final = 5e6  # what stands further off the line is not drift
_FALL_NS: Final = 100e6  # what stands further below it proves the line wrong
_DRIFT_NS_A_SECOND: Final = 1e6  # 1000 ppm, which may be drift that is not known yet
_FAR_OFF_NS_A_SECOND: Final = 1e6  # 1000 ppm: no crystal is so far off
_LINE_WINDOWS: Final = 3  # that make a line
_WINDOW_GAIN: Final = 0.125  # the weight of a window in the level
_FAR_FRAMES: Final = 1 << 44  # beyond any position


class ClockFilter:
    """Rows are streams. ``skew_ppm`` float64: how much faster than ours a sender's clock runs; NaN while unknown."""

    def __init__(self, streams: int, undo: Undo | None = None) -> None:
        self._note = (undo or Undo(keep=False)).note

        def whole() -> I64:
            return np.zeros(streams, np.int64)

        def real() -> F64:
            return np.zeros(streams, np.float64)

        self.skew_ppm = np.full(streams, np.nan)
        self.floor = np.full(
            streams, UNKNOWN_FLOOR, np.int64
        )  # the lowest offset of a packet's end, less what the line has risen
        self._rate = np.ones(streams, np.int64)
        self._step = whole()  # ns a frame; 0 where that is no whole number
        self._offset = whole()  # of the present window
        # windows
        self._base = whole()  # position where the segment's first window begins
        self._edge = whole()  # position where the present window, or part of the first one, ends
        self._from = whole()
        self._until = whole()
        self._low = whole()
        self._count = whole()
        # the line, in seconds of position and ns beside the origin
        self._origin = whole()
        self._level = real()
        self._level_at = real()
        self._slope = real()
        self._windows = whole()  # in this segment
        self._points = whole()  # in all
        self._odd = real()  # a window off the line, NaN: the last one was not
        self._odd_at = real()
        # the last window and the one before it, NaN: none in this segment
        self._last, self._last_at, self._earlier, self._earlier_at = real(), real(), real(), real()
        self._mean_x = real()
        self._mean_y = real()
        self._sxx = real()
        self._sxy = real()
        self._sxx_before = real()  # of earlier segments
        self._sxy_before = real()

    def open(self, rows: I64) -> None:
        self.skew_ppm[rows] = np.nan
        self.floor[rows] = UNKNOWN_FLOOR

    def begin(self, rows: I64, rate: I64, origin_ns: I64) -> None:
        """Streams' first audio. ``origin_ns``: what is known so far of when their first frames arrived."""
        for sums in (
            self._level, self._level_at, self._slope, self._windows, self._points,
            self._mean_x, self._mean_y, self._sxx, self._sxy, self._sxx_before, self._sxy_before,
            self._base, self._from, self._count,
        ):  # fmt: skip
            sums[rows] = 0
        self.skew_ppm[rows] = np.nan
        self._odd[rows] = self._last[rows] = self._earlier[rows] = np.nan
        self._rate[rows] = rate
        self._step[rows] = np.where(SECOND_NS % rate, 0, SECOND_NS // rate)
        self._offset[rows] = self._origin[rows] = origin_ns
        # as _begin_windows does it for those that go on
        self._edge[rows] = _EARLY_TENTHS[0] * rate // 10
        self._until[rows] = WINDOW_S * rate
        self._low[rows] = NEVER_NS

    def map(self, placed: Placement) -> tuple[Placement, I64]:
        """Take these packets in. Returns the blocks, split where a window begins, and their ``time_ns`` int64 (m,)."""
        rows = placed.block_row
        usual = placed.anew is None and placed.trim is None
        if usual and (placed.position + placed.block_frames <= self._edge.take(rows)).all():
            step = self._step.take(rows)
            one = int(step[0])
            if one and (step == one).all() and (rows[1:] != rows[:-1]).all():
                return placed, self._map_smooth(placed, rows, one)
        return self._map_any(placed)

    def _map_smooth(self, placed: Placement, rows: I64, step: int) -> I64:
        """One block a stream, all within their windows."""
        time_ns = placed.position * step
        count, lowest = self._count.take(rows), self._low.take(rows)
        self._note((self._count, rows, count))
        self._note((self._low, rows, lowest))
        floor, risen = self.floor.take(rows), placed.arrival_ns >> LEAN_BITS
        self._note((self.floor, rows, floor))
        if len(placed.frames) == len(rows):
            low = placed.arrival_ns - time_ns
            lean = low - placed.frames * step - risen
            self._count[rows] = count + 1
        else:
            first = placed.packet_first[:-1]
            since, lasts = _running(placed.frames, step)
            origin = since.take(first)
            origin -= time_ns
            offset = np.subtract(placed.arrival_ns, since, out=since)
            low = np.minimum.reduceat(offset, first)
            low += origin
            risen += lasts
            offset -= risen
            lean = np.minimum.reduceat(offset, first)
            lean += origin
            self._count[rows] = count + np.diff(placed.packet_first)
        self._low[rows] = np.minimum(lowest, low)
        self.floor[rows] = np.minimum(floor, lean)
        time_ns += self._offset.take(rows)
        return time_ns

    def _map_any(self, placed: Placement) -> tuple[Placement, I64]:
        placed, base = self._split(placed)
        rows, first = placed.block_row, placed.packet_first[:-1]
        starts = _packet_positions(placed)
        if placed.trim is not None:
            starts -= placed.trim  # a packet was sent whole
        offset = placed.arrival_ns - position_ns(starts, self._rate.take(placed.row))
        low = np.minimum.reduceat(offset, first)
        count = np.diff(placed.packet_first)
        time_ns = position_ns(placed.position, self._rate.take(rows))
        # the first block of each row, then the second of each, ...
        start = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
        blocks = np.diff(np.r_[start, len(rows)])
        each = rows[start]
        self._note((self._count, each, self._count[each]))
        self._note((self._low, each, self._low[each]))
        self._note((self.floor, each, self.floor[each]))
        sent = position_ns(placed.frames + (0 if placed.trim is None else placed.trim), self._rate.take(placed.row))
        lean = np.minimum.reduceat(offset - sent - (placed.arrival_ns >> LEAN_BITS), first)
        for rank in range(int(blocks.max())):
            now = start[blocks > rank] + rank
            mine, position = rows[now], placed.position[now]
            if placed.anew is not None and placed.anew[now].any():
                self._begin_segment(mine[placed.anew[now]], position[placed.anew[now]])
            crossed = position >= self._edge[mine]
            if crossed.any():
                self._begin_window(mine[crossed], position[crossed], base[now][crossed])
            self._low[mine] = np.minimum(self._low[mine], low[now])
            self.floor[mine] = np.minimum(self.floor[mine], lean[now])
            self._count[mine] += count[now]
            time_ns[now] += self._offset[mine]
        return placed, time_ns

    def _note_all(self, rows: I64) -> None:
        for column in (
            self.skew_ppm, self._offset, self._base, self._edge, self._from, self._until, self._low, self._count,
            self._level, self._level_at, self._slope, self._windows, self._points, self._odd, self._odd_at,
            self._last, self._last_at, self._earlier, self._earlier_at,
            self._mean_x, self._mean_y, self._sxx, self._sxy, self._sxx_before, self._sxy_before,
        ):  # fmt: skip
            self._note((column, rows, column.take(rows)))

    # --- windows --------------------------------------------------------------------------------------------------

    def _split(self, placed: Placement) -> tuple[Placement, I64]:
        """Blocks that each stand in one window; and where each one's segment began."""
        rows = placed.block_row
        base = self._base[rows]
        if placed.anew is not None:
            base = np.where(placed.anew, placed.position, base)
            group = np.cumsum(np.r_[False, rows[1:] != rows[:-1]]) * _FAR_FRAMES
            base = np.maximum.accumulate(base + group) - group
        size = np.diff(placed.packet_first)
        window = _window_of(_packet_positions(placed) - np.repeat(base, size), self._rate[placed.row])
        opens = np.r_[True, window[1:] != window[:-1]]
        opens[placed.packet_first[:-1]] = True
        first = np.flatnonzero(opens)
        if len(first) == len(rows):
            return placed, base
        block = placed.packet_first.searchsorted(first, "right") - 1
        begins = placed.packet_first[block] == first
        split = replace(
            placed,
            packet_first=np.append(first, len(opens)),
            block_row=rows[block],
            position=_packet_positions(placed)[first],
            block_frames=np.add.reduceat(placed.frames, first),
            gap_frames=np.where(begins, placed.gap_frames[block], 0),
            gap_cause=np.where(begins, placed.gap_cause[block], 0).astype(np.uint8),
            anew=None if placed.anew is None else placed.anew[block] & begins,
        )
        return split, base[block]

    def _begin_windows(self, rows: I64, position: I64) -> None:
        """A segment's first window."""
        rate = self._rate[rows]
        self._base[rows] = self._from[rows] = position
        self._edge[rows] = position + _EARLY_TENTHS[0] * rate // 10
        self._until[rows] = position + WINDOW_S * rate
        self._low[rows] = NEVER_NS
        self._count[rows] = 0

    def _begin_segment(self, rows: I64, position: I64) -> None:
        """The timeline was re-anchored by arrival times: the offset goes on as it was, give or take a jitter."""
        self._note_all(rows)
        full = self._count[rows] >= _WINDOW_PACKETS
        if full.any():
            self._until[rows] = np.minimum(self._until[rows], position)
            self._close(rows[full])
        self._fold(rows)
        self._windows[rows] = 0
        self._odd[rows] = self._last[rows] = self._earlier[rows] = np.nan
        self._begin_windows(rows, position)

    def _begin_window(self, rows: I64, position: I64, base: I64) -> None:
        self._note_all(rows)
        rate = self._rate[rows]
        window = (position - base) // (WINDOW_S * rate)
        begin = base + window * WINDOW_S * rate
        over = position >= self._until[rows]
        full = over & (self._count[rows] >= _WINDOW_PACKETS)
        if full.any():
            done = rows[full]
            self._close(done)
            self._low[done] = NEVER_NS
            self._count[done] = 0
            self._from[done] = begin[full]
        self._until[rows] = begin + WINDOW_S * rate
        self._edge[rows] = self._until[rows]
        for tenths in reversed(_EARLY_TENTHS):
            early = base + tenths * rate // 10
            self._edge[rows] = np.where(early > position, early, self._edge[rows])
        # in the middle of the window to come
        at = (begin + WINDOW_S * rate / 2) / rate
        slope = self._slope[rows]
        line = self._level[rows] + slope * (at - self._level_at[rows])
        # the lowest of a window is at one of its ends, not in the middle, when drift outweighs jitter
        line += np.where(np.abs(slope) > _FAR_OFF_NS_A_SECOND, np.abs(slope) * WINDOW_S / 2, 0.0)
        known = self._windows[rows] > 0
        offset = np.where(known, self._origin[rows] + np.rint(line).astype(np.int64), self._low[rows])
        self._offset[rows] = np.where(known | (self._count[rows] > 0), offset, self._offset[rows])

    # --- the line -------------------------------------------------------------------------------------------------

    def _close(self, rows: I64) -> None:
        """The windows of these rows (distinct) are complete."""
        x = (self._from[rows] + self._until[rows]) / (2 * self._rate[rows])
        y = (self._low[rows] - self._origin[rows]).astype(np.float64)
        slope = self._slope[rows]
        off = y - (self._level[rows] + slope * (x - self._level_at[rows]))
        drift = np.where(self._points[rows] < _LINE_WINDOWS, _DRIFT_NS_A_SECOND * (x - self._level_at[rows]), 0.0)
        odd = (np.abs(off) > _STEP_NS + drift) & (self._windows[rows] > 0)
        since = x - self._odd_at[rows]
        again = odd & (np.abs(y - self._odd[rows] - slope * since) <= _STEP_NS + _DRIFT_NS_A_SECOND * since)
        if again.any():
            steps = rows[again]
            self._fold(steps)
            self._windows[steps] = 0
            self._add(steps, self._odd_at[steps], self._odd[steps])
        once = odd & ~again
        if once.any():
            once &= ~self._begin_line(rows, x, y, once, off)
        self._earlier[rows], self._earlier_at[rows] = self._last[rows], self._last_at[rows]
        self._last[rows], self._last_at[rows] = y, x
        self._odd[rows] = np.where(once, y, np.nan)
        self._odd_at[rows] = x
        taken = ~once
        self._add(rows[taken], x[taken], y[taken])

    def _begin_line(self, rows: I64, x: F64, y: F64, odd: npt.NDArray[np.bool_], off: F64) -> npt.NDArray[np.bool_]:
        """Of windows that are off the line: those that begin another one, which goes through the two before them, or
        is below. One that comes down to the line is none: a queue that empties."""
        before = x - self._last_at[rows]
        between = self._last_at[rows] - self._earlier_at[rows]
        rise = (self._last[rows] - self._earlier[rows]) / np.where(between > 0, between, np.nan)
        bent = odd & (np.abs(y - self._last[rows] - rise * before) <= _STEP_NS) & ~((off > 0) & (rise < 0))
        begins = bent | (odd & (off < -_FALL_NS))
        self._fold(rows[begins])
        self._windows[rows[begins]] = 0
        new = rows[bent]
        if new.size:
            self._add(new, self._earlier_at[new], self._earlier[new])
            self._add(new, self._last_at[new], self._last[new])
        return begins

    def _fold(self, rows: I64) -> None:
        """A segment ends: what it tells of the slope is kept."""
        self._sxx_before[rows] += self._sxx[rows]
        self._sxy_before[rows] += self._sxy[rows]
        for sums in (self._mean_x, self._mean_y, self._sxx, self._sxy):
            sums[rows] = 0.0

    def _add(self, rows: I64, x: F64, y: F64) -> None:
        n = self._windows[rows] + 1
        self._windows[rows] = n
        self._points[rows] += 1
        dx = x - self._mean_x[rows]
        self._mean_x[rows] += dx / n
        self._mean_y[rows] += (y - self._mean_y[rows]) / n
        self._sxx[rows] += dx * (x - self._mean_x[rows])
        self._sxy[rows] += dx * (y - self._mean_y[rows])
        sxx = self._sxx_before[rows] + self._sxx[rows]
        line = (self._points[rows] >= _LINE_WINDOWS) & (sxx > 0)
        slope = np.where(line, (self._sxy_before[rows] + self._sxy[rows]) / np.where(line, sxx, 1.0), 0.0)
        self._slope[rows] = slope
        self.skew_ppm[rows] = np.where(line, -slope / (SECOND_NS + slope) * 1e6, np.nan)
        predicted = self._level[rows] + slope * (x - self._level_at[rows])
        gain = np.where(n < _LINE_WINDOWS, 1.0, np.maximum(1 / n, _WINDOW_GAIN))
        self._level[rows] = predicted + gain * (y - predicted)
        self._level_at[rows] = x


def _running(frames: I64, step: int) -> tuple[I64, I64 | int]:
    """When each packet begins, if the first one does at 0 and all follow each other; and how long they last: one time
    where it is the same for all. In ns, of ``step`` a frame."""
    one = int(frames[0])
    if one and not np.count_nonzero(frames != one):
        return np.arange(0, len(frames) * one * step, one * step), one * step
    lasts = frames * step
    since = lasts.cumsum()
    since -= lasts
    return since, lasts


def _packet_positions(placed: Placement) -> I64:
    """Where each packet begins."""
    first = placed.packet_first
    since = np.cumsum(placed.frames) - placed.frames
    positions: I64 = since + np.repeat(placed.position - since[first[:-1]], np.diff(first))
    return positions


def _window_of(since: I64, rate: I64) -> I64:
    """Numbers of windows, the parts of the first counted as such, by frames since the segment's beginning."""
    window = since // (WINDOW_S * rate)
    part = sum(since >= tenths * rate // 10 for tenths in _EARLY_TENTHS)
    numbers: I64 = np.where(window > 0, window + len(_EARLY_TENTHS), part)
    return numbers
