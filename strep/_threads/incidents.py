"""What happens to the receiver itself, and not in a stream: faults that were contained, disks that are full.

Faults are counted by place, and the first one of each place is logged with its traceback. Whoever listens is told of
all incidents. From any thread.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._model.types import StreamInfo

__all__ = ["Incident", "Incidents"]

_log = logging.getLogger("strep")


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happened to the receiver, not in a stream.

    ``kind``     "fault", "disk_paused", "disk_resumed", "stalled", "recovered", ...
    ``time_ns``  UTC nanoseconds on the receiver's clock
    ``text``     a sentence for people
    ``data``     more of it, JSON-ready
    """

    kind: str
    time_ns: int
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {"event": self.kind, "time_ns": self.time_ns, "text": self.text, **self.data}


class Incidents:
    """``now_ns`` is the receiver's clock. A fault's place is a short constant of ours ("engine", "decode", "sink wav"),
    never something that strangers sent, as places are counted and logged by name."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._faults: Counter[str] = Counter()
        self._listeners: list[Callable[[Incident], object]] = []

    def listen(self, listener: Callable[[Incident], object]) -> None:
        """Call ``listener`` with every incident from now on, in the thread where it happens."""
        self._listeners.append(listener)

    def faults(self) -> dict[str, int]:
        """How many exceptions were contained so far, by place."""
        with self._lock:
            return dict(sorted(self._faults.items()))

    def fault(self, place: str, error: BaseException, *, stream: StreamInfo | None = None, packets: int = 0) -> None:
        """An exception was contained at ``place``; it cost ``packets``, those of ``stream`` if that is known."""
        with self._lock:
            self._faults[place] += 1
            first = self._faults[place] == 1
        if not first:
            return  # only counted: strangers may cause it any number of times
        what = f"{type(error).__name__}: {error}"
        of = f" of stream {stream.name} {stream.stem}" if stream is not None else ""
        # a disk that is full or gone is no fault of the code: what it says suffices
        trace = what if isinstance(error, OSError) else "".join(traceback.format_exception(error))
        _log.error("fault contained in %s%s, the rest goes on; further ones are only counted\n%s", place, of, trace)
        data: dict[str, Any] = {"place": place, "error": what, "packets": packets}
        if stream is not None:
            data |= {"name": stream.name, "stream": stream.stem}
        self.tell("fault", f"fault contained in {place}{of}: {what}", **data)

    def tell(self, kind: str, text: str, **data: Any) -> None:
        """Tell all listeners of an incident."""
        incident = Incident(kind, self._now_ns(), text, data)
        for listener in list(self._listeners):
            try:
                listener(incident)
            except Exception:
                _log.exception("a listener to incidents failed")
