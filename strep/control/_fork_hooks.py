"""What a call's webhooks mean for its fork. Pure."""

from __future__ import annotations

from typing import Final

from ._fork_words import CallEnded, HookStarted, HookStopped
from .events import CallAnswered, CallBridged, CallHangup, ForkStarted, ForkStopped, WebhookEvent

__all__ = ["event_of", "media_may_move"]

# after these the platform may send a leg's media from another of its servers
_MOVES: Final = frozenset(
    {
        CallAnswered.EVENT_TYPE,
        CallBridged.EVENT_TYPE,
        ForkStarted.EVENT_TYPE,
        ForkStopped.EVENT_TYPE,  # also sent when a fork is moved
        "call.dequeued",
        "call.enqueued",
        "call.refer.completed",
        "conference.participant.joined",
        "conference.participant.left",
    }
)


def media_may_move(webhook: WebhookEvent) -> bool:
    """Whether the leg's media may come from another address from now on."""
    return webhook.event_type in _MOVES


def event_of(webhook: WebhookEvent) -> HookStarted | HookStopped | CallEnded | None:
    """The event of the state machine that a webhook is; None if it is none."""
    if isinstance(webhook, ForkStarted):
        return HookStarted(_seconds(webhook))
    if isinstance(webhook, ForkStopped):
        return HookStopped(_seconds(webhook))
    if isinstance(webhook, CallHangup):
        return CallEnded(f"hang-up ({webhook.hangup_cause or 'no cause told'})")
    return None


def _seconds(webhook: WebhookEvent) -> float | None:
    return None if webhook.occurred_at is None else webhook.occurred_at.timestamp()
