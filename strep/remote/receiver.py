"""What users of another machine's streams start, stop and ask: as the receiver that they were received by."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, Self

from .._delivery.call_leg import CallLeg, CallLegs
from .._delivery.dispatcher import Dispatcher
from .._delivery.hub import StreamHub
from .._delivery.stream import Stream
from .._model.blocks import BlockBatch
from .._model.events import Ended, Event, Started
from .._model.exceptions import ConfigurationError, WireError
from .._model.report import StreamReport, Totals, summary_of
from .._model.types import StreamEvent, StreamInfo
from .._nats.link import Link, end_tasks, import_nats
from .._nats.names import Subjects, checked_name, checked_servers, shards_of, stream_name
from .._threads.incidents import Incident, Incidents
from ..sinks.base import Sink, as_sink
from ..wire import WireReader
from .lease import Lease
from .shard import ShardConsumer

__all__ = ["Receiver", "RemoteFigures"]

_SENDER_GONE_S: Final = 20.0  # without a beat: four of them
_LOOK_S: Final = 1.0  # between looks for senders that are gone
_SETTLE_BYTES: Final = 4 << 20  # of messages, after which sinks are asked whether they have room


@dataclass(slots=True)
class RemoteFigures:
    """What became of messages.

    ``messages``, ``bytes``  that were read
    ``doubled``       that had been read before, and were left out
    ``lost``          that never came: the broker or the sender had no room
    ``lost_frames``   sample frames that are gaps because of it
    ``refused``       that could not be understood, by cause
    ``shards``        that this member reads now, of ``shards_in_all``, among ``members``
    ``taken_over``    shards that it has taken so far; ``connections`` to the broker so far
    """

    messages: int = 0
    bytes: int = 0
    doubled: int = 0
    lost: int = 0
    lost_frames: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    shards_in_all: int = 0
    members: int = 0
    taken_over: int = 0
    connections: int = 0


class Receiver:
    """Hears the streams that others publish with :class:`strep.sinks.NatsSink`, or ``strep capture --nats``.

    ``servers``   "nats://HOST:PORT", or several
    ``group``     receivers of one group, on any machines, share the call legs; each leg is heard by one of them at a
                  time. One that dies is replaced by the others within 5 s, from about where it was: they hear the last
                  seconds again. When one joins, it takes its share, and streams of those legs end at the others
                  ("moved"). Each group hears everything
    ``subject``   as of the sinks
    ``sinks``     as of :class:`strep.Receiver`
    ``start``     where a group begins that was never there: with all that is "stored", or "now"
    ``options``   more arguments of ``nats.connect``

    Streams are the same as where they were received: positions, gaps, masks, RTP timestamps, arrival. What was lost on
    the way is a gap (OVERRUN). A sink that is slow holds this receiver up, and loses nothing while the broker keeps it.

    Raises ConfigurationError for wrong arguments, MissingExtraError without the extra ``nats``. A broker, or a stream,
    that is not there is waited for.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        group: str = "listeners",
        *,
        subject: str = "strep",
        sinks: Sequence[Sink] = (),
        start: Literal["stored", "now"] = "stored",
        redact: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._nats = import_nats()
        if start not in ("stored", "now"):
            raise ConfigurationError(f'start {start!r}: "stored" or "now"')
        self._servers = checked_servers(servers)
        self._group = checked_name("group", group)
        self._base = checked_name("subject", subject, dots=True)
        self._sinks = tuple(sinks)
        self._new_only = start == "now"
        self._redact = redact
        self._options = options
        self.member = uuid.uuid4().hex[:12]
        """What the others of its group know it by."""
        self._incidents = Incidents(time.time_ns)
        self._reader = WireReader()
        self._hub = StreamHub(self._report_live)
        self._dispatcher = Dispatcher([])
        self._legs: CallLegs | None = None
        self._link: Link | None = None
        self._lease: Lease | None = None
        self._shards: dict[int, ShardConsumer] = {}
        self._shards_in_all = 0
        self._taken_over = 0
        self._unsettled = 0  # bytes
        self._settling = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._connected_s = 0.0
        self._started = self._ended = 0
        self._packets = 0
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
        """Begin to hear, as soon as there is a broker and a stream. Raises ConfigurationError if it was started
        before."""
        if self._link is not None:
            raise ConfigurationError("this receiver has been started before: make a new one")
        self._dispatcher = Dispatcher(
            [*(as_sink(sink) for sink in self._sinks), self._hub], redact=self._redact, incidents=self._incidents
        )
        self._hub.attach(asyncio.get_running_loop())
        self._link = Link(self._servers, f"strep {self._group} {self.member}", self._options, self._on_lost)
        self._tasks = [asyncio.create_task(self._run(self._link)), asyncio.create_task(self._look())]

    async def stop(self, timeout_s: float = 2.0) -> None:
        """Let others of the group go on at once, end all streams here, and finish sinks within ``timeout_s``. Safe to
        call twice."""
        if self._link is None or self._stopped:
            return
        self._stopped = True
        await end_tasks(self._tasks)
        await self._close(list(self._shards), done=True)
        self._handle(self._reader.end("closed"))
        self._hub.finish()
        await asyncio.to_thread(self._dispatcher.close, timeout_s)
        if self._lease is not None and self._link.connected:
            await self._lease.leave()
        await self._link.close()
        asyncio.get_running_loop().call_soon(self._hub.finish_events)

    def _on_lost(self) -> None:
        """What was on its way when the connection was lost is asked for again."""
        self._connected_s = 0.0
        for shard in self._shards.values():
            shard.reopen()

    # --- shards ---------------------------------------------------------------------------------------------------

    async def _run(self, link: Link) -> None:
        self._shards_in_all = await self._find_shards(link)
        lease = self._lease = Lease(
            link,
            f"{stream_name(self._base)}-{self._group}",
            self.member,
            lambda: self._shards_in_all,
            changed=self._change,
            stopped=self._leave,
        )
        await lease.run()

    async def _find_shards(self, link: Link) -> int:
        """How many there are, by the subjects of the stream. Waits until there is one."""
        told = False
        while True:
            try:
                _, context = await link.jetstream()
                info = await context.stream_info(stream_name(self._base))
                shards = shards_of(self._base, info.config.subjects or [])
                if shards:
                    return shards
                if not told:
                    self._incidents.tell("nats", f"stream {stream_name(self._base)!r} is none of strep's")
                    told = True
            except (self._nats.errors.Error, OSError, TimeoutError):
                pass
            await asyncio.sleep(0.25)

    async def _change(self, mine: dict[int, int]) -> None:
        """These shards are this member's, with these claims: a shard with another claim was somebody else's between."""
        gone = [n for n, consumer in self._shards.items() if mine.get(n) != consumer.claim]
        await self._close(gone, done=False)
        link, lease = self._link, self._lease
        if link is None or lease is None:
            return
        subjects = Subjects(self._base, self._shards_in_all)
        for n, claim in mine.items():
            if n not in self._shards:
                self._taken_over += claim > 1
                self._shards[n] = ShardConsumer(
                    link,
                    subjects.stream,
                    subjects.of(n),
                    f"{self._group}-{n}",
                    claim,
                    new_only=self._new_only,
                    heard=self._hear,
                    allowed=lease.wait_until_valid,
                )

    async def _leave(self, shards: set[int]) -> None:
        await self._close([n for n in shards if n in self._shards], done=True)

    async def _close(self, shards: list[int], *, done: bool) -> None:
        closing = [self._shards.pop(n) for n in shards]
        if closing:
            await asyncio.gather(*(consumer.close(done=done) for consumer in closing))
        if not self._stopped:
            for n in shards:
                self._handle(self._reader.leave(n, "moved"))

    async def _look(self) -> None:
        """For senders that are gone: they tell nothing, while others do, or the broker is there."""
        while True:
            await asyncio.sleep(_LOOK_S)
            now_s = time.monotonic()
            if self._link is None or not self._link.connected:
                self._connected_s = 0.0
                continue
            self._connected_s = self._connected_s or now_s
            if now_s - self._connected_s > _SENDER_GONE_S:
                for n in list(self._shards):
                    self._handle(self._reader.silent(n, now_s - _SENDER_GONE_S))

    # --- messages -------------------------------------------------------------------------------------------------

    async def _hear(self, data: bytes) -> None:
        while self._dispatcher.crowded:  # noqa: ASYNC110  # sinks tell nobody when they have room
            await asyncio.sleep(0.01)
        try:
            events = self._reader.read(data, time.monotonic())
        except WireError as error:
            self._incidents.fault("wire", error)
            return
        self._handle(events)
        self._unsettled += len(data)
        if self._unsettled > _SETTLE_BYTES:
            async with self._settling:
                if self._unsettled > _SETTLE_BYTES:
                    await asyncio.to_thread(self._dispatcher.settle)
                    self._unsettled = 0

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Started):
                self._started += 1
            elif isinstance(event, Ended):
                self._ended += 1
            elif isinstance(event, BlockBatch):
                self._packets += int(event.packet_first[-1])
        if events:
            self._dispatcher.handle(events)

    # --- what is heard --------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Stream]:
        """Streams as they are heard (those that live already come first); ends when the receiver stops."""
        self._hub.iterate(self._reader.live())
        return self._hub.streams()

    def legs(self) -> AsyncIterator[CallLeg]:
        """Call legs, each with both of its directions; as of :class:`strep.Receiver`. A leg's directions are of one
        shard, so one member of the group hears both."""
        if self._legs is None:
            self._legs = CallLegs(aiter(self))
        return self._legs

    def events(self) -> AsyncIterator[StreamEvent]:
        """What happens in all streams, found where they were received or by sinks here. Ends with the receiver."""
        return self._hub.events()

    def incidents(self) -> AsyncIterator[Incident]:
        """What happens to this receiver itself. From when it is asked for; ends with it."""
        return self._hub.incidents()

    def stream(self, info: StreamInfo) -> Stream:
        """A live stream as one that can be consumed."""
        return self._hub.stream_of(info)

    # --- figures --------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it was started and has not been stopped."""
        return self._link is not None and not self._stopped

    @property
    def live_streams(self) -> int:
        """How many streams live."""
        return len(self._reader.live())

    def _report_live(self, info: StreamInfo) -> StreamReport:
        return self._reader.report(info)

    def report(self, info: StreamInfo) -> StreamReport:
        """The present figures of a live stream, as far as blocks tell them."""
        return self._reader.report(info)

    def reports(self) -> list[StreamReport]:
        """Figures of all streams, ended and live, in the order in which they came. Those of ended streams are what the
        machine that received them counted."""
        live = [self._reader.report(info) for info in self._reader.live()]
        return sorted([*self._dispatcher.ended, *live], key=lambda report: report.stream.serial)

    def figures(self) -> RemoteFigures:
        """What became of messages."""
        read, lease = self._reader.figures, self._lease
        return RemoteFigures(
            messages=read.read,
            bytes=read.bytes,
            doubled=read.doubled,
            lost=read.lost,
            lost_frames=read.lost_frames,
            refused=dict(read.refused),
            shards=len(self._shards),
            shards_in_all=self._shards_in_all,
            members=lease.members if lease is not None else 0,
            taken_over=self._taken_over,
            connections=self._link.connections if self._link is not None else 0,
        )

    def totals(self) -> Totals:
        """Packets whose audio was heard here, streams, and faults that were contained. What else became of datagrams
        is known where they were received."""
        return Totals(
            datagrams=self._packets,
            delivered=self._packets,
            streams_started=self._started,
            streams_ended=self._ended,
            faults=self._incidents.faults(),
        )

    def problems(self) -> list[str]:
        """What is wrong now, a sentence each. Empty when all is well."""
        if not self.running or self._link is None:
            return [f"the receiver {'has stopped' if self._stopped else 'has not been started'}"]
        found = [self._link.problem, self._lease.problem if self._lease is not None else None]
        found += [shard.problem for shard in self._shards.values()]
        return list(dict.fromkeys(problem for problem in found if problem))

    def sink_reports(self) -> list[dict[str, Any]]:
        """What each sink says of itself."""
        return [report for report in self._dispatcher.reports() if report["kind"] != self._hub.kind]

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds, with ``nats``: :meth:`figures`."""
        found = self._dispatcher
        summary = summary_of(self.totals(), self.reports(), found.files, self.sink_reports(), [], found.figures)
        return {**summary, "nats": asdict(self.figures())}
