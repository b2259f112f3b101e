"""Webhooks as values: what a verified body says. Pure.

Every field can be missing, then it is None. What has no class of its own is a plain :class:`WebhookEvent`; the payload
as it came is in ``payload``.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, Final

from ._answers import timestamp
from ._errors import MalformedWebhookError

__all__ = [
    "CallAnswered",
    "CallBridged",
    "CallHangup",
    "CallInitiated",
    "CallWebhook",
    "ForkStarted",
    "ForkStopped",
    "PlaybackEnded",
    "PlaybackStarted",
    "SpeakEnded",
    "SpeakStarted",
    "WebhookEvent",
    "parse_event",
]


@dataclass(frozen=True, kw_only=True)
class WebhookEvent:
    """Any event.

    id: the same in every delivery. occurred_at: aware. client_state: decoded; None too when it was no base64.
    call_leg_id: as in the STREP header; None too when it was no UUID. payload: all fields, as they came.
    """

    EVENT_TYPE: ClassVar[str] = ""

    event_type: str | None = None
    id: str | None = None
    occurred_at: datetime | None = None
    call_control_id: str | None = None
    call_leg_id: uuid.UUID | None = None
    call_session_id: str | None = None
    connection_id: str | None = None
    client_state: bytes | None = None
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class CallWebhook(WebhookEvent):
    """An event of a call itself. ``from_`` and ``to``: numbers or SIP URIs."""

    from_: str | None = None
    to: str | None = None
    state: str | None = None


@dataclass(frozen=True, kw_only=True)
class CallInitiated(CallWebhook):
    """call.initiated: a call comes in (``direction`` "incoming") or goes out ("outgoing")."""

    EVENT_TYPE = "call.initiated"

    direction: str | None = None


@dataclass(frozen=True, kw_only=True)
class CallAnswered(CallWebhook):
    """call.answered"""

    EVENT_TYPE = "call.answered"


@dataclass(frozen=True, kw_only=True)
class CallBridged(CallWebhook):
    """call.bridged"""

    EVENT_TYPE = "call.bridged"


@dataclass(frozen=True, kw_only=True)
class CallHangup(CallWebhook):
    """call.hangup: the call has ended, and why."""

    EVENT_TYPE = "call.hangup"

    hangup_cause: str | None = None
    hangup_source: str | None = None
    sip_hangup_cause: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ForkStarted(WebhookEvent):
    """call.fork.started. ``stream_type`` in newer API only."""

    EVENT_TYPE = "call.fork.started"

    stream_type: str | None = None


@dataclass(frozen=True, kw_only=True)
class ForkStopped(WebhookEvent):
    """call.fork.stopped. ``stream_type`` in newer API only."""

    EVENT_TYPE = "call.fork.stopped"

    stream_type: str | None = None


@dataclass(frozen=True, kw_only=True)
class SpeakStarted(WebhookEvent):
    """call.speak.started: what ``speak`` was given is heard from now on."""

    EVENT_TYPE = "call.speak.started"


@dataclass(frozen=True, kw_only=True)
class SpeakEnded(WebhookEvent):
    """call.speak.ended. ``status``: "completed", also when it was stopped, or "call_hangup"; newer API has more."""

    EVENT_TYPE = "call.speak.ended"

    status: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlaybackStarted(WebhookEvent):
    """call.playback.started. ``media_url`` or ``media_name``: what is played; neither where the command held it."""

    EVENT_TYPE = "call.playback.started"

    media_url: str | None = None
    media_name: str | None = None
    overlay: bool | None = None


@dataclass(frozen=True, kw_only=True)
class PlaybackEnded(WebhookEvent):
    """call.playback.ended. ``status``: "valid", "invalid" (nothing that can be played), "call_hangup"; of newer API
    "completed", "cancelled", "file_not_found", "failed" … with ``status_detail``. Otherwise as PlaybackStarted."""

    EVENT_TYPE = "call.playback.ended"

    media_url: str | None = None
    media_name: str | None = None
    overlay: bool | None = None
    status: str | None = None
    status_detail: str | None = None


_CLASSES: Final[dict[str, type[WebhookEvent]]] = {
    kind.EVENT_TYPE: kind
    for kind in (
        CallInitiated, CallAnswered, CallBridged, CallHangup, ForkStarted, ForkStopped, SpeakStarted, SpeakEnded,
        PlaybackStarted, PlaybackEnded,
    )
}  # fmt: skip


def parse_event(document: object) -> WebhookEvent:
    """The event of a decoded body. Raises MalformedWebhookError for what is no object with an object in ``data``."""
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict):
        raise MalformedWebhookError('the body is no {"data": {…}} object')
    payload = data.get("payload")
    if not isinstance(payload, dict):
        payload = {}
    event_type = _text(data.get("event_type"))
    kind = _CLASSES.get(event_type or "", WebhookEvent)
    values: dict[str, Any] = {
        "event_type": event_type,
        "id": _text(data.get("id")),
        "occurred_at": timestamp(data.get("occurred_at")),
        "call_leg_id": _uuid(payload.get("call_leg_id")),
        "client_state": _bytes(payload.get("client_state")),
        "payload": payload,
    }
    for name in (entry.name for entry in fields(kind)):
        if name not in values:
            values[name] = _as(name, payload.get(name.rstrip("_")))
    return kind(**values)


def _as(name: str, value: object) -> object:
    if name == "overlay":
        return value if isinstance(value, bool) else None
    return timestamp(value) if name.endswith("_time") else _text(value)


def _text(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # ids and SIP codes come as numbers at times
    if not isinstance(value, str):
        return None
    # JSON can escape half a surrogate pair, which nothing can encode: no file, no request, no log
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _uuid(value: object) -> uuid.UUID | None:
    try:
        return uuid.UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _bytes(value: object) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else None
    except (binascii.Error, ValueError):
        return None
