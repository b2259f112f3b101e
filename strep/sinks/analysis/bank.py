"""Frames of one size of all streams at once, as dense matrices: cut, resampled, mixed to mono.

Frames stand on a grid: frame k of a stream covers positions k·hop to k·hop + size at ``rate``. What is over after a
push waits in one row of a matrix per stream; new samples are laid behind it with one indexed assignment for all
streams, and frames are cut from the result as views. A gap that nobody filled ends a frame (zeros behind it, so
``real`` < 1); the next one begins on the grid at or before the first sample behind the gap, zeros before it.

Resampling is a matrix product over tiles: ``down`` input samples become ``up`` output samples, so a row always
consumes a multiple of ``down`` and all rows are in phase. Filter and alignment are those of :mod:`strep.resample`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from ..._model.exceptions import ConfigurationError
from ..._model.types import Mask, StreamInfo
from ...resample import polyphase

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..exclusion import StreamExclusion

__all__ = ["FrameBank", "FrameBatch", "Rows", "rows_of", "runs_of"]

I64 = npt.NDArray[np.int64]
Any2D = npt.NDArray[Any]

_NEVER: Final = -(1 << 60)
_FEW: Final = 8  # lengths of blocks that are looked at each by itself
_TILE: Final = 32  # input samples that one row of the matrix product takes, at least
_CHUNK: Final = 60_000  # values of tiles at once: they stay in the cache
_SCALE: Final = np.float32(1 / 32_768)


Rows = I64 | slice


def rows_of(row: I64) -> Rows:
    """The same rows as a slice, where they are evenly spaced: columns are then read and written in place."""
    if len(row) < 2:
        return row
    first, step = int(row[0]), int(row[1]) - int(row[0])
    if step <= 0 or int(row[-1]) != first + step * (len(row) - 1) or not bool((row[1:] - row[:-1] == step).all()):
        return row
    return slice(first, int(row[-1]) + 1, step)


class FrameBatch:
    """A frame of each of ``k`` streams, all of different ones.

    ``row`` int64 (k,): StreamInfo.index · ``position`` int64 (k,): of the first sample, at the bank's rate ·
    ``time_ns`` int64 (k,): when that was, on the receiver's clock (BlockBatch.time_ns) · ``samples`` (k, size) float32
    in [-1, 1) or int16, a view: not to be written to · ``real`` float32 (k,): the share of samples that were received
    """

    __slots__ = ("_infos", "_left", "_origin_ns", "_pick", "_rate", "_table", "position", "real", "row", "samples")

    def __init__(
        self,
        row: I64,
        position: I64,
        origin_ns: I64,
        rate: int,
        samples: Any2D,
        real: npt.NDArray[np.float32],
        infos: Sequence[StreamInfo],
        pick: I64 | None,
        table: Any2D | None = None,
        left: int = 0,
    ) -> None:
        self._table = table  # what the samples are columns of, from ``left`` on
        self._left = left
        self.row = row
        self.position = position
        self._origin_ns = origin_ns
        self._rate = rate
        self.samples = samples
        self.real = real
        self._infos = infos
        self._pick = pick  # the frames' streams among infos; None: as they stand

    def __len__(self) -> int:
        return len(self.row)

    def take(self, some: slice | I64) -> FrameBatch:
        """Some of the frames."""
        pick = np.arange(len(self.row))[some] if self._pick is None else self._pick[some]
        return FrameBatch(
            self.row[some], self.position[some], self._origin_ns[some], self._rate, self.samples[some],
            self.real[some], self._infos, pick,
        )  # fmt: skip

    def stream(self, i: int) -> StreamInfo:
        """Whose the i-th frame is."""
        return self._infos[i if self._pick is None else int(self._pick[i])]

    @property
    def time_ns(self) -> I64:
        """When each frame begins, UTC ns, int64 (n,)."""
        return self._origin_ns + _ns(self.position, self._rate)

    @property
    def streams(self) -> list[StreamInfo]:
        """Whose frames they are, in the order of ``row``."""
        if self._pick is None:
            return list(self._infos)
        return [self._infos[i] for i in self._pick.tolist()]


def runs_of(batches: Sequence[FrameBatch]) -> Iterator[tuple[Sequence[FrameBatch], Any2D]]:
    """Batches that are of the same rows and lie side by side in memory, and their samples (k, number * size): who
    goes through them at once reads memory in order."""
    begin = 0
    for end in range(1, len(batches) + 1):
        first, last = batches[begin], batches[end - 1]
        size = first.samples.shape[1]
        if end < len(batches):
            after = batches[end]
            if first._table is not None and after._table is first._table and after._left == last._left + size:
                continue
        run = batches[begin:end]
        if len(run) == 1 or first._table is None:
            yield run, first.samples
        else:
            yield run, first._table[:, first._left : first._left + len(run) * size]
        begin = end


class FrameBank:
    """Cuts BlockBatches into frames of ``size`` samples, every ``hop`` (None: ``size``) samples, at ``rate``.

    :meth:`push` returns frames in time order for each stream; what comes out does not depend on how the audio was cut
    into batches (float32: up to rounding when it is resampled). ``reset(row)`` when a stream begins, ``flush(row)``
    when it has ended. Not thread-safe.

    What a push raises has changed nothing. With ``aside`` it does not raise: the stream that made it is set aside, and
    its row is as new.

    Raises ConfigurationError when size, hop or rate make no sense.
    """

    def __init__(
        self,
        size: int,
        hop: int | None = None,
        rate: int = 8000,
        dtype: Literal["float32", "int16"] = "float32",
        aside: StreamExclusion | None = None,
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
        self._rows = 0
        self._pending: Any2D = np.zeros((0, size), self.dtype)
        self._begin = np.zeros(0, np.int64)  # position of the frame that comes next
        self._fill = np.zeros(0, np.int64)  # its samples that are here; negative: as many are to be left out
        self._covered = np.zeros(0, np.int64)  # what lies before has been in a frame
        self._last = np.zeros(0, np.int64)  # position of the last frame
        self._next = np.zeros(0, np.int64)  # input frames: where the next block continues; -1 none came
        self._rate_in = np.zeros(0, np.int64)
        self._up = np.zeros(0, np.int64)
        self._down = np.zeros(0, np.int64)
        self._origin_ns = np.zeros(0, np.int64)  # time of position 0
        self._info: npt.NDArray[np.object_] = np.zeros(0, np.object_)
        self._lack = np.zeros((0, 8), np.int32)  # samples not received of frame k, in slot k mod slots
        self._lacking = False
        self._rates: dict[int, _Upsampler] = {}
        self._grow(64)

    def _grow(self, rows: int) -> None:
        more = rows - self._rows
        self._pending = _longer(self._pending, more, 0)
        self._begin = _longer(self._begin, more, 0)
        self._fill = _longer(self._fill, more, 0)
        self._covered = _longer(self._covered, more, 0)
        self._last = _longer(self._last, more, _NEVER)
        self._next = _longer(self._next, more, -1)
        self._rate_in = _longer(self._rate_in, more, self.rate)
        self._up = _longer(self._up, more, 1)
        self._down = _longer(self._down, more, 1)
        self._origin_ns = _longer(self._origin_ns, more, 0)
        self._info = _longer(self._info, more, None)
        self._lack = _longer(self._lack, more, 0)
        for resampler in self._rates.values():
            resampler.grow(rows)
        self._rows = rows

    def reset(self, row: int) -> None:
        """Forget what waits in a row: another stream begins there."""
        if row < self._rows:
            self._next[row] = -1
            self._last[row] = _NEVER
            self._fill[row] = 0
            self._info[row] = None
            self._lack[row] = 0

    def flush(self, row: int) -> list[FrameBatch]:
        """The rest of a stream that has ended, padded with zeros; then the row is as new."""
        if row >= self._rows or self._next[row] < 0:
            return []
        out = self._finish(np.array([row], np.int64))
        self.reset(row)
        return out

    def push(self, batch: BlockBatch, blocks: I64 | None = None) -> list[FrameBatch]:
        """Take what became ready; the frames that are complete now, each FrameBatch with one frame a row at most.

        ``blocks``: indices of those that are meant, in order; None: all.
        """
        row, frames = batch.index, batch.frames
        if blocks is not None:
            row, frames = row[blocks], frames[blocks]
        if not len(row):
            return []
        highest = int(row.max())
        if highest >= self._rows:
            self._grow(max(2 * self._rows, highest + 1))
        out: list[FrameBatch] = []
        self._push(batch, blocks, out)
        return out

    def _push(self, batch: BlockBatch, blocks: I64 | None, out: list[FrameBatch]) -> None:
        try:
            samples, offset = _mono(batch)
            lack = _not_received(batch)
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
        row, frames = batch.index, batch.frames
        if blocks is not None:
            row, frames = row[blocks], frames[blocks]
        if int(frames.min()) > 0 and bool((row[1:] != row[:-1]).all()):
            self._try_round(batch, samples, offset, blocks, lack, out)
            return
        # several blocks of a stream: first all first ones, then all second ones
        order = np.arange(len(row))
        starts = np.r_[True, row[1:] != row[:-1]]
        rank = order - np.maximum.accumulate(np.where(starts, order, 0))
        for number in range(int(rank.max()) + 1):
            chosen = np.flatnonzero((rank == number) & (frames > 0))
            if chosen.size and self._aside is not None and self._aside.fresh:
                chosen = chosen[[batch.streams[i] not in self._aside for i in chosen.tolist()]]
            if chosen.size:
                mine = chosen if blocks is None else blocks[chosen]
                self._try_round(batch, samples, offset, mine, lack, out)

    def _try_round(
        self, batch: BlockBatch, samples: Any2D, offset: I64, blocks: I64 | None, lack: _Lack, out: list[FrameBatch]
    ) -> None:
        try:
            out += self._round(batch, samples, offset, blocks, lack)
        except Exception as error:
            if self._aside is None:
                raise
            blocks = np.arange(len(batch)) if blocks is None else blocks
            if len(blocks) == 1:
                self._give_up(batch.streams[int(blocks[0])], error)
                return
            middle = len(blocks) // 2
            for part in (blocks[:middle], blocks[middle:]):
                self._try_round(batch, samples, offset, part, lack, out)

    def _give_up(self, stream: StreamInfo, error: Exception) -> None:
        if self._aside is not None:
            self._aside.put(stream, error)
        self.reset(stream.index)

    def _round(
        self, batch: BlockBatch, samples: Any2D, offset: I64, blocks: I64 | None, lack: _Lack
    ) -> list[FrameBatch]:
        """Blocks of different streams (None: all of the batch). All is worked out before anything is written down."""
        row, position, n = batch.index, batch.position, batch.frames
        time_ns, start = batch.time_ns, offset[:-1]
        if blocks is not None:
            row, position, n, time_ns, start = (a[blocks] for a in (row, position, n, time_ns, start))
        out: list[FrameBatch] = []
        broken = np.flatnonzero(self._next.take(row) != position)
        if broken.size:
            at = broken if blocks is None else blocks[broken]
            saved = self._save(row[broken])
            try:
                out += self._break(row[broken], position[broken], [batch.streams[i] for i in at.tolist()])
                out += self._go_on(batch, samples, start, blocks, lack, (row, position, n, time_ns))
            except Exception:
                self._restore(row[broken], saved)
                raise
            return out
        return self._go_on(batch, samples, start, blocks, lack, (row, position, n, time_ns))

    def _go_on(
        self,
        batch: BlockBatch,
        samples: Any2D,
        start: I64,
        blocks: I64 | None,
        lack: _Lack,
        columns: tuple[I64, I64, I64, I64],
    ) -> list[FrameBatch]:
        """Blocks that continue where the last ones of their streams ended."""
        row, position, n, time_ns = columns
        rate_in = self._rate_in.take(row)
        one_rate = bool((rate_in == rate_in[0]).all())
        origin_ns = time_ns - _ns(position, int(rate_in[0]) if one_rate else rate_in)
        writes: list[_Write] = [(self._next, row, position + n), (self._origin_ns, row, origin_ns)]
        pieces: list[list[_Piece]] = []
        whole = int(n[0]) if bool((n == n[0]).all()) else 0
        for rate in [int(rate_in[0])] if one_rate else np.unique(rate_in).tolist():
            of_rate = None if one_rate else np.flatnonzero(rate_in == rate)
            for chosen, width in _by_length(n, of_rate, whole):
                if chosen is None:
                    dense = _dense(samples, start, width)
                    self._take(dense, row, n, rate, None, pieces, writes)
                else:
                    dense = _dense(samples, start[chosen], width)
                    self._take(dense, row[chosen], n[chosen], rate, chosen, pieces, writes)
        if lack is not None:
            self._note_lack(batch, blocks, lack)
        for array, index, values in writes:
            array[index] = values
        return [self._emit(same, batch.streams, blocks) for same in pieces]

    def _take(
        self,
        dense: Any2D,
        row: I64,
        n: I64,
        rate: int,
        chosen: I64 | None,
        pieces: list[list[_Piece]],
        writes: list[_Write],
    ) -> None:
        if rate != self.rate:
            dense, n = self._rates[rate].process(dense, row, n, writes)
        self._cut(self._scaled(dense), row, n, chosen, pieces, writes)

    def _scaled(self, dense: Any2D) -> Any2D:
        if self.dtype == np.float32:
            return np.multiply(dense, _SCALE, dtype=np.float32)
        return dense if dense.dtype == np.int16 else np.clip(np.rint(dense), -32_768, 32_767).astype(np.int16)

    def _cut(
        self, dense: Any2D, row: I64, n: I64, chosen: I64 | None, pieces: list[list[_Piece]], writes: list[_Write]
    ) -> None:
        """Lay rows of new samples (k, w), ``n`` of each valid, behind what waits, and cut frames."""
        size, hop = self.size, self.hop
        fill = self._fill.take(row)
        pad = 0
        height, wide = dense.shape
        flat: Any2D | None = None
        if fill.any():
            # fill < 0: the frame begins that much later, in the data itself
            pad, width = max(0, -int(fill.min())), wide
            wide = pad + max(0, int(fill.max())) + width
            flat = np.empty(height * wide + size, self.dtype)
            table = flat[: height * wide].reshape(height, wide)
            here = min(max(0, int(fill.max())), size)
            table[:, pad : pad + here] = self._pending[row, :here]
            if width:
                _windows(flat, width)[np.arange(height) * wide + pad + fill] = dense
        else:
            table = dense
        there = fill + n
        count = np.maximum((there - size) // hop + 1, 0)
        most = int(count.max())
        begin = self._begin.take(row)
        fewest = int(count.min())
        for j in range(most):
            if len(pieces) <= j:
                pieces.append([])
            left = pad + j * hop
            if j < fewest:
                piece = _Piece(row, begin + j * hop, table[:, left : left + size], chosen, table, left)
            else:
                some = np.flatnonzero(count > j)
                pick = some if chosen is None else chosen[some]
                piece = _Piece(row[some], begin[some] + j * hop, table[some, left : left + size], pick)
            pieces[j].append(piece)
        moved = count * hop
        rest = there - moved
        longest = int(rest.max())
        if longest > 0:
            if most == fewest:
                first = pad + most * hop
                writes.append((self._pending, (row, slice(longest)), table[:, first : first + longest]))
            else:
                if flat is None:  # a row with little left is read over its end
                    flat = np.concatenate([table.reshape(-1), np.zeros(size, self.dtype)])
                left_over = _windows(flat, longest)[np.arange(height) * wide + pad + moved]
                writes.append((self._pending, (row, slice(longest)), left_over))
        writes.append((self._fill, row, rest))
        if most:
            writes.append((self._begin, row, begin + moved))
            if fewest:
                writes.append((self._last, row, begin + moved - hop))
                writes.append((self._covered, row, begin + moved - hop + size))
            else:
                some = np.flatnonzero(count)
                last = begin[some] + moved[some] - hop
                writes.append((self._last, row[some], last))
                writes.append((self._covered, row[some], last + size))

    def _emit(self, pieces: list[_Piece], infos: Sequence[StreamInfo], blocks: I64 | None) -> FrameBatch:
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
        origin_ns, real = self._origin_ns.take(row), self._real(row, position)
        return FrameBatch(row, position, origin_ns, self.rate, samples, real, infos, pick, table, left)

    # --- gaps -------------------------------------------------------------------------------------------------------

    def _save(self, row: I64) -> dict[str, Any]:
        """All that is known of rows."""
        saved: dict[str, Any] = {name: getattr(self, name)[row] for name in _BY_ROW}
        saved["resamplers"] = [(r, r.save(row)) for r in self._rates.values()]
        return saved

    def _restore(self, row: I64, saved: dict[str, Any]) -> None:
        for name in _BY_ROW[:-1]:
            getattr(self, name)[row] = saved[name]
        for resampler, state in saved["resamplers"]:
            resampler.restore(row, state)
        lack = saved["_lack"]  # there may be more slots by now
        frame = (saved["_begin"] // self.hop)[:, None] + np.arange(lack.shape[1])
        self._lack[row] = 0
        lines = np.arange(len(row))[:, None]
        self._lack[row[:, None], frame % self._lack.shape[1]] = lack[lines, frame % lack.shape[1]]

    def _break(self, row: I64, position: I64, streams: list[StreamInfo]) -> list[FrameBatch]:
        """Blocks that do not continue where the last one of their stream ended."""
        begun = self._next.take(row) >= 0
        out = self._finish(row[begun]) if begun.any() else []
        for i in np.flatnonzero(~begun).tolist():
            self._learn(int(row[i]), streams[i])
        up, down = self._up.take(row), self._down.take(row)
        before = position % down  # the filter starts in phase: zeros before the first sample
        first = position // down * up
        begin = np.maximum(first // self.hop * self.hop, self._last.take(row) + self.hop)
        self._begin[row] = begin
        self._fill[row] = first - begin
        self._covered[row] = np.maximum(begin, first)
        self._pending[row] = 0
        for rate, resampler in self._rates.items():
            some = self._rate_in.take(row) == rate
            resampler.start(row[some], before[some])
        self._lack_runs(row, begin, -(-position * up // down))
        return out

    def _learn(self, row: int, stream: StreamInfo) -> None:
        rate = stream.sample_rate or self.rate
        divisor = gcd(rate, self.rate)
        self._info[row] = stream
        self._rate_in[row] = rate
        self._up[row], self._down[row] = self.rate // divisor, rate // divisor
        if rate != self.rate and rate not in self._rates:
            self._rates[rate] = _Upsampler(rate, self.rate, self._rows)

    def _finish(self, row: I64) -> list[FrameBatch]:
        """End what waits: the filter's tail, then a frame padded with zeros where one has begun."""
        pieces: list[list[_Piece]] = []
        rate_in = self._rate_in.take(row)
        end = -(-self._next.take(row) * self._up.take(row) // self._down.take(row))
        out: list[FrameBatch] = []
        for rate, resampler in self._rates.items():
            some = np.flatnonzero(rate_in == rate)
            if not some.size:
                continue
            mine = row[some]
            zeros = np.zeros((len(mine), resampler.tail), np.int16)
            writes: list[_Write] = []
            dense, n = resampler.process(zeros, mine, np.full(len(mine), resampler.tail), writes)
            n = np.minimum(n, end[some] - self._begin.take(mine) - self._fill.take(mine))
            self._cut(self._scaled(dense), mine, n, some, pieces, writes)
            for array, index, values in writes:
                array[index] = values
        infos: list[StreamInfo] = self._info[row].tolist()
        out += [self._emit(same, infos, None) for same in pieces]
        begin, fill = self._begin.take(row), self._fill.take(row)
        some = np.flatnonzero((fill > 0) & (begin + fill > self._covered.take(row)))
        if some.size:
            mine, filled = row[some], fill[some]
            samples = self._pending[mine]
            samples[np.arange(self.size) >= filled[:, None]] = 0
            self._lack_runs(mine, begin[some] + filled, begin[some] + self.size)
            out.append(self._emit([_Piece(mine, begin[some], samples, some)], infos, None))
            self._last[mine] = begin[some]
        self._lack[row] = 0
        return out

    # --- what was not received --------------------------------------------------------------------------------------

    def _real(self, row: I64, position: I64) -> npt.NDArray[np.float32]:
        if not self._lacking:
            return np.ones(len(row), np.float32)
        slot = position // self.hop % self._lack.shape[1]
        lack = self._lack[row, slot]
        self._lack[row, slot] = 0
        return np.asarray(1 - lack / np.float32(self.size), np.float32)

    def _note_lack(self, batch: BlockBatch, blocks: I64 | None, lack: tuple[I64, I64, I64]) -> None:
        block, begin, end = lack
        if blocks is not None:
            mine = np.isin(block, blocks)
            block, begin, end = block[mine], begin[mine], end[mine]
        row = batch.index[block]
        position = batch.position[block]
        up, down = self._up.take(row), self._down.take(row)
        self._lack_runs(row, -(-(position + begin) * up // down), -(-(position + end) * up // down))

    def _lack_runs(self, row: I64, begin: I64, end: I64) -> None:
        """Samples [begin, end) of rows are not real: count them for the frames they are in."""
        size, hop = self.size, self.hop
        there = end > begin
        if not there.any():
            return
        row, begin, end = row[there], begin[there], end[there]
        lowest = self._begin.take(row) // hop
        first = np.maximum((begin - size) // hop + 1, lowest)
        last = (end - 1) // hop
        self._slots(int((last - lowest).max()) + 2)
        each = np.maximum(last - first + 1, 0)
        of = np.repeat(np.arange(len(row)), each)
        frame = first[of] + np.arange(len(of)) - np.repeat(np.cumsum(each) - each, each)
        count = np.minimum(end[of], frame * hop + size) - np.maximum(begin[of], frame * hop)
        np.add.at(self._lack, (row[of], frame % self._lack.shape[1]), count)
        self._lacking = True

    def _slots(self, needed: int) -> None:
        old = self._lack.shape[1]
        if needed <= old:
            return
        slots = 1 << (needed - 1).bit_length()
        lack = np.zeros((self._rows, slots), np.int32)
        frame = (self._begin // self.hop)[:, None] + np.arange(old)
        rows = np.arange(self._rows)[:, None]
        lack[rows, frame % slots] = self._lack[rows, frame % old]
        self._lack = lack


_Lack = tuple[I64, I64, I64] | None
_Write = tuple[npt.NDArray[Any], Any, npt.NDArray[Any]]  # array[index] = values, when all has been worked out
_BY_ROW: Final = (
    "_pending", "_begin", "_fill", "_covered", "_last", "_next", "_rate_in", "_up", "_down", "_origin_ns", "_info",
    "_lack",
)  # fmt: skip


class _Piece:
    """Frames of a group of rows: the j-th ones of a push."""

    __slots__ = ("left", "pick", "position", "row", "samples", "table")

    def __init__(
        self, row: I64, position: I64, samples: Any2D, pick: I64 | None, table: Any2D | None = None, left: int = 0
    ) -> None:
        self.row = row
        self.position = position
        self.samples = samples
        self.pick = pick
        self.table = table
        self.left = left


class _Upsampler:
    """Rows of one input rate to the bank's rate, whichever is higher."""

    def __init__(self, rate_in: int, rate: int, rows: int) -> None:
        self.up, self.down, taps, middle = polyphase(rate_in, rate)
        up, down = self.up, self.down
        # output q is the sum over j of x[j] * taps[q * down + middle - j * up]
        self._back = -(-(len(taps) - 1 - middle) // up)
        self._ahead = middle // up + 1
        self.tail = self._ahead + down
        self._periods = -(-_TILE // down)
        self._step = self._periods * down
        window = self._back + self._step + self._ahead
        q = np.arange(self._periods * up)
        tap = q * down + middle - (np.arange(window)[:, None] - self._back) * up
        inside = (tap >= 0) & (tap < len(taps))
        self._matrix = np.where(inside, taps[np.where(inside, tap, 0)], 0).astype(np.float32)
        self._kept = np.zeros((rows, self._back + self._ahead + down), np.float32)
        self._waiting = np.zeros(rows, np.int64)  # input samples behind the look-back that were not consumed

    def grow(self, rows: int) -> None:
        more = rows - len(self._waiting)
        self._kept = _longer(self._kept, more, 0)
        self._waiting = _longer(self._waiting, more, 0)

    def start(self, row: I64, zeros: I64) -> None:
        self._kept[row] = 0
        self._waiting[row] = zeros

    def save(self, row: I64) -> tuple[Any2D, I64]:
        return self._kept[row], self._waiting[row]

    def restore(self, row: I64, saved: tuple[Any2D, I64]) -> None:
        self._kept[row], self._waiting[row] = saved

    def process(self, dense: Any2D, row: I64, n: I64, writes: list[_Write]) -> tuple[Any2D, I64]:
        """(k, w) input samples, n of each row valid; (k, w') output samples float32 and how many of each are valid.
        What is to be remembered is added to ``writes``."""
        height, width = dense.shape
        waiting = self._waiting.take(row)
        there = waiting + n
        take = np.maximum(there - self._ahead, 0) // self.down * self.down
        most = int(take.max())
        tiles = max(1, -(-most // self._step))
        window = len(self._matrix)
        kept = self._kept.shape[1]
        wide = max(kept + width, tiles * self._step + window - self._step, most + kept)
        flat = np.zeros(height * wide + kept, np.float32)
        table = flat[: height * wide].reshape(height, wide)
        table[:, :kept] = self._kept[row]
        lined = bool((waiting == waiting[0]).all())
        if lined:
            at = self._back + int(waiting[0])
            table[:, at : at + width] = dense
        else:
            _windows(flat, width)[np.arange(height) * wide + self._back + waiting] = dense
        step = flat.itemsize
        view = as_strided(table, (height, tiles, window), (wide * step, self._step * step, step))
        out = np.empty((height * tiles, self._matrix.shape[1]), np.float32)
        rows = max(1, _CHUNK // (tiles * window))
        for begin in range(0, height, rows):
            part = view[begin : begin + rows]
            np.matmul(part.reshape(-1, window), self._matrix, out=out[begin * tiles : (begin + len(part)) * tiles])
        if lined and bool((take == most).all()):
            writes.append((self._kept, row, table[:, most : most + kept]))
        else:
            writes.append((self._kept, row, _windows(flat, kept)[np.arange(height) * wide + take]))
        writes.append((self._waiting, row, there - take))
        made = take // self.down * self.up
        return out.reshape(height, -1)[:, : most // self.down * self.up], made


def _longer(array: npt.NDArray[Any], more: int, value: Any) -> npt.NDArray[Any]:
    return np.concatenate([array, np.full((more, *array.shape[1:]), value, array.dtype)])


def _windows(flat: npt.NDArray[Any], width: int) -> Any2D:
    """(len - width + 1, width): every stretch of ``width`` values; written to only where they do not overlap."""
    return as_strided(flat, (len(flat) - width + 1, width), (flat.itemsize, flat.itemsize))


def _ns(position: I64, rate: I64 | int) -> I64:
    """Nanoseconds of positions at a rate, without overflow for days of audio."""
    if isinstance(rate, int) and 1_000_000_000 % rate == 0:
        return position * (1_000_000_000 // rate)
    return position // rate * 1_000_000_000 + position % rate * 1_000_000_000 // rate


def _dense(samples: Any2D, start: I64, width: int) -> Any2D:
    """(k, width): from each start on; behind the end of a shorter block stands anything."""
    if len(start) * width == start[-1] + width - start[0] and bool((np.diff(start) == width).all()):
        first = int(start[0])
        if first + len(start) * width <= len(samples):
            return samples[first : first + len(start) * width].reshape(len(start), width)
    if int(start.max()) + width > len(samples):
        samples = np.concatenate([samples, np.zeros(width, samples.dtype)])
    return _windows(samples, width)[start]


def _by_length(n: I64, chosen: I64 | None, whole: int) -> Iterator[tuple[I64 | None, int]]:
    """Groups of about the same length: indices (None: all) and the longest length of each."""
    if whole:
        yield chosen, whole
        return
    mine = n if chosen is None else n[chosen]
    lengths, which = np.unique(mine, return_inverse=True)
    if len(lengths) > _FEW:
        # as many groups as there are quarters of octaves, however many lengths
        lengths, which = np.unique(np.round(4 * np.log2(mine)).astype(np.int64), return_inverse=True)
    for number in range(len(lengths)):
        some = np.flatnonzero(which == number)
        yield (some if chosen is None else chosen[some]), int(mine[some].max())


def _mono(batch: BlockBatch) -> tuple[Any2D, I64]:
    """Samples end to end and offsets of blocks, several channels mixed to one."""
    offset, samples = batch.offset, batch.samples
    values = np.diff(offset)
    if bool((values == batch.frames).all()):
        return samples, offset
    channels = values // np.maximum(batch.frames, 1)
    mono = np.zeros(len(batch) + 1, np.int64)
    np.cumsum(batch.frames, out=mono[1:])
    mixed = np.empty(int(mono[-1]), np.float32)
    to = np.repeat(channels, batch.frames)
    of = np.repeat(channels, values)
    for number in np.unique(channels[channels > 0]).tolist():
        mixed[to == number] = samples[of == number].reshape(-1, number).mean(axis=1, dtype=np.float32)
    return mixed, mono


def _not_received(batch: BlockBatch) -> tuple[I64, I64, I64] | None:
    """Runs of sample frames whose mask is not RECEIVED: block, begin, end (frames within the block)."""
    if batch.plain:
        return None
    bad = np.flatnonzero(batch.mask != Mask.RECEIVED)
    if not bad.size:
        return None
    begin = np.cumsum(batch.frames) - batch.frames
    block = np.searchsorted(begin, bad, "right") - 1
    cut = np.flatnonzero((np.diff(bad) != 1) | (np.diff(block) != 0)) + 1
    first, last = np.r_[0, cut], np.r_[cut, len(bad)] - 1
    block = block[first]
    return block, bad[first] - begin[block], bad[last] - begin[block] + 1
