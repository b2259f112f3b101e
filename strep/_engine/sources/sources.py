"""Sources come, change and are refused: probation, admission, SSRC changes, sequence restarts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from ..._model.addresses import format_address
from ..._model.events import Limited, Notice
from ..._model.time import TICK_NS
from ..._model.types import Direction, StreamInfo
from ..accounts import Accounts
from ..packets import KIND_SHARED, Packets
from ..state import StreamState
from ..streams.ring import NEVER, WINDOW
from .announcements import Announcements, Keys
from .beginnings import MAX_DROPOUT, Runs, looks_encrypted, only, origins_ns
from .limits import AdmissionLimits
from .pinning import SourcePins
from .probation import Held, Probation, Proofs
from .shared_port import Replacement, SharedPorts
from .takeover import SILENT_NS, Challengers, stream_tag

__all__ = ["Sources"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Key = tuple[int, int, int]

SECOND_NS: Final = 1_000_000_000
_ADMISSIONS: Final = 256  # new streams a tick: a flood of pairs costs a bounded time
_SHARED_A_TICK: Final = 8  # new sources on ports that rx and tx share, looked at one by one
_FIRST_EXT: Final = 1 << 20  # a source begins this far up, so that what is behind it stays positive
_SSRCS_KEPT: Final = 64
_NOTES_KEPT: Final = 20
_STEP: Final = 40  # held packets of a stream that go in at a time: in sequence, they fit into the window
_EVICTABLE_SILENCE_NS: Final = (
    200_000_000  # a stream that is no longer than a few packets and silent since may be evicted
)
_TOLD_AGAIN_NS: Final = 10 * SECOND_NS


class Drain(Protocol):
    def __call__(self, rows: I64, *, send: bool = True) -> None: ...


class Sources:
    """Decides which packets belong to which stream's present source.

    ``insert(packets, rows)`` takes packets that were held back; ``drain(rows, send=)`` takes all that streams still
    hold out of the ring; ``catch_up(rows, now_ns)`` does for rows (distinct) what a boundary at that time does;
    ``make_way(rows)`` gives up the holes in front of them; ``end(rows, reason)`` ends streams; ``tell`` takes events.
    """

    def __init__(
        self,
        state: StreamState,
        accounts: Accounts,
        pins: SourcePins,
        insert: Callable[[Packets, I64], None],
        drain: Drain,
        catch_up: Callable[[I64, int], None],
        make_way: Callable[[I64], None],
        started: Callable[[StreamInfo], None],
        end: Callable[[I64, str], None],
        tell: Callable[[Limited | Notice], None],
    ) -> None:
        self._announcements = state.registry.announcements
        self._state = state
        self._accounts = accounts
        self._pins = pins
        self._insert = insert
        self._drain = drain
        self._catch_up = catch_up
        self._make_way = make_way
        self._started = started
        self._end = end
        self._tell = tell
        self._probation = Probation()
        self._limits = AdmissionLimits(len(state.ssrc))
        self._shared = SharedPorts(state)
        self._challengers = Challengers(state, pins)
        self._tick_ns = 0  # when the present tick began
        self._admitted = 0  # in this tick
        self._shared_looks = 0
        self._without_room = 0  # streams that were refused in this tick because there are as many as may be
        self._told_ns: dict[str, int] = {}  # by cause of a limit: when it was last told

    @property
    def waiting(self) -> bool:
        """Something is to be decided at the next boundary."""
        return bool(self._challengers) or bool(self._without_room)

    @property
    def held(self) -> int:
        """Packets on probation."""
        return self._probation.held

    def settle_accounts(self) -> None:
        """Reject in the accounts what probation gave up since the last call."""
        expired, self._probation.expired = self._probation.expired, 0
        self._accounts.reject("probation", expired)
        foreign, self._probation.expired_foreign = self._probation.expired_foreign, 0
        self._accounts.reject("foreign_source", foreign)

    def close(self) -> None:
        if self._announcements is not None and (keys := self._announcements.overdue(NEVER)) is not None:
            self._turn_away(keys)
        self._probation.clear()
        self.settle_accounts()

    def boundary(self, now_ns: int, *, closing: bool = False) -> None:
        self._tick_ns = now_ns = min(now_ns, NEVER)
        self._admitted = self._shared_looks = 0
        if self._announcements is not None and (keys := self._announcements.overdue(now_ns)) is not None:
            self._turn_away(keys)
        while self._judge(now_ns, closing) and closing:
            pass  # at the end all go in that waited for each other
        if self._without_room:
            self._evict(now_ns)

    def _judge(self, now_ns: int, closing: bool) -> bool:
        """Let those take over whose turn it is; tells whether there were any."""
        verdict = self._challengers.judge(now_ns, closing=closing)
        if verdict is None:
            return False
        if verdict.waiting_before_ns.size:
            self._probation.trim(*verdict.waiting_keys, verdict.waiting_before_ns)
        if verdict.rows.size:
            self._change(verdict.rows, verdict.keys, verdict.sources, now_ns)
        return bool(verdict.rows.size)

    def expect_move(self, rows: I64, until_ns: int) -> None:
        """These streams' media is about to come from another address."""
        self._state.moving_until_ns[rows] = min(until_ns, NEVER)

    # --- new packets ----------------------------------------------------------------------------------------------

    def offer(self, packets: Packets, foreign: Bools | None = None) -> None:
        """Packets that no present source accounts for: of unknown streams, other SSRCs or addresses, or far out of
        sequence. ``foreign``: which come from another address than their stream's; None: none."""
        tag = packets.tag & np.uint64(0xFFFF_FFFF)
        tag |= packets.ssrc.astype(np.uint64) << np.uint64(32)
        tag |= self._pins.bits(packets.source)
        columns = packets.held_columns()
        if foreign is not None:
            columns["foreign"] = foreign
        hi, lo, slab_rows, offset = packets.hi, packets.lo, packets.rows(), packets.offset.astype(np.int64)
        fits = packets.length <= self._state.ring.largest_payload
        if not fits.all():
            self._accounts.drop("oversize", int(np.count_nonzero(~fits)))
            hi, lo, tag, columns = hi[fits], lo[fits], tag[fits], columns[fits]
            slab_rows, offset = slab_rows[fits], offset[fits]
            if not len(hi):
                return
        for proofs in self._probation.offer(hi, lo, tag, columns, packets.slab, slab_rows, offset):
            known = self._state.table.find(proofs.hi, proofs.lo, stream_tag(proofs.tag)) >= 0
            if known.any():
                self._challengers.note(proofs.take(np.flatnonzero(known)))
            # beyond the limit they stay where they are, and prove themselves again with their next packet
            new = np.flatnonzero(~known)
            if new.size and self._announcements is not None:
                new = self._announced(self._announcements, proofs, new)
            new = new[: _ADMISSIONS - self._admitted]
            if new.size:
                self._admitted += new.size
                self._admit(proofs.take(new))

    # --- admission ------------------------------------------------------------------------------------------------

    def _admit(self, proofs: Proofs) -> None:
        """Streams for sources that have proved themselves, as far as there is room and they are permitted. The others
        stay on probation and end there, or prove themselves again."""
        first = _first_of_each(proofs.hi, proofs.lo, proofs.tag)
        if len(first) < len(proofs):
            proofs = proofs.take(first)  # a stream's other sources prove themselves again, as those that change it
        refused = max(0, len(proofs) - self._state.registry.room)
        if refused:
            self._without_room += refused
            self._refuse(refused, "streams", proofs.take(slice(len(proofs) - refused, len(proofs))))
            proofs = proofs.take(slice(0, len(proofs) - refused))
        granted = np.array(self._limits.grant(SourcePins.hosts(proofs.source).tolist(), self._tick_ns), np.bool_)
        if not granted.all():
            others = np.flatnonzero(~granted)
            self._refuse(others.size, "source", proofs.take(others))
            proofs = proofs.take(np.flatnonzero(granted))
        if len(proofs):
            self._admit_held((proofs.hi, proofs.lo, proofs.tag), proofs.source)

    def _refuse(self, streams: int, limit: str, proofs: Proofs) -> None:
        self._accounts.streams_refused += streams
        if self._tick_ns - self._told_ns.get(limit, -_TOLD_AGAIN_NS) >= _TOLD_AGAIN_NS:
            self._told_ns[limit] = self._tick_ns
            one = self._probation.newest(proofs.hi[:1], proofs.lo[:1], proofs.tag[:1])[0]
            self._tell(Limited(limit, format_address(int(one["source_hi"]), int(one["source_lo"]))))

    def _admit_held(self, keys: Keys, sources: U64) -> None:
        """Admit sources with all that was kept of them."""
        places = self._places(keys, sources)
        if any(place is None for place in places):
            chosen = np.array([place is not None for place in places])
            keys, sources = (keys[0][chosen], keys[1][chosen], keys[2][chosen]), sources[chosen]
            places = [place for place in places if place is not None]
            if not places:
                return
        held = self._probation.release(*keys)
        runs = Runs(held, len(places), takes_over=False)
        held, runs = self._without_unproven(held, runs, len(places))
        if not len(held.columns):
            return  # a flood has pushed out what proved them
        stream_keys = list(zip(keys[0].tolist(), keys[1].tolist(), stream_tag(keys[2]).tolist(), strict=True))
        objections = self._objections(stream_keys, held, runs)
        ssrc = (keys[2] >> np.uint64(32)).astype(np.uint32)
        origin_ns, encrypted = origins_ns(held, runs, self._state), looks_encrypted(held, runs, self._state)
        rows = np.full(len(places), -1)
        for i, key in enumerate(stream_keys):
            place = places[i]
            if objections[i] or place is None:
                continue
            if isinstance(place, Replacement):
                self._shared.move(place.row, *key)
                mine = held.owner == i
                one = Held(held.columns[mine], np.zeros(int(mine.sum()), np.int64), held.slab[mine])
                self._take_over(np.array([place.row]), sources[i : i + 1], ssrc[i : i + 1], one, runs.lowest[i : i + 1])
                continue
            first = held.columns[runs.first[i]]
            info = self._state.registry.admit(
                *key,
                direction=place if (key[2] >> 2) & 3 == KIND_SHARED else None,
                ssrc=int(ssrc[i]),
                source=(int(first["source_hi"]), int(first["source_lo"]), int(first["source_port"])),
                local_port=int(first["local_port"]),
                payload_type=int(first["payload_type"]),
                first_arrival_ns=int(first["arrival_ns"]),
                origin_ns=int(origin_ns[i]),
            )
            info.encrypted = bool(encrypted[i])
            rows[i] = info.index
            self._started(info)
        new = np.flatnonzero(rows >= 0)
        if new.size:
            first = held.columns[runs.first[new]]
            longest = np.zeros(len(places), np.int64)
            np.maximum.at(longest, held.owner, held.columns["length"])
            self._state.open(
                rows[new],
                keys[0][new],
                keys[1][new],
                stream_tag(keys[2][new]),
                ssrc[new],
                sources[new],
                _FIRST_EXT + runs.lowest[new].astype(np.int64),
                first["arrival_ns"],
                first["timestamp"],
                longest[new],
            )
            for row in rows[new][encrypted[new]].tolist():
                self._state.mark_encrypted(row)
            held = only(held, (rows >= 0)[held.owner])
            self._insert_held(Packets.of_held(held, keys[0], keys[1], stream_tag(keys[2])), rows[held.owner])

    def _places(self, keys: Keys, sources: U64) -> list[Direction | Replacement | None]:
        """Of each new source: where it belongs. Only on ports that rx and tx share there is a question."""
        places: list[Direction | Replacement | None] = [Direction.INBOUND] * len(sources)
        shared = np.flatnonzero((keys[2] >> np.uint64(2)) & np.uint64(3) == KIND_SHARED)
        seen = set()
        for i in shared.tolist():
            pair = int(keys[1][i])
            places[i] = None
            if pair not in seen and self._shared_looks < _SHARED_A_TICK:
                # one new source of a pair at a time: the next one looks at what became of it
                seen.add(pair)
                self._shared_looks += 1
                places[i] = self._shared.place_of(pair, int(sources[i]), self._tick_ns)
        return places

    def _without_unproven(self, held: Held, runs: Runs, owners: int) -> tuple[Held, Runs]:
        """What belongs to the sources' sequences; the rest is rejected."""
        if runs.kept.all():
            return held, runs
        foreign = int(np.count_nonzero(held.columns["foreign"][~runs.kept]))
        self._accounts.reject("foreign_source", foreign)
        self._accounts.reject("probation", int(np.count_nonzero(~runs.kept)) - foreign)
        held = only(held, runs.kept)
        return held, Runs(held, owners, takes_over=False)

    def _objections(self, keys: list[Key], held: Held, runs: Runs) -> list[str | None]:
        """Why streams are not to be, by the registry; what was held of them is rejected for that. "" where nothing is
        left to make one of."""
        registry = self._state.registry
        at_ns = held.columns["arrival_ns"][runs.first].tolist()
        found = [
            registry.objection(*key, at) if proven else ""
            for key, at, proven in zip(keys, at_ns, runs.proven.tolist(), strict=True)
        ]
        for cause in {cause for cause in found if cause}:
            those = np.array([one == cause for one in found])
            self._accounts.reject(cause, int(np.count_nonzero(those[held.owner])))
            self._accounts.streams_refused += int(np.count_nonzero(those))
        return [cause if cause is None else (cause or "unproven") for cause in found]

    def _evict(self, now_ns: int) -> None:
        """There is no room: the oldest of the streams that were but a few packets, and are silent since, make some; and
        after them those that only keep their places."""
        wanted, self._without_room = self._without_room, 0
        state = self._state
        first_ns = state.first_arrival_ns[: len(state.registry.info)]
        rows = np.flatnonzero(first_ns)
        brief = state.is_brief(rows, now_ns - _EVICTABLE_SILENCE_NS)
        found = brief | state.is_sparse(rows, now_ns - _EVICTABLE_SILENCE_NS)
        if found.any():
            order = np.lexsort((first_ns[rows], ~brief, ~found))[: min(wanted, int(np.count_nonzero(found)))]
            self._end(rows[order], "evicted")

    # --- what was held back goes in -------------------------------------------------------------------------------

    def _insert_held(self, packets: Packets, rows: I64) -> None:
        """Packets of several streams (by stream, in order of arrival) as if they came only now, each in its tick: what
        waited is as good as what did not."""
        sequence = packets.sequence_number
        starts = np.append(True, rows[1:] != rows[:-1])
        smooth = starts | (np.append(0, (sequence[1:] - sequence[:-1]).view(np.int16)) == 1)
        begin = np.flatnonzero(starts)
        length = np.diff(np.append(begin, len(rows)))
        by_tick = ~np.repeat(np.logical_and.reduceat(smooth, begin), length)
        rank = np.arange(len(rows)) - np.repeat(begin, length)
        step = np.where(by_tick, 0, rank // _STEP)
        for number in range(int(step.max()) + 1):
            part = np.flatnonzero((step == number) & ~by_tick)
            if part.size:
                self._insert(packets.take(part), rows[part])
                self._catch_up(rows[part[np.append(True, rows[part[1:]] != rows[part[:-1]])]], 0)
        late = np.flatnonzero(by_tick)
        if not late.size:
            return
        tick, many = packets.arrival_ns[late] // TICK_NS, rank[late] // _STEP
        order = np.lexsort((many, tick))
        late, tick, many = late[order], tick[order], many[order]
        cuts = np.flatnonzero((tick[1:] != tick[:-1]) | (many[1:] != many[:-1])) + 1
        for low, high in pairwise([0, *cuts.tolist(), len(tick)]):
            part = late[low:high]
            one, row = packets.take(part), rows[part]
            self._catch_up(np.unique(row), int(tick[low]) * TICK_NS)
            self._make_room(one, row)
            self._insert(one, row)

    def _make_room(self, packets: Packets, rows: I64) -> None:
        """Of packets that came together, so many or with so much lost that the window is too small: give up the holes
        that stand in their way, and skip a loss that is longer than the window."""
        ring = self._state.ring
        while True:
            ahead = (packets.sequence_number - ring.edge[rows].astype(np.uint16)).view(np.int16)
            far = ahead >= WINDOW
            holed = np.unique(rows[far & (ring.present[rows] != 0)])
            if not holed.size:
                break
            self._make_way(holed)
        for row in np.unique(rows[far]).tolist():
            nearest = int(ahead[far & (rows == row)].min())
            if nearest < MAX_DROPOUT and not (~far & (rows == row)).any():
                ring.restart(np.array([row]), ring.next[[row]] + nearest)

    # --- announcements --------------------------------------------------------------------------------------------

    @property
    def next_ns(self) -> int:
        """When the next source has waited in vain."""
        return NEVER if self._announcements is None else self._announcements.earliest_ns

    def _announced(self, announcements: Announcements, proofs: Proofs, new: I64) -> I64:
        """Those of the new sources whose leg was announced; the others stay on probation, if there is room to wait."""
        one = proofs.take(new)
        welcome, turned_away = announcements.sift(one.hi, one.lo, one.tag, one.last_arrival_ns)
        if turned_away.any():
            self._turn_away((one.hi[turned_away], one.lo[turned_away], one.tag[turned_away]))
        return new[welcome]

    def _turn_away(self, keys: Keys) -> None:
        if keys[0].size:
            held = self._probation.release(*keys)
            self._accounts.reject("unannounced", len(held.columns))
            self._accounts.streams_refused += keys[0].size

    def admit_waiting(self, keys: Keys) -> None:
        """Admit sources whose leg has just been announced, with all that was kept of them."""
        if not keys[0].size or self._state.registry.room < keys[0].size:
            return  # without room for all of them they prove themselves again with their next packets
        new = np.flatnonzero(self._state.table.find(keys[0], keys[1], stream_tag(keys[2])) < 0)
        new = new[_first_of_each(*(words[new] for words in keys))]
        if new.size:
            keys = keys[0][new], keys[1][new], keys[2][new]
            self._admit_held(keys, self._probation.newest(*keys)["source"].copy())

    # --- changes of a stream's source -----------------------------------------------------------------------------

    def _change(self, rows: I64, keys: Keys, sources: U64, now_ns: int) -> None:
        """The sources with these keys take over these rows (distinct)."""
        held = self._probation.release(*keys)
        runs = Runs(held, len(rows), takes_over=True)
        lost = ~runs.kept
        foreign = int(np.count_nonzero(held.columns["foreign"][lost]))
        self._accounts.reject("foreign_source", foreign)
        self._accounts.reject("probation", int(np.count_nonzero(lost)) - foreign)
        held = only(held, runs.kept)
        proven = runs.proven
        if not proven.all():
            held.owner = (np.cumsum(proven) - 1)[held.owner]
            rows, sources, keys = rows[proven], sources[proven], (keys[0][proven], keys[1][proven], keys[2][proven])
        if rows.size:
            self._note_owners(rows, sources, now_ns)
            ssrc = (keys[2] >> np.uint64(32)).astype(np.uint32)
            self._take_over(rows, sources, ssrc, held, runs.lowest[proven])

    def _note_owners(self, rows: I64, sources: U64, now_ns: int) -> None:
        """Who a stream belongs to when another address takes it over."""
        state = self._state
        former, present = state.former_source[rows], state.source[rows]
        moved = sources != present
        # who was here first keeps its right to come back, but not against the control plane, nor after a race that it
        # lost because its standing was worse: it is still sending then
        silent = state.reception.last_arrival_ns[rows] <= now_ns - SILENT_NS
        moving = now_ns < state.moving_until_ns[rows]
        rightful = np.where(former != 0, former, present)
        who = zip(rows.tolist(), sources.tolist(), strict=True)
        announced = moving & ~np.array([self._challengers.is_intruder(*one) for one in who], np.bool_)
        rightful[(sources == former) | announced | ~silent] = 0
        for i in np.flatnonzero(moved & ~silent & ~moving).tolist():
            self._challengers.shut_out(int(rows[i]), int(present[i]), now_ns)
        state.former_source[rows[moved]] = rightful[moved]
        state.moving_until_ns[rows[moved]] = 0

    def _take_over(
        self, rows: I64, sources: U64, ssrc: npt.NDArray[np.uint32], held: Held, lowest: npt.NDArray[np.uint16]
    ) -> None:
        """New sources begin at the sequence numbers ``lowest`` in rows (distinct); packet i held is of row
        ``held.owner[i]``."""
        state = self._state
        jump = (lowest.astype(np.int64) - state.ring.edge[rows]) & 0xFFFF
        same = ssrc == state.ssrc[rows]
        # what goes on only is placed as before: nothing of the old source need be placed first
        self._drain(rows, send=not bool((same & (jump < MAX_DROPOUT)).all()))
        moved = np.flatnonzero(state.source[rows] != sources)
        state.source[rows] = sources
        for i in moved.tolist():
            self._note_move(int(rows[i]), held.columns[held.owner.searchsorted(i)])
        edge = state.ring.next[rows]
        jump = (lowest.astype(np.int64) - edge) & 0xFFFF
        goes_on = same & (jump < MAX_DROPOUT)  # RFC 3550 A.1: in order, with a permissible gap
        state.ring.restart(rows[goes_on], (edge + jump)[goes_on])
        anew = np.flatnonzero(~goes_on)
        if anew.size:
            self._drain(rows[anew])
            first_ext = _FIRST_EXT + lowest[anew].astype(np.int64)
            first = held.columns[held.owner.searchsorted(anew)]
            state.ring.restart(rows[anew], first_ext)
            state.reception.new_source(rows[anew], first_ext, first["arrival_ns"], first["timestamp"])
            state.timeline.new_source(rows[anew], first_ext)
            state.restarts[rows[anew]] += 1
            other = anew[~same[anew]]
            state.ssrc[rows[other]] = ssrc[other]
            state.sources[rows[other]] += 1
            for row, one in zip(rows[other].tolist(), ssrc[other].tolist(), strict=True):
                info = state.registry.info[row]
                if info is not None and one not in info.ssrcs and len(info.ssrcs) < _SSRCS_KEPT:
                    info.ssrcs.append(one)
        hi, lo, tag = state.table.keys(rows)
        self._insert_held(Packets.of_held(held, hi, lo, tag), rows[held.owner])

    def _note_move(self, row: int, first: np.void) -> None:
        info = self._state.registry.info[row]
        if info is not None and len(info.notes) < _NOTES_KEPT:
            address = format_address(int(first["source_hi"]), int(first["source_lo"]))
            self._tell(Notice.noted(info, f"goes on from another address: {address}:{int(first['source_port'])}"))


def _first_of_each(hi: U64, lo: U64, tag: U64) -> I64:
    """Of the sources of one stream the first."""
    seen: dict[Key, int] = {}
    keys = zip(hi.tolist(), lo.tolist(), stream_tag(tag).tolist(), strict=True)
    for i, key in enumerate(keys):
        seen.setdefault(key, i)
    return np.array(list(seen.values()), np.int64)
