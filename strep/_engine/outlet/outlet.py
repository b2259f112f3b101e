"""Packets that left the jitter ring become blocks of audio with their places in time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._codecs.batch_decoder import BatchDecoder, PacketContext, PacketSamples
from ..._codecs.facts import NO_AUDIO, UNKNOWN
from ..._codecs.payload_types import MALFORMED_RED, PayloadTypes
from ..._model.blocks import BlockBatch
from ..._model.events import Event, Fault, Notice
from ..._model.types import GapCause, StreamInfo
from ..._parser.redundant import RedFault
from ..accounts import Accounts
from ..state import StreamState
from ..streams.placement import Anchor, Placement
from ..streams.ring_packets import RingPackets
from .decoding import DecodingJob, DecodingJobs, Defer
from .gather import gather
from .noise import ComfortNoise
from .presses import KeyPresses
from .sorter import Sorter

__all__ = ["Outlet"]

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]


class Outlet:
    def __init__(self, state: StreamState, accounts: Accounts, types: PayloadTypes, defer: Defer) -> None:
        self._state = state
        self._accounts = accounts
        self._undo = state.undo
        self._types = types
        self._jobs = DecodingJobs(defer)
        self._sorter = Sorter(state, types)
        self._decoder = BatchDecoder(types.codecs)
        self._presses = KeyPresses(state)
        self._noise = ComfortNoise(state.ring, state.undo)
        self._faults: deque[Fault] = deque()
        self._with_decoders: set[int] = set()  # serials of streams that have decoders of their own
        self.wanted = True
        # by row: up to which packet, and from which of the stream's sources, payloads may not have been kept
        self._since: tuple[I64, I64] | None = None

    def want(self, *, audio: bool, payloads: bool) -> None:
        """``audio``: blocks are made; otherwise packets are placed and counted only. ``payloads``: even then payloads
        are kept, for blocks that may be wanted before those packets leave."""
        ring = self._state.ring
        keep = audio or payloads
        if keep and not ring.keep_payloads:
            waiting = np.flatnonzero(ring.present)
            if waiting.size:
                ext = np.full(len(ring.present), -1, np.int64)
                ext[waiting] = ring.highest(waiting)
                self._since = ext, self._state.restarts.copy()
        ring.keep_payloads = keep
        self.wanted = audio

    def emit(self, popped: RingPackets) -> list[Event]:
        """Place packets and make their blocks; tell the keys that were pressed. What this changes is noted in the
        state's ``undo``; :meth:`deliver` keeps it."""
        self._jobs.forget()
        if not self.wanted:
            return self._place(popped)[1]
        events: list[Event] = []
        if self._since is not None:
            ext, restarts = self._since
            mute = popped.ext <= ext.take(popped.row)
            mute &= self._state.restarts.take(popped.row) == restarts.take(popped.row)
            events = self._place(popped.take(mute))[1]
            popped = popped.take(~mute)
        placed, more, noise = self._place(popped)
        events += more
        if placed is not None:
            events.append(self._blocks(*placed, noise))
        return events

    def deliver(self, popped: RingPackets) -> list[Event]:
        """:meth:`emit`, and it stays."""
        events = self.emit(popped)
        self._commit()
        return events

    def _commit(self) -> None:
        """What :meth:`emit` did last stays."""
        self._jobs.commit()

    def pressed_rows(self) -> I64:
        """Rows whose packets must have left before :meth:`advance`: a key is down in them."""
        return self._presses.pending()

    def advance(self, now_ns: int, rows: I64) -> list[Event]:
        """Key presses in these rows whose end was never told."""
        return self._presses.advance(now_ns, rows)

    def end(self, stream: StreamInfo) -> list[Event]:
        """A stream has ended, all its packets have left."""
        self._noise.end(stream.index)
        if self._since is not None:
            self._since[0][stream.index] = -1
        self._sorter.forget(stream.index)
        if stream.serial in self._with_decoders:
            self._with_decoders.remove(stream.serial)
            self._jobs.add(lambda: self._decoder.streams.forget(stream.serial))
            self._jobs.commit()
        return self._presses.end(stream)

    def _place(self, popped: RingPackets) -> tuple[tuple[Placement, I64] | None, list[Event], dict[int, bytes]]:
        """The packets' blocks and when each would have arrived without jitter; what packets tell beside audio; and by
        block the comfort noise of the silence before it."""
        if not len(popped):
            return None, [], {}
        state = self._state
        timeline = state.timeline
        codec, frames = self._sorter.sort(popped)
        popped = state.sender_clocks.nominal(popped, codec, frames)
        is_event: npt.NDArray[np.bool_] | None = None
        anchors: dict[int, Anchor | None] = {}
        if int(codec.min()) == NO_AUDIO:
            is_event = (codec == NO_AUDIO) & ~self._types.is_noise.take(popped.payload_type)
            anchors = self._presses.anchors(popped, is_event)
        placed = timeline.place(popped, codec, frames)
        undecoded, corrupt = timeline.take_undecoded()
        if popped.recovered is not None:
            useless, torn = self._count_recovered(popped, popped.recovered, codec, frames)
            undecoded, corrupt = undecoded - useless, corrupt - torn
        self._accounts.count("delivered", popped.came - undecoded - corrupt)
        self._accounts.drop("corrupt", corrupt)
        if undecoded:
            undecoded -= self._drop_malformed_red(popped)
            encrypted = 0
            if self._state.any_encrypted:
                of_encrypted = self._state.encrypted.take(popped.row) & (codec == UNKNOWN)
                if popped.recovered is not None:
                    of_encrypted &= ~popped.recovered
                encrypted = int(np.count_nonzero(of_encrypted))
            self._accounts.drop("encrypted", encrypted)
            self._accounts.drop("payload_type", undecoded - encrypted)
        if placed is not None and self._state.codecless:
            self._name_codecs(placed.block_row, placed.arrival_ns[placed.packet_first[:-1]])
        mapped = None
        if placed is not None:
            mapped = placed, _ = self._state.clock.map(placed)
        events: list[Event] = [*self._sorter.take_notices(), *self._tell_clocks()]
        noise: dict[int, bytes] = {}
        if is_event is not None:
            before = self._presses.malformed
            early = self._sorter.early_presses()
            events += self._presses.take(popped, is_event, codec >= 0, anchors, placed, early)
            malformed = self._presses.malformed - before
            self._accounts.count("delivered", -malformed)
            self._accounts.drop("telephone_event", malformed)
            if early:
                self._accept_early(popped, {i: len(packets) for i, packets in early.items()})
            noise = self._noise.take(popped, np.flatnonzero((codec == NO_AUDIO) & ~is_event), placed)
        else:
            if self._presses.waiting:
                events += self._presses.take(popped, np.zeros(len(popped), np.bool_), codec >= 0, {}, placed, {})
            if self._noise and placed is not None:
                noise = self._noise.in_silences(placed)
        return mapped, events, noise

    def _count_recovered(
        self, popped: RingPackets, recovered: Bools, codec: npt.NDArray[np.int16], frames: I64
    ) -> tuple[int, int]:
        """Redundant copies that stand in for packets, and have been placed. Those that cannot be decoded are as if they
        were not there: how many of them are of types that are not decoded, and how many corrupt."""
        state = self._state
        unknown = recovered & (codec == UNKNOWN)
        torn = recovered & (codec >= 0) & (frames == 0) & (popped.length > 0)
        useless, good = popped.row[unknown | torn], popped.row[recovered & ~(unknown | torn)]
        for column, rows, change in ((state.timeline.undecoded, useless, -1), (state.recovered, good, 1)):
            self._undo.note((column, rows, column[rows]))
            np.add.at(column, rows, change)
        self._accounts.count("recovered", len(good))
        return int(np.count_nonzero(unknown)), int(np.count_nonzero(torn))

    def _drop_malformed_red(self, popped: RingPackets) -> int:
        """Count packets, which have been placed, whose redundant audio data contradict themselves; tells how many."""
        malformed = popped.payload_type == MALFORMED_RED
        if not np.count_nonzero(malformed):
            return 0
        malformed &= ~self._state.encrypted.take(popped.row)
        for fault, count in enumerate(np.bincount(popped.length[malformed]).tolist()):
            self._accounts.drop(RedFault(fault).label, count)
        return int(np.count_nonzero(malformed))

    def _tell_clocks(self) -> list[Event]:
        """Streams whose senders' RTP clocks turned out not to be their codecs'."""
        told: list[Event] = []
        for found in self._state.sender_clocks.take_found():
            info = self._state.registry.info[found.row]
            if info is None:
                continue
            named = np.flatnonzero(self._state.types_seen[found.row] & (self._types.index_of[:128] == found.codec))
            text = found.described(self._types.codecs[found.codec], int(named[0]) if named.size else None)
            if not found.why_not:
                self._undo.call(setattr, info, "clock_rate", info.clock_rate)
                info.clock_rate = round(found.rate)
                self._state.found_clock(found.row, float(found.rate))
            self._undo.note((info.notes, slice(len(info.notes), None), []))
            info.notes.append(text)
            told.append(Notice(info, text))
        return told

    def _accept_early(self, popped: RingPackets, early: dict[int, int]) -> None:
        """Packets, so many by another packet of their stream, were counted as undecoded before their keys were told."""
        undecoded = self._state.timeline.undecoded
        for i, count in early.items():
            row = int(popped.row[i])
            self._undo.note((undecoded, row, undecoded[row]))
            undecoded[row] -= count
            self._accounts.drop("payload_type", -count)
            self._accounts.count("delivered", count)

    # --- blocks ---------------------------------------------------------------------------------------------------

    def _blocks(self, placed: Placement, time_ns: I64, noise: dict[int, bytes]) -> BlockBatch:
        state, decoder = self._state, self._decoder
        codec_of = state.timeline.codec
        stream_codec = codec_of.take(placed.row)
        first = placed.packet_first
        info: list[Any] = state.registry.info  # live rows have one
        streams: list[StreamInfo] = [info[r] for r in placed.block_row.tolist()]
        work: Callable[[], PacketSamples]
        own_fill: Callable[[], dict[int, npt.NDArray[np.int16]]] | None = None
        transcoded: npt.NDArray[np.bool_] | None = None
        mixed: npt.NDArray[np.bool_] | None = None
        if decoder.is_plain(placed.codec, stream_codec):
            payload, begin = gather(state.ring, placed, decoder.frame_bytes, None)
            work = partial(decoder.decode_plain, int(placed.codec[0]), payload, begin)
        else:
            careful = decoder.careful(placed.codec, stream_codec)
            payload, begin = gather(state.ring, placed, decoder.frame_bytes, careful if careful.any() else None)
            if careful.any():
                work = self._decode_later(
                    payload=payload,
                    begin=begin,
                    placed=placed,
                    stream_codec=stream_codec,
                    careful=careful,
                    streams=streams,
                )
                own_fill = partial(_by_block, work, first)
            else:
                work = partial(decoder.decode_mixed, payload, begin, placed)
            payload, begin, other = decoder.transcode(payload, begin, placed, stream_codec, careful)
            if other is not None:
                transcoded = np.logical_or.reduceat(other, first[:-1])
            mixed = np.logical_or.reduceat(placed.codec != stream_codec, first[:-1])
        failed: dict[int, Exception] = {}
        decode = partial(self._samples, work, failed, streams, first)
        offset = np.zeros(len(first), np.int64)
        np.cumsum(placed.block_frames * decoder.channels.take(codec_of.take(placed.block_row)), out=offset[1:])
        return BlockBatch(
            streams=streams,
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
            packet_offset=begin,
            decode=decode,
            transcoded=transcoded,
            mixed=mixed,
            own_fill=own_fill,
            noise=noise,
            failed=failed,
        )

    def _decode_later(
        self,
        payload: npt.NDArray[np.uint8],
        begin: I64,
        placed: Placement,
        stream_codec: npt.NDArray[np.int16],
        careful: npt.NDArray[np.bool_],
        streams: list[StreamInfo],
    ) -> Callable[[], PacketSamples]:
        """For packets whose decoders keep state."""
        first = placed.packet_first
        count = np.diff(first)
        gap, lost = np.zeros(len(placed.row), np.int64), np.zeros(len(placed.row), np.int64)
        gap[first[:-1]] = placed.gap_frames
        # decoders also know what silence they were sent before it was suppressed
        missing = np.isin(placed.gap_cause, (int(GapCause.LOSS), int(GapCause.SILENCE)))
        lost[first[:-1]] = np.where(missing, placed.gap_frames, 0)
        within = np.cumsum(placed.frames) - placed.frames
        position = np.repeat(placed.position - within[first[:-1]], count) + within
        serial = np.repeat(np.array([stream.serial for stream in streams], np.int64), count)
        self._with_decoders.update(serial[careful].tolist())
        context = PacketContext(
            stream_codec=stream_codec,
            serial=serial,
            epoch=self._state.restarts.take(placed.row),
            position=position,
            gap=gap,
            lost=lost,
        )
        return self._jobs.add(
            DecodingJob(
                decoder=self._decoder, payload=payload, begin=begin, placed=placed, context=context, careful=careful
            )
        )

    def _samples(
        self, work: Callable[[], PacketSamples], failed: dict[int, Exception], streams: list[StreamInfo], first: I64
    ) -> npt.NDArray[np.int16]:
        """A batch's samples, and in ``failed`` the packets whose decoding failed. In the thread of whoever wants them,
        perhaps in two at once: each failure is told once."""
        decoded = work()
        for packet, error in decoded.failed.items():
            if failed.setdefault(packet, error) is error:
                if self._faults:
                    error.__traceback__ = None  # the first one's will do; it holds all that it passed through
                stream = streams[int(first.searchsorted(packet, "right")) - 1]
                self._faults.append(Fault("decode", error, stream, 1))
        return decoded.samples

    def take_faults(self) -> list[Fault]:
        """What decoding raised since the last call, wherever it was done."""
        faults: list[Fault] = []
        while self._faults:
            faults.append(self._faults.popleft())
        return faults

    def _name_codecs(self, rows: I64, arrival_ns: I64) -> None:
        """The codecs of those of these rows' streams that have none yet, and when their first frames arrived."""
        state = self._state
        named: dict[int, tuple[StreamInfo, int]] = {}  # by row: who has one now, and its origin before
        self._undo.call(self._take_names_back, named)
        codec = state.timeline.codec
        for row, arrival in zip(rows.tolist(), arrival_ns.tolist(), strict=True):
            if row in state.codecless and row not in named and (info := state.registry.info[row]) is not None:
                named[row] = info, info.origin_ns
                info.codec = self._types.codecs[codec[row]]
                info.origin_ns = info.origin_ns or arrival
        if not named:
            return
        # not noted: they will be begun again
        infos = [info for info, _ in named.values()]
        state.clock.begin(
            np.array(list(named)),
            np.array([info.sample_rate for info in infos]),
            np.array([info.origin_ns for info in infos]),
        )
        state.codecless.difference_update(named)

    def _take_names_back(self, named: dict[int, tuple[StreamInfo, int]]) -> None:
        for info, origin_ns in named.values():
            info.codec, info.origin_ns = None, origin_ns
        self._state.codecless.update(named)


def _by_block(work: Callable[[], PacketSamples], first: I64) -> dict[int, npt.NDArray[np.int16]]:
    """What decoders put in place of the gaps before blocks."""
    block_of = {packet: block for block, packet in enumerate(first.tolist())}
    return {block_of[packet]: values for packet, values in work().filled.items()}
