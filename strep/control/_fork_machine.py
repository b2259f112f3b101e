"""A fork's state in time: its events, its deadline and what is to be done, on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ._fork_state import NEVER, ForkLimits, ForkState, step
from ._fork_words import Action, Event, Tick

__all__ = ["ForkMachine"]


class ForkMachine:
    """``state`` changes by ``feed`` only, from ``begin`` on; ``act`` carries out each action. When a deadline comes,
    ``before_tick`` may feed what has happened meanwhile. shared: others may have sent the first start too.
    """

    def __init__(
        self, limits: ForkLimits, act: Callable[[Action], None], before_tick: Callable[[], None], *, shared: bool
    ) -> None:
        self.state = ForkState(limits, shared=shared)
        self._act = act
        self._before_tick = before_tick
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Time is this loop's."""
        self._loop = loop

    def feed(self, event: Event) -> None:
        """Something has happened. Before ``begin``, and when the fork is over, it does not matter any more."""
        if self._loop is None or self.state.over:
            return
        self.state, actions = step(self.state, event, self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.state.deadline_s < NEVER:
            self._timer = self._loop.call_at(self.state.deadline_s, self._tick)
        for action in actions:
            self._act(action)

    def _tick(self) -> None:
        self._before_tick()
        self.feed(Tick())
