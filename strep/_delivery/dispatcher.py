"""Engine events to sinks: in order, each sink on its own, none able to hurt another."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from .._codecs.comfort import comfort_noise
from .._model.blocks import BlockBatch
from .._model.events import Ended, Event, Fault, Limited, Notice
from .._model.redacted import redacted
from .._model.report import StreamReport
from .._model.types import StreamEvent, StreamInfo
from .._threads.archive import Archive
from .._threads.incidents import Incidents
from ..sinks.base import BaseSink
from .conceal import Concealer
from .lane import Lane
from .lane_group import LaneGroup
from .ordered_work import OrderedWork

__all__ = ["Dispatcher"]

_log = logging.getLogger("strep")
_KEPT_REPORTS: Final = 100_000  # of streams that have ended
_LIMITS: Final = {
    "streams": "there are as many streams as may be: new ones are refused, one of them from {}",
    "source": "{} begins new streams faster than may be: some of them are refused",
}


class Dispatcher:
    """Hands events to sinks and keeps the final figures of streams that have ended.

    ``lossless``   a slow sink holds the caller up instead of losing data (replays)
    ``redact``     events of key presses do not say which key it was
    ``concealer``  fills gaps, once for all sinks that want it, in the thread of the first that asks
    ``ended``      reports of streams that have ended
    """

    def __init__(
        self,
        sinks: Sequence[BaseSink],
        *,
        lossless: bool = False,
        redact: bool = False,
        concealer: Concealer | None = None,
        incidents: Incidents | None = None,
    ) -> None:
        self.incidents = incidents or Incidents(time.time_ns)
        self._concealer = concealer or Concealer(comfort_noise, self._on_conceal_fault)
        self._order = OrderedWork()
        self._redact = redact
        self._lanes = [Lane(sink, self.incidents, lossless) for sink in sinks]
        together = [lane for lane in self._lanes if lane.gather_ms]
        self._ways: list[Lane | LaneGroup] = [lane for lane in self._lanes if not lane.gather_ms]
        if together:
            self._ways.append(LaneGroup(together, self.incidents, lossless))
        for lane in self._lanes:
            lane.guarded.connect(self.publish)
        self.ended: Archive[StreamReport] = Archive(_KEPT_REPORTS)

    def handle(self, events: list[Event]) -> None:
        """Hand events to the sinks, in order. Never raises: an event that makes something raise costs no other one."""
        for event in events:
            try:
                self._handle(event)
            except Exception as error:
                self.incidents.fault("dispatch", error)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Notice):
            _log.warning("%s %s: %s", event.stream.name, event.stream.stem, event.text)
            return
        if isinstance(event, Fault):
            self.incidents.fault(event.place, event.error, stream=event.stream, packets=event.packets)
            return
        if isinstance(event, Limited):
            self.incidents.tell("limited", _LIMITS[event.limit].format(event.address), address=event.address)
            return
        if isinstance(event, StreamEvent):
            self.publish(event)
            return
        if isinstance(event, BlockBatch) and any(way.conceals for way in self._ways):
            event.fill = self._order.add(partial(self._fill, event))
        for way in self._ways:
            if way.wants_audio or not isinstance(event, BlockBatch):
                way.put(event)
        if isinstance(event, Ended):
            self.ended.add(event.stream.serial, event.report)

    def _on_conceal_fault(self, stream: StreamInfo, error: Exception) -> None:
        self.incidents.fault("conceal", error, stream=stream)

    def _fill(self, batch: BlockBatch) -> BlockBatch | None:
        try:
            filled = self._concealer.fill(batch)
        except Exception as error:
            self.incidents.fault("conceal" if batch.error is None else "decode", error)
            return None  # its gaps stay
        return None if filled is batch else filled

    def publish(self, event: StreamEvent) -> None:
        """Tell every sink of an event; from any thread."""
        if self._redact:
            event = redacted(event)
        for way in self._ways:
            way.put(event)

    @property
    def crowded(self) -> bool:
        """Whether a sink is so far behind that whoever can wait should."""
        return any(lane.crowded for lane in self._lanes)

    def settle(self) -> None:
        """Wait until sinks that write behind have room again (replays: nothing may be dropped)."""
        for lane in self._lanes:
            if lane.failed is None:
                lane.guarded.wait_for_room()

    def close(self, timeout_s: float) -> None:
        """Finish all sinks side by side; then those that hear no audio, for they are told what the others find."""
        for audio in (True, False):
            lanes = [lane for lane in self._lanes if lane.wants_audio is audio]
            threads = [threading.Thread(target=lane.close, args=(timeout_s,), daemon=True) for lane in lanes]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def reports(self) -> list[dict[str, Any]]:
        return [lane.report() for lane in self._lanes]

    def settled(self, stream: StreamInfo) -> bool:
        """Whether all sinks are done with a stream that has ended: its figures and files are complete."""
        return all(lane.settled(stream) for lane in self._lanes)

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        """What the sinks add to a stream's entry in the summary."""
        found: dict[str, Any] = {}
        for lane in self._lanes:
            found |= lane.guarded.figures(stream)
        return found

    def files(self, stream: StreamInfo) -> list[str]:
        return [path for lane in self._lanes for path in lane.guarded.files(stream)]
