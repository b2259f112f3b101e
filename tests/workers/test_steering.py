"""The kernel sends every datagram to the worker that ``worker_of`` says, and nobody else gets any."""

from __future__ import annotations

import random
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from steered import of_every_kind
from support import leg_id, packet

import strep
from strep._edge.udp import UdpAddress, parse_address
from strep._edge.udp.base import dropped_by_kernel
from strep._workers import steering
from strep._workers.ports import SteeringError, bind_group
from strep._workers.steering import worker_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux steers datagrams by a program")

ANY_PORT = UdpAddress("127.0.0.1", 0)


@contextmanager
def group(workers: int, address: UdpAddress = ANY_PORT) -> Iterator[list[socket.socket]]:
    sockets = bind_group(address, workers, 4 << 20)
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


def received(
    sockets: list[socket.socket], datagrams: list[bytes], to: tuple[str, int] | None = None
) -> list[list[bytes]]:
    """Send all, and say what each socket got."""
    to = to or sockets[0].getsockname()
    got: list[list[bytes]] = [[] for _ in sockets]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for begin in range(0, len(datagrams), 50):  # no more than the smallest buffer holds
            part = datagrams[begin : begin + 50]
            for data in part:
                sender.sendto(data, to)
            deadline = time.monotonic() + 100
            while sum(map(len, got)) < begin + len(part):
                assert time.monotonic() < deadline, [len(part) for part in got]
                for sock in select.select(sockets, [], [], 0.1)[0]:
                    got[sockets.index(sock)].append(sock.recv(4096))
    assert not select.select(sockets, [], [], 0)[0]
    return got


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5])
def test_the_kernel_steers_as_we_say(workers: int) -> None:
    datagrams = of_every_kind(random.Random(workers))
    with group(workers) as sockets:
        got = received(sockets, datagrams)
    for number, part in enumerate(got):
        assert part == [data for data in datagrams if worker_of(data, workers) == number]
        assert len(part) > len(datagrams) // workers // 3


def test_all_of_a_call_leg_meets_in_one_worker() -> None:
    for n in range(200):
        both = {
            worker_of(packet(k, call=leg_id(n), leg=g, direction=d), 7) for k in (1, 9) for g in (0, 1) for d in (0, 1)
        }
        assert len(both) == 1
    spread = [worker_of(packet(0, call=leg_id(n)), 4) for n in range(400)]
    assert all(60 < spread.count(worker) < 140 for worker in range(4))


def test_ipv6_and_mapped_addresses_are_steered_alike() -> None:
    datagrams = of_every_kind(random.Random(6))[:400]
    with group(3, parse_address("[::]:0")) as sockets:
        got = received(sockets, datagrams, ("127.0.0.1", sockets[0].getsockname()[1]))
    assert got == [[data for data in datagrams if worker_of(data, 3) == number] for number in range(3)]


def test_a_port_that_somebody_has_is_refused_even_if_he_would_share_it() -> None:
    for share in (False, True):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            if share:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            with pytest.raises(strep.BindError, match="taken"):
                bind_group(UdpAddress(*other.getsockname()), 2, 1 << 20)


def test_who_joins_the_port_later_gets_nothing() -> None:
    with group(2) as sockets, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        thief.bind(sockets[0].getsockname())
        received(sockets, of_every_kind(random.Random(1)))
        assert not select.select([thief], [], [], 0)[0]


def test_an_incomplete_group_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would go astray while sockets are being added is refused, and counted by the kernel."""
    original = steering.attach_program

    def send_first(member: socket.socket, workers: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for n in range(20):
                sender.sendto(packet(0, call=leg_id(n)), member.getsockname())
        original(member, workers)

    monkeypatch.setattr(steering, "attach_program", send_first)
    with group(2) as sockets:
        assert not select.select(sockets, [], [], 0.05)[0]
        assert sum(map(dropped_by_kernel, sockets)) == 20


def test_a_kernel_that_will_not_leaves_nothing_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(member: socket.socket, workers: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(steering, "attach_program", refuse)
    assert "not permitted" in str(steering.steering_problem())
    with pytest.raises(SteeringError, match="not permitted"):
        bind_group(ANY_PORT, 2, 1 << 20)


def test_this_machine_steers() -> None:
    assert steering.steering_problem() is None
