"""Work for many streams at once that raises is repeated without the stream that makes it raise.

That stream is set aside: whoever did the work gets nothing more of it, and what it does not get is counted. The work
must be done as a whole or not at all: a call that raised has changed nothing. So the others' results are the same as
without that stream. Finding it by halves costs a few dozen calls, once a stream.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from .._model.types import StreamInfo

if TYPE_CHECKING:
    from .._model.blocks import BlockBatch
    from .._threads.incidents import Incidents

__all__ = ["FAILURES_UNTIL_QUARANTINE", "StreamExclusion"]

_log = logging.getLogger("strep")

FAILURES_UNTIL_QUARANTINE: Final = 3
"""Streams in a row that a sink raised for: after so many it will raise for the next one too."""


class _Rows(Protocol):
    """Something of many streams, a row each: a FrameBatch, for instance."""

    def __len__(self) -> int: ...

    def stream(self, i: int) -> StreamInfo:
        """Whose row ``i`` is."""

    def take(self, some: slice | npt.NDArray[np.int64]) -> Self:
        """Some of the rows."""


_T = TypeVar("_T")
_R = TypeVar("_R", bound=_Rows)


class StreamExclusion:
    """Finds the streams that make one sink's work raise, and keeps them from it.

    ``place``           names the sink where faults are counted
    ``streams``         how many were set aside so far
    ``fresh``           streams that were set aside since :meth:`take_fresh`
    ``dropped_frames``  sample frames that this has cost so far
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.incidents: Incidents | None = None
        self.streams = 0
        self.dropped_frames = 0
        self.fresh: list[StreamInfo] = []
        self._serials: set[int] = set()  # of streams that are set aside and have not ended

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
        """Report an error. ``place``: where it happened, if not in this sink."""
        place = self.place if place is None else place
        if self.incidents is not None:
            self.incidents.fault(place, error, stream=stream)
        else:
            _log.error("fault contained in %s", place, exc_info=error)

    def forget(self, stream: StreamInfo) -> None:
        """The stream has ended."""
        self._serials.discard(stream.serial)

    def rest_of(self, batch: BlockBatch) -> BlockBatch:
        """The batch without streams that are set aside. Their frames count as dropped."""
        if not self._serials:
            return batch
        rest = batch.without(self._serials)
        if rest is not batch:
            self.dropped_frames += int(batch.frames.sum()) - int(rest.frames.sum())
        return rest

    def take_fresh(self, batch: BlockBatch | None) -> list[StreamInfo]:
        """Streams that were set aside since the last call. Their frames in ``batch``, which the sink was taking
        meanwhile, count as dropped."""
        fresh, self.fresh = self.fresh, []
        if batch is not None:
            serials = {stream.serial for stream in fresh}
            frames = zip(batch.streams, batch.frames.tolist(), strict=True)
            self.dropped_frames += sum(n for stream, n in frames if stream.serial in serials)
        return fresh

    def figures(self) -> dict[str, int]:
        """For a sink's report: ``dropped_frames``, and ``set_aside`` if any stream was."""
        dropped = {"dropped_frames": self.dropped_frames}
        return {**dropped, "set_aside": self.streams} if self.streams else dropped

    # --- work -------------------------------------------------------------------------------------------------------

    def blocks(self, batch: BlockBatch, work: Callable[[BlockBatch], _T]) -> list[tuple[BlockBatch, _T]]:
        """Do ``work`` with the batch; if it raises, with parts of it, without the streams that make it raise. Returns
        the parts, in order, and what ``work`` returned for each. Raises what the decoding of the batch raised: no
        stream is to blame for that."""
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

    def frames(self, batch: _R, work: Callable[[_R], _T]) -> list[_T]:
        """The same with frames, a row for each stream."""
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
