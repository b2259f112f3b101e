"""Work for many streams at once that raises is repeated without the stream that makes it raise.

That stream is set aside: who did the work gets nothing more of it, and what it does not get is counted. The work must
be done whole or not at all: what raised has changed nothing, so that the others' results are what they would have been
without it. Bisecting costs a few dozen attempts, once a stream.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .._model.types import StreamInfo

if TYPE_CHECKING:
    from .._model.blocks import BlockBatch
    from .._threads.incidents import Incidents
    from .analysis.frame_batch import FrameBatch

__all__ = ["HOPELESS", "SetAside", "Unusable"]

_T = TypeVar("_T")
_log = logging.getLogger("strep")

HOPELESS = 3  # streams in a row that something raised for: it will for the next one too


class Unusable(Exception):
    """What a sink calls raises whatever it is given; the cause says what."""


class SetAside:
    """Streams that one sink gets nothing of any more. ``place`` names the sink where faults are counted."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.incidents: Incidents | None = None
        self.streams = 0  # that were set aside so far
        self.dropped_frames = 0
        self.fresh: list[StreamInfo] = []  # since :meth:`take_fresh`
        self._serials: set[int] = set()  # of those that live

    def __bool__(self) -> bool:
        return bool(self._serials)

    def __contains__(self, stream: object) -> bool:
        return isinstance(stream, StreamInfo) and stream.serial in self._serials

    def put(self, stream: StreamInfo, error: Exception) -> None:
        """Set a stream aside because of an error."""
        if stream.serial not in self._serials:
            self._serials.add(stream.serial)
            self.fresh.append(stream)
            self.streams += 1
        self.fault(stream, error)

    def fault(self, stream: StreamInfo | None, error: Exception, place: str | None = None) -> None:
        """Count an error, and tell it."""
        place = self.place if place is None else place
        if self.incidents is not None:
            self.incidents.fault(place, error, stream=stream)
        else:
            _log.error("fault contained in %s", place, exc_info=error)

    def forget(self, stream: StreamInfo) -> None:
        """It has ended."""
        self._serials.discard(stream.serial)

    def rest_of(self, batch: BlockBatch) -> BlockBatch:
        """A batch without what is set aside, which is counted."""
        if not self._serials:
            return batch
        rest = batch.without(self._serials)
        if rest is not batch:
            self.dropped_frames += int(batch.frames.sum()) - int(rest.frames.sum())
        return rest

    def take_fresh(self, batch: BlockBatch | None) -> list[StreamInfo]:
        """Streams that were set aside since the last call, while ``batch`` was taken: what it has of them counts."""
        fresh, self.fresh = self.fresh, []
        if batch is not None:
            serials = {stream.serial for stream in fresh}
            frames = zip(batch.streams, batch.frames.tolist(), strict=True)
            self.dropped_frames += sum(n for stream, n in frames if stream.serial in serials)
        return fresh

    def figures(self) -> dict[str, int]:
        """What a sink's report says of it: ``dropped_frames``, and ``set_aside`` where a stream was."""
        dropped = {"dropped_frames": self.dropped_frames}
        return {**dropped, "set_aside": self.streams} if self.streams else dropped

    # --- work -------------------------------------------------------------------------------------------------------

    def blocks(self, batch: BlockBatch, work: Callable[[BlockBatch], _T]) -> list[tuple[BlockBatch, _T]]:
        """``work`` of the batch; of its parts without the streams that make it raise, when one does. Raises what the
        decoding of the batch raised: nobody here is to blame for that."""
        try:
            return [(batch, work(batch))]
        except Exception as error:
            if batch.error is not None:
                raise
            starts = batch.starts()
            if len(starts) <= 2:
                self.put(batch.streams[0], error)
                return []
        middle = starts[len(starts) // 2]
        return [
            done
            for part in (np.arange(middle), np.arange(middle, len(batch)))
            for done in self.blocks(batch.take(part), work)
        ]

    def frames(self, batch: FrameBatch, work: Callable[[FrameBatch], _T]) -> list[_T]:
        """The same of frames."""
        if self.fresh:
            kept = np.flatnonzero([batch.stream(i) not in self for i in range(len(batch))])
            if not kept.size:
                return []
            batch = batch if len(kept) == len(batch) else batch.take(kept)
        try:
            return [work(batch)]
        except Exception as error:
            if len(batch) <= 1:
                self.put(batch.stream(0), error)
                return []
        middle = len(batch) // 2
        return [
            done
            for part in (slice(0, middle), slice(middle, len(batch)))
            for done in self.frames(batch.take(part), work)
        ]
