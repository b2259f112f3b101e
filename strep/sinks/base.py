"""What a sink is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from .._model.blocks import BlockBatch
    from .._model.report import StreamReport
    from .._model.types import StreamEvent, StreamInfo
    from .._threads.incidents import Incidents

__all__ = ["BaseSink", "Sink"]


@runtime_checkable
class Sink(Protocol):
    """Eats what the engine makes ready. Calls come in order, one at a time.

    They come from a thread that the receiver keeps for this sink, behind a bounded queue; a slow sink loses blocks of
    its own (counted), nobody else's. A sink whose ``inline`` is true promises never to block and is called in the event
    loop's thread.

    A sink may raise; no other sink notices. The stream that it raised for is set aside: the sink gets no more blocks
    and events of it, but is told its end, and all other streams go on. What it does not get is in ``dropped_frames``,
    to the frame. When ``blocks`` raises for a batch of several streams, a sink that is ``repeatable`` is given parts of
    it again until the stream is found: nothing of the others is lost. Any other sink may have taken half of the batch,
    and no block is given twice: that batch is counted as dropped, whole, and for a while it gets each stream's blocks
    in a batch of their own, so that the stream is found when it raises again. A sink that raises for three streams, and
    for none between them does not, is quarantined: it gets no more calls and is reported as failed.
    """

    def stream_started(self, stream: StreamInfo) -> None:
        """A stream was admitted. ``stream.codec`` may still be None."""

    def blocks(self, batch: BlockBatch) -> None:
        """Audio of any number of streams became ready."""

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        """No more blocks of this stream will come. ``report`` holds its final figures."""

    def close(self, timeout_s: float) -> None:
        """Finish everything, within ``timeout_s``; blocking is allowed here (it is called in a thread)."""

    def report(self) -> dict[str, Any]:
        """JSON-ready figures: at least ``{"kind": str, "failed": str | None, "dropped_frames": int}``."""

    def files(self, stream: StreamInfo) -> list[str]:
        """Paths written for a stream, relative to the sink's directory; valid after ``close``."""


class BaseSink:
    """A sink that does nothing: override what you need."""

    kind = "base"
    inline = False  # True: never blocks, call it in the event loop's thread
    prompt = True  # False: blocks may come some 100 ms later than the latency asks for, which costs less
    wants_audio = True  # False: blocks() is not for this sink; when none wants them they are not made
    # True: what blocks() raised for, it has not taken: it may be given parts of the same batch again
    repeatable = False
    # True: blocks come with gaps concealed (``BlockBatch.filled``): for ears and models
    # "later": the sink takes ``batch.filled`` itself, of every batch and in order
    concealment: bool | Literal["later"] = False

    def report_to(self, incidents: Incidents) -> None:
        """Called once, before anything else: where to tell of faults and of states of the sink's own."""

    def stream_started(self, stream: StreamInfo) -> None: ...

    def blocks(self, batch: BlockBatch) -> None: ...

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None: ...

    def event(self, event: StreamEvent) -> None:
        """Something happened in a stream: key presses, and what analyzers found."""

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        """What is to stand in the stream's entry in ``summary.json``; asked when the stream has ended."""
        return {}

    def close(self, timeout_s: float) -> None: ...

    def report(self) -> dict[str, Any]:
        return {"kind": self.kind, "failed": None, "dropped_frames": 0}

    def files(self, stream: StreamInfo) -> list[str]:
        return []
