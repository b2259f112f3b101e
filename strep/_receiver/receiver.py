"""The live receiver: sockets, the engine and the sinks on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from socket import socketpair
from types import TracebackType
from typing import Any, Final, Self

from .._delivery.dispatcher import Dispatcher
from .._delivery.ordered_work import OrderedWork
from .._delivery.stream import Stream, StreamHub, Watcher, WatchKey
from .._edge.udp import PortableSocket, SteadyClock, UdpAddress, UdpSocket, open_socket, parse_address, transport_named
from .._engine.engine import Engine, EngineConfig
from .._engine.sources.admission import PortBinding, PortRole
from .._model.datagrams import DatagramBatch, merged
from .._model.events import Event
from .._model.exceptions import ConfigurationError
from .._model.report import StreamReport, Totals, summary_of
from .._model.time import TICK_NS
from .._model.types import Codec, StreamEvent, StreamInfo
from .._threads.incidents import Incident, Incidents
from ..sinks.base import Sink, as_sink
from .ending import read_now, read_rest
from .pacing import Pacing
from .pairs import PairSockets, PortPair, PortPool, parse_ports
from .problems import SinkProblems
from .recorder import Recorder
from .settings import engine_options, leg_of, parse_call_leg_id
from .troubles import SocketTroubles
from .watchdog import Watchdog

__all__ = ["Receiver", "SocketStatus"]

_ROUNDS: Final = 8  # batches a socket in one turn of the loop, so that timers still run under flood
_STOP_S: Final = 2.0
_READING: Final = 0.5  # of the time for stopping; the rest is for sinks
_CLOSING_S: Final = 0.2  # and no less than this, whatever reading took
_COUNTING_S: Final = 1.0  # what nobody has time to read: a million datagrams take half of it
_PAIR_CLOSING_S: Final = 0.05
_PAIR_ROWS: Final = 64  # datagrams a look at a pair's port: one leg's
_PAIR_BUFFER: Final = 1 << 20
_AGAIN_S: Final = 0.01  # until the next look, after one that failed
_GUARD_NS: Final = 2_000_000  # a datagram stamped this long ago has reached its socket's queue


@dataclass(frozen=True, slots=True)
class SocketStatus:
    """A bound socket: where it listens, and what the kernel granted and dropped."""

    address: str
    role: str  # "listen", "rx", "tx", "rx+tx"
    transport: str
    requested_buffer: int  # bytes
    granted_buffer: int  # bytes, as the kernel counts them
    kernel_dropped: int


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
    ``transport``    "auto", "recvmmsg" (Linux) or "portable".
    ``drain_s``      how much longer than 2 s the end may take, to read and finish what has come before it.
    ``redact``       events tell that a key was pressed, not which (card numbers, PINs).

    Raises ConfigurationError for wrong arguments, BindError from :meth:`start`.
    """

    def __init__(
        self,
        listen: str | None = None,
        *,
        rx: str | None = None,
        tx: str | None = None,
        call_leg_id: uuid.UUID | str | None = None,
        pairs: str | None = None,
        sinks: Sequence[Sink] = (),
        latency_ms: float | None = None,
        payload_types: Mapping[int, str | Codec] | None = None,
        allow: Sequence[str] = (),
        call_legs: Iterable[uuid.UUID | str] | None = None,
        announced_only: bool = False,
        pending_s: float = 5.0,
        max_streams: int = 20_000,
        idle_timeout_s: float = 60.0,
        pin: str = "address",
        pcap: str | PathLike[str] | None = None,
        transport: str = "auto",
        receive_buffer: int = 128 << 20,
        drain_s: float = 0.0,
        redact: bool = False,
    ) -> None:
        if listen is None and rx is None and tx is None and pairs is None:
            raise ConfigurationError(
                'no port to receive on: give listen="udp:0.0.0.0:9000", rx= and tx=, or pairs="udp:0.0.0.0:20000-20999"'
            )
        if not 0 < pending_s <= 60:
            raise ConfigurationError(f"pending_s={pending_s:g}: more than 0 and at most 60 s")
        if not 0 <= drain_s <= 3600:
            raise ConfigurationError(f"drain_s={drain_s:g}: 0 to 3600 s")
        if transport not in ("auto", "recvmmsg", "portable"):
            raise ConfigurationError(f'transport {transport!r}: "auto", "recvmmsg" or "portable"')
        self._addresses = [
            (parse_address(text), role)
            for text, role in ((listen, PortRole.LISTEN), (rx, PortRole.RX), (tx, PortRole.TX))
            if text is not None
        ]
        self._call_leg_id = parse_call_leg_id(call_leg_id)
        self._options = engine_options(
            latency_ms=200.0 if latency_ms is None and sinks else 60.0 if latency_ms is None else latency_ms,
            payload_types=payload_types,
            allow=allow,
            call_legs=call_legs,
            max_streams=max_streams,
            idle_timeout_s=idle_timeout_s,
            pin=pin,
        )
        self._options["pending_ns"] = round(pending_s * 1e9) if announced_only else None
        self._pool = PortPool(*parse_ports(pairs or "udp:0.0.0.0:0"))
        self._pairs = PairSockets(watching=False)
        self._clock = SteadyClock()
        self._incidents = Incidents(self._clock.now_ns)
        self._watchdog = Watchdog(self._incidents, self._resume)
        self._troubles = SocketTroubles(self._incidents)
        self._sink_problems = SinkProblems()
        self._sinks = [as_sink(sink) for sink in sinks]
        self._pcap = pcap
        self._transport = transport
        self._receive_buffer = receive_buffer
        self._drain_s = drain_s
        self._redact = redact
        self._sockets: list[tuple[UdpSocket, PortRole]] = []
        self._first: list[UdpSocket] = []  # of them, those that were opened at the start
        self._engine: Engine | None = None
        self._pacing = Pacing(0, prompt=True, buffer=0)
        self._dispatcher: Dispatcher | None = None
        self._hub = StreamHub(self._report)
        self._order = OrderedWork()
        self._recorder: Recorder | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reading = False
        self._listened: set[int] = set()  # while reading: what the loop watches
        self._watching = True  # the loop can watch sockets; otherwise (Windows' proactor) datagram endpoints do
        self._polls_without = 0
        self._found = 0  # datagrams at the last look
        self._stopped = False
        self._kernel_dropped = 0  # of sockets that are closed
        self._after_end = 0
        self._dropped_at_end: list[int] | None = None  # by the kernel, of each socket
        self._last_datagram_ns: int | None = None

    # --- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Bind the sockets and begin to receive."""
        if self._engine is not None:
            raise ConfigurationError("this receiver has been started before: make a new one")
        self._loop = asyncio.get_running_loop()
        self._hub.attach(self._loop)
        self._watching = _can_watch(self._loop)
        self._pairs = PairSockets(self._watching)
        try:
            self._open_sockets()
            self._first = [socket for socket, _ in self._sockets]
            bindings = self._bindings()
            self._engine = Engine(EngineConfig(**self._options, bindings=bindings), self._order.add)
            listeners = [sink for sink in self._sinks if sink.wants_audio]
            self._engine.audio = bool(listeners)
            self._pacing = Pacing(
                self._options["latency_ns"],
                prompt=any(sink.prompt for sink in listeners),
                buffer=min((socket.granted_buffer for socket, _ in self._sockets), default=0),
            )
            if self._pcap is not None:
                self._recorder = self._record(self._pcap, {port: int(b.role) for port, b in bindings.items()})
        except BaseException:
            for socket, _ in self._sockets:
                socket.close()
            self._pairs.close()
            raise
        self._dispatcher = Dispatcher([*self._sinks, self._hub], redact=self._redact, incidents=self._incidents)
        if not self._watching:
            for socket, _ in self._sockets:
                if isinstance(socket, PortableSocket):
                    await socket.attach(self._loop, self._wake)
        self._watchdog.watch(s.fileno() for s, _ in self._sockets)
        self._watchdog.start()
        self._arm(None)
        self._wake()  # what came before we listened

    def _record(self, path: str | PathLike[str], roles: dict[int, int]) -> Recorder:
        try:
            return Recorder(path, roles, self._incidents)
        except OSError as error:
            raise ConfigurationError(
                f"pcap {path} cannot be written: {error.strerror}; choose a file in a directory that can be"
            ) from error

    def _open_sockets(self) -> None:
        by_address: dict[tuple[str, int], int] = {}
        for address, role in self._addresses:
            same = by_address.get((address.host, address.port))
            if same is not None and address.port and role == PortRole.TX and self._sockets[same][1] == PortRole.RX:
                self._sockets[same] = (self._sockets[same][0], PortRole.BOTH)
                continue
            socket = self._open_socket(address)
            by_address[(address.host, address.port)] = len(self._sockets)
            self._sockets.append((socket, role))
        ports = [socket.local_port for socket, _ in self._sockets]
        if len(set(ports)) < len(ports):
            raise ConfigurationError(
                f"one port on several addresses ({ports}): streams are told apart by port, choose different ones"
            )

    def _open_socket(self, address: UdpAddress) -> UdpSocket:
        transport = self._transport if self._watching else "portable"
        return open_socket(address, transport=transport, receive_buffer=self._receive_buffer, clock=self._clock)

    def _bindings(self) -> dict[int, PortBinding]:
        pair = min((s.local_port for s, role in self._sockets if role), default=0)
        return {
            s.local_port: PortBinding(role, pair if role else 0, self._call_leg_id if role else None)
            for s, role in self._sockets
        }

    async def stop(self, timeout_s: float = _STOP_S) -> None:
        """Let nothing more in, read what has come before, finish all streams and sinks: in ``timeout_s`` and the
        receiver's ``drain_s``, of which the first half of ``timeout_s`` and all of ``drain_s`` are for reading. What is
        unread then is counted (dropped: unread). Safe to call twice."""
        engine, dispatcher = self._engine, self._dispatcher
        if engine is None or dispatcher is None or self._stopped:
            return
        self._stopped = True
        self._unlisten()
        began_s = time.monotonic()
        end_s = began_s + timeout_s + self._drain_s
        dropped = self._dropped()
        self._shut([socket for socket, _ in self._sockets])
        await read_rest(
            [socket for socket, _ in self._sockets],
            lambda batch: self._take(batch, engine, dispatcher),
            began_s + timeout_s * _READING + self._drain_s,
        )
        self._received_all()
        self._step(engine, dispatcher, 0, engine.flush)
        engine.accounts.leave_unread(self._count_unread())
        self._after_end += sum(self._dropped()) - sum(dropped)
        self._dropped_at_end = dropped
        for socket, _ in self._sockets:
            socket.close()
        for pair in self._pairs.open:
            for port in pair.ports:
                self._pool.give_back(port)
        self._pairs.close()
        self._hub.finish()
        rest_s = max(end_s - time.monotonic(), _CLOSING_S)
        closing = [asyncio.to_thread(dispatcher.close, rest_s)]
        if self._recorder is not None:
            closing.append(asyncio.to_thread(self._recorder.close, rest_s))
        await asyncio.gather(*closing)
        self._step(engine, dispatcher, 0, engine.advance, engine.now_ns)  # what went wrong in decoding for sinks
        # what analyzers told at the very end is in the loop's hands before this
        asyncio.get_running_loop().call_soon(self._hub.finish_events)

    def _shut(self, sockets: Sequence[UdpSocket]) -> None:
        for socket in sockets:
            socket.shut()

    def _count_unread(self) -> int:
        """Datagrams that there was no time for."""
        until_s = time.monotonic() + _COUNTING_S
        return sum(socket.count_rest(until_s) for socket, _ in self._sockets)

    def _received_all(self) -> None:
        """For workers: nothing more will be received, nothing has been ended yet."""

    # --- streams --------------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Stream]:
        """Streams as they are admitted (those that live already come first); ends when the receiver stops."""
        if self.running and not self._hub.active:
            self.want_audio()
            self._hub.activate(self._running()[0].registry.live())
        return self._streams()

    def want_audio(self) -> None:
        """Streams will be iterated, each packet is wanted at once: what :meth:`stream` gives has audio from now on."""
        engine, _ = self._running()
        if not self._pacing.iterated:
            engine.audio = True
            self._pacing.iterated = self._pacing.prompt = True
            engine.release_ns, engine.release_groups = self._pacing.release(0)

    async def _streams(self) -> AsyncIterator[Stream]:
        while (stream := await self._hub.next()) is not None:
            yield stream

    async def events(self) -> AsyncIterator[StreamEvent]:
        """What happens in all streams: key presses, and what analyzers among the sinks find. Ends with the receiver."""
        queue = self._hub.listen()
        if self._stopped:
            queue.end()
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._hub.unlisten(queue)

    async def incidents(self) -> AsyncIterator[Incident]:
        """What happens to the receiver itself: faults that were contained ("fault", one a place; all are counted in
        ``totals().faults``), media that nobody read ("stalled", "recovered"), sockets ("socket_failed",
        "socket_recovered"), what sinks tell of themselves. From when it is asked for; ends with the receiver."""
        queue = self._hub.listen_incidents()
        if self._stopped:
            queue.end()
        try:
            while (incident := await queue.get()) is not None:
                yield incident
        finally:
            self._hub.unlisten_incidents(queue)

    # --- legs -----------------------------------------------------------------------------------------------------

    def announce(self, call_leg_id: uuid.UUID | str) -> None:
        """A leg is about to be forked here: with ``announced_only`` it is admitted from now on, and what has come of it
        already too. Ends what :meth:`end` keeps out.

        Raises ConfigurationError when as many legs are announced as there may be streams.
        """
        engine, dispatcher = self._running()
        leg = leg_of(call_leg_id)
        announcements = engine.registry.announcements
        dispatcher.handle(engine.announce(leg))
        if announcements is not None and not announcements.known(*divmod(leg.int, 1 << 64)):
            raise ConfigurationError("too many legs are announced: forget() those that ended, or raise max_streams")

    def forget(self, call_leg_id: uuid.UUID | str) -> None:
        """Take an announcement back. Streams that live go on."""
        self._running()[0].forget(leg_of(call_leg_id))

    def expect_source(self, call_leg_id: uuid.UUID | str, within_s: float = 5.0) -> None:
        """The media of a leg is about to come from another address (it was bridged, or forked anew): within that time
        that one need not wait until the present one has been silent for 1 s."""
        self._running()[0].expect_source(leg_of(call_leg_id), self._now_ns() + round(within_s * 1e9))

    def end(self, call_leg_id: uuid.UUID | str, *, linger_s: float = 2.0) -> int:
        """End the streams of a leg now, for the reason "stopped", so that files are closed; returns how many.

        What still comes of the leg within ``linger_s`` begins no new ones and is rejected as "ended", unless it is
        announced anew.
        """
        engine, dispatcher = self._running()
        leg = leg_of(call_leg_id)
        self._drain()
        streams = [info for info in engine.registry.live() if info.call_leg_id == leg]
        engine.registry.shut_out(leg, self._now_ns() + round(linger_s * 1e9), self._now_ns())
        dispatcher.handle(engine.end(streams, "stopped"))
        return len(streams)

    @property
    def pairs(self) -> list[PortPair]:
        """The pairs of ports that are open."""
        return list(self._pairs.open)

    async def open_pair(self, call_leg_id: uuid.UUID | str | None = None) -> PortPair:
        """Open a port for each direction of a leg that is forked as plain RTP; ``call_leg_id`` names its streams.

        Raises BindError when no ports are left.
        """
        engine, _ = self._running()
        leg = parse_call_leg_id(call_leg_id)
        sockets: list[UdpSocket] = []
        try:
            for _ in range(2):
                _, socket = self._pool.take(self._open_pair_socket)
                sockets.append(socket)
            for socket in sockets:
                if not self._watching and isinstance(socket, PortableSocket) and self._loop is not None:
                    await socket.attach(self._loop, self._wake)
        except BaseException:
            for socket in sockets:
                socket.close()
                self._pool.give_back(socket.local_port)
            raise
        if self._stopped:
            for socket in sockets:
                socket.close()
                self._pool.give_back(socket.local_port)
            self._running()
        rx, tx = sockets
        pair = PortPair(self._pool.host, rx.local_port, tx.local_port, leg)
        number = min(pair.ports)
        bindings = {
            port: PortBinding(role, number, leg)
            for port, role in zip(pair.ports, (PortRole.RX, PortRole.TX), strict=True)
        }
        engine.registry.bind(bindings)
        if leg is not None:
            self.announce(leg)
        if self._recorder is not None:
            self._recorder.bind({port: int(b.role) for port, b in bindings.items()})
        before = self._watched()
        self._pairs.add(pair, (rx, tx))
        self._sockets += [(rx, PortRole.RX), (tx, PortRole.TX)]
        self._rewatch(before)
        self._watchdog.watch(self._watched() or [s.fileno() for s, _ in self._sockets])
        return pair

    def end_strangers(self, pair: PortPair) -> int:
        """Nothing has been forked to a pair yet: whoever sends to it is a stranger. End such streams for the reason
        "evicted" (they leave no file); returns how many."""
        engine, dispatcher = self._running()
        streams = [info for info in engine.registry.live() if info.local_port in pair.ports]
        dispatcher.handle(engine.end(streams, "evicted"))
        return len(streams)

    def close_pair(self, pair: PortPair) -> int:
        """Take what has come to a pair, end its streams for the reason "stopped", close its ports and give them back;
        returns how many streams there were. Safe to call twice."""
        if self._stopped or pair not in self._pairs.open:
            return 0
        engine, dispatcher = self._running()
        self._drain()
        pair_sockets = self._pairs.open[pair]
        dropped = [socket.kernel_dropped() for socket in pair_sockets]
        self._shut(pair_sockets)
        read_now(pair_sockets, lambda batch: self._take(batch, engine, dispatcher), _PAIR_CLOSING_S)
        streams = [info for info in engine.registry.live() if info.local_port in pair.ports]
        dispatcher.handle(engine.end(streams, "stopped"))
        engine.registry.unbind(pair.ports)
        if pair.call_leg_id is not None:
            engine.forget(pair.call_leg_id)
        if self._recorder is not None:
            self._recorder.bind(dict.fromkeys(pair.ports, int(PortRole.LISTEN)))
        before = self._watched()
        sockets = self._pairs.remove(pair)
        self._sockets = [(socket, role) for socket, role in self._sockets if socket not in sockets]
        self._rewatch(before)
        self._watchdog.watch(self._watched() or [s.fileno() for s, _ in self._sockets])
        self._kernel_dropped += sum(dropped)
        for socket, already in zip(sockets, dropped, strict=True):
            self._troubles.forget(socket)
            engine.accounts.leave_unread(socket.count_rest(time.monotonic() + _PAIR_CLOSING_S))
            self._after_end += socket.kernel_dropped() - already
            socket.close()
            self._pool.give_back(socket.local_port)
        return len(streams)

    def _open_pair_socket(self, address: UdpAddress) -> tuple[int, UdpSocket]:
        transport = transport_named(self._transport if self._watching else "portable")
        socket = transport(
            address, receive_buffer=min(self._receive_buffer, _PAIR_BUFFER), rows=_PAIR_ROWS, clock=self._clock
        )
        return socket.local_port, socket

    def _running(self) -> tuple[Engine, Dispatcher]:
        if self._engine is None or self._dispatcher is None or self._stopped:
            raise ConfigurationError(f"the receiver {'has stopped' if self._stopped else 'has not been started'}")
        return self._engine, self._dispatcher

    # --- for forks ------------------------------------------------------------------------------------------------

    def watch(self, key: WatchKey, watcher: Watcher) -> list[StreamInfo]:
        """Tell ``watcher`` of the streams of a call leg, or of a port, until :meth:`unwatch`; gives those that live."""
        engine, _ = self._running()
        self._hub.watch(key, watcher)
        return [info for info in engine.registry.live() if key in (info.call_leg_id, info.local_port)]

    def unwatch(self, key: WatchKey, watcher: Watcher) -> None:
        self._hub.unwatch(key, watcher)

    def stream(self, info: StreamInfo) -> Stream:
        """A live stream as one that can be consumed."""
        self.want_audio()
        return self._hub.handle(info)

    def last_arrival_of(self, streams: Iterable[StreamInfo]) -> int:
        """When the last packet of these streams came, on the clock of :attr:`now_ns`; 0: none of them lives."""
        return 0 if self._engine is None or self._stopped else self._engine.last_arrival_ns(streams)

    def report(self, info: StreamInfo) -> StreamReport:
        """The present figures of a live stream."""
        return self._running()[0].report(info)

    @property
    def now_ns(self) -> int:
        """UTC nanoseconds, as of arrival times."""
        return self._now_ns()

    @property
    def running(self) -> bool:
        return self._engine is not None and not self._stopped

    @property
    def sinks(self) -> Sequence[Sink]:
        return tuple(self._sinks)

    @property
    def idle_timeout_s(self) -> float:
        return float(self._options["idle_ns"] / 1e9)

    # --- figures --------------------------------------------------------------------------------------------------

    @property
    def sockets(self) -> list[SocketStatus]:
        return [
            SocketStatus(
                _address_text(s.address),
                role.label,
                s.transport,
                s.requested_buffer,
                s.granted_buffer,
                dropped,
            )
            for (s, role), dropped in zip(self._sockets, self._dropped(), strict=True)
        ]

    @property
    def live_streams(self) -> int:
        return self._engine.live_streams if self._engine else 0

    @property
    def last_datagram_ns(self) -> int | None:
        """When the last datagram came, UTC nanoseconds; None: none has come."""
        return self._last_datagram_ns

    def problems(self) -> list[str]:
        """What is wrong now, a sentence each: media that wait and are not read, sockets that cannot be read, sinks that
        have failed or cannot write at the moment, streams that a sink refused within the last minute (as far as this
        is asked once a minute). Empty when all is well; what was mended is not told any more."""
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
        """How long ago the sockets were last read, in seconds; they are not while nothing comes."""
        return self._watchdog.seconds_since_look

    def totals(self) -> Totals:
        totals = self._engine.totals() if self._engine else Totals()
        totals.faults = self._incidents.faults()
        totals.kernel_dropped, totals.after_end = self._count_kernel_dropped(), self._after_end
        return totals

    def reports(self) -> list[StreamReport]:
        """Figures of all streams, ended and live, in order of admission."""
        if self._engine is None or self._dispatcher is None:
            return []
        live = [self._engine.report(info) for info in self._engine.registry.live()]
        return sorted([*self._dispatcher.ended, *live], key=lambda r: r.stream.serial)

    def top(self, limit: int, key: str = "packets") -> list[StreamReport]:
        """The live streams with the most "packets", "lost" or "jitter": cheap with thousands."""
        return self._engine.top(limit, key) if self._engine else []

    def settled(self, stream: StreamInfo) -> bool:
        """Whether all sinks are done with a stream that has ended: its :meth:`entry` does not change any more."""
        return self._dispatcher is None or self._dispatcher.settled(stream)

    def entry(self, report: StreamReport) -> dict[str, Any]:
        """A stream's entry in ``summary.json``: its figures, its files, and what analyzers found."""
        found = self._dispatcher or Dispatcher([])
        return {**report.as_dict(found.files(report.stream)), **found.figures(report.stream)}

    def sink_reports(self) -> list[dict[str, Any]]:
        reports = [r for r in self._dispatcher.reports() if r["kind"] != self._hub.kind] if self._dispatcher else []
        if self._recorder is not None:
            reports.append(self._recorder.report())
        return reports

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        found = self._dispatcher or Dispatcher([])
        return summary_of(self.totals(), self.reports(), found.files, self.sink_reports(), self.sockets, found.figures)

    def _report(self, info: Any) -> StreamReport:
        if self._engine is None:
            raise ConfigurationError("the receiver has not been started")
        return self._engine.report(info)

    def _count_kernel_dropped(self) -> int:
        return self._kernel_dropped + sum(self._dropped())

    def _dropped(self) -> list[int]:
        """By the kernel, of each socket that is open, or was at the end."""
        if self._dropped_at_end is not None:
            return self._dropped_at_end
        return [socket.kernel_dropped() for socket, _ in self._sockets]

    # --- the pump -------------------------------------------------------------------------------------------------
    # Asleep: readers are armed, and a timer for the engine's next deadline. After a wake-up the readers are off and a
    # timer looks again every few milliseconds, so that a batch is worth its price; two looks in vain: asleep.
    # Whatever a look raises, the next one is arranged for: _arm is in every way's end, and cannot fail to do it.

    def _wake(self) -> None:
        if not self._reading:
            return  # an endpoint's first datagram, but the timer looks anyway
        self._unlisten()
        self._polls_without = 0
        self._poll()

    def _resume(self) -> None:
        """From any thread: look, whether a timer is there or not."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._look_now)

    def _look_now(self) -> None:
        self._unlisten()
        self._poll()

    def _poll(self) -> None:
        if self._loop is None or self._stopped:
            return
        pause_s: float | None = _AGAIN_S
        try:
            pause_s = self._look()
        except Exception as error:
            self._incidents.fault("pump", error)
        finally:
            self._arm(pause_s)

    def _arm(self, pause_s: float | None) -> None:
        """See to it that there is a next look: after ``pause_s``, or (None) when something comes."""
        if self._loop is None:
            return
        try:
            if pause_s is None:
                self._listen()
                return
        except Exception as error:
            self._incidents.fault("pump", error)
            self._unlisten()
        self._timer = self._loop.call_later(_AGAIN_S if pause_s is None else pause_s, self._poll)

    def _look(self) -> float | None:
        """Take what has come; says how long to wait before the next look, None: until something comes."""
        now_ns = self._now_ns()
        tick_ns = now_ns // TICK_NS * TICK_NS if self._pacing.whole_ticks(self._found) else None
        self._found = count = self._drain(tick_ns)
        if count or any(s.held_back for s in self._first):
            self._polls_without = 0
        else:
            self._polls_without += 1
            if self._polls_without > 1:
                return None
        return self._pacing.pause_s(count, self._now_ns())

    def _listen(self) -> None:
        if self._loop is None or self._engine is None:
            return
        self._reading = True
        self._rewatch(set())
        times = (self._engine.next_deadline_ns(), self._troubles.next_ns())
        deadline = min((t for t in times if t is not None), default=None)
        if deadline is not None:
            wait = (deadline + _GUARD_NS - self._now_ns()) / 1e9
            self._timer = self._loop.call_later(max(wait, 0.001), self._wake)

    def _unlisten(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        reading, self._reading = self._reading, False
        if reading and self._loop is not None:
            for number in self._listened:
                with contextlib.suppress(OSError, ValueError):
                    self._loop.remove_reader(number)
            self._listened = set()
        if self._stopped:
            self._watchdog.close()

    def _watched(self) -> set[int]:
        """What the loop watches while nothing comes: a socket each, for pairs one thing that stands for all of them."""
        if not self._watching:
            return set()
        pairs = self._pairs.fileno()
        sockets = [s for s, _ in self._sockets] if pairs is None else self._first
        numbers = {socket.fileno() for socket in sockets if not (self._troubles and socket in self._troubles)}
        return numbers | ({pairs} if pairs is not None else set())

    def _rewatch(self, before: set[int]) -> None:
        """Watch what is to be watched by now instead of ``before``, if the loop watches at all."""
        now = self._watched()
        if self._reading and self._loop is not None:
            for number in before - now:
                self._loop.remove_reader(number)
            self._listened = before & now
            for number in now - before:
                self._loop.add_reader(number, self._wake)
                self._listened.add(number)

    def _now_ns(self) -> int:
        return self._clock.now_ns()

    def _drain(self, before_ns: int | None = None) -> int:
        """Take what the sockets hold, at most a few batches each, if possible only what came before ``before_ns``;
        returns how many datagrams."""
        engine, dispatcher = self._engine, self._dispatcher
        if engine is None or dispatcher is None:
            return 0
        now_ns = self._now_ns()
        streams = engine.live_streams
        engine.release_ns, engine.release_groups = self._pacing.release(streams)
        engine.prompt = self._pacing.prompt
        if self._pacing.is_busy(streams) and not self._hub.consumed:
            engine.forgo_payloads()
        total = 0
        for _ in range(_ROUNDS):
            pairs = self._ready_pairs()
            # a pair holds nothing back: nobody would say that it does
            received = [*(self._read(s, before_ns) for s in self._first), *(self._read(s, None) for s in pairs)]
            self._watchdog.looked()
            total += self._take_all([b for b in received if b is not None and len(b)], engine, dispatcher)
            if not any(s.full for s in (*self._first, *pairs)):
                # everything stamped before has been read
                until_ns = now_ns - _GUARD_NS
                if before_ns is not None:
                    until_ns = min(until_ns, before_ns)
                self._step(engine, dispatcher, 0, engine.advance, until_ns)
                break
        return total

    def _ready_pairs(self) -> list[UdpSocket]:
        try:
            return self._pairs.ready()
        except Exception as error:
            self._incidents.fault("pump", error)
            return [socket for sockets in self._pairs.open.values() for socket in sockets]

    def _read(self, socket: UdpSocket, before_ns: int | None) -> DatagramBatch | None:
        troubles = self._troubles
        if troubles and troubles.wait(socket, self._now_ns()):
            return None
        try:
            batch = socket.receive(before_ns)
        except Exception as error:
            socket.full = False
            troubles.raised(socket, error, self._now_ns())
            return None
        if troubles:
            troubles.went_well(socket)
        return batch

    def _take_all(self, received: list[DatagramBatch], engine: Engine, dispatcher: Dispatcher) -> int:
        try:
            batches = merged(received)
        except Exception as error:
            self._incidents.fault("pump", error)
            batches = received
        for batch in batches:
            self._take(batch, engine, dispatcher)
        return sum(map(len, received))

    def _take(self, batch: DatagramBatch, engine: Engine, dispatcher: Dispatcher) -> None:
        self._step(engine, dispatcher, len(batch), engine.receive, batch, self._now_ns())
        self._last_datagram_ns = int(batch.arrival_ns[-1])
        if self._recorder is not None:
            self._recorder.write(batch)  # after the engine, which may have clamped arrival times

    def _step(
        self, engine: Engine, dispatcher: Dispatcher, count: int, step: Callable[..., list[Event]], *arguments: object
    ) -> None:
        """Have the engine do something with ``count`` datagrams. What it raises costs no more than those: they are
        accounted as dropped, as far as it has not accounted for them."""
        before = engine.accounts.datagrams
        try:
            events = step(*arguments)
        except Exception as error:
            if engine.accounts.datagrams == before:
                engine.accounts.datagrams += count
            lost = max(engine.totals().unaccounted, 0)
            engine.accounts.drop("fault", lost)
            self._incidents.fault("engine", error, packets=lost)
            return
        if events:
            dispatcher.handle(events)


def _can_watch(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop tells when a socket is readable."""
    ours, other = socketpair()
    with ours, other:
        try:
            loop.add_reader(ours.fileno(), int)
        except NotImplementedError:
            return False
        loop.remove_reader(ours.fileno())
        return True


def _address_text(address: tuple[str, int]) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
