"""Where packets stand on their streams' timelines, and the blocks that they make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..._model.types import Codec

__all__ = ["Anchor", "Placement"]

I64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class Placement:
    """Packets with audio (columns (p,)) and the blocks they make (columns (m,) resp. (m+1,)).

    Frames are at the stream's rate, but ``own_frames``, which are at the codec's.
    """

    kept: I64 | None  # which of the packets given these are; None: all
    row: I64
    slot: I64
    codec: npt.NDArray[np.int16]
    length: I64  # payload bytes
    own_frames: I64  # as the decoder makes them
    frames: I64  # after trimming
    trim: I64 | None  # frames to leave out at a packet's start
    timestamp: npt.NDArray[np.uint32]
    arrival_ns: I64
    packet_first: I64  # (m+1,)
    block_row: I64
    position: I64
    block_frames: I64
    gap_frames: I64
    gap_cause: npt.NDArray[np.uint8]
    anew: npt.NDArray[np.bool_] | None = None  # (m,): re-anchored by arrival times there; None: nowhere


@dataclass(frozen=True, slots=True)
class Anchor:
    """An RTP timestamp and the position, in frames, at which it stands on its stream's timeline."""

    timestamp: int
    position: int
    codec: Codec  # the stream's

    def position_of(self, timestamp: int) -> int:
        """Where a timestamp near this one stands."""
        delta = (timestamp - self.timestamp + 0x8000_0000) % 0x1_0000_0000 - 0x8000_0000
        return max(self.position + delta * self.codec.sample_rate // self.codec.clock_rate, 0)
