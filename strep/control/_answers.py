"""What the API answers, parsed. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ._errors import APIResponseValidationError

__all__ = [
    "Answer",
    "Call",
    "CallEvent",
    "CallEventPage",
    "CommandResult",
    "call",
    "call_events",
    "result",
    "timestamp",
]


@dataclass(frozen=True)
class Answer:
    """An answer that is a success, and what it took to get it."""

    operation: str
    body: str
    command_id: str | None
    request_id: str | None
    attempts: int
    already_ended: bool = False


@dataclass(frozen=True)
class CommandResult:
    """What became of a command.

    ``result`` is what the API said ("ok"). ``already_ended``: the call was over, so there was nothing left to stop; and
    ``result`` is "". ``attempts`` is how many requests it took, all with this ``command_id``.
    """

    result: str
    command_id: str | None
    already_ended: bool = False
    attempts: int = 1
    request_id: str | None = None


@dataclass(frozen=True)
class Call:
    """A call's status. ``raw`` is all that was told of it. ``command_id`` is dial's."""

    call_control_id: str
    call_leg_id: str
    call_session_id: str
    is_alive: bool
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    command_id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class CallEvent:
    """What the API logged of a call: a command that it took or a webhook that it sent (``type``)."""

    name: str
    type: str
    call_leg_id: str
    call_session_id: str
    event_timestamp: datetime | None
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class CallEventPage:
    """One page of events. The figures are None where the API does not tell them."""

    events: tuple[CallEvent, ...]
    page_number: int | None = None
    page_size: int | None = None
    total_pages: int | None = None
    total_results: int | None = None


def timestamp(value: object) -> datetime | None:
    """An aware datetime of ISO 8601 text; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _invalid(answer: Answer, reason: str) -> APIResponseValidationError:
    return APIResponseValidationError(
        f"{answer.operation}: the API said yes, but {reason}: is the base URL right?",
        operation=answer.operation, command_id=answer.command_id, attempts=answer.attempts,
    )  # fmt: skip


def _document(answer: Answer) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise _invalid(answer, f"not in JSON ({' '.join(answer.body.split())[:80]!r})") from None
    if not isinstance(document, dict):
        raise _invalid(answer, "what it sent is no JSON object")
    return document


def result(answer: Answer) -> CommandResult:
    """Of fork_start, fork_stop, answer, hangup. ``data`` may be missing: the contract requires nothing in it."""
    said = ""
    if not answer.already_ended:
        data = _document(answer).get("data")
        said = str(data.get("result", "")) if isinstance(data, dict) else ""
    return CommandResult(said, answer.command_id, answer.already_ended, answer.attempts, answer.request_id)


def call(answer: Answer) -> Call:
    """Of dial and retrieve_call."""
    data = _document(answer).get("data")
    if not isinstance(data, dict):
        raise _invalid(answer, "there is no call in its data")
    names = ("call_control_id", "call_leg_id", "call_session_id")
    if missing := [name for name in names if not isinstance(data.get(name), str)]:
        raise _invalid(answer, f"the call has no {', '.join(missing)}")
    return Call(
        data["call_control_id"],
        data["call_leg_id"],
        data["call_session_id"],
        data.get("is_alive") is True,
        data,
        answer.command_id,
        answer.request_id,
    )


def call_events(answer: Answer) -> CallEventPage:
    """Of call_events. Entries that are no objects are left out."""
    document = _document(answer)
    data, meta = document.get("data"), document.get("meta")
    entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    figures = meta if isinstance(meta, dict) else {}
    return CallEventPage(
        tuple(_event(entry) for entry in entries),
        *(_integer(figures.get(name)) for name in ("page_number", "page_size", "total_pages", "total_results")),
    )


def _event(entry: dict[str, Any]) -> CallEvent:
    name, kind, leg, session = (
        str(entry.get(key) or "") for key in ("name", "type", "call_leg_id", "call_session_id")
    )  # fmt: skip
    metadata = entry.get("metadata")
    when = timestamp(entry.get("event_timestamp"))
    return CallEvent(name, kind, leg, session, when, metadata if isinstance(metadata, dict) else {})


def _integer(value: object) -> int | None:
    return value if type(value) is int else None
