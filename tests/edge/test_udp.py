"""The UDP edges on real sockets: both transports give the same batches."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import packet

import strep
from strep._edge.udp import PortableSocket, SteadyClock, UdpSocket, open_socket, parse_address, recvmmsg_available
from strep._model.addresses import format_address
from strep._model.datagrams import DatagramBatch

pytestmark = pytest.mark.realtime

TRANSPORTS = [
    pytest.param("recvmmsg", marks=pytest.mark.skipif(not recvmmsg_available(), reason="no recvmmsg here")),
    "portable",
]
HOSTS = ["127.0.0.1", "[::1]"]


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def pair(
    transport: str, host: str = "127.0.0.1", receive_buffer: int = 8 << 20
) -> Iterator[tuple[UdpSocket, socket.socket]]:
    """A socket of ours and a plain one that is connected to it."""
    ours = open_socket(parse_address(f"{host}:0"), transport=transport, receive_buffer=receive_buffer)
    plain = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    plain.connect((host.strip("[]"), ours.local_port))
    try:
        yield ours, plain
    finally:
        plain.close()
        ours.close()


def all_of(ours: UdpSocket) -> list[DatagramBatch]:
    """What has arrived; loopback delivers before send() returns. Columns are copied: the slab is used again."""
    batches = []
    while (batch := ours.receive()) is not None:
        batches.append(batch.take(np.arange(len(batch))))
    return batches


@pytest.mark.parametrize("host", HOSTS)
def test_lengths_0_to_65507(transport: str, host: str) -> None:
    sizes = [0, 1, 2, 11, 12, 23, 24, 35, 36, 37, 196, 1472, 1473, 2047, 2048, 2049, 9000, 65_507]
    with pair(transport, host) as (ours, plain):
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        payloads = [bytes((size + i) & 0xFF for i in range(size)) for size in sizes]
        for payload in payloads:
            plain.send(payload)
        (batch,) = all_of(ours)
        assert batch.length.tolist() == sizes
        assert [batch.data(i) for i in range(len(batch))] == payloads
        assert batch.first_row is not None
        plain.send(payloads[9])
        (batch,) = all_of(ours)
        assert (batch.data(0), batch.first_row) == (payloads[9], None)


@pytest.mark.parametrize("host", HOSTS)
def test_sources_ports_and_time_stamps(transport: str, host: str) -> None:
    with pair(transport, host) as (ours, plain):
        before = time.time_ns()
        for k in range(5):
            plain.send(packet(k))
        after = time.time_ns()
        (batch,) = all_of(ours)
        name = plain.getsockname()
        assert {format_address(int(h), int(lo)) for h, lo in zip(batch.source_hi, batch.source_lo, strict=True)} == {
            name[0]
        }
        assert set(batch.source_port.tolist()) == {name[1]}
        assert set(batch.local_port.tolist()) == {ours.local_port}
        # the kernel stamps when a datagram arrives, not when it is read
        assert (np.diff(batch.arrival_ns) >= 0).all()
        slack = 2_000_000
        assert before - slack <= batch.arrival_ns[0] <= batch.arrival_ns[-1] <= after + slack
        for column, dtype in (
            (batch.length, np.int32),
            (batch.arrival_ns, np.int64),
            (batch.source_hi, np.uint64),
            (batch.source_port, np.uint16),
            (batch.slab, np.uint8),
        ):
            assert column.dtype == dtype


def test_an_ipv6_socket_takes_ipv4_too(transport: str) -> None:
    ours = open_socket(parse_address("[::]:0"), transport=transport)
    with contextlib.closing(ours), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.sendto(b"four", ("127.0.0.1", ours.local_port))
        (batch,) = all_of(ours)
        assert format_address(int(batch.source_hi[0]), int(batch.source_lo[0])) == "127.0.0.1"


def test_more_than_a_batch(transport: str) -> None:
    with pair(transport) as (ours, plain):
        for k in range(5000):
            plain.send(k.to_bytes(4, "big"))
        batches = all_of(ours)
        assert len(batches) > 1
        numbers = np.concatenate([b.slab[:, :4].copy().view(">u4")[:, 0] for b in batches])
        np.testing.assert_array_equal(numbers, np.arange(5000))
        assert not ours.full
        assert ours.receive() is None


@pytest.mark.skipif(not recvmmsg_available(), reason="no recvmmsg here")
@pytest.mark.parametrize("host", HOSTS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_held_back_comes_first_and_whole(host: str, data: st.DataObject) -> None:
    """Whatever the sizes (small rows, long ones, many long ones) and wherever a batch is cut."""
    with pair("recvmmsg", host) as (ours, plain):
        sent: list[bytes] = []
        got: list[bytes] = []
        arrivals: list[int] = []

        def take(before_ns: int | None) -> int:
            batch = ours.receive(before_ns)
            if batch is None:
                return 0
            got.extend(batch.data(i) for i in range(len(batch)))
            arrivals.extend(batch.arrival_ns.tolist())
            assert set(batch.source_port.tolist()) == {plain.getsockname()[1]}
            assert len(set(zip(batch.source_hi.tolist(), batch.source_lo.tolist(), strict=True))) == 1
            return len(batch)

        size = st.sampled_from([0, 36, 196, 256, 257, 300, 1400, 2048, 2049, 4000, 65_507])
        for _ in range(data.draw(st.integers(1, 5))):
            for part in range(2):
                for length in data.draw(st.lists(size, max_size=12)):
                    sent.append((b"%05d" % len(sent) * 14_000)[:length])
                    plain.send(sent[-1])
                if not part:
                    time.sleep(0.0002)  # the clock of stamps and ours are not read at the same time
                    cut_ns, early = ours.now_ns(), len(sent)
            until = time.monotonic() + 100
            take(cut_ns)
            while len(got) + ours.held_back < len(sent) and time.monotonic() < until:
                take(cut_ns)  # a busy machine delivers later than send() returns
            assert len(got) == early
            assert ours.held_back == len(sent) - early
        take(None)
        assert (got, ours.held_back) == (sent, 0)
        assert arrivals == sorted(arrivals)


@pytest.mark.skipif(not recvmmsg_available(), reason="no recvmmsg here")
@pytest.mark.parametrize("sizes", [[36, 196], [196, 1400, 300], [1400] * 12, [2049, 36, 65_507]])
def test_what_is_held_back_outlives_a_socket_that_cannot_be_read(sizes: list[int]) -> None:
    with pair("recvmmsg") as (ours, plain):
        cut_ns = ours.now_ns()
        sent = [(b"%05d" % k * 14_000)[:size] for k, size in enumerate(sizes)]
        for data in sent:
            plain.send(data)
        while ours.held_back < len(sent):
            assert ours.receive(cut_ns) is None
        fill = ours._table.fill  # type: ignore[attr-defined]
        for _ in range(2):
            ours._table.fill = lambda *a: (_ for _ in ()).throw(OSError(100, "Network is down"))  # type: ignore[attr-defined]
            with pytest.raises(OSError, match="down"):
                ours.receive()
            assert ours.held_back == len(sent)
            ours._table._beyond[:8] = 255  # type: ignore[attr-defined]  # other sockets share it
        ours._table.fill = fill  # type: ignore[attr-defined]
        plain.send(b"behind them")
        got = [batch.data(i) for batch in all_of_whole(ours) for i in range(len(batch))]
        assert got == [*sent, b"behind them"]


def all_of_whole(ours: UdpSocket) -> Iterator[DatagramBatch]:
    while (batch := ours.receive()) is not None:
        yield batch


def proc_drops(port: int) -> int:
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        parts = line.split()
        if int(parts[1].rpartition(":")[2], 16) == port:
            return int(parts[-1])
    raise AssertionError(f"port {port} is not in /proc/net/udp")


@pytest.mark.skipif(not Path("/proc/net/udp").exists(), reason="no /proc/net/udp here")
def test_what_the_kernel_drops_is_sent_less_read(transport: str) -> None:
    """faults.md 25."""
    with pair(transport, receive_buffer=1 << 16) as (ours, plain):
        sent = 2000
        for k in range(sent):
            plain.send(packet(k))
        drops = ours.kernel_dropped()
        read = sum(len(b) for b in all_of(ours))
        assert 0 < read < sent
        assert drops == sent - read == proc_drops(ours.local_port)


def test_the_granted_buffer_is_told(transport: str) -> None:
    with pair(transport, receive_buffer=1 << 17) as (ours, _):
        assert ours.requested_buffer == 1 << 17
        assert ours.granted_buffer == 2 << 17  # Linux doubles what is asked for, for its own overhead


def test_nobody_there_is_no_error(transport: str) -> None:
    """An ICMP answer to something of ours must not end the receiving."""
    with pair(transport) as (ours, plain):
        plain.send(b"x")
        assert len(all_of(ours)) == 1
        assert ours.receive() is None


def test_ports_that_cannot_be_bound(transport: str) -> None:
    with pair(transport) as (ours, _):
        with pytest.raises(strep.BindError, match=f"127.0.0.1:{ours.local_port}.*taken") as caught:
            open_socket(parse_address(f"127.0.0.1:{ours.local_port}"), transport=transport)
        assert caught.value.errno
    with pytest.raises(strep.BindError, match="no interface"):
        open_socket(parse_address("203.0.113.7:0"), transport=transport)


# --- a datagram endpoint where a loop cannot watch sockets ------------------------------------------------------------


async def test_a_datagram_endpoint_fills_the_same_batches() -> None:
    ours = PortableSocket(parse_address("127.0.0.1:0"), rows=64)
    woken = asyncio.Event()
    await ours.attach(asyncio.get_running_loop(), woken.set)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.connect(("127.0.0.1", ours.local_port))
        for size in (0, 1, 196, 2048, 5000):
            plain.send(bytes(size))
        found: list[bytes] = []
        while len(found) < 5:
            await woken.wait()
            woken.clear()
            found += [b.data(i) for b in all_of(ours) for i in range(len(b))]
        assert found == [bytes(size) for size in (0, 1, 196, 2048, 5000)]
        for _ in range(70):
            ours.put(b"x", plain.getsockname())
        assert ours.full is False
        assert sum(len(b) for b in all_of(ours)) == 64
        assert ours.kernel_dropped() == 6
    ours.close()


# --- addresses and the clock ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("udp:0.0.0.0:9000", "0.0.0.0", 9000),
        ("UDP://127.0.0.1:1", "127.0.0.1", 1),
        (":9000", "0.0.0.0", 9000),
        ("localhost:65535", "127.0.0.1", 65_535),
        ("udp:[2001:db8::1]:5", "2001:db8::1", 5),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    address = parse_address(text)
    assert (address.host, address.port) == (host, port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "9000", "udp:", "1.2.3.4", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:65536", "::1:9000", "host.example:9", "1.2.3:9"],
)
def test_addresses_that_are_not(text: str) -> None:
    with pytest.raises(strep.AddressError, match="write"):
        parse_address(text)


def test_the_clock_does_not_step_with_the_wall_clock() -> None:
    wall, monotonic = 10**18, 5 * 10**9
    clock = SteadyClock(lambda: wall, lambda: monotonic)
    assert clock.now_ns() == 10**18
    monotonic += 10**9
    wall += 10**9 + 3_600 * 10**9  # somebody sets it an hour ahead
    assert clock.look() == clock.now_ns() == 10**18 + 10**9
    assert wall + clock.epochs[-1].correction_ns == clock.now_ns()
    assert [epoch.first_ns for epoch in clock.epochs] == [10**18, 10**18 + 10**9]
