"""What the packets that left the ring are: audio of which codec and how long, key presses, comfort noise, or nothing
that is decoded here."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._codecs.counts import HEAD_BYTES, frame_counts
from ..._codecs.facts import NO_AUDIO, UNKNOWN, codec_facts
from ..._codecs.payload_types import PayloadTypes
from ..._model.events import Notice
from ..._model.types import StreamInfo
from ..state import StreamState
from ..streams.ring_packets import RingPackets
from .guess import PACKETS_TO_GIVE_UP, PACKETS_TO_GUESS, PAYLOAD_BYTES, Observation, guess

__all__ = ["Sorter"]

I64 = npt.NDArray[np.int64]

_TYPES_GUESSED: Final = 4  # of a stream, at most: a sender that makes up more is not worth the memory
_SIGNS: Final = {  # what a guess is made from, if not from sizes and timestamp steps alone
    "L16": "sizes, timestamp steps and arrival times",
    "PCMU": "sizes, arrival times and the sound",
    "PCMA": "sizes, arrival times and the sound",
    "telephone-event": "what the packets say",
}
_LONGEST_PACKET_S: Final = 0.5  # of audio: no sender of media makes longer ones, so they count as corrupt


@dataclass(slots=True)
class _UnknownType:
    """What was seen of one unknown payload type, or what it was taken for."""

    source: int  # whose packets these are, of the stream's sources
    seen: list[Observation] = field(default_factory=list)
    index: int = UNKNOWN
    decided: bool = False


class Sorter:
    def __init__(self, state: StreamState, types: PayloadTypes) -> None:
        self._state = state
        self._undo = state.undo
        self._types = types
        codecs = types.codecs
        # two entries behind the codecs, for NO_AUDIO and UNKNOWN
        self._frame_bytes = np.array([max(c.frame_bytes, 1) for c in codecs] + [1, 1], np.int64)
        self._packed = np.array([c.packed for c in codecs] + [False, False])
        self._unknown: dict[int, dict[int, _UnknownType]] = {}  # by row, by payload type
        self._notices: list[Notice] = []
        self._early: dict[int, list[Observation]] = {}  # by packet of the present batch

    def early_presses(self) -> dict[int, list[Observation]]:
        """Packets that came before their type was taken for telephone-event, by the packet by which it was: the number
        that it has among those that were sorted last."""
        return self._early

    def take_notices(self) -> list[Notice]:
        notices = self._notices
        if notices:
            self._undo.note((self.__dict__, "_notices", notices))
            self._notices = []
        return notices

    def forget(self, row: int) -> None:
        """The stream of this row has ended."""
        self._unknown.pop(row, None)

    def sort(self, popped: RingPackets) -> tuple[npt.NDArray[np.int16], I64]:
        """Each packet's codec, an index or UNKNOWN or NO_AUDIO, and its sample frames at that codec's rate."""
        self._early = {}
        codec = self._types.index_of.take(popped.payload_type)
        if int(codec.min()) < 0 and (codec == UNKNOWN).any():
            self._look_up_guesses(popped, codec)
        if self._state.any_encrypted:
            codec[self._state.encrypted.take(popped.row)] = UNKNOWN
        one = int(codec[0])
        if not np.count_nonzero(codec != one) and not self._packed[one]:
            width = int(self._frame_bytes[one])
            return codec, popped.length if width == 1 else popped.length // width
        frames = popped.length // self._frame_bytes.take(codec)
        packed = np.flatnonzero(self._packed.take(codec))
        if packed.size:
            heads = self._heads(popped, packed)
            of = codec[packed]
            for index in np.unique(of).tolist():
                members = np.flatnonzero(of == index)
                at = packed[members]
                one_codec = self._types.codecs[index]
                count = frame_counts(one_codec, heads[members], popped.length[at])
                frames[at] = np.where(count > _LONGEST_PACKET_S * one_codec.sample_rate, 0, count)
            doubtful = self._types.measured.take(of) & (self._state.doubt.left.take(popped.row[packed]) > 0)
            if doubtful.any():
                self._doubt(popped, codec, frames, packed[doubtful])
        return codec, frames

    def _heads(self, popped: RingPackets, which: I64) -> npt.NDArray[np.uint8]:
        """The first bytes of payloads; what stands behind a payload's end means nothing."""
        ring = self._state.ring
        slot = popped.slot[which]
        heads = np.empty((len(which), HEAD_BYTES), np.uint8)
        for size, members in ring.by_size(popped.row[which]):
            heads[members] = ring.payload_slab(size)[slot[members], :HEAD_BYTES]
        return heads

    def _doubt(self, popped: RingPackets, codec: npt.NDArray[np.int16], frames: I64, which: I64) -> None:
        """Streams whose payloads contradict their timestamps from the start are encrypted: their packets become UNKNOWN
        from where that is plain; packet by packet, so that cuts do not matter."""
        doubt = self._state.doubt
        doubt.note(np.unique(popped.row[which]))
        columns = (popped.row, popped.ext, popped.timestamp, codec, frames)
        for i, row, ext, timestamp, index, count in zip(
            which.tolist(), *(c[which].tolist() for c in columns), strict=True
        ):
            info = self._state.registry.info[row]
            if info is None or not doubt.left[row]:
                continue
            one = self._types.codecs[index]
            if doubt.contradicts(row, ext, timestamp, count * one.clock_rate // one.sample_rate):
                codec[i:][popped.row[i:] == row] = UNKNOWN
                self._state.mark_encrypted(row)
                self._undo.call(setattr, info, "encrypted", info.encrypted)
                info.encrypted = True
                self._note(info, f"looks encrypted (SRTP): payloads are not {one.name}'s; not decoded")

    # --- guesses --------------------------------------------------------------------------------------------------

    def _look_up_guesses(self, popped: RingPackets, codec: npt.NDArray[np.int16]) -> None:
        """Put into ``codec`` what unknown types have been taken for; packet by packet, so that cuts do not matter."""
        unknown = np.flatnonzero((codec == UNKNOWN) & self._types.guessable.take(popped.payload_type))
        if not unknown.size:
            return
        for row in np.unique(popped.row[unknown]).tolist():
            self._note_types(row)
        columns = (popped.row, popped.payload_type, popped.ext, popped.timestamp, popped.length, popped.arrival_ns)
        for i, row, payload_type, ext, timestamp, length, arrival_ns in zip(
            unknown.tolist(), *(column[unknown].tolist() for column in columns), strict=True
        ):
            info = self._state.registry.info[row]
            if info is None:
                continue
            known = self._unknown.setdefault(row, {})
            entry = known.get(payload_type)
            if entry is None:
                if len(known) >= _TYPES_GUESSED:
                    continue
                entry = known[payload_type] = _UnknownType(self._source_of(row))
            if not entry.decided:
                payload = self._state.ring.payload(popped, i)[:PAYLOAD_BYTES]
                self._look_at(info, payload_type, entry, Observation(ext, timestamp, length, payload, arrival_ns))
                if entry.index != NO_AUDIO:
                    continue  # packets that the guess was made from have no audio
                # but the keys that they tell of are told
                self._early[i] = entry.seen[:-1]
                entry.seen = []
            codec[i] = entry.index

    def _source_of(self, row: int) -> int:
        return int(self._state.restarts[row])

    def _note_types(self, row: int) -> None:
        known = self._unknown.get(row)
        if known is None:
            self._undo.call(self._unknown.pop, row, None)
        else:
            before = {pt: entry if entry.decided else copy(entry) for pt, entry in known.items()}
            self._undo.note((self._unknown, row, before))

    def _look_at(self, info: StreamInfo, payload_type: int, entry: _UnknownType, seen: Observation) -> None:
        if entry.source != self._source_of(info.index):
            entry.source, entry.seen = self._source_of(info.index), []
        entry.seen = [*entry.seen, seen]
        if len(entry.seen) < PACKETS_TO_GUESS:
            return
        found = guess(entry.seen, self._types.candidates)
        if found is None:
            if len(entry.seen) >= PACKETS_TO_GIVE_UP:
                entry.decided = True
                entry.seen = []
                hint = f"name it with payload_types, or --pt {payload_type}=NAME/RATE"
                self._note(info, f"payload type {payload_type} (dynamic) is not decoded here: {hint}")
            return
        entry.decided = True
        needs = ""
        if isinstance(found, str):
            entry.index = NO_AUDIO
        else:
            entry.seen = []
            entry.index = self._types.index_of_codec(found)
            if entry.index >= 0:
                self._undo.call(setattr, info, "codec_guessed", info.codec_guessed)
                info.codec_guessed = True
            else:
                needs = f"; to decode it: {codec_facts(found).install}"
        signs = _SIGNS.get(str(found).partition("/")[0], "sizes and timestamp steps")
        self._note(
            info,
            f"payload type {payload_type} looks like {found}, a guess from {signs}{needs}; "
            f"--pt {payload_type}=NAME/RATE says what it is",
        )

    def _note(self, info: StreamInfo, text: str) -> None:
        self._undo.note((self._notices, slice(len(self._notices), None), []))
        self._undo.note((info.notes, slice(len(info.notes), None), []))
        info.notes.append(text)
        self._notices.append(Notice(info, text))
