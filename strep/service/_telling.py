"""What is told of calls and their legs, and of what went wrong with them. Pure."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any, Final

from .._model.exceptions import BindError
from .._model.types import Leg
from ..control._errors import APIConnectionError, APIStatusError
from ..control.calls import CallState

__all__ = ["heard_s", "ids", "is_not_answered", "leg_entry", "patience_s", "shown", "told_of"]

_NOT_ANSWERED: Final = "90034"
_RINGS_S: Final = 300.0  # how long a call is asked for that is not answered
_LONGEST_S: Final = 4 * 3600.0  # how long it is asked for if anything else is in the way: calls last no longer
_PASSING: Final = (408, 409, 429)  # statuses below 500 of what may work later
_LONGEST_SHOWN: Final = 100  # letters of an id in the log


def is_not_answered(error: Exception) -> bool:
    """Whether the API says that the call still rings."""
    return isinstance(error, APIStatusError) and _NOT_ANSWERED in error.codes


def patience_s(error: Exception) -> float:
    """How long to keep retrying after this error, in seconds; 0: not at all."""
    if isinstance(error, APIStatusError):
        if is_not_answered(error):
            return _RINGS_S
        return _LONGEST_S if error.status_code >= 500 or error.status_code in _PASSING else 0.0
    return _LONGEST_S if isinstance(error, APIConnectionError | BindError | OSError) else 0.0


def ids(state: CallState) -> dict[str, str | None]:
    leg = state.call_leg_id
    return {
        "call_control_id": state.call_control_id,
        "call_leg_id": None if leg is None else str(leg),
        "call_session_id": state.call_session_id,
    }


def told_of(state: CallState, leg: Leg) -> dict[str, Any]:
    """What webhooks have told of a call, for ``leg.json``."""
    client_state = state.client_state
    return {
        "call_control_id": state.call_control_id,
        "call_session_id": state.call_session_id,
        "connection_id": state.connection_id,
        "client_state": None if client_state is None else base64.b64encode(client_state).decode(),
        "leg": leg.label,
        "from": state.from_,
        "to": state.to,
        "direction": state.direction,
        "initiated_at": _iso(state.initiated_at),
        "answered_at": _iso(state.answered_at),
        "bridged_at": _iso(state.bridged_at),
        "ended_at": _iso(state.ended_at),
        "hangup_cause": state.hangup_cause,
        "hangup_source": state.hangup_source,
    }


def leg_entry(file: str, found: dict[str, Any]) -> dict[str, Any]:
    """What the summary says of a leg's ``file``, in which ``found`` stands."""
    streams: list[dict[str, Any]] = found["streams"]
    return {
        "call_leg_id": found["call_leg_id"],
        **{name: found.get(name) for name in ("call_control_id", "from", "to")},
        "file": file,
        "directions": sorted({stream["direction"] for stream in streams}),
        "duration_s": max((stream["duration_s"] for stream in streams), default=0.0),
        "packets_lost": sum(stream["packets_lost"] or 0 for stream in streams),
        **({"silent_s": round(sum(each["seconds"] for each in found["silent"]), 3)} if found.get("silent") else {}),
        **({"recovered": True} if found.get("recovered") else {}),
        **({"error": found["error"]} if found.get("error") else {}),
    }


def heard_s(entry: dict[str, Any]) -> float:
    """Seconds of audio that came of a stream."""
    rate = entry["sample_rate"]
    return (entry["samples"] - entry["gap_samples"]) / rate if rate else 0.0


def shown(control_id: str) -> str:
    """For the log: a line of it is ours, whatever an id holds."""
    text = control_id if control_id.isprintable() else repr(control_id)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
