"""FAULTS 25 and 33: the end takes no longer than it may, and whatever came before it is in the accounts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live import EDGES, LOOPS, listening, run_on, until
from support import leg_id, packet

import strep
from strep._edge.udp import open_socket, parse_address
from strep._model.report import Totals
from strep._receiver.summary import losses
from strep.sinks import WavSink

edges = pytest.mark.parametrize(("transport", "loop"), EDGES)
TRANSPORTS = sorted({transport for transport, _ in EDGES})
LINUX = sys.platform == "linux"


def sender_to(address: tuple[str, int]) -> socket.socket:
    plain = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
    plain.connect(address)
    return plain


# --- the door ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not LINUX, reason="only Linux counts what it drops")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_nothing_gets_in_and_what_is_in_stays(transport: str, host: str) -> None:
    ours = open_socket(parse_address(f"{host}:0"), transport=transport, receive_buffer=8 << 20)
    with contextlib.closing(ours), sender_to((host.strip("[]"), ours.local_port)) as plain:
        for k in range(100):
            plain.send(packet(k))
        before = ours.kernel_dropped()
        ours.shut()
        for k in range(50):
            plain.send(packet(k))
        batch = ours.receive(limit=30)
        assert batch is not None
        assert len(batch) == 30
        assert ours.count_rest(time.monotonic() + 5) == 70
        assert ours.count_rest(time.monotonic() + 5) == 0
        assert ours.kernel_dropped() == before + 50


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_is_left_is_counted_whatever_it_is(transport: str) -> None:
    """Empty ones, long ones, more than are counted at once, and those that were held back."""
    ours = open_socket(parse_address("127.0.0.1:0"), transport=transport, receive_buffer=64 << 20)
    with contextlib.closing(ours), sender_to(("127.0.0.1", ours.local_port)) as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for k in range(2500):
            plain.send(bytes((0, 1, 172, 1400)[k % 4]))
        plain.send(bytes(60_000))
        held = 0
        if transport == "recvmmsg":
            assert ours.receive(before_ns=0, limit=100) is None
            held = ours.held_back
            assert held == 100
        assert ours.count_rest(time.monotonic() + 5) == 2501
        assert ours.kernel_dropped() == 0


# --- the receiver -----------------------------------------------------------------------------------------------------


def sockets_of(receiver: strep.Receiver) -> Any:
    assert receiver._parts is not None
    return receiver._parts.sockets


class Flood(threading.Thread):
    """Sends as fast as it can, from all sides of a call at once, until it is told to stop."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.stopping = False
        self._plain = sender_to(address)

    def run(self) -> None:
        data = [packet(0, call=leg_id(k)) for k in range(50)]
        while not self.stopping:
            for one in data:
                self._plain.send(one)
            self.sent += len(data)

    def stop(self) -> None:
        self.stopping = True
        self.join()
        self._plain.close()


@contextlib.contextmanager
def flooded(receiver: strep.Receiver, until_counted: Callable[[], int]) -> Iterator[Flood]:
    """A flood that goes on while the receiver reads the rest, and ends just before what is left is counted."""
    flood = Flood(listening(receiver))
    count = until_counted

    def end() -> int:
        flood.stop()
        return count()

    sockets_of(receiver).count_unread = end
    flood.start()
    yield flood


@pytest.mark.skipif(not LINUX, reason="only Linux counts what it drops")
@edges
def test_a_sender_who_goes_on_ends_no_later_and_is_accounted(transport: str, loop: str) -> None:
    async def main() -> None:
        receiver = strep.Receiver("127.0.0.1:0", transport=transport)
        await receiver.start()
        with flooded(receiver, sockets_of(receiver).count_unread) as flood:
            await asyncio.sleep(0.3)
            began = time.monotonic()
            await receiver.stop()
            assert time.monotonic() - began < 3  # 2 s, on a machine that does other things
        totals = receiver.totals()
        assert (totals.unaccounted, totals.buffered) == (0, 0)
        assert totals.datagrams + totals.kernel_dropped + totals.after_end == flood.sent
        assert totals.after_end > 0
        assert [s.kernel_dropped for s in receiver.sockets] == [totals.kernel_dropped]

    run_on(loop, main())


def slow_engine(receiver: strep.Receiver, seconds: float) -> None:
    """Each batch takes so long, as strangers' may."""
    assert receiver._parts is not None
    engine = receiver._parts.engine
    real = engine.receive

    def receive(*arguments: Any) -> Any:
        time.sleep(seconds)
        return real(*arguments)

    engine.receive = receive  # type: ignore[method-assign]


@pytest.mark.parametrize(("drain_s", "left"), [(0.0, True), (30.0, False)])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_time_is_kept_and_the_rest_counted(transport: str, drain_s: float, left: bool) -> None:
    async def main() -> None:
        receiver = strep.Receiver("127.0.0.1:0", transport=transport, drain_s=drain_s)
        await receiver.start()
        with sender_to(listening(receiver)) as plain:
            for k in range(4000):
                plain.send(packet(k % 65_536))
        slow_engine(receiver, 0.05)
        began = time.monotonic()
        await receiver.stop(0.2)
        took = time.monotonic() - began
        totals = receiver.totals()
        unread = totals.dropped_by.get("unread", 0)
        assert totals.datagrams + totals.kernel_dropped == 4000
        assert totals.unaccounted == 0
        if left:
            assert 0 < unread < 4000
            assert took < 1.5
        else:
            assert unread == 0

    run_on("asyncio", main())


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_pair_that_is_closed_loses_nothing(transport: str) -> None:
    """More than a look takes; and what comes while it is closed is counted."""
    async with strep.Receiver(pairs="udp:127.0.0.1:0", transport=transport) as receiver:
        sent = 0
        for _ in range(3):
            pair = await receiver.open_pair()
            with sender_to(("127.0.0.1", pair.rx)) as rx, sender_to(("127.0.0.1", pair.tx)) as tx:
                for k in range(1100):
                    rx.send(packet(k, call=None))
                    tx.send(packet(k, call=None, ssrc=9))
                    sent += 2
                receiver.close_pair(pair)
        totals = receiver.totals()
        assert totals.datagrams + totals.kernel_dropped == sent
        assert totals.unaccounted == 0


@pytest.mark.sockets
def test_a_full_ring_and_its_files_are_finished(tmp_path: Path) -> None:
    """What waits in the socket when the end comes is in the files: also the last packets, behind holes."""

    async def main() -> None:
        receiver = strep.Receiver("127.0.0.1:0", sinks=[WavSink(tmp_path)], drain_s=20)
        await receiver.start()
        with sender_to(listening(receiver)) as plain:
            for k in range(40):
                for n in range(100):
                    if k != 30:
                        plain.send(packet(k, call=leg_id(n)))
        await receiver.stop()
        totals = receiver.totals()
        assert (totals.datagrams, totals.delivered, totals.kernel_dropped) == (3900, 3900, 0)
        assert losses(totals, receiver.sink_reports()) == []

    run_on("asyncio", main())
    files = sorted(tmp_path.rglob("*.wav"))
    assert len(files) == 100
    assert {f.stat().st_size for f in files} == {files[0].stat().st_size}
    assert not [f for f in files if ".part" in f.name]


# --- workers ----------------------------------------------------------------------------------------------------------

workers = pytest.mark.skipif(not LINUX or not hasattr(os, "fork"), reason="workers are steered on Linux only")


@pytest.mark.sockets
@workers
async def test_what_workers_leave_unread_is_counted() -> None:
    """Two that do not answer any more: they are killed, and what waits in their sockets is in the figures."""
    supervisor = strep.Supervisor("127.0.0.1:0", workers=2)
    await supervisor.start()
    address = parse_address(supervisor.sockets[0].address)
    try:
        for worker in supervisor.workers:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGSTOP)
        with sender_to((address.host, address.port)) as plain:
            for k in range(3000):
                plain.send(packet(0, call=leg_id(k)))
    finally:
        await supervisor.stop(0.4)
    totals = supervisor.totals()
    assert totals.dropped_by == {"unread": 3000}
    assert (totals.datagrams, totals.kernel_dropped, totals.unaccounted) == (3000, 0, 0)
    by_worker = [worker["datagrams"] for worker in supervisor.summary()["workers"]]
    assert sum(by_worker) == 3000
    assert min(by_worker) > 1000


@pytest.mark.sockets
@workers
async def test_a_worker_that_is_ended_leaves_the_rest_to_the_next() -> None:
    async with strep.Supervisor("127.0.0.1:0", workers=1) as supervisor:
        address = parse_address(supervisor.sockets[0].address)
        (worker,) = supervisor.workers
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)
        with sender_to((address.host, address.port)) as plain:
            for k in range(3000):
                plain.send(packet(k // 30, call=leg_id(k % 30)))
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGCONT)
            for k in range(3000, 6000):
                plain.send(packet(k // 30, call=leg_id(k % 30)))
        await until(lambda: supervisor.totals().datagrams == 6000)
        await until(lambda: supervisor.workers[0].restarts == 1)
    totals = supervisor.totals()
    assert (totals.datagrams, totals.kernel_dropped, totals.unaccounted) == (6000, 0, 0)
    assert "unread" not in totals.dropped_by


# --- signals ----------------------------------------------------------------------------------------------------------

_WAITS = """
import asyncio, sys, time
from strep.cli.options import stop_on_signals
async def main():
    stop = stop_on_signals()
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    {wait}
if {uvloop}:
    import uvloop
    factory = uvloop.new_event_loop
else:
    factory = None
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("uvloop", sorted({name == "uvloop" for name in LOOPS}))
@pytest.mark.parametrize("wait", ["time.sleep(60)", "await asyncio.to_thread(time.sleep, 60)"])
def test_two_signals_end_at_once(wait: str, uvloop: bool) -> None:
    number = signal.SIGTERM if uvloop else signal.SIGINT
    code = _WAITS.format(wait=wait, uvloop=uvloop)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == b"stopping\n"
        process.send_signal(number)  # the terminal's and its wrapper's are one
        time.sleep(0.25)
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(number)
        _, told = process.communicate(timeout=20)
        assert time.monotonic() - began < 5
        assert process.returncode == 128 + number
        assert told == b"ended at once: what is open stays as it is\n"


# --- what was lost, in words ------------------------------------------------------------------------------------------


def test_losses_in_words() -> None:
    assert losses(Totals(), [{"kind": "wav", "dropped_frames": 0, "refused_streams": 0}]) == []
    assert losses(Totals(after_end=5), []) == []
    told = losses(
        Totals(kernel_dropped=1200, after_end=5, dropped_by={"unread": 7, "worker_died": 3, "payload_type": 9}),
        [
            {"kind": "wav", "dropped_frames": 1600, "refused_streams": 2},
            {"kind": "pcap", "dropped_datagrams": 4},
        ],
    )
    assert [sentence.split()[0] for sentence in told] == ["1,200", "7", "3", "1,600", "2", "4"]
