"""The live receiver: what users start, stop and ask."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Final, Self, Unpack

from .._delivery.call_leg import CallLeg, CallLegs
from .._delivery.dispatcher import Dispatcher
from .._delivery.hub import StreamHub, Watcher, WatchKey
from .._delivery.ordered_work import OrderedWork
from .._delivery.stream import Stream
from .._edge.udp.edge import Edge
from .._engine.engine import Engine
from .._model.call_legs import parse_call_leg_id, require_call_leg_id
from .._model.exceptions import ConfigurationError
from .._model.report import StreamReport, Totals, summary_of
from .._model.types import StreamEvent, StreamInfo
from .._threads.incidents import Incident, Incidents
from ..sinks.base import BaseSink, Sink, as_sink
from .bindings import bindings_of
from .ending import read_rest
from .engine_driver import EngineDriver
from .hooks import Hooks, Interior
from .legs import Legs
from .pacing import Pacing
from .pairs import PortPair, PortPool, parse_ports
from .pump import Pump
from .recorder import Recorder
from .settings import LATENCY_MS, LATENCY_WITHOUT_SINKS_MS, ReceiverOptions, Settings, shows_settings
from .sink_problems import SinkProblems
from .socket_troubles import SocketTroubles
from .sockets import SocketSet, SocketStatus
from .watchdog import Watchdog

__all__ = ["Receiver", "SocketStatus"]

_STOP_TIMEOUT_S: Final = 2.0  # to read what has come and to finish sinks, unless the caller says otherwise
_READING_SHARE: Final = 0.5  # of the time for stopping; the rest is for sinks
_CLOSING_S: Final = 0.2  # and no less than this, whatever reading took


@dataclass(frozen=True, slots=True)
class _Parts:
    """What exists once started."""

    engine: Engine
    dispatcher: Dispatcher
    driver: EngineDriver
    sockets: SocketSet
    pacing: Pacing
    pump: Pump
    legs: Legs
    recorder: Recorder | None


class Receiver:
    """Receives forked media on one port (``listen``) and/or a pair of ports (``rx``, ``tx``).

    ::

        async with strep.Receiver("udp:0.0.0.0:9000", sinks=[strep.sinks.WavSink("calls/")]) as receiver:
            async for stream in receiver:
                asyncio.create_task(consume(stream))

    ``listen``       "udp:HOST:PORT": STREP of any number of calls; plain RTP is taken too, a stream per SSRC.
    ``rx``, ``tx``   plain RTP of one call leg, inbound and outbound; both may name the same port, then the SSRC tells
                     them apart (the first source is taken for inbound).
    ``call_leg_id``  names the leg of the rx/tx pair; without it streams are named by port and SSRC.
    ``pairs``        "udp:HOST:FIRST-LAST": ports for pairs that :meth:`open_pair` opens while it runs; by default any
                     that are free, on all addresses.
    ``sinks``        who gets the audio and events of all streams: of :mod:`strep.sinks`, or your own. Each gets them in
                     order; one that fails or is slow hurts no other.
    ``latency_ms``   how long a hole waits for its packet: 0 to 800; default 200 with sinks, 60 without.
    ``payload_types``  dynamic types, {96: "L16/16000"}.
    ``allow``        networks that may send, as CIDR; ``call_legs``: call_leg_ids that are admitted. Default: all.
    ``announced_only``  admit STREP only of legs that were announced (:meth:`announce`), and no plain RTP but on ports
                     that are bound to a leg. What comes before waits for ``pending_s``, then it is "unannounced".
    ``max_streams``  newer streams are refused beyond this; ``idle_timeout_s`` ends streams that fell silent.
    ``pin``          a stream belongs to the source that proved itself first: to its "address" and port, or its
                     "network" (/24 of IPv4, /48 of IPv6, any port). Another host takes it over when the first has been
                     silent for 1 s (nothing of it is lost: what came meanwhile was kept), and loses it when that one
                     comes back; another port of the same host when it has been silent for 0.1 s. What others send is
                     rejected as "foreign_source". "off": any address may send.
    ``pcap``         records every datagram raw; a replay of the file gives the same audio and figures.
    ``transport``    "auto", "recvmmsg" (Linux), "portable", or "ring": a packet ring (Linux, CAP_NET_RAW) that all
                     ports share. It is in front of the machine's firewall: ``allow`` is what limits senders then.
    ``interface``    names of interfaces that the ring looks at; by default those that the ports' addresses belong to.
    ``sniff``        "udp portrange 10000-20000": instead of listening, take traffic between others as it comes by on
                     ``interface`` (a mirror port), a stream per address pair, port and SSRC as in a replay.
    ``receive_buffer``  bytes of receive buffer to ask the kernel for, for each socket; default 128 MiB, each port of a
                     pair 1 MiB. What was granted is in :attr:`sockets`.
    ``drain_s``      how much longer than 2 s the end may take, to read and finish what has come before it.
    ``redact``       events tell that a key was pressed, not which (card numbers, PINs).

    Raises ConfigurationError for wrong arguments, BindError from :meth:`start`.
    """

    @shows_settings("Receiver")
    def __init__(
        self, listen: str | None = None, *, sinks: Sequence[Sink] = (), **options: Unpack[ReceiverOptions]
    ) -> None:
        self._set_up(Settings(listen, **options), sinks, Edge(), Hooks())

    @classmethod
    def of(
        cls, settings: Settings, sinks: Sequence[Sink] = (), *, edge: Edge | None = None, hooks: Hooks | None = None
    ) -> Self:
        """A receiver with settings that exist already.

        Not for users: ``edge`` is where datagrams and time come from (workers hand in sockets that are bound already,
        tests sockets in memory and virtual time), ``hooks`` are functions that it calls.
        """
        receiver = cls.__new__(cls)
        receiver._set_up(settings, sinks, edge or Edge(), hooks or Hooks())
        return receiver

    def _set_up(self, settings: Settings, sinks: Sequence[Sink], edge: Edge, hooks: Hooks) -> None:
        self._settings = settings
        self._addresses = settings.addresses()
        self._pool = PortPool(*parse_ports(settings.pairs or "udp:0.0.0.0:0"))
        self._sinks = tuple(sinks)
        self._edge = edge
        self._hooks = hooks
        self._incidents = Incidents(edge.now_ns)
        self._incidents.listen(hooks.incident)
        self._watchdog = Watchdog(
            self._incidents,
            self._resume,
            give_up=hooks.stalled,
            give_up_after_s=hooks.stalled_after_s,
            clock_ns=edge.monotonic_ns,
        )
        self._troubles = SocketTroubles(self._incidents)
        self._sink_problems = SinkProblems(edge.monotonic_s)
        self._hub = StreamHub(self._report_live)
        self._legs: CallLegs | None = None
        self._parts: _Parts | None = None
        self._stopped = False

    # --- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """:meth:`start` it."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """:meth:`stop` it."""
        await self.stop()

    async def start(self) -> None:
        """Bind the sockets and begin to receive.

        Raises BindError if a port cannot be had, ConfigurationError if the receiver was started before or cannot write
        its ``pcap`` file.
        """
        if self._parts is not None:
            raise ConfigurationError("this receiver has been started before: make a new one")
        loop = asyncio.get_running_loop()
        rings = partial(
            self._edge.rings,
            self._settings.interface,
            receive_buffer=self._settings.receive_buffer,
            sniff=self._settings.sniff,
        )
        sockets = SocketSet(
            self._edge,
            self._pool,
            self._incidents,
            watching=self._edge.can_watch(loop),
            transport=self._settings.transport,
            receive_buffer=self._settings.receive_buffer,
            rings=rings if self._settings.ring else None,
        )
        try:
            sockets.open(self._addresses)
            parts = _assemble(
                self._settings,
                [as_sink(sink) for sink in self._sinks],
                edge=self._edge,
                loop=loop,
                sockets=sockets,
                hub=self._hub,
                incidents=self._incidents,
                troubles=self._troubles,
                watchdog=self._watchdog,
            )
        except BaseException:
            sockets.close()
            raise
        self._parts = parts
        self._hub.attach(loop)
        self._hooks.started(Interior(parts.engine, parts.dispatcher))
        await sockets.attach(sockets.first, parts.pump.wake)
        parts.pump.start()

    async def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """Let nothing more in, read what has come before, and finish all streams and sinks.

        This takes at most ``timeout_s`` and the receiver's ``drain_s`` together; half of ``timeout_s`` and all of
        ``drain_s`` are for reading. What is unread then is counted (dropped: unread). Safe to call twice.
        """
        parts = self._parts
        if parts is None or self._stopped:
            return
        self._stopped = True
        engine, driver, sockets, now_s = parts.engine, parts.driver, parts.sockets, self._edge.monotonic_s
        parts.pump.stop()
        began_s, drain_s = now_s(), self._settings.drain_s
        sockets.shut()
        await read_rest(sockets.readers, driver.take, began_s + timeout_s * _READING_SHARE + drain_s, now_s)
        self._hooks.received_all()
        driver.do(engine.flush)
        engine.accounts.leave_unread(sockets.count_unread())
        sockets.close()
        self._hub.finish()
        rest_s = max(began_s + timeout_s + drain_s - now_s(), _CLOSING_S)
        closing = [asyncio.to_thread(parts.dispatcher.close, rest_s)]
        if parts.recorder is not None:
            closing.append(asyncio.to_thread(parts.recorder.close, rest_s))
        await asyncio.gather(*closing)
        driver.advance(engine.now_ns)  # collect faults raised while sinks decoded
        # what analyzers told at the very end is in the loop's hands before this
        asyncio.get_running_loop().call_soon(self._hub.finish_events)

    def _resume(self) -> None:
        if self._parts is not None:
            self._parts.pump.resume()

    def _running(self) -> _Parts:
        if self._parts is None or self._stopped:
            raise ConfigurationError(f"the receiver {'has stopped' if self._stopped else 'has not been started'}")
        return self._parts

    # --- streams --------------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Stream]:
        """Streams as they are admitted (those that live already come first); ends when the receiver stops."""
        if self.running and not self._hub.iterated:
            self.want_audio()
            self._hub.iterate(self._running().engine.registry.live())
        return self._hub.streams()

    def legs(self) -> AsyncIterator[CallLeg]:
        """Call legs, each with both of its directions, when the first of them comes; instead of iterating over streams.
        What is plain RTP on one port is a leg for each SSRC. Ends when the receiver stops."""
        if self._legs is None:
            self._legs = CallLegs(aiter(self))
        return self._legs

    def want_audio(self) -> None:
        """From now on, deliver each packet's audio at once, because streams will be iterated."""
        parts = self._running()
        if not parts.pacing.iterated:
            parts.pacing.iterate()
            parts.driver.advance(parts.engine.now_ns, parts.pacing.release(0))

    def events(self) -> AsyncIterator[StreamEvent]:
        """What happens in all streams: key presses, and what analyzers among the sinks find. Ends with the receiver."""
        return self._hub.events()

    def incidents(self) -> AsyncIterator[Incident]:
        """What happens to the receiver itself: faults that were contained ("fault", one a place; all are counted in
        ``totals().faults``), media that nobody read ("stalled", "recovered"), sockets ("socket_failed",
        "socket_recovered"), and what sinks tell of themselves. From when it is asked for; ends with the receiver."""
        return self._hub.incidents()

    # --- legs -----------------------------------------------------------------------------------------------------

    def announce(self, call_leg_id: uuid.UUID | str) -> None:
        """A leg is about to be forked here. With ``announced_only`` it is admitted from now on, together with what has
        come of it already. Also lifts the ban that :meth:`end` put on the leg.

        Raises ConfigurationError if as many legs are announced as there may be streams.
        """
        self._running().legs.announce(require_call_leg_id(call_leg_id))

    def forget(self, call_leg_id: uuid.UUID | str) -> None:
        """Take an announcement back. Streams that live go on."""
        self._running().legs.forget(require_call_leg_id(call_leg_id))

    def expect_source(self, call_leg_id: uuid.UUID | str, within_s: float = 5.0) -> None:
        """The media of a leg is about to come from another address, because the call was bridged or forked anew. Within
        that time the new address need not wait until the present one has been silent for 1 s."""
        self._running().legs.expect_source(require_call_leg_id(call_leg_id), within_s)

    def end(self, call_leg_id: uuid.UUID | str, *, linger_s: float = 2.0) -> int:
        """End the streams of a leg now, for the reason "stopped", so that files are closed; returns how many.

        What still comes of the leg within ``linger_s`` begins no new streams and is rejected as "ended", unless the leg
        is announced anew.
        """
        return self._running().legs.end(require_call_leg_id(call_leg_id), linger_s)

    @property
    def pairs(self) -> list[PortPair]:
        """The pairs of ports that are open."""
        return self._parts.sockets.pairs if self._parts else []

    async def open_pair(self, call_leg_id: uuid.UUID | str | None = None) -> PortPair:
        """Open a port for each direction of a leg that is forked as plain RTP; ``call_leg_id`` names its streams.

        Raises BindError if no ports are left.
        """
        parts = self._running()
        leg = parse_call_leg_id(call_leg_id)
        opened = await parts.sockets.open_ports(parts.pump.wake)
        if self._stopped:
            parts.sockets.give_back(opened)
        return self._running().legs.open_pair(opened, leg)

    def end_strangers(self, pair: PortPair) -> int:
        """End streams on a pair to which nothing was forked yet: they are strangers'. Their reason is "evicted", and
        they leave no file. Returns how many there were."""
        return self._running().legs.end_strangers(pair)

    def close_pair(self, pair: PortPair) -> int:
        """Take what has come to a pair, end its streams for the reason "stopped", close its ports and give them back;
        returns how many streams there were. Safe to call twice."""
        if not self.running or pair not in self.pairs:
            return 0
        return self._running().legs.close_pair(pair)

    # --- for forks ------------------------------------------------------------------------------------------------

    def watch(self, key: WatchKey, watcher: Watcher) -> list[StreamInfo]:
        """Tell ``watcher`` of the streams of a call leg (a UUID), or of a local port (int), until :meth:`unwatch`;
        returns those that live."""
        live = self._running().engine.registry.live()
        self._hub.watch(key, watcher)
        return [info for info in live if key in (info.call_leg_id, info.local_port)]

    def unwatch(self, key: WatchKey, watcher: Watcher) -> None:
        """Tell it no more. Safe to call twice."""
        self._hub.unwatch(key, watcher)

    def stream(self, info: StreamInfo) -> Stream:
        """A live stream as one that can be consumed."""
        self.want_audio()
        return self._hub.stream_of(info)

    def last_arrival_of(self, streams: Iterable[StreamInfo]) -> int:
        """When the last packet of these streams came, on the clock of :attr:`now_ns`; 0: none of them lives."""
        return self._parts.engine.last_arrival_ns(streams) if self._parts and self.running else 0

    def report(self, info: StreamInfo) -> StreamReport:
        """The present figures of a live stream."""
        return self._running().engine.report(info)

    def _report_live(self, info: StreamInfo) -> StreamReport:
        if self._parts is None:
            raise ConfigurationError("the receiver has not been started")
        return self._parts.engine.report(info)

    @property
    def now_ns(self) -> int:
        """UTC nanoseconds, on the clock of arrival times."""
        return self._edge.now_ns()

    @property
    def running(self) -> bool:
        """Whether it was started and has not been stopped."""
        return self._parts is not None and not self._stopped

    @property
    def sinks(self) -> Sequence[Sink]:
        """The sinks that it was made with."""
        return self._sinks

    @property
    def idle_timeout_s(self) -> float:
        """A stream that is silent for so many seconds has ended."""
        return self._settings.idle_timeout_s

    # --- figures --------------------------------------------------------------------------------------------------

    @property
    def sockets(self) -> list[SocketStatus]:
        """The sockets that are open, or were at the end: addresses, buffers, what the kernel dropped."""
        return self._parts.sockets.status() if self._parts else []

    @property
    def live_streams(self) -> int:
        """How many streams live."""
        return self._parts.engine.live_streams if self._parts else 0

    @property
    def last_datagram_ns(self) -> int | None:
        """When the last datagram came, UTC nanoseconds; None: none has come."""
        return self._parts.driver.last_datagram_ns if self._parts else None

    def problems(self) -> list[str]:
        """What is wrong now, a sentence each: media that wait and are not read, sockets that cannot be read, sinks that
        have failed or cannot write at the moment, sinks that refused streams within the last minute (if this is asked
        at least once a minute). Empty when all is well; what has been mended is not told any more."""
        if not self.running:
            return [f"the receiver {'has stopped' if self._stopped else 'has not been started'}"]
        stalled = self._watchdog.problem
        return [
            *([stalled] if stalled is not None else []),
            *self._troubles.problems(),
            *self._sink_problems(self.sink_reports()),
        ]

    @property
    def healthy(self) -> bool:
        """Whether it receives and nothing is wrong: no :meth:`problems`."""
        return not self.problems()

    @property
    def last_read_age_s(self) -> float:
        """How many seconds ago the sockets were last read. They are not read while nothing comes."""
        return self._watchdog.seconds_since_look

    def totals(self) -> Totals:
        """What became of every datagram."""
        totals = self._parts.engine.totals() if self._parts else Totals()
        totals.faults = self._incidents.faults()
        if self._parts:
            totals.kernel_dropped = self._parts.sockets.kernel_dropped()
            totals.after_end = self._parts.sockets.after_end
        return totals

    def reports(self) -> list[StreamReport]:
        """Figures of all streams, ended and live, in order of admission."""
        if self._parts is None:
            return []
        engine = self._parts.engine
        live = engine.reports(engine.registry.live())
        return sorted([*self._parts.dispatcher.ended, *live], key=lambda report: report.stream.serial)

    def top(self, limit: int, key: str = "packets") -> list[StreamReport]:
        """The live streams with the most "packets", "lost" or "jitter": cheap with thousands."""
        return self._parts.engine.top(limit, key) if self._parts else []

    def settled(self, stream: StreamInfo) -> bool:
        """Whether all sinks are done with a stream that has ended: its :meth:`entry` does not change any more."""
        return self._parts is None or self._parts.dispatcher.settled(stream)

    def entry(self, report: StreamReport) -> dict[str, Any]:
        """A stream's entry in ``summary.json``: its figures, its files, and what analyzers found."""
        found = self._dispatcher()
        return {**report.as_dict(found.files(report.stream)), **found.figures(report.stream)}

    def sink_reports(self) -> list[dict[str, Any]]:
        """What each sink, and the recording, says of itself."""
        reports = [report for report in self._dispatcher().reports() if report["kind"] != self._hub.kind]
        if self._parts and self._parts.recorder is not None:
            reports.append(self._parts.recorder.report())
        return reports

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        found = self._dispatcher()
        return summary_of(self.totals(), self.reports(), found.files, self.sink_reports(), self.sockets, found.figures)

    def _dispatcher(self) -> Dispatcher:
        """The started dispatcher, or an empty one."""
        return self._parts.dispatcher if self._parts else Dispatcher([])


def _assemble(
    settings: Settings,
    sinks: Sequence[BaseSink],
    *,
    edge: Edge,
    loop: asyncio.AbstractEventLoop,
    sockets: SocketSet,
    hub: StreamHub,
    incidents: Incidents,
    troubles: SocketTroubles,
    watchdog: Watchdog,
) -> _Parts:
    """Everything between open sockets and sinks. Raises ConfigurationError if the recording cannot be written."""
    config = settings.engine_config(
        bindings_of(sockets.ports, settings.leg), LATENCY_MS if sinks else LATENCY_WITHOUT_SINKS_MS
    )
    listeners = [sink for sink in sinks if sink.wants_audio]
    pacing = Pacing(
        config.latency_ns,
        audio=bool(listeners),
        prompt=any(sink.prompt for sink in listeners),
        buffer=sockets.smallest_buffer,
    )
    engine = Engine(config, OrderedWork().add, release=pacing.release(0))
    roles = {port: int(role) for port, role in sockets.ports}
    recorder = None if settings.pcap is None else _open_recorder(settings.pcap, roles, incidents)
    dispatcher = Dispatcher([*sinks, hub], redact=settings.redact, incidents=incidents)
    driver = EngineDriver(engine, dispatcher, edge.now_ns, recorder)
    pump = Pump(
        loop,
        edge.now_ns,
        sockets,
        driver,
        pacing,
        troubles=troubles,
        watchdog=watchdog,
        incidents=incidents,
        consumed=lambda: hub.consumed,
    )
    legs = Legs(
        engine,
        sockets,
        troubles,
        recorder,
        take=driver.take,
        do=driver.do,
        drain=pump.drain,
        changing_sockets=pump.changing_sockets,
        now_ns=edge.now_ns,
        monotonic_s=edge.monotonic_s,
    )
    return _Parts(engine, dispatcher, driver, sockets, pacing, pump, legs, recorder)


def _open_recorder(path: str | PathLike[str], roles: dict[int, int], incidents: Incidents) -> Recorder:
    try:
        return Recorder(path, roles, incidents)
    except OSError as error:
        raise ConfigurationError(
            f"pcap {path} cannot be written: {error.strerror}; choose a file in a directory that can be"
        ) from error
