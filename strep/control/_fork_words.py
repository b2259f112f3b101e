"""What happens to a fork, and what its state machine wants done: the events and actions of :mod:`._fork_state`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Action",
    "AskCall",
    "AskFailed",
    "Begin",
    "CallEnded",
    "CallLives",
    "CancelCommand",
    "Event",
    "Finish",
    "HookStarted",
    "HookStopped",
    "Leave",
    "Media",
    "SendStart",
    "SendStop",
    "StartFailed",
    "StartOk",
    "StopDone",
    "Tell",
    "Tick",
]


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Begin:
    """Start."""


@dataclass(frozen=True)
class StartOk:
    """The API took the fork_start that was sent."""


@dataclass(frozen=True)
class StartFailed:
    """It did not. ``perhaps``: no definite answer, it may have had its effect. ``call_ended``: the call is over."""

    error: str
    perhaps: bool = False
    call_ended: bool = False


@dataclass(frozen=True)
class StopDone:
    """The fork_stop that was sent came to its end; ``error`` if that was not a success."""

    error: str | None = None


@dataclass(frozen=True)
class Media:
    """The last packet that came, came at ``at_s``."""

    at_s: float


@dataclass(frozen=True)
class CallLives:
    """The API said so, asked by :class:`AskCall`."""


@dataclass(frozen=True)
class AskFailed:
    """It could not be asked."""


@dataclass(frozen=True)
class HookStarted:
    """call.fork.started came, which occurred ``at_s`` by the platform's clock; None: it does not say."""

    at_s: float | None = None


@dataclass(frozen=True)
class HookStopped:
    """call.fork.stopped came, as :class:`HookStarted`; perhaps late, perhaps of a fork that was moved."""

    at_s: float | None = None


@dataclass(frozen=True)
class CallEnded:
    """The call is over."""

    why: str = "the call has ended"


@dataclass(frozen=True)
class Leave:
    """The fork is not wanted any more. ``stop``: it is stopped, unless it is another's."""

    why: str = "left"
    stop: bool = True


@dataclass(frozen=True)
class Tick:
    """``state.deadline_s`` has come."""


Event = (
    Begin
    | StartOk
    | StartFailed
    | StopDone
    | Media
    | CallLives
    | AskFailed
    | HookStarted
    | HookStopped
    | CallEnded
    | Leave
    | Tick
)


# --- actions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SendStart:
    """Send fork_start, a new command; ``restart`` counts from 0, the first start."""

    restart: int


@dataclass(frozen=True)
class SendStop:
    """Send fork_stop."""


@dataclass(frozen=True)
class AskCall:
    """Ask the API whether the call lives: :class:`CallLives`, :class:`CallEnded` or :class:`AskFailed`. No command."""


@dataclass(frozen=True)
class CancelCommand:
    """Give up the command that is under way; it then counts as failed."""


@dataclass(frozen=True)
class Tell:
    """Something worth telling: "started", "media", "stalled", "restarting", "no_media", "resumed"."""

    kind: str
    text: str


@dataclass(frozen=True)
class Finish:
    """The fork is over: no more actions follow. ``error``: why it could not be started; None: it was."""

    why: str
    error: str | None = None


Action = SendStart | SendStop | AskCall | CancelCommand | Tell | Finish
