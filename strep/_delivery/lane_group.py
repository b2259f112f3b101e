"""Sinks that take audio together, a little later: one thread for all of them, fed with few large batches.

A batch costs each analyzer much the same whatever is in it, and threads that wait for each other cost more than they
gain. So sinks with ``gather_ms`` share a thread, and what came within that time comes to them as one batch. When they
cannot keep up, audio is lost for all of them, counted in each; before that happens, it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from .._model.blocks import BlockBatch
from .._model.events import Ended, Event
from .._model.types import StreamEvent
from .._threads.incidents import Incidents
from .._threads.worker_queue import WorkerQueue
from .gathering import Gathering
from .lane import QUEUE_BYTES, Lane, size_of

__all__ = ["LaneGroup"]

_TOLD: Final = 0.5  # of the queue, from which on it is told that they are late
_WELL: Final = 0.1  # and down to which it is told that they no longer are


class LaneGroup:
    """``lanes`` are of sinks with a ``gather_ms``, of any length; each is served by its own. Takes the place of these
    lanes where events are handed out."""

    def __init__(self, lanes: Sequence[Lane], incidents: Incidents, lossless: bool) -> None:
        self._lanes = list(lanes)
        self._incidents = incidents
        self._lossless = lossless
        self._late = False
        times = sorted({lane.gather_ms for lane in lanes})
        self._gatherings = [(Gathering(ms), [lane for lane in lanes if lane.gather_ms == ms]) for ms in times]
        self._patience_s = min(times) / 1e3
        self._queue: WorkerQueue[Event] = WorkerQueue(
            self._work,
            name="strep-analysis",
            limit=QUEUE_BYTES,
            on_fault=partial(incidents.fault, "dispatch"),
            between=self._between,
            finish=self._finish,
        )
        for lane in lanes:
            lane.join(self._queue)

    @property
    def wants_audio(self) -> bool:
        return any(lane.wants_audio for lane in self._lanes)

    @property
    def conceals(self) -> bool | str:
        return any(lane.conceals for lane in self._lanes)

    def put(self, event: Event) -> None:
        lanes = [lane for lane in self._lanes if lane.failed is None]
        if isinstance(event, StreamEvent):
            lanes = [lane for lane in lanes if lane.hears_events]
        if not lanes:
            return
        if isinstance(event, Ended):
            for lane in lanes:
                lane.expect(event)
        taken = self._queue.put(event, size_of(event), wait=self._lossless)
        if not isinstance(event, BlockBatch):
            return
        if not taken:
            for lane in lanes:
                lane.lose(event)
        if not self._lossless:
            self._tell(self._queue.size / QUEUE_BYTES)

    def _tell(self, full: float) -> None:
        if not self._late and full >= _TOLD:
            self._late = True
            text = "analyzers are late: what they cannot keep up with will be left out, and counted (dropped_frames)"
            self._incidents.tell("analysis_late", text)
        elif self._late and full <= _WELL:
            self._late = False
            self._incidents.tell("analysis_recovered", "analyzers keep up again")

    # --- in the thread ----------------------------------------------------------------------------------------------

    def _work(self, event: Event) -> None:
        for gathering, lanes in self._gatherings:
            self._hand_on(gathering.take(event), lanes)

    def _between(self, worked: bool) -> float | None:
        """What waits does not wait for packets that do not come."""
        if not worked:
            self._flush()
        return self._patience_s if any(gathering.waits for gathering, _ in self._gatherings) else None

    def _finish(self, left: list[Event]) -> None:
        self._flush(whole=True)

    def _flush(self, *, whole: bool = False) -> None:
        for gathering, lanes in self._gatherings:
            self._hand_on(gathering.flush(whole=whole), lanes)

    def _hand_on(self, events: list[Event], lanes: list[Lane]) -> None:
        for event in events:
            for lane in lanes:
                if lane.failed is None and (lane.hears_events or not isinstance(event, StreamEvent)):
                    lane.serve(event)
