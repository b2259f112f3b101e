"""Streams that have no file yet: because they have not lasted long enough for one, or because none can be made.

Whoever sends two packets is a stream; a directory and a file cost more than a thousand packets. So blocks wait here
until their stream has lasted, by its packets' arrival or by their audio; nothing depends on when blocks came here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo

__all__ = ["Hold", "Piece", "Waiting", "lasted_ns"]

_OVERHEAD: Final = 400  # bytes of memory that a block costs beside its samples

I16 = npt.NDArray[np.int16]


def lasted_ns(report: StreamReport) -> int:
    """From a stream's first packet to its last."""
    return max(0, report.last_arrival_ns - report.stream.first_arrival_ns)


@dataclass(slots=True)
class Piece:
    """A block: samples, or the bytes that go into a split file as they are."""

    position: int
    frames: int
    time_ns: int
    arrival_ns: int  # of its first packet
    last_ns: int  # of its last one
    samples: I16 | bytes


@dataclass(slots=True)
class Waiting:
    """A stream without a file. ``report``: it has ended."""

    stream: StreamInfo
    pieces: list[Piece] = field(default_factory=list)
    frames: int = 0
    size: int = 0
    last_arrival_ns: int = 0
    due: bool = False
    report: StreamReport | None = None

    @property
    def duration_ns(self) -> int:
        return max(0, self.last_arrival_ns - self.stream.first_arrival_ns)

    @property
    def audio_ns(self) -> int:
        """How much there is to write: who sends a packet now and then lasts long as well."""
        return self.frames * 1_000_000_000 // max(1, self.stream.sample_rate)


class Hold:
    """``shortest_s``: how long a stream must last. ``limit``: bytes that may wait."""

    def __init__(self, shortest_s: float, limit: int) -> None:
        self._shortest_s = shortest_s
        self._limit = limit
        self._streams: dict[int, Waiting] = {}  # by serial
        self.size = 0

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, serial: int) -> Waiting | None:
        return self._streams.get(serial)

    def add(self, stream: StreamInfo, piece: Piece) -> Waiting | None:
        """Keep a block. Returns the stream if it is due with it, for the first time. None is kept beyond the limit:
        raises MemoryError."""
        size = _OVERHEAD + (len(piece.samples) if isinstance(piece.samples, bytes) else piece.samples.nbytes)
        waiting = self._streams.get(stream.serial)
        if self.size + size > self._limit and (waiting is None or waiting.due):
            raise MemoryError
        if waiting is None:
            waiting = self._streams[stream.serial] = Waiting(stream)
        waiting.pieces.append(piece)
        waiting.frames += piece.frames
        waiting.size += size
        waiting.last_arrival_ns = max(waiting.last_arrival_ns, piece.last_ns)
        self.size += size
        if waiting.due or not (self.size > self._limit or self.has_lasted(waiting)):
            return None
        waiting.due = True
        return waiting

    def has_lasted(self, waiting: Waiting) -> bool:
        if waiting.report is not None and lasted_ns(waiting.report) >= self._shortest_s * 1e9:
            return True
        audio = waiting.frames >= self._shortest_s * waiting.stream.sample_rate
        return audio or waiting.duration_ns >= self._shortest_s * 1e9

    def take(self, waiting: Waiting) -> None:
        """It has its file, or gets none."""
        if self._streams.pop(waiting.stream.serial, None) is not None:
            self.size -= waiting.size

    @property
    def frames(self) -> int:
        """All that wait; from any thread."""
        return sum(waiting.frames for waiting in list(self._streams.values()))

    def everyone(self) -> list[Waiting]:
        return list(self._streams.values())
