"""The blocks of one batch, as those who iterate over streams take them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .._model.blocks import Block, BlockBatch
from .._model.types import Gap, GapCause, Mask

__all__ = ["Mark", "Marks", "Pieces"]

Mark: TypeAlias = tuple[int, int, int]
Marks: TypeAlias = list[Mark]
"""Of each packet: position of its first frame, RTP timestamp, arrival in ns."""


class Pieces:
    """Columns of a batch as lists, made once for all who take a block of it: reading one number from an array costs ten
    times as much as from a list. Making it decodes; after that nothing raises.

    Per block: ``streams``, and in ``rows`` its position, its frames, how many packets it was made of, where its values
    begin and end in ``samples``, and the RTP timestamp and arrival of its first packet.
    """

    __slots__ = ("_batch", "_made_up", "_marks", "_place", "rows", "samples", "streams")

    def __init__(self, batch: BlockBatch) -> None:
        self.samples = batch.samples
        self.streams = batch.streams
        offset: list[int] = batch.offset.tolist()
        self.rows: list[tuple[int, int, int, int, int, int, int]] = list(
            zip(
                batch.position.tolist(),
                batch.frames.tolist(),
                np.diff(batch.packet_first).tolist(),
                offset[:-1],
                offset[1:],
                batch.rtp_timestamp.tolist(),
                batch.arrival_ns.tolist(),
                strict=True,
            )
        )
        self._batch = batch
        self._marks: Marks | None = None
        self._made_up: set[int] | None = None
        self._place: list[int] | None = None

    def values(self, i: int, channels: int) -> npt.NDArray[np.int16]:
        """A block's samples, int16 (frames,), or (frames, channels) of several channels. A view."""
        row = self.rows[i]
        samples = self.samples[row[3] : row[4]]
        return samples if channels == 1 else samples.reshape(-1, channels)

    def cause(self, i: int) -> GapCause:
        """Why there is a gap before the block; NONE: there is none."""
        return GapCause(int(self._batch.gap_cause[i])) if self._batch.gap_frames[i] else GapCause.NONE

    def marks(self, i: int) -> Marks:
        """Of each packet of the block: where its first frame stands in its stream, RTP timestamp, arrival."""
        position, _, packets, _, _, timestamp, arrival_ns = self.rows[i]
        if packets == 1:
            return [(position, timestamp, arrival_ns)]
        if self._marks is None:
            self._marks = _marks(self._batch)
        first = self._batch.packet_first
        return self._marks[int(first[i]) : int(first[i + 1])]

    def made_up(self, i: int) -> bool:
        """Whether some of the block was not received, or could not be decoded."""
        if self._made_up is None:
            self._made_up = _made_up(self._batch)
        return i in self._made_up

    def mask(self, i: int) -> npt.NDArray[np.uint8]:
        """A :class:`Mask` for each sample frame of the block, uint8 (frames,). A view."""
        if self._place is None:
            self._place = (np.cumsum(self._batch.frames) - self._batch.frames).tolist()
        begin = self._place[i]
        return self._batch.mask[begin : begin + self.rows[i][1]]

    def block(self, i: int, missed: int = 0) -> Block:
        """One block; ``missed`` frames before it were thrown away."""
        stream = self.streams[i]
        position, _, _, _, _, timestamp, arrival_ns = self.rows[i]
        gap = int(self._batch.gap_frames[i]) + missed
        cause = GapCause.OVERRUN if missed else self.cause(i)
        return Block(
            stream,
            position,
            Gap(gap, cause) if gap else None,
            timestamp,
            arrival_ns,
            self.values(i, stream.channels),
            self.mask(i),
            int(self._batch.time_ns[i]),
        )


def _marks(batch: BlockBatch) -> Marks:
    frames = batch.packet_frames
    before: npt.NDArray[np.int64] = np.cumsum(frames) - frames
    first = batch.packet_first[:-1]
    at = before + np.repeat(batch.position - before[first], np.diff(batch.packet_first))
    return list(zip(at.tolist(), batch.packet_rtp_timestamp.tolist(), batch.packet_arrival_ns.tolist(), strict=True))


def _made_up(batch: BlockBatch) -> set[int]:
    """The blocks of which not every sample frame is RECEIVED."""
    if batch.plain:
        return set()
    bad = np.flatnonzero(batch.mask != Mask.RECEIVED)
    return set(np.searchsorted(np.cumsum(batch.frames), bad, "right").tolist())
