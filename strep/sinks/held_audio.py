"""Pieces of audio of many streams that wait, as columns: nothing here runs per piece. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .._model.blocks import BlockBatch
from .._model.spans import begins_of, stretches
from .._model.types import Mask

if TYPE_CHECKING:
    from .._model.types import StreamInfo

__all__ = ["HeldAudio", "Pieces"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_MANY_PARTS: Final = 16  # of what waits, from which on they are made one


@dataclass(slots=True)
class Pieces:
    """Blocks, or parts of them: columns (m,), and their audio end to end.

    ``samples``  int16, channels interleaved · ``mask``  uint8, for each sample frame; None: all were received.
    ``rate`` and ``clock`` are Hz; 0: not known. Frames, gaps and positions are sample frames.
    """

    streams: npt.NDArray[np.object_]
    row: I64
    serial: I64
    position: I64
    frames: I64
    gap_frames: I64
    gap_cause: I64
    rtp_timestamp: I64
    arrival_ns: I64
    time_ns: I64
    channels: I64
    rate: I64
    clock: I64
    samples: npt.NDArray[np.int16]
    mask: npt.NDArray[np.uint8] | None

    @classmethod
    def of(cls, batch: BlockBatch, serial: I64, channels: I64, rate: I64, clock: I64) -> Pieces:
        """The blocks of a batch. Raises what decoding it raises."""
        streams = np.empty(len(batch), np.object_)
        streams[:] = batch.streams
        return cls(
            streams, batch.index, serial, batch.position, batch.frames, batch.gap_frames,
            batch.gap_cause.astype(np.int64), batch.rtp_timestamp.astype(np.int64), batch.arrival_ns, batch.time_ns,
            channels, rate, clock, batch.samples, None if batch.plain else batch.mask,
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: Sequence[Pieces]) -> Pieces:
        """One after the other; of one part or more."""
        if len(parts) == 1:
            return parts[0]
        mask = None
        if any(part.mask is not None for part in parts):
            mask = np.concatenate([part.mask if part.mask is not None else part._received() for part in parts])
        joined: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _JOINED}
        return cls(**joined, mask=mask)

    def _received(self) -> npt.NDArray[np.uint8]:
        return np.full(int(self.frames.sum()), Mask.RECEIVED, np.uint8)

    def __len__(self) -> int:
        return len(self.row)

    def sections(self, at: I64, skip: I64, frames: I64) -> Pieces:
        """Copies: of each piece ``at`` the sample frames from ``skip`` on, ``frames`` of them."""
        columns = {name: getattr(self, name)[at] for name in _COLUMNS}
        channels, rate = columns["channels"], columns["rate"]
        begins = begins_of(self.frames * self.channels)[at] + skip * channels
        samples = stretches(self.samples, begins, frames * channels)
        mask = self.mask
        if mask is not None:
            mask = stretches(mask, begins_of(self.frames)[at] + skip, frames)
        columns["frames"] = frames
        if skip.any():
            within = skip > 0
            known = np.maximum(rate, 1)
            columns["position"] = columns["position"] + skip
            columns["gap_frames"] = np.where(within, 0, columns["gap_frames"])
            columns["gap_cause"] = np.where(within, 0, columns["gap_cause"])
            units = np.where(rate > 0, skip * columns["clock"] // known, skip)
            columns["rtp_timestamp"] = columns["rtp_timestamp"] + units & 0xFFFF_FFFF
            columns["time_ns"] = columns["time_ns"] + np.where(rate > 0, skip * 1_000_000_000 // known, 0)
        return Pieces(**columns, samples=samples, mask=mask)

    def take(self, at: I64) -> Pieces:
        """Copies of whole pieces."""
        return self.sections(at, np.zeros(len(at), np.int64), self.frames[at])

    def batch(self) -> BlockBatch | None:
        """As a batch without payload bytes, a packet for each piece; None of no pieces."""
        m = len(self)
        if not m:
            return None
        samples, mask, timestamp = self.samples, self.mask, self.rtp_timestamp.astype(np.uint32)
        offset = np.zeros(m + 1, np.int64)
        np.cumsum(self.frames * self.channels, out=offset[1:])
        if mask is not None and bool((mask == Mask.RECEIVED).all()):
            mask = None
        return BlockBatch(
            streams=self.streams.tolist(), index=self.row, position=self.position, frames=self.frames,
            gap_frames=self.gap_frames, gap_cause=self.gap_cause.astype(np.uint8), rtp_timestamp=timestamp,
            arrival_ns=self.arrival_ns, time_ns=self.time_ns, offset=offset, payload=np.zeros(0, np.uint8),
            payload_offset=np.zeros(m + 1, np.int64), packet_first=np.arange(m + 1), packet_frames=self.frames,
            packet_arrival_ns=self.arrival_ns, packet_rtp_timestamp=timestamp, decode=lambda: samples, mask=mask,
        )  # fmt: skip


_JOINED: Final = tuple(name for name in Pieces.__slots__ if name != "mask")
_COLUMNS: Final = tuple(name for name in _JOINED if name != "samples")


class HeldAudio:
    """What waits of all streams. ``serial`` (rows,) is told with each call: what is of another stream than the one that
    has the row now is gone."""

    def __init__(self) -> None:
        self._parts: list[Pieces] = []

    def put(self, pieces: Pieces) -> None:
        """These wait."""
        if len(pieces):
            self._parts.append(pieces)

    def pop(self, wanted: Bools, serial: I64) -> list[Pieces]:
        """What waits of the rows that are ``wanted``, bool (rows,)."""
        found: list[Pieces] = []
        rest: list[Pieces] = []
        for part in self._parts:
            live = serial[part.row] == part.serial
            mine = wanted[part.row]
            if live.all() and (mine.all() or not mine.any()):
                (found if mine[0] else rest).append(part)
                continue
            for some, where in ((mine & live, found), (~mine & live, rest)):
                if some.any():
                    where.append(part.take(np.flatnonzero(some)))
        self._parts = rest if len(rest) < _MANY_PARTS else [Pieces.joined(rest)]
        return found

    def streams(self, serial: I64) -> list[StreamInfo]:
        """Streams of which something waits."""
        found: dict[int, StreamInfo] = {}
        for part in self._parts:
            live = np.flatnonzero(serial[part.row] == part.serial)
            found |= zip(part.serial[live].tolist(), part.streams[live].tolist(), strict=True)
        return list(found.values())
