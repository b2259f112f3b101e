"""The candidates and packets of one generation of probation, in arrays of fixed size."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.datagrams import SLOT_MINIMUM, end_to_end
from ..._model.spans import copy_spans
from .held import HELD_COLUMNS, HeldPackets
from .key_table import KeyTable

__all__ = ["GENERATION_BYTES", "GENERATION_PACKETS", "Generation"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

GENERATION_PACKETS: Final = 32_768
GENERATION_BYTES: Final = 12 << 20  # of payloads; memory is touched as it is used
_CHAINS_SIDE_BY_SIDE: Final = 8  # sources, from which on their packets are looked up as arrays


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
        slab, first_row = end_to_end(columns["length"])
        copy_spans(slab.reshape(-1), first_row * SLOT_MINIMUM, self.arena, columns["at"], columns["length"])
        return HeldPackets(columns, owner, slab, first_row)

    def clear(self) -> tuple[int, int]:
        """Forget everything; (packets, those of them that were foreign)."""
        kept, foreign = self.kept, self.foreign
        self.table.clear()
        self.holding[: self.candidates] = False
        self.candidates = self.packets = self.bytes = self.kept = self.foreign = 0
        return kept, foreign
