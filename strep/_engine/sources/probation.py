"""Sources that have not proved themselves, by RFC 3550 A.1 with MIN_SEQUENTIAL = 2. A whole batch at once.

A packet of an unknown key, of another SSRC than its stream's, or far outside its stream's window comes here and is
kept. When two packets in sequence have come, all that were kept are given back: a real source loses nothing. Of some
no two in sequence ever come (each second one is lost, on a path that is dead): four on end whose sequence numbers and
timestamps advance together, as media do (``pace``), prove as much.
A flood of invented ids only fills two buffers of fixed size in turn: it makes no stream, no file, no growing table.

Candidates are kept in two generations. New ones enter the current generation; when it is full it becomes the previous
one, and what the previous one still held is rejected. So a candidate lives for at least one full generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.spans import copy_spans
from .generation import GENERATION_BYTES, GENERATION_PACKETS, Generation
from .held import HELD_COLUMNS, HeldPackets
from .pace import are_steady, paces

__all__ = ["Probation", "Proofs"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

_PACKETS_ONE_BY_ONE: Final = 32  # up to so many, sources are told apart in a loop: faster than as arrays


@dataclass(slots=True)
class Proofs:
    """Sources that proved themselves, in the order in which they did.

    Columns, shape (k,): the key ``hi, lo, tag``; ``source`` and ``last_sequence_number``, ``last_timestamp``,
    ``last_arrival_ns`` of the last pair that is a proof of this offer (of its first packet): two in sequence, or the
    last two of four.
    """

    hi: U64
    lo: U64
    tag: U64
    source: U64
    last_sequence_number: npt.NDArray[np.uint16]
    last_timestamp: npt.NDArray[np.uint32]
    last_arrival_ns: I64

    def __len__(self) -> int:
        return len(self.hi)

    def take(self, rows: I64 | slice) -> Proofs:
        return Proofs(*(getattr(self, name)[rows] for name in self.__slots__))


class Probation:
    def __init__(self, seed: int | None = None) -> None:
        self._generations = [Generation(seed), Generation(seed)]
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
            room = GENERATION_PACKETS - generation.packets
            ends = np.cumsum(columns["length"][done : done + room])
            count = min(room, int(np.searchsorted(ends, GENERATION_BYTES - generation.bytes, "right")))
            if count <= 0:
                self._current ^= 1
                self._expire(self._generations[self._current].clear())
                continue
            part = slice(done, done + count)
            proved = self._keep(
                hi=hi[part],
                lo=lo[part],
                tag=tag[part],
                columns=columns[part],
                slab=slab,
                slab_rows=slab_rows[part],
                payload_offset=payload_offset[part],
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
            self._adopt(current=current, hi=hi, lo=lo, tag=tag, unknown=unknown, candidate=candidate)

        first = current.packets
        length = columns["length"]
        at = current.bytes + np.cumsum(length) - length
        kept = current.columns[first : first + len(columns)]
        kept[:] = columns
        kept["packet"] = self._serial + np.arange(len(columns))
        kept["at"] = at
        self._serial += len(columns)
        copy_spans(current.arena, at, slab.reshape(-1), slab_rows * slab.shape[1] + payload_offset, length)
        current.packets += len(columns)
        current.bytes += int(length.sum())
        current.kept += len(columns)
        current.foreign += int(np.count_nonzero(columns["foreign"]))

        # each packet against the one before it of the same source
        order = np.argsort(candidate, kind="stable")
        who, sequence = candidate[order], columns["sequence_number"][order]
        timestamp = columns["timestamp"][order]
        arrival = columns["arrival_ns"][order]
        start = np.append(True, who[1:] != who[:-1]).nonzero()[0]
        sources = who[start]
        prior, before, prior_arrival = np.empty_like(sequence), np.empty_like(timestamp), np.empty_like(arrival)
        holding, chain = np.ones(len(who), np.bool_), np.empty_like(order)
        prior[1:], before[1:], prior_arrival[1:] = sequence[:-1], timestamp[:-1], arrival[:-1]
        chain[1:] = first + order[:-1]
        prior[start] = current.last_sequence[sources]
        before[start] = current.last_timestamp[sources]
        prior_arrival[start] = current.last_arrival_ns[sources]
        holding[start] = current.holding[sources]
        chain[start] = current.last_packet[sources]
        current.prior[first + order] = chain
        last = np.append(start[1:], len(who)) - 1
        current.last_sequence[sources] = sequence[last]
        current.last_timestamp[sources] = timestamp[last]
        current.last_arrival_ns[sources] = arrival[last]
        current.last_packet[sources] = first + order[last]
        current.holding[sources] = True

        pair = self._proves(
            current=current,
            who=who,
            start=start,
            last=last,
            holding=holding,
            prior=prior,
            sequence=sequence,
            before=before,
            timestamp=timestamp,
        ).nonzero()[0]
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
            hi=hi[which],
            lo=lo[which],
            tag=tag[which],
            source=kept["source"][which],
            last_sequence_number=prior[closing],
            last_timestamp=before[closing],
            last_arrival_ns=prior_arrival[closing],
        )

    @staticmethod
    def _proves(
        current: Generation,
        who: I64,
        start: I64,
        last: I64,
        *,
        holding: npt.NDArray[np.bool_],
        prior: npt.NDArray[np.uint16],
        sequence: npt.NDArray[np.uint16],
        before: npt.NDArray[np.uint32],
        timestamp: npt.NDArray[np.uint32],
    ) -> npt.NDArray[np.bool_]:
        """Which packets prove their sources, by those before them; packets of one source stand together, in order of
        arrival, from ``start`` to ``last``."""
        sources = who[start]
        proves: npt.NDArray[np.bool_] = holding & (sequence == prior + np.uint16(1))
        if holding.any():  # of others the paces are 0
            pace = paces(prior, sequence, before, timestamp)
            pace[~holding] = 0
            second, third = np.zeros_like(pace), np.zeros_like(pace)
            second[1:] = pace[:-1]
            second[start] = current.last_paces[sources, 0]
            third[1:] = second[:-1]
            third[start] = current.last_paces[sources, 1]
            proves |= are_steady(pace, second, third)
            current.last_paces[sources, 0] = pace[last]
            current.last_paces[sources, 1] = second[last]
        return proves

    def _adopt(self, current: Generation, hi: U64, lo: U64, tag: U64, unknown: I64, candidate: I64) -> None:
        """Give candidates to keys the current generation does not know; those of the previous one move over."""
        index, rank = _distinct(hi[unknown], lo[unknown], tag[unknown])
        new = current.candidates + np.arange(index.size)
        candidate[unknown] = new[rank]
        chosen = unknown[index]
        current.table.add(new, hi[chosen], lo[chosen], tag[chosen])
        current.candidates += index.size
        current.holding[new] = False
        current.last_paces[new] = 0
        current.last_packet[new] = -1
        previous = self._generations[self._current ^ 1]
        if not previous.candidates:
            return
        old = previous.table.find(hi[chosen], lo[chosen], tag[chosen])
        moving = np.flatnonzero(old >= 0)
        if moving.size:
            was, now = old[moving], new[moving]
            current.last_sequence[now] = previous.last_sequence[was]
            current.last_timestamp[now] = previous.last_timestamp[was]
            current.last_paces[now] = previous.last_paces[was]
            current.last_arrival_ns[now] = previous.last_arrival_ns[was]
            current.holding[now] = previous.holding[was]
            previous.holding[was] = False
            previous.last_paces[was] = 0

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
        held = HeldPackets.joined(parts)
        # packets of a source stand last first
        return held.take(np.lexsort((held.columns["packet"], held.owner)))


def _distinct(hi: U64, lo: U64, tag: U64) -> tuple[I64, I64]:
    """The first of each distinct key, in order, as indices; and for each key, which of these it is."""
    if len(hi) <= _PACKETS_ONE_BY_ONE:
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
