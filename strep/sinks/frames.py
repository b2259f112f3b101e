"""All streams' frames at once as one matrix: for models that take batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from .._model.exceptions import SinkError
from .analysis.bank import FrameBank
from .analysis.frame_batch import FrameBatch
from .analysis.gathered_frames import FrameGatherer
from .exclusion import FAILURES_UNTIL_QUARANTINE
from .isolating import IsolatingSink

if TYPE_CHECKING:
    from .._model.blocks import BlockBatch
    from .._model.report import StreamReport
    from .._model.types import StreamInfo

__all__ = ["FrameSink"]

_SINGLE_BATCHES: Final = 64  # given stream by stream after one that raised; after each further one four times as many


class FrameSink(IsolatingSink):
    """Calls ``function(frames)`` with a frame of every stream that has a whole one, as a :class:`FrameBatch`.

    ``n``      samples of a frame
    ``hop``    a frame begins every so many samples, 1 to ``n``; None: ``n``
    ``rate``   Hz; streams of other rates are resampled to it, several channels are mixed to one
    ``dtype``  "float32", in [-1, 1), or "int16"

    ``frames.samples`` is one contiguous array (k, n). ``frames.row`` (k,) says whose they are: a stream keeps its row
    while it lives, so a model's state may be kept in arrays by row. Gaps are concealed up to 1 s; ``frames.real`` (k,)
    is the share of samples that were received. The last frame of a stream is padded with zeros.

    When the function raises for frames of several streams it is taken to have done its work in part: those frames are
    gone (``dropped_frames`` counts ``hop`` samples for each), and for a while it gets each stream's frames by
    themselves. A stream that it then raises for is set aside. After three such streams in a row the sink is
    quarantined.

    ``on_started(stream)`` comes before a stream's first frame: clear the model's state of ``stream.index`` there.
    ``on_ended(stream, report)`` comes after its last. All are called from this sink's own thread, one at a time. Raises
    ConfigurationError if n, hop, rate or dtype make no sense.
    """

    kind = "frames"
    concealment = True

    def __init__(
        self,
        function: Callable[[FrameBatch], object],
        n: int = 512,
        hop: int | None = None,
        rate: int = 16_000,
        dtype: Literal["float32", "int16"] = "float32",
        on_started: Callable[[StreamInfo], object] | None = None,
        on_ended: Callable[[StreamInfo, StreamReport], object] | None = None,
    ) -> None:
        super().__init__()
        self._bank = FrameBank(n, hop, rate, dtype, self.aside)
        self._gatherer = FrameGatherer(self._bank)
        self._function = function
        self._on_started = on_started
        self._on_ended = on_ended
        self._singly = 0
        self._next_singly = _SINGLE_BATCHES
        self._in_a_row: set[int] = set()  # serials of streams it raised for since it last did not

    def stream_started(self, stream: StreamInfo) -> None:
        self._bank.reset(stream.index)
        if self._on_started is not None:
            self._on_started(stream)

    def _take(self, batch: BlockBatch) -> None:
        self._give(self._gatherer.push(batch))

    def _abandon(self, stream: StreamInfo) -> None:
        self._bank.reset(stream.index)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        """``on_ended`` hears of streams that were set aside too."""
        super().stream_ended(stream, report)
        if self._on_ended is not None:
            self._on_ended(stream, report)

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        self._give(self._bank.flush(stream.index))

    def _give(self, batches: list[FrameBatch]) -> None:
        for frames in batches:
            if self._singly:
                self._singly -= 1
                for i in range(len(frames)):
                    self._call(frames.take(slice(i, i + 1)))
            else:
                self._call(frames)

    def _call(self, frames: FrameBatch) -> None:
        if self.aside.fresh and len(frames) == 1 and frames.stream(0) in self.aside:
            return
        try:
            self._function(frames)
        except Exception as error:
            if len(frames) > 1:
                self.aside.fault(None, error)
                self.aside.dropped_frames += len(frames) * self._bank.hop
                self._singly, self._next_singly = self._next_singly, 4 * self._next_singly
                return
            stream = frames.stream(0)
            self.aside.put(stream, error)
            self._in_a_row.add(stream.serial)
            if len(self._in_a_row) >= FAILURES_UNTIL_QUARANTINE:
                raise SinkError from error
        else:
            if self._in_a_row:
                self._in_a_row.clear()
