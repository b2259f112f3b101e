"""What a sink is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from .._model.blocks import BlockBatch
    from .._model.report import StreamReport
    from .._model.types import StreamEvent, StreamInfo
    from .._threads.incidents import Incidents

__all__ = ["HOOKS", "BaseSink", "Sink", "SinkAdapter", "as_sink", "class_name", "hears_events"]


@runtime_checkable
class Sink(Protocol):
    """Takes what the engine makes ready. Calls come in order, one at a time.

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
    """A sink that does nothing: override what you need.

    These are all the hooks that there are, with what holds for a sink that does not override them. They are called in
    the sink's thread, or in the event loop's if it is ``inline``, unless a docstring says otherwise.
    """

    kind: str = "base"
    """What reports and fault counters call sinks of this class."""

    inline: bool = False
    """True: this sink never blocks; it is called in the event loop's thread."""

    prompt: bool = True
    """False: blocks may come some 100 ms later than the latency asks for, which costs less."""

    gather_ms: float = 0
    """More than 0: the sink takes audio late, together with that of so many ms of arrival, which costs far less where
    each batch costs much the same. Such sinks share a thread. It is looked at once, before anything else."""

    wants_audio: bool = True
    """False: :meth:`blocks` is not called. When no sink wants audio, none is made."""

    repeatable: bool = False
    """True: when :meth:`blocks` raises, it has taken nothing: it may be called again with parts of the same batch."""

    concealment: bool | Literal["later"] = False
    """True: gaps in the blocks are concealed (``BlockBatch.filled``): for ears and models. "later": the sink takes
    ``batch.filled`` itself, of every batch and in order. May change at any time."""

    def report_to(self, incidents: Incidents) -> None:
        """Called once, before anything else: where to report faults and states of the sink's own."""

    def connect(self, publish: Callable[[StreamEvent], object]) -> None:
        """Called once, before any stream: ``publish`` takes events that this sink finds, from any thread. Every sink
        hears them (:meth:`event`), and so does ``strep.Receiver.events()``."""

    def stream_started(self, stream: StreamInfo) -> None:
        """A stream was admitted. ``stream.codec`` may still be None."""

    def blocks(self, batch: BlockBatch) -> None:
        """Audio of any number of streams became ready."""

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        """No more blocks of this stream will come. ``report`` holds its final figures."""

    def event(self, event: StreamEvent) -> None:
        """Something happened in a stream: a key was pressed, an analyzer found something."""

    def wait_for_room(self) -> None:
        """Block until a sink that writes behind has room again. Called between batches of a replay, which may wait, so
        that nothing is dropped there. From the thread that feeds the sinks."""

    def settled(self, stream: StreamInfo) -> bool:
        """Whether this sink has nothing more to do for a stream that has ended: its figures and files are complete.
        Called from any thread, any number of times, after :meth:`stream_ended` has returned."""
        return True

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        """What the stream's entry in ``summary.json`` gets from this sink, JSON-ready. Called from any thread, when the
        stream has ended."""
        return {}

    def files(self, stream: StreamInfo) -> list[str]:
        """Paths written for a stream, relative to the sink's directory. Called from any thread; complete after
        :meth:`close`."""
        return []

    def recording_directories(self) -> list[Path]:
        """Directories of WAV files of this sink. A supervisor asks for them when its workers start: when one dies, the
        files that it left unfinished there are completed."""
        return []

    def close(self, timeout_s: float) -> None:
        """Finish everything, within ``timeout_s`` seconds. Blocking is allowed here: it is called in a thread."""

    def report(self) -> dict[str, Any]:
        """JSON-ready figures. Called from any thread, also while the sink works and after :meth:`close`."""
        return {"kind": self.kind, "failed": None, "dropped_frames": 0}


HOOKS: Final = tuple(name for name in vars(BaseSink) if not name.startswith("_"))
"""Names of all hooks of :class:`BaseSink`: whatever wraps a sink must pass on each of them."""


class SinkAdapter(BaseSink):
    """A :class:`Sink` that does not derive from BaseSink: its own hooks, and BaseSink's defaults for those it lacks.

    The only place where hooks are looked up by name. They are looked up at each call, as a sink may change them.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink


def _adapted(name: str, default: Any) -> property:
    def find(adapter: SinkAdapter) -> Any:
        found = getattr(adapter.sink, name, None)
        if found is not None:
            return found
        if name == "kind":
            return type(adapter.sink).__name__
        return default.__get__(adapter) if callable(default) else default

    return property(find)


for _name in HOOKS:
    setattr(SinkAdapter, _name, _adapted(_name, getattr(BaseSink, _name)))


def as_sink(sink: Sink) -> BaseSink:
    """The sink with all hooks: itself, if it is a BaseSink. To be called once, where a sink is handed in."""
    return sink if isinstance(sink, BaseSink) else SinkAdapter(sink)


def hears_events(sink: BaseSink) -> bool:
    """Whether it does anything when it is told of events."""
    return isinstance(sink, SinkAdapter) or type(sink).event is not BaseSink.event


def class_name(sink: BaseSink) -> str:
    """What a sink's author calls it."""
    return type(sink.sink if isinstance(sink, SinkAdapter) else sink).__name__
