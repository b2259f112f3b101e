"""Audio that stays on the receiver's clock although its sender's clock does not. Pure.

A sender whose clock is 200 ppm fast is 0.72 s ahead after an hour. The corrector compares, for every 20 ms of position,
where samples would be written with where their time on the receiver's clock (``BlockBatch.time_ns``) wants them:

    error       > 4 ms          frames are put in or left out in silence, at most 5 ms in 20 ms, cross-faded, until the
                                error is below 1 ms; in a gap, as much as it takes
    error       > 6 ms          no silence has come: 20 ms are stretched or shrunk by 0.5 %, until it is below 4 ms
    otherwise                   samples pass as they are

With the steps of the time itself (2 ms at 200 ppm) an error is at most 8 ms, and two directions that drift apart are
within 16 ms. What is corrected depends on positions alone, not on how blocks were cut. More than a second off is not
drift (a sender that plays a file at twice its speed, say): such audio is left as it is. And whatever the times say: no
gap grows past the arrival time of the packet behind it plus 1 s.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.time import position_ns

__all__ = ["DriftCorrector"]

I16 = npt.NDArray[np.int16]

_CHUNK_MS: Final = 20  # corrections are made a chunk at a time
_BEGIN_MS: Final = 4  # from this error on, it is corrected
_URGENT_MS: Final = 6  # from this error on, also where there is no silence
_AIM_MS: Final = 1  # until the error is below this
_NO_DRIFT_MS: Final = 1000  # a larger error is no drift; nor does a gap grow past the next arrival by more
_EDIT_DIVISOR: Final = 4  # a fourth of a silent chunk is put in or left out at most
_FADE_DIVISOR: Final = 5  # a fifth of a chunk is cross-faded
_STRETCH_DIVISOR: Final = 200  # when resampling, one frame in so many is put in or left out
_SILENCE_POWER: Final = 100.0**2  # mean square of int16 samples: 50 dB below full scale
_TAPS: Final = 32  # of the resampling filter
_BETA: Final = 6.0  # of its Kaiser window

Part = tuple[int, I16]  # the position to write at, and the samples


class DriftCorrector:
    """One stream. ``origin_ns``: the time on the receiver's clock that position 0 is written at.

    Positions that come out are those that went in, plus ``inserted - dropped`` (frames, so far). ``resampled`` counts
    the frames that went through the resampler; what that added or took away is among the former.
    """

    def __init__(self, rate: int, origin_ns: int) -> None:
        self.inserted = 0
        self.dropped = 0
        self.resampled = 0
        self._rate = rate
        self._origin_ns = origin_ns
        self._chunk = max(rate * _CHUNK_MS // 1000, _TAPS)
        self._aim, self._begin, self._urgent, self._most = (
            rate * ms // 1000 for ms in (_AIM_MS, _BEGIN_MS, _URGENT_MS, _NO_DRIFT_MS)
        )
        self._next: int | None = None  # position that goes on without a gap
        self._active = False
        self._hurry = False
        self._credit = 0
        self._held: I16 | None = None  # the beginning of a chunk
        self._held_wanted = 0

    def process(self, position: int, samples: I16, time_ns: int, arrival_ns: int) -> list[Part]:
        """A block: int16 (n,) or (n, channels) at a position, in order, its ``time_ns``, and when its first packet
        arrived. Returns what is ready: (position to be written at, samples)."""
        offset_ns = time_ns - self._origin_ns - position_ns(position, self._rate)
        wanted = (offset_ns * self._rate + 500_000_000) // 1_000_000_000
        before: list[Part] = []
        if self._next is not None and position > self._next:
            before = self.flush()
            there = (arrival_ns - self._origin_ns) * self._rate // 1_000_000_000 + self._most
            self._close_gap(position - self._next, wanted, max(0, there - position - self._shift))
        self._next = position + len(samples)
        at = position
        parts: list[I16] = []
        out_at = at + self._shift
        if self._held is not None:
            out_at -= len(self._held)
            rest = self._chunk - len(self._held)
            self._held = np.concatenate([self._held, samples[:rest]])
            if len(self._held) < self._chunk:
                return before
            at, samples = at + rest, samples[rest:]
            chunk, self._held = self._held, None
            self._correct(chunk, self._held_wanted, parts)
        self._judge(wanted)
        if self._active:
            head = min(-at % self._chunk, len(samples))
            parts.append(samples[:head])
            self._correct(samples[head:], wanted, parts)
        else:
            parts.append(samples)
        out = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return [*before, (out_at, out)] if len(out) else before

    def flush(self) -> list[Part]:
        """What is held back, as it is: at the end of the stream."""
        held, self._held = self._held, None
        if held is None or self._next is None:
            return []
        return [(self._next - len(held) + self._shift, held)]

    @property
    def _shift(self) -> int:
        return self.inserted - self.dropped

    def _judge(self, wanted: int) -> int:
        """Decide whether to correct, and whether also without silence; returns the error: frames written too late."""
        error = self._shift - wanted
        size = abs(error)
        self._active = (self._active or size > self._begin) and self._aim < size <= self._most
        hurry = self._active and (self._hurry or size > self._urgent) and size > self._begin
        if hurry and not self._hurry:
            self._credit = 0
        self._hurry = hurry
        return error

    def _close_gap(self, gap: int, wanted: int, room: int) -> None:
        """Nothing is heard in a gap: it is made as long as it should be, by ``room`` frames more at most."""
        error = self._shift - wanted
        if abs(error) <= self._begin and not self._active:
            return
        if error > 0:
            self.dropped += min(error, gap)
        else:
            self.inserted += min(-error, room)

    def _correct(self, samples: I16, wanted: int, parts: list[I16]) -> None:
        """Samples from the beginning of a chunk on, while correcting; less than a chunk is held back."""
        size = self._chunk
        count = len(samples) // size
        chunks = samples[: count * size].reshape(count, size, *samples.shape[1:])
        power = np.square(chunks, dtype=np.float64).reshape(count, -1).mean(axis=1) if count else np.zeros(0)
        silent = (power < _SILENCE_POWER).tolist()
        passed = 0
        for i in range(count):
            error = self._judge(wanted)
            if not self._active:
                parts.append(samples[passed * size :])
                return
            frames = 0
            if silent[i]:
                frames = min(abs(error), size // _EDIT_DIVISOR)
            elif self._hurry:
                self._credit += size
                frames, self._credit = divmod(self._credit, _STRETCH_DIVISOR)
            if not frames:
                continue
            parts.append(samples[passed * size : i * size])
            passed = i + 1
            added = -frames if error > 0 else frames
            if silent[i]:
                parts.append(_edited(chunks[i], added))
            else:
                parts.append(_stretched(chunks[i], added))
                self.resampled += size
            self.inserted += max(added, 0)
            self.dropped += max(-added, 0)
        self._judge(wanted)
        if not self._active:
            parts.append(samples[passed * size :])
            return
        parts.append(samples[passed * size : count * size])
        if len(samples) > count * size:
            self._held, self._held_wanted = samples[count * size :], wanted


def _edited(chunk: I16, added: int) -> I16:
    """Frames more (or less, below 0) in the middle, where the one part fades into the other."""
    size = len(chunk)
    fade = size // _FADE_DIVISOR
    end = (size + added + fade) // 2  # of the first part; the second begins ``added`` before it
    rise = ((np.arange(fade) + 0.5) / fade).reshape(-1, *(1,) * (chunk.ndim - 1))
    first, second = chunk[end - fade : end], chunk[end - fade - added : end - added]
    mixed = np.rint(first * (1 - rise) + second * rise).astype(np.int16)
    return np.concatenate([chunk[: end - fade], mixed, chunk[end - added :]])


def _stretched(chunk: I16, added: int) -> I16:
    """The chunk stretched by ``added`` frames (shrunk, below 0); its beginning and its end stay."""
    index, weight = _taps(len(chunk), added)
    weight = weight.reshape(*weight.shape, *(1,) * (chunk.ndim - 1))
    out: I16 = np.clip(np.rint((chunk[index] * weight).sum(axis=1)), -32_768, 32_767).astype(np.int16)
    return out


@lru_cache(maxsize=64)
def _taps(size: int, added: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Of each frame out the frames in and their weights: a sinc under a Kaiser window.

    At a chunk's ends frames stand (nearly) where they stood, so what lies beyond the ends has no weight to speak of.
    """
    at = np.arange(size + added) * size / (size + added)
    index = np.floor(at).astype(np.int64)[:, None] + np.arange(1 - _TAPS // 2, 1 + _TAPS // 2)
    distance = at[:, None] - index
    beside = np.sqrt(np.maximum(1 - (2 * distance / _TAPS) ** 2, 0.0))
    weight = np.sinc(distance) * np.i0(_BETA * beside)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.clip(index, 0, size - 1), weight
