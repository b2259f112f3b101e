"""Blocks of any size in, frames of one size out: resampled, with position, RTP timestamp and gaps. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Generic, Literal

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError
from .._model.samples import pcm_bytes
from .._model.types import Gap, GapCause, Mask
from ..resample import Resampler
from .frame_size import frame_size
from .pieces import Mark, Marks, Pieces

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # checkers know it; in typing it has no default before Python 3.13
else:
    from typing import TypeVar

__all__ = ["F32", "I16", "Frame", "Framer"]

I16 = npt.NDArray[np.int16]
F32 = npt.NDArray[np.float32]
Samples = I16 | F32

_SCALE: Final = np.float32(1 / 32_768)  # of int16 samples, to [-1, 1)

if TYPE_CHECKING:
    S = TypeVar("S", I16, F32, Samples, default=Samples, covariant=True)
    from dataclasses import dataclass as _read_only
else:
    S = TypeVar("S")

    def _read_only(frozen, slots):
        # read-only for type checkers alone: to be it at run time takes three times as long to make
        return dataclass(slots=slots, eq=False)


@_read_only(frozen=True, slots=True)
class Frame(Generic[S]):
    """``n`` samples in a row of one stream.

    ``samples``        int16, or float32 in [-1, 1): shape (n,), for more than one channel (n, channels)
    ``position``       of the first sample, in samples at the frame's rate from the stream's beginning
    ``rtp_timestamp``  of the first sample
    ``arrival_ns``     UTC nanoseconds: when the packet came that the first sample was in (the latest before a gap)
    ``gap``            samples of this frame (and of frames left out before it, in a long gap) that never came, and the
                       cause of the first of them; they are zero. None: everything is here
    ``missed``         samples that were there, but were thrown away since the last frame: the consumer was slow
    ``padding``        zeros behind the end of the stream, in its last frame
    ``mask``           uint8 (n,), a :class:`strep.Mask` for each sample (of the nearest one before resampling); None:
                       all RECEIVED
    """

    samples: S
    position: int
    rtp_timestamp: int
    arrival_ns: int
    gap: Gap | None
    missed: int = 0
    padding: int = 0
    mask: npt.NDArray[np.uint8] | None = None

    @property
    def pcm(self) -> bytes:
        """The samples as 16-bit little-endian bytes (channels interleaved), as voice frameworks want them."""
        return pcm_bytes(self.samples)


@dataclass(slots=True)
class _Hole:
    begin: int
    end: int
    cause: GapCause


@dataclass(frozen=True, slots=True)
class _Span:
    """Input frames that were not received."""

    begin: int
    end: int
    mask: int


class Framer:
    """Cuts one stream into frames of ``ms`` milliseconds or ``n`` samples at ``rate``, one every ``hop`` samples.

    The frames do not depend on how the blocks were cut. Gaps up to 1 s (or a frame, if that is longer) are filled with
    zeros. In longer gaps whole frames are left out: ``position`` jumps, and ``gap`` says by how much.
    """

    def __init__(
        self,
        *,
        ms: float | None = None,
        n: int | None = None,
        hop: int | None = None,
        rate_in: int,
        clock_rate: int,
        rate: int | None = None,
        dtype: Literal["int16", "float32"] = "int16",
        channels: int = 1,
    ) -> None:
        if dtype not in ("int16", "float32"):
            raise ConfigurationError(f"dtype {dtype!r}: frames come as 'int16' or 'float32'")
        self.rate = rate or rate_in
        self.frame_size = frame_size(ms, n, self.rate)
        self.hop = self.frame_size if hop is None else hop
        if not 1 <= self.hop <= self.frame_size:
            raise ConfigurationError(f"hop {hop} with frames of {self.frame_size} samples: choose 1 to that many")
        self._stale = 0  # pending samples that have been in a frame before
        self._rate_in = rate_in
        self._clock = clock_rate
        self._dtype = dtype
        self._float = dtype == "float32"
        self.channels = channels
        self._resampler = Resampler(rate_in, self.rate, channels=channels, dtype=dtype)
        self._pending: list[Samples] = []
        self._pending_size = 0
        self._next_in = 0  # next input frame to go into the resampler
        self._position = 0  # of the next frame
        self._marks: deque[Mark] = deque()
        self._mark: Mark = (0, 0, 0)
        self._holes: deque[_Hole] = deque()
        self._spans: deque[_Span] = deque()
        self._left_out = 0
        self._missed = 0
        self._begun = False
        # the resampler passes on what it gets, and frames do not overlap
        self._plain = self.rate == rate_in and self.hop == self.frame_size
        self._at_rest = self._plain  # and nothing waits, so that a block may be a frame as it stands
        self._long = max(rate_in, -(-self.frame_size * rate_in // self.rate))  # gaps longer than this are jumped over

    def miss(self, frames: int) -> None:
        """``frames`` before the next block were thrown away: its gap includes them."""
        self._missed += frames * self.rate // self._rate_in
        self._at_rest = False

    def push(
        self,
        samples: npt.NDArray[np.int16],
        position: int,
        cause: GapCause,
        marks: Marks,
        mask: npt.NDArray[np.uint8] | None = None,
    ) -> list[Frame]:
        """Take a block at ``position`` (input frames); what lies between it and the block before is a gap.

        ``marks``: per packet, (position, rtp_timestamp, arrival_ns). ``mask``: a value for each of ``samples``; None:
        all were received. Returns the frames that are complete.
        """
        out: list[Frame] = []
        if not self._begun:
            # a consumer that begins in mid-stream has no gap before that
            self._begun = True
            self._next_in = position
            self._position = -(-position * self.rate // self._rate_in)
        gap = position - self._next_in
        if gap > 0:
            self._holes.append(_Hole(self._next_in, position, cause))
            silent = cause in (GapCause.SILENCE, GapCause.HOLD)
            self._spans.append(_Span(self._next_in, position, Mask.SILENCE if silent else Mask.LOST))
            if gap > self._long:
                out += self._jump(position)
            else:
                self._feed(np.zeros((gap,) if self.channels == 1 else (gap, self.channels), np.int16))
            self._next_in = position
        if mask is not None:
            cuts = [0, *(np.flatnonzero(mask[1:] != mask[:-1]) + 1).tolist(), len(mask)]
            spans = (_Span(position + a, position + b, int(mask[a])) for a, b in pairwise(cuts))
            self._spans.extend(span for span in spans if span.mask != Mask.RECEIVED)
        self._marks.extend(marks)
        self._feed(samples)
        self._next_in += len(samples)
        out += self._cut()
        self._at_rest = self._plain and not (
            self._pending_size or self._holes or self._missed or self._marks or self._left_out or self._spans
        )
        return out

    def whole(self, pieces: Pieces, i: int, masked: bool) -> Frame | None:
        """Take a block that is a frame as it stands: the usual case, which pays for a way of its own at 50,000 a
        second. None, and nothing was taken: it is to be pushed. ``masked``: what was made up is to be told."""
        if not self._at_rest:
            return None
        size = self.frame_size
        position, frames, packets, begin, end, timestamp, arrival_ns = pieces.rows[i]
        if position != self._next_in or frames != size or packets != 1 or (masked and pieces.made_up(i)):
            return None
        samples: Samples = pieces.samples[begin:end]
        if self.channels > 1:
            samples = samples.reshape(-1, self.channels)
        if self._float:
            samples = np.multiply(samples, _SCALE, dtype=np.float32)
        self._begun = True
        self._mark = (position, timestamp, arrival_ns)
        at = self._position
        self._position = at + size
        self._next_in = position + size
        return Frame(samples, at, timestamp, arrival_ns, None)

    def finish(self) -> list[Frame]:
        """The rest: complete frames and the last one, padded."""
        self._append(self._resampler.flush())
        out = self._cut()
        if self._pending_size > self._stale:
            padding = self.frame_size - self._pending_size
            self._append(self._zeros(padding))
            out += self._cut(padding)
        return out

    def _zeros(self, count: int) -> Samples:
        return np.zeros((count,) if self.channels == 1 else (count, self.channels), self._dtype)

    def _feed(self, samples: npt.NDArray[np.int16]) -> None:
        if self._float:
            self._append(self._resampler.process(np.multiply(samples, _SCALE, dtype=np.float32)))
        else:
            self._append(self._resampler.process(samples))

    def _append(self, samples: Any) -> None:
        if len(samples):
            self._pending.append(samples)
            self._pending_size += len(samples)

    def _jump(self, position: int) -> list[Frame]:
        """Leave out the whole frames inside a long gap and begin again at a frame boundary before ``position``."""
        self._append(self._resampler.flush())
        out = self._cut()
        size, hop = self.frame_size, self.hop
        if self._pending_size > self._stale:
            self._append(self._zeros(size - self._pending_size))
            out += self._cut()
        # first frame that holds samples from `position` on
        target = -(-position * self.rate // self._rate_in)
        begin = max(self._position, target // hop * hop)
        self._left_out += max(0, begin - self._position - self._stale)
        self._position = begin
        self._pending, self._pending_size, self._stale = [], 0, 0
        self._resampler.reset()
        self._append(self._zeros(target - begin))
        return out

    def _cut(self, padding: int = 0) -> list[Frame]:
        if self._pending_size < self.frame_size:
            return []
        samples: Any = self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending)
        size, hop = self.frame_size, self.hop
        whole = (len(samples) - size) // hop + 1
        out = [self._frame(samples[i * hop : i * hop + size], padding) for i in range(whole)]
        rest = samples[whole * hop :]
        self._stale = size - hop
        self._pending = [rest.copy()] if len(rest) else []
        self._pending_size = len(rest)
        return out

    def _mask_of(self, padding: int) -> npt.NDArray[np.uint8] | None:
        """The mask of the next frame; None: all RECEIVED."""
        size, rate = self.frame_size, self.rate
        nearest = (2 * self._rate_in * np.arange(self._position, self._position + size) + rate) // (2 * rate)
        mask = np.full(size, Mask.RECEIVED, np.uint8)
        for span in self._spans:
            if span.begin > nearest[-1]:
                break
            begin, end = nearest.searchsorted((span.begin, span.end)).tolist()
            mask[begin:end] = span.mask
        after = nearest[self.hop] if self.hop < size else nearest[-1]  # frames that overlap see a span again
        while self._spans and self._spans[0].end <= after:
            self._spans.popleft()
        mask[size - padding :] = Mask.LOST
        return None if (mask == Mask.RECEIVED).all() else mask

    def _frame(self, samples: Samples, padding: int) -> Frame:
        begin = self._position * self._rate_in // self.rate
        end = (self._position + self.frame_size) * self._rate_in // self.rate
        while self._marks and self._marks[0][0] <= begin:
            self._mark = self._marks.popleft()
        marked, timestamp, arrival_ns = self._mark
        if not arrival_ns and self._marks:
            marked, timestamp, arrival_ns = self._marks[0]
        gap, cause = self._left_out, GapCause.NONE
        for hole in self._holes:
            if hole.begin >= end:
                break
            inside = min(end, hole.end) - max(begin, hole.begin)
            if inside > 0 or self._left_out:
                cause = cause or hole.cause
            gap += max(0, inside) * self.rate // self._rate_in
        after = (self._position + self.hop) * self._rate_in // self.rate
        while self._holes and self._holes[0].end <= min(end, after):
            self._holes.popleft()
        frame = Frame(
            samples,
            self._position,
            (timestamp + (begin - marked) * self._clock // self._rate_in) & 0xFFFF_FFFF,
            arrival_ns,
            Gap(gap, cause) if gap else None,
            self._missed,
            padding,
            self._mask_of(padding) if self._spans or padding else None,
        )
        self._left_out = self._missed = 0
        self._position += self.hop
        return frame
