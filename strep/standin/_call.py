"""The nouns of the stand-in: a call, a fork of its media, and what follows from a command. Times in ns, UTC."""

from __future__ import annotations

import datetime
import uuid
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from .._edge.udp.address import UdpAddress
from .._model.types import Leg
from ._playlist import Item, Playlist

__all__ = [
    "NEVER_NS",
    "AudioLoad",
    "AudioStart",
    "AudioStop",
    "Call",
    "CallRecord",
    "Due",
    "Effect",
    "MediaFork",
    "MediaStart",
    "MediaStop",
    "State",
    "Webhook",
    "iso",
]

I64 = npt.NDArray[np.int64]
State = Literal["scheduled", "parked", "answered", "bridged", "hangup"]

NEVER_NS: Final = 1 << 62


def iso(time_ns: int) -> str:
    """ISO 8601 in UTC with milliseconds, as the API writes it."""
    moment = datetime.datetime.fromtimestamp(time_ns // 1_000_000 / 1000, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class MediaFork:
    """Media of one call that are sent somewhere: to ``target`` as STREP, or to ``rx`` and ``tx`` as plain RTP."""

    number: int
    call: Call
    target: UdpAddress | None
    rx: UdpAddress | None
    tx: UdpAddress | None
    stream_type: str
    started_ns: int


@dataclass(slots=True)
class Call:
    """A leg. Times in ns, UTC."""

    number: int
    call_control_id: str
    call_leg_id: uuid.UUID
    call_session_id: uuid.UUID
    leg: Leg
    direction: Literal["incoming", "outgoing"]
    from_: str
    to: str
    connection_id: str
    initiated_ns: int
    answers_ns: int  # when it is answered if nobody does before
    length_ns: int  # from then on
    state: State = "scheduled"
    answered_ns: int | None = None
    ended_ns: int | None = None
    client_state: str | None = None
    webhook_url: str | None = None
    peer: Call | None = None
    fork: MediaFork | None = None
    playlist: Playlist = field(default_factory=Playlist)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("parked", "answered", "bridged")

    @property
    def talking(self) -> bool:
        """Whether audio flows: answered or bridged."""
        return self.state in ("answered", "bridged")

    @property
    def media_ns(self) -> int:
        """When its packets begin: those of bridged legs run together."""
        answered = [call.answered_ns for call in (self, self.peer) if call is not None and call.answered_ns is not None]
        return min(answered, default=self.initiated_ns)

    def ids(self) -> dict[str, str]:
        """Its identifiers, as the API names them."""
        return {
            "call_control_id": self.call_control_id,
            "call_leg_id": str(self.call_leg_id),
            "call_session_id": str(self.call_session_id),
        }


@dataclass(frozen=True, slots=True)
class Webhook:
    """Send this to ``url`` (None: to nobody); ``record`` hears what became of it."""

    call: Call
    event_type: str
    body: dict[str, Any]
    url: str | None
    record: CallRecord


@dataclass(frozen=True, slots=True)
class MediaStart:
    """Begin to send the media of this fork."""

    fork: MediaFork


@dataclass(frozen=True, slots=True)
class MediaStop:
    """Send no more media of this fork."""

    fork: MediaFork


@dataclass(frozen=True, slots=True)
class AudioLoad:
    """Get the sound of this item, and say when it is there."""

    call: Call
    item: Item


@dataclass(frozen=True, slots=True)
class AudioStart:
    """Let the party of the call hear this item from then on."""

    call: Call
    item: Item
    at_ns: int


@dataclass(frozen=True, slots=True)
class AudioStop:
    """... and no more."""

    call: Call
    item: Item
    at_ns: int


Effect = Webhook | MediaStart | MediaStop | AudioLoad | AudioStart | AudioStop


@dataclass(slots=True)
class CallRecord:
    """An entry of ``/call_events``. ``status``: whether a webhook was delivered, None while that is open.
    ``command_id``: of a command that had one; each is there once, however often it was sent.
    """

    call: Call
    name: str
    type: Literal["command", "webhook"]
    time_ns: int
    metadata: dict[str, Any] = field(default_factory=dict)
    status: Literal["delivered", "failed"] | None = None
    command_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "record_type": "call_event",
            "call_leg_id": str(self.call.call_leg_id),
            "call_session_id": str(self.call.call_session_id),
            "event_timestamp": iso(self.time_ns),
            "name": self.name,
            "type": self.type,
            "metadata": self.metadata,
        }


@dataclass(frozen=True, slots=True)
class Due:
    """Packets in order of sending, int64 (n,): the row, the number since the call was answered."""

    row: I64
    number: I64

    def __len__(self) -> int:
        return len(self.row)
