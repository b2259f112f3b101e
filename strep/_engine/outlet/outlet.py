"""Packets that left the jitter ring become blocks of audio with their places in time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..._codecs.batch_decoder import Decoded, Decoder, Whose
from ..._codecs.payload_types import NO_AUDIO, UNKNOWN, PayloadTypes
from ..._model.blocks import BlockBatch
from ..._model.events import Event, Fault
from ..._model.types import GapCause, StreamInfo
from ..accounts import Accounts
from ..state import StreamState
from ..streams.ring import Popped
from ..streams.timeline import Anchor, Placed
from .gather import gather
from .presses import KeyPresses
from .sorter import Sorter

__all__ = ["Later", "Outlet", "at_once"]

I64 = npt.NDArray[np.int64]
_T = TypeVar("_T")

# Puts work off until its result is wanted, keeping its order: see ``_inorder``
Later = Callable[[Callable[[], Any]], Callable[[], Any]]


def at_once(work: Callable[[], _T]) -> Callable[[], _T]:
    """For engines without threads around them: nothing is put off. What went wrong is raised to who asks for it."""
    try:
        result = work()
    except Exception as error:
        failed = error

        def fail() -> _T:
            raise failed

        return fail
    return lambda: result


@dataclass(frozen=True, slots=True)
class _Decoding:
    """Work that is put off. It may be left undone when too much of it waits: ``nbytes`` says what it holds."""

    decoder: Decoder
    payload: npt.NDArray[np.uint8]
    begin: I64
    placed: Placed
    whose: Whose
    careful: npt.NDArray[np.bool_]

    @property
    def nbytes(self) -> int:
        return self.payload.nbytes

    def __call__(self) -> Decoded:
        return self.decoder.decode_all(self.payload, self.begin, self.placed, self.whose, self.careful)


class _Certain:
    """Puts work off, but only once it is certain that it is to be done: decoders cannot go back."""

    def __init__(self, later: Later) -> None:
        self._later = later
        self.jobs: list[tuple[Callable[[], Any], list[Callable[[], Any]]]] = []

    def add(self, work: Callable[[], _T]) -> Callable[[], _T]:
        made: list[Callable[[], Any]] = []
        self.jobs.append((work, made))
        return lambda: made[0]()

    def commit(self) -> None:
        jobs, self.jobs = self.jobs, []
        for work, made in jobs:
            made.append(self._later(work))

    def forget(self) -> None:
        self.jobs.clear()


class Outlet:
    def __init__(self, state: StreamState, accounts: Accounts, types: PayloadTypes, later: Later) -> None:
        self._state = state
        self._accounts = accounts
        self._undo = state.undo
        self._types = types
        self._certain = _Certain(later)
        self._later = self._certain.add
        self._sorter = Sorter(state, types)
        self._decoder = Decoder(types.codecs)
        self._presses = KeyPresses(state)
        self._noise: dict[int, bytes] = {}  # by row: the comfort noise in force
        self._faults: deque[Fault] = deque()
        self._decoding: set[int] = set()  # serials of streams that have decoders of their own
        self.wanted = True
        # by row: up to which packet, and of which of the stream's sources, payloads may not have been kept
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

    def emit(self, popped: Popped) -> list[Event]:
        """Place packets and make their blocks; tell the keys that were pressed. What this changes is noted in the
        state's ``undo``; :meth:`commit` says that it is to stay."""
        if self._certain.jobs:
            self._certain.forget()
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

    def commit(self) -> None:
        """What :meth:`emit` did last stays."""
        if self._certain.jobs:
            self._certain.commit()

    def waiting(self) -> I64:
        """Rows whose packets must have left before :meth:`advance`: a key is down in them."""
        return self._presses.pending()

    def advance(self, now_ns: int, rows: I64) -> list[Event]:
        """Key presses in these rows whose end was never told."""
        return self._presses.advance(now_ns, rows)

    def end(self, stream: StreamInfo) -> list[Event]:
        """A stream has ended, all its packets have left."""
        self._noise.pop(stream.index, None)
        if self._since is not None:
            self._since[0][stream.index] = -1
        self._sorter.forget(stream.index)
        if stream.serial in self._decoding:
            self._decoding.remove(stream.serial)
            self._later(lambda: self._decoder.audio.forget(stream.serial))
            self._certain.commit()
        return self._presses.end(stream)

    def _place(self, popped: Popped) -> tuple[tuple[Placed, I64] | None, list[Event], dict[int, bytes]]:
        """The packets' blocks and when each would have arrived without jitter; what packets tell beside audio; and by
        block the comfort noise of the silence before it."""
        if not len(popped):
            return None, [], {}
        timeline = self._state.timeline
        codec, frames = self._sorter.sort(popped)
        is_event: npt.NDArray[np.bool_] | None = None
        anchors: dict[int, Anchor | None] = {}
        if int(codec.min()) == NO_AUDIO:
            is_event = (codec == NO_AUDIO) & ~self._types.is_noise.take(popped.payload_type)
            anchors = self._presses.anchors(popped, is_event)
        placed = timeline.place(popped, codec, frames)
        undecoded, corrupt = timeline.take_undecoded()
        self._accounts.count("delivered", len(popped) - undecoded - corrupt)
        self._accounts.drop("corrupt", corrupt)
        if undecoded:
            encrypted = 0
            if self._state.any_encrypted:
                encrypted = int(np.count_nonzero(self._state.encrypted.take(popped.row) & (codec == UNKNOWN)))
            self._accounts.drop("encrypted", encrypted)
            self._accounts.drop("payload_type", undecoded - encrypted)
        if placed is not None and self._state.codecless:
            self._name_codecs(placed.block_row, placed.arrival_ns[placed.packet_first[:-1]])
        mapped = None
        if placed is not None:
            mapped = placed, _ = self._state.clock.map(placed)
        events: list[Event] = list(self._sorter.take_notices())
        noise: dict[int, bytes] = {}
        if is_event is not None:
            before = self._presses.malformed
            events += self._presses.take(popped, is_event, codec >= 0, anchors, placed)
            malformed = self._presses.malformed - before
            self._accounts.count("delivered", -malformed)
            self._accounts.drop("telephone_event", malformed)
            self._take_noise(popped, np.flatnonzero((codec == NO_AUDIO) & ~is_event), placed, noise)
        else:
            if self._presses.waiting:
                events += self._presses.take(popped, np.zeros(len(popped), np.bool_), codec >= 0, {}, placed)
            if self._noise and placed is not None:
                self._silences(placed, noise)
        return mapped, events, noise

    # --- comfort noise, RFC 3389 ----------------------------------------------------------------------------------

    def _take_noise(self, popped: Popped, which: I64, placed: Placed | None, noise: dict[int, bytes]) -> None:
        """Remember comfort noise, each for the silences that follow it."""
        first_of = np.full(len(popped), -1)  # by packet: the block that it begins
        if placed is not None:
            at = placed.packet_first[:-1]
            first_of[at if placed.kept is None else placed.kept[at]] = np.arange(len(at))
        special = np.flatnonzero(first_of >= 0)
        for i in np.sort(np.concatenate([special, which])).tolist():
            row, block = int(popped.row[i]), int(first_of[i])
            if block < 0:
                payload = self._state.ring.payload(popped, i)
                if payload:
                    before = self._noise.get(row)
                    if before is None:
                        self._undo.call(self._noise.pop, row, None)
                    else:
                        self._undo.note((self._noise, row, before))
                    self._noise[row] = payload
            elif placed is not None and row in self._noise and placed.gap_cause[block] == int(GapCause.SILENCE):
                noise[block] = self._noise[row]

    def _silences(self, placed: Placed, noise: dict[int, bytes]) -> None:
        """No new comfort noise: that in force goes on."""
        for block in np.flatnonzero(placed.gap_cause == int(GapCause.SILENCE)).tolist():
            row = int(placed.block_row[block])
            if row in self._noise:
                noise[block] = self._noise[row]

    # --- blocks ---------------------------------------------------------------------------------------------------

    def _blocks(self, placed: Placed, time_ns: I64, noise: dict[int, bytes]) -> BlockBatch:
        state, decoder = self._state, self._decoder
        codec_of = state.timeline.codec
        stream_codec = codec_of.take(placed.row)
        first = placed.packet_first
        info: list[Any] = state.registry.info  # live rows have one
        streams: list[StreamInfo] = [info[r] for r in placed.block_row.tolist()]
        work: Callable[[], Decoded]
        own_fill: Callable[[], dict[int, npt.NDArray[np.int16]]] | None = None
        transcoded: npt.NDArray[np.bool_] | None = None
        if decoder.is_plain(placed.codec, stream_codec):
            payload, begin = gather(state.ring, placed, decoder.frame_bytes, None)
            work = partial(decoder.decode_plain, int(placed.codec[0]), payload, begin)
        else:
            careful = decoder.careful(placed.codec, stream_codec)
            payload, begin = gather(state.ring, placed, decoder.frame_bytes, careful if careful.any() else None)
            if careful.any():
                work = self._decode_later(payload, begin, placed, stream_codec, careful, streams)
                own_fill = partial(_by_block, work, first)
            else:
                work = partial(decoder.decode_mixed, payload, begin, placed)
            payload, begin, other = decoder.transcode(payload, begin, placed, stream_codec, careful)
            if other is not None:
                transcoded = np.logical_or.reduceat(other, first[:-1])
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
            decode=decode,
            transcoded=transcoded,
            own_fill=own_fill,
            noise=noise,
            failed=failed,
        )

    def _decode_later(
        self,
        payload: npt.NDArray[np.uint8],
        begin: I64,
        placed: Placed,
        stream_codec: npt.NDArray[np.int16],
        careful: npt.NDArray[np.bool_],
        streams: list[StreamInfo],
    ) -> Callable[[], Decoded]:
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
        self._decoding.update(serial[careful].tolist())
        whose = Whose(stream_codec, serial, self._state.restarts.take(placed.row), position, gap, lost)
        return self._later(_Decoding(self._decoder, payload, begin, placed, whose, careful))

    def _samples(
        self, work: Callable[[], Decoded], failed: dict[int, Exception], streams: list[StreamInfo], first: I64
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
        state, undo = self._state, self._undo
        for row, arrival in zip(rows.tolist(), arrival_ns.tolist(), strict=True):
            info = state.registry.info[row]
            if row in state.codecless and info is not None:
                undo.call(setattr, info, "codec", None)
                undo.call(setattr, info, "origin_ns", info.origin_ns)
                undo.call(state.codecless.add, row)
                info.codec = self._types.codecs[int(state.timeline.codec[row])]
                info.origin_ns = info.origin_ns or arrival
                # not noted: it will be begun again
                state.clock.begin(row, info.codec.sample_rate, info.origin_ns)
                state.codecless.discard(row)


def _by_block(work: Callable[[], Decoded], first: I64) -> dict[int, npt.NDArray[np.int16]]:
    """What decoders put in place of the gaps before blocks."""
    block_of = {packet: block for block, packet in enumerate(first.tolist())}
    return {block_of[packet]: values for packet, values in work().filled.items()}
