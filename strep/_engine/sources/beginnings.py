"""Where, among the packets that were held back, the sequences of sources that proved themselves begin."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..._codecs.payload_types import PayloadTypes
from ..._model.time import NEVER_NS, SECOND_NS
from ..streams.ring import MAX_DROPOUT, MISORDER
from .held import HeldPackets
from .pace import PACES, are_steady, paces

__all__ = ["Runs", "looks_encrypted", "only", "origins_ns"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_NEAR_PACKETS: Final = 32  # what came before the proving pair belongs to it if no further from it in sequence
_SRTP_TAG_BYTES: Final = (4, 10, 16)  # HMAC-SHA1-32, -80 (RFC 3711), AEAD (RFC 7714)


class Runs:
    """The sequence of each owner of held packets. Packets stand by owner, in order of arrival.

    A new stream's begins with its first two packets in sequence, or four of a steady pace (``probation``). Where a
    source ``takes over`` it is the last run in which there are such: a run ends where the next packet is another
    sequence (RFC 3550 A.1). A few packets before that are near belong to it too; others prove nothing and are left out.

    ``kept``      bool (p,): packets of the sequence
    ``opening``   bool (p,): those of them that came no later than the packet that proves it, and stand not after it
    ``proven``    bool (owners,): whether there are packets that prove it at all
    ``first``     int64 (owners,): the first packet that belongs to it (its index; 0 where nothing is proven)
    ``lowest``    uint16 (owners,): the sequence number that it begins with
    """

    kept: Bools
    opening: Bools
    proven: Bools
    first: I64
    lowest: npt.NDArray[np.uint16]

    def __init__(self, held: HeldPackets, owners: int, *, takes_over: bool) -> None:
        sequence, owner = held.columns["sequence_number"], held.owner
        if not len(owner):  # a flood has pushed out what was held
            self.kept = self.opening = np.zeros(0, np.bool_)
            self.proven = np.zeros(owners, np.bool_)
            self.first, self.lowest = np.zeros(owners, np.int64), np.zeros(owners, np.uint16)
            return
        index = np.arange(len(owner))
        step = np.zeros(len(owner), np.int64)
        step[1:] = (sequence[1:] - sequence[:-1]).view(np.int16)
        begins = np.append(True, owner[1:] != owner[:-1])
        pair = _proving(held, step, begins)
        kept = np.ones(len(owner), np.bool_)
        if takes_over:
            run = np.cumsum(begins | (step >= MAX_DROPOUT) | (step < -MISORDER))
            last = np.full(owners, -1)
            np.maximum.at(last, owner[pair], index[pair])
            kept = run == np.append(run, 0)[last].take(owner)
        proving = pair & kept
        at = np.full(owners, len(owner))
        np.minimum.at(at, owner[proving], index[proving])
        self.proven = at < len(owner)
        at[~self.proven] = 0
        ahead = (sequence - sequence[at].take(owner)).view(np.int16).astype(np.int64)
        before = index <= at.take(owner)
        near = (ahead >= -_NEAR_PACKETS - 1) & (ahead <= _NEAR_PACKETS)
        self.kept = kept & (near | ~before) & self.proven.take(owner)
        self.opening = self.kept & before & (ahead <= 0)
        lowest = np.zeros(owners, np.int64)
        np.minimum.at(lowest, owner[self.opening], ahead[self.opening])
        self.lowest = (sequence[at].astype(np.int64) + lowest).astype(np.uint16)
        first = np.full(owners, len(owner))
        np.minimum.at(first, owner[self.opening], index[self.opening])
        self.first = np.where(self.proven, first, 0)


def _proving(held: HeldPackets, step: I64, begins: Bools) -> Bools:
    """Which packets prove their sources, by those before them, as ``probation`` has it."""
    sequence, timestamp = held.columns["sequence_number"], held.columns["timestamp"]
    proving: Bools = (step == 1) & ~begins
    pace = np.zeros(len(step), np.float32)
    pace[1:] = paces(sequence[:-1], sequence[1:], timestamp[:-1], timestamp[1:])
    pace[begins] = 0
    proving[PACES:] |= are_steady(pace[PACES:], pace[PACES - 1 : -1], pace[PACES - 2 : -2])
    return proving


def only(held: HeldPackets, chosen: Bools) -> HeldPackets:
    return held if chosen.all() else held.take(chosen)


def origins_ns(held: HeldPackets, runs: Runs, types: PayloadTypes) -> I64:
    """When sample 0 of each owner's stream arrived, or would have without network delay, int64 (owners,): the minimum
    over the packets at hand when it had proved itself. 0 where no packet is of a known codec: then it is known with the
    first audio."""
    columns, owner = held.columns, held.owner
    codec = types.index_of[columns["payload_type"]]
    clocks = np.array([c.clock_rate for c in types.codecs] + [1], np.int64)
    at_start = runs.opening & (columns["sequence_number"] == runs.lowest.take(owner))
    zero = np.full(len(runs.first), len(owner))
    np.minimum.at(zero, owner[at_start], np.flatnonzero(at_start))
    zero[zero == len(owner)] = 0
    since = (columns["timestamp"] - columns["timestamp"][zero].take(owner)).view(np.int32).astype(np.int64)
    since = since * SECOND_NS // clocks[codec]
    # what is further from the first packet by its timestamps than by its arrival is no delay but another clock
    apart = columns["arrival_ns"] - columns["arrival_ns"][runs.first].take(owner)
    usable = runs.opening & (codec >= 0) & (np.abs(since - apart) < SECOND_NS)
    origin = np.full(len(runs.first), NEVER_NS)
    np.minimum.at(origin, owner[usable], (columns["arrival_ns"] - since)[usable])
    return np.where(origin == NEVER_NS, 0, origin)


def looks_encrypted(held: HeldPackets, runs: Runs, types: PayloadTypes) -> Bools:
    """Owners all of whose pairs in sequence have payloads as much longer than their timestamps say as SRTP makes them:
    164 or 170 bytes of G.711 where 160 are due. Bool (owners,)."""
    columns, owner = held.columns, held.owner
    hits = np.zeros(len(runs.first), np.int64)
    pairs = np.zeros(len(runs.first), np.int64)
    if len(owner) > 1:
        a, b = columns[:-1], columns[1:]
        codec = types.index_of[a["payload_type"]]
        step = (b["timestamp"] - a["timestamp"]).view(np.int32).astype(np.int64)
        ticks = types.ticks_a_byte.take(codec)
        pair = (owner[:-1] == owner[1:]) & runs.opening[:-1] & runs.opening[1:] & (ticks > 0) & (step > 0)
        pair &= (b["sequence_number"] - a["sequence_number"]) == 1
        pair &= a["payload_type"] == b["payload_type"]
        extra = a["length"] - step // np.maximum(ticks, 1)
        np.add.at(pairs, owner[:-1][pair], 1)
        hit = pair & np.isin(extra, _SRTP_TAG_BYTES) & (a["length"] == b["length"])
        np.add.at(hits, owner[:-1][hit], 1)
    encrypted: Bools = (hits > 0) & (hits == pairs)
    return encrypted
