"""Active speech level by ITU-T P.56, method B, of all streams at once. Floor 4.

The method, with x the samples, f their rate, T = 0.03 s and g = exp(-1 / (f T)):

    p = g p + (1 - g) |x|       q = g q + (1 - g) p       the envelope: two exponential averages, one after the other
    a_j                         samples at which q was at least c_j within the last 200 ms, for c_j = 2^-15 … 2^-1
    A_j = 10 lg(Σx² / a_j)      the level if just those were speech; C_j = 20 lg c_j
    active level                A where A - C = 15.9 dB, between the two j around it; activity = Σx² / n over that level

Over a frame the recursion is linear in |x| and in p and q at its beginning, so a matrix product gives the exact
envelope at 8 instants of each frame of 20 ms (2.5 ms apart); between them it is not looked at. What is at least c_j
within the last 200 ms is the maximum of the last 81 instants: its binary exponent is the j up to which it counts, and a
histogram of exponents holds all a_j.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ._bank import FrameBatch

__all__ = ["ActiveLevel"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_TIME_S: Final = 0.03  # T
_MARGIN_DB: Final = 15.9  # M
_STEPS: Final = 8  # instants a frame
_FRAMES: Final = 10  # of 20 ms: the hangover of 200 ms
_LEVELS: Final = 16  # below 2^-15, and from 2^-15 … 2^-1 on
_CHUNK: Final = 512  # frames at once: they stay in the cache


@lru_cache(maxsize=16)
def _scan(size: int, rate: int) -> tuple[F32, F32]:
    """(size, 9) and (2, 9): what |x| and (p, q) before the frame add to q at each of 8 instants and to p at the end."""
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


class ActiveLevel:
    """``push`` int16 frames of 20 ms; ``levels(rows)`` at any time. Rows are reset when their stream begins."""

    def __init__(self, rows: int) -> None:
        self._envelope = np.zeros((2, 0), np.float32)  # p, q
        self._slot = np.zeros(0, np.int64)  # of the ring of frames
        self._suffix = np.zeros((0, _FRAMES, _STEPS), np.float32)  # maximum from each instant to the frame's end
        self._highest = np.zeros((0, _FRAMES), np.float32)
        self._count = np.zeros((0, _LEVELS), np.float64)  # instants by the exponent of the envelope's recent maximum
        self._energy = np.zeros(0, np.float64)
        self._samples = np.zeros(0, np.float64)
        self._step = np.zeros(0, np.float64)  # samples between two instants
        self._scratch = np.zeros(0, np.float32)
        self.grow(rows)

    def grow(self, rows: int) -> None:
        more = rows - len(self._slot)
        self._envelope = np.concatenate([self._envelope, np.zeros((2, more), np.float32)], axis=1)
        for name in ("_slot", "_suffix", "_highest", "_count", "_energy", "_samples", "_step"):
            old: npt.NDArray[Any] = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros((more, *old.shape[1:]), old.dtype)]))

    def reset(self, row: int) -> None:
        self._envelope[:, row] = 0
        self._suffix[row] = 0
        self._highest[row] = 0
        self._count[row] = 0
        self._energy[row] = self._samples[row] = 0

    def push(self, frames: list[FrameBatch], rate: int) -> None:
        keys: list[I64] = []
        weights: list[npt.NDArray[np.float32]] = []
        for batch in frames:
            keys.append(self._frame(batch, rate))
            weights.append(np.tile(batch.real, _STEPS))
        if keys:
            real = np.concatenate(weights)
            key = np.concatenate(keys)
            whole = bool((real == 1).all())
            lowest = int(key.min()) // _LEVELS
            found = np.bincount(key - lowest * _LEVELS, weights=None if whole else real).astype(np.float64)
            rows = -(-len(found) // _LEVELS)
            padded = np.zeros(rows * _LEVELS)
            padded[: len(found)] = found
            self._count[lowest : lowest + rows] += padded.reshape(rows, _LEVELS)

    def _frame(self, batch: FrameBatch, rate: int) -> I64:
        row, size = batch.row, batch.samples.shape[1]
        k = len(row)
        scan, carry = _scan(size, rate)
        envelope = np.empty((_STEPS + 1, k), np.float32)
        energy = np.empty(k, np.float32)
        if self._scratch.size < _CHUNK * size:
            self._scratch = np.zeros(_CHUNK * size, np.float32)
        for begin in range(0, k, _CHUNK):
            end = min(k, begin + _CHUNK)
            x = self._scratch[: (end - begin) * size].reshape(end - begin, size)
            np.copyto(x, batch.samples[begin:end])
            np.einsum("ij,ij->i", x, x, out=energy[begin:end])
            np.abs(x, out=x)
            np.matmul(scan.T, x.T, out=envelope[:, begin:end])
        envelope += carry.T @ self._envelope[:, row]
        q = envelope[:_STEPS]
        self._envelope[0, row] = envelope[_STEPS]
        self._envelope[1, row] = q[-1]
        self._energy[row] += energy
        self._samples[row] += size * batch.real
        self._step[row] = size / _STEPS
        # the maximum of this instant and the 80 before it: of the frame 10 ago from the same instant on, of 9 whole
        # frames, and of this frame up to the instant
        slot = self._slot.take(row)
        oldest = self._suffix[row, slot].T.copy()
        self._highest[row, slot] = 0
        recent = oldest
        np.maximum(recent, self._highest[row].max(axis=1), out=recent)
        suffix = q.copy()
        for s in range(_STEPS - 2, -1, -1):
            np.maximum(suffix[s], suffix[s + 1], out=suffix[s])
        for s in range(1, _STEPS):
            np.maximum(q[s], q[s - 1], out=q[s])
        np.maximum(recent, q, out=recent)
        self._suffix[row, slot] = suffix.T
        self._highest[row, slot] = suffix[0]
        self._slot[row] = (slot + 1) % _FRAMES
        # 1.0 is 2^-15 of full scale: the exponent says how many thresholds are reached
        level = np.clip((recent.view(np.int32) >> 23) - 126, 0, _LEVELS - 1)
        key: I64 = level + row * _LEVELS
        return key.reshape(-1)

    def levels(self, row: I64) -> tuple[F64, F64]:
        """Active level in dBFS (0 dB: full scale 32,768) and activity 0 … 1; -120 and 0 where there is none."""
        energy, samples = self._energy[row] / 32_768.0**2, self._samples[row]
        active = np.cumsum(self._count[row, :0:-1], axis=1)[:, ::-1] * self._step[row, None]  # a_j, j = 0 … 14
        with np.errstate(divide="ignore", invalid="ignore"):
            a = 10 * np.log10(energy[:, None] / active)
            over = a - 20 * np.log10(2.0) * np.arange(-15, 0) - _MARGIN_DB
            over[active <= 0] = -np.inf
            j = np.argmax(over <= 0, axis=1)  # the first threshold that is too high
            n = np.arange(len(row))
            upper, lower = a[n, np.maximum(j - 1, 0)], a[n, j]
            share = over[n, np.maximum(j - 1, 0)] / (over[n, np.maximum(j - 1, 0)] - over[n, j])
            # when nothing reaches the next threshold, what reached the last one counts
            level = np.where(np.isfinite(over[n, j]), upper + share * (lower - upper), upper)
            mean = 10 * np.log10(energy / samples)
        none = (samples <= 0) | (j == 0) | ~np.isfinite(level)
        level = np.maximum(np.where(none, -120.0, level), -120.0)
        activity = np.where(none, 0.0, np.minimum(10 ** ((np.where(none, 0, mean) - level) / 10), 1.0))
        return level, activity
