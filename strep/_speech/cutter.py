"""Cuts one stream's blocks into frames for a voice detector, and by its verdicts into utterances. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from .._model.blocks import Block
from .._model.exceptions import ConfigurationError
from .._model.samples import mono
from .._model.time import SECOND_NS
from .._model.types import GapCause, Mask
from ..resample import Resampler, polyphase
from .energy import Verdict
from .utterance import Ending, SpeechStarted, SpeechStopped, Utterance

__all__ = ["Heard", "UtteranceCutter", "UtteranceShape"]

Heard = SpeechStarted | SpeechStopped | Utterance

_LONGEST_S: Final = 600.0  # of an utterance: its samples are kept until it is handed out
_CUT_WITHIN: Final = 0.25  # the last share of a long utterance, at most 1 s, in which the quietest place is looked for


@dataclass(frozen=True, slots=True)
class UtteranceShape:
    """How utterances are cut: see :meth:`strep.Stream.utterances`. Raises ConfigurationError."""

    rate: int | None = 16_000
    lead_ms: float = 200
    hang_ms: float = 500
    max_s: float = 30
    dtype: Literal["int16", "float32"] = "int16"

    def __post_init__(self) -> None:
        if self.dtype not in ("int16", "float32"):
            raise ConfigurationError(f"dtype {self.dtype!r}: utterances come as 'int16' or 'float32'")
        if not 0 <= self.lead_ms <= 5000:
            raise ConfigurationError(f"lead_ms {self.lead_ms:g}: choose 0 to 5000")
        if not 60 <= self.hang_ms <= 10_000:
            raise ConfigurationError(f"hang_ms {self.hang_ms:g}: choose 60 to 10000")
        if not 1 <= self.max_s <= _LONGEST_S:
            raise ConfigurationError(f"max_s {self.max_s:g}: choose 1 to {_LONGEST_S:g}")
        if self.rate is not None and self.rate <= 0:
            raise ConfigurationError(f"rate {self.rate}: more than 0, or None for the stream's own")


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Samples that wait, without a hole to the chunk before."""

    position: int
    samples: npt.NDArray[np.int16]
    mask: npt.NDArray[np.uint8] | None
    missed: bool  # thrown away because the consumer was slow

    @property
    def end(self) -> int:
        return self.position + len(self.samples)


class UtteranceCutter:
    """Utterances of one stream.

    For each block: :meth:`frames` gives the frames that it completes, one by one; tell the verdict on each by
    :meth:`step` before you take the next one. At the end of the stream: :meth:`finish`.

    ``rate_in``, ``channels``: of the blocks · ``frame``: samples of a detector's frame at ``rate_in``; ``start`` of
    them in a row begin an utterance, after ``stop`` without speech it is told that it stopped.
    """

    def __init__(
        self, shape: UtteranceShape, *, rate_in: int, channels: int, frame: int, start: int, stop: int
    ) -> None:
        self._shape = shape
        self._rate_in, self._channels = rate_in, channels
        self._rate = shape.rate or rate_in
        up, _, _, middle = polyphase(rate_in, self._rate)
        self._period = rate_in // gcd(rate_in, self._rate)  # a multiple of this has a whole position at `rate`
        self._margin = self._period * (2 + middle // up // self._period) if self._rate != rate_in else 0
        self._size, self._start, self._stop = frame, start, stop
        self._lead = round(shape.lead_ms * rate_in / 1000)
        self._hang = max(1, -(-round(shape.hang_ms * rate_in / 1000) // frame))  # frames
        self._most = round(shape.max_s * rate_in)
        self._chunks: deque[_Chunk] = deque()
        self._waiting: npt.NDArray[np.int16] | None = None  # samples of a frame that is not complete
        self._end: int | None = None  # of what was taken; None: nothing so far
        self._frame_at = 0  # position of the next frame
        self._clock = (0, 0)  # a position, and when that was
        self._stop_at: int | None = None  # SpeechStopped was told with this position
        self._run = 0
        self._talking = False
        self._said = (0, 0)  # positions: of the first sample of speech, and behind the last one so far
        self._from = 0  # of the utterance's first sample
        self._free = 0  # nothing before this belongs to a further utterance
        self._continued = False
        self._levels: deque[float] = deque(maxlen=max(1, int(min(rate_in, _CUT_WITHIN * self._most) // frame)))
        self._left_out = 0  # missed samples that stand in no chunk

    # --- frames -----------------------------------------------------------------------------------------------------

    def frames(self, block: Block) -> Iterator[tuple[npt.NDArray[np.int16], float]]:
        """Frames of one channel (the mean of all), int16 (frame,), each with the share of it that was received."""
        if self._end is None:
            self._end = self._frame_at = self._free = block.position
            self._from = block.position
        gap = block.position - self._end
        if gap > 0:
            yield from self._bridge(gap, block)
        self._clock = (block.position, block.time_ns)
        mask = block.mask if (block.mask != Mask.RECEIVED).any() else None
        yield from self._take(block.samples, mask)

    def _bridge(self, gap: int, block: Block) -> Iterator[tuple[npt.NDArray[np.int16], float]]:
        """Silence in place of a gap, as long as it matters: until an utterance that goes on has ended by it."""
        cause = block.gap.cause if block.gap else GapCause.LOSS
        missed = cause is GapCause.OVERRUN
        silent = cause in (GapCause.SILENCE, GapCause.HOLD)
        value = Mask.SILENCE if silent else Mask.LOST
        assert self._end is not None
        while gap and (self._talking or gap <= self._lead + self._start * self._size):
            count = min(gap, self._frame_at + self._size - self._end)
            gap -= count
            yield from self._take(self._zeros(count), np.full(count, value, np.uint8), missed)
        if gap:
            self._left_out += gap * missed
            self._jump(block.position)

    def _jump(self, position: int) -> None:
        """Go on at a position further on: nobody speaks, and nothing before it is needed."""
        while self._chunks:
            self._leave_out()
        self._waiting = None
        self._end = self._frame_at = self._free = position
        self._run = 0

    def _zeros(self, count: int) -> npt.NDArray[np.int16]:
        return np.zeros((count,) if self._channels == 1 else (count, self._channels), np.int16)

    def _take(
        self, samples: npt.NDArray[np.int16], mask: npt.NDArray[np.uint8] | None, missed: bool = False
    ) -> Iterator[tuple[npt.NDArray[np.int16], float]]:
        assert self._end is not None
        if not len(samples):
            return
        self._chunks.append(_Chunk(self._end, samples, mask, missed))
        self._end += len(samples)
        waiting = mono(samples)
        if self._waiting is not None:
            waiting = np.concatenate([self._waiting, waiting])
        self._waiting = None
        size = self._size
        for begin in range(0, len(waiting) - size + 1, size):
            yield waiting[begin : begin + size], self._share(self._frame_at, self._frame_at + size)
        if rest := len(waiting) % size:
            self._waiting = waiting[-rest:]

    def _share(self, begin: int, end: int) -> float:
        """How much of it was received: 0 to 1."""
        received = end - begin
        for chunk in reversed(self._chunks):
            if chunk.end <= begin:
                break
            if chunk.mask is not None:
                part = chunk.mask[max(0, begin - chunk.position) : max(0, end - chunk.position)]
                received -= int(np.count_nonzero(part != Mask.RECEIVED))
        return received / (end - begin)

    # --- verdicts ---------------------------------------------------------------------------------------------------

    def step(self, verdict: Verdict) -> list[Heard]:
        """The verdict on the frame that was given last; returns what follows from it."""
        at = self._frame_at
        end = self._frame_at = at + self._size
        self._levels.append(verdict.level)
        self._run = self._run + 1 if verdict.surely else 0
        if not self._talking:
            return self._begin(end) if self._run >= self._start else self._forget(end)
        out: list[Heard] = []
        if verdict.enough:
            self._said = (self._said[0], end)
            if self._stop_at is not None:
                self._stop_at = None
                out.append(SpeechStarted(at, self._time(at), resumed=True))
        elif self._stop_at is None and end - self._said[1] >= self._stop * self._size:
            out.append(self._stopped())
        if verdict.mistaken:
            if self._stop_at is None:
                out.append(self._stopped())
            self._close(end)
        elif end - self._said[1] >= self._hang * self._size:
            if self._stop_at is None:
                out.append(self._stopped())
            out += self._complete(min(end, self._said[1] + self._lead), Ending.PAUSE)
        elif end - self._from >= self._most:
            out.append(self._divide(end))
        return out

    def _begin(self, end: int) -> list[Heard]:
        begin = end - self._start * self._size
        self._talking, self._continued, self._stop_at = True, False, None
        self._said = (begin, end)
        self._from = max(begin - self._lead, self._free)
        return [SpeechStarted(begin, self._time(begin))]

    def _stopped(self) -> SpeechStopped:
        self._stop_at = self._said[1]
        return SpeechStopped(self._stop_at, self._time(self._stop_at))

    def _complete(self, end: int, ending: Ending) -> list[Heard]:
        out: list[Heard] = []
        if self._said[1] > self._from:  # otherwise nothing was said since a cut
            out.append(self._cut(end, ending))
        self._close(end)
        return out

    def _close(self, end: int) -> None:
        """No utterance goes on; what stands before ``end`` belongs to none that follows."""
        self._talking, self._free, self._run, self._stop_at = False, end, 0, None

    def _forget(self, end: int) -> list[Heard]:
        """Nobody speaks: keep what the next utterance may need."""
        keep = end - self._lead - self._start * self._size - self._margin - self._period
        while self._chunks and self._chunks[0].end <= keep:
            self._leave_out()
        return []

    def _leave_out(self) -> None:
        """No utterance has what is left of the oldest chunk."""
        chunk = self._chunks.popleft()
        if chunk.missed:
            self._left_out += max(0, chunk.end - max(chunk.position, self._free))

    def _divide(self, end: int) -> Utterance:
        """Cut an utterance that is as long as may be, at the quietest frame of late."""
        levels = list(self._levels)
        cut = end - (len(levels) - levels.index(min(levels))) * self._size
        said = self._said
        self._said = (said[0], min(said[1], cut))
        out = self._cut(cut, Ending.LIMIT)
        self._said = (cut, max(said[1], cut))
        self._from, self._continued = cut, True
        return out

    def finish(self) -> list[Heard]:
        """The stream has ended: what was being said."""
        if not self._talking or self._end is None:
            return []
        out: list[Heard] = [] if self._stop_at is not None else [self._stopped()]
        return out + self._complete(min(self._end, self._said[1] + self._lead), Ending.STREAM)

    # --- utterances -------------------------------------------------------------------------------------------------

    def _time(self, position: int) -> int:
        """When a position was, UTC nanoseconds on the receiver's clock."""
        known, time_ns = self._clock
        return time_ns + (position - known) * SECOND_NS // self._rate_in

    def _cut(self, end: int, ending: Ending) -> Utterance:
        begin = self._from
        first = max(begin - self._margin, self._chunks[0].position)
        first = min(-(-first // self._period) * self._period, begin)
        last = min(end + self._margin, self._chunks[-1].end)
        samples, mask, missed = self._gather(begin, end, first, last)
        here = mask if (mask != Mask.RECEIVED).any() else None
        rate, rate_in = self._rate, self._rate_in
        at, until = -(-begin * rate // rate_in), -(-end * rate // rate_in)
        out = self._resampled(samples, -(-first * rate // rate_in), at, until)
        if here is not None and rate != rate_in:
            nearest = (2 * rate_in * np.arange(at, until) + rate) // (2 * rate) - begin
            here = here[np.clip(nearest, 0, len(here) - 1)]
        counts = np.bincount(here, minlength=4).tolist() if here is not None else [0, 0, 0, 0]
        while self._chunks and self._chunks[0].end <= end - self._margin - self._period:
            self._chunks.popleft()
        missed, self._left_out = missed + self._left_out, 0
        said = tuple(min(max(-(-p * rate // rate_in) - at, 0), until - at) for p in self._said)
        return Utterance(
            out, rate, at, self._time(begin), self._time(end), (said[0], said[1]),
            counts[Mask.LOST], counts[Mask.SILENCE], counts[Mask.CONCEALED], missed * rate // rate_in, here, ending,
            self._continued,
        )  # fmt: skip

    def _gather(
        self, begin: int, end: int, first: int, last: int
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], int]:
        """Samples of [first, last), and of [begin, end) the mask and how many were missed."""
        samples, masks, missed = [], [], 0
        for chunk in self._chunks:
            at = chunk.position
            samples.append(chunk.samples[max(0, first - at) : max(0, last - at)])
            a, b = max(0, begin - at), min(max(0, end - at), len(chunk.samples))
            if b > a:
                masks.append(chunk.mask[a:b] if chunk.mask is not None else np.full(b - a, Mask.RECEIVED, np.uint8))
                missed += chunk.missed * (b - a)
        return np.concatenate(samples), np.concatenate(masks), missed

    def _resampled(self, samples: npt.NDArray[np.int16], first: int, at: int, until: int) -> Any:
        """Samples [at, until) at the utterances' rate, out of those from ``first`` (at that rate) on."""
        values: Any = samples
        if self._shape.dtype == "float32":
            values = samples.astype(np.float32) / np.float32(32_768)
        if self._rate != self._rate_in:
            resampler = Resampler(self._rate_in, self._rate, self._channels, self._shape.dtype)
            values = np.concatenate([resampler.process(values), resampler.flush()])
        return values[at - first : until - first]
