"""What is done to audio before it is written: gaps are concealed, keys are muted. Used by one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._model.blocks import BlockBatch
    from ..._model.types import StreamInfo
    from ..muter import Muter

__all__ = ["Treatment"]


class Treatment:
    """``conceal``: gaps are filled. ``muter``: takes keys out; None: they stay. ``fault`` hears of exceptions that were
    contained, ``lost`` of frames that this cost."""

    def __init__(
        self,
        muter: Muter | None,
        conceal: bool,
        *,
        fault: Callable[[Exception, StreamInfo | None], object],
        lost: Callable[[int], object],
    ) -> None:
        self._muter = muter
        self._conceal = conceal
        self._fault = fault
        self._lost = lost

    def process(self, batch: BlockBatch) -> BlockBatch | None:
        """What is ready to be written, of the streams that ``batch`` is of."""
        if self._conceal:
            try:
                batch = batch.filled
            except Exception as error:  # then it is written as it was received
                self._fault(error, None)
        if self._muter is None:
            return batch
        before = self._muter.aside.dropped_frames
        try:
            ready = self._muter.process(batch)
        except Exception as error:  # there are no samples to look for keys in
            self._fault(error, None)
            self._lost(int(batch.frames.sum()))
            return None
        self._lost(self._muter.aside.dropped_frames - before)
        return ready

    def end(self, stream: StreamInfo) -> BlockBatch | None:
        """What was held back of a stream that has ended."""
        if self._muter is None:
            return None
        before = self._muter.aside.dropped_frames
        rest = self._muter.end(stream)
        self._lost(self._muter.aside.dropped_frames - before)
        return rest

    @property
    def streams(self) -> list[StreamInfo]:
        """Streams of which something is held back."""
        return [] if self._muter is None else self._muter.streams
