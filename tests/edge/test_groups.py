"""Ports that are read together give what a socket each gives: nothing lost, nothing twice, each port in order."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strep._edge.udp import SteadyClock, parse_address, recvmmsg_available
from strep._edge.udp.many_stamps import ManyStamps
from strep._edge.udp.portable_group import PortableGroup
from strep._edge.udp.recvmmsg_group import MmsgGroup
from strep._edge.udp.spill import Spill
from strep._edge.udp.stamps import Stamps
from strep._model.datagrams import DatagramBatch
from strep._model.time import TICK_NS

pytestmark = pytest.mark.realtime

MIB = 1 << 20
GROUPS = [
    pytest.param("recvmmsg", marks=pytest.mark.skipif(not recvmmsg_available(), reason="no recvmmsg here")),
    "portable",
]
# a datagram: its port, its size, whether those that wait are read before it is sent
SIZES = st.sampled_from([0, 1, 12, 172, 196, 320, 321, 1400, 2048, 2049, 9000, 65_507])


class Ports:
    """A group with some ports, a plain socket that sends to them, and what came of it."""

    def __init__(self, kind: str, count: int, rows: int | None, host: str = "127.0.0.1") -> None:
        clock = SteadyClock()
        self.group: Any = (
            MmsgGroup(clock, Spill(), watching=True, rows=rows)
            if kind == "recvmmsg"
            else PortableGroup(clock, watching=True, rows=rows or 1024)
        )
        self.plain = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
        self.host = host
        self.ports: list[Any] = []
        self.sent: dict[int, list[bytes]] = defaultdict(list)
        self.got: dict[int, list[bytes]] = defaultdict(list)
        self.arrival: dict[int, list[int]] = defaultdict(list)
        self.batches = 0
        for _ in range(count):
            self.open()

    def open(self) -> Any:
        port = self.group.open(parse_address(f"[{self.host}]:0" if ":" in self.host else f"{self.host}:0"), MIB)
        self.group.add(port)
        self.ports.append(port)
        return port

    def send(self, port: Any, data: bytes) -> None:
        self.plain.sendto(data, (self.host, port.local_port))
        self.sent[port.local_port].append(data)

    def note(self, batch: DatagramBatch | None) -> int:
        if batch is None:
            return 0
        self.batches += 1
        assert set(batch.source_port.tolist()) == {self.plain.getsockname()[1]}
        assert len(set(batch.source_lo.tolist())) == 1
        arrival = batch.arrival_ns
        if int(arrival.min()) // TICK_NS != int(arrival.max()) // TICK_NS:
            assert (arrival[1:] >= arrival[:-1]).all()
        for i, number in enumerate(batch.local_port.tolist()):
            self.got[number].append(batch.data(i))
            self.arrival[number].append(int(arrival[i]))
        return len(batch)

    def receive(self, limit: int | None = None) -> int:
        return self.note(self.group.receive(limit=limit))

    def receive_all(self) -> None:
        """Until everything that was sent is here."""
        until = time.monotonic() + 60
        while self.got != self.sent and time.monotonic() < until:
            self.receive()

    def close(self) -> None:
        self.plain.close()
        for port in self.ports:
            port.close()
        self.group.close()


@contextlib.contextmanager
def ports(kind: str, count: int, rows: int | None = 64, host: str = "127.0.0.1") -> Iterator[Ports]:
    them = Ports(kind, count, rows, host)
    try:
        yield them
    finally:
        them.close()


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@given(
    rows=st.sampled_from([1, 2, 3, 8, 64]),
    limit=st.sampled_from([None, 1, 5]),
    steps=st.lists(st.tuples(st.integers(0, 5), SIZES, st.booleans()), max_size=40),
)
@settings(max_examples=40, deadline=None)
def test_any_interleaving_and_any_table_give_each_port_what_came_to_it(
    kind: str, host: str, rows: int, limit: int | None, steps: list[tuple[int, int, bool]]
) -> None:
    with ports(kind, 6, rows, host) as them:
        began_ns = them.group._clock.now_ns()
        for number, (which, size, read) in enumerate(steps):
            them.send(them.ports[which], (b"%05d" % number * 13_102)[:size])
            if read:
                them.receive(limit)
        them.receive_all()
        assert them.got == them.sent
        now_ns = them.group._clock.now_ns()
        for times in them.arrival.values():
            assert times == sorted(times)
            assert began_ns - 1_000_000 <= times[0]
            assert times[-1] <= now_ns
        while them.receive() or them.group.full:
            pass
        assert them.got == them.sent


@pytest.mark.parametrize("kind", GROUPS)
def test_a_flooded_port_takes_nothing_from_the_others(kind: str) -> None:
    """Each has its turn whenever the kernel was asked, however much comes to one of them."""
    with ports(kind, 9, rows=16) as them:
        flooded, *others = them.ports
        for k in range(200):
            them.send(flooded, b"%05d" % k)
            if k % 20 == 0:
                for port in others:
                    them.send(port, b"%05d" % k)
        turns = 0
        while any(them.got[port.local_port] != them.sent[port.local_port] for port in others):
            assert them.receive()
            assert len(them.got[flooded.local_port]) <= 4 * (turns := turns + 1)  # a quarter of the table a turn
        assert turns <= 40  # 88 datagrams, 10 of each: three rounds of 9 ports, of at most 16 rows a turn
        assert them.group.full
        them.receive_all()
        assert them.got == them.sent


@pytest.mark.skipif(not recvmmsg_available(), reason="no recvmmsg here")
@pytest.mark.parametrize("memory", [True, False])
def test_more_ports_have_more_rows_if_there_is_memory(memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with ports("recvmmsg", 150, rows=None) as them:
        for port in them.ports:
            them.send(port, b"first")
        assert them.receive() == 150
        assert them.group.rows == 4096
        for _ in range(150):
            them.open()
        if not memory:

            def refuse(*arguments: object, **options: object) -> None:
                raise MemoryError

            monkeypatch.setattr("strep._edge.udp.recvmmsg_group.MessageTable", refuse)
        for k in range(15):
            for port in them.ports:
                them.send(port, b"%05d" % k)
        assert them.receive() == (4500 if memory else 4096)
        assert them.group.rows == (8192 if memory else 4096)  # 16 a port, as a power of two
        them.receive_all()
        assert them.got == them.sent


@pytest.mark.parametrize("kind", GROUPS)
def test_a_port_that_is_closed_while_others_wait(kind: str) -> None:
    with ports(kind, 4, rows=4) as them:
        for k in range(8):
            for port in them.ports:
                them.send(port, b"%05d" % k)
        them.receive()  # the table is full: some wait
        closed = them.ports[2]
        rest = them.group.only([closed])
        while (batch := rest.receive()) is not None:
            assert set(batch.local_port.tolist()) == {closed.local_port}
            them.note(batch)
        assert them.got[closed.local_port] == them.sent[closed.local_port]
        them.group.remove(closed)
        them.group.remove(closed)
        closed.close()
        again = them.open()  # it may get the same file descriptor
        them.send(again, b"again")
        them.receive_all()
        assert them.got == them.sent


@pytest.mark.skipif(not recvmmsg_available(), reason="no recvmmsg here")
def test_a_port_that_cannot_be_read_keeps_no_other_from_being_read() -> None:
    with ports("recvmmsg", 3) as them:
        broken, *others = them.ports
        spare = os.dup(broken.fileno())
        pipe = os.pipe()
        os.write(pipe[1], b"x")
        os.dup2(pipe[0], broken.fileno())  # readable, and no socket
        them.group._readiness.add(broken.fileno())
        for k in range(5):
            for port in others:
                them.send(port, b"%05d" % k)
        them.receive_all()
        ((port, error),) = them.group.failures()
        assert (port, type(error)) == (broken, OSError)
        assert them.group.failures() == []
        them.receive()
        assert them.group.failures() == []  # it is left out
        assert them.group.retry(broken)
        assert not them.group.retry(others[0])
        them.receive()
        assert [port for port, _ in them.group.failures()] == [broken]
        os.dup2(spare, broken.fileno())
        them.send(broken, b"it is back")
        assert them.group.retry(broken)
        them.receive_all()
        them.send(broken, b"for good")
        them.receive_all()
        assert (them.got, them.group.failures()) == (them.sent, [])
        for number in (spare, *pipe):
            os.close(number)


class Clocks:
    """A wall clock that is set now and then, and one that nobody sets."""

    def __init__(self) -> None:
        self.monotonic_ns = 5_000_000_000_000
        self.offset_ns = 1_700_000_000_000_000_000
        self.steady = SteadyClock(self.wall, lambda: self.monotonic_ns)

    def wall(self) -> int:
        return self.monotonic_ns + self.offset_ns


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_time_stamps_of_many_sockets_are_those_of_each(data: st.DataObject) -> None:
    """Whenever the wall clock is set, and whichever queues are read, emptied or not: as :class:`Stamps` has them."""
    one, many = Clocks(), Clocks()
    count = 4
    each = [Stamps(one.steady) for _ in range(count)]
    together = ManyStamps(many.steady)
    numbers = [together.open() for _ in range(count)]
    queues: list[list[int]] = [[] for _ in range(count)]

    def pass_time(ns: int) -> None:
        for clocks in (one, many):
            clocks.monotonic_ns += ns

    for _ in range(data.draw(st.integers(1, 8))):
        for which in data.draw(st.lists(st.integers(-1, count - 1), max_size=12)):
            pass_time(data.draw(st.sampled_from([100_000, 20_000_000, 500_000_000])))
            if which < 0:
                step_ns = data.draw(st.sampled_from([-3_600_000_000_000, -5_000_000, 5_000_000, 3_600_000_000_000]))
                one.offset_ns += step_ns
                many.offset_ns += step_ns
            else:
                queues[which].append(one.wall())
        pass_time(5_000_000)
        begun_ns = many.steady.now_ns()
        ready = [k for k in range(count) if queues[k]]
        together.idle(begun_ns, np.array([numbers[k] for k in ready], np.int64))
        for k in range(count):
            each[k].begin()
        taken = {k: data.draw(st.integers(1, len(queues[k]))) for k in ready}
        expected = []
        for k in range(count):
            if k not in taken:
                each[k].none()
                continue
            stamps = np.array(queues[k][: taken[k]], np.int64)
            expected.append(each[k].take(stamps.copy(), taken[k] == len(queues[k])))
        if not ready:
            together.none()
            continue
        found = together.take(
            np.concatenate([np.array(queues[k][: taken[k]], np.int64) for k in ready]),
            np.array([numbers[k] for k in ready], np.int64),
            np.array([taken[k] for k in ready], np.int64),
            np.array([taken[k] == len(queues[k]) for k in ready]),
            begun_ns,
        )
        np.testing.assert_array_equal(found, np.concatenate(expected))
        for k in ready:
            del queues[k][: taken[k]]


def test_a_number_is_used_again_without_what_was_known_of_it() -> None:
    clocks = Clocks()
    stamps = ManyStamps(clocks.steady)
    numbers = [stamps.open() for _ in range(40)]
    assert len(set(numbers)) == 40
    clocks.monotonic_ns += 10_000_000_000
    stamps.close(numbers[7])
    assert stamps.open() == numbers[7]
    at = np.array([clocks.wall() - 50_000_000])
    found = stamps.take(at, np.array([numbers[7]]), np.array([1]), np.array([True]), clocks.steady.now_ns())
    assert found.tolist() == [clocks.steady.now_ns() - 50_000_000]
