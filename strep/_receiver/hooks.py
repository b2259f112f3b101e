"""What a program that runs a receiver inside something larger (a worker process) is told by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .._delivery.dispatcher import Dispatcher
from .._engine.engine import Engine
from .._threads.incidents import Incident

__all__ = ["Hooks", "Interior"]


@dataclass(frozen=True, slots=True)
class Interior:
    """What is inside a receiver that has started. ``dispatcher.incidents`` is where faults are reported."""

    engine: Engine
    dispatcher: Dispatcher


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Hooks:
    """Functions that a receiver calls; each of them does nothing by default. Instead of subclasses.

    ``started``          with what is inside, in the loop's thread, before the first datagram is read.
    ``received_all``     at the end, in the loop's thread: nothing more will be received, and no stream has been ended
                         for that reason yet.
    ``incident``         with each incident, in the thread where it happens.
    ``stalled``          with what is wrong, in a thread, once: media have waited for ``stalled_after_s`` seconds, and
                         nothing was read.
    """

    started: Callable[[Interior], object] = _nothing
    received_all: Callable[[], object] = _nothing
    incident: Callable[[Incident], object] = _nothing
    stalled: Callable[[str], object] = _nothing
    stalled_after_s: float = float("inf")
