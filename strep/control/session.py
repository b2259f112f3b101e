"""Fork sessions: a call's fork and the streams that come of it, from fork_start to fork_stop.

::

    async with CallControl() as control, strep.Receiver("udp:0.0.0.0:9000") as receiver:
        async with control.fork(call_control_id, receiver, advertise="203.0.113.7") as fork:
            async for stream in fork:  # inbound and outbound
                asyncio.create_task(consume(stream))

What is decided when stands in :mod:`._fork_state`; here are the API's commands, the receiver and the clock.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from .._delivery.stream import Stream
from .._edge.udp import UdpAddress, parse_address
from .._model.call_legs import parse_call_leg_id
from .._model.exceptions import ConfigurationError, StrepError
from .._model.types import Direction
from .._receiver.pairs import PortPair
from .._receiver.receiver import Receiver
from ._diagnosis import Diagnosis, Facts, diagnose
from ._errors import CallEndedError
from ._fork_state import (
    Action,
    Begin,
    CallEnded,
    CancelCommand,
    Event,
    Finish,
    ForkLimits,
    ForkPhase,
    ForkState,
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
    step,
)
from ._fork_streams import ForkStreams
from ._forks import ForkRegistry
from ._outcomes import call_is_over, may_have_had_effect, told
from .events import CallAnswered, CallBridged, CallHangup, ForkStarted, ForkStopped, WebhookEvent

if TYPE_CHECKING:
    from ._client import CallControl

__all__ = ["Fork", "ForkEvent", "ForkLimits", "ForkPhase", "ForkRegistry"]

log = logging.getLogger("strep.control.forks")

Mode = Literal["target", "rx_tx"]
StreamType = Literal["raw", "decrypted"]

_LINGER_S: Final = 0.1  # for what is on its way when a fork has been stopped
_LATE_S: Final = 5.0  # what comes later of a leg that was forked begins no stream
# after these the platform may send a leg's media from another of its servers
_MOVES: Final = frozenset(
    {
        CallAnswered.EVENT_TYPE,
        CallBridged.EVENT_TYPE,
        ForkStarted.EVENT_TYPE,
        ForkStopped.EVENT_TYPE,  # also said of a fork that is moved
        "call.dequeued",
        "call.enqueued",
        "call.refer.completed",
        "conference.participant.joined",
        "conference.participant.left",
    }
)


@dataclass(frozen=True)
class ForkEvent:
    """Something that happened to a fork.

    kind: "fork_started" (the API said ok), "fork_media", "fork_stalled", "fork_resumed", "fork_restarting",
    "fork_restart_failed", "fork_stop_failed", "no_media", "fork_stopped", "fork_failed". time_ns: UTC.
    data: more of it, JSON-ready; of "no_media" the diagnosis.
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


class Fork:
    """A call's fork, made by :meth:`CallControl.fork`: ``async with`` starts and stops it, ``async for`` gives its
    streams. It can be used once.

    ``mode="target"``: the call's media come to the receiver's ``listen`` port with the STREP header, which names the
    call leg. Its id is ``call_leg_id``; or what a webhook has told (``control.forks``); or, told by neither, it is
    asked of the API (retrieve_call) while the fork starts. Until it is known media may come, and its streams are given
    when it is: a receiver with ``announced_only`` keeps their packets for ``pending_s``, another one admits them at
    once. An answer that never comes leaves the fork without streams, and :meth:`diagnosis` says so.
    ``mode="rx_tx"``: plain RTP to a pair of ports of the receiver's, opened for this fork and closed with it. Streams
    are named by ``call_leg_id``, or else by port.

    Entering waits for the API's answer and raises its error (CallEndedError when the call is over). Leaving, for
    whatever reason, stops the fork within 1.5 times ``limits.stop_s``, ends its streams and closes its files; it is
    done too when the task is cancelled meanwhile. A fork that is over (hang-up, nothing more comes) ends the iteration;
    the body goes on.
    """

    def __init__(
        self,
        control: CallControl,
        call_control_id: str,
        receiver: Receiver,
        *,
        call_leg_id: uuid.UUID | str | None = None,
        advertise: str | None = None,
        mode: Mode = "target",
        stream_type: StreamType | None = None,
        client_state: bytes | str | None = None,
        limits: ForkLimits | None = None,
        registry: ForkRegistry | None = None,
        on_event: Callable[[ForkEvent], object] | None = None,
    ) -> None:
        if mode not in ("target", "rx_tx"):
            raise ConfigurationError(f'mode={mode!r}: "target" (STREP to one port) or "rx_tx" (plain RTP to two)')
        if stream_type == "decrypted" and mode == "target":
            raise ConfigurationError("stream_type='decrypted' exists with mode=\"rx_tx\" only")
        self.call_control_id = call_control_id
        self.mode = mode
        self.pair: PortPair | None = None
        self._control = control
        self._receiver = receiver
        self._registry = control.forks if registry is None else registry
        self._leg = parse_call_leg_id(call_leg_id)
        self._advertise = None if advertise is None else advertised(advertise)
        self._stream_type = stream_type
        self._client_state = client_state
        self._on_event = on_event
        self._state = ForkState(limits or ForkLimits(idle_s=receiver.idle_timeout_s))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._command: asyncio.Task[Any] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._hooks = 0
        self._addresses: dict[str, str] = {}  # of fork_start: target, or rx and tx
        self._host, self._port = "", 0
        self._listening: tuple[str, ...] = ()
        self._streams = ForkStreams(receiver, self._heard)
        self._answered = asyncio.Event()
        self._closed = asyncio.Event()
        self._began_s = 0.0

    def __repr__(self) -> str:
        return f"<Fork of {self.call_control_id} ({self._leg or 'leg unknown'}): {self.phase}>"

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def call_leg_id(self) -> uuid.UUID | None:
        """None while it is not known."""
        return self._leg

    @property
    def phase(self) -> ForkPhase:
        return self._state.phase

    @property
    def state(self) -> ForkState:
        """All that is remembered: commands, restarts, when media came last."""
        return self._state

    @property
    def addresses(self) -> dict[str, str]:
        """Where the media is sent: ``target``, or ``rx`` and ``tx``."""
        return dict(self._addresses)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise ConfigurationError("this fork has been started before: make a new one")
        if not self._receiver.running:
            raise ConfigurationError("the receiver is not running: start it before a call is forked to it")
        self._registry.add(self)
        self._loop = asyncio.get_running_loop()
        # of the receiver's clock: what one packet's arrival is on the loop's is always the same number
        self._ahead_s = self._loop.time() - self._receiver.now_ns / 1e9
        self._began_s = self._loop.time()
        try:
            await self._prepare()
            self._feed(Begin())
            await self._answered.wait()
        except BaseException:
            await self._end("given up")
            raise
        if not self._state.ok:
            await self._end("")
            raise self._error or self._unstarted()
        return self

    def _unstarted(self) -> StrepError:
        text = f"the fork has not begun: {self._state.error or self._state.leaving}"
        return CallEndedError(text, operation="fork_start") if self._state.call_ended else StrepError(text)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end("left" if error is None else f"left by {type(error).__name__}")

    async def stop(self) -> None:
        """Stop the fork and wait until it is over: what leaving does, from anywhere. Safe to call twice."""
        if self._loop is not None:
            await self._end("stopped")

    async def wait(self) -> None:
        """Until the fork is over, for whatever reason."""
        await self._closed.wait()

    async def _end(self, why: str) -> None:
        """Leave, and wait for the end however often this task is cancelled: the state machine bounds the time."""
        self._feed(Leave(why))
        if self._state.starts == 0:
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
        """Where the media is to go to, and who hears of it."""
        if not self._receiver.sinks:
            self._streams.iterate()  # with nobody else to hear it, who enters will: nothing of the beginning is missing
        bound = [s.address for s in self._receiver.sockets if s.role == "listen"]
        if self.mode == "target":
            if not bound:
                raise ConfigurationError('the receiver has no listen port for mode="target": give it listen=')
            here = parse_address(bound[0])
            self._host, self._port = self._reachable(here, here.port)
            self._listening = (bound[0],)
            self._addresses = {"target": _udp(self._host, self._port)}
            leg = self._leg or self._registry.leg_of(self.call_control_id)
            if leg is not None:
                self._learn(leg)
            else:
                self._asking = asyncio.create_task(self._ask_leg())
        else:
            self._leg = self._leg or self._registry.leg_of(self.call_control_id)
            self.pair = pair = await self._receiver.open_pair(self._leg)
            self._host, _ = self._reachable(UdpAddress(pair.host, pair.rx), pair.rx)
            self._port = pair.rx
            self._listening = tuple(str(UdpAddress(pair.host, port)) for port in pair.ports)
            self._addresses = {"rx": _udp(self._host, pair.rx), "tx": _udp(self._host, pair.tx)}
            for port in pair.ports:
                self._streams.watch(port)
        self._before = self._counts()

    def _reachable(self, bound: UdpAddress, port: int) -> tuple[str, int]:
        if self._advertise is not None:
            host, other = self._advertise
            return host, other or port
        if ipaddress.ip_address(bound.host).is_unspecified:
            raise ConfigurationError(
                f'the receiver listens on all addresses ({bound}): give advertise="IP" or "IP:PORT", as the platform '
                "reaches it"
            )
        return bound.host, port

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
        if event.event_type in _MOVES:
            self._expect_source()
        if isinstance(event, ForkStarted):
            self._feed(HookStarted())
        elif isinstance(event, ForkStopped):
            self._feed(HookStopped())
        elif isinstance(event, CallHangup):
            self._feed(CallEnded(f"hang-up ({event.hangup_cause or 'no cause told'})"))

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
        if self._loop is not None:
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Whether media has come."""
        last_ns = self._streams.last_arrival_ns()
        if last_ns:
            self._feed(Media(last_ns / 1e9 + self._ahead_s))

    # --- the state machine --------------------------------------------------------------------------------------------

    def _feed(self, event: Event) -> None:
        if self._loop is None or self._state.over:
            return
        self._state, actions = step(self._state, event, self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._state.deadline_s < float("inf"):
            self._timer = self._loop.call_at(self._state.deadline_s, self._tick)
        for action in actions:
            self._do(action)
        if self._state.ok or self._state.over:
            self._answered.set()

    def _tick(self) -> None:
        self._look()
        self._feed(Tick())

    def _do(self, action: Action) -> None:
        match action:
            case SendStart(restart):
                if restart:
                    self._expect_source()  # media may come before the answer does
                elif self.pair is not None:
                    self._receiver.end_strangers(self.pair)
                self._send(self._start(), self._started)
            case SendStop():
                stopping = self._control.fork_stop(
                    self.call_control_id, stream_type=self._stream_type, client_state=self._client_state
                )
                self._send(stopping, self._stopped)
            case CancelCommand():
                if self._command is not None:
                    self._command.cancel()
            case Tell("no_media", text):
                found = self.diagnosis()
                log.warning("%s: %s", self.call_control_id, found)
                self._say("no_media", text, found.as_dict())
            case Tell(kind, text):
                log.log(logging.INFO if kind in _QUIET else logging.WARNING, "%s: %s", self.call_control_id, text)
                self._say(f"fork_{kind}", text)
            case Finish():
                self._finish(action)

    def _send(self, command: Any, done: Callable[[asyncio.Task[Any]], None]) -> None:
        self._command = asyncio.create_task(command)
        self._command.add_done_callback(done)

    async def _start(self) -> None:
        await self._control.fork_start(
            self.call_control_id,
            **self._addresses,  # type: ignore[arg-type]
            stream_type=self._stream_type,
            client_state=self._client_state,
        )

    def _started(self, task: asyncio.Task[Any]) -> None:
        self._command = None
        if task.cancelled():
            self._feed(StartFailed("fork_start was given up", perhaps=True))
            return
        error = task.exception()
        if error is None:
            self._expect_source()  # what came to its ports before was a stranger's, or is about to be moved
            self._feed(StartOk())
            self._look()
            return
        self._error = self._error or error
        self._feed(
            StartFailed(told(error), perhaps=may_have_had_effect(error), call_ended=call_is_over(error, self._state.ok))
        )

    def _stopped(self, task: asyncio.Task[Any]) -> None:
        self._command = None
        if task.cancelled():
            self._feed(StopDone("fork_stop was given up: no answer in time"))
        else:
            error = task.exception()
            self._feed(StopDone(None if error is None else told(error)))

    def _finish(self, finish: Finish) -> None:
        if self._loop is None or self._closed.is_set():
            return
        failed = finish.error is not None
        text = finish.error or finish.why
        log.log(logging.WARNING if failed else logging.INFO, "%s: the fork is over: %s", self.call_control_id, text)
        if self._state.starts and self._state.ok:
            self._loop.call_later(_LINGER_S, self._close, text, failed)
        else:
            self._close(text, failed)

    def _close(self, text: str, failed: bool) -> None:
        """End the streams, give the ports back, and let everybody go."""
        if self._closed.is_set():
            return
        if self._asking is not None:
            self._asking.cancel()
        self._registry.remove(self)
        try:
            self._end_streams()
        except Exception:
            log.exception("%s: the streams of the fork could not be ended", self.call_control_id)
        finally:
            self._closed.set()
            self._answered.set()
        self._say("fork_failed" if failed else "fork_stopped", text, self._figures())

    def _end_streams(self) -> None:
        try:
            if self._receiver.running:
                if self.pair is not None:
                    self._receiver.close_pair(self.pair)
                elif self._leg is not None and self._streams.watching:
                    self._receiver.forget(self._leg)
                    self._receiver.end(self._leg, linger_s=_LATE_S)
        finally:
            self._streams.close()

    # --- figures ------------------------------------------------------------------------------------------------------

    def _say(self, kind: str, text: str, data: dict[str, Any] | None = None) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(ForkEvent(kind, self.call_control_id, self._leg, time.time_ns(), text, data or {}))
        except Exception:
            log.exception("what hears of forks failed on %s", kind)

    def _figures(self) -> dict[str, Any]:
        packets = self._streams.packets()
        return {
            "inbound_packets": packets[Direction.INBOUND],
            "outbound_packets": packets[Direction.OUTBOUND],
            "starts": self._state.starts,
            "stop_sent": self._state.stop_sent,
        }

    def _counts(self) -> Counter[str]:
        totals = self._receiver.totals()
        counts = Counter({f"kind {kind}": count for kind, count in totals.by_kind.items()})
        counts.update({f"rejected {cause}": count for cause, count in totals.rejected_by.items()})
        counts["datagrams"], counts["malformed"] = totals.datagrams, totals.malformed
        counts["kernel"], counts["streams"] = totals.kernel_dropped, totals.streams_started
        return counts

    def diagnosis(self) -> Diagnosis:
        """Whether media comes, and if not what may be the reason, as far as can be told now."""
        if self._loop is None:
            raise ConfigurationError("the fork has not been started")
        since = Counter(self._counts())
        since.subtract(self._before)
        packets = self._streams.packets()
        return diagnose(
            Facts(
                mode=self.mode,
                stream_type=self._stream_type or "raw",
                host=self._host,
                port=self._port,
                listening=self._listening,
                api_on_this_machine=self._control.loopback,
                api_error=None if self._state.ok or not self._error else told(self._error),
                waited_s=self._loop.time() - self._began_s,
                hooks=self._hooks > 0,
                hook_started=self._state.hook_started,
                hook_stopped=self._state.hook_stopped,
                call_ended=self._state.call_ended,
                leg_known=self._leg is not None or self.mode == "rx_tx",
                datagrams=since["datagrams"],
                by_kind=_part(since, "kind "),
                rejected_by=_part(since, "rejected "),
                malformed=since["malformed"],
                kernel_dropped=since["kernel"],
                others=max(0, since["streams"] - self._streams.count),
                inbound=packets[Direction.INBOUND],
                outbound=packets[Direction.OUTBOUND],
                encrypted=self._streams.encrypted,
            )
        )


_QUIET: Final = ("started", "media", "resumed")


def advertised(text: str) -> tuple[str, int]:
    """ "IP" or "IP:PORT" (0: the port that the receiver has)."""
    bare = text.strip().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare)), 0
    except ValueError:
        address = parse_address(text)
    if not address.port or ipaddress.ip_address(address.host).is_unspecified:
        raise ConfigurationError(f'advertise={text!r}: give the address that the platform sends to, "IP" or "IP:PORT"')
    return address.host, address.port


def _udp(host: str, port: int) -> str:
    return f"udp:{UdpAddress(host, port)}"


def _part(counts: Counter[str], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix) and n > 0}
