"""What analyzers have in common: events that they tell, figures per stream, arrays of all streams."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from ..isolating import IsolatingSink

if TYPE_CHECKING:
    from ..._model.types import StreamEvent

__all__ = ["Analyzer"]


class Analyzer(IsolatingSink):
    """A sink that listens. What it finds it tells with :meth:`tell`, and everybody hears it: ``on_event`` of its own,
    ``strep.Receiver.events()``, ``Stream.events()``, ``--json``.

    Gets audio with gaps concealed, from a thread of its own; ``mask`` says what is not real.
    """

    kind = "analyzer"
    concealment: bool | Literal["later"] = True
    prompt = False

    def __init__(self, on_event: Callable[[StreamEvent], object] | None = None) -> None:
        super().__init__()
        self.on_event = on_event
        self._publish: Callable[[StreamEvent], object] | None = None  # the dispatcher's
        self._lock = threading.Lock()

    def connect(self, publish: Callable[[StreamEvent], object]) -> None:
        """For the dispatcher: where events go beside ``on_event``."""
        self._publish = publish

    def tell(self, event: StreamEvent) -> None:
        """Publish an event that this analyzer found."""
        if self.on_event is not None:
            try:
                self.on_event(event)
            except Exception as error:  # the user's: it costs nobody anything but that call
                self.aside.fault(event.stream, error)
        if self._publish is not None:
            self._publish(event)
