"""Frames of one size of all streams at once, as dense matrices: cut, resampled, mixed to mono.

Frames stand on a grid: frame k of a stream covers positions k · hop to k · hop + size at ``rate``. A gap that nobody
filled ends a frame: zeros stand behind its last sample, so ``real`` < 1. The next frame begins on the grid at or before
the first sample behind the gap, with zeros before that sample.

The parts: :mod:`.dense` lays blocks out as tables, :mod:`.row_resampler` brings them to ``rate``, :mod:`.frame_cutter`
cuts frames, :mod:`.missing_samples` counts what was not received.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..._model.exceptions import ConfigurationError
from ..._model.time import position_ns
from .assignments import Assignments
from .columns import Columns, column
from .dense import Unreceived, dense_table, length_groups, mono_samples, unreceived_runs
from .frame_batch import FrameBatch
from .frame_cutter import FrameCutter, Piece
from .missing_samples import MissingSamples
from .mono_batch import MonoBatch
from .row_resampler import RowResampler

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.types import StreamInfo
    from ..exclusion import StreamExclusion

__all__ = ["FrameBank"]

I64 = npt.NDArray[np.int64]
Any2D = npt.NDArray[Any]

_FIRST_ROWS: Final = 64


class _Inputs(Columns):
    """What is known of each row's stream. Positions are in its own sample frames."""

    next: I64 = column(np.int64, -1)  # where its next block continues; -1: none came
    rate: I64 = column(np.int64)  # its sample rate, Hz
    up: I64 = column(np.int64, 1)  # the bank's rate / its own rate, as a fraction in lowest terms
    down: I64 = column(np.int64, 1)
    origin_ns: I64 = column(np.int64)  # the time of position 0
    info: npt.NDArray[np.object_] = column(np.object_, None)


class FrameBank:
    """Cuts BlockBatches into frames of ``size`` samples, every ``hop`` (None: ``size``) samples, at ``rate`` Hz.

    :meth:`push` returns frames in time order for each stream. What comes out does not depend on how the audio was cut
    into batches (float32: up to rounding when it is resampled). Call :meth:`reset` when a stream begins in a row, and
    :meth:`flush` when it has ended. Not thread-safe.

    ``apart``: frames of blocks of different lengths come in batches of their own, which lie side by side in memory
    (:mod:`.window_runs`); otherwise as many as possible come together.

    When a push raises, nothing has changed. With ``aside`` a push does not raise for a stream's sake: the stream that
    made it raise is set aside, and its row is as new.

    Raises ConfigurationError if size, hop, rate or dtype make no sense.
    """

    def __init__(
        self,
        size: int,
        hop: int | None = None,
        rate: int = 8000,
        dtype: Literal["float32", "int16"] = "float32",
        aside: StreamExclusion | None = None,
        *,
        apart: bool = False,
    ) -> None:
        hop = size if hop is None else hop
        if size < 1 or not 1 <= hop <= size:
            raise ConfigurationError(f"frames of {size} samples every {hop}: size is at least 1, hop 1 to size")
        if rate < 1:
            raise ConfigurationError(f"rate {rate}: choose a positive one, like 8000 or 16000")
        if dtype not in ("int16", "float32"):
            raise ConfigurationError(f"dtype {dtype!r}: 'int16' or 'float32'")
        self.size, self.hop, self.rate = size, hop, rate
        self.dtype = np.dtype(dtype)
        self._aside = aside
        self._apart = apart
        self._inputs = _Inputs()
        self._cutter = FrameCutter(size, hop, self.dtype)
        self._missing = MissingSamples(size, hop, self._cutter.waiting)
        self._resamplers: dict[int, RowResampler] = {}  # by the input's rate
        self._make_room(_FIRST_ROWS - 1)

    def _make_room(self, row: int) -> None:
        if self._inputs.make_room(row):
            rows = self._inputs.rows
            self._cutter.waiting.grow(rows)
            self._missing.grow(rows)
            for resampler in self._resamplers.values():
                resampler.grow(rows)

    def reset(self, row: int) -> None:
        """Forget what waits in a row: another stream begins there."""
        if row < self._inputs.rows:
            self._inputs.reset(row)
            self._cutter.waiting.reset(row)
            self._missing.reset(row)

    def flush(self, row: int) -> list[FrameBatch]:
        """The rest of a stream that has ended, padded with zeros; then the row is as new."""
        if row >= self._inputs.rows or self._inputs.next[row] < 0:
            return []
        out = self._finish(np.array([row], np.int64))
        self.reset(row)
        return out

    def push(self, batch: BlockBatch, blocks: I64 | None = None) -> list[FrameBatch]:
        """Take a batch; returns the frames that are complete now, each FrameBatch with at most one frame a row.

        ``blocks``: indices of the blocks that are meant, in order; None: all.
        """
        row = batch.index if blocks is None else batch.index[blocks]
        if not len(row):
            return []
        self._make_room(int(row.max()))
        out: list[FrameBatch] = []
        self._push(batch, blocks, out)
        return out

    # --- without the streams that make it raise ---------------------------------------------------------------------

    def _push(self, batch: BlockBatch, blocks: I64 | None, out: list[FrameBatch]) -> None:
        try:
            samples, offset = mono_samples(batch)
            unreceived = unreceived_runs(batch)
        except Exception as error:
            if self._aside is None or batch.error is not None:
                raise
            batch = batch if blocks is None else batch.take(blocks)
            starts = batch.starts()
            if len(starts) <= 2:
                self._give_up(batch.streams[0], error)
                return
            middle = starts[len(starts) // 2]
            self._push(batch.take(np.arange(middle)), None, out)
            self._push(batch.take(np.arange(middle, len(batch))), None, out)
            return
        mono = MonoBatch.of(batch, samples, offset[:-1], unreceived, self._continuing(batch))
        row, frames = mono.row, mono.frames
        if blocks is not None:
            blocks = blocks if mono.part is None else np.unique(mono.part[blocks])
            row, frames = row[blocks], frames[blocks]
        if int(frames.min()) > 0 and bool((row[1:] != row[:-1]).all()):
            self._try_round(mono, blocks, out)
            return
        # several blocks of a stream: first all first ones, then all second ones
        order = np.arange(len(row))
        starts_stream = np.r_[True, row[1:] != row[:-1]]
        rank = order - np.maximum.accumulate(np.where(starts_stream, order, 0))
        for number in range(int(rank.max()) + 1):
            chosen = np.flatnonzero((rank == number) & (frames > 0))
            if chosen.size and self._aside is not None and self._aside.fresh:
                of = chosen if blocks is None else blocks[chosen]
                chosen = chosen[[mono.streams[i] not in self._aside for i in of.tolist()]]
            if chosen.size:
                self._try_round(mono, chosen if blocks is None else blocks[chosen], out)

    def _continuing(self, batch: BlockBatch) -> npt.NDArray[np.bool_]:
        """Which blocks go on where the one before them ends, bool (m,): on the same timeline and clock."""
        row = batch.index
        goes_on = np.zeros(len(row), np.bool_)
        goes_on[1:] = (row[1:] == row[:-1]) & (batch.position[1:] == batch.position[:-1] + batch.frames[:-1])
        if goes_on.any():
            at = np.flatnonzero(goes_on)
            rate = self._inputs.rate.take(row[at])
            for i in np.flatnonzero(rate == 0).tolist():
                rate[i] = batch.streams[int(at[i])].sample_rate or self.rate
            one = int(rate[0]) if bool((rate == rate[0]).all()) else rate
            apart = position_ns(batch.position[at], one) - position_ns(batch.position[at - 1], one)
            goes_on[at] = batch.time_ns[at] - batch.time_ns[at - 1] == apart
        return goes_on

    def _try_round(self, mono: MonoBatch, blocks: I64 | None, out: list[FrameBatch]) -> None:
        """One round without the streams that make it raise."""
        try:
            out += self._round(mono, blocks)
        except Exception as error:
            if self._aside is None:
                raise
            blocks = np.arange(len(mono.row)) if blocks is None else blocks
            if len(blocks) == 1:
                self._give_up(mono.streams[int(blocks[0])], error)
                return
            middle = len(blocks) // 2
            for part in (blocks[:middle], blocks[middle:]):
                self._try_round(mono, part, out)

    def _give_up(self, stream: StreamInfo, error: Exception) -> None:
        if self._aside is not None:
            self._aside.put(stream, error)
        self.reset(stream.index)

    # --- a round: one block a stream at most ------------------------------------------------------------------------

    def _round(self, mono: MonoBatch, blocks: I64 | None) -> list[FrameBatch]:
        """Take blocks of different streams (None: all of the batch). What raises has changed nothing."""
        row, position = mono.row, mono.position
        if blocks is not None:
            row, position = row[blocks], position[blocks]
        broken = np.flatnonzero(self._inputs.next.take(row) != position)
        if not broken.size:
            return self._continue(mono, blocks)
        at = broken if blocks is None else blocks[broken]
        rows = row[broken]
        saved = self._save(rows)
        try:
            out = self._break(rows, position[broken], [mono.streams[i] for i in at.tolist()])
            return out + self._continue(mono, blocks)
        except Exception:
            self._restore(rows, saved)
            raise

    def _continue(self, mono: MonoBatch, blocks: I64 | None) -> list[FrameBatch]:
        """Take blocks that continue where the last ones of their streams ended."""
        inputs = self._inputs
        row, position, n, time_ns, start = mono.row, mono.position, mono.frames, mono.time_ns, mono.start
        if blocks is not None:
            row, position, n, time_ns, start = (a[blocks] for a in (row, position, n, time_ns, start))
        rate_in = inputs.rate.take(row)
        one_rate = bool((rate_in == rate_in[0]).all())
        origin_ns = time_ns - position_ns(position, int(rate_in[0]) if one_rate else rate_in)
        writes = Assignments()
        writes.add(inputs.next, row, position + n)
        writes.add(inputs.origin_ns, row, origin_ns)
        pieces: list[list[Piece]] = []
        whole = int(n[0]) if bool((n == n[0]).all()) else 0
        for rate in [int(rate_in[0])] if one_rate else np.unique(rate_in).tolist():
            of_rate = None if one_rate else np.flatnonzero(rate_in == rate)
            for chosen, width in length_groups(n, of_rate, whole):
                if chosen is None:
                    dense, rows, valid = dense_table(mono.samples, start, width), row, n
                else:
                    dense, rows, valid = dense_table(mono.samples, start[chosen], width), row[chosen], n[chosen]
                if rate != self.rate:
                    dense, valid = self._resamplers[rate].process(dense, rows, valid, writes)
                mine: list[list[Piece]] = [] if self._apart else pieces
                self._cutter.cut(self._in_scale(dense), rows, valid, chosen, mine, writes)
                if self._apart:
                    pieces += mine
        if mono.unreceived is not None:
            self._count_missing(mono, blocks, mono.unreceived)
        writes.make()
        return [self._emit(same, mono.streams, blocks) for same in pieces]

    def _in_scale(self, dense: Any2D) -> Any2D:
        """In the scale of int16, and of that type if frames are."""
        if self.dtype == np.float32 or dense.dtype == np.int16:
            return dense
        return np.clip(np.rint(dense), -32_768, 32_767).astype(np.int16)

    def _count_missing(self, mono: MonoBatch, blocks: I64 | None, unreceived: Unreceived) -> None:
        block, begin, end = unreceived
        if blocks is not None:
            mine = np.isin(block, blocks)
            block, begin, end = block[mine], begin[mine], end[mine]
        row = mono.row[block]
        position = mono.position[block]
        up, down = self._inputs.up.take(row), self._inputs.down.take(row)
        self._missing.add(row, -(-(position + begin) * up // down), -(-(position + end) * up // down))

    def _emit(self, pieces: list[Piece], infos: Sequence[StreamInfo], blocks: I64 | None) -> FrameBatch:
        """The j-th frames of all rows as one FrameBatch."""
        table, left = None, 0
        if len(pieces) == 1:
            (piece,) = pieces
            row, position, samples, pick = piece.row, piece.position, piece.samples, piece.pick
            table, left = piece.table, piece.left
        else:
            row = np.concatenate([p.row for p in pieces])
            position = np.concatenate([p.position for p in pieces])
            samples = np.concatenate([p.samples for p in pieces])
            pick = np.concatenate([np.arange(len(p.row)) if p.pick is None else p.pick for p in pieces])
        if blocks is not None:
            pick = blocks if pick is None else blocks[pick]
        return FrameBatch(
            row,
            position,
            samples,
            self._missing.take_real(row, position),
            rate=self.rate,
            origin_ns=self._inputs.origin_ns.take(row),
            infos=infos,
            pick=pick,
            table=table,
            left=left,
        )

    # --- gaps and ends ----------------------------------------------------------------------------------------------

    def _break(self, row: I64, position: I64, streams: list[StreamInfo]) -> list[FrameBatch]:
        """Blocks begin here that do not continue where the last one of their stream ended."""
        inputs = self._inputs
        begun = inputs.next.take(row) >= 0
        out = self._finish(row[begun]) if begun.any() else []
        for i in np.flatnonzero(~begun).tolist():
            self._learn(int(row[i]), streams[i])
        up, down = inputs.up.take(row), inputs.down.take(row)
        before = position % down  # the filter starts in phase: zeros before the first sample
        begin = self._cutter.start(row, position // down * up)
        rate_in = inputs.rate.take(row)
        for rate, resampler in self._resamplers.items():
            some = rate_in == rate
            resampler.start(row[some], before[some])
        self._missing.add(row, begin, -(-position * up // down))
        return out

    def _learn(self, row: int, stream: StreamInfo) -> None:
        rate = stream.sample_rate or self.rate
        divisor = gcd(rate, self.rate)
        inputs = self._inputs
        inputs.info[row] = stream
        inputs.rate[row] = rate
        inputs.up[row], inputs.down[row] = self.rate // divisor, rate // divisor
        if rate != self.rate and rate not in self._resamplers:
            self._resamplers[rate] = RowResampler(rate, self.rate, inputs.rows)

    def _finish(self, row: I64) -> list[FrameBatch]:
        """End what waits: the filter's tail, then a frame padded with zeros where one has begun."""
        inputs, waiting = self._inputs, self._cutter.waiting
        pieces: list[list[Piece]] = []
        rate_in = inputs.rate.take(row)
        end = -(-inputs.next.take(row) * inputs.up.take(row) // inputs.down.take(row))
        for rate, resampler in self._resamplers.items():
            some = np.flatnonzero(rate_in == rate)
            if not some.size:
                continue
            mine = row[some]
            zeros = np.zeros((len(mine), resampler.tail), np.int16)
            writes = Assignments()
            dense, n = resampler.process(zeros, mine, np.full(len(mine), resampler.tail), writes)
            n = np.minimum(n, end[some] - waiting.begin.take(mine) - waiting.fill.take(mine))
            self._cutter.cut(self._in_scale(dense), mine, n, some, pieces, writes)
            writes.make()
        infos: list[StreamInfo] = inputs.info[row].tolist()
        out = [self._emit(same, infos, None) for same in pieces]
        rest = self._cutter.finish(row)
        if rest is not None:
            here = rest.position + waiting.fill.take(rest.row)
            self._missing.add(rest.row, here, rest.position + self.size)
            out.append(self._emit([rest], infos, None))
        self._missing.reset(row)
        return out

    # --- going back -------------------------------------------------------------------------------------------------

    def _save(self, row: I64) -> _SavedRows:
        return _SavedRows(
            self._inputs.save(row),
            self._cutter.waiting.save(row),
            self._missing.save(row),
            {rate: resampler.save(row) for rate, resampler in self._resamplers.items()},
        )

    def _restore(self, row: I64, saved: _SavedRows) -> None:
        self._inputs.restore(row, saved.inputs)
        self._cutter.waiting.restore(row, saved.waiting)
        self._missing.restore(row, saved.missing)
        for rate, inputs in saved.resamplers.items():
            self._resamplers[rate].restore(row, inputs)


@dataclass(frozen=True, slots=True)
class _SavedRows:
    """All that a bank knows of some rows."""

    inputs: dict[str, npt.NDArray[Any]]
    waiting: dict[str, npt.NDArray[Any]]
    missing: npt.NDArray[np.int32]
    resamplers: dict[int, dict[str, npt.NDArray[Any]]]  # by the input's rate
