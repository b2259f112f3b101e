"""Sources that have not proved themselves: RFC 3550 A.1 with MIN_SEQUENTIAL = 2, for a whole batch at once.

A packet of an unknown key, of another SSRC than its stream's, or far outside its stream's window comes here and is
kept. When two packets in sequence have come, all that were kept are given back: a real source loses nothing.
A flood of invented ids only turns a pair of bounded arenas over: no stream, no file, no growing table.

Candidates are kept in two generations. New ones enter the current generation; when it is full it becomes the previous
one, and what the previous one still held is rejected. So a candidate lives for at least one full generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .key_table import KeyTable

__all__ = ["HELD_COLUMNS", "HeldPackets", "Probation", "Proofs"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

_PACKETS: Final = 32_768  # a generation
_MANY_CHAINS: Final = 8  # from which on packets of all sources are looked up side by side
_FEW: Final = 32  # packets, of which sources are told apart one by one
_ARENA: Final = 12 << 20  # payload bytes a generation; touched as used

HELD_COLUMNS: Final = np.dtype(
    [
        ("packet", np.int64),  # serial number of the packet here
        ("at", np.int64),
        ("length", np.int64),
        ("arrival_ns", np.int64),
        ("source_hi", np.uint64),
        ("source_lo", np.uint64),
        ("source", np.uint64),  # the address's word, as streams are pinned
        ("timestamp", np.uint32),
        ("ssrc", np.uint32),
        ("sequence_number", np.uint16),
        ("source_port", np.uint16),
        ("local_port", np.uint16),
        ("payload_type", np.uint8),
        ("foreign", np.bool_),  # its stream belonged to another address when it came
    ]
)


@dataclass(slots=True)
class HeldPackets:
    """Packets given back: structured columns, and their payloads as slab rows."""

    columns: npt.NDArray[np.void]
    owner: I64  # which of the keys asked for
    slab: U8


@dataclass(slots=True)
class Proofs:
    """Sources of which two packets in sequence have come, in the order in which they proved themselves.

    Columns, shape (k,): the key ``hi, lo, tag``; ``source`` and ``last_sequence_number``, ``last_arrival_ns`` of the
    last pair of this offer (of its first packet).
    """

    hi: U64
    lo: U64
    tag: U64
    source: U64
    last_sequence_number: npt.NDArray[np.uint16]
    last_arrival_ns: I64

    def __len__(self) -> int:
        return len(self.hi)

    def take(self, rows: I64 | slice) -> Proofs:
        return Proofs(*(getattr(self, name)[rows] for name in self.__slots__))


class _Generation:
    def __init__(self, seed: int | None) -> None:
        self.table = KeyTable(_PACKETS, seed)
        self.candidates = 0
        self.packets = 0
        self.bytes = 0
        self.last_sequence = np.zeros(_PACKETS, np.uint16)
        self.last_arrival_ns = np.zeros(_PACKETS, np.int64)
        self.holding = np.zeros(_PACKETS, np.bool_)  # the candidate's last packet may begin a pair
        self.last_packet = np.zeros(_PACKETS, np.int64)  # row in `columns`, -1 if none
        self.columns = np.zeros(_PACKETS, HELD_COLUMNS)
        self.prior = np.zeros(_PACKETS, np.int64)  # a packet's predecessor of the same source here, -1 if none
        self.arena = np.empty(_ARENA, np.uint8)
        self.kept = 0  # packets not yet given back
        self.foreign = 0  # of them, those of foreign sources

    def _chains(self, candidates: I64) -> tuple[I64, I64]:
        """All packets of these candidates (-1: nobody), and whose of them each is."""
        owner = np.flatnonzero(candidates >= 0)
        packet = self.last_packet[candidates[owner]]
        packets, owners = [], []
        while packet.size > _MANY_CHAINS:
            there = packet >= 0
            packet, owner = packet[there], owner[there]
            packets.append(packet)
            owners.append(owner)
            packet = self.prior[packet]
        rest: list[int] = []
        whose: list[int] = []
        for i, one in zip(owner.tolist(), packet.tolist(), strict=True):
            while one >= 0:
                rest.append(one)
                whose.append(i)
                one = int(self.prior[one])  # along the chain
        packets.append(np.array(rest, np.int64))
        owners.append(np.array(whose, np.int64))
        return np.concatenate(packets), np.concatenate(owners)

    def _gone(self, packets: I64) -> int:
        """Packets are kept here no more; returns how many of them were foreign."""
        foreign = int(np.count_nonzero(self.columns["foreign"][packets]))
        self.kept -= len(packets)
        self.foreign -= foreign
        return foreign

    def trim(self, candidates: I64, before_ns: I64) -> tuple[int, int]:
        """Forget what came of candidates (-1: nobody) before their times; (packets, of them foreign)."""
        removed: list[int] = []
        arrival_ns = self.columns["arrival_ns"]
        for candidate, before in zip(candidates.tolist(), before_ns.tolist(), strict=True):
            if candidate < 0:
                continue
            later, packet = -1, int(self.last_packet[candidate])
            while packet >= 0 and arrival_ns[packet] >= before:
                later, packet = packet, int(self.prior[packet])
            if packet < 0:
                continue
            if later >= 0:
                self.prior[later] = -1
            else:
                self.last_packet[candidate] = -1
                self.holding[candidate] = False
            while packet >= 0:
                removed.append(packet)
                packet = int(self.prior[packet])
        return len(removed), self._gone(np.array(removed, np.int64))

    def take(self, candidates: I64) -> HeldPackets:
        """Give back what these candidates (-1: nobody) have here; ``owner`` counts in ``candidates``."""
        mine, owner = self._chains(candidates)
        known = candidates[candidates >= 0]
        self.holding[known] = False
        self.last_packet[known] = -1
        self._gone(mine)
        columns = self.columns[mine]
        width = max(64, int(columns["length"].max(initial=0)))
        # rows of one width: what stands behind a payload is never read
        at = np.minimum(columns["at"], _ARENA - width)
        shift = columns["at"] - at  # only for payloads at the arena's very end
        items = np.ndarray((_ARENA - width + 1,), np.dtype((np.void, width)), self.arena, 0, (1,))
        slab = items[at].view(np.uint8).reshape(len(at), width)
        for i in np.flatnonzero(shift).tolist():
            slab[i] = np.roll(slab[i], -int(shift[i]))
        return HeldPackets(columns, owner, slab)

    def clear(self) -> tuple[int, int]:
        """Forget everything; (packets, those of them that were foreign)."""
        kept, foreign = self.kept, self.foreign
        self.table.clear()
        self.holding[: self.candidates] = False
        self.candidates = self.packets = self.bytes = self.kept = self.foreign = 0
        return kept, foreign


class Probation:
    def __init__(self, seed: int | None = None) -> None:
        self._generations = [_Generation(seed), _Generation(seed)]
        self._current = 0
        self._serial = 0
        self.expired = 0  # packets rejected because their source never proved itself
        self.expired_foreign = 0  # packets rejected because their stream belonged to another address

    @property
    def held(self) -> int:
        """Packets waiting."""
        return self._generations[0].kept + self._generations[1].kept

    def clear(self) -> None:
        """Reject everything that waits."""
        for generation in self._generations:
            self._expire(generation.clear())

    def _expire(self, packets: tuple[int, int]) -> None:
        """Count packets, some of them foreign, as rejected."""
        self.expired += packets[0] - packets[1]
        self.expired_foreign += packets[1]

    def trim(self, hi: U64, lo: U64, tag: U64, before_ns: I64) -> None:
        """Reject what came of sources before these times (one each)."""
        for generation in self._generations:
            if generation.kept:
                self._expire(generation.trim(generation.table.find(hi, lo, tag), before_ns))

    def offer(
        self,
        hi: U64,
        lo: U64,
        tag: U64,
        columns: npt.NDArray[np.void],
        slab: U8,
        slab_rows: I64,
        payload_offset: I64,
    ) -> list[Proofs]:
        """Keep packets (in order of arrival) and tell which sources have proved themselves.

        ``columns`` is of HELD_COLUMNS with ``packet`` and ``at`` left open. All packets are kept; the caller
        takes those of a proven source with :meth:`release`, or leaves them here to expire.
        """
        proofs: list[Proofs] = []
        done = 0
        while done < len(columns):
            generation = self._generations[self._current]
            room = _PACKETS - generation.packets
            ends = np.cumsum(columns["length"][done : done + room])
            count = min(room, int(np.searchsorted(ends, _ARENA - generation.bytes, "right")))
            if count <= 0:
                self._current ^= 1
                self._expire(self._generations[self._current].clear())
                continue
            part = slice(done, done + count)
            proved = self._keep(
                hi[part], lo[part], tag[part], columns[part], slab, slab_rows[part], payload_offset[part]
            )
            if proved is not None:
                proofs.append(proved)
            done += count
        return proofs

    def _keep(
        self,
        hi: U64,
        lo: U64,
        tag: U64,
        columns: npt.NDArray[np.void],
        slab: U8,
        slab_rows: I64,
        payload_offset: I64,
    ) -> Proofs | None:
        current = self._generations[self._current]
        candidate = current.table.find(hi, lo, tag)
        unknown = np.flatnonzero(candidate < 0)
        if unknown.size:
            self._adopt(current, hi, lo, tag, unknown, candidate)

        first = current.packets
        length = columns["length"]
        at = current.bytes + np.cumsum(length) - length
        kept = current.columns[first : first + len(columns)]
        kept[:] = columns
        kept["packet"] = self._serial + np.arange(len(columns))
        kept["at"] = at
        self._serial += len(columns)
        _pack(current.arena, at, slab, slab_rows, payload_offset, length)
        current.packets += len(columns)
        current.bytes += int(length.sum())
        current.kept += len(columns)
        current.foreign += int(np.count_nonzero(columns["foreign"]))

        # each packet against the one before it of the same source
        order = np.argsort(candidate, kind="stable")
        who, sequence = candidate[order], columns["sequence_number"][order]
        arrival = columns["arrival_ns"][order]
        start = np.append(True, who[1:] != who[:-1]).nonzero()[0]
        sources = who[start]
        prior, prior_arrival = np.empty_like(sequence), np.empty_like(arrival)
        holding, chain = np.ones(len(who), np.bool_), np.empty_like(order)
        prior[1:], prior_arrival[1:], chain[1:] = sequence[:-1], arrival[:-1], first + order[:-1]
        prior[start] = current.last_sequence[sources]
        prior_arrival[start] = current.last_arrival_ns[sources]
        holding[start] = current.holding[sources]
        chain[start] = current.last_packet[sources]
        current.prior[first + order] = chain
        last = np.append(start[1:], len(who)) - 1
        current.last_sequence[sources] = sequence[last]
        current.last_arrival_ns[sources] = arrival[last]
        current.last_packet[sources] = first + order[last]
        current.holding[sources] = True

        pair = (holding & (sequence == prior + np.uint16(1))).nonzero()[0]
        if not pair.size:
            return None
        proven = who[pair]
        opening = np.append(True, proven[1:] != proven[:-1]).nonzero()[0]
        closing = pair[np.append(opening[1:], len(pair)) - 1]
        opening = pair[opening]
        in_order = np.argsort(order[opening], kind="stable")
        opening, closing = opening[in_order], closing[in_order]
        which = order[opening]
        return Proofs(
            hi[which],
            lo[which],
            tag[which],
            kept["source"][which],
            prior[closing],
            prior_arrival[closing],
        )

    def _adopt(self, current: _Generation, hi: U64, lo: U64, tag: U64, unknown: I64, candidate: I64) -> None:
        """Give candidates to keys the current generation does not know; those of the previous one move over."""
        index, rank = _distinct(hi[unknown], lo[unknown], tag[unknown])
        new = current.candidates + np.arange(index.size)
        candidate[unknown] = new[rank]
        chosen = unknown[index]
        current.table.add(new, hi[chosen], lo[chosen], tag[chosen])
        current.candidates += index.size
        current.holding[new] = False
        current.last_packet[new] = -1
        previous = self._generations[self._current ^ 1]
        if not previous.candidates:
            return
        old = previous.table.find(hi[chosen], lo[chosen], tag[chosen])
        moving = np.flatnonzero(old >= 0)
        if moving.size:
            was, now = old[moving], new[moving]
            current.last_sequence[now] = previous.last_sequence[was]
            current.last_arrival_ns[now] = previous.last_arrival_ns[was]
            current.holding[now] = previous.holding[was]
            previous.holding[was] = False

    def newest(self, hi: U64, lo: U64, tag: U64) -> npt.NDArray[np.void]:
        """The last packet that is kept of each of these keys: of HELD_COLUMNS, zeros where nothing is."""
        found = np.zeros(len(hi), HELD_COLUMNS)
        for generation in (self._generations[self._current ^ 1], self._generations[self._current]):
            candidate = generation.table.find(hi, lo, tag)
            there = np.flatnonzero(candidate >= 0)
            packet = generation.last_packet[candidate[there]]
            there, packet = there[packet >= 0], packet[packet >= 0]
            found[there] = generation.columns[packet]
        return found

    def release(self, hi: U64, lo: U64, tag: U64) -> HeldPackets:
        """Everything kept for these keys, key by key, each in order of arrival; they are forgotten here."""
        previous, current = self._generations[self._current ^ 1], self._generations[self._current]
        parts = [
            generation.take(generation.table.find(hi, lo, tag)) for generation in (previous, current) if generation.kept
        ]
        if not parts:
            parts.append(current.take(np.zeros(0, np.int64)))
        if len(parts) == 1:
            # packets of a source stand last first
            columns, owner, slab = parts[0].columns, parts[0].owner, parts[0].slab
            order = np.lexsort((columns["packet"], owner))
            return HeldPackets(columns[order], owner[order], slab[order])
        columns = np.concatenate([p.columns for p in parts])
        owner = np.concatenate([p.owner for p in parts])
        slab = np.zeros((len(columns), max(p.slab.shape[1] for p in parts)), np.uint8)
        first = len(parts[0].columns)
        slab[:first, : parts[0].slab.shape[1]] = parts[0].slab
        slab[first:, : parts[1].slab.shape[1]] = parts[1].slab
        order = np.lexsort((columns["packet"], owner))
        return HeldPackets(columns[order], owner[order], slab[order])


def _distinct(hi: U64, lo: U64, tag: U64) -> tuple[I64, I64]:
    """Of keys the first of each, in order, and which of these each one is."""
    if len(hi) <= _FEW:
        known: dict[tuple[int, int, int], int] = {}
        keys = zip(hi.tolist(), lo.tolist(), tag.tolist(), strict=True)
        rank = np.array([known.setdefault(key, len(known)) for key in keys], np.int64)
        first = np.empty(len(known), np.int64)
        first[rank[::-1]] = np.arange(len(rank) - 1, -1, -1)
        return first, rank
    key = np.empty(len(hi), np.dtype([("hi", np.uint64), ("lo", np.uint64), ("tag", np.uint64)]))
    key["hi"], key["lo"], key["tag"] = hi, lo, tag
    _, index, inverse = np.unique(key, return_index=True, return_inverse=True)
    order = np.argsort(index, kind="stable")
    rank_of = np.empty(index.size, np.int64)
    rank_of[order] = np.arange(index.size)
    return index[order], rank_of[inverse.reshape(-1)]


def _pack(arena: U8, at: I64, slab: U8, slab_rows: I64, offset: I64, length: I64) -> None:
    """``arena[at:at+length] = slab[slab_rows, offset:offset+length]``, grouped by length and offset."""
    shape = length * 65_536 + offset
    distinct = np.unique(shape)
    if len(distinct) > 32:
        total = int(length.sum())
        within = np.arange(total) - np.repeat(np.cumsum(length) - length, length)
        flat = slab.reshape(-1)
        source = slab_rows * slab.shape[1] + offset
        arena[np.repeat(at, length) + within] = flat[np.repeat(source, length) + within]
        return
    for one in distinct.tolist():
        size, start = divmod(one, 65_536)
        if size:
            members = np.flatnonzero(shape == one)
            item = np.dtype((np.void, size))
            to = np.ndarray((len(arena) - size + 1,), item, arena, 0, (1,))
            to[at[members]] = np.ndarray((len(slab),), item, slab, start, (slab.shape[1],))[slab_rows[members]]
