"""What a service remembers of calls, no more of it than so many."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

__all__ = ["CallMemory", "CallNames"]

_CALLS_REMEMBERED: Final = 100_000


class CallNames:
    """A set of call_control_ids. Beyond 100,000 of them the first ones are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, control_id: object) -> bool:
        return control_id in self._known

    def add(self, control_id: str) -> None:
        """Remember it."""
        self._known[control_id] = None
        while len(self._known) > _CALLS_REMEMBERED:
            self._known.popitem(last=False)

    def discard(self, control_id: str) -> None:
        """Forget it, if it is known."""
        self._known.pop(control_id, None)


@dataclass(frozen=True, slots=True)
class CallMemory:
    """``seen``        calls that were recorded or tried.
    ``told``        calls whose trouble was logged.
    ``left_alone``  calls whose forks are others' business.
    """

    seen: CallNames = field(default_factory=CallNames)
    told: CallNames = field(default_factory=CallNames)
    left_alone: CallNames = field(default_factory=CallNames)
