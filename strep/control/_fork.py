"""One call's fork: the API's commands, the receiver and the clock around the state machine of :mod:`._fork_state`."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from .._delivery.stream import Stream
from .._model.call_legs import parse_call_leg_id
from .._model.exceptions import ConfigurationError, StrepError
from .._model.types import Direction
from .._receiver.pairs import PortPair
from ._diagnosis import Diagnosis, Facts, diagnose
from ._errors import CallEndedError
from ._fork_commands import ForkCommands
from ._fork_counts import CountsSince
from ._fork_event import ForkEvent
from ._fork_hooks import event_of, media_may_move
from ._fork_machine import ForkMachine
from ._fork_route import ForkRoute, Mode
from ._fork_silence import ForkSilence
from ._fork_state import ForkLimits, ForkPhase, ForkState
from ._fork_streams import ForkStreams
from ._fork_words import (
    Action,
    AskCall,
    AskFailed,
    Begin,
    CallEnded,
    CallLives,
    CancelCommand,
    Finish,
    Leave,
    Media,
    SendStart,
    SendStop,
    StartFailed,
    StartOk,
    StopDone,
    Tell,
)
from ._outcomes import error_text
from ._protocols import ForkApi, ForkRegister, MediaReceiver, StreamType
from .events import WebhookEvent

__all__ = ["Fork"]

log = logging.getLogger("strep.control.forks")

_LINGER_S: Final = 0.1  # for what is on its way when a fork has been stopped
_SILENCE: Final = ("stalled", "resumed")
_QUIET: Final = ("started", "media", "resumed")  # told of in the log as information; the rest as warnings


class Fork:
    """A call's fork, made by :meth:`CallControl.fork`: ``async with`` starts and stops it, ``async for`` gives its
    streams. It can be used once.

    ``mode="target"``: the call's media come to the receiver's ``listen`` port with the STREP header, which names the
    call leg. The leg's id is ``call_leg_id``, or what a webhook has told (``control.forks``). If neither is known, the
    API is asked for it (retrieve_call) while the fork starts. Media may come before the id is known; its streams are
    given as soon as it is. Meanwhile a receiver with ``announced_only`` keeps their packets for ``pending_s``, another
    one admits them at once. If no answer ever comes, the fork has no streams, and :meth:`diagnosis` says so.
    ``mode="rx_tx"``: plain RTP to a pair of the receiver's ports, which is opened for this fork and closed with it.
    Streams are named by ``call_leg_id``, or else by port.

    Entering waits for the API's answer and raises its error (CallEndedError if the call is over). Leaving, for whatever
    reason, stops the fork within 1.5 times ``limits.stop_s``, ends its streams and closes its files, also if the task
    is cancelled meanwhile. With ``command_id``, which the first fork_start is sent with, others may have sent the same
    command before, and the API carries it out once: a fork from which nothing has come is not stopped then.
    The iteration ends when the fork is over (hang-up, or no more media); the body goes on.
    """

    def __init__(
        self,
        control: ForkApi,
        call_control_id: str,
        receiver: MediaReceiver,
        *,
        call_leg_id: uuid.UUID | str | None = None,
        advertise: str | None = None,
        mode: Mode = "target",
        stream_type: StreamType | None = None,
        client_state: bytes | str | None = None,
        command_id: str | None = None,
        limits: ForkLimits | None = None,
        registry: ForkRegister | None = None,
        on_event: Callable[[ForkEvent], object] | None = None,
    ) -> None:
        self._route = ForkRoute(receiver, mode, advertise)
        if stream_type == "decrypted" and mode == "target":
            raise ConfigurationError("stream_type='decrypted' exists with mode=\"rx_tx\" only")
        self.call_control_id = call_control_id
        self._control = control
        self._receiver = receiver
        self._registry = control.forks if registry is None else registry
        self._leg = parse_call_leg_id(call_leg_id)
        self._stream_type = stream_type
        self._on_event = on_event
        self._machine = ForkMachine(
            limits or ForkLimits(idle_s=receiver.idle_timeout_s), self._act, self._look, shared=command_id is not None
        )
        self._commands = ForkCommands(
            control, call_control_id, stream_type=stream_type, client_state=client_state, command_id=command_id,
            on_answer=self._answer,
        )  # fmt: skip
        self._streams = ForkStreams(receiver, self._heard)
        self._counts: CountsSince | None = None
        self._hooks = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asking: asyncio.Task[None] | None = None
        self._answered = asyncio.Event()  # the API has answered the first start, or the fork is over
        self._closed = asyncio.Event()
        self._began_s = 0.0  # of the loop's time
        self._silent = ForkSilence()
        self._ahead_s = 0.0  # how far the loop's time is ahead of the receiver's clock

    def __repr__(self) -> str:
        return f"<Fork of {self.call_control_id} ({self._leg or 'leg unknown'}): {self.phase}>"

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """ "target" or "rx_tx"."""
        return self._route.mode

    @property
    def pair(self) -> PortPair | None:
        """The receiver's ports that were opened for it; None in mode "target", and before it is entered."""
        return self._route.pair

    @property
    def addresses(self) -> dict[str, str]:
        """Where the media is sent: ``target``, or ``rx`` and ``tx``."""
        return dict(self._route.addresses)

    @property
    def call_leg_id(self) -> uuid.UUID | None:
        """None while it is not known."""
        return self._leg

    @property
    def phase(self) -> ForkPhase:
        """Where it stands."""
        return self.state.phase

    @property
    def state(self) -> ForkState:
        """All that is remembered: commands, restarts, when media came last."""
        return self._machine.state

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise ConfigurationError("this fork has been started before: make a new one")
        if not self._receiver.running:
            raise ConfigurationError("the receiver is not running: start it before a call is forked to it")
        self._registry.add(self)
        self._loop = asyncio.get_running_loop()
        self._machine.begin(self._loop)
        self._began_s = self._loop.time()
        self._ahead_s = self._began_s - self._receiver.now_ns / 1e9
        try:
            await self._prepare()
            self._machine.feed(Begin())
            await self._answered.wait()
        except BaseException:
            await self._end("given up")
            raise
        if not self.state.ok:
            await self._end("")
            raise self._commands.error or _not_begun(self.state)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end("left" if error is None else f"left by {type(error).__name__}")

    async def stop(self) -> None:
        """Stop the fork and wait until it is over, as leaving does, from anywhere. Safe to call twice."""
        if self._loop is not None:
            await self._end("stopped")

    async def abandon(self, why: str) -> None:
        """End it here without stopping it: it is somebody else's. Safe to call twice."""
        if self._loop is not None:
            await self._end(why, stop=False)

    def call_ended(self, why: str) -> None:
        """The call is over, as somebody knows: nothing is to be stopped."""
        self._machine.feed(CallEnded(why))

    async def wait(self) -> None:
        """Wait until the fork is over, for whatever reason."""
        await self._closed.wait()

    async def _end(self, why: str, *, stop: bool = True) -> None:
        """Leave, and wait for the end however often this task is cancelled: the state machine bounds the time."""
        self._machine.feed(Leave(why, stop))
        if self.state.starts == 0:
            self._finish(Finish(why))
        cancelled: asyncio.CancelledError | None = None
        while not self._closed.is_set():
            try:
                await self._closed.wait()
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _prepare(self) -> None:
        """Open the way for the media, and find out which streams will be the fork's."""
        if not self._receiver.sinks:
            self._streams.iterate()  # nobody else hears the audio, so whoever entered will: from its beginning on
        leg = self._leg or self._registry.leg_of(self.call_control_id)
        if self.mode == "rx_tx":
            self._leg = leg
        await self._route.open(leg)
        if self.pair is not None:
            for port in self.pair.ports:
                self._streams.watch(port)
        elif leg is not None:
            self._learn(leg)
        else:
            self._asking = asyncio.create_task(self._ask_leg())
        self._counts = CountsSince(self._receiver)

    # --- the leg ------------------------------------------------------------------------------------------------------

    async def _ask_leg(self) -> None:
        try:
            call = await self._control.retrieve_call(self.call_control_id)
            self._learn(uuid.UUID(call.call_leg_id))
        except (StrepError, ValueError) as error:
            log.warning("the call_leg_id of %s is not known: %s", self.call_control_id, error)

    def _learn(self, leg: uuid.UUID) -> None:
        """Only once: ids do not change."""
        if self.mode == "rx_tx" or self._streams.watching or self._closed.is_set() or not self._receiver.running:
            self._leg = self._leg or leg
            return
        self._leg = leg
        self._streams.watch(leg)
        self._receiver.announce(leg)

    def webhook(self, event: WebhookEvent) -> None:
        """An event of this call; ``control.forks.webhook`` finds out whose it is."""
        self._hooks += 1
        if self._leg is None and event.call_leg_id is not None:
            self._learn(event.call_leg_id)
        if media_may_move(event):
            self._expect_source()
        if (known := event_of(event)) is not None:
            self._machine.feed(known)

    def _expect_source(self) -> None:
        """The leg's media may come from another address now."""
        if self._leg is not None and self._receiver.running and not self._closed.is_set():
            self._receiver.expect_source(self._leg)

    # --- streams ------------------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Stream]:
        """The streams of this fork, those that live already first; ends when the fork is over."""
        self._streams.iterate()
        return self._streams.iteration()

    def _heard(self) -> None:
        """A stream has begun: look as soon as the receiver is done with it."""
        if self._loop is not None:
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Whether media has come."""
        last_ns = self._streams.last_arrival_ns()
        if last_ns:
            self._machine.feed(Media(last_ns / 1e9 + self._ahead_s))

    # --- the state machine --------------------------------------------------------------------------------------------

    def _act(self, action: Action) -> None:
        match action:
            case SendStart(restart):
                if restart:
                    self._expect_source()  # media may come before the answer does
                else:
                    self._route.end_strangers()
                self._commands.start(self._route.addresses, forked=self.state.ok)
            case SendStop():
                self._commands.stop()
            case AskCall():
                self._commands.ask()
            case CancelCommand():
                self._commands.cancel()
            case Tell("no_media", text):
                found = self.diagnosis()
                log.warning("%s: %s", self.call_control_id, found)
                self._report("no_media", text, found.as_dict())
            case Tell(kind, text):
                log.log(logging.INFO if kind in _QUIET else logging.WARNING, "%s: %s", self.call_control_id, text)
                self._report(f"fork_{kind}", text, self._silence(kind) if kind in _SILENCE else None)
            case Finish():
                self._finish(action)

    def _answer(self, event: StartOk | StartFailed | StopDone | CallLives | CallEnded | AskFailed) -> None:
        if not isinstance(event, StartOk):
            self._machine.feed(event)
            return
        self._expect_source()  # what came to its ports before was a stranger's, or is about to be moved
        self._machine.feed(event)
        if self.state.ok:
            self._answered.set()
        self._look()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _finish(self, finish: Finish) -> None:
        if self._loop is None or self._closed.is_set():
            return
        failed = finish.error is not None
        text = finish.error or finish.why
        log.log(logging.WARNING if failed else logging.INFO, "%s: the fork is over: %s", self.call_control_id, text)
        if self.state.starts and self.state.ok:
            self._loop.call_later(_LINGER_S, self._close, text, failed)
        else:
            self._close(text, failed)

    def _close(self, text: str, failed: bool) -> None:
        """End the streams, give the ports back, and let everybody go."""
        if self._closed.is_set():
            return
        if self._asking is not None:
            self._asking.cancel()
        self._commands.close()
        self._registry.remove(self)
        try:
            self._route.close(self._leg if self._streams.watching else None)
        except Exception:
            log.exception("%s: the streams of the fork could not be ended", self.call_control_id)
        finally:
            self._streams.close()
            self._closed.set()
            self._answered.set()
        figures = _figures(self.state, self._streams.packets()) | self._silence("closed")
        self._report("fork_failed" if failed else "fork_stopped", text, figures)

    # --- figures ------------------------------------------------------------------------------------------------------

    def _silence(self, kind: str) -> dict[str, Any]:
        """What is to be told of a silence that begins ("stalled"), or is over ("resumed", "closed")."""
        media_s = self.state.media_s
        if media_s is None:
            return {}
        last_ns = self._as_utc_ns(media_s)
        if kind == "stalled":
            return self._silent.begins(last_ns)
        return self._silent.ends(last_ns if self.phase is ForkPhase.MEDIA else self._as_utc_ns(self._time_s()))

    def _time_s(self) -> float:
        assert self._loop is not None
        return self._loop.time()

    def _as_utc_ns(self, time_s: float) -> int:
        """A time of the loop by the receiver's clock, also when that has stopped."""
        return round((time_s - self._ahead_s) * 1e9)

    def _report(self, kind: str, text: str, data: dict[str, Any] | None = None) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(ForkEvent(kind, self.call_control_id, self._leg, time.time_ns(), text, data or {}))
        except Exception:
            log.exception("the function that hears of forks failed on %s", kind)

    def diagnosis(self) -> Diagnosis:
        """Whether media comes, and if not what may be the reason, as far as can be told now.

        Raises ConfigurationError before the fork is entered.
        """
        if self._loop is None or self._counts is None:
            raise ConfigurationError("the fork has not been started")
        state, route, error = self.state, self._route, self._commands.error
        packets = self._streams.packets()
        return diagnose(
            Facts(
                mode=route.mode,
                stream_type=self._stream_type or "raw",
                host=route.host,
                port=route.port,
                listening=route.listening,
                api_on_this_machine=self._control.loopback,
                api_error=None if state.ok or not error else error_text(error),
                waited_s=self._time_s() - self._began_s,
                hooks=self._hooks > 0,
                hook_started=state.hook_started,
                hook_stopped=state.hook_stopped,
                call_ended=state.call_ended,
                leg_known=self._leg is not None or route.mode == "rx_tx",
                inbound=packets[Direction.INBOUND],
                outbound=packets[Direction.OUTBOUND],
                encrypted=self._streams.encrypted,
                **self._counts.facts(self._streams.count),
            )
        )


def _not_begun(state: ForkState) -> StrepError:
    text = f"the fork has not begun: {state.error or state.leaving}"
    return CallEndedError(text, operation="fork_start") if state.call_ended else StrepError(text)


def _figures(state: ForkState, packets: Mapping[Direction, int]) -> dict[str, Any]:
    """What a fork came to, for its last event."""
    return {
        "inbound_packets": packets[Direction.INBOUND],
        "outbound_packets": packets[Direction.OUTBOUND],
        "starts": state.starts,
        "stop_sent": state.stop_sent,
    }
