"""Datagrams into the engine, its events to the dispatcher, and what the engine raises contained."""

from __future__ import annotations

from collections.abc import Callable

from .._delivery.dispatcher import Dispatcher
from .._engine.engine import Engine
from .._engine.release import Release
from .._model.datagrams import DatagramBatch, merged
from .._model.events import Event
from .recorder import Recorder

__all__ = ["EngineDriver"]


class EngineDriver:
    """Calls the engine for everyone in a receiver, so that each call is contained and its events are handed on.

    ``now_ns`` is the clock of arrival times; ``recorder`` writes what was received, None: nobody does.
    """

    def __init__(
        self, engine: Engine, dispatcher: Dispatcher, now_ns: Callable[[], int], recorder: Recorder | None = None
    ) -> None:
        self.engine = engine
        self.last_datagram_ns: int | None = None
        """When the last datagram came, UTC ns; None: none has come."""
        self._dispatcher = dispatcher
        self._now_ns = now_ns
        self._recorder = recorder

    @property
    def live_streams(self) -> int:
        """How many streams live."""
        return self.engine.live_streams

    def next_deadline_ns(self) -> int | None:
        """When :meth:`advance` is due at the latest; None: not before the next datagram."""
        return self.engine.next_deadline_ns()

    def take_all(self, received: list[DatagramBatch], release: Release) -> int:
        """Take what several sockets gave, in the order in which it arrived; returns how many datagrams."""
        try:
            batches = merged(received)
        except Exception as error:
            self._dispatcher.incidents.fault("pump", error)
            batches = received
        for batch in batches:
            self.take(batch, release)
        return sum(map(len, received))

    def take(self, batch: DatagramBatch, release: Release | None = None) -> None:
        """Take a batch. ``release`` None: as before."""
        self.do(lambda: self.engine.receive(batch, self._now_ns(), release), len(batch))
        self.last_datagram_ns = int(batch.arrival_ns[-1])
        if self._recorder is not None:
            self._recorder.write(batch)  # after the engine, which may have clamped arrival times

    def advance(self, until_ns: int, release: Release | None = None) -> None:
        """Everything that arrived before ``until_ns`` has been taken."""
        self.do(lambda: self.engine.advance(until_ns, release))

    def do(self, step: Callable[[], list[Event]], datagrams: int = 0) -> None:
        """Have the engine do something, with so many datagrams. If it raises, no more than those are lost: they are
        accounted as dropped, unless the engine has accounted for them."""
        before = self.engine.accounts.datagrams
        try:
            events = step()
        except Exception as error:
            lost = self.engine.write_off(before + datagrams)
            self._dispatcher.incidents.fault("engine", error, packets=lost)
            return
        if events:
            self._dispatcher.handle(events)
