"""Active speech level by ITU-T P.56, method B, of all streams at once.

The method, with x the samples, f their rate, T = 0.03 s and g = exp(-1 / (f T)):

    p = g p + (1 - g) |x|       q = g q + (1 - g) p       the envelope: two exponential averages, one after the other
    a_j                         samples at which q was at least c_j within the last 200 ms, for c_j = 2^-15 … 2^-1
    A_j = 10 lg(Σx² / a_j)      the level if just those were speech; C_j = 20 lg c_j
    active level                A where A - C = 15.9 dB, between the two j around it; activity = Σx² / n over that level

Over a frame the recursion is linear in |x| and in p and q at its beginning, so a matrix product gives the exact
envelope at 4 instants of each frame of 20 ms (5 ms apart); between them it is not looked at. What is at least c_j
within the last 200 ms is the maximum of the last 41 instants: its binary exponent is the j up to which it counts, and a
histogram of exponents holds all a_j.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..exclusion import StreamExclusion
from .columns import Columns, column, rows_of
from .frame_batch import FrameBatch, runs_of

__all__ = ["ActiveLevel", "Envelope"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_TIME_S: Final = 0.03  # T
_MARGIN_DB: Final = 15.9  # M
_STEPS: Final = 4  # instants in a frame
_SPAN_FRAMES: Final = 10  # frames of 20 ms in a span: the hangover of 200 ms
_LEVELS: Final = 16  # below 2^-15, and from 2^-15 … 2^-1 on
_CACHE_SAMPLES: Final = 80_000  # gone through at once: they stay in the processor's cache
_NO_LEVEL_DBFS: Final = -120.0


@lru_cache(maxsize=16)
def _scan(size: int, rate: int) -> tuple[F32, F32]:
    """(size, 5) and (2, 5): what |x| and (p, q) before the frame add to q at each of 4 instants and to p at the end."""
    g = float(np.exp(-1 / (rate * _TIME_S)))
    at = [round(size * (s + 1) / _STEPS) - 1 for s in range(_STEPS)]
    # p_n = Σ (1-g) g^(n-i) |x_i| + g^(n+1) p ;  q_n = Σ (1-g)² (n-i+1) g^(n-i) |x_i| + (1-g)(n+1) g^(n+1) p + g^(n+1) q
    i = np.arange(size)
    samples = np.zeros((size, _STEPS + 1))
    before = np.zeros((2, _STEPS + 1))
    for s, n in enumerate(at):
        here = i <= n
        samples[here, s] = (1 - g) ** 2 * (n - i[here] + 1) * g ** (n - i[here])
        before[:, s] = (1 - g) * (n + 1) * g ** (n + 1), g ** (n + 1)
    samples[:, _STEPS] = (1 - g) * g ** (size - 1 - i)
    before[0, _STEPS] = g**size
    return np.ascontiguousarray(samples, np.float32), before.astype(np.float32)


class Envelope:
    """What the frames of a table add to the envelope, worked out along the way by who goes through the samples anyway.

    ``table``: samples (k, width), a whole number of frames of ``size`` samples in each row. ``values``: float32
    (frames, 5), valid where :meth:`add` has been.
    """

    def __init__(self, table: npt.NDArray[Any], rate: int, size: int) -> None:
        self.table = table
        self.size = size
        self._scan, _ = _scan(size, rate)
        self.values = np.empty((table.size // size, _STEPS + 1), np.float32)

    @classmethod
    def of(cls, table: npt.NDArray[Any], rate: int) -> Envelope | None:
        """None if rows are no whole frames of 20 ms."""
        size = rate // 50
        return cls(table, rate, size) if rate % 50 == 0 and table.shape[1] % size == 0 else None

    def add(self, magnitude: F32, begin: int) -> None:
        """Take |x| of some rows of the table, from row ``begin`` on."""
        frames = magnitude.reshape(-1, self.size)
        at = begin * (self.table.shape[1] // self.size)
        np.matmul(frames, self._scan, out=self.values[at : at + len(frames)])

    def covers(self, samples: npt.NDArray[Any]) -> bool:
        """Whether these are the table's samples, in its order, in rows of any length."""
        table = self.table
        return (
            samples.size == table.size
            and samples.dtype == table.dtype
            and samples.flags.c_contiguous
            and samples.__array_interface__["data"] == table.__array_interface__["data"]
        )


class _EnvelopeState(Columns):
    """The envelope of each row. Time is cut into spans of 200 ms: the last 41 instants are the end of one span and the
    beginning of the next. Values are magnitudes of int16 samples."""

    envelope: F32 = column(np.float32, shape=(2,), rows_last=True)  # p, q
    slot: I64 = column(np.int64)  # of the present frame in its span
    span: F32 = column(np.float32, shape=(_SPAN_FRAMES, _STEPS))  # q in the present span
    tail: F32 = column(np.float32, shape=(_SPAN_FRAMES, _STEPS))  # of the span before: the maximum to its end
    head: F32 = column(np.float32)  # the maximum of the present span so far
    count: F64 = column(np.float64, shape=(_LEVELS,))  # instants, by the exponent of the envelope's recent maximum


class ActiveLevel:
    """The active level of all rows: :meth:`push` int16 frames of 20 ms, ask for :meth:`levels` at any time. Rows are
    reset when their stream begins."""

    def __init__(self, rows: int) -> None:
        self._state = _EnvelopeState(rows)
        self._scratch = np.zeros(0, np.float32)

    def grow(self, rows: int) -> None:
        self._state.grow(rows)

    def reset(self, row: int) -> None:
        self._state.reset(row)

    def push(self, frames: list[FrameBatch], rate: int, aside: StreamExclusion, ready: Envelope | None = None) -> None:
        keys: list[tuple[npt.NDArray[np.int32], F32]] = []
        for run, samples in runs_of(frames):
            try:
                envelopes = list(self._measure(run, samples, rate, ready))
            except Exception:  # then one batch by itself after the other
                for batch in run:
                    keys += aside.frames(batch, lambda part: self._alone(part, rate))
                continue
            for batch, envelope in zip(run, envelopes, strict=True):
                try:
                    keys.append((self._frame(batch, envelope, rate), batch.real))
                except Exception:
                    keys += aside.frames(batch, lambda part: self._alone(part, rate))
        if not keys:
            return
        weights = None
        if any(bool((real < 1).any()) for _, real in keys):
            weights = np.concatenate([np.tile(real, _STEPS) for _, real in keys])
        found = np.bincount(np.concatenate([key for key, _ in keys]), weights=weights)
        whole, rest = divmod(len(found), _LEVELS)
        count = self._state.count
        count[:whole] += found[: whole * _LEVELS].reshape(whole, _LEVELS)
        if rest:
            count[whole, :rest] += found[whole * _LEVELS :]

    def _alone(self, batch: FrameBatch, rate: int) -> tuple[npt.NDArray[np.int32], F32]:
        (envelope,) = self._measure([batch], batch.samples, rate, None)
        return self._frame(batch, envelope, rate), batch.real

    def _measure(
        self, run: Sequence[FrameBatch], samples: npt.NDArray[Any], rate: int, ready: Envelope | None
    ) -> Iterator[F32]:
        """What |x| adds to the envelope, (5, k), of each batch of a run."""
        if ready is None or not ready.covers(samples):
            ready = Envelope(samples, rate, run[0].samples.shape[1])
            self._go_through(ready)
        for n in range(len(run)):
            yield np.ascontiguousarray(ready.values[n :: len(run)].T)

    def _go_through(self, envelope: Envelope) -> None:
        samples = envelope.table
        k, width = samples.shape
        step = max(1, _CACHE_SAMPLES // width)
        if self._scratch.size < step * width:
            self._scratch = np.zeros(step * width, np.float32)
        for begin in range(0, k, step):
            part = np.abs(samples[begin : begin + step]).view(np.uint16)  # |-32,768| is 32,768
            x = self._scratch[: part.size].reshape(part.shape)
            np.copyto(x, part)
            envelope.add(x, begin)

    def _frame(self, batch: FrameBatch, envelope: F32, rate: int) -> npt.NDArray[np.int32]:
        row, state = batch.row, self._state
        rows = rows_of(row)
        _, carry = _scan(batch.samples.shape[1], rate)
        envelope += carry.T @ state.envelope[:, rows]
        q = envelope[:_STEPS]
        state.envelope[0, rows] = envelope[_STEPS]
        state.envelope[1, rows] = q[-1]
        slot = state.slot[rows].copy()
        state.span[row, slot] = q.T
        np.maximum(q[0], state.head[rows], out=q[0])
        for s in range(1, _STEPS):
            np.maximum(q[s], q[s - 1], out=q[s])
        state.head[rows] = q[-1]
        recent = np.ascontiguousarray(state.tail[row, slot].T)
        np.maximum(recent, q, out=recent)
        slot += 1
        full = slot == _SPAN_FRAMES
        if full.any():
            slot[full] = 0
            over = row[full]
            backwards = state.span[over].reshape(len(over), -1)[:, ::-1]
            tail = np.maximum.accumulate(backwards, axis=1)[:, ::-1]
            state.tail[over] = tail.reshape(-1, _SPAN_FRAMES, _STEPS)
            state.head[over] = 0
        state.slot[rows] = slot
        # 1.0 is 2^-15 of full scale: the exponent says how many thresholds are reached
        level = recent.view(np.int32)
        level >>= 23
        level -= 126
        np.clip(level, 0, _LEVELS - 1, out=level)
        level += row.astype(np.int32) * np.int32(_LEVELS)
        return level.reshape(-1)

    def levels(self, row: I64, mean: F64) -> tuple[F64, F64]:
        """The active level in dBFS (0 dB: full scale) and the activity, 0 … 1, of rows: float64 (n,) each; -120 and 0
        where there is no speech. ``mean``: float64 (n,), the rows' mean square; full scale is 1."""
        count = self._state.count[row]
        active = np.cumsum(count[:, :0:-1], axis=1)[:, ::-1]  # a_j, j = 0 … 14, in instants
        n = np.arange(len(row))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = active / count.sum(axis=1)[:, None]
            a = 10 * np.log10(mean)[:, None] - 10 * np.log10(share)
            over = a - 20 * np.log10(2.0) * np.arange(-15, 0) - _MARGIN_DB
            over[~(active > 0)] = -np.inf
            j = np.argmax(over <= 0, axis=1)  # the first threshold that is too high
            upper, lower = a[n, j - 1], a[n, j]
            between = over[n, j - 1] / (over[n, j - 1] - over[n, j])
            # when nothing reaches the next threshold, what reached the last one counts
            level = np.where(np.isfinite(over[n, j]), upper + between * (lower - upper), upper)
            none = (j == 0) | ~np.isfinite(level)
            level = np.maximum(np.where(none, _NO_LEVEL_DBFS, level), _NO_LEVEL_DBFS)
            activity = np.where(none, 0.0, np.minimum(mean / 10 ** (level / 10), 1.0))
        return level, activity
