"""Messages: what comes out is what went in, whatever is done to them on the way."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, run
from traffic import traffic
from wire_messages import written

from strep._model.blocks import BlockBatch
from strep._model.events import Ended, Event, Started
from strep._model.types import StreamEvent
from strep.wire import MAJOR, WireError, WireReader, WireWriter, shard_of, unpack
from strep.wire.layout import PRELUDE


class Heard:
    """What a reader tells, as arrays by who the stream is."""

    def __init__(self) -> None:
        self.reader = WireReader()
        self.events: list[Event] = []
        self.batches: list[BlockBatch] = []

    def read(self, data: bytes) -> None:
        for event in self.reader.read(data, 0.0):
            self.events.append(event)
            if isinstance(event, BlockBatch):
                self.batches.append(event)

    def audio(self) -> dict[tuple[object, ...], np.ndarray]:
        return audio_of(self.batches)


def audio_of(batches: list[BlockBatch]) -> dict[tuple[object, ...], np.ndarray]:
    """By stream, with gaps as zeros; each block stands where it belongs."""
    parts: dict[tuple[object, ...], list[np.ndarray]] = {}
    position: dict[tuple[object, ...], int] = {}
    for batch in batches:
        for block in batch:
            info = block.stream
            key = (info.call_leg_id, info.direction, info.first_arrival_ns, info.ssrc)
            gap = block.gap.samples if block.gap else 0
            assert block.position == position.get(key, block.position - gap) + gap
            parts.setdefault(key, []).extend([np.zeros(gap, np.int16), block.samples.reshape(-1)])
            position[key] = block.position + len(block.samples)
    return {key: np.concatenate(found) for key, found in parts.items()}


COLUMNS = ("position", "frames", "gap_frames", "gap_cause", "rtp_timestamp", "arrival_ns", "time_ns")
PACKETS = ("packet_frames", "packet_arrival_ns", "packet_rtp_timestamp")


def by_stream(batches: list[BlockBatch]) -> dict[tuple[object, ...], list[tuple[object, ...]]]:
    """Every column of each stream's blocks, masks and payload bytes."""
    found: dict[tuple[object, ...], list[tuple[object, ...]]] = {}
    for batch in batches:
        mask, ends = batch.mask, np.cumsum(batch.frames)
        for i, info in enumerate(batch.streams):
            key = (info.call_leg_id, info.direction, info.first_arrival_ns, info.ssrc)
            p, q = batch.packet_first[i], batch.packet_first[i + 1]
            a, b = batch.payload_offset[i], batch.payload_offset[i + 1]
            found.setdefault(key, []).append((
                *(getattr(batch, name)[i].item() for name in COLUMNS),
                *(getattr(batch, name)[p:q].tobytes() for name in PACKETS),
                batch.payload[a:b].tobytes(),
                batch.samples[batch.offset[i] : batch.offset[i + 1]].tobytes(),
                mask[ends[i] - batch.frames[i] : ends[i]].tobytes(),
                batch.noise.get(i),
            ))  # fmt: skip
    return found


@pytest.mark.parametrize("seed", range(usual_or_slow(4, 40)))
@pytest.mark.parametrize("native", [True, False])
def test_what_is_read_is_what_was_written(seed: int, native: bool) -> None:
    """Every column, sample, payload byte, report and event, of streams in all kinds of trouble."""
    result = run(traffic(seed, 7, 0.1), cuts=range(0, 2000, 97), live=True)
    writer = WireWriter("a1", 1 + seed * 3, native=native)
    messages = written(result, writer)
    heard = Heard()
    for message in messages:
        assert len(message.data) % 8 == 0
        heard.read(message.data)
    told = by_stream(heard.batches)
    meant = by_stream(result.batches)
    if not native:  # everything but the bytes
        meant = {key: [(*block[:-4], b"", *block[-3:]) for block in blocks] for key, blocks in meant.items()}
    assert told == meant
    assert sum(map(len, meant.values())) > 100
    starts = [event.stream for event in heard.events if isinstance(event, Started)]
    for mine, theirs in zip(sorted(starts, key=_who), sorted(result.started, key=_who), strict=True):
        assert replace(mine, index=0, serial=0).__repr__() == replace(theirs, index=0, serial=0).__repr__()
    reports = {_who(event.stream): event.report for event in heard.events if isinstance(event, Ended)}
    for report in result.reports:
        assert reports[_who(report.stream)].as_dict() == report.as_dict()
    (event,) = (event for event in heard.events if isinstance(event, StreamEvent))
    assert (event.kind, event.position, event.data) == ("speech", 160, {"level": -20.5})
    assert heard.reader.live() == []
    figures = heard.reader.figures
    assert (figures.read, figures.lost, figures.doubled, figures.lost_frames) == (len(messages), 0, 0, 0)


def _who(stream: object) -> tuple[object, ...]:
    return (str(stream.call_leg_id), stream.direction, stream.first_arrival_ns, stream.ssrc)  # type: ignore[attr-defined]


def test_columns_are_views_of_the_message() -> None:
    """No copies: aligned to 8 bytes, read-only, and the payload as it came."""
    result = run(traffic(1, 4, 0.05), live=True)
    message = max(written(result, WireWriter("a", 1), cuts=10**6), key=lambda m: len(m.data))
    read = unpack(message.data)
    base = np.frombuffer(message.data, np.uint8)
    for name, column in read.columns.items():
        assert np.shares_memory(column, base), name
        assert (column.ctypes.data - base.ctypes.data) % 8 == 0, name
        assert not column.flags.writeable, name


def test_all_streams_of_a_leg_are_in_one_shard() -> None:
    result = run(traffic(3, 40, 0.0, packets=5))
    shards = {stream.call_leg_id: set() for stream in result.started}
    for stream in result.started:
        shards[stream.call_leg_id].add(shard_of(stream, 64))
    assert all(len(found) == 1 for found in shards.values())
    assert len({shard for found in shards.values() for shard in found}) > 10
    for message in written(result, WireWriter("a", 64)):
        for stream in json.loads(b"[%s]" % b",".join(_infos(message.data))):
            assert zlib_shard(stream["call_leg_id"]) == message.shard


def zlib_shard(leg: str) -> int:
    """CRC-32 by its polynomial: as another language would compute it."""
    value = 0xFFFF_FFFF
    for byte in bytes.fromhex(leg.replace("-", "")):
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xEDB8_8320 if value & 1 else 0)
    return (value ^ 0xFFFF_FFFF) % 64


def _infos(data: bytes) -> list[bytes]:
    columns = unpack(data).columns
    ends = columns["stream_info_offset"].tolist() if columns else []
    return [columns["stream_info"].tobytes()[a:b] for a, b in pairwise(ends)]


@settings(max_examples=usual_or_slow(30, 400), deadline=None)
@given(st.data())
def test_whatever_is_lost_or_told_twice_is_a_gap_or_left_out(data: st.DataObject) -> None:
    """The oracle: the samples of what came, zeros elsewhere; no frame moves, no order changes."""
    result = RUNS[data.draw(st.integers(0, len(RUNS) - 1))]
    messages = written(result, WireWriter("a", data.draw(st.integers(1, 3))), data.draw(st.integers(1, 4)))
    whole = audio_of(result.batches)
    lost = data.draw(st.sets(st.integers(0, len(messages) - 1)))
    twice = data.draw(st.sets(st.integers(0, len(messages) - 1)))
    heard = Heard()
    kept: list[BlockBatch] = []
    other = WireReader()
    for i, message in enumerate(messages):
        if i not in lost:
            heard.read(message.data)
            if i in twice:
                heard.read(message.data)
        events = other.read(message.data, 0.0)
        kept += [event for event in events if isinstance(event, BlockBatch) and i not in lost]
    told = heard.audio()
    came = {key: [] for key in whole}
    for batch in kept:
        for block in batch:
            info = block.stream
            key = (info.call_leg_id, info.direction, info.first_arrival_ns, info.ssrc)
            came[key].append((block.position, len(block.samples)))
    for key, pieces in came.items():
        if not pieces:
            assert key not in told
            continue
        masked = np.zeros_like(whole[key])
        for position, frames in pieces:
            masked[position : position + frames] = whole[key][position : position + frames]
        found = told[key]
        last = pieces[-1][0] + pieces[-1][1]
        assert np.array_equal(found, masked[last - len(found) : last])
    assert heard.reader.figures.doubled == len(twice - lost)
    assert heard.reader.figures.lost <= len(lost)


RUNS = [run(traffic(seed, 5, 0.1, packets=60), cuts=range(0, 600, 41), live=True) for seed in range(3)]


@pytest.mark.parametrize("most_bytes", [65_536, 200_000])
def test_messages_are_never_larger_than_they_may_be(most_bytes: int) -> None:
    """One tick with a block of minutes, and a thousand records: cut, and read as if it were not."""
    result = run(traffic(5, 3, 0.0, packets=3000))
    writer = WireWriter("a", 2, most_bytes=most_bytes)
    for _ in range(1000):
        writer.event(StreamEvent(result.started[0], "tone", 1, T0, 0.0, {"text": "ü" * 100}))
    messages = written(result, writer, cuts=10**6)
    assert len(messages) > 10
    assert max(len(m.data) for m in messages) <= most_bytes
    heard = Heard()
    for message in messages:
        heard.read(message.data)
    meant = audio_of(result.batches)
    assert {key: found.tobytes() for key, found in heard.audio().items()} == {k: v.tobytes() for k, v in meant.items()}
    assert sum(isinstance(event, StreamEvent) for event in heard.events) == 1001


def test_a_message_that_is_not_sent_tells_the_next_one_what_happened() -> None:
    result = RUNS[0]
    writer = WireWriter("a", 1)
    for stream in result.started:
        writer.started(stream)
    (lost,) = writer.messages([writer.part(result.batches[0])], T0)
    writer.tell_again(lost)
    for report in result.reports:
        writer.ended(report.stream, report)
    heard = Heard()
    for message in writer.messages([], T0):
        heard.read(message.data)
    assert sum(isinstance(event, Started) for event in heard.events) == len(result.started)
    assert sum(isinstance(event, Ended) for event in heard.events) == len(result.reports)


# --- versions ---------------------------------------------------------------------------------------------------------


def altered(data: bytes, change: object, *, major: int = MAJOR, minor: int = 0, more: bytes = b"") -> bytes:
    """A message with its header changed by a function, and more columns behind the others."""
    _, _, _, _, size, _, body = PRELUDE.unpack_from(data)
    header = json.loads(data[24 : 24 + size])
    change(header)  # type: ignore[operator]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return PRELUDE.pack(b"strw", major, minor, 0, len(text), 0, body + len(more)) + text + data[24 + size :] + more


def test_an_old_reader_ignores_what_a_newer_minor_version_adds() -> None:
    """Columns, records and names that it does not know; what it knows, it reads."""
    result = RUNS[1]
    plain, newer = Heard(), Heard()
    for message in written(result, WireWriter("a", 1)):
        plain.read(message.data)

        def add(header: dict[str, object]) -> None:
            if header["columns"]:
                header["columns"].append(["loudness", "<f4", 3])  # type: ignore[attr-defined]
            header["records"].append({"record": "weather", "wind": 3})  # type: ignore[attr-defined]
            header["compressed"] = None
            for record in header["records"]:  # type: ignore[attr-defined]
                if "stream" in record:
                    record["stream"]["colour"] = "red"

        more = bytes(16) if unpack(message.data).columns else b""
        newer.read(altered(message.data, add, minor=7, more=more))
    assert by_stream(plain.batches) == by_stream(newer.batches)
    assert [type(event) for event in plain.events] == [type(event) for event in newer.events]
    assert newer.reader.figures.unknown == newer.reader.figures.read


def test_another_major_version_is_refused_with_what_would_be_right() -> None:
    message = written(RUNS[1], WireWriter("a", 1))[0]
    reader = WireReader()
    with pytest.raises(WireError, match=r"version 2\.0.*reader of 1\.x.*install that version of strep here"):
        reader.read(altered(message.data, lambda header: None, major=2), 0.0)
    with pytest.raises(WireError, match=r"version 0\.0.*install a newer strep where it was written"):
        reader.read(altered(message.data, lambda header: None, major=0), 0.0)
    assert reader.figures.refused == {"unreadable": 2}


# --- hostile bytes ----------------------------------------------------------------------------------------------------

MESSAGES = [m.data for run_ in RUNS[:2] for native in (True, False)
            for m in written(run_, WireWriter("a", 2, native=native), 2)]  # fmt: skip


def read_hostile(data: bytes) -> None:
    """Either it is read or refused, and using what was read raises nothing and takes no more than its size."""
    reader = WireReader()
    try:
        events = reader.read(data, 0.0)
    except WireError:
        return
    for event in events:
        if isinstance(event, BlockBatch):
            assert event.samples.nbytes <= 2 * len(data)
            assert event.mask.nbytes <= len(data)
            for block in event:
                assert len(block.samples)
        elif isinstance(event, Ended):
            event.report.as_dict()
        elif isinstance(event, StreamEvent):
            event.as_dict()


@settings(max_examples=usual_or_slow(200, 5000), deadline=None)
@given(st.data())
def test_any_flip_cut_or_addition_is_read_or_refused(data: st.DataObject) -> None:
    message = bytearray(data.draw(st.sampled_from(MESSAGES)))
    size = struct.unpack_from("<I", message, 8)[0] + 24
    for _ in range(data.draw(st.integers(0, 4))):
        where = data.draw(st.integers(0, len(message) - 1) | st.integers(0, size + 600))
        message[where % len(message)] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(message)))
    read_hostile(bytes(message[:cut]) + data.draw(st.binary(max_size=9)))


@settings(max_examples=usual_or_slow(200, 5000), deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    for whole in (data, PRELUDE.pack(b"strw", 1, 0, 0, len(data), 0, 0) + data):
        with pytest.raises(WireError):
            unpack(whole)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=usual_or_slow(150, 4000), deadline=None)
@given(st.sampled_from(MESSAGES), st.data())
def test_any_value_in_any_place_of_the_header_is_read_or_refused(message: bytes, data: st.DataObject) -> None:
    def change(header: object) -> None:
        at = header
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))  # type: ignore[call-overload]
            if not keys:
                return
            key = data.draw(st.sampled_from(keys))
            if not isinstance(at[key], dict | list) or data.draw(st.booleans()):  # type: ignore[index]
                at[key] = data.draw(JSON)  # type: ignore[index]
                return
            at = at[key]  # type: ignore[index]

    read_hostile(altered(message, change))


@settings(max_examples=usual_or_slow(150, 4000), deadline=None)
@given(st.sampled_from(MESSAGES), st.data())
def test_any_value_in_any_column_is_read_or_refused(message: bytes, data: st.DataObject) -> None:
    whole = bytearray(message)
    header = json.loads(whole[24 : (at := 24 + struct.unpack_from("<I", whole, 8)[0])])
    for name, dtype, count in header["columns"]:
        size = int(dtype[2:]) * count
        if name != "payload" and count and data.draw(st.booleans()):
            column = np.frombuffer(whole, dtype, count, at)
            limits = np.iinfo(column.dtype)
            value = data.draw(st.integers(int(limits.min), int(limits.max)) | st.integers(0, 100))
            column[data.draw(st.integers(0, count - 1))] = min(value, int(limits.max))
        at += -(-size // 8) * 8
    read_hostile(bytes(whole))


@pytest.mark.parametrize("name", ["../../etc", "a/b", ".hidden", "", "a\x00b", "a" * 300, 7, None])
def test_names_that_would_leave_a_directory_are_refused(name: object) -> None:
    for field in ("name", "leg_name", "stem"):

        def change(header: dict[str, object], field: str = field) -> None:
            header["records"][0]["stream"][field] = name  # type: ignore[index]

        with pytest.raises(WireError):
            WireReader().read(altered(MESSAGES[0], change), 0.0)


def test_deep_json_is_refused() -> None:
    text = b'{"records":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    text += b" " * (-len(text) % 8)
    with pytest.raises(WireError):
        unpack(PRELUDE.pack(b"strw", 1, 0, 0, len(text), 0, 0) + text)
