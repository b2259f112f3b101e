"""Rings on loopback, with exact counts: what a socket would have read, whole, in order, with its source and time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import packet

import strep
from strep._edge.ring.guard import GuardPort
from strep._edge.ring.layout import FRAME_BYTES
from strep._edge.ring.rings import Rings
from strep._edge.udp import SteadyClock, parse_address
from strep._model.addresses import format_address
from strep._model.datagrams import DatagramBatch
from strep._receiver.hooks import Hooks
from strep._receiver.settings import Settings

pytestmark = [pytest.mark.realtime, pytest.mark.usefixtures("ring_here")]

SMALL = 4 << 20
UDP_SEGMENT = 103
HOSTS = ["127.0.0.1", "[::1]"]


@contextlib.contextmanager
def ring(host: str, *interfaces: str, receive_buffer: int = SMALL) -> Iterator[tuple[Rings, GuardPort, socket.socket]]:
    """A ring, a port of it, and a plain socket that is connected to it."""
    rings = Rings(interfaces, receive_buffer=receive_buffer, clock=SteadyClock())
    port = rings.open(parse_address(f"{host}:0"), receive_buffer)
    rings.add(port)
    plain = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    plain.connect(({"0.0.0.0": "127.0.0.1"}.get(host, host).strip("[]"), port.local_port))
    try:
        yield rings, port, plain
    finally:
        plain.close()
        rings.close()
        port.close()


def payloads_of(rings: Rings) -> list[bytes]:
    found = []
    while (batch := rings.receive()) is not None:
        found += [batch.data(i) for i in range(len(batch))]
    return found


@pytest.mark.parametrize("host", HOSTS)
def test_lengths_0_to_65507(host: str) -> None:
    """What is longer than a frame, or than the way (fragments), comes whole."""
    sizes = [0, 1, 2, 12, 63, 64, 196, 811, 812, 813, 832, 833, 1472, 2048, 2049, 9000, 65_507]
    with ring(host) as (rings, _, plain):
        sent = [bytes((size + i) & 0xFF for i in range(size)) for size in sizes]
        for payload in sent:
            plain.send(payload)
        batch = rings.receive()
        assert batch is not None
        assert [batch.data(i) for i in range(len(batch))] == sent
        assert batch.length.tolist() == sizes
        assert not rings.skipped


@pytest.mark.parametrize("host", HOSTS)
def test_sources_ports_and_time_stamps(host: str) -> None:
    with ring(host) as (rings, port, plain):
        before = time.time_ns()
        for i in range(10):
            plain.send(bytes([i]) * 172)
        after = time.time_ns()
        batch = rings.receive()
        assert isinstance(batch, DatagramBatch)
        assert len(batch) == 10
        assert set(batch.local_port.tolist()) == {port.local_port}
        assert set(batch.source_port.tolist()) == {plain.getsockname()[1]}
        assert format_address(int(batch.source_hi[0]), int(batch.source_lo[0])) == host.strip("[]")
        assert (np.diff(batch.arrival_ns) >= 0).all()
        slack_ns = 5_000_000
        assert before - slack_ns <= batch.arrival_ns[0] <= batch.arrival_ns[-1] <= after + slack_ns


@pytest.mark.parametrize("host", HOSTS)
def test_many_long_ones_among_others(host: str) -> None:
    """More than one call of the kernel brings, with short ones, and others that are not as usual, between them."""
    sizes = [1200, 100, 1024, 9000, 0, 40_000] * 150
    with ring(host, receive_buffer=64 << 20) as (rings, _, plain):
        sent = [bytes([i & 0xFF]) * size + bytes([i >> 8]) for i, size in enumerate(sizes)]
        for i, payload in enumerate(sent):
            if i % 50 == 49 and plain.family == socket.AF_INET:
                plain.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\1" * 4 if i % 100 == 99 else b"")
            plain.send(payload)
        assert payloads_of(rings) == sent
        assert not rings.skipped


def test_segmentation_offload_is_taken_apart() -> None:
    """A sender on this machine with UDP_SEGMENT is one frame for many datagrams."""
    data = bytes((i * 31) & 0xFF for i in range(10 * 196 + 50))
    with ring("127.0.0.1") as (rings, _, plain):
        plain.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 196)
        plain.send(data)
        plain.send(data[:400])  # it fits into a frame
        expected = [data[at : at + 196] for at in range(0, len(data), 196)]
        assert payloads_of(rings) == [*expected, data[:196], data[196:392], data[392:400]]


def test_the_ring_goes_round_and_keeps_order() -> None:
    """Three times around a small ring, in looks of many sizes, nothing lost, nothing twice."""
    with ring("127.0.0.1", receive_buffer=1 << 17) as (rings, _, plain):
        frames = rings.granted_buffer // FRAME_BYTES
        sent = found = 0
        rng = np.random.default_rng(1)
        numbers: list[int] = []
        while sent < 3 * frames:
            for _ in range(int(rng.integers(1, frames))):
                plain.send(struct.pack("!I", sent))
                sent += 1
            numbers += [int.from_bytes(payload, "big") for payload in payloads_of(rings)]
            found = len(numbers)
        assert numbers == list(range(sent))
        assert (found, rings.kernel_dropped(), rings.count_rest()) == (sent, 0, 0)


def test_what_finds_no_room_is_counted() -> None:
    with ring("127.0.0.1", receive_buffer=1 << 17) as (rings, _, plain):
        frames = rings.granted_buffer // FRAME_BYTES
        for _ in range(frames + 100):
            plain.send(b"x" * 172)
        assert rings.kernel_dropped() == 100
        assert len(payloads_of(rings)) == frames
        for _ in range(7):
            plain.send(b"x" * 172)
        assert (len(payloads_of(rings)), rings.kernel_dropped()) == (7, 100)  # read twice, counted once


def test_what_came_at_or_after_a_time_is_left_for_the_next_look() -> None:
    with ring("127.0.0.1") as (rings, _, plain):
        for i in range(20):
            plain.send(bytes([i]) * 40)
        reader = rings._readers[0]
        stamps = reader._socket.frames.view(np.uint32)[:20, 4:6].astype(np.int64)
        cut_ns = int(stamps[12, 0] * 1_000_000_000 + stamps[12, 1])
        first = rings.receive(before_ns=cut_ns)
        assert first is not None
        times = first.arrival_ns.tolist()
        assert [first.data(i)[0] for i in range(len(first))] == list(range(12))
        assert (rings.held_back, rings.full) == (8, False)
        plain.send(bytes([20]) * 40)
        second = rings.receive()
        assert second is not None
        assert [second.data(i)[0] for i in range(len(second))] == list(range(12, 21))
        times += second.arrival_ns.tolist()
        assert times == sorted(times)
        assert rings.held_back == 0


def test_after_the_end_things_are_counted_and_not_given() -> None:
    with ring("127.0.0.1") as (rings, _, plain):
        for _ in range(5):
            plain.send(b"before")
        rings.shut()
        for _ in range(3):
            plain.send(b"after")
        assert rings.count_rest() == 5
        assert payloads_of(rings) == [b"before"] * 5
        assert (rings.count_rest(), rings.after_end(), rings.kernel_dropped()) == (0, 3, 0)


def test_the_port_is_taken_and_nobody_answers() -> None:
    with ring("127.0.0.1") as (rings, port, plain):
        with pytest.raises(strep.BindError, match="taken by another program"):
            rings.open(parse_address(f"127.0.0.1:{port.local_port}"), SMALL)
        plain.send(b"x")
        plain.send(b"x")  # an ICMP answer to the first would be told here
        with pytest.raises(BlockingIOError):
            plain.recv(1, socket.MSG_DONTWAIT)
        assert payloads_of(rings) == [b"x"] * 2


def test_ports_and_addresses_as_with_sockets() -> None:
    """What is for another port or another address of the machine is not given; pairs may come and go."""
    with ring("127.0.0.1") as (rings, port, plain):
        other = rings.open(parse_address("0.0.0.0:0"), SMALL)
        plain.sendto(b"early", ("127.0.0.1", other.local_port))
        rings.add(other)
        for host in ("127.0.0.1", "127.0.0.2"):
            for number in (port.local_port, other.local_port):
                plain.sendto(f"{host} {number}".encode(), (host, number))
        assert payloads_of(rings) == [
            f"127.0.0.1 {port.local_port}".encode(),
            f"127.0.0.1 {other.local_port}".encode(),
            f"127.0.0.2 {other.local_port}".encode(),
        ]
        plain.sendto(b"before", ("127.0.0.1", other.local_port))
        other.shut()
        plain.sendto(b"after", ("127.0.0.1", other.local_port))
        assert (payloads_of(rings), other.kernel_dropped()) == ([b"before"], 1)
        other.close()
        plain.send(b"still")
        assert payloads_of(rings) == [b"still"]


def test_an_ipv6_port_for_all_takes_both() -> None:
    with ring("[::]") as (rings, port, plain):
        plain.sendto(b"six", ("::1", port.local_port))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as four:
            four.sendto(b"four", ("127.0.0.1", port.local_port))
        assert sorted(payloads_of(rings)) == [b"four", b"six"]


def test_an_interface_is_looked_at_alone_and_must_be_there() -> None:
    with pytest.raises(strep.ConfigurationError, match=r"there is no interface 'nonsense0': there are .*lo"):
        Rings(["nonsense0"], receive_buffer=SMALL, clock=SteadyClock())
    with ring("127.0.0.1", "lo") as (rings, _, plain):
        plain.send(b"x")
        assert (payloads_of(rings), rings.interfaces) == ([b"x"], "lo")


# --- a receiver -------------------------------------------------------------------------------------------------------


def port_of(receiver: strep.Receiver) -> int:
    return int(receiver.sockets[0].address.rpartition(":")[2])


async def test_a_receiver_and_its_replay(tmp_path: Path) -> None:
    """STREP to the port, plain RTP to a pair: the figures of a live run are those of its recording's replay."""
    path = tmp_path / "a.pcap"
    async with strep.Receiver("127.0.0.1:0", transport="ring", receive_buffer=SMALL, pcap=path) as receiver:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            pair = await receiver.open_pair()
            for i in range(100):
                plain.sendto(packet(i), ("127.0.0.1", port_of(receiver)))
                plain.sendto(packet(i, call=None), ("127.0.0.1", pair.rx))
                plain.sendto(packet(i, call=None, ssrc=7), ("127.0.0.1", pair.tx))
                await asyncio.sleep(0.001)
            while receiver.totals().datagrams < 300:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert receiver.close_pair(pair) == 2
            plain.sendto(b"late", ("127.0.0.1", pair.rx))
        sockets = receiver.sockets
    assert [(s.role, s.transport) for s in sockets] == [("listen", "ring"), ("ring", "ring")]
    totals = receiver.totals()
    assert (totals.datagrams, totals.delivered, totals.kernel_dropped, totals.after_end) == (300, 300, 0, 0)
    replayed = strep.replay(path)
    live, again = ([r.as_dict() for r in reports] for reports in (receiver.reports(), replayed.reports()))
    for one in (*live, *again):
        del one["end"]  # a file just ends
    assert again == live


async def test_the_accounts_are_exact_while_a_sender_goes_on() -> None:
    """sent = datagrams + kernel_dropped + after_end, with the end in the middle of a flood."""
    stop = False
    sent = 0

    def flood() -> None:
        nonlocal sent
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            while not stop:
                plain.sendto(packet(sent & 0xFFFF), target)
                sent += 1

    sender = threading.Thread(target=flood)

    def end_flood() -> None:
        """The door was shut long ago, everything has been read, and nothing is closed yet."""
        nonlocal stop
        enough = sent + 10
        while sent < enough:
            time.sleep(0.001)
        stop = True
        sender.join()

    settings = Settings("127.0.0.1:0", transport="ring", receive_buffer=1 << 18)
    receiver = strep.Receiver.of(settings, hooks=Hooks(received_all=end_flood))
    await receiver.start()
    target = ("127.0.0.1", port_of(receiver))
    sender.start()
    await asyncio.sleep(0.3)
    await receiver.stop()
    totals = receiver.totals()
    assert totals.datagrams > 0
    assert totals.after_end >= 9
    assert sent == totals.datagrams + totals.kernel_dropped + totals.after_end


async def test_senders_that_are_not_allowed_are_rejected_by_the_engine() -> None:
    """The ring is in front of the firewall: this is what limits them."""
    options = {"transport": "ring", "receive_buffer": SMALL, "allow": ["10.0.0.0/8"]}
    async with strep.Receiver("127.0.0.1:0", **options) as receiver:  # type: ignore[arg-type]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            for i in range(5):
                plain.sendto(packet(i), ("127.0.0.1", port_of(receiver)))
        while receiver.totals().datagrams < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert receiver.totals().rejected_by == {"source": 5}


def test_without_the_capability_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def refuse(family: int = socket.AF_INET, *rest: int, **options: object) -> socket.socket:
        if family == socket.AF_PACKET:
            raise PermissionError(1, "Operation not permitted")
        return real(family, *rest, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr("strep._edge.ring.packet_socket.socket.socket", refuse)
    with pytest.raises(strep.ConfigurationError, match="NET_RAW") as raised:
        asyncio.run(strep.Receiver("127.0.0.1:0", transport="ring").start())
    for way in ("setcap", "AmbientCapabilities=CAP_NET_RAW", "--cap-add NET_RAW"):
        assert way in str(raised.value)
