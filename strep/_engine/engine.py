"""Datagrams in, blocks of audio out. Deterministic: time is an argument, nothing here reads a clock.

Time goes in ticks of 10 ms of arrival time. Within a tick the engine judges every packet against the state at the
tick's beginning; at the boundary it gives up holes whose deadline has passed, lets proven sources take over their
streams, and sends off what is ready. So the outcome is a function of the datagrams and their arrival times alone,
not of how they were cut into batches: a replay equals the live run.
"""

from __future__ import annotations

import bisect
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from .._codecs.payload_types import PayloadTypes
from .._model.addresses import SourceFilter
from .._model.datagrams import DatagramBatch
from .._model.events import Ended, Event, Notice, Started
from .._model.report import StreamReport, Totals
from .._model.time import TICK_NS
from .._model.types import StreamInfo
from .accounts import Accounts
from .containment import Containment
from .intake import Intake, Part, ticks_of
from .outlet.outlet import Later, Outlet, at_once
from .packets import Bodies, Packets
from .quarantine import Key
from .release import Release
from .sources.admission import PortBinding, Registry
from .sources.announcements import Announcements, Keys
from .sources.pinning import SourcePins
from .sources.sources import Sources
from .state import StreamState
from .streams.ring import FILL, HISTORY, MISORDER, NEVER, SLOTS, WINDOW, Popped

__all__ = ["TICK_NS", "Engine", "EngineConfig"]

I64 = npt.NDArray[np.int64]

SECOND_NS: Final = 1_000_000_000
_WORTHWHILE: Final = 256  # packets of several ticks
_FULL: Final = 700  # packets a tick, from which on ticks are taken one by one: as dear, and no look for who is smooth
_BRIEF_SILENCE_NS: Final = 2 * SECOND_NS  # a stream of a few packets that is silent for so long was none
_AT_ONCE: Final = 32  # packets of a stream that are put into its empty ring
_MANY_TICKS: Final = 4  # or so many ticks, however few packets
_RETRIES: Final = 256  # parts of a batch that cannot be read
_APART: Final = 64  # keys a tick whose packets are looked at one key at a time,
_APART_NS: Final = SECOND_NS  # for so long after something failed in them

_NONE: Final[I64] = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    latency_ns: int = 200_000_000
    max_streams: int = 20_000
    idle_ns: int = 60 * SECOND_NS
    payload_types: PayloadTypes = field(default_factory=PayloadTypes)
    sources: SourceFilter | None = None  # networks that may send; None: all
    call_legs: frozenset[int] | None = None  # call_leg_ids as integers; None: all
    bindings: Mapping[int, PortBinding] = field(default_factory=dict)  # by local port
    pin: str = "address"  # what of a source address a stream is pinned to: "address", "network" or "off"
    pending_ns: int | None = None  # only announced legs are admitted; others' packets wait so long. None: all


class Engine:
    """Datagrams in, events out: streams that begin and end, blocks of audio, key presses, notices, faults.

    The engine owns no socket, no clock and no thread. Whoever drives it calls four methods, from one thread:

    ``receive``           takes a batch of datagrams. Batches come in order of arrival; how they are cut does not matter
    ``advance``           tells that every datagram that arrived before a time has been received. Only then are lost
                          packets given up, idle streams ended, and what is ready sent off
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
        self, config: EngineConfig | None = None, later: Later = at_once, *, release: Release | None = None
    ) -> None:
        """``later`` defers decoding that must be done in order (see ``_delivery.in_order``). ``release`` applies until
        a call brings another; None: ``Release()``."""
        self.config = config = config or EngineConfig()
        types = config.payload_types
        announcements = None if config.pending_ns is None else Announcements(config.max_streams, config.pending_ns)
        self.registry = Registry(config.max_streams, config.bindings, config.call_legs, announcements)
        self.state = StreamState(config.max_streams, types, self.registry)
        self._undo = self.state.undo
        self.accounts = Accounts(self._undo)
        self._containment = Containment(self.state, self.accounts, self._tell)
        pins = SourcePins(config.pin)
        self._intake = Intake(self.accounts, self.registry, config.sources, pins)
        self._table = self.state.table
        self._ring = self.state.ring
        self._reception = self.state.reception
        self._sources = Sources(
            self.state,
            self.accounts,
            pins,
            insert=self._insert,
            drain=self._drain,
            catch_up=self._catch_up,
            make_way=self._make_way,
            started=self._started,
            end=self._end,
            tell=self._tell,
        )
        self._outlet = Outlet(self.state, self.accounts, types, later)
        self._policy = Release()
        self._codec_of_type = types.index_of
        self._tick = 0
        self._touched: list[I64] = []
        self._leaving: list[Popped] = []  # left the ring and not placed yet: they wait for company
        self._oldest = np.full(config.max_streams, NEVER)  # by row: the first of them
        self._unreleased = 0  # in how many groups of rows something may be ready in the ring
        self._next_release_tick = 0
        self._turn = 0  # the group that is released next
        self._events: list[Event] = []
        self._retries = 0
        self._last_arrival_ns = 0
        self._apart_until_ns = 0
        self._adopt(release)

    # --- the three things that happen -----------------------------------------------------------------------------

    def receive(self, batch: DatagramBatch, now_ns: int | None = None, release: Release | None = None) -> list[Event]:
        """Take a batch. Its ``arrival_ns`` is clamped in place to not before the engine's present tick, nor after
        ``now_ns``, where that is known: no time that is wrong carries the engine away. ``release`` applies from now on;
        None: as before."""
        self._adopt(release)
        if len(batch):
            self.accounts.datagrams += len(batch)
            self._retries = _RETRIES
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

    def flush(self) -> list[Event]:
        """End everything: give up all holes, end all streams, reject what is on probation."""
        tick = self._tick + 1
        self._attempt(tick, lambda: self._boundary(tick, closing=True))
        rows = np.array([i.index for i in self.registry.live()], np.int64)
        # by what has come, not by how late it is: a replay knows no more
        brief = self.state.is_brief(rows, self._last_arrival_ns - _BRIEF_SILENCE_NS)
        self._attempt(tick, lambda: self._end(rows[~brief], "closed"))
        self._attempt(tick, lambda: self._end(rows[brief], "evicted"))
        self._attempt(tick, self._sources.close)
        return self._take_events()

    def announce(self, call_leg_id: uuid.UUID) -> list[Event]:
        """Admit a leg from now on, with what waited of it. Only where announcements are asked for."""
        self.registry.let_in(call_leg_id)
        announcements = self.registry.announcements
        if announcements is not None:
            keys = announcements.announce(*divmod(call_leg_id.int, 1 << 64))
            if keys is None:
                self.accounts.streams_refused += 1
            else:
                self._admit_waiting(keys)
        return self._take_events()

    def forget(self, call_leg_id: uuid.UUID) -> None:
        """Admit no more streams of a leg; those that live go on."""
        if self.registry.announcements is not None:
            self.registry.announcements.forget(*divmod(call_leg_id.int, 1 << 64))

    def end(self, streams: Iterable[StreamInfo], reason: str) -> list[Event]:
        """End live streams now."""
        rows = np.array(self._rows_of(streams), np.int64)
        self._attempt(self._tick, lambda: self._end(rows, reason))
        return self._take_events()

    def expect_source(self, call_leg_id: uuid.UUID, until_ns: int) -> None:
        """A leg's media is about to come from another address: it need not wait until the present one has been silent
        for long."""
        rows = [i.index for i in self.registry.live() if i.call_leg_id == call_leg_id]
        self._sources.expect_move(np.array(rows, np.int64), until_ns)

    def last_arrival_ns(self, streams: Iterable[StreamInfo]) -> int:
        """When the last packet of these streams came; 0: none of them lives."""
        rows = self._rows_of(streams)
        return int(self._reception.last_arrival_ns[rows].max()) if rows else 0

    def _rows_of(self, streams: Iterable[StreamInfo]) -> list[int]:
        """Of those that live."""
        info = self.registry.info
        return [s.index for s in streams if s.index < len(info) and info[s.index] is s]

    def next_deadline_ns(self) -> int | None:
        """When :meth:`advance` should be called at the latest; None: not before the next packet."""
        after = (self._tick + 1) * TICK_NS
        if not len(self._table):
            pending_ns = self._sources.next_ns
            return None if pending_ns == NEVER else max(after, pending_ns)
        if self._sources.waiting or self._containment.aside:
            return after
        now = self._tick * TICK_NS
        deadline = (now // SECOND_NS + 1) * SECOND_NS  # idle streams are looked for each second
        if self._unreleased:
            deadline = min(deadline, self._next_release_tick * TICK_NS)
        if self._touched:
            deadline = min(deadline, now + self.config.latency_ns)  # there may be a hole among them
        deadline = min(deadline, self._sources.next_ns)
        return max(after, min(deadline, self._ring.earliest_deadline_ns + TICK_NS))

    @property
    def now_ns(self) -> int:
        """Beginning of the present tick."""
        return self._tick * TICK_NS

    def _adopt(self, release: Release | None) -> None:
        """Follow another policy. What has left the ring is placed before audio begins, or stops, to be made of it."""
        if release is None or release == self._policy:
            return
        if release.audio != self._policy.audio:
            self._send_leaving()
        self._policy = release
        self._outlet.want(audio=release.audio, payloads=release.payloads)

    # --- figures --------------------------------------------------------------------------------------------------

    @property
    def live_streams(self) -> int:
        return len(self._table)

    def write_off(self, datagrams: int) -> int:
        """To be called when a call has raised all the same, though none should: of ``datagrams`` received in all, those
        that no account knows of were lost. Returns how many."""
        self.accounts.datagrams = max(self.accounts.datagrams, datagrams)
        lost = max(self.totals().unaccounted, 0)
        self.accounts.drop("fault", lost)
        return lost

    def totals(self) -> Totals:
        self._sources.settle_accounts()
        waiting = int(np.bitwise_count(self._ring.present).sum()) + self._sources.held
        waiting += sum(len(popped) for popped in self._leaving)
        return self.accounts.totals(buffered=waiting, started=self.registry.started)

    def report(self, stream: StreamInfo, end: str = "") -> StreamReport:
        """The figures of a live stream."""
        return self.state.report(stream, end)

    def top(self, limit: int, key: str = "packets") -> list[StreamReport]:
        """The ``limit`` live streams with the most "packets", "lost" packets or "jitter"."""
        return self.state.top(limit, key)

    # --- what goes wrong ------------------------------------------------------------------------------------------

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

    def _tell(self, event: Event) -> None:
        self._events.append(event)

    def _offer(self, packets: Packets, foreign: npt.NDArray[np.bool_] | None = None) -> None:
        """Packets that no present source accounts for. ``foreign``: of other addresses than their streams'."""
        if self._tick * TICK_NS < self._apart_until_ns:
            self._offer_apart(packets, foreign)
            return
        first = self.registry.started
        try:
            self._sources.offer(packets, foreign)
        except Exception as error:
            self._sources_failed(error, first)

    def _offer_apart(self, packets: Packets, foreign: npt.NDArray[np.bool_] | None) -> None:
        """Something has failed among such packets: one key at a time, so that it is known of whose."""
        members: dict[Key, list[int]] = {}
        for i, key in enumerate(zip(packets.hi.tolist(), packets.lo.tolist(), packets.tag.tolist(), strict=True)):
            members.setdefault(key, []).append(i)
        keys = list(members)
        parts = [[key] for key in keys[:_APART]]
        if keys[_APART:]:
            parts.append(keys[_APART:])
        for part in parts:
            first = self.registry.started
            which = np.array(sorted(i for key in part for i in members[key]), np.int64)
            try:
                self._sources.offer(packets.take(which), None if foreign is None else foreign[which])
            except Exception as error:
                self._sources_failed(error, first)
                if len(part) == 1:
                    self._containment.quarantine.fault(part[0], self._tick * TICK_NS)

    def _admit_waiting(self, keys: Keys) -> None:
        first = self.registry.started
        try:
            self._sources.admit_waiting(keys)
        except Exception as error:
            self._sources_failed(error, first)

    def _sources_failed(self, error: Exception, first: int) -> None:
        """An error among sources, which cannot be undone. Streams that it began, from serial ``first`` on, end."""
        self._containment.broken("sources", error)
        self._apart_until_ns = self._tick * TICK_NS + _APART_NS
        self._send_leaving()
        begun = [info for info in self.registry.live() if info.serial >= first]
        self._rebuild_table({info.index for info in begun})
        told = {event.stream.serial for event in self._events if isinstance(event, Started)}
        for info in begun:
            self._end_one(info.index, "fault", told=info.serial in told)

    def _rebuild_table(self, without: set[int]) -> None:
        """The keys of all live streams but these rows."""
        rows = np.array([i.index for i in self.registry.live() if i.index not in without], np.int64)
        keys = self._table.keys(rows)
        self._table.clear()
        if rows.size:
            self._table.add(rows, *keys)

    # --- ticks ----------------------------------------------------------------------------------------------------

    def _receive(self, batch: DatagramBatch, now_ns: int | None) -> None:
        parts = ticks_of(batch, self._tick, now_ns)
        self._last_arrival_ns = int(batch.arrival_ns[-1])
        self._undo.clear()
        try:
            packets, at = self._intake.packets_of(batch)
        except Exception as error:
            self._undo.back()
            self._retries -= 1
            if len(batch) == 1 or self._retries < 0:
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

    def _take_ticks(self, packets: Packets, parts: list[Part]) -> None:
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
                many = last - begin > _WORTHWHILE or upto - done > _MANY_TICKS
                if many and last - begin < _FULL * (upto - 1 - done):
                    rest = self._take_smooth(packets.take(slice(begin, last)))
                    self._take_rest(packets, parts[done : upto - 1], begin + np.flatnonzero(rest))
                    done = upto - 1
                    continue
            self._take_tick(packets if end - begin == len(packets) else packets.take(slice(begin, end)))
            done += 1

    def _take_rest(self, packets: Packets, parts: list[Part], rows: I64) -> None:
        """Tick by tick those packets of ``parts`` that stand in ``rows``."""
        for tick, begin, end in parts:
            mine = rows[slice(*rows.searchsorted((begin, end)).tolist())]
            if mine.size:
                if tick > self._tick:
                    self._boundary(tick)
                self._take_tick(packets.take(mine))

    def _take_smooth(self, packets: Packets) -> npt.NDArray[np.bool_]:
        """Take all packets of the streams whose packets all go on in sequence; tells which are left."""
        rest = np.ones(len(packets), np.bool_)
        try:
            chosen, row, ext, rank = self._choose_smooth(packets)
        except Exception as error:
            self._containment.lost("smooth", error, 0)
            return rest  # nothing is lost: all are taken the ordinary way
        rest[chosen] = False
        if chosen.size:
            self._insert_smooth(packets.bodies().take(chosen), row, ext, rank)
        return rest

    def _choose_smooth(self, packets: Packets) -> tuple[I64, I64, I64, I64]:
        """Packets of streams that go on in sequence; their rows and extended sequence numbers, and the how manieth of
        their streams they are here."""
        ring = self._ring
        row = self._table.find(packets.hi, packets.lo, packets.tag)
        # 16 bits are sorted by radix, several times as fast
        order = np.argsort(row.astype(np.uint16) if self.config.max_streams < 0xFFFF else row, kind="stable")
        row = row[order]
        known = row >= 0
        if self._containment.aside:
            known &= ~np.isin(row, list(self._containment.aside))
        present = ring.present[row]
        start = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        length = np.diff(np.r_[start, len(row)])
        rank = np.arange(len(row)) - np.repeat(start, length)
        ext = ring.next[row] + ring.run(row) + rank
        good = known & ((present & (present + np.uint64(1))) == 0) & (self.state.ssrc[row] == packets.ssrc[order])
        good &= self.state.source[row] == packets.source[order]
        if self.state.throttle.active:
            good &= ~self.state.throttle.throttled[row]
        good &= packets.sequence_number[order] == ext.astype(np.uint16)
        good &= packets.length[order] <= np.where(ring.large[row], ring.largest_payload, ring.small_payload)
        good &= self._within_window(row, ext, packets.arrival_ns[order])
        smooth = np.repeat(np.logical_and.reduceat(good, start), length)
        return order[smooth], row[smooth], ext[smooth], rank[smooth]

    def _insert_smooth(self, bodies: Bodies, row: I64, ext: I64, rank: I64) -> None:
        def arrive(which: I64 | slice) -> None:
            mine = bodies if isinstance(which, slice) else bodies.take(which)
            self._note_types(row[which], mine.payload_type)
            timed = self._timed(mine.payload_type)
            again = np.flatnonzero(rank[which])
            self._reception.arrived(row[which], ext[which], mine.timestamp, mine.arrival_ns, timed, None, again)

        self._undo.clear()
        there = np.ones(len(row), np.bool_)
        try:
            arrive(slice(None))
        except Exception as error:
            there = self._containment.isolate("insert", error, row, arrive, packets=True)
        # what came earlier in this tick may fill more than half of the slots
        self._pop_ready(np.unique(row))
        for low in range(0, int(rank.max()) + 1, _AT_ONCE):
            part = np.flatnonzero(there & (rank >= low) & (rank < low + _AT_ONCE))
            if self._containment.aside and (sound := self._containment.sound(row[part])) is not None:
                part = part[sound]
            if not part.size:
                continue
            done = self._store(bodies.take(part), row[part], ext[part])
            rows = np.unique(row[part])
            self._pop_ready(rows)
            self._containment.run("ring", rows, self._ring.settle)
            if not done.all():
                # what follows a part that was lost has no place in the ring
                behind = there & (rank >= low + _AT_ONCE) & np.isin(row, row[part[~done]])
                self.accounts.drop("fault", int(np.count_nonzero(behind)))
                there &= ~behind

    def _store(self, bodies: Bodies, row: I64, ext: I64) -> npt.NDArray[np.bool_]:
        """Put packets that go on in sequence into the ring; tells which are there now."""
        self._free_slots(row, ext)
        self._undo.clear()
        try:
            self._put(bodies, row, ext, False)
        except Exception as error:

            def again(which: I64) -> None:
                self._put(bodies.take(which), row[which], ext[which], False)

            return self._containment.isolate("insert", error, row, again, packets=True)
        return np.ones(len(row), np.bool_)

    def _within_window(self, row: I64, ext: I64, arrival_ns: I64) -> npt.NDArray[np.bool_]:
        """Whether packets, by row and in order, are in the window as it would be in each one's own tick."""
        tick = arrival_ns // TICK_NS
        first = np.flatnonzero(np.r_[True, (row[1:] != row[:-1]) | (tick[1:] != tick[:-1])])
        edge = np.where(tick[first] == self._tick, self._ring.edge[row[first]], ext[first])
        ahead: I64 = ext - np.repeat(edge, np.diff(np.r_[first, len(row)]))
        return ahead < WINDOW

    def _boundary(self, tick: int, *, closing: bool = False) -> None:
        """Everything that happens between ticks, up to the beginning of ``tick``."""
        before_s, now_ns = self._tick * TICK_NS // SECOND_NS, tick * TICK_NS
        contained = self._containment
        if contained.aside:
            self._end(np.array(sorted(contained.aside), np.int64), "fault")
        first = self.registry.started
        try:
            self._sources.boundary(now_ns, closing=closing)
        except Exception as error:
            self._sources_failed(error, first)
        self._tick = tick
        contained.now_ns = now_ns
        rows = _joined(self._touched)
        popped: list[Popped] = []
        ring, latency_ns = self._ring, self.config.latency_ns

        def settle(rows: I64) -> None:
            ring.watch_holes(rows, latency_ns)
            if ring.earliest_deadline_ns > now_ns:
                self._settle(rows, popped)

        if rows.size:
            contained.run("ring", rows, settle)
        if ring.earliest_deadline_ns <= now_ns:
            self._give_up_holes(now_ns, popped)
            rows = _joined(self._touched)
            if rows.size:
                contained.run("ring", rows, lambda some: self._settle(some, popped))
        self._touched.clear()
        if popped:
            self._wait_for_company(popped)
        if self._unreleased and tick >= self._next_release_tick:
            self._release()
        if now_ns // SECOND_NS > before_s and len(self._table):
            # told by the second, and with all that came before: whatever was sent off when
            self._send_leaving()
            self._tell_overdue(now_ns // SECOND_NS * SECOND_NS)
            self._end_idle(now_ns)
            self._throttle()

    def _settle(self, rows: I64, popped: list[Popped]) -> None:
        """Move the edges of rows up; long runs leave."""
        full = rows[self._ring.settle(rows) >= FILL]
        if full.size:
            full = np.unique(full)
            left: list[Popped] = []
            self._take_run(full, left)
            self._ring.settle(full)
            popped += left

    def _tell_overdue(self, now_ns: int) -> None:
        """Tell key presses whose end was never told."""
        waiting = self._outlet.waiting()
        if waiting.size:
            self._pop_ready(waiting)

            def tell(rows: I64) -> None:
                self._events += self._outlet.advance(now_ns, rows)

            self._containment.run("presses", self._outlet.waiting(), tell)

    def _release(self) -> None:
        """Send off all that is ready in the rows whose turn it is."""
        self._send_leaving()
        groups = self._policy.groups
        self._next_release_tick = self._tick + self._policy.within_ns // TICK_NS // groups
        self._unreleased = min(self._unreleased, groups) - 1
        self._turn = (self._turn + 1) % groups
        present = self._ring.present[self._turn : len(self.registry.info) : groups]
        self._pop_ready(self._turn + groups * np.flatnonzero(present & np.uint64(1)))

    def _give_up_holes(self, now_ns: int, popped: list[Popped]) -> None:
        ring = self._ring
        now_ns = min(now_ns, NEVER - 1)

        def give_up(rows: I64) -> None:
            left: list[Popped] = []
            self._take_run(rows, left)
            ring.skip_hole(rows, self.config.latency_ns)
            if self._policy.prompt:
                self._take_run(rows, left)  # what waited behind a hole has waited long enough
            popped.extend(left)

        while True:
            deadlines = ring.deadline_ns[: len(self.registry.info)]
            rows = np.flatnonzero(deadlines <= now_ns)
            if not rows.size:
                break
            self._containment.run("ring", rows, give_up)
            if not self._policy.prompt:
                self._unreleased = self._policy.groups
            self._touched.append(rows)
        ring.earliest_deadline_ns = int(deadlines.min()) if len(deadlines) else NEVER

    def _end_idle(self, now_ns: int) -> None:
        last = self._reception.last_arrival_ns[: len(self.registry.info)]
        rows = np.flatnonzero(last <= now_ns - self.config.idle_ns)
        if rows.size:
            live = [r for r in rows.tolist() if self.registry.info[r] is not None]
            if live:
                self._end(np.array(live, np.int64), "idle")

    def _throttle(self) -> None:
        """Once a second: streams that have sent far too much for long."""
        infos = self.registry.info
        rows = slice(len(infos))
        for row in self.state.throttle.second(self._reception.received[rows], self.state.audio_s(rows)).tolist():
            info = infos[row]
            if info is not None:
                text = "sends more than 1,000 packets or 20 s of audio a second for long: refused until it is calm"
                self._events.append(Notice.noted(info, text))

    # --- packets of one tick --------------------------------------------------------------------------------------

    def _take_tick(self, packets: Packets) -> None:
        row = self._table.find(packets.hi, packets.lo, packets.tag)
        if row.min() < 0:
            unknown = row < 0
            self._offer_unknown(packets.take(unknown))
            # the offer may have admitted streams, but all their packets of this batch went with it
            known = ~unknown
            if not known.any():
                return
            packets, row = packets.take(known), row[known]
        if self.state.throttle.active:
            fits = ~self.state.throttle.excess(row)
            self.accounts.reject("rate", len(row) - int(np.count_nonzero(fits)))
            if not fits.any():
                return
            packets, row = packets.take(fits), row[fits]
        self._insert(packets, row)

    def _offer_unknown(self, packets: Packets) -> None:
        quarantine = self._containment.quarantine
        if quarantine:
            refused = quarantine.refused(packets.hi, packets.lo, packets.tag, self._tick * TICK_NS)
            if refused.any():
                self.accounts.reject("fault", int(np.count_nonzero(refused)))
                packets = packets.take(~refused)
                if not len(packets):
                    return
        self._offer(packets)

    def _insert(self, packets: Packets, row: I64) -> None:
        if self._containment.aside and (sound := self._containment.sound(row)) is not None:
            packets, row = packets.take(sound), row[sound]
        if not row.size:
            return
        edge = self._ring.edge.take(row)
        ahead = (packets.sequence_number - edge.astype(np.uint16)).view(np.int16)
        strange = self.state.ssrc.take(row) != packets.ssrc
        strange |= ahead >= WINDOW
        strange |= ahead < -MISORDER
        foreign = self.state.source.take(row) != packets.source
        strange |= foreign
        bodies = packets.bodies()
        if np.count_nonzero(strange):
            others = strange.nonzero()[0]
            self._offer(packets.take(others), foreign[others])
            usual = (~strange).nonzero()[0]
            if not usual.size:
                return
            bodies, row, edge, ahead = bodies.take(usual), row[usual], edge[usual], ahead[usual]
        ext = edge + ahead
        if int(bodies.length.max()) > self._ring.small_payload:
            fits = self._make_room(bodies.length, row)
            if not fits.all():
                which = fits.nonzero()[0]
                bodies, row, ext, ahead = bodies.take(which), row[which], ext[which], ahead[which]
                if not row.size:
                    return
        self._free_slots(row, ext)
        self._undo.clear()
        try:
            different = self._judge_and_put(bodies, row, ext, ahead)
        except Exception as error:
            different = False

            def again(which: I64) -> None:
                self._judge_and_put(bodies.take(which), row[which], ext[which], ahead[which])

            self._containment.isolate("insert", error, row, again, packets=True)
        self._undo.clear()
        if not self._policy.within_ns:
            self._pop_ready(row if different else np.unique(row))

    def _judge_and_put(self, bodies: Bodies, row: I64, ext: I64, ahead: npt.NDArray[np.int16]) -> bool:
        """Count packets that are in the window, and put those into the ring that are neither late nor copies of others.
        Tells whether all rows are different."""
        ring = self._ring
        offset = ext - ring.next.take(row)
        seen = ring.present.take(row) >> offset.view(np.uint64)
        seen &= np.uint64(1)
        doubtful = seen != 0
        doubtful |= offset < 0
        repeated = ring.repeated(row)
        if repeated is not None:
            doubtful |= repeated
        self._note_types(row, bodies.payload_type)
        timed = self._timed(bodies.payload_type)
        if not doubtful.any():
            self._reception.arrived(row, ext, bodies.timestamp, bodies.arrival_ns, timed)
            self._put(bodies, row, ext, True)
            return True
        some = doubtful.nonzero()[0]
        copies, late, again = self._judge(row[some], ext[some], offset[some], ahead[some], repeated is not None)
        copied = None
        if np.count_nonzero(copies):
            copied = np.zeros(len(row), np.bool_)
            copied[some] = copies
            self.accounts.count("duplicate", int(np.count_nonzero(copies)))
        self._reception.arrived(row, ext, bodies.timestamp, bodies.arrival_ns, timed, copied, some[again])
        if np.count_nonzero(late):
            self._reception.came_late(row[some[late]])
            self.accounts.count("late", int(np.count_nonzero(late)))
        stale = copies | late
        different = repeated is None or not again.size or bool(stale[again].all())
        if np.count_nonzero(stale):
            doubtful.fill(True)
            doubtful[some[stale]] = False
            fresh = doubtful.nonzero()[0]
            if not fresh.size:
                return repeated is None
            bodies, row, ext = bodies.take(fresh), row[fresh], ext[fresh]
        self._put(bodies, row, ext, different)
        return repeated is None

    def _judge(
        self, row: I64, ext: I64, offset: I64, ahead: npt.NDArray[np.int16], repeated: bool
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], I64]:
        """Of packets that may be duplicate or late: which are duplicate, which are late, and which, as indices, are
        not the first of their row. ``offset`` is counted from ring.next, ``ahead`` from the edge."""
        ring = self._ring
        known = ahead >= -HISTORY
        everywhere = known.all()
        if everywhere:
            copies = ring.came(row, offset)
        else:
            copies = np.zeros(len(row), np.bool_)
            copies[known] = ring.came(row[known], offset[known])
        again = _NONE
        if repeated:
            key = row << 16 | (ext & 0xFFFF)
            order = np.argsort(key, kind="stable")
            key = key[order]
            copies[order[1:][key[1:] == key[:-1]]] = True
            if not everywhere:
                copies &= known  # so far behind a copy is late again, also when both come in one batch
            again = _not_first(row)
        late = (offset < 0) & ~copies
        if np.count_nonzero(late):
            late_known = late if everywhere else late & known
            ring.note_late(row[late_known], offset[late_known])
        return copies, late, again

    def _free_slots(self, row: I64, ext: I64) -> None:
        """Send off what has left the ring, if these packets need its slots."""
        if self._leaving and int((ext - self._oldest.take(row)).max()) >= SLOTS:
            self._send_leaving()

    def _put(self, bodies: Bodies, row: I64, ext: I64, different: bool) -> None:
        self._ring.insert(
            row,
            ext,
            bodies.timestamp,
            bodies.payload_type,
            bodies.arrival_ns,
            bodies.slab,
            bodies.slab_rows,
            bodies.offset,
            bodies.length,
            different,
        )
        self._touched.append(row)
        if self._policy.within_ns:
            self._unreleased = self._policy.groups

    def _make_room(self, length: npt.NDArray[np.int32], row: I64) -> npt.NDArray[np.bool_]:
        """Move streams to larger slots where packets need them; tells which packets fit at all."""
        ring = self._ring
        fits = length <= ring.largest_payload
        self.accounts.drop("oversize", int(np.count_nonzero(~fits)))
        growing = np.unique(row[(length > ring.small_payload) & ~ring.large[row] & fits])
        if growing.size:
            self._send_leaving()  # slots move

            def grow(rows: I64) -> None:
                for one in rows.tolist():
                    ring.enlarge(one)

            self._containment.run("ring", growing, grow)
            if self._containment.aside:
                gone = fits & np.isin(row, list(self._containment.aside))
                self.accounts.drop("fault", int(np.count_nonzero(gone)))
                fits &= ~gone
        return fits

    def _timed(self, types: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_] | None:
        """Packets whose timestamps run with a known clock, by payload type; None: all."""
        first = types[0]
        if self._codec_of_type[first] >= 0 and (types == first).all():
            return None
        known = self._codec_of_type.take(types) >= 0
        return None if known.all() else known

    def _note_types(self, row: I64, payload_type: npt.NDArray[np.uint8]) -> None:
        types = self.config.payload_types
        for info, pt in self.state.note_types(row, payload_type):
            if not types.guessable[pt]:
                self._events.append(Notice.noted(info, types.why_not(pt)))

    # --- out ------------------------------------------------------------------------------------------------------

    def _drain(self, rows: I64, *, send: bool = True) -> None:
        """Send off all packets of these rows, holes given up. ``send`` False: they may wait for company."""
        popped: list[Popped] = []
        while (rows := rows[self._ring.present[rows] != 0]).size:
            self._pop(rows, popped)
            self._skip_holes(rows)
        self._wait_for_company(popped)
        if send:
            self._send_leaving()

    def _catch_up(self, rows: I64, now_ns: int) -> None:
        """What a boundary at that time, which is past, would have done for these rows (distinct)."""
        ring, latency_ns = self._ring, self.config.latency_ns
        popped: list[Popped] = []
        self._containment.run("ring", rows, lambda some: ring.watch_holes(some, latency_ns))
        self._pop(rows, popped)
        while (due := rows[ring.deadline_ns[rows] <= now_ns]).size:
            self._containment.run("ring", due, lambda some: ring.skip_hole(some, latency_ns))
            self._pop(due, popped)
        self._containment.run("ring", rows, ring.settle)
        self._wait_for_company(popped)

    def _make_way(self, rows: I64) -> None:
        """Give up the holes in front of these rows (distinct, they hold packets), and send off what may leave then."""
        popped: list[Popped] = []
        self._pop(rows, popped)
        self._pop(self._skip_holes(rows), popped)
        self._containment.run("ring", rows, self._ring.settle)
        self._wait_for_company(popped)

    def _skip_holes(self, rows: I64) -> I64:
        """Give up the holes at the front of these rows, whose runs have left; tells which had some."""
        holed: I64 = rows[self._ring.present[rows] != 0]
        if holed.size:
            self._containment.run("ring", holed, lambda some: self._ring.skip_hole(some, self.config.latency_ns))
        return holed

    def _pop_ready(self, rows: I64) -> None:
        """Send off what may leave of these rows (distinct)."""
        self._send_leaving()
        self._pop(rows, self._leaving)
        self._send_leaving()

    def _pop(self, rows: I64, popped: list[Popped]) -> None:
        """Take what may leave of these rows (distinct) from the ring. Its slots hold until packets are put in."""
        if rows.size:
            self._containment.run("ring", rows, lambda some: self._take_run(some, popped))

    def _take_run(self, rows: I64, popped: list[Popped]) -> None:
        run = self._ring.run(rows)
        ready = run > 0
        if np.count_nonzero(ready) < len(ready):
            rows, run = rows[ready], run[ready]
        if rows.size:
            popped.append(self._ring.pop(rows, run))

    def _send_leaving(self) -> None:
        """Place what has left the ring, all together: a batch has its price whatever is in it."""
        if self._leaving:
            popped, self._leaving = Popped.joined(self._leaving), []
            self._oldest[popped.row] = NEVER
            self._undo.clear()
            try:
                self._emit(popped)
            except Exception as error:
                self._containment.isolate(
                    "place", error, popped.row, lambda which: self._emit(popped.take(which)), packets=True
                )
            self._undo.clear()

    def _emit(self, popped: Popped) -> None:
        events = self._outlet.emit(popped)
        self._outlet.commit()
        self._events += events

    def _wait_for_company(self, popped: list[Popped]) -> None:
        """What left at a boundary: goes at once if it is waited for, otherwise with whatever leaves next."""
        if not popped:
            return
        self._leaving += popped
        if self._policy.prompt or not self._policy.within_ns:
            self._send_leaving()
            return
        for part in popped:
            first = part.starts()
            rows = part.row[first]
            self._oldest[rows] = np.minimum(self._oldest.take(rows), part.ext[first])
        self._unreleased = self._policy.groups

    def _end(self, rows: I64, reason: str) -> None:
        if not rows.size:
            return
        self._drain(rows)
        try:
            self._table.remove(rows)
        except Exception as error:
            self._containment.broken("end", error)
            self._rebuild_table(set(rows.tolist()))
        for row in rows.tolist():
            self._end_one(row, reason)

    def _end_one(self, row: int, reason: str, told: bool = True) -> None:
        """A stream that holds nothing and has no key any more. ``told``: that it began."""
        info = self.registry.info[row]
        if self._containment.aside.pop(row, None) is not None:
            reason = "fault"
        if info is not None:
            try:
                self._events += self._outlet.end(info)
            except Exception as error:
                self._containment.lost("end", error, 0)
            if told:
                self._events.append(Ended(info, self._last_report(info, reason)))
        try:
            self.state.close(row)
        except Exception as error:
            self._containment.lost("end", error, 0)
            self.registry.info[row] = None  # and nobody gets this row again
        self.accounts.streams_ended += 1

    def _last_report(self, info: StreamInfo, reason: str) -> StreamReport:
        try:
            return self.report(info, reason)
        except Exception as error:
            self._containment.lost("end", error, 0)
            return StreamReport(
                info, [], 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0, 0, info.first_arrival_ns, end=reason
            )

    def _started(self, info: StreamInfo) -> None:
        self._events.append(Started(info))
        if info.encrypted:
            text = "looks encrypted (SRTP): payloads are longer than their timestamps say; not decoded"
            self._events.append(Notice.noted(info, text))

    def _take_events(self) -> list[Event]:
        if self._containment.unsettled:
            self._containment.settle(self.totals().unaccounted)
        events, self._events = self._events, []
        return events + self._outlet.take_faults()


def _not_first(rows: I64) -> I64:
    """Which entries name a row that an earlier one names."""
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    return np.sort(order[1:][rows[1:] == rows[:-1]])


def _tick_of(part: Part) -> int:
    return part[0]


def _joined(parts: list[I64]) -> I64:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
