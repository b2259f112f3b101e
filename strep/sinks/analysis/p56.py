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

from ..aside import SetAside
from .columns import rows_of
from .frame_batch import FrameBatch, runs_of

__all__ = ["ActiveLevel", "Envelope"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_TIME_S: Final = 0.03  # T
_MARGIN_DB: Final = 15.9  # M
_STEPS: Final = 4  # instants a frame
_FRAMES: Final = 10  # of 20 ms: the hangover of 200 ms
_LEVELS: Final = 16  # below 2^-15, and from 2^-15 … 2^-1 on
_CHUNK: Final = 80_000  # samples at once: they stay in the cache


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
    """What frames side by side in a table add to the envelope: for who goes through the samples anyway."""

    def __init__(self, table: npt.NDArray[Any], rate: int, size: int) -> None:
        self.table = table
        self.size = size
        self._scan, _ = _scan(size, rate)
        self.values = np.empty((table.size // size, _STEPS + 1), np.float32)

    @classmethod
    def of(cls, table: npt.NDArray[Any], rate: int) -> Envelope | None:
        """None where rows are no whole frames of 20 ms."""
        size = rate // 50
        return cls(table, rate, size) if rate % 50 == 0 and table.shape[1] % size == 0 else None

    def add(self, magnitude: F32, begin: int) -> None:
        """|x| of rows from ``begin`` on."""
        frames = magnitude.reshape(-1, self.size)
        at = begin * (self.table.shape[1] // self.size)
        np.matmul(frames, self._scan, out=self.values[at : at + len(frames)])

    def covers(self, samples: npt.NDArray[Any]) -> bool:
        """Whether these are the table's samples, in its order."""
        table = self.table
        return samples.shape == table.shape and samples.__array_interface__ == table.__array_interface__


class ActiveLevel:
    """``push`` int16 frames of 20 ms; ``levels`` at any time. Rows are reset when their stream begins."""

    def __init__(self, rows: int) -> None:
        self._envelope = np.zeros((2, 0), np.float32)  # p, q
        # time is cut into spans of 200 ms: the last 41 instants are the end of one and the beginning of the next
        self._slot = np.zeros(0, np.int64)  # of the frame in its span
        self._span = np.zeros((0, _FRAMES, _STEPS), np.float32)  # q in the present span
        self._tail = np.zeros((0, _FRAMES, _STEPS), np.float32)  # of the span before: maximum to its end
        self._head = np.zeros(0, np.float32)  # maximum of the present span so far
        self._count = np.zeros((0, _LEVELS), np.float64)  # instants by the exponent of the envelope's recent maximum
        self._scratch = np.zeros(0, np.float32)
        self.grow(rows)

    def grow(self, rows: int) -> None:
        more = rows - len(self._slot)
        self._envelope = np.concatenate([self._envelope, np.zeros((2, more), np.float32)], axis=1)
        for name in ("_slot", "_span", "_tail", "_head", "_count"):
            old: npt.NDArray[Any] = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros((more, *old.shape[1:]), old.dtype)]))

    def reset(self, row: int) -> None:
        self._envelope[:, row] = 0
        self._slot[row] = 0
        self._tail[row] = 0
        self._head[row] = 0
        self._count[row] = 0

    def push(self, frames: list[FrameBatch], rate: int, aside: SetAside, ready: Envelope | None = None) -> None:
        keys: list[tuple[npt.NDArray[np.int32], F32]] = []
        for run, samples in runs_of(frames):
            try:
                envelopes = list(self._measure(run, samples, rate, ready))
            except Exception:  # one by one, then
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
        self._count[:whole] += found[: whole * _LEVELS].reshape(whole, _LEVELS)
        if rest:
            self._count[whole, :rest] += found[whole * _LEVELS :]

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
        step = max(1, _CHUNK // width)
        if self._scratch.size < step * width:
            self._scratch = np.zeros(step * width, np.float32)
        for begin in range(0, k, step):
            part = np.abs(samples[begin : begin + step]).view(np.uint16)  # |-32,768| is 32,768
            x = self._scratch[: part.size].reshape(part.shape)
            np.copyto(x, part)
            envelope.add(x, begin)

    def _frame(self, batch: FrameBatch, envelope: F32, rate: int) -> npt.NDArray[np.int32]:
        row = batch.row
        rows = rows_of(row)
        _, carry = _scan(batch.samples.shape[1], rate)
        envelope += carry.T @ self._envelope[:, rows]
        q = envelope[:_STEPS]
        self._envelope[0, rows] = envelope[_STEPS]
        self._envelope[1, rows] = q[-1]
        slot = self._slot[rows].copy()
        self._span[row, slot] = q.T
        np.maximum(q[0], self._head[rows], out=q[0])
        for s in range(1, _STEPS):
            np.maximum(q[s], q[s - 1], out=q[s])
        self._head[rows] = q[-1]
        recent = np.ascontiguousarray(self._tail[row, slot].T)
        np.maximum(recent, q, out=recent)
        slot += 1
        full = slot == _FRAMES
        if full.any():
            slot[full] = 0
            over = row[full]
            backwards = self._span[over].reshape(len(over), -1)[:, ::-1]
            tail = np.maximum.accumulate(backwards, axis=1)[:, ::-1]
            self._tail[over] = tail.reshape(-1, _FRAMES, _STEPS)
            self._head[over] = 0
        self._slot[rows] = slot
        # 1.0 is 2^-15 of full scale: the exponent says how many thresholds are reached
        level = recent.view(np.int32)
        level >>= 23
        level -= 126
        np.clip(level, 0, _LEVELS - 1, out=level)
        level += row.astype(np.int32) * np.int32(_LEVELS)
        return level.reshape(-1)

    def levels(self, row: I64, mean: F64) -> tuple[F64, F64]:
        """Active level in dBFS (0 dB: full scale) and activity 0 … 1 of rows whose mean square is ``mean`` (of full
        scale); -120 and 0 where there is none."""
        count = self._count[row]
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
            level = np.maximum(np.where(none, -120.0, level), -120.0)
            activity = np.where(none, 0.0, np.minimum(mean / 10 ** (level / 10), 1.0))
        return level, activity
