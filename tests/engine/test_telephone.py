"""Telephone-events (RFC 4733) become key presses: exactly one each, whatever is lost, repeated or out of order."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import CAPTURES
from support import MS, T0

import strep
from strep._edge.pcap import PcapReader
from strep._engine.outlet.telephone import KeyPress, TelephoneEvents, event_name

SEGMENT = 0xFFFF


def report(event: int, duration: int, *, end: bool = False, volume: int = 10) -> bytes:
    return struct.pack("!BBH", event, end << 7 | volume, duration)


@dataclass(frozen=True)
class Sent:
    """A packet of a press: ``start`` is its own segment's."""

    timestamp: int
    payload: bytes
    ns: int
    marker: bool = False


def press(key: int, start: int, length: int, *, step: int = 400) -> list[Sent]:
    """As RFC 4733 has it: a report every ``step``, segments of 0xFFFF, the last one three times with the end bit."""
    out = []
    for at in [*range(step, length, step), length, length, length]:
        segment = (at - 1) // SEGMENT * SEGMENT
        payload = report(key, at - segment, end=at == length)
        out.append(Sent((start + segment) & 0xFFFF_FFFF, payload, T0 + (start + at) * 125_000, not out))
        if at // SEGMENT > (at - step) // SEGMENT and at != length:
            # the sender must report a full segment, without the end
            full = at // SEGMENT * SEGMENT
            begin = (start + full - SEGMENT) & 0xFFFF_FFFF
            out.append(Sent(begin, report(key, SEGMENT), T0 + (start + full) * 125_000))
    return sorted(out, key=lambda p: p.ns)


def feed(packets: list[Sent], events: TelephoneEvents | None = None, *, finish: bool = True) -> list[KeyPress]:
    events = TelephoneEvents() if events is None else events
    events.open(3)
    told = []
    for ext, p in enumerate(packets):
        told += events.packet(3, ext, p.timestamp, p.marker, p.payload, p.timestamp, p.ns)
    return told + events.end(3) if finish else told


def keys(told: list[KeyPress]) -> str:
    return "".join(t.key for t in told)


def test_a_press_is_told_once_when_its_end_comes() -> None:
    told = feed(press(5, 8000, 1600), finish=False)
    first = T0 + 8400 * 125_000
    assert told == [KeyPress(3, 5, 8000, 8000, first, 1600, 0.2, -10, True, 4)]
    assert told[0].key == "5"
    assert told[0].is_key


def test_vectors_by_hand() -> None:
    """RFC 4733, 5 ("Examples"): 9, 1, 1 dialled; 50 ms reports, ends three times; here as bytes on the wire."""
    wire = [
        (11200, "09 07 01 90"), (11200, "09 07 03 20"), (11200, "09 07 04 b0"), (11200, "09 07 06 40"),
        (11200, "09 87 06 40"), (11200, "09 87 06 40"), (11200, "09 87 06 40"),
        (16000, "01 0a 01 90"), (16000, "01 0a 03 20"), (16000, "01 8a 03 6b"), (16000, "01 8a 03 6b"),
        (20000, "01 14 01 90"), (20000, "01 94 03 20"),
    ]  # fmt: skip
    told = feed([Sent(t, bytes.fromhex(h), T0 + t * 125_000) for t, h in wire], finish=False)
    assert [(p.key, p.timestamp, p.duration, p.volume_dbm0, p.ended) for p in told] == [
        ("9", 11200, 1600, -7, True),
        ("1", 16000, 875, -10, True),
        ("1", 20000, 800, -20, True),
    ]


@pytest.mark.parametrize(
    ("event", "name"),
    [(0, "0"), (9, "9"), (10, "*"), (11, "#"), (12, "A"), (15, "D"), (16, "flash"), (32, "ANS"), (36, "CNG"),
     (37, "V.21 channel 1 0"), (66, "dial tone"), (200, "200")],
)  # fmt: skip
def test_names(event: int, name: str) -> None:
    (told,) = feed([Sent(100, report(event, 160, end=True), T0)])
    assert (told.key, told.is_key) == (name, event < 16)
    assert event_name(event) == name


def test_lost_ends() -> None:
    """The next press ends it; audio behind it, not beside it; time; the stream's end."""
    events = TelephoneEvents()
    begun = press(1, 1000, 1600)[:2]
    assert keys(feed(begun + press(2, 4000, 800), events, finish=False)) == "12"
    assert not events.pending

    assert feed(begun, events, finish=False) == []
    assert events.pending == {3}
    assert events.audio(3, 1000 + 800 + 800) == []
    (told,) = events.audio(3, 1000 + 800 + 801)
    assert (told.key, told.duration, told.ended, told.packets) == ("1", 800, False, 2)
    assert events.audio(3, 9000) == []

    assert feed(begun, events, finish=False) == []
    deadline = events.next_deadline_ns()
    assert deadline == begun[-1].ns + 500 * MS
    assert events.advance(deadline - 1) == []
    assert keys(events.advance(deadline)) == "1"
    assert events.advance(deadline) == []
    assert events.next_deadline_ns() is None
    assert feed(press(1, 1000, 1600)[2:], events, finish=False)  # opened again: the row has another stream


def test_what_comes_after_it_was_told_is_no_other_press() -> None:
    events = TelephoneEvents()
    packets = press(1, 1000, 1600)
    feed(packets[:2], events, finish=False)
    assert len(events.end(3)) == 1
    for p in packets[2:]:
        assert events.packet(3, 0, p.timestamp, True, p.payload, 0, p.ns) == []
    assert (events.repeated, events.end(3)) == (len(packets) - 2, [])


def test_the_same_key_twice_is_two_presses_even_when_the_first_end_is_lost() -> None:
    assert keys(feed(press(5, 0, 800)[:1] + press(5, 1200, 800))) == "55"


@pytest.mark.parametrize("ends", ["standing", "moving"])
@pytest.mark.parametrize("start", [0, 0xFFFF_FFFF - 500])
@pytest.mark.parametrize("reports", [2, 5, 100, 500])
def test_a_timestamp_that_moves_on_within_a_press(reports: int, start: int, ends: str) -> None:
    """Some senders stamp each report with its own time, and count its duration from the press's start all the same:
    that is how long it was, also beyond the 8 s that 16 bits can tell. The same key again is another press."""
    packets: list[Sent] = []
    for n in (0, 1):
        begin, at = start + n * 160 * (reports + 20), T0 + n * (reports + 20) * 20 * MS
        told = [(k, min(160 * k + 160, SEGMENT), False) for k in range(reports)]
        told += [(reports + k * (ends == "moving"), min(160 * reports, SEGMENT), True) for k in range(3)]
        packets += [
            Sent((begin + 160 * k) & 0xFFFF_FFFF, report(7, duration, end=end), at + k * 20 * MS)
            for k, duration, end in told
        ]
    told_presses = feed(packets)
    assert [(t.key, t.timestamp) for t in told_presses] == [
        ("7", (start + n * 160 * (reports + 20)) & 0xFFFF_FFFF) for n in (0, 1)
    ]
    assert {(t.duration, t.ended) for t in told_presses} == {(160 * reports, True)}


def test_reports_that_each_tell_their_own_part_add_up() -> None:
    """A sender that begins a new segment with each report: RFC 4733, 2.5.1.3, only shorter."""
    packets = [Sent(160 * k, report(7, 160, end=k == 4), T0 + k * 20 * MS) for k in range(5)]
    assert [(t.key, t.duration) for t in feed(packets)] == [("7", 800)]


@pytest.mark.parametrize("start", [0, 0xFFFF_FFFF - 70_000])
@pytest.mark.parametrize("lost", [set(), {"full"}, {"end"}])
def test_a_long_press_is_one(start: int, lost: set[str]) -> None:
    """Three segments of 16 bits (RFC 4733, 2.5.1.3), also over the timestamp's wrap."""
    length = 2 * SEGMENT + 5000
    packets = press(11, start, length)
    assert len({p.timestamp for p in packets}) == 3
    if "full" in lost:
        packets = [p for p in packets if p.payload[2:] != b"\xff\xff"]
    if "end" in lost:
        packets = [p for p in packets if not p.payload[1] & 0x80]
    (told,) = feed(packets)
    assert (told.key, told.timestamp, told.ended) == ("#", start, "end" not in lost)
    assert told.duration == (length if "end" not in lost else length // 400 * 400)
    assert told.duration_s == told.duration / 8000


def test_several_reports_in_a_payload_follow_each_other() -> None:
    """RFC 4733, 2.5.1.4: each begins where the one before it ends."""
    payload = report(1, 800) + report(1, 400) + report(2, 160)
    events = TelephoneEvents()
    events.open(3)
    told = events.packet(3, 0, 1000, True, payload, 500, T0, clock_rate=8000, sample_rate=16000)
    both = [(t.key, t.timestamp, t.position, t.duration) for t in told]
    assert both == [("1", 1000, 500, 800), ("1", 1800, 2100, 400)]
    assert [(t.key, t.timestamp, t.position) for t in events.end(3)] == [("2", 2200, 2900)]


@given(st.binary(max_size=80).filter(lambda b: len(b) % 4 or not b or len(b) > 64))
def test_malformed_payloads_are_counted(payload: bytes) -> None:
    events = TelephoneEvents()
    assert events.packet(0, 0, 0, False, payload, 0, T0) == []
    assert (events.malformed, events.pending) == (1, set())


@given(st.lists(st.tuples(st.integers(0, 0xFFFF_FFFF), st.binary(max_size=12), st.booleans()), max_size=60))
def test_anything_may_come(packets: list[tuple[int, bytes, bool]]) -> None:
    """Never raises; no more presses than reports; no state beyond its bounds."""
    events = TelephoneEvents()
    told = []
    for k, (timestamp, payload, marker) in enumerate(packets):
        told += events.packet(k % 3, k, timestamp, marker, payload, k, T0 + k)
        told += events.audio(k % 3, timestamp)
    told += events.advance(T0 + 10**12)
    assert not events.pending
    assert len(told) <= sum(len(p) // 4 for _, p, _ in packets)
    assert all(t.duration >= 0 for t in told)


Call = tuple[list[tuple[int, int, int]], list[list[Sent]]]


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Presses (key, start, length), and which packets of each survive, some of them several times."""
    at = draw(st.integers(0, 0xFFFF_FFFF))
    presses, kept = [], []
    for _ in range(draw(st.integers(1, 6))):
        key = draw(st.integers(0, 15))
        length = draw(st.integers(240, 4000) | st.just(SEGMENT + 800))
        packets = press(key, at, length, step=160 if length < 5000 else 4000)
        survivors = draw(st.lists(st.sampled_from(range(len(packets))), min_size=1, max_size=2 * len(packets)))
        presses.append((key, at & 0xFFFF_FFFF, length))
        left = [packets[i] for i in survivors]
        kept.append([Sent(p.timestamp, p.payload, p.ns, draw(st.booleans())) for p in left])
        pause = draw(st.integers(320, 20_000))
        # exactly 65,535 from start to start, without an end: nobody could tell these two from segments of one
        at += length + pause + ((length + pause) % SEGMENT == 0)
    return presses, kept


@given(calls())
def test_in_rtp_order_every_press_is_told_once_and_in_order(call: Call) -> None:
    """Lost and repeated packets, at least one of each press left; markers say anything."""
    presses, kept = call
    packets = [p for ps in kept for p in sorted(ps, key=lambda p: p.ns)]
    told = feed(packets)
    assert [t.event for t in told] == [key for key, _, _ in presses]
    for t, (_, start, length), packets in zip(told, presses, kept, strict=True):
        whole = min(packets, key=lambda p: p.ns).timestamp == start
        assert t.timestamp == start or not whole
        ended = any(p.payload[1] & 0x80 for p in packets)
        assert t.ended == ended
        if whole:
            assert t.duration == length if ended else t.duration <= length


@given(calls(), st.randoms(use_true_random=False))
def test_in_any_order_the_presses_are_the_same(call: Call, random: Random) -> None:
    """Each is told once, whatever order their packets come in."""
    presses, kept = call
    packets = [p for ps in kept for p in ps]
    random.shuffle(packets)
    base = presses[0][1]
    told = sorted(feed(packets), key=lambda t: (t.timestamp - base) & 0xFFFF_FFFF)
    assert [t.event for t in told] == [key for key, _, _ in presses]


@pytest.mark.parametrize("name", [*"0123456789", "star", "pound"])
def test_digits_of_a_real_sender(name: str) -> None:
    """The captures that SIPp comes with: one digit each."""
    path = CAPTURES / f"dtmf_2833_{name}.pcap"
    if not path.exists():
        pytest.skip(f"{path.name} is not here: install sip-tester, or name its directory with STREP_CAPTURES")
    events = TelephoneEvents()
    told: list[KeyPress] = []
    with PcapReader(path) as reader:
        for batch in reader.batches():
            for i in range(len(batch)):
                packet = strep.parse_datagram(batch.slab[i, : batch.length[i]].tobytes())
                told += events.packet(
                    0, packet.sequence_number, packet.rtp_timestamp, packet.marker, packet.payload, 0,
                    int(batch.arrival_ns[i]),
                )  # fmt: skip
    assert [t.key for t in told] == [{"star": "*", "pound": "#"}.get(name, name)]
    assert told[0].ended
    assert events.malformed == 0
