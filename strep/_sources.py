"""Sources come, change and are refused: probation, admission, SSRC changes, sequence restarts. Floor 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from ._accounts import Accounts
from ._announcements import Announcements, Keys
from ._packets import KIND_SHARED, Packets
from ._state import StreamState
from ._streams.probation import Held, Probation, Proofs
from ._streams.ring import NEVER, WINDOW
from ._types import Direction, StreamInfo

__all__ = ["Sources"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

SECOND_NS: Final = 1_000_000_000
_ADMISSIONS: Final = 256  # new streams, and as many source changes, a tick: a flood of pairs costs a bounded time
_MAX_DROPOUT: Final = 3000  # RFC 3550 A.1: a jump forward below this is loss, beyond it a restart
_FIRST_EXT: Final = 1 << 20  # a source begins this far up, so that what is behind it stays positive
_NEAR: Final = 32  # packets before the proving pair that belong to it
_SSRCS_KEPT: Final = 64
_TICKS_A_BYTE: Final = {"PCMU": 1, "PCMA": 1, "G722": 1, "G729": 8}  # RTP clock
_SRTP_TAGS: Final = (4, 10, 16)  # HMAC-SHA1-32, -80 (RFC 3711), AEAD (RFC 7714)
_SHARED_SILENCE_NS: Final = 500_000_000
_BACKLOG: Final = 40  # held packets of a stream that go in at once; with more, so many at a time:
_BACKLOG_STEP: Final = 16


class Sources:
    """Decides which packets belong to which stream's present source.

    ``insert(packets, rows)`` takes packets that were held back; ``drain(rows)`` sends off all that streams still hold,
    ``make_way(rows, give_up)`` what is ready of it, first giving up the hole in front if need be.
    """

    def __init__(
        self,
        state: StreamState,
        accounts: Accounts,
        insert: Callable[[Packets, I64], None],
        drain: Callable[[I64], None],
        make_way: Callable[[I64, bool], None],
        started: Callable[[StreamInfo], None],
    ) -> None:
        self._announcements = state.registry.announcements
        self._make_way = make_way
        self._state = state
        self._accounts = accounts
        self._insert = insert
        self._drain = drain
        self._started = started
        self._probation = Probation()
        self._admitted = 0  # in this tick
        self._changes: dict[tuple[int, int, int], tuple[int, int]] = {}

    @property
    def waiting(self) -> bool:
        """Something is to be decided at the next boundary."""
        return bool(self._changes)

    @property
    def held(self) -> int:
        """Packets on probation."""
        return self._probation.held

    def settle_accounts(self) -> None:
        """Reject in the accounts what probation gave up since the last call."""
        expired, self._probation.expired = self._probation.expired, 0
        self._accounts.reject("probation", expired)

    def close(self) -> None:
        if self._announcements is not None and (keys := self._announcements.overdue(NEVER)) is not None:
            self._turn_away(keys)
        self._probation.clear()
        self.settle_accounts()

    def boundary(self, now_ns: int) -> None:
        self._admitted = 0
        if self._announcements is not None and (keys := self._announcements.overdue(now_ns)) is not None:
            self._turn_away(keys)
        if self._changes:
            self._change_sources()

    # --- new packets ----------------------------------------------------------------------------------------------

    def offer(self, packets: Packets) -> None:
        """Packets that no present source accounts for: of unknown streams, other SSRCs, or far out of sequence."""
        tag = (packets.tag & np.uint64(0xFFFF_FFFF)) | (packets.ssrc.astype(np.uint64) << np.uint64(32))
        fits = packets.length <= self._state.ring.largest_payload
        if not fits.all():
            self._accounts.drop("oversize", int(np.count_nonzero(~fits)))
            packets, tag = packets.take(fits), tag[fits]
            if not len(packets):
                return
        columns = packets.held_columns()
        offset = packets.offset.astype(np.int64)
        for proofs in self._probation.offer(packets.hi, packets.lo, tag, columns, packets.slab, packets.rows(), offset):
            known = self._state.table.find(proofs.hi, proofs.lo, _stream_tag(proofs.tag)) >= 0
            if known.any():
                self._note_changes(proofs.take(np.flatnonzero(known)))
            # beyond the limit they stay where they are, and prove themselves again with their next packet
            new = np.flatnonzero(~known)
            if new.size and self._announcements is not None:
                new = self._announced(self._announcements, proofs, new)
            new = new[: _ADMISSIONS - self._admitted]
            if new.size:
                self._admitted += new.size
                self._admit(proofs.take(new))

    def _note_changes(self, proofs: Proofs) -> None:
        for i in range(len(proofs)):
            key = (int(proofs.hi[i]), int(proofs.lo[i]), int(proofs.tag[i]))
            if key in self._changes or len(self._changes) < _ADMISSIONS:
                self._changes[key] = int(proofs.last_sequence_number[i]), int(proofs.last_arrival_ns[i])

    # --- admission ------------------------------------------------------------------------------------------------

    def _admit(self, proofs: Proofs) -> None:
        """Streams for sources that have proved themselves, as far as there is room and they are permitted."""
        registry = self._state.registry
        first = _first_of_each(proofs.hi, proofs.lo, proofs.tag)
        if len(first) < len(proofs):
            proofs = proofs.take(first)  # a stream's other sources prove themselves again, as those that change it
        refused = max(0, len(proofs) - registry.room)
        if refused:
            # their packets stay on probation and end there
            self._accounts.streams_refused += refused
            proofs = proofs.take(slice(0, len(proofs) - refused))
            if not len(proofs):
                return
        self._admit_held(proofs, self._probation.release(proofs.hi, proofs.lo, proofs.tag))

    def _admit_held(self, proofs: Proofs, held: Held) -> None:
        registry = self._state.registry
        stream_tag = _stream_tag(proofs.tag)
        keys = list(zip(proofs.hi.tolist(), proofs.lo.tolist(), stream_tag.tolist(), strict=True))
        at_ns = proofs.last_arrival_ns.tolist()
        objections = [registry.objection(*key, at) for key, at in zip(keys, at_ns, strict=True)]
        if any(objections):
            for cause in {cause for cause in objections if cause is not None}:
                those = np.array([one == cause for one in objections])
                self._accounts.reject(cause, int(np.count_nonzero(those[held.owner])))
                self._accounts.streams_refused += int(np.count_nonzero(those))
            held = _only(held, np.array([one is None for one in objections])[held.owner])
            if not len(held.columns):
                return

        begins = _Beginnings(held, proofs, self._state)
        admitted = np.zeros(len(proofs), np.bool_)
        rows = np.zeros(len(proofs), np.int64)
        ssrc = (proofs.tag >> np.uint64(32)).astype(np.uint32)
        for n, i in enumerate(begins.owner.tolist()):
            hi, lo, tag = keys[i]
            first = begins.first[n]
            direction = None
            if (tag >> 2) & 3 == KIND_SHARED:
                direction = self._direction_of_shared(lo, int(first["arrival_ns"]))
                if direction is None:
                    one = _only(held, held.owner == i)
                    self._take_over_shared(keys[i], int(begins.first_ext[n]), one)
                    continue
            info = registry.admit(
                hi,
                lo,
                tag,
                direction=direction,
                ssrc=int(ssrc[i]),
                source=(int(first["source_hi"]), int(first["source_lo"]), int(first["source_port"])),
                local_port=int(first["local_port"]),
                payload_type=int(first["payload_type"]),
                first_arrival_ns=int(first["arrival_ns"]),
                origin_ns=int(begins.origin_ns[n]),
            )
            rows[i] = info.index
            admitted[i] = True
            info.encrypted = bool(begins.encrypted[n])
            if direction is not None:
                # the second direction of a shared port looks at the first
                self._open(rows[i : i + 1], proofs, stream_tag, ssrc, begins, np.array([n]))
            self._started(info)
        plain = np.flatnonzero(
            admitted[begins.owner] & ((stream_tag[begins.owner] >> np.uint64(2)) & np.uint64(3) != KIND_SHARED)
        )
        if plain.size:
            self._open(rows[begins.owner[plain]], proofs, stream_tag, ssrc, begins, plain)
        held = _only(held, admitted[held.owner])
        if len(held.columns):
            self._insert_held(Packets.of_held(held, proofs.hi, proofs.lo, stream_tag), rows[held.owner])

    def _insert_held(self, packets: Packets, rows: I64) -> None:
        """Packets that were held back, each stream's together. What waited long is more than the window: a part of it
        at a time."""
        start = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
        length = np.diff(np.r_[start, len(rows)])
        if int(length.max()) <= _BACKLOG:
            self._insert(packets, rows)
            return
        rank = np.arange(len(rows)) - np.repeat(start, length)
        for low in range(0, int(length.max()), _BACKLOG_STEP):
            part = np.flatnonzero((rank >= low) & (rank < low + _BACKLOG_STEP))
            mine, row = packets.take(part), rows[part]
            far = self._make_room(mine, row)
            if far.any():
                self._insert(mine.take(~far), row[~far])
                self._skip_ahead(mine.take(far), row[far])
                mine, row = mine.take(far), row[far]
            self._insert(mine, row)
            self._make_way(np.unique(row), False)

    def _make_room(self, packets: Packets, rows: I64) -> npt.NDArray[np.bool_]:
        """Give up the holes that stand in the way of these packets, the oldest first; tells which packets are beyond
        the window all the same."""
        ring = self._state.ring
        while True:
            ahead = (packets.sequence_number - ring.edge[rows].astype(np.uint16)).view(np.int16)
            far: npt.NDArray[np.bool_] = ahead >= WINDOW
            holed = np.unique(rows[far & (ring.present[rows] != 0)])
            if not holed.size:
                return far
            self._make_way(holed, True)

    def _skip_ahead(self, packets: Packets, rows: I64) -> None:
        """A loss that is longer than the window, as :meth:`_take_over` has it: two packets in sequence say so."""
        ring = self._state.ring
        for row in np.unique(rows).tolist():
            self._make_way(np.array([row]), False)
            while ring.present[row]:
                self._make_way(np.array([row]), True)
            sequence = packets.sequence_number[rows == row]
            pair = np.flatnonzero(sequence[1:] == sequence[:-1] + np.uint16(1))
            if pair.size:
                jump = (int(sequence[pair[0]]) - int(ring.next[row])) & 0xFFFF
                if jump < _MAX_DROPOUT:
                    ring.restart(np.array([row]), ring.next[[row]] + jump)

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
        new = np.flatnonzero(self._state.table.find(keys[0], keys[1], _stream_tag(keys[2])) < 0)
        new = new[_first_of_each(*(words[new] for words in keys))]
        hi, lo, tag = (words[new] for words in keys)
        proofs, held = self._proofs_of((hi, lo, tag), self._probation.release(hi, lo, tag))
        if len(proofs):
            self._admit_held(proofs, held)

    def _proofs_of(self, keys: Keys, held: Held) -> tuple[Proofs, Held]:
        """What proved these sources, from what was held of them; a flood may have pushed it out."""
        pairs = _first_pairs(held, len(keys[0]))
        proved = pairs >= 0
        if not proved.all():
            self._accounts.reject("probation", int(np.count_nonzero(~proved[held.owner])))
            held = _only(held, proved[held.owner])
            held.owner = (np.cumsum(proved) - 1)[held.owner]
            pairs = _first_pairs(held, int(np.count_nonzero(proved)))
        one, two = held.columns[pairs - 1], held.columns[pairs]
        hi, lo, tag = (words[proved] for words in keys)
        sequence_number = one["sequence_number"]
        return Proofs(hi, lo, tag, sequence_number, two["packet"], sequence_number, one["arrival_ns"]), held

    def _open(
        self,
        rows: I64,
        proofs: Proofs,
        stream_tag: U64,
        ssrc: npt.NDArray[np.uint32],
        begins: _Beginnings,
        which: I64,
    ) -> None:
        owner = begins.owner[which]
        first = begins.first[which]
        self._state.open(
            rows,
            proofs.hi[owner],
            proofs.lo[owner],
            stream_tag[owner],
            ssrc[owner],
            begins.first_ext[which],
            first["arrival_ns"],
            first["timestamp"],
            begins.longest[which],
        )
        for row in rows[begins.encrypted[which]].tolist():
            self._state.mark_encrypted(row)

    # --- changes of a stream's source -----------------------------------------------------------------------------

    def _change_sources(self) -> None:
        """At a boundary: sources that proved themselves while their stream's present source was silent take over."""
        changes, self._changes = self._changes, {}
        hi, lo, tag = (np.array(words, np.uint64) for words in zip(*changes, strict=True))
        sequence_number, pair_arrival_ns = np.array(list(changes.values()), np.int64).T
        rows = self._state.table.find(hi, lo, _stream_tag(tag))
        waiting = np.flatnonzero(rows >= 0)
        last = self._state.reception.last_arrival_ns
        if len(set(rows.tolist())) == len(rows) == len(waiting):
            # one new source a stream: the usual case
            order = rows.argsort()
            now = order[last[rows[order]] <= pair_arrival_ns[order]]
            if now.size:
                self._change_all(rows[now], hi[now], lo[now], tag[now], sequence_number[now])
            return
        while waiting.size:
            # while the old source sends, the new one stays on probation
            silent = last[rows[waiting]] <= pair_arrival_ns[waiting]
            waiting = waiting[silent]
            # of several new sources of a stream one after the other
            now = waiting[np.unique(rows[waiting], return_index=True)[1]]
            if now.size:
                self._change_all(rows[now], hi[now], lo[now], tag[now], sequence_number[now])
            waiting = np.setdiff1d(waiting, now)

    def _change_all(self, rows: I64, hi: U64, lo: U64, tag: U64, sequence_number: I64) -> None:
        """The sources with these keys take over these rows (distinct); a packet of each proving pair is given."""
        held = self._probation.release(hi, lo, tag)
        expected = sequence_number[held.owner].astype(np.uint16)
        ahead = (held.columns["sequence_number"] - expected).view(np.int16).astype(np.int64)
        near = (ahead >= -_NEAR) & (ahead <= 1)
        lowest = np.full(len(rows), _NEAR)
        np.minimum.at(lowest, held.owner[near], ahead[near])
        sound = lowest < _NEAR
        if not sound.all():
            lost = ~sound[held.owner]
            self._accounts.reject("probation", int(np.count_nonzero(lost)))
            held = _only(held, ~lost)
            held.owner = (np.cumsum(sound) - 1)[held.owner]
            rows, hi, lo, tag = rows[sound], hi[sound], lo[sound], tag[sound]
            sequence_number, lowest = sequence_number[sound], lowest[sound]
        if rows.size:
            self._take_over(rows, hi, lo, tag, sequence_number + lowest, held)

    def _take_over(self, rows: I64, hi: U64, lo: U64, tag: U64, sequence_number: I64, held: Held) -> None:
        """New sources begin at ``sequence_number`` in rows (distinct); packet i held is of row ``held.owner[i]``."""
        state = self._state
        self._drain(rows)
        ssrc = (tag >> np.uint64(32)).astype(np.uint32)
        edge = state.ring.next[rows]
        jump = (sequence_number - edge) & 0xFFFF
        same = ssrc == state.ssrc[rows]
        goes_on = same & (jump < _MAX_DROPOUT)  # RFC 3550 A.1: in order, with a permissible gap
        state.ring.restart(rows[goes_on], (edge + jump)[goes_on])
        anew = np.flatnonzero(~goes_on)
        if anew.size:
            first_ext = _FIRST_EXT + (sequence_number[anew] & 0xFFFF)
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
        self._insert_held(Packets.of_held(held, hi, lo, tag), rows[held.owner])

    # --- rx and tx on one port ------------------------------------------------------------------------------------

    def _direction_of_shared(self, pair: int, since_ns: int) -> Direction | None:
        """The first source is taken for inbound, the second for outbound. None: the new source takes the place of one
        that has fallen silent, because both are there or there is only one, silent since a while."""
        last = self._state.reception.last_arrival_ns
        streams = self._shared_streams(pair)
        taken = {info.direction for info in streams}
        if len(streams) == 1 and since_ns - int(last[streams[0].index]) > _SHARED_SILENCE_NS:
            return None
        return next((direction for direction in Direction if direction not in taken), None)

    def _shared_streams(self, pair: int) -> list[StreamInfo]:
        found = []
        for info in self._state.registry.live():
            hi, lo, tag = self._state.table.key(info.index)
            if hi == 0 and lo == pair and (tag >> 2) & 3 == KIND_SHARED:
                found.append(info)
        return found

    def _take_over_shared(self, key: tuple[int, int, int], first_ext: int, held: Held) -> None:
        state = self._state
        last = state.reception.last_arrival_ns
        row = min((info.index for info in self._shared_streams(key[1])), key=lambda r: int(last[r]))
        state.table.remove(np.array([row]))
        hi, lo, tag = (np.full(1, word, np.uint64) for word in key)
        state.table.add(np.array([row]), hi, lo, tag)
        held.owner = np.zeros(len(held.columns), np.int64)
        self._take_over(np.array([row]), hi, lo, tag, np.array([first_ext]), held)


class _Beginnings:
    """Where the streams of held packets begin. Per owner that holds packets, in ascending order of owners."""

    def __init__(self, held: Held, proofs: Proofs, state: StreamState) -> None:
        columns, owner = held.columns, held.owner
        start = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
        self.owner = owner[start]
        ahead = (columns["sequence_number"] - proofs.sequence_number[owner]).view(np.int16).astype(np.int64)
        near = (columns["packet"] <= proofs.packet[owner]) & (ahead >= -_NEAR) & (ahead <= 1)
        lowest = np.minimum.reduceat(np.where(near, ahead, _NEAR), start)
        self.first_ext = _FIRST_EXT + proofs.sequence_number[self.owner].astype(np.int64) + lowest
        at = np.minimum.reduceat(np.where(near, np.arange(len(owner)), len(owner)), start)
        self.first = columns[at]  # in order of arrival
        self.longest = np.maximum.reduceat(columns["length"], start)
        # When sample 0 arrived, or would have without network delay: the minimum over the packets at hand. 0 where no
        # packet is of a known codec: then it is known with the first audio.
        codec = state.codec_of_type[columns["payload_type"]]
        clocks = np.array([c.clock_rate for c in state.types.codecs] + [1], np.int64)
        lowest_of = np.repeat(lowest, np.diff(np.append(start, len(owner))))
        zero = near & (ahead == lowest_of)
        zero_at = np.minimum.reduceat(np.where(zero, np.arange(len(owner)), len(owner)), start)
        zero_timestamp = np.repeat(columns["timestamp"][zero_at], np.diff(np.append(start, len(owner))))
        since = (columns["timestamp"] - zero_timestamp).view(np.int32).astype(np.int64) * SECOND_NS // clocks[codec]
        usable = near & (codec >= 0)
        never = np.iinfo(np.int64).max
        origin = np.minimum.reduceat(np.where(usable, columns["arrival_ns"] - since, never), start)
        self.origin_ns = np.where(origin == never, 0, origin)
        self.encrypted = self._look_encrypted(columns, owner, codec, near, start, state)

    @staticmethod
    def _look_encrypted(
        columns: npt.NDArray[np.void],
        owner: I64,
        codec: npt.NDArray[np.int16],
        near: npt.NDArray[np.bool_],
        start: I64,
        state: StreamState,
    ) -> npt.NDArray[np.bool_]:
        """Whether all pairs in sequence have payloads as much longer than their timestamps say as SRTP makes them: 164
        or 170 bytes of G.711 where 160 are due."""
        hits = np.zeros(len(owner), np.int64)
        pairs = np.zeros(len(owner), np.int64)
        if len(owner) > 1:
            a, b = columns[:-1], columns[1:]
            step = (b["timestamp"] - a["timestamp"]).view(np.int32).astype(np.int64)
            ticks = np.array([_TICKS_A_BYTE.get(c.name, 0) for c in state.types.codecs] + [0, 0], np.int64).take(
                codec[:-1]
            )
            pair = (owner[:-1] == owner[1:]) & near[:-1] & near[1:] & (ticks > 0) & (step > 0)
            pair &= (b["sequence_number"] - a["sequence_number"]) == 1
            pair &= a["payload_type"] == b["payload_type"]
            extra = a["length"] - step // np.maximum(ticks, 1)
            pairs[:-1] = pair
            hits[:-1] = pair & np.isin(extra, _SRTP_TAGS) & (a["length"] == b["length"])
        pairs, hits = np.add.reduceat(pairs, start), np.add.reduceat(hits, start)
        encrypted: npt.NDArray[np.bool_] = (hits > 0) & (hits == pairs)
        return encrypted


def _only(held: Held, rows: npt.NDArray[np.bool_]) -> Held:
    return held if rows.all() else Held(held.columns[rows], held.owner[rows], held.slab[rows])


def _first_of_each(hi: U64, lo: U64, tag: U64) -> I64:
    """Of the sources of one stream the first."""
    seen: dict[tuple[int, int, int], int] = {}
    keys = zip(hi.tolist(), lo.tolist(), _stream_tag(tag).tolist(), strict=True)
    for i, key in enumerate(keys):
        seen.setdefault(key, i)
    return np.array(list(seen.values()), np.int64)


def _first_pairs(held: Held, owners: int) -> I64:
    """Of each owner the place of the first packet that follows the one before it in sequence; -1 if there is none."""
    found = np.full(owners, -1, np.int64)
    sequence, owner = held.columns["sequence_number"], held.owner
    pair = np.flatnonzero((owner[1:] == owner[:-1]) & (sequence[1:] == sequence[:-1] + np.uint16(1))) + 1
    found[owner[pair[::-1]]] = pair[::-1]
    return found


def _stream_tag(tag: U64) -> U64:
    """The stream's tag from a source's: only plain RTP told apart by SSRC has the SSRC in it."""
    by_ssrc = (tag >> np.uint64(2)) & np.uint64(1)
    return np.where(by_ssrc == 1, tag, tag & np.uint64(0xFFFF_FFFF))
