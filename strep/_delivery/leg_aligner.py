"""Both directions of a call leg as one: frames (2, n) on the receiver's clock. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Generic, Literal

import numpy as np
import numpy.typing as npt

from .._model.blocks import Block
from .._model.exceptions import ConfigurationError
from .._model.samples import mono
from .._model.time import SECOND_NS
from .._model.types import Direction, GapCause, Mask
from ..resample import Resampler
from .frame_size import frame_size
from .framer import S

__all__ = ["LegAligner", "LegFrame"]

_SLIP_S: Final = 0.002  # a direction is put anew when the clock says that it is so far off
_LONG_S: Final = 1.0  # silence of both sides beyond this is left out


@dataclass(frozen=True, slots=True)
class LegFrame(Generic[S]):
    """What both sides of a call leg sent in the same time.

    ``samples``   int16, or float32 in [-1, 1): shape (2, n); row 0 is inbound, row 1 outbound (``strep.Direction``).
                  What never came is zero
    ``mask``      uint8 (2, n): a :class:`strep.Mask` for each sample. A direction that has not come yet is LOST
    ``position``  of the first sample, in samples at the frame's rate from the leg's first sample
    ``time_ns``   when that was, UTC nanoseconds on the receiver's clock
    ``left_out``  samples before this frame in which neither side sent anything, left out because they are many
    """

    samples: S
    mask: npt.NDArray[np.uint8]
    position: int
    time_ns: int
    left_out: int = 0


@dataclass(slots=True)
class _Piece:
    begin: int
    samples: Any

    @property
    def end(self) -> int:
        return self.begin + len(self.samples)


class _Lane:
    """One direction: samples that wait, at their places on the leg's timeline (samples at ``rate``, from any zero)."""

    def __init__(self, rate: int, dtype: Literal["int16", "float32"]) -> None:
        self._rate, self._dtype = rate, dtype
        self._rate_in = 0
        self._resampler: Resampler | None = None
        self._pieces: deque[_Piece] = deque()
        self._spans: deque[tuple[int, int, int]] = deque()  # begin, end, Mask: what is not just as it was received
        self.next = 0  # place of the next sample that comes out of the resampler
        self._run = (0, 0)  # where the present run began: its place, and the position on its stream's timeline
        self._position = 0  # of the next sample that goes in
        self._floor = 0  # nothing is put before this: there is something already
        self.begun = False
        self.live = False  # more may come
        self.late = 0

    @property
    def first(self) -> int | None:
        """The place of the first sample that waits."""
        return self._pieces[0].begin if self._pieces else None

    def restart(self) -> None:
        """Another stream goes on in this direction."""
        self.flush()
        self._resampler = None

    def push(self, block: Block, at: int) -> None:
        """``at``: where the receiver's clock puts the block's first sample."""
        rate_in = block.stream.sample_rate
        if self._resampler is None or rate_in != self._rate_in:
            self.flush()
            self._rate_in = rate_in
            self._resampler = Resampler(rate_in, self._rate, dtype=self._dtype)
            self._put(at, block.position)
        else:
            place = self._place(block.position)
            if abs(place - at) > _SLIP_S * self._rate:
                place = at
            if block.position != self._position or place != self._place(self._position):
                self._step(place, block)
        self._feed(block)
        self.begun = True

    def _place(self, position: int) -> int:
        """Where a position of the present run belongs."""
        place, begin = self._run
        return place + (position - begin) * self._rate // self._rate_in

    def _put(self, place: int, position: int) -> None:
        self._floor = self.next if self.begun else place
        self._run = (place, position)
        self._position = position
        self.next = place

    def _step(self, place: int, block: Block) -> None:
        """Go on at another place than the next one."""
        before = self._place(self._position)
        self.flush()
        silent = block.gap is not None and block.gap.cause in (GapCause.SILENCE, GapCause.HOLD)
        if place > before and silent:
            self._spans.append((before, place, Mask.SILENCE))
        self._put(place, block.position)

    def _feed(self, block: Block) -> None:
        samples: Any = mono(block.samples)
        if (block.mask != Mask.RECEIVED).any():
            mask = block.mask
            edges = [0, *(np.flatnonzero(mask[1:] != mask[:-1]) + 1).tolist(), len(mask)]
            for a, b in pairwise(edges):
                begin, end = (self._place(self._position + edge) for edge in (a, b))
                self._spans.append((begin, end, int(mask[a])))
        if self._dtype == "float32":
            samples = samples.astype(np.float32) / np.float32(32_768)
        assert self._resampler is not None
        self._keep(self._resampler.process(samples))
        self._position += len(samples)

    def _keep(self, samples: Any) -> None:
        begin, self.next = self.next, self.next + len(samples)
        if self._floor > begin:
            samples = samples[self._floor - begin :]
            begin = self._floor
        if len(samples):
            self._pieces.append(_Piece(begin, samples))

    def flush(self) -> None:
        """What the resampler still holds."""
        if self._resampler is not None:
            self._keep(self._resampler.flush())

    def drop_before(self, place: int) -> None:
        """Leave out what comes too late."""
        while self._pieces and self._pieces[0].begin < place:
            piece = self._pieces.popleft()
            self.late += min(piece.end, place) - piece.begin
            if piece.end > place:
                self._pieces.appendleft(_Piece(place, piece.samples[place - piece.begin :]))

    def take(self, begin: int, samples: Any, mask: npt.NDArray[np.uint8]) -> None:
        """Put what waits of [begin, begin + n) into ``samples`` and ``mask``, both (n,)."""
        end = begin + len(samples)
        while self._pieces and self._pieces[0].begin < end:
            piece = self._pieces.popleft()
            a, b = max(piece.begin, begin), min(piece.end, end)
            samples[a - begin : b - begin] = piece.samples[a - piece.begin : b - piece.begin]
            mask[a - begin : b - begin] = Mask.RECEIVED
            if piece.end > end:
                self._pieces.appendleft(_Piece(end, piece.samples[end - piece.begin :]))
                break
        for a, b, value in self._spans:
            if a >= end:
                break
            mask[max(a, begin) - begin : max(0, b - begin)] = value
        while self._spans and self._spans[0][1] <= end:
            self._spans.popleft()


class LegAligner:
    """Frames of ``n`` samples of both directions at ``rate`` Hz (None: that of the block that comes first).

    A direction is waited for until the other is ``wait_ms`` further; what comes later than that is left out and counted
    in :attr:`late`. Each is put on the receiver's clock, and again when it has drifted from it by 2 ms: its samples are
    not stretched. Raises ConfigurationError for a frame that is no whole number of samples.
    """

    def __init__(
        self,
        *,
        ms: float | None = None,
        n: int | None = None,
        rate: int,
        dtype: Literal["int16", "float32"] = "int16",
        wait_ms: float = 100.0,
    ) -> None:
        if dtype not in ("int16", "float32"):
            raise ConfigurationError(f"dtype {dtype!r}: frames come as 'int16' or 'float32'")
        if not 0 <= wait_ms <= 5000:
            raise ConfigurationError(f"wait_ms {wait_ms:g}: choose 0 to 5000")
        self.rate = rate
        self.frame_size = frame_size(ms, n, rate)
        self._dtype = dtype
        self._wait = round(wait_ms * rate / 1000)
        self._lanes = (_Lane(rate, dtype), _Lane(rate, dtype))
        self._base_ns = 0
        self._origin: int | None = None  # place of position 0
        self._at = 0  # place of the next frame
        self._left_out = 0

    @property
    def late(self) -> int:
        """Samples that came when their frame had been given out: they are in none."""
        return sum(lane.late for lane in self._lanes)

    def push(self, direction: Direction, block: Block) -> list[LegFrame[Any]]:
        """A block of one direction; returns the frames that are complete."""
        lane = self._lanes[direction]
        if not self._base_ns:
            self._base_ns = block.time_ns
        if lane.begun and not lane.live:
            lane.restart()
        lane.live = True
        at = round((block.time_ns - self._base_ns) * self.rate / SECOND_NS)
        lane.push(block, at)
        return self._frames()

    def end(self, direction: Direction) -> list[LegFrame[Any]]:
        """The stream of that direction has ended."""
        lane = self._lanes[direction]
        lane.flush()
        lane.live = False
        return self._frames()

    def _frames(self) -> list[LegFrame[Any]]:
        out: list[LegFrame[Any]] = []
        lanes = self._lanes
        while True:
            furthest = max((lane.next for lane in lanes if lane.begun), default=None)
            firsts = [first for lane in lanes if (first := lane.first) is not None]
            if furthest is None or not firsts:
                return out
            first = min(firsts)
            at = first if self._origin is None else self._at
            end = at + self.frame_size
            over = not any(lane.live for lane in lanes)
            complete = all(lane.begun and (lane.next >= end or not lane.live) for lane in lanes)
            if not over and not (complete and furthest >= end) and furthest < end + self._wait:
                return out
            if self._origin is None:
                self._origin = self._at = first
            for lane in lanes:
                lane.drop_before(self._at)
            if not any(lane.first is not None for lane in lanes):
                continue
            if not self._leave_out():
                out.append(self._frame())

    def _leave_out(self) -> bool:
        """Skip whole frames of a long time in which nothing came; whether there was one."""
        first = min(first for lane in self._lanes if (first := lane.first) is not None)
        if first - self._at < _LONG_S * self.rate:
            return False
        count = (first - self._at) // self.frame_size * self.frame_size
        self._at += count
        self._left_out += count
        return True

    def _frame(self) -> LegFrame[Any]:
        assert self._origin is not None
        at, n = self._at, self.frame_size
        samples: Any = np.zeros((2, n), self._dtype)
        mask = np.full((2, n), Mask.LOST, np.uint8)
        for row, lane in enumerate(self._lanes):
            lane.take(at, samples[row], mask[row])
        frame: LegFrame[Any] = LegFrame(
            samples, mask, at - self._origin, self._base_ns + at * SECOND_NS // self.rate, self._left_out
        )
        self._at, self._left_out = at + n, 0
        return frame
