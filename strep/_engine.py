"""Datagrams in, blocks of audio out. Deterministic: time is an argument, nothing here reads a clock. Floor 3.

Time goes in ticks of 10 ms of arrival time. Within a tick the engine judges every packet against the state at the
tick's beginning; at the boundary it gives up holes whose deadline has passed, lets proven sources take over their
streams, and sends off what is ready. So the outcome is a function of the datagrams and their arrival times alone,
not of how they were cut into batches: a replay equals the live run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ._accounts import Accounts
from ._addresses import SourceFilter
from ._admission import PortBinding, Registry
from ._blocks import BlockBatch
from ._codecs import PayloadTypes
from ._datagrams import DatagramBatch
from ._packets import KIND_SHARED, Packets
from ._parser import Status, parse_batch
from ._report import StreamReport, Totals
from ._streams.key_table import KeyTable
from ._streams.payloads import Decoder, gather
from ._streams.probation import Held, Probation
from ._streams.reception import Reception
from ._streams.ring import FILL, HISTORY, MISORDER, NEVER, WINDOW, JitterRing, Popped
from ._streams.timeline import Timeline
from ._types import DatagramKind, Direction, GapCause, StreamInfo

__all__ = ["Ended", "Engine", "EngineConfig", "Event", "Notice", "Started"]

I64 = npt.NDArray[np.int64]

TICK_NS: Final = 10_000_000
SECOND_NS: Final = 1_000_000_000
_ADMISSIONS: Final = 256  # new streams and source changes a tick: a flood of pairs costs a bounded time
_MAX_DROPOUT: Final = 3000  # RFC 3550 A.1: a jump forward below this is loss, beyond it a restart
_GAP_CAUSES: Final = tuple(GapCause)
_KEY_TYPES: Final = (np.int64, np.uint64, np.uint64, np.uint64)
_RESTART_EXT: Final = 1 << 20  # a new source begins this far up, so that what is behind it stays positive


@dataclass(frozen=True, slots=True)
class EngineConfig:
    latency_ns: int = 200_000_000
    max_streams: int = 20_000
    idle_ns: int = 60 * SECOND_NS
    payload_types: PayloadTypes = field(default_factory=PayloadTypes)
    sources: SourceFilter | None = None  # networks that may send; None: all
    call_legs: frozenset[int] | None = None  # call_leg_ids as integers; None: all
    bindings: Mapping[int, PortBinding] = field(default_factory=dict)  # by local port


@dataclass(frozen=True, slots=True)
class Started:
    stream: StreamInfo


@dataclass(frozen=True, slots=True)
class Ended:
    stream: StreamInfo
    report: StreamReport


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about a stream that is worth one line, said once."""

    stream: StreamInfo
    text: str


Event = Started | Ended | Notice | BlockBatch


class Engine:
    """Feed it batches with :meth:`receive`, tell it the time with :meth:`advance`, and take the events.

    Every call returns the events it caused, in order.
    """

    # how often what is ready is sent off; 0: at once. Changes when blocks come, never what is in them
    release_ns = 200_000_000
    audio = True  # False: figures only, no blocks

    def __init__(self, config: EngineConfig | None = None) -> None:
        self.config = config = config or EngineConfig()
        rows = config.max_streams
        types = config.payload_types
        self.accounts = Accounts()
        self.registry = Registry(rows, config.bindings, config.call_legs)
        self.ring = JitterRing(rows)
        self.reception = Reception(rows)
        self.timeline = Timeline(rows, types.codecs, types.index_of)
        self._decoder = Decoder(types.codecs)
        self._codec_of_type = types.index_of
        self._table = KeyTable(rows)
        self._probation = Probation()
        self._ssrc = np.zeros(rows, np.uint32)
        self._restarts = np.zeros(rows, np.int64)
        self._sources = np.zeros(rows, np.int64)
        self._types_seen = np.zeros((rows, 128), np.bool_)
        self._tick = 0
        self._touched: list[I64] = []
        self._unreleased = False  # something may be ready in the ring
        self._next_release_tick = 0
        self._admitted_in_tick = 0
        self._changes: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._codecless: set[int] = set()
        self._events: list[Event] = []

    # --- the three things that happen -----------------------------------------------------------------------------

    def receive(self, batch: DatagramBatch) -> list[Event]:
        """Take a batch. Its ``arrival_ns`` is clamped in place to not before the engine's present tick."""
        if not len(batch):
            return []
        tick = self._clamp(batch)
        self.accounts.datagrams += len(batch)
        packets, at = self._parse(batch)
        if tick is None:
            if packets is not None:
                self._take_tick(packets)
        elif packets is not None:
            self._take_ticks(packets, tick if at is None else tick[at])
        return self._take_events()

    def advance(self, now_ns: int) -> list[Event]:
        """Tell that every datagram that arrived before ``now_ns`` has been received."""
        tick = now_ns // TICK_NS
        if tick > self._tick:
            self._boundary(tick)
        return self._take_events()

    def flush(self) -> list[Event]:
        """End everything: give up all holes, end all streams, reject what is on probation."""
        self._boundary(self._tick + 1)
        self._end(np.array([i.index for i in self.registry.live()], np.int64), "closed")
        self._probation.clear()
        self.accounts.reject("probation", self._probation_expired())
        return self._take_events()

    def next_deadline_ns(self) -> int | None:
        """When :meth:`advance` should be called at the latest; None: not before the next packet."""
        if not len(self._table):
            return None
        after = (self._tick + 1) * TICK_NS
        if self._changes:
            return after
        now = self._tick * TICK_NS
        deadline = (now // SECOND_NS + 1) * SECOND_NS  # idle streams are looked for each second
        if self._unreleased:
            deadline = min(deadline, self._next_release_tick * TICK_NS)
        if self._touched:
            deadline = min(deadline, now + self.config.latency_ns)  # there may be a hole among them
        return max(after, min(deadline, self.ring.earliest_deadline_ns + TICK_NS))

    @property
    def now_ns(self) -> int:
        """Beginning of the present tick."""
        return self._tick * TICK_NS

    # --- figures --------------------------------------------------------------------------------------------------

    @property
    def live_streams(self) -> int:
        return len(self._table)

    def totals(self) -> Totals:
        self.accounts.reject("probation", self._probation_expired())
        waiting = int(np.bitwise_count(self.ring.present).sum()) + self._probation.held
        return self.accounts.totals(buffered=waiting, started=self.registry.started)

    def _probation_expired(self) -> int:
        expired, self._probation.expired = self._probation.expired, 0
        return expired

    def report(self, stream: StreamInfo, end: str = "") -> StreamReport:
        """The figures of a live stream."""
        row = stream.index
        reception, timeline = self.reception, self.timeline
        received = int(reception.received[row])
        duplicates = int(reception.duplicates[row])
        expected = int(reception.expected(np.array([row]))[0])
        clock = stream.codec.clock_rate if stream.codec else 0
        milliseconds = 1000.0 / clock if clock else 0.0
        count = int(reception.jitter_count[row])
        gaps = timeline.gap_frames[row]
        causes = {c.label: int(gaps[c]) for c in _GAP_CAUSES if gaps[c]}
        return StreamReport(
            stream=stream,
            payload_types=np.flatnonzero(self._types_seen[row]).tolist(),
            packets_received=received,
            packets_expected=expected,
            packets_lost=expected - (received - duplicates),
            rfc3550_lost=expected - received,
            duplicates=duplicates,
            reordered=int(reception.reordered[row]),
            late=int(reception.late[row]),
            jitter_ms_mean=float(reception.jitter_sum[row]) / count * milliseconds if count else 0.0,
            jitter_ms_max=float(reception.jitter_max[row]) * milliseconds,
            jitter_ms_last=float(reception.jitter[row]) * milliseconds,
            samples=int(timeline.position[row]),
            gap_samples=int(gaps.sum()),
            sources=int(self._sources[row]),
            last_arrival_ns=int(reception.last_arrival_ns[row]),
            gaps=causes,
            undecoded=int(timeline.undecoded[row]),
            timestamp_jumps=int(timeline.timestamp_jumps[row]),
            restarts=int(self._restarts[row]),
            end=end,
        )

    def top(self, limit: int, key: str = "packets") -> list[StreamReport]:
        """The ``limit`` live streams with the most packets, lost packets or jitter."""
        rows = np.array([i.index for i in self.registry.live()], np.int64)
        if not rows.size:
            return []
        reception = self.reception
        if key == "jitter":
            rank = reception.jitter[rows]
        elif key == "lost":
            rank = (reception.expected(rows) - reception.received[rows] + reception.duplicates[rows]).astype(np.float64)
        else:
            rank = reception.received[rows].astype(np.float64)
        if rows.size > limit:
            part = np.argpartition(-rank, limit)[:limit]
            rows, rank = rows[part], rank[part]
        found = [self.registry.info[r] for r in rows[np.argsort(-rank, kind="stable")].tolist()]
        return [self.report(info) for info in found if info is not None]

    # --- datagrams → packets --------------------------------------------------------------------------------------

    def _clamp(self, batch: DatagramBatch) -> I64 | None:
        """Make arrival times not go back behind a tick; returns ticks when the batch is of several."""
        arrival = batch.arrival_ns
        first, last = int(arrival.min()) // TICK_NS, int(arrival.max()) // TICK_NS
        if first == last >= self._tick:
            if last > self._tick:
                self._boundary(last)
            return None
        tick = np.maximum(np.maximum.accumulate(arrival // TICK_NS), self._tick)
        np.maximum(arrival, tick * TICK_NS, out=arrival)
        if tick[0] == tick[-1]:
            if tick[0] > self._tick:
                self._boundary(int(tick[0]))
            return None
        return tick

    def _parse(self, batch: DatagramBatch) -> tuple[Packets | None, I64 | None]:
        """The media packets of a batch, and their rows in it (None: all)."""
        columns = parse_batch(batch.slab, batch.length)
        self.accounts.kinds += np.bincount(columns.kind, minlength=len(DatagramKind))
        rows: I64 | None = None
        good = columns.status == Status.OK
        if not good.all():
            self.accounts.count_statuses(columns.status)
            rows = np.flatnonzero(good)
        if self.config.sources is not None:
            allowed = self.config.sources.allows(batch.source_hi, batch.source_lo)
            if not allowed.all():
                self.accounts.reject("source", int(np.count_nonzero(good & ~allowed)))
                rows = np.flatnonzero(good & allowed)
        if rows is not None:
            if not rows.size:
                return None, rows
            columns = columns.take(rows)
        tag = columns.direction.astype(np.uint64)
        tag <<= np.uint64(1)
        tag |= columns.leg
        strep = columns.kind == DatagramKind.STREP
        if not strep.all():
            port = batch.local_port if rows is None else batch.local_port[rows]
            self.registry.key_words(strep, columns.call_leg_hi, columns.call_leg_lo, tag, columns.ssrc, port)

        def pick(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
            return values if rows is None else values[rows]

        packets = Packets(
            columns.call_leg_hi,
            columns.call_leg_lo,
            tag,
            columns.sequence_number,
            columns.rtp_timestamp,
            columns.ssrc,
            columns.payload_type,
            pick(batch.arrival_ns),
            columns.payload_offset,
            columns.payload_length,
            rows,
            batch.slab,
            pick(batch.source_hi),
            pick(batch.source_lo),
            pick(batch.source_port),
            pick(batch.local_port),
        )
        return packets, rows

    # --- ticks ----------------------------------------------------------------------------------------------------

    def _take_ticks(self, packets: Packets, tick: I64) -> None:
        """Packets of several ticks, ticks ascending."""
        starts = np.flatnonzero(np.r_[True, tick[1:] != tick[:-1]]).tolist()
        ends = [*starts[1:], len(tick)]
        done = 0
        while done < len(starts):
            begin = starts[done]
            now = int(tick[begin])
            if now > self._tick:
                self._boundary(now)
                # until the second ends, streams that merely go on in sequence need no ticks
                second = (now * TICK_NS // SECOND_NS + 1) * SECOND_NS // TICK_NS
                upto = int(np.searchsorted(tick, second))
                last = int(np.searchsorted(tick, tick[upto - 1]))  # its last tick is taken the ordinary way
                if last - begin > 256:
                    rest = self._take_smooth(packets.take(slice(begin, last)))
                    self._take_rest(packets, tick, begin, last, rest)
                    done = starts.index(last)
                    continue
            self._take_tick(packets.take(slice(begin, ends[done])))
            done += 1

    def _take_rest(self, packets: Packets, tick: I64, begin: int, end: int, rest: npt.NDArray[np.bool_]) -> None:
        """Tick by tick what :meth:`_take_smooth` left of packets begin:end."""
        rows = begin + np.flatnonzero(rest)
        if rows.size:
            ticks = tick[rows]
            for part in np.split(rows, np.flatnonzero(ticks[1:] != ticks[:-1]) + 1):
                if tick[part[0]] > self._tick:
                    self._boundary(int(tick[part[0]]))
                self._take_tick(packets.take(part))
        if tick[end] > self._tick:
            self._boundary(int(tick[end]))

    def _take_smooth(self, packets: Packets) -> npt.NDArray[np.bool_]:
        """Take all packets of the streams whose packets all go on in sequence; tells which are left."""
        ring = self.ring
        row = self._table.find(packets.hi, packets.lo, packets.tag)
        order = np.argsort(row, kind="stable")
        row = row[order]
        known = row >= 0
        present = ring.present[row]
        start = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        length = np.diff(np.r_[start, len(row)])
        rank = np.arange(len(row)) - np.repeat(start, length)
        ext = ring.next[row] + ring.run(row) + rank
        good = known & ((present & (present + np.uint64(1))) == 0) & (self._ssrc[row] == packets.ssrc[order])
        good &= packets.sequence_number[order] == ext.astype(np.uint16)
        good &= packets.length[order] <= np.where(ring.large[row], ring.largest_payload, ring.small_payload)
        smooth = np.repeat(np.logical_and.reduceat(good, start), length)
        chosen = order[smooth]
        if chosen.size:
            row, ext, rank = row[smooth], ext[smooth], rank[smooth]
            mine = packets.take(chosen)
            self._note_types(row, mine.payload_type)
            self.reception.arrived(row, ext, mine.timestamp, mine.arrival_ns, self._timed(mine), None, False)
            for low in range(0, int(rank.max()) + 1, 32):
                part = np.flatnonzero((rank >= low) & (rank < low + 32))
                self._store(mine.take(part), row[part], ext[part], False)
                rows = np.unique(row[part])
                self._pop_ready(rows)
                ring.settle(rows)
        rest = np.ones(len(packets), np.bool_)
        rest[chosen] = False
        return rest

    def _boundary(self, tick: int) -> None:
        """Everything that happens between ticks, up to the beginning of ``tick``."""
        before_s, now_ns = self._tick * TICK_NS // SECOND_NS, tick * TICK_NS
        self._admitted_in_tick = 0
        if self._changes:
            self._change_sources()
        self._tick = tick
        rows = _joined(self._touched)
        if rows.size:
            self.ring.watch_holes(rows, self.config.latency_ns)
        if self.ring.earliest_deadline_ns <= now_ns:
            self._give_up_holes(now_ns)
            rows = _joined(self._touched)
        self._touched.clear()
        if rows.size:
            full = rows[self.ring.settle(rows) >= FILL]
            if full.size:
                full = np.unique(full)
                self._pop_ready(full)
                self.ring.settle(full)
        if self._unreleased and tick >= self._next_release_tick:
            self._release()
        if now_ns // SECOND_NS > before_s and len(self._table):
            self._end_idle(now_ns)

    def _release(self) -> None:
        """Send off all that is ready."""
        self._next_release_tick = self._tick + self.release_ns // TICK_NS
        self._unreleased = False
        top = len(self.registry.info)
        self._pop_ready(np.flatnonzero(self.ring.present[:top] & np.uint64(1)))

    def _give_up_holes(self, now_ns: int) -> None:
        ring = self.ring
        while True:
            deadlines = ring.deadline_ns[: len(self.registry.info)]
            rows = np.flatnonzero(deadlines <= now_ns)
            if not rows.size:
                break
            self._pop_ready(rows)
            ring.skip_hole(rows, self.config.latency_ns)
            self._touched.append(rows)
            self._unreleased = True
        ring.earliest_deadline_ns = int(deadlines.min()) if len(deadlines) else NEVER

    def _end_idle(self, now_ns: int) -> None:
        last = self.reception.last_arrival_ns[: len(self.registry.info)]
        rows = np.flatnonzero(last <= now_ns - self.config.idle_ns)
        if rows.size:
            live = [r for r in rows.tolist() if self.registry.info[r] is not None]
            if live:
                self._end(np.array(live, np.int64), "idle")

    # --- packets of one tick --------------------------------------------------------------------------------------

    def _take_tick(self, packets: Packets) -> None:
        row = self._table.find(packets.hi, packets.lo, packets.tag)
        if row.min() < 0:
            unknown = row < 0
            self._offer(packets.take(unknown))
            # the offer may have admitted streams, but all their packets of this batch went with it
            known = ~unknown
            if not known.any():
                return
            packets, row = packets.take(known), row[known]
        self._insert(packets, row)

    def _insert(self, packets: Packets, row: I64) -> None:
        ring = self.ring
        edge = ring.edge.take(row)
        ahead = (packets.sequence_number - edge.astype(np.uint16)).view(np.int16)
        strange = self._ssrc.take(row) != packets.ssrc
        strange |= ahead >= WINDOW
        strange |= ahead < -MISORDER
        if strange.any():
            self._offer(packets.take(strange))
            usual = ~strange
            if not usual.any():
                return
            packets, row, edge, ahead = packets.take(usual), row[usual], edge[usual], ahead[usual]
        ext = edge + ahead
        if int(packets.length.max()) > ring.small_payload:
            fits = self._make_room(packets, row)
            if not fits.all():
                packets, row, ext = packets.take(fits), row[fits], ext[fits]
                if not row.size:
                    return
        self._note_types(row, packets.payload_type)
        timed = self._timed(packets)
        offset = ext - ring.next.take(row)
        different = ring.all_different(row)
        if different and int(offset.min()) >= 0:
            seen = ring.present.take(row) >> offset.view(np.uint64)
            seen &= np.uint64(1)
            if not seen.any():
                self.reception.arrived(row, ext, packets.timestamp, packets.arrival_ns, timed, None, True)
                self._store(packets, row, ext, True)
                return
        self._insert_doubtful(packets, row, ext, ext - ring.edge.take(row), timed, different)

    def _insert_doubtful(
        self, packets: Packets, row: I64, ext: I64, ahead: I64, timed: npt.NDArray[np.bool_] | None, different: bool
    ) -> None:
        """Packets of which some may be duplicate or late. ``ahead`` is counted from the edge."""
        ring = self.ring
        copies = np.zeros(len(row), np.bool_)
        if not different:
            _, first = np.unique(row << 16 | packets.sequence_number, return_index=True)
            copies[:] = True
            copies[first] = False
        known = ahead >= -HISTORY
        offset = ext - ring.next.take(row)
        copies[known] |= ring.came(row[known], offset[known])
        late = (offset < 0) & ~copies
        self.reception.arrived(row, ext, packets.timestamp, packets.arrival_ns, timed, copies, different)
        self.accounts.duplicate += int(np.count_nonzero(copies))
        if late.any():
            self.reception.came_late(row[late])
            self.accounts.late += int(np.count_nonzero(late))
            late_known = late & known
            ring.note_late(row[late_known], offset[late_known])
        fresh = ~(copies | late)
        if fresh.any():
            row = row[fresh]
            self._store(packets.take(fresh), row, ext[fresh], different or ring.all_different(row))

    def _store(self, packets: Packets, row: I64, ext: I64, different: bool) -> None:
        self.ring.insert(
            row,
            ext,
            packets.timestamp,
            packets.payload_type,
            packets.arrival_ns,
            packets.slab,
            packets.slab_rows,
            packets.offset,
            packets.length,
            different,
        )
        self._touched.append(row)
        if self.release_ns:
            self._unreleased = True
            return
        self._pop_ready(row if different else np.unique(row))

    def _make_room(self, packets: Packets, row: I64) -> npt.NDArray[np.bool_]:
        """Move streams to larger slots where packets need them; tells which packets fit at all."""
        ring = self.ring
        fits = packets.length <= ring.largest_payload
        self.accounts.drop("oversize", int(np.count_nonzero(~fits)))
        for r in np.unique(row[(packets.length > ring.small_payload) & ~ring.large[row] & fits]).tolist():
            ring.enlarge(r)
        return fits

    def _timed(self, packets: Packets) -> npt.NDArray[np.bool_] | None:
        """Packets whose timestamps run with a known clock; None: all."""
        known = self._codec_of_type.take(packets.payload_type) >= 0
        return None if known.all() else known

    def _note_types(self, row: I64, payload_type: npt.NDArray[np.uint8]) -> None:
        """Payload types that a stream shows for the first time."""
        seen = self._types_seen[row, payload_type]
        if seen.all():
            return
        new = np.flatnonzero(~seen)
        for r, pt in np.unique(np.stack([row[new], payload_type[new]]), axis=1).T.tolist():
            self._types_seen[r, pt] = True
            index = int(self._codec_of_type[pt])
            info = self.registry.info[r]
            if index >= 0:
                if not self.reception.tick_rate[r]:
                    self.reception.tick_rate[r] = self.config.payload_types.codecs[index].clock_rate / 1e9
            elif info is not None:
                name = self.config.payload_types.static_name(pt) or "dynamic, give --pt"
                self._events.append(Notice(info, f"payload type {pt} ({name}) is not decoded here"))

    # --- sources --------------------------------------------------------------------------------------------------

    def _offer(self, packets: Packets) -> None:
        """Packets whose source has not proved itself for their stream."""
        tag = (packets.tag & np.uint64(0xFFFF_FFFF)) | (packets.ssrc.astype(np.uint64) << np.uint64(32))
        fits = packets.length <= self.ring.largest_payload
        if not fits.all():
            self.accounts.drop("oversize", int(np.count_nonzero(~fits)))
            packets, tag = packets.take(fits), tag[fits]
            if not len(packets):
                return
        proofs = self._probation.offer(
            packets.hi,
            packets.lo,
            tag,
            packets.held_columns(),
            packets.slab,
            packets.rows(),
            packets.offset.astype(np.int64),
        )
        for proof in proofs:
            known = self._table.find(proof.hi, proof.lo, _stream_tags(proof.tag)) >= 0
            for i in range(len(proof)):
                key = (int(proof.hi[i]), int(proof.lo[i]), int(proof.tag[i]))
                if known[i]:
                    pair = (int(proof.last_sequence_number[i]), int(proof.last_arrival_ns[i]))
                    if key in self._changes or len(self._changes) < _ADMISSIONS:
                        self._changes[key] = pair
                elif self._admitted_in_tick < _ADMISSIONS:
                    self._admit(key, int(proof.sequence_number[i]), int(proof.packet[i]))
                else:
                    break  # proves itself again with its next packet

    def _admit(self, key: tuple[int, int, int], sequence_number: int, proving_packet: int) -> None:
        hi, lo, tag = key
        stream_tag = _stream_tag(tag)
        self._admitted_in_tick += 1
        if self.registry.full:
            # its packets stay on probation and end there
            self.accounts.streams_refused += 1
            return
        held = self._probation.release(*key)
        columns = held.columns
        if not self.registry.permits(hi, lo, stream_tag):
            self.accounts.reject("call_leg", len(columns))
            return
        until = columns[columns["packet"] <= proving_packet]
        ahead = (until["sequence_number"] - np.uint16(sequence_number)).view(np.int16)
        near = (ahead >= -32) & (ahead <= 1)
        first_ext = _RESTART_EXT + sequence_number + int(ahead[near].min())
        direction = None
        if (stream_tag >> 2) & 3 == KIND_SHARED:
            direction = self._direction_of_shared(key, held_since_ns=int(until["arrival_ns"][near].min()))
            if direction is None:
                self._take_over_shared(key, columns, first_ext, held)
                return
        first = until[np.flatnonzero(near)[0]]
        info = self.registry.admit(
            hi,
            lo,
            stream_tag,
            direction=direction,
            ssrc=tag >> 32,
            source=(int(first["source_hi"]), int(first["source_lo"]), int(first["source_port"])),
            local_port=int(first["local_port"]),
            payload_type=int(first["payload_type"]),
            first_arrival_ns=int(first["arrival_ns"]),
            origin_ns=self._origin_ns(until[near]),
        )
        row = info.index
        self._table.add(*(np.array([k], dtype) for k, dtype in zip((row, hi, lo, stream_tag), _KEY_TYPES, strict=True)))
        self._ssrc[row] = tag >> 32
        self._restarts[row] = 0
        self._sources[row] = 1
        self._types_seen[row] = False
        self.ring.open(row, first_ext, int(columns["length"].max()))
        self.reception.open(row, first_ext, int(first["arrival_ns"]), int(first["timestamp"]))
        self.timeline.open(row, first_ext)
        self._codecless.add(row)
        self._events.append(Started(info))
        self._insert(Packets.of_held(held, hi, lo, stream_tag), np.full(len(columns), row, np.int64))

    def _origin_ns(self, columns: npt.NDArray[np.void]) -> int:
        """When sample 0 arrived, or would have without network delay: the minimum over the packets at hand."""
        codec = self._codec_of_type[columns["payload_type"]]
        columns = columns[codec >= 0]
        if not len(columns):
            return 0  # known with the first audio
        rate = self.config.payload_types.codecs[int(codec[codec >= 0][0])].clock_rate
        first = columns[np.argmin((columns["sequence_number"] - columns["sequence_number"][0]).view(np.int16))]
        ahead = (columns["timestamp"] - first["timestamp"]).view(np.int32).astype(np.int64)
        return int((columns["arrival_ns"] - ahead * SECOND_NS // rate).min())

    def _change_sources(self) -> None:
        """At a boundary: sources that proved themselves while their stream's present source was silent take over."""
        changes, self._changes = self._changes, {}
        for key, (sequence_number, pair_arrival_ns) in changes.items():
            hi, lo, tag = key
            row = int(self._find_one(hi, lo, _stream_tag(tag)))
            if row < 0 or int(self.reception.last_arrival_ns[row]) > pair_arrival_ns:
                continue  # the old source still sends: the new one stays on probation
            held = self._probation.release(*key)
            columns = held.columns
            ahead = (columns["sequence_number"] - np.uint16(sequence_number)).view(np.int16)
            near = (ahead >= -32) & (ahead <= 1)
            if near.any():
                self._change_source(row, tag >> 32, sequence_number + int(ahead[near].min()), held, key)

    def _change_source(self, row: int, ssrc: int, sequence_number: int, held: Held, key: tuple[int, int, int]) -> None:
        rows = np.array([row])
        self._drain(rows)
        columns = held.columns
        edge = int(self.ring.next[row])
        # highest sequence number so far, not the edge: packets may be missing at the end
        jump = (sequence_number - edge) & 0xFFFF
        same = ssrc == int(self._ssrc[row])
        if same and jump < _MAX_DROPOUT:
            first_ext = edge + jump  # RFC 3550 A.1: in order, with a permissible gap
            self.ring.restart(rows, np.array([first_ext]))
        else:
            first_ext = _RESTART_EXT + (sequence_number & 0xFFFF)
            first = columns[0]
            self.ring.restart(rows, np.array([first_ext]))
            self.reception.new_source(rows, np.array([first_ext]), first["arrival_ns"], first["timestamp"])
            self.timeline.new_source(rows, np.array([first_ext]))
            self._restarts[row] += 1
            if not same:
                self._ssrc[row] = ssrc
                self._sources[row] += 1
                info = self.registry.info[row]
                if info is not None and ssrc not in info.ssrcs and len(info.ssrcs) < 64:
                    info.ssrcs.append(ssrc)
        self._insert(Packets.of_held(held, *key), np.full(len(columns), row, np.int64))

    def _direction_of_shared(self, key: tuple[int, int, int], held_since_ns: int) -> Direction | None:
        """rx and tx on one port: the first source is taken for inbound, the second for outbound.

        None: both are there; the new source takes over from the one that has fallen silent.
        """
        taken = {info.direction for info, _ in self._shared_streams(key[1])}
        for direction in Direction:
            if direction not in taken:
                silent = [r for i, r in self._shared_streams(key[1]) if self.reception.last_arrival_ns[r] < held_since_ns]
                # one stream, and it stopped when this one began: its source has changed
                return None if silent and len(taken) == 1 and self._stopped_for(silent[0], held_since_ns) else direction
        return None

    def _stopped_for(self, row: int, since_ns: int) -> bool:
        return since_ns - int(self.reception.last_arrival_ns[row]) > 500_000_000

    def _shared_streams(self, pair: int) -> list[tuple[StreamInfo, int]]:
        found = []
        for info in self.registry.live():
            hi, lo, tag = self._table.key(info.index)
            if hi == 0 and lo == pair and (tag >> 2) & 3 == KIND_SHARED:
                found.append((info, info.index))
        return found

    def _take_over_shared(self, key: tuple[int, int, int], columns: npt.NDArray[np.void], ext: int, held: Held) -> None:
        streams = self._shared_streams(key[1])
        row = min((r for _, r in streams), key=lambda r: int(self.reception.last_arrival_ns[r]))
        rows = np.array([row])
        self._table.remove(rows)
        self._table.add(*(np.array([k], t) for k, t in zip((row, key[0], key[1], key[2]), _KEY_TYPES, strict=True)))
        self._change_source(row, key[2] >> 32, ext, held, key)

    def _find_one(self, hi: int, lo: int, tag: int) -> int:
        return int(self._table.find(*(np.array([k], np.uint64) for k in (hi, lo, tag)))[0])

    # --- out ------------------------------------------------------------------------------------------------------

    def _drain(self, rows: I64) -> None:
        """Send off all packets of these rows, holes given up."""
        ring = self.ring
        while True:
            rows = rows[ring.present[rows] != 0]
            if not rows.size:
                return
            self._pop_ready(rows)
            holed = rows[ring.present[rows] != 0]
            if holed.size:
                ring.skip_hole(holed, self.config.latency_ns)

    def _pop_ready(self, rows: I64) -> None:
        """Send off what may leave of these rows (distinct)."""
        run = self.ring.run(rows)
        ready = run > 0
        if not ready.all():
            rows, run = rows[ready], run[ready]
        if rows.size:
            self._emit(self.ring.pop(rows, run))

    def _end(self, rows: I64, reason: str) -> None:
        if not rows.size:
            return
        self._drain(rows)
        self._table.remove(rows)
        for row in rows.tolist():
            info = self.registry.info[row]
            if info is not None:
                self._events.append(Ended(info, self.report(info, reason)))
            self.ring.close(row)
            self.registry.release(row)
            self._codecless.discard(row)
            self.accounts.streams_ended += 1

    def _emit(self, popped: Popped) -> None:
        placed = self.timeline.place(popped)
        undecoded = self.timeline.take_undecoded()
        self.accounts.delivered += len(popped) - undecoded
        if undecoded:
            self.accounts.drop("payload_type", undecoded)
        if placed is None:
            return
        if self._codecless:
            self._name_codecs(placed.block_row, placed.arrival_ns[placed.packet_first[:-1]])
        if not self.audio:
            return
        payload, begin = gather(self.ring, placed, self._decoder.frame_bytes)
        stream_codec = self.timeline.codec.take(placed.row)
        decode, payload, begin = self._decoder.prepare(payload, begin, placed.codec, stream_codec)
        first = placed.packet_first
        offset = np.zeros(len(first), np.int64)
        channels = self._decoder.channels.take(self.timeline.codec.take(placed.block_row))
        np.cumsum(placed.block_frames * channels, out=offset[1:])
        info = self.registry.info
        self._events.append(
            BlockBatch(
                streams=[info[r] for r in placed.block_row.tolist()],  # type: ignore[misc]  # live rows have one
                index=placed.block_row,
                position=placed.position,
                frames=placed.block_frames,
                gap_frames=placed.gap_frames,
                gap_cause=placed.gap_cause,
                rtp_timestamp=placed.timestamp[first[:-1]],
                arrival_ns=placed.arrival_ns[first[:-1]],
                offset=offset,
                payload=payload,
                payload_offset=begin[first],
                packet_first=first,
                packet_frames=placed.frames,
                packet_arrival_ns=placed.arrival_ns,
                packet_rtp_timestamp=placed.timestamp,
                decode=decode,
            )
        )

    def _name_codecs(self, rows: I64, arrival_ns: I64) -> None:
        for row, arrival in zip(rows.tolist(), arrival_ns.tolist(), strict=True):
            info = self.registry.info[row]
            if row in self._codecless and info is not None:
                info.codec = self.config.payload_types.codecs[int(self.timeline.codec[row])]
                info.origin_ns = info.origin_ns or arrival
                self._codecless.discard(row)

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def _joined(parts: list[I64]) -> I64:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _stream_tag(tag: int) -> int:
    """The stream's tag from a source's: only plain RTP told apart by SSRC has the SSRC in it."""
    return tag if (tag >> 2) & 1 else tag & 0xFFFF_FFFF


def _stream_tags(tag: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    by_ssrc = (tag >> np.uint64(2)) & np.uint64(1)
    return np.where(by_ssrc == 1, tag, tag & np.uint64(0xFFFF_FFFF))
