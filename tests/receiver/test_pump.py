"""The pump goes on, whatever raises: sockets, engine, dispatcher, recorder, the loop itself. And who watches it."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import live
import pytest
from live import LOOPS, listening, port_of, send_paced
from support import leg_id, packet
from virtual import MemoryEdge, VirtualLoop, edge_of, run_virtually, until

import strep
from strep import Incident
from strep._receiver.receiver import Receiver
from strep._receiver.settings import Settings
from strep._receiver.watchdog import Watchdog
from strep._threads.incidents import Incidents
from strep.sinks import ArraySink

pytestmark = pytest.mark.realtime

SECOND = 1_000_000_000


class Failing:
    """Calls of a method that raise when they are told to."""

    def __init__(self, method: Callable[..., Any], error: Exception | None = None) -> None:
        self.method = method
        self.error = error or RuntimeError("as tests do")
        self.left = 0
        self.before = 0  # calls that go well first
        self.calls = 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.before:
            self.before -= 1
        elif self.left:
            self.left -= 1
            raise self.error
        return self.method(*arguments, **options)


@asynccontextmanager
async def receiving(**options: Any) -> AsyncIterator[tuple[strep.Receiver, list[Incident], ArraySink]]:
    sink = ArraySink()
    virtual = isinstance(asyncio.get_running_loop(), VirtualLoop)
    receiver = Receiver.of(Settings("127.0.0.1:0", **options), [sink], edge=MemoryEdge() if virtual else None)
    await receiver.start()
    told: list[Incident] = []

    async def hear() -> None:
        async for incident in receiver.incidents():
            told.append(incident)  # noqa: PERF401  # they are read while they come

    hearing = asyncio.create_task(hear())
    await asyncio.sleep(0)
    try:
        yield receiver, told, sink
    finally:
        await receiver.stop()
        await hearing


def run_on(loop: str, main: Any) -> None:
    if loop == "virtual":
        run_virtually(main)
    else:
        live.run_on(loop, main)


async def send(receiver: Receiver, datagrams: list[bytes], role: str = "listen", **options: Any) -> None:
    """To the socket of that role: in memory, in virtual time, or to a real one."""
    address = "127.0.0.1", port_of(receiver, role)
    if isinstance(receiver._edge, MemoryEdge):
        await edge_of(receiver).send_paced(address, datagrams, **options)
    else:
        await send_paced(address, datagrams, **options)


def inside(receiver: strep.Receiver) -> Any:
    """What there is from the start on."""
    return receiver._parts


def troubles_of(receiver: strep.Receiver) -> Any:
    return receiver._troubles


def accounts(receiver: strep.Receiver) -> tuple[int, int, int, dict[str, int]]:
    totals = receiver.totals()
    return totals.datagrams, totals.unaccounted, totals.dropped_by.get("fault", 0), totals.faults


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("loop", "place"),
    [
        *((loop, place) for loop in LOOPS if loop != "endpoint" for place in ("drain", "_sleep")),
        *(("virtual", place) for place in ("drain", "_sleep", "pause_s", "release", "next_deadline_ns")),
    ],
)
def test_whatever_raises_in_a_look_there_is_a_next_one(loop: str, place: str) -> None:
    async def main() -> None:
        async with receiving() as (receiver, told, _):
            await send(receiver, [packet(k) for k in range(10)])
            await until(lambda: receiver.totals().datagrams == 10)
            parts = inside(receiver)
            holders: dict[str, Any] = {
                "pause_s": parts.pacing,
                "release": parts.pacing,
                "next_deadline_ns": parts.engine,
            }
            holder = holders.get(place, parts.pump)
            failing = Failing(getattr(holder, place))
            failing.left = 5
            setattr(holder, place, failing)
            await send(receiver, [packet(10), packet(11)])
            await until(lambda: not failing.left)
            await send(receiver, [packet(k) for k in range(12, 40)])
            await until(lambda: receiver.totals().datagrams == 40)
            assert accounts(receiver) == (40, 0, 0, {"pump": 5})
            assert receiver.healthy
        assert receiver.totals().delivered == 40
        assert [(i.kind, i.data["place"]) for i in told] == [("fault", "pump")]

    run_on(loop, main())


@pytest.mark.parametrize("begun", [False, True])
def test_what_the_engine_raises_for_is_accounted(begun: bool) -> None:
    """``begun``: it raises when it has taken the batch, and before otherwise."""
    place = "engine" if begun else "parse"

    async def main() -> None:
        async with receiving() as (receiver, told, sink):
            engine = inside(receiver).engine
            streams: list[strep.StreamInfo] = []
            await send(receiver, [packet(k) for k in range(20)])
            await until(lambda: receiver.totals().datagrams == 20)
            streams += engine.registry.live()
            holder = engine if begun else engine._intake
            name = "_take_ticks" if begun else "packets_of"
            failing = Failing(getattr(holder, name))
            failing.left = 1
            setattr(holder, name, failing)
            await send(receiver, [packet(20)])
            await until(lambda: not failing.left)
            await until(lambda: receiver.totals().datagrams == 21)
            assert accounts(receiver) == (21, 0, 1, {place: 1})
            await send(receiver, [packet(k) for k in range(21, 40)])
            await until(lambda: receiver.totals().datagrams == 40)
        assert accounts(receiver) == (40, 0, 1, {place: 1})
        assert receiver.totals().delivered == 39
        (incident,) = told
        assert (incident.kind, incident.data["place"], incident.data["packets"]) == ("fault", place, 1)
        found = sink.get(streams[0])
        assert (len(found.samples), int(found.mask.sum())) == (40 * 160, 39 * 160)

    run_virtually(main())


def test_an_engine_that_raises_at_each_boundary_costs_time_not_the_pump() -> None:
    async def main() -> None:
        async with receiving() as (receiver, _, _):
            engine = inside(receiver).engine
            failing = Failing(engine.advance)
            failing.left = 10
            engine.advance = failing
            await send(receiver, [packet(k) for k in range(50)], chunk=2)
            await until(lambda: not failing.left)
        assert accounts(receiver) == (50, 0, 0, {"engine": 10})
        assert receiver.totals().delivered == 50

    run_virtually(main())


def test_a_socket_that_cannot_be_read_is_told_and_tried_again_and_the_other_goes_on() -> None:
    async def main() -> None:
        async with receiving(rx="127.0.0.1:0") as (receiver, told, _):
            (broken,) = [s for s, role in inside(receiver).sockets._roles.items() if not role]
            failing = Failing(broken.receive, OSError(errno.ENETDOWN, "Network is down"))
            failing.left = 3
            broken.receive = failing
            loop = asyncio.get_running_loop()
            began = loop.time()
            await send(receiver, [packet(0)])
            await until(lambda: troubles_of(receiver))
            assert "Network is down" in receiver.problems()[0]
            assert not receiver.healthy
            await send(receiver, [packet(k, call=None) for k in range(40)], "rx")
            await until(lambda: receiver.totals().datagrams == 40)
            assert troubles_of(receiver)
            await until(lambda: receiver.totals().datagrams == 41)
            # tried again after 0.1 s, 0.2 s, 0.4 s; not at every look
            assert loop.time() - began == pytest.approx(0.7, abs=0.1)
            assert failing.calls < 30
            assert (receiver.problems(), receiver.totals().faults) == ([], {"socket": 3})
            await send(receiver, [packet(k) for k in range(1, 20)])
            await until(lambda: receiver.totals().datagrams == 60)
        assert [i.kind for i in told] == ["fault", "socket_failed", "socket_recovered"]
        assert receiver.totals().unaccounted == 0

    run_virtually(main())


@pytest.mark.sockets
@pytest.mark.parametrize("loop", [name for name in LOOPS if name != "endpoint"])
def test_a_descriptor_that_somebody_closed_stops_nothing(loop: str) -> None:
    async def main() -> None:
        async with receiving(rx="127.0.0.1:0") as (receiver, told, _):
            (broken,) = [s for s, role in inside(receiver).sockets._roles.items() if not role]
            other = "127.0.0.1", port_of(receiver, "rx")
            spare = os.dup(broken.fileno())
            os.close(broken.fileno())
            for k in range(60):  # the loop may watch it no more, but looks at it with the other one
                await send_paced(other, [packet(k, call=None)], pause_s=0.002)
            await until(lambda: receiver.totals().datagrams == 60)
            await until(lambda: len(receiver.problems()) == 1)
            assert "Bad file descriptor" in receiver.problems()[0]
            os.dup2(spare, broken.fileno())
            os.close(spare)
            await until(lambda: not receiver.problems())
            await send_paced(listening(receiver), [packet(k) for k in range(20)])
            await until(lambda: receiver.totals().datagrams == 80)
        assert [i.kind for i in told] == ["fault", "socket_failed", "socket_recovered"]

    run_on(loop, main())


@pytest.mark.sockets
@pytest.mark.parametrize("where", ["write", "_keep", "_writer"])
def test_a_recorder_that_fails_costs_the_recording(where: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with receiving(pcap=tmp_path / "a.pcap") as (receiver, told, _):
            recorder = inside(receiver).recorder
            await send_paced(listening(receiver), [packet(k) for k in range(10)])
            await until(lambda: recorder.written == 10)
            if where == "_writer":
                recorder._writer.write = Failing(recorder._writer.write, OSError(errno.EIO, "Input/output error"))
                recorder._writer.write.left = 1
            else:
                recorder._keep = Failing(recorder._keep, MemoryError("no room"))
                recorder._keep.left = 1
            await send_paced(listening(receiver), [packet(k) for k in range(10, 50)])
            await until(lambda: receiver.totals().datagrams == 50)
            await until(lambda: len(receiver.problems()) == 1)
            assert receiver.problems()[0].startswith("sink pcap: ")
        assert accounts(receiver) == (50, 0, 0, {"recorder": 1})
        assert receiver.totals().delivered == 50
        report = receiver.sink_reports()[-1]
        assert (report["written"], report["dropped_datagrams"]) == (10, 40)
        assert [i.data["place"] for i in told] == ["recorder"]

    run_on("asyncio", main())


def test_what_watches_a_call_may_raise() -> None:
    class Watcher:
        heard = 0

        def stream_started(self, stream: strep.StreamInfo) -> None:
            self.heard += 1
            raise KeyError("started")

        def stream_ended(self, stream: strep.StreamInfo, report: strep.StreamReport) -> None:
            self.heard += 1
            raise KeyError("ended")

    async def main() -> None:
        async with receiving() as (receiver, _, _):
            watcher = Watcher()
            receiver.watch(leg_id(0), watcher)
            await send(receiver, [packet(k) for k in range(10)])
            await until(lambda: receiver.live_streams == 1)
        assert watcher.heard == 2
        assert accounts(receiver) == (10, 0, 0, {"watcher": 2})
        assert receiver.totals().delivered == 10

    run_virtually(main())


# --- the watchdog ----------------------------------------------------------------------------------------------------


class Clock:
    ns = 1_000 * SECOND

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def watched() -> Any:
    """A watchdog over one end of a socket pair, in virtual time."""
    clock = Clock()
    incidents = Incidents(clock)
    told: list[Incident] = []
    incidents.listen(told.append)
    resumed: list[int] = []
    given_up: list[str] = []
    dog: Any = Watchdog(
        incidents, lambda: resumed.append(clock.ns), give_up=given_up.append, give_up_after_s=5.0, clock_ns=clock
    )
    dog.given_up = given_up
    here, there = socket.socketpair()
    dog.watch([here.fileno()])

    def step(looked: bool = False) -> None:
        clock.ns += SECOND // 4
        if looked:
            dog.looked()
        dog.look()

    with here, there:
        yield dog, step, here, there, told, resumed


def test_who_sleeps_while_nothing_comes_has_not_stalled(watched: Any) -> None:
    dog, step, _, _, told, resumed = watched
    for _ in range(100):
        step()
        assert dog.problem is None
    assert (told, resumed) == ([], [])


def test_media_that_nobody_reads_for_a_second_are_a_problem_until_somebody_does(watched: Any) -> None:
    dog, step, here, there, told, resumed = watched
    for _ in range(10):
        step()
    there.send(b"media")
    step()
    begun = [dog.problem]
    for _ in range(3):
        step()
        begun.append(dog.problem)
    assert begun == [None] * 4
    assert (told, resumed) == ([], [])
    step()
    assert "for 1.0 s nothing has been read" in dog.problem
    assert [i.kind for i in told] == ["stalled"]
    assert len(resumed) == 1
    for _ in range(8):  # tried again each second, told once
        step()
    assert (len(told), len(resumed)) == (1, 3)
    assert "for 3.0 s" in dog.problem
    here.recv(10)
    dog.looked()
    assert dog.problem is None  # at once, whenever the watchdog looks next
    step()
    assert [(i.kind, i.data.get("stalled_s")) for i in told] == [("stalled", None), ("recovered", 3.25)]


def test_who_reads_slowly_but_reads_has_not_stalled(watched: Any) -> None:
    dog, step, _, there, told, _ = watched
    there.send(b"media that wait all the time")
    for n in range(100):
        step(looked=n % 4 == 0)
        assert dog.problem is None
    assert told == []


def test_after_its_limit_it_gives_up_once(watched: Any) -> None:
    dog, step, _, there, _, _ = watched
    given_up = dog.given_up
    there.send(b"media")
    for _ in range(4 * 5):
        step()
    assert given_up == []
    for _ in range(20):
        step()
    assert len(given_up) == 1
    assert "for 5.0 s" in given_up[0]


def test_a_look_at_hundreds_of_sockets_costs_next_to_nothing(watched: Any) -> None:
    dog, _, _, _, _, _ = watched
    pairs = [socket.socketpair() for _ in range(200)]
    try:
        dog.watch([end.fileno() for pair in pairs for end in pair])
        began = time.thread_time()
        for _ in range(100):
            dog.look()
        assert (time.thread_time() - began) / 100 < 0.002  # 0.8 % of a core, at four looks a second
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


@pytest.mark.sockets
def test_a_loop_that_is_stuck_is_told_of_while_it_is(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with receiving() as (receiver, told, _):
            await send_paced(listening(receiver), [packet(k) for k in range(20)])
            await until(lambda: receiver.totals().datagrams == 20)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
                for k in range(20, 60):
                    plain.sendto(packet(k), listening(receiver))
            seen: list[list[str]] = []
            ask = threading.Timer(1.75, lambda: seen.append(receiver.problems()))
            ask.start()
            time.sleep(2.0)  # noqa: ASYNC251  # this is the fault
            await until(lambda: len(told) == 2)
            assert "nothing has been read" in seen[0][0]
            assert receiver.healthy
        assert [i.kind for i in told] == ["stalled", "recovered"]
        assert accounts(receiver) == (60, 0, 0, {})

    caplog.set_level(logging.WARNING, "strep")
    run_on("asyncio", main())
    assert [r.levelname for r in caplog.records if "stalled" in r.message or "goes on after" in r.message] == [
        "ERROR",
        "WARNING",
    ]


@pytest.mark.sockets
@pytest.mark.parametrize("loop", [name for name in LOOPS if name != "endpoint"])
def test_a_pump_whose_timer_was_lost_is_started_again(loop: str) -> None:
    async def main() -> None:
        async with receiving() as (receiver, told, _):
            await send_paced(listening(receiver), [packet(k) for k in range(20)])
            await until(lambda: receiver.totals().datagrams == 20)
            inside(receiver).pump._disarm()  # whoever does it: readers off, no timer
            await send_paced(listening(receiver), [packet(k) for k in range(20, 60)])
            assert receiver.totals().datagrams == 20
            await until(lambda: receiver.totals().datagrams == 60, 5)
            await until(lambda: len(told) == 2)
            await send_paced(listening(receiver), [packet(k) for k in range(60, 80)])
            await until(lambda: receiver.totals().datagrams == 80, 5)
        assert [i.kind for i in told] == ["stalled", "recovered"]
        assert receiver.totals().delivered == 80

    run_on(loop, main())


@pytest.mark.sockets
def test_no_thread_is_left_behind() -> None:
    async def main() -> None:
        async with receiving():
            assert [t.name for t in threading.enumerate()].count("strep-watchdog") == 1

    run_on("asyncio", main())
    deadline = time.monotonic() + 5
    while any(t.name == "strep-watchdog" for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(t.name == "strep-watchdog" for t in threading.enumerate())


@pytest.mark.sockets
@pytest.mark.skipif(not hasattr(select, "poll"), reason="nothing to be known there")
def test_before_and_after_it_is_not_healthy() -> None:
    async def main() -> None:
        receiver = strep.Receiver("127.0.0.1:0")
        assert (receiver.healthy, receiver.problems()) == (False, ["the receiver has not been started"])
        async with receiver:
            assert (receiver.healthy, receiver.problems()) == (True, [])
        assert (receiver.healthy, receiver.problems()) == (False, ["the receiver has stopped"])

    run_on("asyncio", main())


@pytest.mark.sockets
@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
def test_incidents_are_lines_of_capture_json(tmp_path: Path) -> None:
    """The recording's file may not grow any more: told as an event, and the calls go on."""
    import resource

    command = [sys.executable, "-m", "strep", "capture", "--listen", "127.0.0.1:0", "--json"]
    process = subprocess.Popen(
        [*command, "--pcap", str(tmp_path / "a.pcap")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        listening_to = json.loads(process.stdout.readline())  # type: ignore[union-attr]
        port = int(listening_to["sockets"][0]["address"].rpartition(":")[2])
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
        asyncio.run(send_paced(("127.0.0.1", port), [packet(k) for k in range(60)]))
        lines = []
        while not lines or lines[-1]["event"] != "fault":
            lines.append(json.loads(process.stdout.readline()))  # type: ignore[union-attr]
        asyncio.run(send_paced(("127.0.0.1", port), [packet(k) for k in range(60, 90)]))
        time.sleep(0.3)
        process.terminate()
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (lines[-1]["place"], lines[-1]["error"].partition(":")[0]) == ("recorder", "OSError")
    summary = json.loads(out.splitlines()[-1])
    assert summary["event"] == "summary"
    assert (summary["totals"]["delivered"], summary["totals"]["faults"]) == (90, {"recorder": 1})
    (pcap,) = [sink for sink in summary["sinks"] if sink["kind"] == "pcap"]
    assert "too large" in pcap["failed"]
    assert pcap["written"] + pcap["dropped_datagrams"] == 90
