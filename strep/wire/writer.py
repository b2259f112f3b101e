"""Batches, streams and events to messages, one a shard and tick. Time is an argument."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.blocks import BlockBatch
from .._model.exceptions import ConfigurationError
from .._model.report import StreamReport
from .._model.types import StreamEvent, StreamInfo
from .cuts import block_bytes, cut_long_blocks
from .layout import PREFERRED
from .message import pack
from .nouns import event_as_json, info_as_json, packed_json, report_as_json
from .parts import Part, joined_in_order, part_of

__all__ = ["WireMessage", "WireWriter", "shard_of"]

I64 = npt.NDArray[np.int64]

_TABLED: Final = frozenset(("PCMU", "PCMA", "L16"))  # codecs whose samples a table makes of each byte
_BEFORE_BLOCKS: Final = 4096  # bytes of a message beside its blocks, streams and records
_MOST_RECORDS: Final = 200_000  # that wait: of events beyond it the oldest go
_REFRESH_TICKS: Final = 8  # within which it is seen that something of a stream has changed
_LEAST_BYTES: Final = 65_536


def shard_of(stream: StreamInfo, shards: int) -> int:
    """Which shard a stream is told in: all streams of a call leg in the same one, on all machines.

    CRC-32 of the 16 bytes of call_leg_id (of plain RTP: of ``leg_name`` in UTF-8), modulo ``shards``."""
    leg = stream.call_leg_id
    return zlib.crc32(stream.leg_name.encode() if leg is None else leg.bytes) % shards


@dataclass(frozen=True, slots=True)
class WireMessage:
    """``data`` is message ``number`` of ``shard``; it tells of ``frames`` sample frames, and of ``records``, JSON each,
    which stand in it and may go into another one."""

    shard: int
    number: int
    data: bytes
    frames: int
    records: tuple[str, ...]


class WireWriter:
    """Makes messages. Not for several threads at a time.

    ``sender``      1 to 64 letters and digits; no other writer has ever had the same
    ``shards``      how many parts legs are divided into
    ``native``      payload bytes as they came; samples (16-bit PCM) only of what no table decodes. False: of all
    ``most_bytes``  of a message
    """

    def __init__(self, sender: str, shards: int = 64, *, native: bool = True, most_bytes: int = PREFERRED) -> None:
        if not 1 <= shards <= 4096:
            raise ConfigurationError(f"shards {shards}: 1 to 4096, for example 64")
        self.sender = sender
        self.shards = shards
        self.native = native
        self.most_bytes = max(most_bytes, _LEAST_BYTES)
        self._numbers = [0] * shards
        self._records: dict[int, list[str]] = {}
        self._waiting = 0
        self._slots: dict[int, int] = {}  # by serial
        self._free: list[int] = []
        self._streams: list[StreamInfo | None] = []
        self._states: list[Any] = []  # by slot: what may change of a stream, as of its JSON in ``_infos``
        self._infos: list[bytes] = []
        self._ticks = 0
        # by slot
        self._shard, self._key, self._serial, self._info_bytes = (np.zeros(0, np.int64) for _ in range(4))
        self._frame_bytes, self._channels = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._slot_of_row = np.zeros(0, np.int64)  # -1: nobody's
        self.dropped_records = 0

    @property
    def streams(self) -> int:
        """How many live."""
        return len(self._slots)

    # --- what there is to tell ------------------------------------------------------------------------------------

    def started(self, stream: StreamInfo) -> None:
        """A stream was admitted."""
        self._record(self._slot(stream), "started", stream, {})

    def event(self, event: StreamEvent) -> None:
        """Something happened in a stream. Raises what json raises for data that JSON has nothing for."""
        shard = shard_of(event.stream, self.shards)
        self._add(shard, self._text("event", event.stream, {"event": event_as_json(event)}))

    def ended(self, stream: StreamInfo, report: StreamReport) -> None:
        """No more blocks of this stream will come. What parts have of it still must be told first."""
        slot = self._slot(stream)
        self._refresh(slot)
        self._slot_of_row[stream.index] = -1  # the row may be another's soon
        self._record(slot, "ended", stream, {"report": report_as_json(report)})

    def forget(self, streams: Iterable[StreamInfo]) -> None:
        """These have ended, and all that was to be told of them has been."""
        for stream in streams:
            slot = self._slots.pop(stream.serial, None)
            if slot is not None:
                self._streams[slot] = self._states[slot] = None
                self._free.append(slot)

    def _record(self, slot: int, what: str, stream: StreamInfo, more: dict[str, Any]) -> None:
        self._add(int(self._shard[slot]), self._text(what, stream, more))

    @staticmethod
    def _text(what: str, stream: StreamInfo, more: dict[str, Any]) -> str:
        return packed_json({"record": what, "stream": info_as_json(stream), **more})

    def _add(self, shard: int, *records: str) -> None:
        if self._waiting + len(records) > _MOST_RECORDS:
            self.dropped_records += len(records)
            return
        self._records.setdefault(shard, []).extend(records)
        self._waiting += len(records)

    def tell_again(self, message: WireMessage) -> None:
        """A message will not be sent: its records go into the next one. Its audio is a gap for who reads."""
        records = self._records.get(message.shard, [])
        self._records[message.shard] = []
        self._waiting -= len(records)
        self._add(message.shard, *message.records, *records)

    # --- blocks ---------------------------------------------------------------------------------------------------

    def part(self, batch: BlockBatch) -> Part:
        """A batch, to be told by :meth:`messages`. Raises what decoding raises."""
        rows = self._slot_of_row
        slot = rows[batch.index] if len(batch) and int(batch.index.max()) < len(rows) else np.full(1, -1)
        if int(slot.min(initial=0)) < 0:
            slot = np.array([self._slot(stream) for stream in batch.streams], np.int64)
        frame_bytes = self._frame_bytes[slot]
        if int(frame_bytes.min(initial=0)) < 0:
            for i in np.unique(slot[frame_bytes < 0]).tolist():
                self._learn(i)
            frame_bytes = self._frame_bytes[slot]
        return part_of(batch, slot, frame_bytes, self._channels[slot], self.native)

    def _slot(self, stream: StreamInfo) -> int:
        slot = self._slots.get(stream.serial)
        if slot is not None:
            self._slot_of_row[stream.index] = slot
            return slot
        if not self._free:
            have = len(self._streams)
            more = max(256, have)
            for name in ("_shard", "_key", "_serial", "_info_bytes", "_frame_bytes", "_channels"):
                setattr(self, name, np.append(getattr(self, name), np.zeros(more, np.int64)))
            self._streams += [None] * more
            self._states += [None] * more
            self._infos += [b"{}"] * more
            self._free = list(range(have + more - 1, have - 1, -1))
        slot = self._free.pop()
        self._streams[slot] = stream
        self._shard[slot] = shard_of(stream, self.shards)
        self._key[slot] = self._shard[slot] << 32 | slot
        self._serial[slot] = stream.serial
        self._frame_bytes[slot] = -1  # not known yet, as the codec may not be
        self._slots[stream.serial] = slot
        if stream.index >= len(self._slot_of_row):
            more = max(256, 2 * stream.index - len(self._slot_of_row))
            self._slot_of_row = np.append(self._slot_of_row, np.full(more, -1, np.int64))
        self._slot_of_row[stream.index] = slot
        self._refresh(slot)
        return slot

    def _learn(self, slot: int) -> None:
        stream = self._streams[slot]
        if stream is not None and stream.codec is not None:
            codec = stream.codec
            self._channels[slot] = codec.channels
            self._frame_bytes[slot] = codec.frame_bytes if codec.name in _TABLED else 0
        self._refresh(slot)

    def _refresh(self, slot: int) -> None:
        stream = self._streams[slot]
        if stream is None:
            return
        state = (
            stream.codec, stream.origin_ns, stream.codec_guessed, stream.encrypted, stream.clock_rate,
            len(stream.ssrcs), len(stream.notes),
        )  # fmt: skip
        if self._states[slot] != state:
            self._states[slot] = state
            self._infos[slot] = packed_json(info_as_json(stream)).encode()
            self._info_bytes[slot] = len(self._infos[slot])

    # --- messages -------------------------------------------------------------------------------------------------

    def messages(self, parts: Sequence[Part], time_ns: int, *, beat: bool = False) -> list[WireMessage]:
        """All that there is to tell: these parts and the records so far. ``beat``: a message of each shard, also where
        there is nothing, so that readers know that this writer lives."""
        made: list[WireMessage] = []
        records, self._records, self._waiting = self._records, {}, 0
        self._ticks += 1
        for slot in range(self._ticks % _REFRESH_TICKS, len(self._streams), _REFRESH_TICKS):
            self._refresh(slot)
        if parts:
            part = joined_in_order(parts, self._key)
            part = cut_long_blocks(part, self.most_bytes // 2, self._rates)
            made += self._of_blocks(part, records, time_ns)
        told = {message.shard for message in made}
        for shard in range(self.shards) if beat else list(records):
            rest = records.pop(shard, [])
            if rest or (beat and shard not in told):
                made += self._of_records(shard, rest, time_ns)
        return made

    def _of_records(self, shard: int, texts: list[str], time_ns: int) -> list[WireMessage]:
        made = []
        while True:
            some = self._fitting(texts)
            made.append(self._message(shard, time_ns, some, {}, 0))
            texts = texts[len(some) :]
            if not texts:
                return made

    def _fitting(self, texts: list[str]) -> list[str]:
        """Those from the first on that fit into half a message; one at least."""
        room, count = self.most_bytes // 2, 0
        for text in texts:
            room -= 4 * len(text) if not text.isascii() else len(text)
            if room < 0 and count:
                break
            count += 1
        return texts[:count]

    def _of_blocks(self, part: Part, records: dict[int, list[str]], time_ns: int) -> list[WireMessage]:
        shard = self._shard[part.slot]
        new = np.append(True, part.slot[1:] != part.slot[:-1])  # where another stream begins
        starts = np.flatnonzero(new)
        of = part.slot[starts]
        infos = list(map(self._infos.__getitem__, of.tolist()))
        size = block_bytes(part)
        size[starts] += self._info_bytes[of] + 16
        ends = np.cumsum(size)
        nth = np.cumsum(new) - 1
        cut = _Cutter(part, nth, infos, self._serial[of])
        edges = [*np.flatnonzero(np.append(True, shard[1:] != shard[:-1])).tolist(), len(shard)]
        made: list[WireMessage] = []
        for a, b in pairwise(edges):
            mine = int(shard[a])
            texts = records.pop(mine, [])
            while a < b:
                some = self._fitting(texts) if texts else []
                room = self.most_bytes - _BEFORE_BLOCKS - sum(map(len, some))
                before = int(ends[a] - size[a])
                c = min(max(int(np.searchsorted(ends, before + room, "right")), a + 1), b)
                if c < b:  # what ends, ends behind the last block
                    some = []
                frames = int(part.columns["frames"][a:c].sum())
                made.append(self._message(mine, time_ns, some, cut(a, c), frames))
                texts = texts[len(some) :]
                a = c
            if texts:
                records[mine] = texts
        return made

    def _rates(self, slots: I64) -> I64:
        return np.array([0 if (s := self._streams[i]) is None else s.sample_rate for i in slots.tolist()], np.int64)

    def _message(
        self, shard: int, time_ns: int, texts: list[str], columns: dict[str, npt.NDArray[Any]], frames: int
    ) -> WireMessage:
        self._numbers[shard] += 1
        number = self._numbers[shard]
        data = pack(self.sender, shard, number, time_ns, f"[{','.join(texts)}]", columns)
        return WireMessage(shard, number, data, frames, tuple(texts))


class _Cutter:
    """Columns of a stretch of blocks, as a message has them."""

    def __init__(self, part: Part, nth: I64, infos: list[bytes], serials: I64) -> None:
        self._part = part
        self._nth, self._infos, self._serials = nth, infos, serials
        self._offset = _ends(part.values)
        self._payload_offset = _ends(part.bytes_)
        self._packet_first = _ends(part.packets)
        self._packet_offset = None if part.packet_bytes is None else _ends(part.packet_bytes)
        self._sample_at = _ends(np.where(part.decoded, part.values, 0))
        self._frame_at = None if part.mask is None else _ends(part.columns["frames"])
        self._decoded, self._transcoded = (
            flags.view(np.uint8) if flags.any() else None for flags in (part.decoded, part.transcoded)
        )

    def __call__(self, a: int, b: int) -> dict[str, npt.NDArray[Any]]:
        part = self._part
        first, last = int(self._nth[a]), int(self._nth[b - 1]) + 1
        infos = self._infos[first:last]
        p, q = int(self._packet_first[a]), int(self._packet_first[b])
        begin, end = int(self._payload_offset[a]), int(self._payload_offset[b])
        columns: dict[str, npt.NDArray[Any]] = {
            "stream_serial": self._serials[first:last],
            "stream_info_offset": _ends(np.fromiter(map(len, infos), np.int64, len(infos))),
            "stream_info": np.frombuffer(b"".join(infos), np.uint8),
            "stream": self._nth[a:b] - first,
        }
        columns |= {name: column[a:b] for name, column in part.columns.items()}
        columns["offset"] = self._offset[a : b + 1] - self._offset[a]
        columns["payload_offset"] = self._payload_offset[a : b + 1] - begin
        columns["packet_first"] = self._packet_first[a : b + 1] - p
        columns |= {name: column[p:q] for name, column in part.packet_columns.items()}
        if self._packet_offset is not None:
            columns["packet_offset"] = self._packet_offset[p : q + 1] - self._packet_offset[p]
        columns["payload"] = part.payload[begin:end]
        if self._transcoded is not None and self._transcoded[a:b].any():
            columns["transcoded"] = self._transcoded[a:b]
        if self._decoded is not None and self._decoded[a:b].any():
            columns["decoded"] = self._decoded[a:b]
            columns["samples"] = part.samples[self._sample_at[a] : self._sample_at[b]]
        if part.mask is not None and self._frame_at is not None:
            columns["mask"] = part.mask[self._frame_at[a] : self._frame_at[b]]
        self._ragged(columns, "noise", {i: np.frombuffer(made, np.uint8) for i, made in part.noise.items()}, a, b)
        self._ragged(columns, "fill", part.fill, a, b)
        return columns

    @staticmethod
    def _ragged(columns: dict[str, Any], what: str, by_block: dict[int, Any], a: int, b: int) -> None:
        mine = [i for i in sorted(by_block) if a <= i < b] if by_block else []
        if mine:
            made = [by_block[i] for i in mine]
            columns[f"{what}_block"] = np.array(mine, np.int64) - a
            columns[f"{what}_offset"] = _ends(np.array([len(one) for one in made], np.int64))
            columns[what] = np.concatenate(made)


def _ends(length: I64) -> I64:
    ends = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=ends[1:])
    return ends
