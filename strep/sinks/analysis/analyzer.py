"""What all analyzers have in common: events that they tell, figures of each stream, arrays of all streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy.typing as npt

from ..isolating import IsolatingSink

if TYPE_CHECKING:
    from ..._model.types import StreamEvent, StreamInfo

__all__ = ["Analyzer"]


class Analyzer(IsolatingSink):
    """A sink that listens to all streams at once.

    What it finds it tells in three ways, the same for every analyzer:

    events            for what happens at a moment, of the kinds in ``event_kinds``. They go to ``on_event``, to
                      ``strep.Receiver.events()``, ``Stream.events()`` and ``--json``
    :meth:`arrays`    the state of all live streams now, one array for each quantity
    :meth:`figures`   what stands in a stream's entry of ``summary.json`` when it has ended, under one key

    Constructors take what the analyzer measures first, then ``on_event``, then options by keyword; all of them have
    defaults. ``on_event(event)`` gets a :class:`strep.StreamEvent`, in the analyzers' thread. When it raises, that
    is counted as a fault and costs nothing but this one call.

    Analyzers get audio with gaps concealed, unless their text says otherwise, from a thread that all of them share.
    ``gather_ms`` is how much of it comes at once, in ms of arrival: what they find is the same whatever it is, but is
    told so much later, and costs less. Set it before the receiver is made: ``meter.gather_ms = 50``; with 0
    the analyzer gets each batch as it comes, in a thread of its own. They are thread-safe. When a stream makes an
    analyzer raise, that stream is set aside and the others go on.
    """

    kind = "analyzer"
    event_kinds: ClassVar[tuple[str, ...]] = ()  # StreamEvent.kind of the events that it tells
    concealment: bool | Literal["later"] = True
    prompt = False
    gather_ms = 200.0

    def __init__(self, on_event: Callable[[StreamEvent], object] | None = None) -> None:
        super().__init__()
        self.on_event = on_event
        self._publish: Callable[[StreamEvent], object] | None = None  # the dispatcher's
        self._lock = threading.Lock()

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All live streams as arrays whose first axis is the stream, in no particular order. ``serial`` int64 (n,) is
        always there: ``StreamInfo.serial`` of each."""
        raise NotImplementedError

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        """What stands in the stream's entry of ``summary.json``: JSON-ready, under one key; empty if nothing is known
        of the stream."""
        return {}

    def connect(self, publish: Callable[[StreamEvent], object]) -> None:
        """For the dispatcher: where events go beside ``on_event``."""
        self._publish = publish

    def tell(self, event: StreamEvent) -> None:
        """Tell one event to everybody who listens."""
        if self.on_event is not None:
            try:
                self.on_event(event)
            except Exception as error:  # the user's: it costs nobody anything but that call
                self.aside.fault(event.stream, error)
        if self._publish is not None:
            self._publish(event)

    def _tell_all(self, events: Iterable[StreamEvent]) -> None:
        """Tell events, in order. Call it without holding the lock: listeners may ask the analyzer."""
        for event in events:
            self.tell(event)
