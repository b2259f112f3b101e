"""Packets that left the jitter ring become blocks of audio with their places in time. Floor 3."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._accounts import Accounts
from ._blocks import BlockBatch
from ._codecs import PayloadTypes
from ._state import StreamState
from ._streams.payloads import Decoder, gather
from ._streams.ring import Popped
from ._streams.timeline import Placed

__all__ = ["Outlet"]

I64 = npt.NDArray[np.int64]


class Outlet:
    def __init__(self, state: StreamState, accounts: Accounts, types: PayloadTypes) -> None:
        self._state = state
        self._accounts = accounts
        self._types = types
        self._decoder = Decoder(types.codecs)
        self.wanted = True
        self._since_ns: I64 | None = None  # by row: of packets that came earlier the payload was not kept

    def want_blocks(self, wanted: bool) -> None:
        """Whether blocks are made; otherwise packets are placed and counted only."""
        ring = self._state.ring
        if wanted and not ring.keep_payloads:
            ring.keep_payloads = True
            waiting = np.flatnonzero(ring.present)
            if waiting.size:
                self._since_ns = np.zeros(len(ring.present), np.int64)
                self._since_ns[waiting] = self._state.reception.last_arrival_ns[waiting] + 1
        self.wanted = wanted

    def forgo_payloads(self) -> None:
        """While no blocks are made: do not even copy what they would be made of."""
        self._state.ring.keep_payloads = self.wanted

    def emit(self, popped: Popped) -> list[BlockBatch]:
        """Place packets and make their blocks."""
        if not self.wanted:
            self._place(popped)
            return []
        if self._since_ns is not None:
            mute = self._without_payload(popped, self._since_ns)
            self._place(popped.take(mute))
            popped = popped.take(~mute)
        placed = self._place(popped)
        return [] if placed is None else [self._blocks(*placed)]

    def _without_payload(self, popped: Popped, since_ns: I64) -> npt.NDArray[np.bool_]:
        """Of each stream the packets up to the last whose payload was not kept."""
        order = np.arange(len(popped))
        start = np.flatnonzero(np.r_[True, popped.row[1:] != popped.row[:-1]])
        last = np.maximum.reduceat(np.where(popped.arrival_ns < since_ns.take(popped.row), order, -1), start)
        return order <= np.repeat(last, np.diff(np.r_[start, len(popped)]))

    def _place(self, popped: Popped) -> tuple[Placed, I64] | None:
        """The packets' blocks, and when each would have arrived without jitter."""
        if not len(popped):
            return None
        timeline = self._state.timeline
        placed = timeline.place(popped)
        undecoded = timeline.take_undecoded()
        self._accounts.delivered += len(popped) - undecoded
        if undecoded:
            self._accounts.drop("payload_type", undecoded)
        if placed is None:
            return None
        if self._state.codecless:
            self._name_codecs(placed.block_row, placed.arrival_ns[placed.packet_first[:-1]])
        return self._state.clock.map(placed)

    def _blocks(self, placed: Placed, time_ns: I64) -> BlockBatch:
        codec_of = self._state.timeline.codec
        payload, begin = gather(self._state.ring, placed, self._decoder.frame_bytes)
        decode, payload, begin = self._decoder.prepare(payload, begin, placed.codec, codec_of.take(placed.row))
        first = placed.packet_first
        offset = np.zeros(len(first), np.int64)
        channels = self._decoder.channels.take(codec_of.take(placed.block_row))
        np.cumsum(placed.block_frames * channels, out=offset[1:])
        info: list[Any] = self._state.registry.info  # live rows have one
        return BlockBatch(
            streams=[info[r] for r in placed.block_row.tolist()],
            index=placed.block_row,
            position=placed.position,
            frames=placed.block_frames,
            gap_frames=placed.gap_frames,
            gap_cause=placed.gap_cause,
            rtp_timestamp=placed.timestamp[first[:-1]],
            arrival_ns=placed.arrival_ns[first[:-1]],
            time_ns=time_ns,
            offset=offset,
            payload=payload,
            payload_offset=begin[first],
            packet_first=first,
            packet_frames=placed.frames,
            packet_arrival_ns=placed.arrival_ns,
            packet_rtp_timestamp=placed.timestamp,
            decode=decode,
        )

    def _name_codecs(self, rows: I64, arrival_ns: I64) -> None:
        state = self._state
        for row, arrival in zip(rows.tolist(), arrival_ns.tolist(), strict=True):
            info = state.registry.info[row]
            if row in state.codecless and info is not None:
                info.codec = self._types.codecs[int(state.timeline.codec[row])]
                info.origin_ns = info.origin_ns or arrival
                state.clock.begin(row, info.codec.sample_rate, info.origin_ns)
                state.codecless.discard(row)
