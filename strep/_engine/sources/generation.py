"""The candidates and packets of one generation of probation, in arrays of fixed size."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .held import HELD_COLUMNS, HeldPackets
from .key_table import KeyTable

__all__ = ["GENERATION_BYTES", "GENERATION_PACKETS", "Generation", "pack"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

GENERATION_PACKETS: Final = 32_768
GENERATION_BYTES: Final = 12 << 20  # of payloads; memory is touched as it is used
_CHAINS_SIDE_BY_SIDE: Final = 8  # sources, from which on their packets are looked up as arrays
_SHAPES: Final = 32  # different lengths and offsets of payloads in a batch, up to which each is copied in one go


class Generation:
    """Sources are candidates, numbered from 0; a candidate's packets are chained, the last one first."""

    def __init__(self, seed: int | None) -> None:
        self.table = KeyTable(GENERATION_PACKETS, seed)
        self.candidates = 0
        self.packets = 0
        self.bytes = 0
        self.last_sequence = np.zeros(GENERATION_PACKETS, np.uint16)
        self.last_timestamp = np.zeros(GENERATION_PACKETS, np.uint32)
        self.last_paces = np.zeros((GENERATION_PACKETS, 2), np.float32)  # of its last packet, and of the one before
        self.last_arrival_ns = np.zeros(GENERATION_PACKETS, np.int64)
        self.holding = np.zeros(GENERATION_PACKETS, np.bool_)  # the candidate's last packet may begin a pair
        self.last_packet = np.zeros(GENERATION_PACKETS, np.int64)  # row in `columns`, -1 if none
        self.columns = np.zeros(GENERATION_PACKETS, HELD_COLUMNS)
        self.prior = np.zeros(
            GENERATION_PACKETS, np.int64
        )  # a packet's predecessor of the same source here, -1 if none
        self.arena = np.empty(GENERATION_BYTES, np.uint8)
        self.kept = 0  # packets not yet given back
        self.foreign = 0  # of them, those of foreign sources

    def _chains(self, candidates: I64) -> tuple[I64, I64]:
        """All packets of these candidates (-1: nobody), and whose of them each is."""
        owner = np.flatnonzero(candidates >= 0)
        packet = self.last_packet[candidates[owner]]
        packets, owners = [], []
        while packet.size > _CHAINS_SIDE_BY_SIDE:
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
            self.last_paces[candidate] = 0  # what is left must prove itself
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
        self.last_paces[known] = 0
        self.last_packet[known] = -1
        self._gone(mine)
        columns = self.columns[mine]
        width = max(64, int(columns["length"].max(initial=0)))
        # rows of one width: what stands behind a payload is never read
        at = np.minimum(columns["at"], GENERATION_BYTES - width)
        shift = columns["at"] - at  # only for payloads at the arena's very end
        items = np.ndarray((GENERATION_BYTES - width + 1,), np.dtype((np.void, width)), self.arena, 0, (1,))
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


def pack(arena: U8, at: I64, slab: U8, slab_rows: I64, offset: I64, length: I64) -> None:
    """``arena[at:at+length] = slab[slab_rows, offset:offset+length]``, grouped by length and offset."""
    shape = length * 65_536 + offset
    distinct = np.unique(shape)
    if len(distinct) > _SHAPES:
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
