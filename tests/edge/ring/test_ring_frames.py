"""Frames of the ring, built by hand: one vector for each thing that may be odd about one."""

from __future__ import annotations

import socket
import struct
from collections import Counter

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_frames import (
    HERE,
    HERE6,
    STATUS_COPY,
    STATUS_NOT_READY,
    STATUS_USER,
    STATUS_VALID,
    THERE,
    Frame,
    ipv4,
    ipv6,
    ring_of,
    udp,
)

from strep._edge.ring.frames import FrameDecoder
from strep._edge.ring.layout import IPV4, IPV6, IpVersion
from strep._edge.ring.ports import PortTable
from strep._model.addresses import format_address

OPTIONS = bytes([0x94, 4, 0, 0])  # router alert
LOCAL = {socket.inet_aton(HERE), socket.inet_aton("10.0.0.9"), socket.inet_pton(socket.AF_INET6, HERE6)}
UNCHECKED = STATUS_USER  # nobody has checked its checksum
Told = tuple[bytes, int, str, int, int]  # payload, length, source, source port, local port


class Ring:
    def __init__(self, version: IpVersion = IPV4, ports: tuple[int, ...] = (9000,), host: bytes = b"") -> None:
        self.skipped: Counter[str] = Counter()
        self.ports = PortTable(version.address_bytes)
        for port in ports:
            self.ports.bind(port, host or bytes(version.address_bytes))
        self.decoder = FrameDecoder(version, self.ports, LOCAL, self.skipped)

    def found(self, *frames: Frame) -> list[Told]:
        ring, long = ring_of(list(frames))
        batch = self.decoder.decode(ring, np.arange(len(frames), dtype=np.int64), long)
        if batch is None:
            return []
        assert batch.slab.flags.c_contiguous
        assert batch.slab.shape[1] >= 64
        return [
            (
                batch.data(i), int(batch.length[i]), format_address(int(batch.source_hi[i]), int(batch.source_lo[i])),
                int(batch.source_port[i]), int(batch.local_port[i]),
            )
            for i in range(len(batch))
        ]  # fmt: skip

    @property
    def counted(self) -> dict[str, int]:
        return {cause: count for cause, count in self.skipped.items() if count}


def told(payload: bytes, source: str = THERE, port: int = 9000) -> Told:
    return payload, len(payload), source, 4000, port


def media(n: int = 0, size: int = 172) -> bytes:
    return bytes([0x80, n & 0xFF]) + bytes((i * 7 + n) & 0xFF for i in range(max(size - 2, 0)))


@pytest.mark.parametrize("size", [0, 1, 2, 12, 63, 64, 172, 640, 831, 832])
def test_a_usual_packet_of_any_length_that_fits(size: int) -> None:
    ring = Ring()
    payload = media(size=size)[:size]
    assert ring.found(Frame(ipv4(udp(payload)))) == [told(payload)]
    assert ring.found(Frame(ipv4(udp(media())))) == [told(media())]  # its memory is used again
    assert not ring.counted


@pytest.mark.parametrize("size", [0, 1, 172, 811, 812])
def test_ipv6(size: int) -> None:
    ring = Ring(IPV6)
    payload = media(size=size)[:size]
    packet = ipv6(udp(payload, HERE6, "2001:db8::2"))
    assert ring.found(Frame(packet), Frame(packet, status=UNCHECKED)) == [told(payload, "2001:db8::2")] * 2


ODD: dict[str, tuple[Frame, list[Told], dict[str, int]]] = {
    "options": (Frame(ipv4(udp(media()), options=OPTIONS)), [told(media())], {}),
    "no link header (a tunnel)": (Frame(ipv4(udp(media())), link=b""), [told(media())], {}),
    "padding behind the packet": (Frame(ipv4(udp(media(size=2)[:2])) + bytes(16)), [told(media(size=2))], {}),
    "checksum not computed yet": (
        Frame(ipv4(udp(media())[:6] + b"\x12\x34" + media()), STATUS_USER | STATUS_NOT_READY), [told(media())], {},
    ),
    "checksum right, nobody has checked it": (Frame(ipv4(udp(media())), status=UNCHECKED), [told(media())], {}),
    "the same, odd length": (Frame(ipv4(udp(media(size=171))), status=UNCHECKED), [told(media(size=171))], {}),
    "the same, options": (Frame(ipv4(udp(media()), options=OPTIONS), status=UNCHECKED), [told(media())], {}),
    "checksum wrong": (
        Frame(ipv4(udp(media())[:-1] + b"\0"), status=UNCHECKED), [], {"bad_checksum": 1},
    ),
    "no checksum": (Frame(ipv4(udp(media())[:6] + b"\0\0" + media()), status=UNCHECKED), [told(media())], {}),
    "longer than a frame, in the queue": (
        Frame(ipv4(udp(media(size=5000))), STATUS_USER | STATUS_COPY | STATUS_VALID), [told(media(size=5000))], {},
    ),
    "longer than a frame, cut": (
        Frame(ipv4(udp(media(size=5000)))), [(media(size=5000)[:832], 5000, THERE, 4000, 9000)], {},
    ),
    "longer than a frame, its checksum is not known": (
        Frame(ipv4(udp(media(size=5000))), status=UNCHECKED), [(media(size=5000)[:832], 5000, THERE, 4000, 9000)], {},
    ),
    "segmentation offload": (
        Frame(ipv4(udp(media(size=500))), status=STATUS_USER | STATUS_NOT_READY, gso_type=5, gso_size=196),
        [told(media(size=500)[a:a + 196]) for a in (0, 196, 392)], {},
    ),
    "segmentation offload, all full": (
        Frame(ipv4(udp(media(size=392))), gso_type=5, gso_size=196),
        [told(media(size=392)[a:a + 196]) for a in (0, 196)], {},
    ),
    "segmentation offload, with ECN, longer than a frame": (
        Frame(ipv4(udp(media(size=4000))), status=STATUS_USER | STATUS_COPY | STATUS_NOT_READY, gso_type=0x85,
              gso_size=1000),
        [told(media(size=4000)[a:a + 1000]) for a in (0, 1000, 2000, 3000)], {},
    ),
    "segmentation offload of size 0": (Frame(ipv4(udp(media())), gso_type=5), [told(media())], {}),
    "another kind of offload": (Frame(ipv4(udp(media())), gso_type=3, gso_size=100), [told(media())], {}),
    "to another port": (Frame(ipv4(udp(media(), port=9001))), [], {}),
    "to another machine": (Frame(ipv4(udp(media(), "10.0.0.77"), "10.0.0.77")), [], {"forwarded": 1}),
    "no UDP": (Frame(ipv4(bytes(40), protocol=6)), [], {"tcp": 1}),
    "a tunnel": (Frame(ipv4(ipv4(udp(media())), protocol=4)), [], {"tunnel": 1}),
    "version 6 under the wrong type": (Frame(b"\x75" + ipv4(udp(media()))[1:]), [], {"not_ip": 1}),
    "header longer than the packet": (Frame(b"\x4f" + ipv4(udp(b"x"))[1:]), [], {"short": 1}),
    "header shorter than 20": (Frame(b"\x44" + ipv4(udp(media()))[1:]), [], {"short": 1}),
    "UDP length beyond the packet": (
        Frame(ipv4(struct.pack("!HHHH", 4000, 9000, 900, 0) + media())), [], {"bad_udp_length": 1},
    ),
    "UDP length below 8": (Frame(ipv4(struct.pack("!HHHH", 4000, 9000, 7, 0) + media())), [], {"bad_udp_length": 1}),
    "UDP shorter than the packet": (Frame(ipv4(udp(media()) + b"trailer")), [told(media())], {}),
    "IP length beyond the frame": (
        Frame(ipv4(struct.pack("!HHHH", 4000, 9000, 308, 0) + media(size=172), total=328)),
        [(media(size=172), 300, THERE, 4000, 9000)], {},
    ),
    "cut inside the headers": (Frame(ipv4(udp(media())), room=40), [], {"short": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_packets(name: str) -> None:
    """Each alone, and between usual ones, which it does not touch."""
    frame, datagrams, counted = ODD[name]
    alone = Ring()
    assert alone.found(frame) == datagrams
    assert alone.counted == counted
    among = Ring()
    usual = [Frame(ipv4(udp(media(n)))) for n in (1, 2)]
    assert among.found(usual[0], frame, usual[1], frame) == [
        told(media(1)), *datagrams, told(media(2)), *datagrams
    ]  # fmt: skip
    assert among.counted == {cause: 2 * count for cause, count in counted.items()}


ODD6: dict[str, tuple[Frame, list[Told], dict[str, int]]] = {
    "hop-by-hop options": (
        Frame(ipv6(bytes([17, 0, 1, 4, 0, 0, 0, 0]) + udp(media(), HERE6, "2001:db8::2"), following=0)),
        [told(media(), "2001:db8::2")], {},
    ),
    "the same, nobody has checked it": (
        Frame(ipv6(bytes([17, 0, 1, 4, 0, 0, 0, 0]) + udp(media(), HERE6, "2001:db8::2"), following=0), UNCHECKED),
        [told(media(), "2001:db8::2")], {},
    ),
    "no checksum, which IPv6 forbids": (
        Frame(ipv6(udp(media(), HERE6, "2001:db8::2")[:6] + b"\0\0" + media())), [], {"no_checksum": 1},
    ),
    "checksum wrong": (
        Frame(ipv6(udp(media(1), HERE6, "2001:db8::2")[:8] + media(2)), UNCHECKED), [], {"bad_checksum": 1},
    ),
    "a tunnel behind options": (
        Frame(ipv6(bytes([4, 0, 1, 4, 0, 0, 0, 0]) + ipv4(udp(media())), following=0)), [], {"tunnel": 1},
    ),
    "segmentation offload": (
        Frame(ipv6(udp(media(size=300), HERE6, "2001:db8::2")), STATUS_USER | 8, gso_type=5, gso_size=196),
        [told(media(size=300)[a:a + 196], "2001:db8::2") for a in (0, 196)], {},
    ),
    "cut": (
        Frame(ipv6(udp(media(size=3000), HERE6, "2001:db8::2"))),
        [(media(size=3000)[:812], 3000, "2001:db8::2", 4000, 9000)], {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD6)
def test_odd_packets_of_ipv6(name: str) -> None:
    frame, datagrams, counted = ODD6[name]
    ring = Ring(IPV6)
    assert ring.found(frame) == datagrams
    assert ring.counted == counted


def fragments(body: bytes, size: int, number: int = 7) -> list[Frame]:
    cuts = range(0, len(body), size)
    return [
        Frame(
            ipv4(body[at : at + size], fragment=at // 8 | (0x2000 if at + size < len(body) else 0), number=number),
            UNCHECKED,
        )
        for at in cuts
    ]


def test_fragments_in_any_order_and_over_batches() -> None:
    """The kernel puts those of IPv4 together where it can; here nobody has."""
    ring = Ring()
    first, second = fragments(udp(media(1, 1500)), 640, 1), fragments(udp(media(2, 1600)), 640, 2)
    assert ring.found(first[2], second[0], first[0], second[1]) == []
    usual = Frame(ipv4(udp(media())))
    assert ring.found(usual, second[2], usual, first[1]) == [
        told(media()), told(media(2, 1600)), told(media()), told(media(1, 1500))
    ]  # fmt: skip
    assert ring.decoder.joined == 2
    damaged = fragments(udp(media(1, 1500))[:-1] + b"\xff", 640, 3)
    assert ring.found(*damaged) == []
    assert ring.counted == {"bad_checksum": 1}


def test_fragments_of_ipv6() -> None:
    ring = Ring(IPV6)
    body = udp(media(size=1500), HERE6, "2001:db8::2")

    def piece(begin: int, end: int) -> Frame:
        head = struct.pack("!BBHI", 17, 0, begin | (end < len(body)), 99)
        return Frame(ipv6(head + body[begin:end], following=44), UNCHECKED)

    assert ring.found(piece(720, 1440), piece(1440, 9999), piece(0, 720)) == [told(media(size=1500), "2001:db8::2")]


def test_a_port_that_is_bound_to_one_address() -> None:
    """As with sockets: what comes to another address of the machine is not for it."""
    ring = Ring(host=socket.inet_aton("10.0.0.9"))
    ring.ports.bind(9001, bytes(4))
    to_9 = Frame(ipv4(udp(media(9), "10.0.0.9"), "10.0.0.9"))
    to_1, free = Frame(ipv4(udp(media(1)))), Frame(ipv4(udp(media(2), port=9001)))
    assert ring.found(to_9, to_1, free) == [told(media(9)), told(media(2), port=9001)]
    assert ring.found(to_9, to_9) == [told(media(9))] * 2
    ring.ports.unbind(9000)
    assert ring.found(to_9, free) == [told(media(2), port=9001)]
    assert not ring.counted


@st.composite
def any_frames(draw: st.DrawFn) -> list[Frame]:
    """Sound ones, of all kinds, and ones with bytes changed anywhere."""
    made = []
    for n in range(draw(st.integers(1, 8))):
        frame = draw(st.sampled_from([Frame(ipv4(udp(media(n, 172)))), *(frame for frame, _, _ in ODD.values())]))
        packet = bytearray(frame.packet)
        for at in draw(st.lists(st.integers(0, min(len(packet), 60) - 1), max_size=3)):
            packet[at] = draw(st.integers(0, 255))
        made.append(Frame(bytes(packet), frame.status, frame.link, frame.gso_type, frame.gso_size, frame.room))
    return made


@settings(max_examples=usual_or_slow(150, 3000), deadline=None)
@given(any_frames())
def test_frames_together_give_what_each_alone_gives(frames: list[Frame]) -> None:
    """Whatever is in them nothing raises, the usual way and the odd way agree, and nothing is counted twice."""
    frames = [frame for frame in frames if not _fragment(frame)]
    if not frames:
        return
    together = Ring()
    found = together.found(*frames)
    each, counted = [], Counter[str]()
    for frame in frames:
        alone = Ring()
        each += alone.found(frame)
        counted += Counter(alone.counted)
    assert found == each
    assert together.counted == dict(counted)


def _fragment(frame: Frame) -> bool:
    return len(frame.packet) >= 8 and bool((frame.packet[6] << 8 | frame.packet[7]) & 0x3FFF)


def test_the_usual_way_agrees_with_the_odd_one() -> None:
    """The same packets once as usual ones, once with a status that sends them the other way."""
    usual, odd = Ring(), Ring()
    packets = [ipv4(udp(media(n, size))) for n, size in enumerate((0, 1, 12, 172, 500, 640, 832))]
    found = usual.found(*(Frame(packet, STATUS_USER | STATUS_VALID) for packet in packets))
    assert found == odd.found(*(Frame(packet, UNCHECKED) for packet in packets))
    assert len(found) == len(packets)
