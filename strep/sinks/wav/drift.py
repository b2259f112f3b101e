"""Audio that stays on the receiver's clock although its sender's clock does not. Pure.

A sender whose clock is 200 ppm fast is 0.72 s ahead after an hour; one whose clock stood still during a pause is 30 s
early at once. The corrector compares, for every 20 ms of position, where samples would be written with where their time
on the receiver's clock (``BlockBatch.time_ns``) wants them:

    error       > 4 ms          frames are put in or left out in silence, at most 5 ms in 20 ms, cross-faded, until the
                                error is below 1 ms; in a gap, as much as it takes
    error       > 6 ms          no silence has come: 20 ms are stretched or shrunk by 0.5 % (by 1 % from 10 ms on),
                                until it is below 4 ms
    too early by > 100 ms       no drift, but something that happened: all that is missing is put in as silence, in the
                                first gap or pause, at the latest after 2 s, at most up to the packet's arrival and 1 s
    too late by > 100 ms        likewise: gaps are closed, and of pauses 15 ms in 20 ms are left out; sound that has had
                                none for 2 s is shrunk by 1 %
    otherwise                   samples pass as they are

With the steps of the time itself (2 ms at 200 ppm) an error is at most 8 ms, and two directions that drift apart are
within 16 ms. A pause is what is 50 dB below full scale, or 26 dB below the loudest since the error was seen. Nothing
else is ever left out.

Which errors are real? What is too early always is: its packets came later, and a listener heard nothing until then.
What is too late is too late only if there was time for it. A sender that plays a file at twice its speed sends 10 s of
audio in 5 s: there is no place for them on the receiver's clock. So when time steps back, and since the step before
(5 s or more of audio) 2 % more audio came than time passed, and 300 ms, the audio stays as it is, until time steps
again or has not done so for 12 s of audio. A queue that empties, or a gap that was too long, is told within one step.

What is corrected depends on positions, and on the arrival of packets behind a gap or a step of the time, where blocks
always begin; not on how they were cut elsewhere. Files do not grow by it past the time their streams were there.
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
_LARGE_MS: Final = 10  # from this error on, sound is stretched twice as much
_FAR_MS: Final = 100  # a larger error is no drift
_PATIENCE_MS: Final = 2000  # so long is waited for a pause to put much silence in
_AHEAD_MS: Final = 1000  # nothing is put in that ends later than this after the arrival of what is behind it
_EDIT_DIVISOR: Final = 4  # a fourth of a silent chunk is put in or left out at most
_FAR_EDIT_QUARTERS: Final = 3  # three fourths are left out at most, when far off
_FADE_DIVISOR: Final = 5  # a fifth of a chunk is cross-faded
_STRETCH_DIVISOR: Final = 200  # when resampling, one frame in so many is put in or left out
_LARGE_STRETCH_DIVISOR: Final = 100
_SILENCE_POWER: Final = 100.0**2  # mean square of int16 samples: 50 dB below full scale
_PAUSE_DIVISOR: Final = 400.0  # or 26 dB below the loudest chunk, when far off
_PACE_DIVISOR: Final = 50  # audio that comes faster by more than a 50th
_PACE_SLACK_MS: Final = 300  # and this, which may be a queue, is not sent in real time
_PACE_MS: Final = 5000  # of audio at least, between two looks at it
_STEADY_MS: Final = 12_000  # of audio without a step, longer than a window of the clock: it is in real time again
_WINDOW_S: Final = 10  # of the clock: between two steps of the time
_NEVER: Final = 1 << 62  # a position
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
        self._aim, self._begin, self._urgent, self._large, self._far = (
            rate * ms // 1000 for ms in (_AIM_MS, _BEGIN_MS, _URGENT_MS, _LARGE_MS, _FAR_MS)
        )
        self._patience, self._ahead = (rate * ms // 1000 for ms in (_PATIENCE_MS, _AHEAD_MS))
        self._pace = _Pace(rate)
        self._next: int | None = None  # position that goes on without a gap
        self._wanted = 0  # what the time would have been added to positions
        self._target = 0  # what of it is believed
        self._ramp = _Ramp(rate)
        self._ramped = 0  # what of the target is its doing
        self._turn = _NEVER  # position where the target changes next, or what is believed of it
        self._active = False
        self._hurry = False
        self._credit = 0
        self._far_from: int | None = None  # since when, or the last pause, the error has been too large for drift
        self._loudest = 0.0  # mean square of a chunk since then
        self._held: I16 | None = None  # the beginning of a chunk

    def process(self, position: int, samples: I16, time_ns: int, arrival_ns: int) -> list[Part]:
        """A block: int16 (n,) or (n, channels) at a position, in order, its ``time_ns``, and when its first packet
        arrived. Returns what is ready: (position to be written at, samples)."""
        offset_ns = time_ns - self._origin_ns - position_ns(position, self._rate)
        wanted = (offset_ns * self._rate + 500_000_000) // 1_000_000_000
        end = position + len(samples)
        if position == self._next and wanted == self._wanted and not self._active and end <= self._turn:
            self._next = end  # as nearly always: nothing has changed
            self._pace.audio += len(samples)
            return [(position + self.inserted - self.dropped, samples)]
        out = _Output()
        gap = 0 if self._next is None else position - self._next
        if gap > 0:
            self._release(out)
        if gap > 0 or wanted != self._wanted or self._next is None:
            arrival = (arrival_ns - self._origin_ns) * self._rate // 1_000_000_000
            self._look(position, wanted, arrival)
            if gap > 0:
                self._close_gap(position, gap)
        self._next = end
        self._pace.audio += len(samples)
        while len(samples):  # a verdict changes where it does, wherever blocks begin
            self._turn = min(self._ramp.next_at, self._pace.steady_at if self._pace.steady_at > position else _NEVER)
            ready = min(self._turn - position, len(samples))
            self._take(position, samples[:ready], out)
            position, samples = position + ready, samples[ready:]
            if position == self._ramp.next_at:
                before, self._ramped = self._ramped, self._ramp.at(position)
                self._target += self._ramped - before
        return out.parts()

    def flush(self) -> list[Part]:
        """What is held back, as it is: at the end of the stream."""
        out = _Output()
        self._release(out)
        return out.parts()

    def _release(self, out: _Output) -> None:
        held, self._held = self._held, None
        if held is not None and self._next is not None:
            out.add(self._next - len(held) + self._shift, held)

    @property
    def _shift(self) -> int:
        return self.inserted - self.dropped

    # --- what is wrong ----------------------------------------------------------------------------------------------

    def _look(self, position: int, wanted: int, arrival: int) -> None:
        """A gap ends, or the time has made a step. ``arrival``: of the packet here, in frames since position 0 was to
        be written."""
        if wanted != self._wanted:
            self._ramp.step(position, wanted)
        self._wanted = wanted
        self._ramped = self._ramp.at(position)
        wanted += self._ramped
        self._pace.look(position, arrival)
        # never later than the packet came, whatever the time says
        self._target = min(wanted, max(self._shift, arrival + self._ahead - position))

    def _judge(self, at: int) -> int:
        """Decide whether to correct, and whether also without silence; returns the error: frames written too late."""
        error = self._shift - self._target
        size = abs(error)
        kept = error > self._far and at < self._pace.steady_at
        self._active = (self._active or size > self._begin) and size > self._aim and not kept
        hurry = self._active and (self._hurry or size > self._urgent) and size > self._begin
        if hurry and not self._hurry:
            self._credit = 0
        self._hurry = hurry
        if not self._active or size <= self._far:
            self._far_from = None
        elif self._far_from is None:
            self._far_from, self._loudest = at, 0.0
        return error

    def _close_gap(self, position: int, gap: int) -> None:
        """Nothing is heard in a gap: it is made as long as it should be."""
        error = self._judge(position)
        if not self._active:
            return
        if error > 0:
            self.dropped += min(error, gap)
        else:
            self.inserted -= error

    # --- what is done about it --------------------------------------------------------------------------------------

    def _take(self, at: int, samples: I16, out: _Output) -> None:
        """Samples that go on without a gap."""
        if self._held is not None:
            begin, rest = at - len(self._held), self._chunk - len(self._held)
            self._held = np.concatenate([self._held, samples[:rest]])
            if len(self._held) < self._chunk:
                return
            chunk, self._held = self._held, None
            self._correct(begin, chunk, out)
            at, samples = at + rest, samples[rest:]
        self._judge(at)
        if not self._active:
            out.add(at + self._shift, samples)
            return
        head = min(-at % self._chunk, len(samples))
        out.add(at + self._shift, samples[:head])
        self._correct(at + head, samples[head:], out)

    def _correct(self, at: int, samples: I16, out: _Output) -> None:
        """Samples from the beginning of a chunk on, while correcting; less than a chunk is held back."""
        size = self._chunk
        count = len(samples) // size
        chunks = samples[: count * size].reshape(count, size, *samples.shape[1:])
        power = np.square(chunks, dtype=np.float64).reshape(count, -1).mean(axis=1) if count else np.zeros(0)
        passed = 0  # samples
        for i, loudness in enumerate(power.tolist()):
            begin = i * size
            error = self._judge(at + begin)
            if not self._active:
                out.add(at + passed + self._shift, samples[passed:])
                return
            quiet = self._is_pause(loudness)
            if self._far_from is not None:
                waits = at + begin - self._far_from < self._patience
                if quiet:
                    self._far_from = at + begin
                elif waits:
                    continue
                if error < 0:
                    middle = begin + size // 2
                    before, behind = samples[passed:middle], samples[middle : begin + size]
                    if not quiet:
                        before, behind = _faded_out(before, size // 4), _faded_in(behind, size // 4)
                    out.add(at + passed + self._shift, before)
                    self.inserted -= error
                    out.add(at + middle + self._shift, behind)
                    passed = begin + size
                    continue
            added = self._edit(error, quiet)
            if not added:
                continue
            out.add(at + passed + self._shift, samples[passed:begin])
            passed = begin + size
            if quiet:
                edited = _edited(chunks[i], added)
            else:
                edited = _stretched(chunks[i], added)
                self.resampled += size
            out.add(at + begin + self._shift, edited)
            self.inserted += max(added, 0)
            self.dropped += max(-added, 0)
        self._judge(at + count * size)
        end = count * size if self._active else len(samples)
        out.add(at + passed + self._shift, samples[passed:end])
        if len(samples) > end:
            self._held = samples[end:]

    def _is_pause(self, loudness: float) -> bool:
        if self._far_from is None:
            return loudness < _SILENCE_POWER
        self._loudest = max(self._loudest, loudness)
        return loudness < max(_SILENCE_POWER, self._loudest / _PAUSE_DIVISOR)

    def _edit(self, error: int, quiet: bool) -> int:
        """By how many frames a chunk is made longer (shorter, below 0)."""
        frames = 0
        if quiet:
            most = self._chunk // _EDIT_DIVISOR * (1 if self._far_from is None else _FAR_EDIT_QUARTERS)
            frames = min(abs(error), most)
        elif self._hurry:
            divisor = _STRETCH_DIVISOR if abs(error) <= self._large else _LARGE_STRETCH_DIVISOR
            self._credit += self._chunk * (_STRETCH_DIVISOR // divisor)
            frames, self._credit = divmod(self._credit, _STRETCH_DIVISOR)
        return -frames if error > 0 else frames


class _Pace:
    """Whether audio comes in real time. All in frames.

    ``audio``      that has come so far
    ``steady_at``  before this position it comes faster than real time
    """

    def __init__(self, rate: int) -> None:
        self.audio = 0
        self.steady_at = 0
        self._slack, self._least, self._steady = (rate * ms // 1000 for ms in (_PACE_SLACK_MS, _PACE_MS, _STEADY_MS))
        self._since: tuple[int, int] | None = None  # an earlier look: audio, arrival

    def look(self, position: int, arrival: int) -> None:
        """A step of the time, or the end of a gap."""
        if self._since is None:
            self._since = self.audio, arrival
        audio, passed = self.audio - self._since[0], arrival - self._since[1]
        fast = audio > passed + passed // _PACE_DIVISOR + self._slack
        self.steady_at = position + self._steady if fast else position
        if audio >= self._least:
            self._since = self.audio, arrival


class _Ramp:
    """What a clock that is far off adds to the time between two steps of it: where they are alike, as much a second.

    All in frames. ``next_at``: the next position where that changes.
    """

    def __init__(self, rate: int) -> None:
        self.next_at = _NEVER
        self._second = rate
        self._small, self._most = (rate * ms // 1000 for ms in (_BEGIN_MS, _FAR_MS))
        self._base = 0  # position of the last step
        self._wanted = 0
        self._last = 0  # by how much it was
        self._rise = 0  # a window

    def step(self, position: int, wanted: int) -> None:
        """The time has made a step; a window of the clock begins."""
        rise = wanted - self._wanted
        regular = abs(position - self._base - _WINDOW_S * self._second) <= self._second
        again = regular and abs(rise - self._last) <= self._small < abs(rise) <= self._most
        self._rise = rise if again else 0
        self._base, self._wanted, self._last = position, wanted, rise

    def at(self, position: int) -> int:
        """What is to be added here: nothing in the middle of a window."""
        self.next_at = _NEVER
        second = (position - self._base) // self._second
        if not self._rise or second > _WINDOW_S:  # or the next step has not come
            return 0
        self.next_at = self._base + (second + 1) * self._second
        second = min(second, _WINDOW_S - 1)
        return self._rise * (2 * second + 1 - _WINDOW_S) // (2 * _WINDOW_S)


class _Output:
    """Samples in order, those that go on without a gap as one."""

    def __init__(self) -> None:
        self._runs: list[tuple[int, list[I16]]] = []
        self._end = 0

    def add(self, at: int, samples: I16) -> None:
        if not len(samples):
            return
        if self._runs and at == self._end:
            self._runs[-1][1].append(samples)
        else:
            self._runs.append((at, [samples]))
        self._end = at + len(samples)

    def parts(self) -> list[Part]:
        return [(at, run[0] if len(run) == 1 else np.concatenate(run)) for at, run in self._runs]


def _faded_out(samples: I16, frames: int) -> I16:
    return _faded_in(samples[::-1], frames)[::-1]


def _faded_in(samples: I16, frames: int) -> I16:
    """The first frames rise from silence."""
    rise = ((np.arange(frames) + 0.5) / frames).reshape(-1, *(1,) * (samples.ndim - 1))
    return np.concatenate([np.rint(samples[:frames] * rise).astype(np.int16), samples[frames:]])


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
