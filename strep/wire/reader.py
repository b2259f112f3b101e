"""Messages to what sinks are given: in order, each once, what is missing told as gaps. Time is an argument."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._codecs.g711 import decode
from .._model.blocks import BlockBatch
from .._model.events import Ended, Event, Started
from .._model.exceptions import WireError
from .._model.report import StreamReport
from .._model.types import Codec, StreamInfo
from .message import Message, unpack
from .nouns import as_object, event_of, info_of, integer, parsed_json, report_of, update
from .progress import Progress

__all__ = ["ReaderFigures", "WireReader"]

I64 = npt.NDArray[np.int64]

_TABLED: Final = {"PCMU": 1, "PCMA": 1, "L16": 2}  # bytes of a sample
_REMEMBERED: Final = 4096  # streams that have ended: analyzers may still tell of them
_WRITERS: Final = 65_536  # a sender's shards that are remembered


@dataclass(slots=True)
class ReaderFigures:
    """What became of messages: ``read``; ``doubled``, read before and left out; ``lost``, by the numbers that are
    missing; ``refused`` by cause, as they could not be understood. ``lost_frames``: sample frames that stand in gaps
    because of it. ``unknown``: records of kinds that this version does not know, or of nobody."""

    read: int = 0
    bytes: int = 0
    doubled: int = 0
    lost: int = 0
    lost_frames: int = 0
    doubled_frames: int = 0
    unknown: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Writer:
    """One shard of one sender: the number of its last message, when one came last, its streams that live."""

    number: int
    heard_s: float
    streams: dict[int, _Live] = field(default_factory=dict)  # by the sender's serial
    table: _Table | None = None  # of its last message


class _Table:
    """The streams of a message: ``told`` is what it says of them. None: there are too many streams."""

    def __init__(self, told: tuple[bytes, bytes], lives: list[_Live | None]) -> None:
        self.told = told
        self.infos: list[Any] = [None if live is None else live.info for live in lives]
        codecs: list[Codec | None] = [None if info is None else info.codec for info in self.infos]
        self.codecs = codecs
        self.row = np.array([-1 if info is None else info.index for info in self.infos], np.int64)
        self.width = np.array([0 if codec is None else _TABLED.get(codec.name, 0) for codec in codecs], np.int64)
        self.channels = np.array([0 if codec is None else codec.channels for codec in codecs], np.int64)
        self.nobody = np.array([codec is None for codec in codecs], np.bool_)


@dataclass(slots=True)
class _Live:
    info: StreamInfo
    serial: int  # the sender's
    told: bytes  # the JSON of ``info``
    meant: dict[str, Any]  # and what it says


class WireReader:
    """Reads messages of any number of senders and shards, those of each in the order in which they come.

    A message that was read before is left out, by its number. Of a stream whose frames do not join, what is missing
    becomes a gap (OVERRUN), to the frame: somebody on the way had no room. What is told twice is left out. So the
    streams are the same that the sender had, less what is told as gaps.

    ``max_streams``: blocks of more are left out, and refused as "streams".
    """

    def __init__(self, max_streams: int = 100_000) -> None:
        self.figures = ReaderFigures()
        self._max_streams = max_streams
        self._writers: OrderedDict[tuple[str, int], _Writer] = OrderedDict()
        self._progress = Progress()
        self._serial = 0
        self._rows: list[int] = []
        self._row = 0
        self._by_serial: dict[int, _Live] = {}
        self._gone: OrderedDict[tuple[str, int], StreamInfo] = OrderedDict()
        self._began: list[Event] = []  # not told yet

    def live(self) -> list[StreamInfo]:
        """Streams that have begun and not ended."""
        return [live.info for live in self._by_serial.values()]

    def report(self, stream: StreamInfo) -> StreamReport:
        """Figures of a stream that lives, as far as blocks tell them; the sender tells all at the end."""
        report = StreamReport.empty(stream, "")
        live = self._by_serial.get(stream.serial)
        if live is not None:
            row, known = stream.index, self._progress
            report.packets_received = report.packets_expected = int(known.packets[row])
            report.samples, report.gap_samples = max(int(known.next[row]), 0), int(known.gap_frames[row])
            report.last_arrival_ns = int(known.last_arrival_ns[row])
            report.sources = 1
        return report

    # --- messages -------------------------------------------------------------------------------------------------

    def read(self, data: bytes, now_s: float) -> list[Event]:
        """What a message tells, in order. ``now_s``: monotonic. Raises WireError for bytes that cannot be understood:
        then nothing of them is told, and reading goes on with the next message."""
        try:
            message = unpack(data)
            writer = self._writer(message, now_s)
            if writer is None:
                self.figures.doubled += 1
                return []
            events = list(self._told(message, writer))
        except WireError:
            self.figures.refused["unreadable"] += 1
            raise
        self.figures.read += 1
        self.figures.bytes += len(data)
        return events

    def _writer(self, message: Message, now_s: float) -> _Writer | None:
        """Who wrote it; None: it was read before."""
        key = message.sender, message.shard
        writer = self._writers.get(key)
        if writer is None:
            writer = self._writers[key] = _Writer(message.number - 1, now_s)
            if len(self._writers) > _WRITERS:
                old = next((k for k, w in self._writers.items() if not w.streams), key)
                self._writers.pop(old)
        if message.number <= writer.number:
            return None
        self.figures.lost += message.number - writer.number - 1
        writer.number, writer.heard_s = message.number, now_s
        return writer

    def _told(self, message: Message, writer: _Writer) -> Iterator[Event]:
        """Everything is checked before anything of it is told; streams that began are, at the latest with the next
        message."""
        happened: list[Event] = []
        ended: list[tuple[_Live, Ended]] = []
        table = self._table(message, writer)
        for record in message.records:
            kind = record.get("record")
            if kind not in ("started", "event", "ended"):
                self.figures.unknown += 1
                continue
            told = as_object(record.get("stream"), "a record's stream")
            serial = integer(told.get("serial"), "serial")
            gone = self._gone.get((message.sender, serial))
            live = None if gone is not None else self._live(writer, serial, told)
            info = gone if live is None else live.info
            if kind == "started" and live is not None:
                self._progress.expect_all(live.info.index)
            if kind == "event" and info is not None:
                happened.append(event_of(as_object(record.get("event"), "an event"), info))
            elif kind == "ended" and live is not None:
                ended.append((live, Ended(live.info, report_of(record.get("report"), live.info))))
        batch = self._batch(message, table)
        began, self._began = self._began, []
        yield from began
        if batch is not None:
            yield batch
        yield from happened
        for live, event in ended:
            if live.info.serial in self._by_serial:
                self._forget(message.sender, writer, live)
                yield event

    def _table(self, message: Message, writer: _Writer) -> _Table | None:
        columns = message.columns
        if not columns:
            return None
        infos = columns["stream_info"].tobytes()
        told = columns["stream_serial"].tobytes() + columns["stream_info_offset"].tobytes(), infos
        if writer.table is not None and writer.table.told == told:
            return writer.table
        ends = columns["stream_info_offset"].tolist()
        lives: list[_Live | None] = []
        for serial, a, b in zip(columns["stream_serial"].tolist(), ends, ends[1:], strict=False):
            one = infos[a:b]
            live = writer.streams.get(serial)
            if live is None or live.told != one:
                live = self._live(writer, serial, parsed_json(one, "a stream"))
                if live is not None:
                    live.told = one
            lives.append(live)
        table = writer.table = _Table(told, lives)
        return table

    def _live(self, writer: _Writer, serial: int, told: dict[str, Any]) -> _Live | None:
        live = writer.streams.get(serial)
        if live is not None and live.meant == told:
            return live
        writer.table = None
        if live is not None:
            update(live.info, info_of(told, live.info.index, live.info.serial))
            live.meant = told
            return live
        if len(self._by_serial) >= self._max_streams:
            self.figures.refused["streams"] += 1
            return None
        row = self._rows.pop() if self._rows else self._row
        try:
            info = info_of(told, row, self._serial)
        except WireError:
            if row < self._row:
                self._rows.append(row)
            raise
        self._row = max(self._row, row + 1)
        self._serial += 1
        live = writer.streams[serial] = self._by_serial[info.serial] = _Live(info, serial, b"", told)
        self._progress.begin(row)
        self._began.append(Started(info))
        return live

    def _forget(self, sender: str, writer: _Writer, live: _Live) -> None:
        del writer.streams[live.serial]
        writer.table = None
        del self._by_serial[live.info.serial]
        self._rows.append(live.info.index)
        self._gone[sender, live.serial] = live.info
        while len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)

    # --- blocks ---------------------------------------------------------------------------------------------------

    def _batch(self, message: Message, table: _Table | None) -> BlockBatch | None:
        """The blocks of a message, those that nobody wants left out, gaps as they are here."""
        columns = message.columns
        if table is None or not message.blocks:
            return None
        of = columns["stream"]
        decoder = _Decoding(columns, table)
        row = table.row[of]
        joined = self._progress.join(row, columns)
        self.figures.lost_frames += joined.lost_frames
        self.figures.doubled_frames += joined.doubled_frames
        transcoded = columns.get("transcoded")
        same: dict[str, Any] = {name: columns[name] for name in _KEPT}
        noise = _by_block(columns, "noise")
        fill = _by_block(columns, "fill")
        batch = BlockBatch(
            streams=list(map(table.infos.__getitem__, of.tolist())),
            index=row,
            gap_frames=joined.gap_frames,
            gap_cause=joined.gap_cause,
            **same,
            decode=decoder.samples,
            packet_offset=columns.get("packet_offset"),
            transcoded=None if transcoded is None else transcoded.view(np.bool_),
            own_fill=(lambda: fill) if fill else None,
            noise={i: made.tobytes() for i, made in noise.items()},
            mask=columns.get("mask"),
        )
        if joined.keep is not None and not joined.keep.all():
            kept = np.flatnonzero(joined.keep)
            return batch.take(kept) if len(kept) else None
        return batch

    # --- ends that nobody tells -----------------------------------------------------------------------------------

    def leave(self, shard: int, why: str) -> list[Event]:
        """Somebody else reads a shard from now on: its streams end here, for the reason ``why``."""
        return [event for key in list(self._writers) if key[1] == shard for event in self._end(key, why)]

    def silent(self, shard: int, since_s: float) -> list[Event]:
        """End the streams of senders that have told nothing of a shard since then (they send beats): they are gone."""
        silent = [key for key, writer in self._writers.items() if key[1] == shard and writer.heard_s < since_s]
        return [event for key in silent for event in self._end(key, "sender gone")]

    def end(self, why: str) -> list[Event]:
        """All streams end here."""
        return [event for key in list(self._writers) for event in self._end(key, why)]

    def _end(self, key: tuple[str, int], why: str) -> Iterator[Event]:
        writer = self._writers.pop(key)
        for live in list(writer.streams.values()):
            report = self.report(live.info)
            report.end = why
            self._forget(key[0], writer, live)
            self._gone.popitem()  # it may come back
            yield Ended(live.info, report)


_KEPT: Final = (
    "position", "frames", "rtp_timestamp", "arrival_ns", "time_ns", "offset", "payload", "payload_offset",
    "packet_first", "packet_frames", "packet_arrival_ns", "packet_rtp_timestamp",
)  # fmt: skip


def _by_block(columns: dict[str, npt.NDArray[Any]], what: str) -> dict[int, npt.NDArray[Any]]:
    if what not in columns:
        return {}
    ends = columns[f"{what}_offset"].tolist()
    blocks = columns[f"{what}_block"].tolist()
    return {i: columns[what][a:b] for i, a, b in zip(blocks, ends, ends[1:], strict=False)}


class _Decoding:
    """Samples of a message's blocks. Raises WireError if it has bytes that no table decodes, or not as many as the
    blocks say; later it raises nothing."""

    def __init__(self, columns: dict[str, npt.NDArray[Any]], table: _Table) -> None:
        of, decoded = columns["stream"], columns.get("decoded")
        self._columns = columns
        self._codecs = table.codecs
        native = self._native = np.ones(len(of), np.bool_) if decoded is None else decoded == 0
        values, somebody = np.diff(columns["offset"]), ~table.nobody[of]
        if bool(((values != columns["frames"] * table.channels[of]) & somebody).any()):
            raise WireError("blocks have other samples than their frames and channels")
        bytes_, width = np.diff(columns["payload_offset"]), table.width[of]
        if bool((native & ((bytes_ != values * width) | (width == 0)) & somebody).any()):
            raise WireError("blocks have bytes that are not their samples")

    def samples(self) -> npt.NDArray[np.int16]:
        """int16, of all blocks end to end."""
        columns, native = self._columns, self._native
        of, payload = columns["stream"], columns["payload"]
        used = np.unique(of[native]).tolist()
        kinds = {codec for i in used if (codec := self._codecs[i]) is not None}
        if len(kinds) == 1 and bool(native.all()) and all(self._codecs[i] is not None for i in used):
            return decode(next(iter(kinds)), payload)
        values, bytes_ = np.diff(columns["offset"]), np.diff(columns["payload_offset"])
        out = np.zeros(int(values.sum()), np.int16)
        if not native.all():
            out[np.repeat(~native, values)] = columns["samples"]
        for codec in kinds:
            mine = native & np.array([one == codec for one in self._codecs])[of]
            out[np.repeat(mine, values)] = decode(codec, payload[np.repeat(mine, bytes_)])
        return out
