"""Fragments: when a packet is whole, what is in it, and what a flood of them may cost."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_frames import HERE6, THERE6, Frame, ipv4, ipv6, ring_of, udp

from strep._edge.pcap import fragments
from strep._edge.pcap.fragments import Fragments
from strep._edge.ring.frames import FrameDecoder
from strep._edge.ring.layout import IPV6
from strep._edge.ring.ports import PortTable

HEADER = ipv4(b"")[:20]
Piece = tuple[int, int, bool, int]  # where it begins and how long it is, in units of 8 bytes; more behind; its bytes


def header(begin: int, more: bool) -> bytes:
    return HEADER[:6] + (begin | more << 13).to_bytes(2, "big") + HEADER[8:]


def whole_of(pieces: list[Piece]) -> bytes | None:
    """By the book, anew for each fragment: the first of an offset counts, the first end is the end; where two overlap,
    the earlier place wins."""
    parts: dict[int, bytes] = {}
    total = -1
    for begin, size, more, fill in pieces:
        parts.setdefault(begin * 8, bytes([fill]) * (size * 8))
        if not more and total < 0:
            total = (begin + size) * 8
    if total < 0 or 0 not in parts:
        return None
    out = b""
    for at in sorted(parts):
        if at > len(out):
            break
        out += parts[at][len(out) - at :]
    return out[:total] if len(out) >= total else None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4), st.booleans(), st.integers(0, 255)), max_size=14))
def test_a_packet_is_whole_when_the_book_says_so(pieces: list[Piece]) -> None:
    """Holes, overlaps, repetitions and several ends, in any order."""
    found = Fragments(Counter())
    since = 0
    for i, (begin, size, more, fill) in enumerate(pieces):
        body = bytes([fill]) * (size * 8)
        packet = found._add(header(begin, more), body, len(body), 17, 0)
        wanted = whole_of(pieces[since : i + 1])
        assert (None if packet is None else packet[20:]) == wanted
        if packet is not None:
            since = i + 1


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_thousands_of_fragments_of_one_packet_are_looked_at_once(order: str) -> None:
    """Behind the last one, so that each might have been the one that was missing: nothing is gone through again."""
    count = 8000
    rest = list(range(1, count - 1))
    if order == "mixed":
        np.random.default_rng(1).shuffle(rest)
    places = [count - 1, *(rest if order == "rising" else rest[::-1] if order == "falling" else rest)]
    places.insert(1 if order == "rising" else len(places), 0)
    found = Fragments(Counter())
    with mock.patch.object(fragments, "_together", wraps=fragments._together) as together:
        done = [
            packet
            for at in places
            if (packet := found._add(header(at, at < count - 1), at.to_bytes(8, "big"), 8, 17, 0)) is not None
        ]
    assert together.call_count == 1
    assert [packet[20:] for packet in done] == [b"".join(at.to_bytes(8, "big") for at in range(count))]
    assert not found._open


class Anybody:
    def __contains__(self, address: object) -> bool:
        return True


def of_ipv6(number: int, at: int, more: bool, body: bytes) -> Frame:
    head = bytes([17, 0]) + (at | more).to_bytes(2, "big") + number.to_bytes(4, "big")
    return Frame(ipv6(head + body, following=44))


def test_a_flood_of_fragments_is_looked_at_up_to_a_limit() -> None:
    """128 in 10 ms; the others are counted by name. What comes in the next 10 ms is put together again."""
    skipped: Counter[str] = Counter()
    ports = PortTable(16)
    ports.bind(9000, bytes(16))
    decoder = FrameDecoder(IPV6, ports, Anybody(), skipped)
    datagrams = [udp(bytes([n]) * 800, HERE6, THERE6) for n in range(200)]
    pairs = [
        frame
        for n, data in enumerate(datagrams)
        for frame in (of_ipv6(n, 0, True, data[:400]), of_ipv6(n, 400, False, data[400:]))
    ]
    tick = 10_000_000
    usual = Frame(ipv6(udp(b"u" * 172, HERE6, THERE6)))

    def found(frames: list[Frame], at_ns: int) -> list[int]:
        ring, long = ring_of(frames)
        batch = decoder.decode(ring, np.full(len(frames), at_ns, np.int64), long)
        return [] if batch is None else [batch.data(i)[0] for i in range(len(batch))]

    assert found(pairs[:128], 0) == list(range(64))
    assert not skipped
    assert found(pairs[:200], tick) == list(range(64))
    assert skipped["fragment_flood"] == 72
    assert found([*pairs[200:300], usual], tick + 9_999_999) == [ord("u")]  # of the same 10 ms: none, over batches too
    assert skipped["fragment_flood"] == 172
    assert found([usual, *pairs[300:]], 2 * tick) == [ord("u"), *range(150, 200)]
    assert skipped["fragment_flood"] == 172
    assert found(pairs[:100], tick) == list(range(14))  # a clock that goes back is no new time
    assert skipped["fragment_flood"] == 172 + 72
