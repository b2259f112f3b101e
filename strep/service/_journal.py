"""Which calls are being recorded, on disk: so that a program that was killed finds them again.

``DIR/.calls/<number>.json`` exists from before a call's fork is started until the call is over. The next process forks
these calls again, if they still live; the API answers for the others that they have ended. Calls whose forks somebody
else has stopped stand there too, as such: they are left alone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .._receiver.summary import write_whole
from ..control.calls import CallPhase, CallState
from ..control.events import WebhookEvent, parse_event

__all__ = ["Journal"]

log = logging.getLogger("strep.service")

_CALLS_READ: Final = 10_000  # of those that were being recorded


class Journal:
    """Of one directory. All but :meth:`path` goes to the disk: call it in a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / ".calls"

    def path(self, control_id: str) -> Path:
        """Its file: a hash, for ids are strangers' text."""
        name = hashlib.sha256(control_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self._directory / f"{name}.json"

    def note(self, state: CallState, *, stopped: bool = False) -> None:
        """This call is going to be recorded, or, ``stopped``, is not to be any more. A disk that does not take it does
        not keep the call from that."""
        events = list(_events(state, stopped))
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            write_whole(self.path(str(state.call_control_id)), json.dumps(events))
        except OSError as error:
            log.warning("a call is not noted in %s: %s", self._directory, error)

    def strike(self, control_id: str) -> None:
        """This call is over."""
        with contextlib.suppress(OSError):
            self.path(control_id).unlink()

    def read(self) -> list[WebhookEvent]:
        """What was known of calls that were not over, as the webhooks that would tell it. What cannot be read is
        removed."""
        found: list[WebhookEvent] = []
        for path in sorted(self._directory.glob("*.json"))[:_CALLS_READ]:
            try:
                found += [parse_event(event) for event in json.loads(path.read_text(encoding="utf-8"))]
            except (OSError, ValueError, TypeError, RecursionError) as error:
                log.warning("%s is no note of a call: %s", path, error)
                with contextlib.suppress(OSError):
                    path.unlink()
        return found


def _events(state: CallState, stopped: bool) -> Iterator[dict[str, Any]]:
    """The least of webhooks that make such a state."""
    payload = {
        "call_control_id": state.call_control_id,
        "call_leg_id": None if state.call_leg_id is None else str(state.call_leg_id),
        "call_session_id": state.call_session_id,
        "connection_id": state.connection_id,
        "client_state": None if state.client_state is None else base64.b64encode(state.client_state).decode(),
        "from": state.from_,
        "to": state.to,
        "direction": state.direction,
    }
    for event_type, phase, at in (
        ("call.initiated", CallPhase.INITIATED, state.initiated_at),
        ("call.answered", CallPhase.ANSWERED, state.answered_at),
        ("call.bridged", CallPhase.BRIDGED, state.bridged_at),
    ):
        # a webhook need not say when; only call.initiated says which way
        untold = state.phase is phase or (phase is CallPhase.INITIATED and state.direction is not None)
        if at is not None or untold:
            occurred_at = None if at is None else at.isoformat()
            yield {"data": {"event_type": event_type, "occurred_at": occurred_at, "payload": payload}}
    if stopped:
        yield {"data": {"event_type": "call.fork.stopped", "payload": payload}}
    elif state.forked:
        yield {"data": {"event_type": "call.fork.started", "payload": payload}}
