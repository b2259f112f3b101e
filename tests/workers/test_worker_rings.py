"""Workers with packet rings: each packet in the ring of the worker that the sockets would have steered it to, and what
waits there when a worker dies is its successor's."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import STREP
from live import port_of, samples_of, until
from ring_frames import ipv4, ipv6, udp
from steered import of_every_kind
from supervised import (
    check_accounts,
    check_after_restart,
    check_plain_load,
    load,
    plain_load,
    streams_of,
    supervising,
    under_load,
)
from support import LEG, leg_id, packet
from worker_sinks import Recording

import strep
from strep._edge.ring.layout import FRAME_BYTES
from strep._edge.ring.making import group_problem
from strep._edge.ring.packet_socket import ring_problem
from strep._edge.ring.rings import Rings
from strep._edge.udp import parse_address
from strep._workers.ports import PortPlan, SteeringError
from strep._workers.rings import SharedRings
from strep._workers.steering import worker_of, workers_of
from strep._workers.worker import edge_on
from strep.simulate.load import call_leg_id_of, expected_samples

pytestmark = [
    pytest.mark.skipif(ring_problem() is not None, reason=str(ring_problem())),
    pytest.mark.realtime,
]

SMALL = 4 << 20


@contextmanager
def shared(workers: int, *plans: PortPlan, receive_buffer: int = SMALL) -> Iterator[SharedRings]:
    rings = SharedRings([])
    rings.bind(plans, workers, receive_buffer)
    try:
        yield rings
    finally:
        rings.close()


def listening(host: str, label: str = "listen") -> PortPlan:
    return PortPlan(parse_address(f"{host}:0"), label, label == "listen")


def taken(rings: Rings) -> list[bytes]:
    found: list[bytes] = []
    while (batch := rings.receive()) is not None:
        found += [batch.data(i) for i in range(len(batch))]
    return found


def send(datagrams: Sequence[bytes], host: str, port: int, *options: tuple[int, int, bytes]) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as plain:
        for option in options:
            plain.setsockopt(*option)
        for data in datagrams:
            plain.sendto(data, (host, port))


def steered(datagrams: Sequence[bytes], workers: int) -> list[list[bytes]]:
    return [[data for data in datagrams if worker_of(data, workers) == number] for number in range(workers)]


# --- steering ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize(("bound", "host"), [("127.0.0.1", "127.0.0.1"), ("[::]", "127.0.0.1"), ("[::]", "::1")])
def test_the_kernel_steers_rings_as_sockets(bound: str, host: str, workers: int) -> None:
    datagrams = of_every_kind(random.Random(workers))
    with shared(workers, listening(bound)) as rings:
        send(datagrams, host, rings.numbers[0])
        assert [taken(one) for one in rings._rings] == steered(datagrams, workers)
        assert rings.dropped() == [0] * workers
        assert not any(one.skipped for one in rings._rings)


def test_the_measurement_finds_nothing_astray() -> None:
    from strep.bench.steering import measure_steering

    steering = measure_steering(20_000, 3, transport="ring")
    assert (steering.exact, steering.wrong, steering.split_legs) == (True, 0, 0)
    assert sum(steering.by_worker) == 20_000


def test_this_machine_has_groups_and_one_without_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert group_problem() is None

    def refuse(self: object, group: object) -> None:
        raise OSError(92, "Protocol not available")

    monkeypatch.setattr("strep._edge.ring.packet_socket.PacketSocket.join", refuse)
    assert "Protocol not available" in str(group_problem())


@pytest.mark.parametrize(
    ("host", "options"),
    [
        ("127.0.0.1", [(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\1" * 8)]),
        ("::1", [(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, b"\0\0\1\4\0\0\0\0")]),
        (
            "::1",
            [
                (socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, b"\0\1\1\x0c" + bytes(12)),
                (socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, b"\0\0\1\4\0\0\0\0"),
            ],
        ),
    ],
    ids=["options", "one header", "two headers"],
)
def test_behind_options_and_extension_headers_too(host: str, options: list[tuple[int, int, bytes]]) -> None:
    datagrams = of_every_kind(random.Random(9))[:300]
    with shared(3, listening("[::]")) as rings:
        send(datagrams, host, rings.numbers[0], *options)
        assert [taken(one) for one in rings._rings] == steered(datagrams, 3)


def in_fragments(datagrams: Sequence[bytes], host: str, port: int) -> None:
    """Each in two, the second first: as a network may."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for number, data in enumerate(datagrams, 1000):
            whole = udp(data, host, host, port=port)
            for at, part, more in ((64, whole[64:], 0), (0, whole[:64], 1)):
                if family == socket.AF_INET:
                    raw.sendto(ipv4(part, host, host, fragment=more << 13 | at // 8, number=number), (host, 0))
                else:
                    header = struct.pack("!BBHI", 17, 0, at | more, number)
                    raw.sendto(ipv6(header + part, host, host, following=44), (host, 0))


@pytest.mark.serial  # other tests may look at fragments on loopback
def test_fragments_of_ipv4_are_put_together_before_they_are_steered() -> None:
    datagrams = [packet(n, call=leg_id(n)) for n in range(40)]
    assert min(map(len, steered(datagrams, 3))) > 5
    with shared(3, listening("127.0.0.1")) as rings:
        in_fragments(datagrams, "127.0.0.1", rings.numbers[0])
        assert [taken(one) for one in rings._rings] == steered(datagrams, 3)
        assert not any(one.skipped for one in rings._rings)


@pytest.mark.serial
def test_fragments_of_ipv6_are_taken_where_they_belong_or_counted() -> None:
    """The kernel does not put them together for rings: worker 0 does, and what is not its own is no other's either."""
    datagrams = [packet(n, call=leg_id(n)) for n in range(40)]
    first, *others = steered(datagrams, 3)
    with shared(3, listening("[::1]")) as rings:
        members = [Reading(rings, index, 3) for index in range(3)]
        in_fragments(datagrams, "::1", rings.numbers[0])
        assert [one.taken() for one in members] == [first, [], []]
        assert members[0].rings.skipped == {"fragments_of_other_worker": sum(map(len, others))}
        for one in members:
            one.close()


class Reading:
    """What a worker makes of the descriptors that it gets."""

    def __init__(self, shared_rings: SharedRings, index: int, workers: int) -> None:
        fds = [os.dup(fd) for fd in shared_rings.descriptors_of(index)]
        self._states = fds[0]
        rings = edge_on(fds, index, workers, ring=True).rings([], receive_buffer=SMALL, sniff=None)
        assert isinstance(rings, Rings)
        self.rings = rings
        self._ports = [rings.open(parse_address(text), SMALL) for text in shared_rings.addresses_of(index).values()]
        for port in self._ports:
            rings.add(port)

    def taken(self) -> list[bytes]:
        return taken(self.rings)

    def close(self) -> None:
        """As the end of a process does it."""
        self.rings.close()
        for port in self._ports:
            port.close()
        os.close(self._states)


def test_the_vectors_say_the_same_as_the_one() -> None:
    datagrams = of_every_kind(random.Random(3))
    length = np.array([len(data) for data in datagrams])
    at = np.cumsum(length) - length
    data = np.frombuffer(b"".join(datagrams), np.uint8)
    for workers in (1, 2, 7, 64):
        assert workers_of(data, at, length, workers).tolist() == [worker_of(one, workers) for one in datagrams]


def test_two_receivers_have_groups_of_their_own_and_a_pair_is_the_last_workers() -> None:
    datagrams = of_every_kind(random.Random(2))[:200]
    with shared(2, listening("127.0.0.1"), listening("127.0.0.1", "rx")) as one, shared(3, listening("[::]")) as other:
        send(datagrams, "127.0.0.1", one.numbers[0])
        send(datagrams, "127.0.0.1", other.numbers[0])
        send(datagrams, "127.0.0.1", one.numbers[1])
        first, last = steered(datagrams, 2)
        got = [taken(rings) for rings in one._rings]
        assert got == [first, last + datagrams]
        assert [taken(rings) for rings in other._rings] == steered(datagrams, 3)


def test_members_keep_their_places_while_an_interface_goes_and_comes() -> None:
    name = f"strepfan{os.getpid() % 10_000}"
    ip = shutil.which("ip")
    made = [str(ip), "link", "add", name, "type", "veth", "peer", "name", f"{name}p"]
    if ip is None or subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("a made-up interface cannot be had here")
    try:
        datagrams = of_every_kind(random.Random(5))[:300]
        with shared(3, listening("[::]")) as rings:
            for state in ("up", "down", "up"):
                subprocess.run([ip, "link", "set", name, state], check=True)
                send(datagrams, "127.0.0.1", rings.numbers[0])
                assert [taken(one) for one in rings._rings] == steered(datagrams, 3)
    finally:
        subprocess.run([ip, "link", "delete", name], check=True)


def test_a_kernel_without_groups_has_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, program: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("strep._edge.ring.packet_socket.PacketSocket.steer", refuse)
    rings = SharedRings([])
    with pytest.raises(SteeringError, match="not supported"):
        rings._bind_all([listening("127.0.0.1")], 2, SMALL)
    rings.close()
    monkeypatch.undo()
    original, calls = SharedRings._bind_all, []

    def once(self: SharedRings, plans: Sequence[PortPlan], workers: int, receive_buffer: int) -> None:
        calls.append(workers)
        if workers > 1:
            raise SteeringError("the kernel does not")
        original(self, plans, workers, receive_buffer)

    monkeypatch.setattr(SharedRings, "_bind_all", once)
    with shared(2, listening("127.0.0.1")) as alone:
        assert (calls, alone.workers, alone.fallback) == ([2, 1], 1, "the kernel does not")


# --- one reader after the other ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames_given", [None, 0, 7, 20])
def test_a_reader_goes_on_where_the_one_before_was_killed(frames_given: int | None) -> None:
    """Killed before it gave anything back, amid that, or before it had said so; None: it had said so. What it had taken
    and not given back is read again, for its figures died with it; nothing else is, and nothing is left out."""
    payloads = [struct.pack("!I", n) * 40 for n in range(30)]
    with shared(1, listening("127.0.0.1"), receive_buffer=1 << 17) as rings:
        first = Reading(rings, 0, 1)
        port = rings.numbers[0]
        for round_ in range(20):  # several times around the ring
            before = first.rings.receive()
            assert round_ == 0 or before is None
            send(payloads[:20], "127.0.0.1", port)
            reader = first.rings._readers[0]
            if frames_given is None:
                assert first.taken() == payloads[:20]
            else:
                status, at = reader._status, reader._at
                reader._state.take(20)
                status[(at + np.arange(frames_given)) % len(status)] = 0
            send(payloads[20:], "127.0.0.1", port)
            second = Reading(rings, 0, 1)
            again = frames_given if frames_given is not None else 20
            assert second.taken() == payloads[again:]
            assert rings.count_rest(0, 0.0) == 0
            first.close()
            first = second
        first.close()
        assert rings.dropped() == [0]


def test_a_full_ring_waits_for_the_next_reader_and_what_found_no_room_is_counted() -> None:
    with shared(1, listening("127.0.0.1"), receive_buffer=1 << 17) as rings:
        first = Reading(rings, 0, 1)
        send([b"x" * 172] * 50, "127.0.0.1", rings.numbers[0])
        assert len(first.taken()) == 50
        first.close()
        frames = rings._rings[0].granted_buffer // FRAME_BYTES
        send([struct.pack("!I", n) for n in range(frames + 33)], "127.0.0.1", rings.numbers[0])
        second = Reading(rings, 0, 1)
        assert second.taken() == [struct.pack("!I", n) for n in range(frames)]
        assert (rings.dropped(), rings.count_rest(0, 0.0)) == ([33], 0)
        rings.shut()
        send([b"late"] * 5, "127.0.0.1", rings.numbers[0])
        assert (second.taken(), rings.count_after_end(), rings.dropped(), rings.count_rest(0, 0.0)) == ([], 5, [33], 0)
        second.close()


def test_long_packets_that_a_killed_reader_had_taken_are_cut_and_the_others_are_whole() -> None:
    """What is longer than a frame waits in a queue: a reader that is killed may have taken some with it."""
    payloads = [struct.pack("!I", n) * (300 if n % 3 else 40) for n in range(60)]
    with shared(1, listening("127.0.0.1")) as rings:
        first = Reading(rings, 0, 1)
        send(payloads[:40], "127.0.0.1", rings.numbers[0])
        reader = first.rings._readers[0]
        assert len(reader._socket.long_packets(reader._socket.frames[:10])) == 6
        second = Reading(rings, 0, 1)
        batch = second.rings.receive()
        assert batch is not None
        send(payloads[40:], "127.0.0.1", rings.numbers[0])
        assert [batch.data(i) for i in range(10, 40)] + second.taken() == payloads[10:]
        assert batch.length.tolist() == [len(data) for data in payloads[:40]]
        assert batch.captured is not None
        assert np.flatnonzero(batch.captured < batch.length).tolist() == [1, 2, 4, 5, 7, 8]
        first.close()
        second.close()


# --- supervisors ------------------------------------------------------------------------------------------------------


async def test_two_workers_record_as_one_process_does(tmp_path: Path) -> None:
    async with supervising(transport="ring", sinks=Recording(tmp_path)) as supervisor:
        sent = await load(supervisor, streams=40, rate=4000, duration_s=1.0)
        await until(lambda: supervisor.totals().datagrams == sent.sent)
        assert supervisor.healthy
    summary = supervisor.summary()
    assert json.loads(json.dumps(summary)) == summary
    check_accounts(summary)
    assert (summary["totals"]["delivered"], summary["totals"]["kernel_dropped"]) == (sent.sent, 0)
    assert [(s["role"], s["transport"], s["skipped"]) for s in summary["sockets"]] == [
        ("listen", "ring", {}),
        ("ring", "ring", {}),
    ]
    for stream, (entry,) in streams_of(summary).items():
        (file,) = entry["files"]
        np.testing.assert_array_equal(samples_of(tmp_path / file), expected_samples(stream, sent.packets_a_stream))
    expected = Counter(worker_of(packet(0, call=call_leg_id_of(s)), 2) for s in range(40))
    assert [w["datagrams"] for w in summary["workers"]] == [expected[i] * sent.packets_a_stream for i in range(2)]


async def test_plain_rtp_and_a_pair_of_ports(tmp_path: Path) -> None:
    options = {"rx": "127.0.0.1:0", "tx": "127.0.0.1:0", "call_leg_id": LEG, "workers": 3}
    async with supervising(transport="ring", sinks=Recording(tmp_path), **options) as supervisor:
        names = await plain_load(supervisor)
    check_plain_load(supervisor.summary(), [tmp_path / name for name in names])


@pytest.mark.parametrize(("how", "end"), [(signal.SIGKILL, "worker died"), (signal.SIGTERM, "closed")])
async def test_a_worker_that_ends_leaves_its_ring_to_the_next(how: int, end: str, tmp_path: Path) -> None:
    async with supervising(transport="ring", sinks=Recording(tmp_path)) as supervisor:
        sent = await under_load(supervisor, lambda pid: os.kill(pid, how), seconds=1.5)
    check_after_restart(supervisor.summary(), sent, tmp_path, end)


async def test_what_the_kernel_drops_is_counted_by_worker_and_over_restarts() -> None:
    async with supervising(transport="ring", receive_buffer=1 << 17) as supervisor:
        first = supervisor.workers[1].pid
        assert first
        os.kill(first, signal.SIGSTOP)
        sent = await load(supervisor, streams=40, rate=10_000, duration_s=0.5)
        dropped = supervisor.totals().kernel_dropped
        assert dropped > 0
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.totals().datagrams + dropped == sent.sent)
        assert supervisor.workers[1].restarts == 1
    summary = supervisor.summary()
    check_accounts(summary)
    by_worker = [w["kernel_dropped"] for w in summary["workers"]]
    assert by_worker[1] > 0
    assert sum(by_worker) == dropped
    assert summary["totals"]["kernel_dropped"] == summary["sockets"][-1]["kernel_dropped"] == dropped


async def test_the_accounts_are_exact_while_a_sender_goes_on() -> None:
    """sent = datagrams + kernel_dropped + after_end, with the end in the middle of a flood."""
    stop, sent = False, 0

    def flood() -> None:
        nonlocal sent
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            while not stop:
                plain.sendto(packet(sent & 0xFFFF, call=leg_id(sent % 50)), target)
                sent += 1

    supervisor = strep.Supervisor("127.0.0.1:0", workers=2, transport="ring", receive_buffer=1 << 18)
    await supervisor.start()
    target = ("127.0.0.1", port_of(supervisor))  # type: ignore[arg-type]
    sender = threading.Thread(target=flood)
    sender.start()
    await asyncio.sleep(0.3)
    original = supervisor._ports.count_after_end

    def count_after_end() -> int:
        nonlocal stop
        stop = True
        sender.join()
        return original()

    supervisor._ports.count_after_end = count_after_end  # type: ignore[method-assign]
    await supervisor.stop()
    totals = supervisor.totals()
    assert totals.datagrams > 0
    assert totals.after_end > 0
    assert sent == totals.datagrams + totals.kernel_dropped + totals.after_end


def replaced(supervisor: strep.Supervisor, index: int, old: int) -> bool:
    worker = supervisor.workers[index]
    return worker.state == "running" and worker.pid != old


@pytest.mark.slow
async def test_twenty_kills_and_every_call_leg_stays_with_its_worker(tmp_path: Path) -> None:
    """Each successor takes its predecessor's place in the group."""
    seen: dict[str, set[int]] = {}
    async with supervising(transport="ring", sinks=Recording(tmp_path)) as supervisor:
        supervisor.on_event = lambda event: seen.setdefault(event["call"], set()).add(event["worker"])
        sending = load(supervisor, streams=40, rate=4000, duration_s=16.0)
        await until(lambda: supervisor.totals().datagrams > 400)
        for kill in range(20):
            index = kill % 2
            pid = supervisor.workers[index].pid
            assert pid
            os.kill(pid, signal.SIGKILL)
            await until(
                lambda i=index, p=pid: supervisor.workers[i].state == "running" and supervisor.workers[i].pid != p
            )  # type: ignore[misc]
            await asyncio.sleep(0.3)
        sent = await sending
        await until(lambda: len(supervisor.top(80)) == 40)
    summary = supervisor.summary()
    check_accounts(summary)
    assert sum(w["restarts"] for w in summary["workers"]) == 20
    gaps = sum(w["restart_gap_packets"] for w in summary["workers"])
    assert sent.sent == summary["totals"]["datagrams"] + gaps
    wanted = {str(call_leg_id_of(s)): {worker_of(packet(0, call=call_leg_id_of(s)), 2)} for s in range(40)}
    assert seen == wanted


@pytest.mark.sockets
def test_capture_with_workers_and_a_ring_writes_the_same_files(tmp_path: Path) -> None:
    """As one process with sockets does, to the bit."""
    written: list[dict[str, bytes]] = []
    for number, options in enumerate((["--workers", "2", "--transport", "ring"], [])):
        out = tmp_path / str(number)
        command = [*STREP, "capture", "--listen", "127.0.0.1:0", "--out", str(out), "--json", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        port = int(json.loads(process.stdout.readline())["sockets"][0]["address"].rpartition(":")[2])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            for k in range(50):
                for n, d in product(range(8), (0, 1)):
                    plain.sendto(packet(k, call=leg_id(n), direction=d), ("127.0.0.1", port))
                time.sleep(0.005)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
        written.append({str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.wav")})
        totals: dict[str, Any] = json.loads((out / "summary.json").read_text())
        assert totals["totals"]["delivered"] == 800
        assert len(totals.get("workers", ())) == (0 if number else 2)
    assert len(written[0]) == 16
    assert written[0] == written[1]


def test_no_worker_sniffs() -> None:
    with pytest.raises(strep.ConfigurationError, match="one process takes traffic between others"):
        strep.Supervisor(workers=2, sniff="udp", interface=["lo"])  # type: ignore[call-arg]
