"""What is told of forks to whoever wants to hear it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ForkEvent"]


@dataclass(frozen=True)
class ForkEvent:
    """Something that happened to a fork.

    kind: "fork_started" (the API said ok), "fork_media", "fork_stalled", "fork_resumed", "fork_restarting",
    "fork_restart_failed", "fork_stop_failed", "no_media", "fork_stopped", "fork_failed". time_ns: UTC.
    data: more of it, JSON-ready; of "no_media" the diagnosis; of a stall ``silent_since`` (UTC), and ``silent_s`` when
    it is over, or the fork is.
    """

    kind: str
    call_control_id: str
    call_leg_id: uuid.UUID | None
    time_ns: int
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "event": self.kind,
            "call_control_id": self.call_control_id,
            "call_leg_id": str(self.call_leg_id) if self.call_leg_id else None,
            "time_ns": self.time_ns,
            "text": self.text,
            **self.data,
        }
