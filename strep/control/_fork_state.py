"""A fork of one call leg as a state machine: events in, the next state and what is to be done out. Pure; time is an
argument, in seconds of any steady clock.

::

    starting ──ok──▶ started ──media──▶ media ◀──▶ stalled ──(restart)──▶ started …
        │               │                 │           │
        └──refused──┐   └──── leave, hang-up, idle ───┘
                 failed             stopping ──▶ stopped

At most one command is under way. A fork is stopped once, unless it never began or the call is over. A fork that falls
silent while its call lives (hold, re-INVITE) is started again a few times, at growing intervals: the API's answer also
tells whether the call still lives. After ``idle_s`` without a sign of life the API is asked. While it says that the
call lives, the fork stays ready, and is started again from time to time; when nobody can tell, it is left after
``unknown_s``.

A fork that the platform says has stopped, and from which nothing comes any more, was stopped by somebody who may: it
stays stopped. Webhooks come in any order, so the last of them by when they occurred counts, and after ``backoff_s``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from math import nextafter
from typing import Final

from .._model.exceptions import ConfigurationError
from ._fork_words import (
    Action,
    AskCall,
    AskFailed,
    Begin,
    CallEnded,
    CallLives,
    CancelCommand,
    Event,
    Finish,
    HookStarted,
    HookStopped,
    Leave,
    Media,
    SendStart,
    SendStop,
    StartFailed,
    StartOk,
    StopDone,
    Tell,
    Tick,
)

__all__ = [
    "NEVER",
    "AskCall",
    "AskFailed",
    "Begin",
    "CallEnded",
    "CallLives",
    "CancelCommand",
    "Finish",
    "ForkLimits",
    "ForkPhase",
    "ForkState",
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
    "step",
]

NEVER: Final = float("inf")


class ForkPhase(StrEnum):
    """Where a fork stands."""

    STARTING = "starting"  # fork_start is under way for the first time
    STARTED = "started"  # the API said ok; nothing has come yet
    MEDIA = "media"
    STALLED = "stalled"  # media came and has stopped coming, or the platform says that the fork stopped
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"  # it could not be started

    @property
    def over(self) -> bool:
        """Whether nothing comes after this phase."""
        return self in (ForkPhase.STOPPED, ForkPhase.FAILED)


@dataclass(frozen=True)
class ForkLimits:
    """Times in seconds. Raises ConfigurationError.

    no_media_s: if no media has come this long after a start that succeeded, something is wrong. stall_s: a fork that
    had media has stalled when it has been silent for so long. max_restarts: in a row, until media comes again. The
    first comes ``backoff_s`` after the stall, the next twice as long after the first, and so on, at most
    ``backoff_max_s``. idle_s: when for so long neither media nor an answer of the API has come, the API is asked
    whether the call lives; again after ``backoff_max_s`` or ``idle_s``, whichever is longer. unknown_s: a fork is over
    when for so long nothing has told that the call lives. stop_s: how long stopping may take; a start that is under
    way gets half of it.
    """

    no_media_s: float = 5.0
    stall_s: float = 10.0
    max_restarts: int = 5
    backoff_s: float = 2.0
    backoff_max_s: float = 60.0
    idle_s: float = 60.0
    stop_s: float = 10.0
    unknown_s: float = 4 * 3600.0  # calls last no longer

    def __post_init__(self) -> None:
        for name in ("no_media_s", "stall_s", "backoff_s", "backoff_max_s", "idle_s", "stop_s", "unknown_s"):
            if not 0 < getattr(self, name) < NEVER:
                raise ConfigurationError(f"{name}={getattr(self, name)}: more than 0 seconds")
        if self.max_restarts < 0:
            raise ConfigurationError(f"max_restarts={self.max_restarts}: 0 or more")


# --- the machine ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForkState:
    """All that is remembered of a fork. ``deadline_s``: when a :class:`Tick` is due."""

    limits: ForkLimits = ForkLimits()
    shared: bool = False  # others may have sent the first start too: who hears nothing of it stops nothing
    kept: bool = False  # it is another's, and not to be stopped
    phase: ForkPhase = ForkPhase.STARTING
    sending: str | None = None  # the command under way: "start", "stop"
    forked: bool = False  # a fork may be there, as far as the API's answers tell
    call_ended: bool = False
    hook_started: bool = False
    hook_stopped: bool = False
    hook_started_s: float = -NEVER  # when the last one occurred, by the platform's clock
    hook_stopped_s: float = -NEVER
    stopped_elsewhere: bool = False  # somebody else has stopped it
    stopped_at_s: float | None = None  # when call.fork.stopped came, and media has not come since
    leaving: str | None = None  # why
    error: str | None = None
    stop_sent: bool = False
    cancelled: bool = False  # the command under way has been given up
    starts: int = 0  # fork_start commands
    restarts: int = 0  # ... of these since media came last
    media_s: float | None = None  # when the last packet came
    first_ok_s: float | None = None  # when the API first said ok
    answered_s: float | None = None  # ... last, or that the call lives
    asking: bool = False
    asked_s: float | None = None  # when it was asked last whether the call lives
    stalled_s: float = 0.0
    waiting_s: float = 0.0  # since when the next restart is waited for
    no_media_told: bool = False
    deadline_s: float = NEVER

    @property
    def ok(self) -> bool:
        """Whether a start has succeeded."""
        return self.first_ok_s is not None

    @property
    def over(self) -> bool:
        return self.phase.over


Outcome = tuple[ForkState, list[Action]]


def step(state: ForkState, event: Event, now_s: float) -> Outcome:
    """The state after ``event``, and what is to be done, in order."""
    if state.over:
        return state, []
    return _HANDLERS[type(event)](state, event, now_s)


def _begin(state: ForkState, event: Event, now_s: float) -> Outcome:
    if state.starts or state.leaving is not None:
        return state, []
    return replace(state, sending="start", starts=1), [SendStart(0)]


def _start_ok(state: ForkState, event: Event, now_s: float) -> Outcome:
    if state.sending != "start":
        return state, []
    first = not state.ok
    state = replace(
        state, sending=None, cancelled=False, forked=True, answered_s=now_s, waiting_s=now_s, stopped_at_s=None
    )
    if first:
        state = replace(state, first_ok_s=now_s)
    if state.leaving is not None:
        return _stop(state, now_s)
    told: list[Action] = [Tell("started", "the API took fork_start")] if first else []
    if first and state.media_s is not None:
        state, more = _flowing(state)
        return state, [*told, *more]
    return _wait(replace(state, phase=ForkPhase.STARTED) if first else state), told


def _start_failed(state: ForkState, event: Event, now_s: float) -> Outcome:
    assert isinstance(event, StartFailed)
    if state.sending != "start":
        return state, []
    state = replace(state, sending=None, cancelled=False, forked=state.forked or event.perhaps)
    if event.call_ended:
        return _finished(replace(state, call_ended=True, error=None if state.ok else event.error), "the call has ended")
    if state.leaving is not None:
        return _stop(state, now_s)
    if not state.ok:
        return _stop(replace(state, error=event.error, leaving=event.error), now_s)
    # the first start had worked: what it began may be there still, and the next try may do
    return _wait(replace(state, waiting_s=now_s)), [Tell("restart_failed", event.error)]


def _stop_done(state: ForkState, event: Event, now_s: float) -> Outcome:
    assert isinstance(event, StopDone)
    if state.sending != "stop":
        return state, []
    state = replace(state, sending=None, forked=event.error is not None)
    told: list[Action] = [] if event.error is None else [Tell("stop_failed", event.error)]
    state, more = _finished(state, state.leaving or "")
    return state, [*told, *more]


def _media(state: ForkState, event: Event, now_s: float) -> Outcome:
    assert isinstance(event, Media)
    if state.media_s is not None and event.at_s <= state.media_s:
        return state, []
    state = replace(state, media_s=event.at_s)
    if state.stopped_at_s is not None and event.at_s > state.stopped_at_s + state.limits.backoff_s / 2:
        state = replace(state, stopped_at_s=None)  # not what was on its way: it was of a fork that had been moved
    if state.phase is ForkPhase.STARTED or (state.phase is ForkPhase.STALLED and event.at_s > state.stalled_s):
        return _flowing(state)
    return (_wait(state) if state.phase is ForkPhase.MEDIA else state), []


def _call_lives(state: ForkState, event: Event, now_s: float) -> Outcome:
    if not state.asking or state.phase is ForkPhase.STOPPING:
        return state, []
    state = replace(state, asking=False, answered_s=now_s)
    if state.phase is not ForkPhase.STALLED or state.sending is not None or not _may_go_on(state):
        return _wait(state), []
    return _restart(state, "fork_start again: the call lives")


def _ask_failed(state: ForkState, event: Event, now_s: float) -> Outcome:
    return (state, []) if state.phase is ForkPhase.STOPPING else (_wait(replace(state, asking=False)), [])


def _hook_started(state: ForkState, event: Event, now_s: float) -> Outcome:
    assert isinstance(event, HookStarted)
    at_s = -NEVER if event.at_s is None else event.at_s
    state = replace(state, hook_started=True, hook_started_s=max(state.hook_started_s, at_s))
    return (state, []) if state.phase is ForkPhase.STOPPING else (_wait(state), [])


def _hook_stopped(state: ForkState, event: Event, now_s: float) -> Outcome:
    """Nothing is told before it is known what it means: this is how each call ends too."""
    assert isinstance(event, HookStopped)
    at_s = nextafter(state.hook_started_s, NEVER) if event.at_s is None else event.at_s
    state = replace(state, hook_stopped=True, hook_stopped_s=max(state.hook_stopped_s, at_s))
    if state.phase not in (ForkPhase.STARTED, ForkPhase.MEDIA, ForkPhase.STALLED):
        return state, []
    return _wait(replace(state, stopped_at_s=now_s)), []


def _call_ended(state: ForkState, event: Event, now_s: float) -> Outcome:
    assert isinstance(event, CallEnded)
    state = replace(state, call_ended=True, leaving=state.leaving or event.why)
    if state.sending is None:
        return _finished(state, event.why)
    if state.cancelled:
        return state, []
    # whatever its answer would be
    return replace(state, phase=ForkPhase.STOPPING, cancelled=True, deadline_s=NEVER), [CancelCommand()]


def _leave(state: ForkState, event: Event, now_s: float) -> Outcome:
    assert isinstance(event, Leave)
    if state.leaving is not None:
        return state, []
    state = replace(state, leaving=event.why, kept=not event.stop)
    if state.sending == "start":
        # its answer is waited for: a start that is on its way must not overtake the stop
        return replace(state, phase=ForkPhase.STOPPING, deadline_s=now_s + state.limits.stop_s / 2), []
    return _stop(state, now_s)


def _tick(state: ForkState, event: Event, now_s: float) -> Outcome:
    if now_s < state.deadline_s:
        return state, []
    if state.phase is ForkPhase.STOPPING:
        return replace(state, cancelled=True, deadline_s=NEVER), [CancelCommand()]
    if now_s >= _stopped_at(state):
        why = "the platform says that the fork has stopped, and nothing comes any more"
        return _finished(replace(state, forked=False, stopped_elsewhere=True, leaving=why), why)
    if now_s >= _given_up_at(state):
        return _leave(state, Leave("idle: no media, and no sign that the call lives"), now_s)
    if now_s >= _no_media_at(state):
        text = f"no media within {state.limits.no_media_s:g} s of a fork_start that succeeded"
        return _wait(replace(state, no_media_told=True)), [Tell("no_media", text)]
    if state.phase is ForkPhase.MEDIA and now_s >= _stalled_at(state):
        return _stalled(state, now_s, f"no media for {state.limits.stall_s:g} s")
    if state.phase is ForkPhase.STALLED and now_s >= _restart_at(state):
        return _restart(state, f"fork_start again ({state.restarts + 1} of {state.limits.max_restarts})")
    if now_s < _ask_at(state):
        return _wait(state), []  # what it was for has come
    return _wait(replace(state, asking=True, asked_s=now_s)), [AskCall()]


_HANDLERS: Final[dict[type, Callable[[ForkState, Event, float], Outcome]]] = {
    Begin: _begin,
    StartOk: _start_ok,
    StartFailed: _start_failed,
    StopDone: _stop_done,
    Media: _media,
    CallLives: _call_lives,
    AskFailed: _ask_failed,
    HookStarted: _hook_started,
    HookStopped: _hook_stopped,
    CallEnded: _call_ended,
    Leave: _leave,
    Tick: _tick,
}


def _flowing(state: ForkState) -> Outcome:
    """Media comes, for the first time or again."""
    again = state.phase is ForkPhase.STALLED
    state = replace(state, phase=ForkPhase.MEDIA, restarts=0)
    told = Tell("resumed", "media again") if again else Tell("media", "media comes")
    return _wait(state), [told]


def _stalled(state: ForkState, now_s: float, why: str) -> Outcome:
    state = replace(state, phase=ForkPhase.STALLED, stalled_s=now_s, waiting_s=now_s)
    return _wait(state), [Tell("stalled", why)]


def _restart(state: ForkState, text: str) -> Outcome:
    restarts = state.restarts + 1
    state = replace(state, sending="start", starts=state.starts + 1, restarts=restarts, deadline_s=NEVER)
    return state, [Tell("restarting", text), SendStart(restarts)]


def _may_go_on(state: ForkState) -> bool:
    """Whether the quick restarts are used up, so that slow ones follow."""
    return 0 < state.limits.max_restarts <= state.restarts and state.leaving is None


def _alive_s(state: ForkState) -> float:
    """When the last sign came that the call lives."""
    return max((at for at in (state.media_s, state.answered_s) if at is not None), default=NEVER)


def _ask_at(state: ForkState) -> float:
    if state.asking or state.first_ok_s is None:
        return NEVER
    limits = state.limits
    again_s = -NEVER if state.asked_s is None else state.asked_s + max(limits.idle_s, limits.backoff_max_s)
    return max(_alive_s(state) + limits.idle_s, again_s)


def _given_up_at(state: ForkState) -> float:
    return NEVER if state.first_ok_s is None else _alive_s(state) + state.limits.unknown_s


def _stopped_at(state: ForkState) -> float:
    """When a fork of which the platform said that it has stopped is taken for stopped."""
    if state.stopped_at_s is None or state.hook_started_s >= state.hook_stopped_s:
        return NEVER
    return state.stopped_at_s + state.limits.backoff_s


def _stalled_at(state: ForkState) -> float:
    return NEVER if state.media_s is None else state.media_s + state.limits.stall_s


def _no_media_at(state: ForkState) -> float:
    if state.no_media_told or state.media_s is not None or state.first_ok_s is None:
        return NEVER
    return state.first_ok_s + state.limits.no_media_s


def _restart_at(state: ForkState) -> float:
    limits = state.limits
    if state.restarts >= limits.max_restarts:
        return NEVER
    # the first too after a moment: media or a hang-up may be on their way
    return state.waiting_s + min(limits.backoff_s * 2.0**state.restarts, limits.backoff_max_s)


def _due(state: ForkState) -> float:
    """When something is to be decided, while no command is under way."""
    due = min(_stopped_at(state), _given_up_at(state), _no_media_at(state), _ask_at(state))
    if state.phase is ForkPhase.MEDIA:
        return min(due, _stalled_at(state))
    return min(due, _restart_at(state)) if state.phase is ForkPhase.STALLED else due


def _wait(state: ForkState) -> ForkState:
    """With the deadline of its phase."""
    return replace(state, deadline_s=NEVER if state.sending is not None else _due(state))


def _stop(state: ForkState, now_s: float) -> Outcome:
    if not state.forked or state.call_ended or state.kept or (state.shared and state.media_s is None):
        return _finished(state, state.leaving or "")
    state = replace(
        state, phase=ForkPhase.STOPPING, sending="stop", stop_sent=True, cancelled=False,
        deadline_s=now_s + state.limits.stop_s,
    )  # fmt: skip
    return state, [SendStop()]


def _finished(state: ForkState, why: str) -> Outcome:
    phase = ForkPhase.STOPPED if state.error is None else ForkPhase.FAILED
    state = replace(state, phase=phase, sending=None, leaving=state.leaving or why, deadline_s=NEVER)
    return state, [Finish(why, state.error)]
