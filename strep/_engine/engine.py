"""Datagrams in, blocks of audio out. Deterministic: time is an argument, nothing here reads a clock.

Time goes in ticks of 10 ms of arrival time. Within a tick the engine judges every packet against the state at the
tick's beginning. At the boundary between two ticks it gives up lost packets whose deadline has passed, lets sources
that have proved themselves take over their streams, and sends off what is ready. So the outcome is a function of the
datagrams and their arrival times alone, not of how they were cut into batches: a replay equals the live run.

The way of a packet, with the module that does it:

    receive    a batch is parsed, cut into ticks, and gets its keys                     intake
               its row is looked up by its key; packets of no stream go on probation    strangers, sources
               redundant audio data are unwrapped                                       redundancy
               it is judged, counted, and put into its stream's jitter ring             insertion, bulk
    boundary   sources that proved themselves begin streams, or take them over          sources, changes
               it leaves the ring, in sequence, or behind a packet that is given up     playout
               it is placed on its stream's timeline, and becomes part of a block       outlet
               once a second: streams that are silent end, floods are refused           seconds, endings
"""

from __future__ import annotations

import bisect
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakMethod

import numpy as np
import numpy.typing as npt

from .._codecs.payload_types import PayloadTypes
from .._model.addresses import SourceFilter
from .._model.datagrams import DatagramBatch
from .._model.events import Event
from .._model.report import StreamReport, Totals
from .._model.time import NEVER_NS, SECOND_NS, TICK_NS
from .._model.types import StreamInfo
from .accounts import Accounts
from .bulk import BulkInsertion, worthwhile
from .changes import SourceChanges
from .containment import Containment
from .endings import Endings
from .insertion import Insertion
from .intake import Intake, TickPart, ticks_of
from .outlet.decoding import Defer, at_once
from .outlet.outlet import Outlet
from .packets import Packets
from .playout import Playout
from .redundancy import Redundancy
from .release import Release
from .seconds import EachSecond
from .sources.announcements import Announcements
from .sources.decisions import Decision
from .sources.pinning import SourcePins
from .sources.port_keys import PortBinding
from .sources.registry import Registry
from .sources.sources import Sources
from .state import StreamState
from .strangers import Strangers
from .streams.slots import LARGE_BYTES

__all__ = ["Engine", "EngineConfig"]

I64 = npt.NDArray[np.int64]

_BRIEF_SILENCE_NS: Final = 2 * SECOND_NS  # a stream of a few packets that has been silent for so long was no real one
_RECALLS: Final = 8  # of packets that were too far ahead within a tick, as edges move: each brings some of them in
_PARSE_RETRIES: Final = 256  # so many parts of a batch are tried when it cannot be parsed


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What an engine is for. Times are in ns."""

    latency_ns: int = 200_000_000  # how long packets wait for one that is missing before them
    max_streams: int = 20_000
    idle_ns: int = 60 * SECOND_NS  # a stream ends after so much silence
    payload_types: PayloadTypes = field(default_factory=PayloadTypes)
    sources: SourceFilter | None = None  # networks that may send; None: all
    call_legs: frozenset[int] | None = None  # call_leg_ids, as integers, that may have streams; None: all
    bindings: Mapping[int, PortBinding] = field(default_factory=dict)  # by local port
    pin: str = "address"  # which part of its source address a stream is pinned to: "address", "network" or "off"
    large_bytes: int = LARGE_BYTES  # memory for packets of more than 2,048 bytes: see LargeSlots
    pending_ns: int | None = None  # how long packets of legs wait that were not announced; None: none need be


_Offer = Callable[[Packets, npt.NDArray[np.bool_] | None], Exception | None]


class Engine:
    """Datagrams in, events out: streams that begin and end, blocks of audio, key presses, notices, faults.

    The engine owns no socket, no clock and no thread. Whoever drives it calls four methods, from one thread:

    ``receive``           takes a batch of datagrams. Batches come in order of arrival; how they are cut does not matter
    ``advance``           tells that every datagram that arrived before a time has been received. As time passes, lost
                          packets are given up, idle streams end, and what is ready is sent off. Datagrams that are
                          received make time pass too; ``advance`` is for when none come
    ``next_deadline_ns``  when ``advance`` should be called at the latest, if nothing comes. Earlier calls do no harm
    ``flush``             ends all streams: the last call

    Times are UTC nanoseconds, as ``DatagramBatch.arrival_ns``. They never go back: an earlier one counts as the present
    one. Each call returns the events that it caused, in order: a stream's ``Started`` comes first, then its blocks and
    notices, then its ``Ended``. A :class:`Release` says how promptly blocks come, and whether anybody wants them; it is
    given with a call, and applies until a call brings another. Nothing else is set from outside. When audio begins or
    stops to be wanted, packets that have left their jitter ring and waited for company go by the policy before.

    Nothing that comes from the network makes a call raise. What goes wrong inside is a ``Fault`` among the events, and
    costs at most the stream in which it happened (see ``containment``).

    The loop that drives it, here with recorded ``reads``: pairs of a time and the batch that was read at that time.

    >>> def drive(engine, reads, handle, release):
    ...     for now_ns, batch in reads:
    ...         # nothing came until the deadline: a timer
    ...         while (deadline_ns := engine.next_deadline_ns()) is not None and deadline_ns < now_ns:
    ...             handle(engine.advance(deadline_ns, release))
    ...         # everything that had come until now is in this batch
    ...         handle(engine.receive(batch, now_ns, release))
    ...         handle(engine.advance(now_ns, release))
    ...     handle(engine.flush())

    >>> found = []
    >>> engine = Engine()
    >>> drive(engine, reads, found.extend, Release(within_ns=100_000_000))
    >>> [type(event).__name__ for event in found]
    ['Started', 'BlockBatch', 'BlockBatch', 'BlockBatch', 'Ended']
    >>> sum(len(event.samples) for event in found if isinstance(event, BlockBatch))
    1600
    >>> found[-1].report.packets_lost, engine.totals().unaccounted
    (0, 0)
    """

    def __init__(
        self, config: EngineConfig | None = None, defer: Defer = at_once, *, release: Release | None = None
    ) -> None:
        """``defer`` puts decoding off that must be done in order. ``release`` applies until a call brings another;
        None: ``Release()``."""
        self.config = config = config or EngineConfig()
        types = config.payload_types
        announcements = None if config.pending_ns is None else Announcements(config.max_streams, config.pending_ns)
        self.registry = registry = Registry(config.max_streams, config.bindings, config.call_legs, announcements)
        self.state = state = StreamState(config.max_streams, types, registry, config.large_bytes)
        self.accounts = accounts = Accounts(state.undo)
        self._events: list[Event] = []  # of the present call: all below append to it
        events, pins = self._events, SourcePins(config.pin)
        self._containment = contained = Containment(
            undo=state.undo, ring=state.ring, table=state.table, registry=registry, accounts=accounts, events=events
        )
        self._intake = Intake(accounts, registry, config.sources, pins)
        self._sources = Sources(state, accounts, pins)
        self._outlet = Outlet(state, accounts, types, defer)
        self._playout = Playout(state, contained, accounts, self._outlet.deliver, events, latency_ns=config.latency_ns)
        self._endings = Endings(
            state=state,
            accounts=accounts,
            containment=contained,
            playout=self._playout,
            last_events=self._outlet.end,
            events=events,
        )
        self._strangers = Strangers(accounts, contained.quarantine, _weak(self._offer))
        redundancy = Redundancy(state, accounts, events)
        self._insertion = Insertion(
            state=state,
            accounts=accounts,
            containment=contained,
            playout=self._playout,
            strangers=self._strangers,
            redundancy=redundancy,
            events=events,
        )
        self._bulk = BulkInsertion(state, accounts, contained, self._playout, self._insertion, redundancy)
        self._changes = SourceChanges(
            state=state,
            containment=contained,
            playout=self._playout,
            endings=self._endings,
            insert=self._insertion.insert,
            events=events,
        )
        self._each_second = EachSecond(
            state=state,
            containment=contained,
            playout=self._playout,
            endings=self._endings,
            pressed_rows=self._outlet.pressed_rows,
            overdue=self._outlet.advance,
            events=events,
            idle_ns=config.idle_ns,
        )
        self._tick = 0
        self._last_arrival_ns = 0
        self._parse_retries = 0  # that are left for the present batch
        self._adopt(release)

    # --- the contract -----------------------------------------------------------------------------------------------

    def receive(self, batch: DatagramBatch, now_ns: int | None = None, release: Release | None = None) -> list[Event]:
        """Take a batch. Its ``arrival_ns`` is clamped in place: to not before the engine's present tick, and not after
        ``now_ns``, where that is given. So no time that is wrong carries the engine away. ``release`` applies from now
        on; None: as before."""
        self._adopt(release)
        if len(batch):
            self.accounts.datagrams += len(batch)
            self._parse_retries = _PARSE_RETRIES
            try:
                self._receive(batch, now_ns)
            except Exception as error:
                self._survive(error, int(batch.arrival_ns[-1]) // TICK_NS)
        return self._take_events()

    def advance(self, until_ns: int, release: Release | None = None) -> list[Event]:
        """Tell that every datagram that arrived before ``until_ns`` has been received. ``release`` applies from now on;
        None: as before."""
        self._adopt(release)
        tick = until_ns // TICK_NS
        if tick > self._tick:
            self._attempt(tick, lambda: self._boundary(tick))
        return self._take_events()

    def next_deadline_ns(self) -> int | None:
        """When :meth:`advance` should be called at the latest; None: not before the next packet."""
        now_ns = self.now_ns
        after_ns = now_ns + TICK_NS
        if not self.live_streams:
            pending_ns = self._sources.next_ns
            return None if pending_ns == NEVER_NS else max(after_ns, pending_ns)
        if self._sources.waiting or self._insertion.waiting or self._containment.aside:
            return after_ns
        next_second_ns = (now_ns // SECOND_NS + 1) * SECOND_NS  # idle streams are looked for each second
        return max(after_ns, min(next_second_ns, self._sources.next_ns, self._playout.next_deadline_ns(now_ns)))

    def flush(self) -> list[Event]:
        """End everything: give up all lost packets, end all streams, reject what is on probation."""
        tick = self._tick + 1
        self._attempt(tick, lambda: self._boundary(tick, closing=True))
        rows = np.array([info.index for info in self.registry.live()], np.int64)
        # by what has come, not by how late it is: a replay knows no more
        brief = self.state.is_brief(rows, self._last_arrival_ns - _BRIEF_SILENCE_NS)
        self._attempt(tick, lambda: self._endings.end(rows[~brief], "closed"))
        self._attempt(tick, lambda: self._endings.end(rows[brief], "evicted"))
        self._attempt(tick, self._sources.close)
        return self._take_events()

    def _adopt(self, release: Release | None) -> None:
        """Follow another policy. What has left its ring is placed before audio begins, or stops, to be made of it."""
        playout = self._playout
        if release is None or release == playout.release:
            return
        if release.audio != playout.release.audio:
            playout.hand_over_waiting()
        playout.release = release
        self._outlet.want(audio=release.audio, payloads=release.payloads)

    def _take_events(self) -> list[Event]:
        if self._containment.unsettled:
            self._containment.settle(self.totals().unaccounted)
        events = [*self._events, *self._outlet.take_faults()]
        self._events.clear()
        return events

    # --- what the control plane asks --------------------------------------------------------------------------------

    def announce(self, call_leg_id: uuid.UUID) -> list[Event]:
        """Admit a leg from now on, with what waited of it. Only where announcements are asked for."""
        self.registry.let_in(call_leg_id)
        announcements = self.registry.announcements
        if announcements is not None:
            keys = announcements.announce(*divmod(call_leg_id.int, 1 << 64))
            if keys is None:
                self.accounts.streams_refused += 1
            else:
                self._follow(lambda: self._sources.admit_waiting(keys))
        return self._take_events()

    def forget(self, call_leg_id: uuid.UUID) -> None:
        """Admit no more streams of a leg; those that live go on."""
        if self.registry.announcements is not None:
            self.registry.announcements.forget(*divmod(call_leg_id.int, 1 << 64))

    def end(self, streams: Iterable[StreamInfo], reason: str) -> list[Event]:
        """End live streams now."""
        rows = np.array(self._rows_of(streams), np.int64)
        self._attempt(self._tick, lambda: self._endings.end(rows, reason))
        return self._take_events()

    def expect_source(self, call_leg_id: uuid.UUID, until_ns: int) -> None:
        """A leg's media is about to come from another address: it need not wait until the present one has been silent
        for long."""
        rows = [info.index for info in self.registry.live() if info.call_leg_id == call_leg_id]
        self._sources.expect_move(np.array(rows, np.int64), until_ns)

    # --- figures ----------------------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """Beginning of the present tick."""
        return self._tick * TICK_NS

    @property
    def live_streams(self) -> int:
        return len(self.state.table)

    def last_arrival_ns(self, streams: Iterable[StreamInfo]) -> int:
        """When the last packet of these streams came; 0: none of them lives."""
        rows = self._rows_of(streams)
        return int(self.state.reception.last_arrival_ns[rows].max()) if rows else 0

    def _rows_of(self, streams: Iterable[StreamInfo]) -> list[int]:
        """Of those that live."""
        info = self.registry.info
        return [s.index for s in streams if s.index < len(info) and info[s.index] is s]

    def totals(self) -> Totals:
        self._sources.settle_accounts()
        in_rings = self.state.ring.waiting()
        buffered = in_rings + self._sources.held + self._playout.waiting
        return self.accounts.totals(buffered=buffered, started=self.registry.started)

    def report(self, stream: StreamInfo, end: str = "") -> StreamReport:
        """The figures of a live stream."""
        return self.state.report(stream, end)

    def reports(self, streams: Sequence[StreamInfo]) -> list[StreamReport]:
        """The figures of live streams: cheaper than those of one after the other."""
        return self.state.reports(streams)

    def top(self, limit: int, key: str = "packets") -> list[StreamReport]:
        """The ``limit`` live streams with the most "packets", "lost" packets or "jitter"."""
        return self.state.top(limit, key)

    def write_off(self, datagrams: int) -> int:
        """To be called when a call has raised all the same, though none should: of ``datagrams`` received in all, those
        that no account knows of were lost. Returns how many."""
        self.accounts.datagrams = max(self.accounts.datagrams, datagrams)
        lost = max(self.totals().unaccounted, 0)
        self.accounts.drop("fault", lost)
        return lost

    # --- packets ----------------------------------------------------------------------------------------------------

    def _receive(self, batch: DatagramBatch, now_ns: int | None) -> None:
        parts = ticks_of(batch, self._tick, now_ns)
        self._last_arrival_ns = int(batch.arrival_ns[-1])
        undo = self.state.undo
        undo.clear()
        try:
            packets, at = self._intake.packets_of(batch)
        except Exception as error:
            undo.back()
            self._parse_retries -= 1
            if len(batch) == 1 or self._parse_retries < 0:
                self._containment.lost("parse", error, len(batch))
                return
            half = len(batch) // 2
            self._receive(batch.take(slice(0, half)), now_ns)
            self._receive(batch.take(slice(half, None)), now_ns)
            return
        if packets is not None:
            if at is not None:
                parts = [(t, *at.searchsorted((begin, end)).tolist()) for t, begin, end in parts]
                parts = [part for part in parts if part[1] < part[2]]
            self._take_ticks(packets, parts)

    def _take_ticks(self, packets: Packets, parts: list[TickPart]) -> None:
        """Packets of one tick or several, ticks ascending."""
        done = 0
        while done < len(parts):
            tick, begin, end = parts[done]
            if tick > self._tick:
                self._boundary(tick)
            if len(parts) - done > 1:
                # until the second ends, streams that merely go on in sequence need no ticks
                second = (tick * TICK_NS // SECOND_NS + 1) * SECOND_NS // TICK_NS
                upto = bisect.bisect_left(parts, second, done, key=_tick_of)
                last = parts[upto - 1][1]  # the last tick is taken the ordinary way
                if worthwhile(last - begin, upto - 1 - done):
                    rest = self._bulk.insert(packets.take(slice(begin, last)))
                    self._take_rest(packets, parts[done : upto - 1], begin + np.flatnonzero(rest))
                    done = upto - 1
                    continue
            self._take_tick(packets if end - begin == len(packets) else packets.take(slice(begin, end)))
            done += 1

    def _take_rest(self, packets: Packets, parts: list[TickPart], rows: I64) -> None:
        """Tick by tick those packets of ``parts`` that stand in ``rows``."""
        for tick, begin, end in parts:
            mine = rows[slice(*rows.searchsorted((begin, end)).tolist())]
            if mine.size:
                if tick > self._tick:
                    self._boundary(tick)
                self._take_tick(packets.take(mine))

    def _take_tick(self, packets: Packets) -> None:
        state = self.state
        row = state.rows_of(packets)
        if row.min() < 0:
            unknown = row < 0
            self._strangers.of_no_stream(packets.take(unknown), self.now_ns)
            # that may have begun streams, but with all packets of theirs in this batch
            known = ~unknown
            if not known.any():
                return
            packets, row = packets.take(known), row[known]
        if state.throttle.active:
            fits = ~state.throttle.excess(row)
            self.accounts.reject("rate", len(row) - int(np.count_nonzero(fits)))
            if not fits.any():
                return
            packets, row = packets.take(fits), row[fits]
        self._insertion.insert(packets, row)

    # --- sources ----------------------------------------------------------------------------------------------------

    def _offer(self, packets: Packets, foreign: npt.NDArray[np.bool_] | None) -> Exception | None:
        return self._follow(lambda: self._sources.offer(packets, foreign))

    def _follow(self, decide: Callable[[], Iterable[Decision]]) -> Exception | None:
        """Carry out what is decided of sources; returns the error that arose in that."""
        error = self._changes.follow(decide)
        if error is not None:
            self._strangers.failed(self.now_ns)
        return error

    # --- time -------------------------------------------------------------------------------------------------------

    def _boundary(self, tick: int, *, closing: bool = False) -> None:
        """Everything that happens between ticks, up to the beginning of ``tick``. ``closing``: nothing more comes."""
        holds = self._playout.holds
        while holds.any:  # what is held is not placed before its time, nor after it
            second = self.now_ns // SECOND_NS + 1
            step = min(second * SECOND_NS // TICK_NS, max(holds.next_tick(), self._tick + 1))
            if step >= tick:
                break
            self._step(step)
        self._step(tick, closing=closing)

    def _step(self, tick: int, *, closing: bool = False) -> None:
        before_s, now_ns = self.now_ns // SECOND_NS, tick * TICK_NS
        self._endings.end_aside()
        # before sources are judged: who goes on behind what is near has only a loss, and not this, before it
        self._recall()
        self._follow(lambda: self._sources.boundary(now_ns, closing=closing))
        self._tick = tick
        self._containment.now_ns = now_ns
        self._playout.boundary(tick)
        if now_ns // SECOND_NS > before_s and self.live_streams:
            self._each_second.boundary(now_ns)

    def _recall(self) -> None:
        """Packets that were too far ahead of their streams go in, where these have come near."""
        for _ in range(_RECALLS):
            rows = self._insertion.caught_up()
            if not rows.size or (held := self._sources.recall(rows)) is None:
                break
            self._insertion.insert(*held)

    # --- what goes wrong --------------------------------------------------------------------------------------------

    def _attempt(self, tick: int, work: Callable[[], object]) -> None:
        """Do what happens up to the beginning of ``tick``."""
        try:
            work()
        except Exception as error:
            self._survive(error, tick)

    def _survive(self, error: Exception, tick: int) -> None:
        """What nothing else has contained: time goes on all the same, and what was lost is counted."""
        self._containment.broken("engine", error)
        self._tick = max(self._tick, tick)
        self._containment.now_ns = self.now_ns


def _tick_of(part: TickPart) -> int:
    return part[0]


def _weak(offer: _Offer) -> _Offer:
    """The method, without holding its engine: one that nobody holds is freed at once, with its 20 MiB of arrays, and
    not when somebody looks for cycles."""
    method = WeakMethod(offer)

    def call(packets: Packets, foreign: npt.NDArray[np.bool_] | None) -> Exception | None:
        bound = method()
        return None if bound is None else bound(packets, foreign)

    return call
