"""Frames of many streams as one matrix, and runs of such batches that lie side by side in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._model.time import position_ns
from ..._model.types import StreamInfo

__all__ = ["FrameBatch", "runs_of"]

I64 = npt.NDArray[np.int64]
Any2D = npt.NDArray[Any]


class FrameBatch:
    """One frame of each of ``k`` streams, no two of the same stream.

    ``row``       int64 (k,): the streams' ``StreamInfo.index``
    ``position``  int64 (k,): of each frame's first sample on its stream's timeline, in samples at the frames' rate
    ``time_ns``   int64 (k,): when that sample was, in ns on the receiver's clock (``BlockBatch.time_ns``)
    ``samples``   (k, size), float32 in [-1, 1) or int16: a view, not to be written to
    ``real``      float32 (k,): the share of a frame's samples that were received, 0 to 1
    ``streams``   list of k :class:`strep.StreamInfo`, in the order of ``row``
    """

    __slots__ = ("_infos", "_left", "_origin_ns", "_pick", "_rate", "_table", "position", "real", "row", "samples")

    def __init__(
        self,
        row: I64,
        position: I64,
        samples: Any2D,
        real: npt.NDArray[np.float32],
        *,
        rate: int,
        origin_ns: I64,
        infos: Sequence[StreamInfo],
        pick: I64 | None,
        table: Any2D | None = None,
        left: int = 0,
    ) -> None:
        self.row = row
        self.position = position
        self.samples = samples
        self.real = real
        self._rate = rate
        self._origin_ns = origin_ns  # (k,): the time of each stream's position 0
        self._infos = infos
        self._pick = pick  # indices of the frames' streams among ``infos``; None: in the order of ``infos``
        self._table = table  # the matrix that the samples are columns of, from ``left`` on; None: they are a copy
        self._left = left

    def __len__(self) -> int:
        return len(self.row)

    def take(self, some: slice | I64) -> FrameBatch:
        """Some of the frames, by a slice or by their indices."""
        return FrameBatch(
            self.row[some],
            self.position[some],
            self.samples[some],
            self.real[some],
            rate=self._rate,
            origin_ns=self._origin_ns[some],
            infos=self._infos,
            pick=np.arange(len(self.row))[some] if self._pick is None else self._pick[some],
        )

    def forget_samples(self) -> None:
        """Hold no samples any more."""
        self.samples, self._table = self.samples[:0].copy(), None

    @staticmethod
    def joined(batches: Sequence[FrameBatch], samples: Any2D) -> FrameBatch:
        """Batches of different streams as one. ``samples``: all of theirs, one batch behind the other."""
        first = batches[0]
        return FrameBatch(
            np.concatenate([batch.row for batch in batches]),
            np.concatenate([batch.position for batch in batches]),
            samples,
            np.concatenate([batch.real for batch in batches]),
            rate=first._rate,
            origin_ns=np.concatenate([batch._origin_ns for batch in batches]),
            infos=[stream for batch in batches for stream in batch.streams],
            pick=None,
        )

    def stream(self, i: int) -> StreamInfo:
        """The stream of the i-th frame."""
        return self._infos[i if self._pick is None else int(self._pick[i])]

    @property
    def place(self) -> tuple[Any2D | None, int]:
        """The matrix that the samples are columns of, and the first one of these; None: they are a copy."""
        return self._table, self._left

    @property
    def time_ns(self) -> I64:
        """When each frame begins, in ns on the receiver's clock, int64 (k,)."""
        return self._origin_ns + position_ns(self.position, self._rate)

    @property
    def streams(self) -> list[StreamInfo]:
        """The stream of each frame, in the order of ``row``."""
        if self._pick is None:
            return list(self._infos)
        return [self._infos[i] for i in self._pick.tolist()]


def runs_of(batches: Sequence[FrameBatch]) -> Iterator[tuple[Sequence[FrameBatch], Any2D]]:
    """Groups of consecutive batches that have the same rows and lie side by side in memory, and the samples of each
    group as one matrix (k, number * size). Going through that matrix reads memory in order."""
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
