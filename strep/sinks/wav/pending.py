"""Streams that have no file yet: because they have not lasted long enough for one, or because none can be made.

Whoever sends two packets is a stream; a directory and a file cost more than a thousand packets. So blocks wait here
until their stream has lasted, by its packets' arrival or by its audio. When blocks came here makes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo

__all__ = ["PendingBlock", "PendingStream", "PendingStreams", "lasted_ns"]

_BLOCK_OVERHEAD_BYTES: Final = 400  # of memory that a block costs beside its samples

I16 = npt.NDArray[np.int16]


def lasted_ns(report: StreamReport) -> int:
    """From a stream's first packet to its last, in nanoseconds."""
    return max(0, report.last_arrival_ns - report.stream.first_arrival_ns)


@dataclass(slots=True)
class PendingBlock:
    """A block for a file that streams share, or that is resampled."""

    position: int
    frames: int
    time_ns: int
    arrival_ns: int  # of its first packet
    last_ns: int  # of its last one
    samples: I16


@dataclass(slots=True)
class PendingStream:
    """A stream without a file. ``due``: it is to have one. ``report``: it has ended. What waits is in ``blocks``; or in
    ``pieces``, when it goes into a file of its own as it is: bytes, and where in the file's samples they begin."""

    stream: StreamInfo
    blocks: list[PendingBlock] = field(default_factory=list)
    pieces: list[tuple[int, bytearray]] = field(default_factory=list)
    end: int = 0  # of the last piece
    frames: int = 0
    size: int = 0  # bytes of memory
    last_arrival_ns: int = 0
    due: bool = False
    report: StreamReport | None = None

    @property
    def duration_ns(self) -> int:
        return max(0, self.last_arrival_ns - self.stream.first_arrival_ns)

    @property
    def audio_ns(self) -> int:
        """How much audio there is to write. A sender of a packet now and then lasts long too, with little audio."""
        return self.frames * 1_000_000_000 // max(1, self.stream.sample_rate)


class PendingStreams:
    """``shortest_s``: how long a stream must last. ``limit``: bytes that may wait."""

    def __init__(self, shortest_s: float, limit: int) -> None:
        self._shortest_s = shortest_s
        self._limit = limit
        self._streams: dict[int, PendingStream] = {}  # by serial
        self.size = 0  # bytes of memory, of all

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, serial: int) -> PendingStream | None:
        return self._streams.get(serial)

    @property
    def pressure(self) -> float:
        """What waits, as a share of what may wait."""
        return self.size / max(1, self._limit)

    def has_room(self, nbytes: int, blocks: int) -> bool:
        """Whether so many more blocks could wait, of so many bytes together."""
        return self.size + nbytes + blocks * _BLOCK_OVERHEAD_BYTES <= self._limit

    def add(self, stream: StreamInfo, block: PendingBlock) -> PendingStream | None:
        """Keep a block. Returns the stream if this block makes it due. Raises MemoryError, and keeps nothing, if the
        limit is reached."""
        size = _BLOCK_OVERHEAD_BYTES + block.samples.nbytes
        pending = self._room(stream, size)
        pending.blocks.append(block)
        return self._grown(pending, block.frames, size, block.last_ns)

    def append(self, stream: StreamInfo, data: memoryview, at: int, frames: int, last_ns: int) -> PendingStream | None:
        """As :meth:`add`, of a block that goes as it is into a file of its own: bytes, and where its samples begin."""
        size = len(data)
        pending = self._streams.get(stream.serial)
        if pending is not None and at == pending.end and (not pending.due or self.size + size <= self._limit):
            pending.pieces[-1][1].extend(data)
        else:
            size += _BLOCK_OVERHEAD_BYTES
            pending = self._room(stream, size)
            pending.pieces.append((at, bytearray(data)))
        pending.end = at + len(data)
        return self._grown(pending, frames, size, last_ns)

    def _room(self, stream: StreamInfo, size: int) -> PendingStream:
        pending = self._streams.get(stream.serial)
        if self.size + size > self._limit and (pending is None or pending.due):
            raise MemoryError
        if pending is None:
            pending = self._streams[stream.serial] = PendingStream(stream)
        return pending

    def _grown(self, pending: PendingStream, frames: int, size: int, last_ns: int) -> PendingStream | None:
        pending.frames += frames
        pending.size += size
        self.size += size
        if last_ns > pending.last_arrival_ns:
            pending.last_arrival_ns = last_ns
        if pending.due or not (self.size > self._limit or self.has_lasted(pending)):
            return None
        pending.due = True
        return pending

    def has_lasted(self, pending: PendingStream) -> bool:
        if pending.report is not None and lasted_ns(pending.report) >= self._shortest_s * 1e9:
            return True
        audio = pending.frames >= self._shortest_s * pending.stream.sample_rate
        return audio or pending.duration_ns >= self._shortest_s * 1e9

    def remove(self, pending: PendingStream) -> None:
        """The stream has its file, or gets none."""
        if self._streams.pop(pending.stream.serial, None) is not None:
            self.size -= pending.size

    @property
    def frames(self) -> int:
        """Of all streams; from any thread."""
        return sum(pending.frames for pending in list(self._streams.values()))

    def all(self) -> list[PendingStream]:
        return list(self._streams.values())
