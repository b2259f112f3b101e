"""In which modes of its codec each stream was sent, and what these cost: AMR-WB by frame type, opus by bandwidth. Pure.

The mode is read from the first bytes of each payload, of many packets at once. What was lost is taken to have been as
what came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import numpy as np
import numpy.typing as npt

from ..._codecs.counts import HEAD_BYTES, mode_counts
from ...quality import impairments_by_mode
from .columns import Columns, column

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.types import Codec

__all__ = ["MODES", "CodecModes"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

MODES: Final = 9  # that a codec has at most


class CodecModes(Columns):
    """How much came in each mode, a row a stream; in the codec's own unit (AMR-WB: speech frames, opus: 2.5 ms)."""

    codec: npt.NDArray[np.int16] = column(np.int16, -1)  # one of those that have modes; -1: none
    now: F64 = column(np.float64, shape=(MODES,))  # in the present window
    total: F64 = column(np.float64, shape=(MODES,))  # in all windows that are complete

    def __init__(self, rows: int = 0) -> None:
        super().__init__(rows)
        self._codecs: list[Codec] = []
        self._ie = np.zeros((0, MODES))  # by codec and mode
        self._bpl = np.zeros((0, MODES))
        self.any = False  # whether there ever was a stream whose codec has modes

    def learn(self, row: int, codec: Codec) -> None:
        """The codec of a stream is known now."""
        modes = impairments_by_mode(codec.name)
        if not modes:
            return
        if codec not in self._codecs:
            self._codecs.append(codec)
            blank = np.zeros(MODES - len(modes))
            self._ie = np.vstack([self._ie, np.append([mode.ie for mode in modes], blank)])
            self._bpl = np.vstack([self._bpl, np.append([mode.bpl for mode in modes], blank)])
        self.codec[row] = self._codecs.index(codec)
        self.any = True

    def count(self, batch: BlockBatch, row: I64) -> I64 | None:
        """How much of each packet is in each mode, int64 (p, MODES); None if no packet's codec has modes. ``row``: of
        each packet."""
        if not self.any or batch.packet_offset is None:
            return None
        codec = self.codec[row]
        if batch.transcoded is not None:  # some bytes are of another codec
            codec = np.where(np.repeat(batch.transcoded, np.diff(batch.packet_first)), -1, codec)
        present = np.unique(codec)
        if present[-1] < 0:
            return None
        counts = np.zeros((len(row), MODES), np.int64)
        begin, length = batch.packet_offset[:-1], np.diff(batch.packet_offset)
        for index in present[present >= 0].tolist():
            mine = np.flatnonzero((codec == index) & (length > 0))
            if not mine.size:
                continue
            at = begin[mine, None] + np.arange(HEAD_BYTES)
            heads = batch.payload[np.minimum(at, len(batch.payload) - 1)]
            found = mode_counts(self._codecs[index], heads, length[mine])
            counts[mine, : found.shape[1]] = found
        return counts

    def close(self, rows: I64) -> F64:
        """Take what there is of these rows' present windows, float64 (n, MODES); of a window without speech, what came
        before."""
        now = self.now[rows]
        self.total[rows] += now
        self.now[rows] = 0.0
        return cast(F64, np.where(now.any(axis=1, keepdims=True), now, self.total[rows]))

    def cost(self, rows: I64, weights: F64, ie: F64, bpl: F64) -> tuple[F64, F64]:
        """Ie and Bpl of streams that were sent in such modes, means by ``weights`` (n, MODES); where nothing is known
        of modes, ``ie`` and ``bpl``."""
        if not self.any:
            return ie, bpl
        codec, total = self.codec[rows], weights.sum(axis=1)
        known = (codec >= 0) & (total > 0)
        share = weights / np.maximum(total, 1.0)[:, None]
        return (
            np.where(known, (share * self._ie[codec]).sum(axis=1), ie),
            np.where(known, (share * self._bpl[codec]).sum(axis=1), bpl),
        )
