"""The forks of this process, and the webhooks that concern them."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Final

from .._model.exceptions import ConfigurationError
from ._fork import Fork
from ._fork_state import ForkPhase
from .events import CallHangup, WebhookEvent

__all__ = ["ForkRegistry"]

_CALL_IDS_KEPT: Final = 10_000


class ForkRegistry:
    """All forks that are under way, by call_control_id and call_leg_id. ``control.forks`` is one; give its
    :meth:`webhook` every verified event, as ``webhook_app(public_key, control.forks.webhook)`` does.

    Events of calls that are not forked (yet) are fine: what they tell of a call's ids is kept for its fork.
    """

    def __init__(self) -> None:
        self._forks: dict[str, Fork] = {}
        self._legs: OrderedDict[str, uuid.UUID] = OrderedDict()  # by call_control_id
        self._controls: dict[uuid.UUID, str] = {}

    def __len__(self) -> int:
        return len(self._forks)

    def __iter__(self) -> Iterator[Fork]:
        return iter(list(self._forks.values()))

    def get(self, call_control_id: str | None = None, call_leg_id: uuid.UUID | None = None) -> Fork | None:
        """The fork of a call that is under way."""
        if call_control_id is None and call_leg_id is not None:
            call_control_id = self._controls.get(call_leg_id)
        found = None if call_control_id is None else self._forks.get(call_control_id)
        if found is None and call_leg_id is not None:
            found = next((fork for fork in self._forks.values() if fork.call_leg_id == call_leg_id), None)
        return found

    def leg_of(self, call_control_id: str) -> uuid.UUID | None:
        """A call's call_leg_id, if a webhook has told it."""
        return self._legs.get(call_control_id)

    def webhook(self, event: WebhookEvent) -> Fork | None:
        """Let the fork that is concerned know; returns it."""
        call, leg = event.call_control_id, event.call_leg_id
        if call is not None and leg is not None and call not in self._legs:
            self._legs[call] = leg
            self._controls[leg] = call
            if len(self._legs) > _CALL_IDS_KEPT:
                self._controls.pop(self._legs.popitem(last=False)[1], None)
        fork = self.get(call, leg)
        if fork is not None:
            fork.webhook(event)
        if isinstance(event, CallHangup) and call is not None and (known := self._legs.pop(call, None)) is not None:
            self._controls.pop(known, None)
        return fork

    def by_phase(self) -> dict[str, int]:
        """How many forks are in each phase, also for phases in which there are none."""
        counts = Counter(fork.phase for fork in self._forks.values())
        return {str(phase): counts[phase] for phase in ForkPhase if not phase.over}

    async def stop_all(self) -> None:
        """Stop all forks, side by side, and wait until they are over."""
        await asyncio.gather(*(fork.stop() for fork in self))

    def add(self, fork: Fork) -> None:
        """For :class:`Fork`: a call has one fork at a time. Raises ConfigurationError."""
        if fork.call_control_id in self._forks:
            raise ConfigurationError(f"call {fork.call_control_id} is being forked already: stop that fork first")
        self._forks[fork.call_control_id] = fork

    def remove(self, fork: Fork) -> None:
        """Forget a fork; safe to call twice."""
        if self._forks.get(fork.call_control_id) is fork:
            del self._forks[fork.call_control_id]
