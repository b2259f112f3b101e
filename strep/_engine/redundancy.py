"""Redundant audio data (RFC 2198): packets are unwrapped on their way into the jitter ring.

What goes into the ring is the primary block, under its own payload type. Redundant blocks wait beside it for packets
that do not come (``streams/recovery.py``). Types that nobody named are looked at packet by packet, in order of arrival,
until it is plain what they are: redundant data if what their headers say fits, if all their blocks are of types that
are known, and if blocks have the very timestamps of earlier packets.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._codecs.facts import UNKNOWN
from .._codecs.payload_types import MALFORMED_RED
from .._model.events import Event, Notice
from .._model.types import StreamInfo
from .._parser.redundant import RedFault, RedundantPayloads, parse_redundant
from .accounts import Accounts
from .state import StreamState
from .streams.recovery import Copies
from .streams.slots import Bodies

__all__ = ["Redundancy"]

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

_PACKETS_TO_GUESS: Final = 4  # with a block that has the timestamp of an earlier packet
_PACKETS_TO_GIVE_UP: Final = 25
_TYPES_LOOKED_AT: Final = 4  # of a stream at a time: a sender that makes up more is not worth the memory
_NOT_RED: Final = 1  # in ``settled``
_RED: Final = 2
_LONGEST_EVENT: Final = 64  # bytes (RFC 4733 2.5.1.4: as many reports as there is room for)


@dataclass(slots=True)
class _Evidence:
    """What was seen of an unnamed type of a stream."""

    serial: int  # the stream's
    timestamps: list[int] = field(default_factory=list)
    fitting: int = 0  # blocks that have the timestamps of earlier packets


class Redundancy:
    """Events are appended to ``events``."""

    def __init__(self, state: StreamState, accounts: Accounts, events: list[Event]) -> None:
        self._state = state
        self._types = state.types
        self._accounts = accounts
        self._events = events
        self._concerns = state.types.is_red | state.types.guessable
        self._settled = state.red_settled
        self._malformed: dict[int, int] = {}  # by row: the stream, by its serial, of which that was told
        self._evidence: dict[int, dict[int, _Evidence]] = {}  # by row, by payload type

    def concerns(self, payload_type: npt.NDArray[np.uint8]) -> bool:
        """Whether any packets of these types (one or more) may be redundant audio data."""
        first = payload_type[0]
        if not np.count_nonzero(payload_type != first):
            return bool(self._concerns[first])
        return bool(np.count_nonzero(self._concerns.take(payload_type)))

    def undecided(self, payload_type: npt.NDArray[np.uint8], row: I64) -> Bools:
        """Which packets are looked at before it is plain what they are."""
        unnamed: Bools = self._types.guessable.take(payload_type)
        unnamed &= self._settled[row, payload_type] == 0
        return unnamed

    def unwrap(self, bodies: Bodies, row: I64, ext: I64) -> tuple[Bodies, Copies | None, npt.NDArray[np.int32]]:
        """Packets of streams, in order of arrival, with primary blocks in place of redundant audio data; the redundant
        blocks; and how long the longest block of each packet is. Packets that contradict themselves have the type
        MALFORMED_RED, and a ``RedFault`` for their length."""
        types = bodies.payload_type
        red = self._types.is_red.take(types)
        if (unnamed := self._types.guessable.take(types)).any():
            self._guess(bodies, row, ext, unnamed.nonzero()[0], red)
        which = red.nonzero()[0]
        if not which.size:
            return bodies, None, bodies.length
        self._note_types(row[which], types[which])
        rows = which if bodies.slab_rows is None else bodies.slab_rows[which]
        found = parse_redundant(bodies.slab, rows, bodies.offset[which], bodies.length[which])
        nested = (found.fault == RedFault.NONE) & self._is_red(row[which], found.payload_type)
        found.fault[nested] = RedFault.NESTED
        sound = found.fault == RedFault.NONE
        if not sound.all():
            self._tell_malformed(row[which[~sound]], types[which[~sound]])
        unwrapped = replace(
            bodies,
            payload_type=types.copy(),
            offset=bodies.offset.copy(),
            length=bodies.length.copy(),
        )
        unwrapped.payload_type[which] = np.where(sound, found.payload_type, np.uint8(MALFORMED_RED))
        unwrapped.offset[which] = np.where(sound, found.offset, bodies.offset[which])
        unwrapped.length[which] = np.where(sound, found.length, found.fault)
        longest = unwrapped.length.copy()
        np.maximum.at(longest, which[found.packet], found.block_length)
        return unwrapped, self._copies(bodies, row, ext, which, rows, found), longest

    def _is_red(self, row: I64, payload_type: npt.NDArray[np.uint8]) -> Bools:
        named: Bools = self._types.is_red.take(payload_type)
        named |= self._settled[row, payload_type] == _RED
        return named

    # --- blocks -----------------------------------------------------------------------------------------------------

    def _copies(
        self, bodies: Bodies, row: I64, ext: I64, which: I64, rows: I64, found: RedundantPayloads
    ) -> Copies | None:
        """Redundant blocks that can be used, of packets ``which``; the others are counted by cause."""
        if not found.packet.size:
            return None
        types, packet, length = found.block_payload_type, which[found.packet], found.block_length
        row = row[packet]
        index = self._types.index_of.take(types)
        event = self._types.is_event.take(types)
        nested = self._is_red(row, types)
        unknown = (index == UNKNOWN) & ~nested
        unknown |= event & ((length % 4 != 0) | (length > _LONGEST_EVENT))
        now = (found.ticks == 0) & ~nested & ~unknown
        for cause, those in (("nested", nested), ("payload_type", unknown), ("offset", now)):
            self._accounts.count_unused_copies(cause, int(np.count_nonzero(those)))
        usable = (~(nested | unknown | now) & (length > 0)).nonzero()[0]
        if not usable.size:
            return None
        packet = packet[usable]
        timestamp = bodies.timestamp[packet]
        return Copies(
            bodies=Bodies(
                timestamp=timestamp - found.ticks[usable],
                payload_type=types[usable],
                arrival_ns=bodies.arrival_ns[packet],
                offset=found.block_offset[usable],
                length=length[usable],
                slab_rows=rows[found.packet[usable]],
                slab=bodies.slab,
                across=bodies.across,
            ),
            row=row[usable],
            carrier_ext=ext[packet],
            carrier_timestamp=timestamp,
            rank=found.rank[usable],
            lasts=self._types.ticks_a_byte.take(index[usable]) * length[usable],
            shared=event[usable],
        )

    # --- what is told -----------------------------------------------------------------------------------------------

    def _note_types(self, row: I64, payload_type: npt.NDArray[np.uint8]) -> None:
        """That a stream has a type of redundant data, beside those of its blocks."""
        seen = self._state.types_seen
        if not seen[row, payload_type].all():
            seen[row, payload_type] = True
            self._state.has_red[row] = True

    def _tell_malformed(self, row: I64, payload_type: npt.NDArray[np.uint8]) -> None:
        for one in np.unique(row).tolist():
            info = self._state.registry.info[one]
            if info is not None and self._malformed.get(one) != info.serial:
                self._malformed[one] = info.serial
                number = int(payload_type[row == one][0])
                self._tell(info, f"payload type {number}: packets whose redundant audio data contradict themselves")

    def _tell(self, info: StreamInfo, text: str) -> None:
        info.notes.append(text)
        self._events.append(Notice(info, text))

    # --- guesses ----------------------------------------------------------------------------------------------------

    def _guess(self, bodies: Bodies, row: I64, ext: I64, unnamed: I64, red: Bools) -> None:
        """Mark in ``red`` which packets of types that nobody named are redundant data, from where that is plain."""
        types, settled = bodies.payload_type, self._settled
        verdict = settled[row[unnamed], types[unnamed]]
        red[unnamed[verdict == _RED]] = True
        which = unnamed[verdict == 0]
        if not which.size:
            return
        rows = which if bodies.slab_rows is None else bodies.slab_rows[which]
        found = parse_redundant(bodies.slab, rows, bodies.offset[which], bodies.length[which])
        sound = (found.fault == RedFault.NONE) & (self._types.index_of.take(found.payload_type) != UNKNOWN)
        known = (found.ticks > 0) & (self._types.index_of.take(found.block_payload_type) != UNKNOWN)
        sound[found.packet[~known]] = False
        blocks: dict[int, list[int]] = {}
        for packet, ticks in zip(found.packet.tolist(), found.ticks.tolist(), strict=True):
            blocks.setdefault(packet, []).append(ticks)
        columns = (which, row[which], types[which], bodies.timestamp[which], sound)
        for number, (i, one, payload_type, timestamp, fits) in enumerate(zip(*map(_listed, columns), strict=True)):
            info = self._state.registry.info[one]
            if settled[one, payload_type] == 0 and info is not None:
                settled[one, payload_type] = self._look_at(
                    info, payload_type, timestamp, blocks.get(number, []) if fits else None
                )
            red[i] = settled[one, payload_type] == _RED

    def _look_at(self, info: StreamInfo, payload_type: int, timestamp: int, blocks: list[int] | None) -> int:
        """Look at one more packet, whose redundant blocks are so many ticks earlier than it; None: it is not redundant
        data. Tells whether its type is: ``_RED``, ``_NOT_RED``, or 0, not settled yet."""
        known = self._evidence.setdefault(info.index, {})
        if any(one.serial != info.serial for one in known.values()):
            known.clear()  # of the stream that had the row before
        if payload_type not in known and len(known) >= _TYPES_LOOKED_AT:
            return _NOT_RED
        seen = known.setdefault(payload_type, _Evidence(info.serial))
        verdict = 0
        if blocks is None or blocks != sorted(set(blocks), reverse=True):
            verdict = _NOT_RED
        else:
            seen.fitting += any((timestamp - ticks) & 0xFFFF_FFFF in seen.timestamps for ticks in blocks)
            seen.timestamps.append(timestamp)
            if seen.fitting >= _PACKETS_TO_GUESS:
                verdict = _RED
                info.codec_guessed = True
                self._tell(
                    info,
                    f"payload type {payload_type} looks like red (redundant audio data), a guess from headers and "
                    f"timestamps; --pt {payload_type}=NAME/RATE says what it is",
                )
            elif len(seen.timestamps) >= _PACKETS_TO_GIVE_UP:
                verdict = _NOT_RED
        if verdict:
            del known[payload_type]
        return verdict


def _listed(column: npt.NDArray[Any]) -> list[Any]:
    values: list[Any] = column.tolist()
    return values
