"""HTTP that strangers connect to: who may, how long, and what it costs others; what the process may use. faults.md
57."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import until

import strep
from strep._edge.connections import Connection, Connections, HttpLimits, key_of
from strep._edge.http import HttpServer
from strep._model.exceptions import ConfigurationError
from strep.cli.limits import Descriptors

pytestmark = pytest.mark.realtime

pytest.importorskip("uvicorn", reason="extra serve")


# --- who may ----------------------------------------------------------------------------------------------------------


def full(limits: HttpLimits, *addresses: str, at_s: float = 0.0) -> tuple[Connections, list[Connection], list[int]]:
    """One connection after the other, a millisecond apart; the last value is where those that had to go stood."""
    connections, made, gone = Connections(limits), [], []
    for number, address in enumerate(addresses):
        one = connections.admit(address, at_s + number / 1000)
        assert one is not None
        one.abort = lambda number=number: gone.append(number)  # type: ignore[misc]
        made.append(one)
    return connections, made, gone


def test_one_address_has_no_more_than_its_share() -> None:
    connections, made, gone = full(HttpLimits(connections=10, per_address=2), "192.0.2.1", "192.0.2.1", "192.0.2.9")
    assert connections.admit("192.0.2.1", 0.5) is None  # the two are young: who comes so often is refused
    assert connections.admit("192.0.2.9", 0.5) is not None
    assert connections.admit("192.0.2.1", 1.5) is not None
    assert gone == [0]
    made[1].busy = True  # it is being answered
    third = connections.admit("192.0.2.1", 3.0)
    assert third is not None
    third.busy = True
    assert connections.admit("192.0.2.1", 9.0) is None
    assert gone == [0]
    counts = connections.counts
    assert (counts.accepted, counts.refused, counts.evicted, len(connections)) == (6, 2, 2, 4)


def test_when_all_is_taken_the_one_goes_that_has_waited_longest_of_who_has_most() -> None:
    limits = HttpLimits(connections=4, per_address=3)
    connections, made, gone = full(limits, "192.0.2.9", "192.0.2.1", "192.0.2.1", "192.0.2.1")
    assert connections.admit("192.0.2.2", 0.1) is not None
    assert gone == [1]
    connections.answered(made[2], 0.2)  # it stands behind the other now
    assert connections.admit("192.0.2.3", 0.3) is not None
    assert gone == [1, 3]
    assert connections.admit("192.0.2.4", 0.4) is not None  # nobody has more than one: the first of all
    assert gone == [1, 3, 0]
    for one in list(connections._all):
        one.busy = True
    assert connections.admit("192.0.2.5", 0.5) is None


def test_time_is_over_for_who_sends_no_request_and_for_who_takes_no_answer() -> None:
    connections, made, gone = full(HttpLimits(header_s=10, answer_s=30), "192.0.2.1", "192.0.2.1", "192.0.2.1")
    connections.requested(made[1], 9.0)
    connections.answered(made[2], 9.0)
    connections.end_slow(10.5)
    assert gone == [0]
    connections.end_slow(19.5)
    assert gone == [0, 2]
    connections.end_slow(39.5)
    assert gone == [0, 2, 1]
    assert connections.counts.too_slow == 3
    assert len(connections) == 0


@given(st.lists(st.tuples(st.sampled_from(["in", "out", "busy", "answered", "slow"]), st.integers(0, 9)), max_size=200))
def test_there_are_never_more_than_may_be_and_each_is_counted(steps: list[tuple[str, int]]) -> None:
    limits = HttpLimits(connections=7, per_address=3)
    connections, made, aborted, left, tries = Connections(limits), [], [], 0, 0
    for now, (what, number) in enumerate(steps):
        if what == "in":
            tries += 1
            one = connections.admit(f"192.0.2.{number % 4}", now * 0.7)
            if one is not None:
                one.abort = lambda one=one: aborted.append(one)  # type: ignore[misc]
                made.append(one)
        elif what == "slow":
            connections.end_slow(now * 0.7)
        elif made:
            one = made[number % len(made)]
            if what == "out":
                left += one in connections._all
                connections.leave(one)
            elif what == "busy":
                one.busy = True
            else:
                connections.answered(one, now * 0.7)
        counts = connections.counts
        assert len(connections) <= 7
        assert all(len(own) <= 3 for own in connections._by_key.values())
        assert sum(map(len, connections._by_key.values())) == len(connections)
        assert counts.accepted + counts.refused == tries
        assert counts.accepted - counts.evicted - counts.too_slow - left == len(connections)
        assert len(aborted) == len(set(aborted)) == counts.evicted + counts.too_slow


def test_what_one_address_is() -> None:
    assert key_of("192.0.2.1") == key_of("::ffff:192.0.2.1") != key_of("192.0.2.2")
    assert key_of("2001:db8::1") == key_of("2001:db8::ffff:1%eth0") != key_of("2001:db8:0:1::1")
    assert key_of("") == ""


@pytest.mark.parametrize("wrong", [{"connections": 0}, {"header_s": 0.0}, {"idle_s": 0}])
def test_limits_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        HttpLimits(**wrong)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("limit", [64, 256, 1024, 4096, 20_000, 65_536, 1 << 20])
def test_descriptors_are_shared_out_so_that_all_fit(limit: int, pairs: bool) -> None:
    share = Descriptors.of(limit, pairs=pairs)
    assert share.http + share.files + share.sockets <= limit - min(256, limit // 4)
    assert share.files >= 16
    assert share.http >= 8
    assert share.sockets == share.files * pairs or share.sockets == share.files + pairs - 1


# --- over sockets -----------------------------------------------------------------------------------------------------

SHORT = HttpLimits(connections=8, per_address=6, header_s=0.4, answer_s=0.8, idle_s=1)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads the whole body, answers with as many bytes as the query says."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        return
    size = int(scope["query_string"] or b"2")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    await send({"type": "http.response.body", "body": b"x" * size})


@contextlib.asynccontextmanager
async def serving(limits: HttpLimits = SHORT) -> AsyncIterator[HttpServer]:
    server = HttpServer(echo, "127.0.0.1", 0, limits=limits)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
    assert server.open == 0


Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(server: HttpServer, address: str = "127.0.0.2", data: bytes = b"") -> Peer:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=(address, 0))
    writer.write(data)
    return reader, writer


async def rest(peer: Peer, seconds: float = 100) -> bytes:
    """What comes until the server closes the connection."""
    async with asyncio.timeout(seconds):
        with contextlib.suppress(ConnectionError):
            return await peer[0].read()
    return b""


def close(*peers: Peer) -> None:
    for _, writer in peers:
        writer.close()


ASK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(
    "slow", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nx: ", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc",
             b"GET /?9000000 HTTP/1.1\r\nhost: x\r\n\r\n"],
)  # fmt: skip
async def test_who_is_slow_is_ended_and_counted(slow: bytes) -> None:
    """No request, none that is whole, no body, an answer that nobody takes."""
    async with serving() as server:
        reader, writer = await connect(server, data=slow)
        began = asyncio.get_running_loop().time()
        await until(lambda: server.open == 1)
        await until(lambda: server.open == 0)
        assert asyncio.get_running_loop().time() - began >= 0.35
        assert server.counts.too_slow == 1
        close((reader, writer))


async def test_drops_of_a_header_win_no_time() -> None:
    async with serving() as server:
        peer = await connect(server, data=b"GET / HTTP/1.1\r\n")

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    peer[1].write(b"a: b\r\n")
                    await peer[1].drain()
                    await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert await rest(peer) == b""
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        assert server.counts.too_slow == 1
        close(peer)


async def test_a_header_that_is_too_long_is_refused() -> None:
    async with serving(HttpLimits(header_bytes=2000)) as server:
        peer = await connect(server, data=b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 4000)
        assert (await rest(peer)).startswith(b"HTTP/1.1 4")
        close(peer)


async def test_an_idle_connection_is_kept_a_while_and_used_again() -> None:
    async with serving() as server:
        reader, writer = await connect(server)
        for _ in range(3):
            writer.write(ASK)
            assert (await reader.readuntil(b"xx")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.2)
        assert server.counts.accepted == 1
        assert await rest((reader, writer)) == b""
        close((reader, writer))


async def test_who_holds_connections_keeps_nobody_else_out() -> None:
    async with serving(HttpLimits(connections=20, per_address=15)) as server:
        holding = [await connect(server, "127.0.0.2") for _ in range(15)]
        refused = [await connect(server, "127.0.0.2") for _ in range(30)]
        assert (await rest(refused[0])).startswith(b"HTTP/1.1 503")
        for address in ("127.0.0.3", "127.0.0.4") * 20:
            peer = await connect(server, address, ASK)
            assert (await peer[0].readuntil(b"xx")).startswith(b"HTTP/1.1 200")
            holding.append(peer)
        counts = server.counts
        assert counts.accepted + counts.refused == 15 + 30 + 40
        assert counts.refused == 30
        assert counts.evicted >= 35
        assert server.open <= 20
        close(*holding, *refused)


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors")
async def test_a_process_without_a_descriptor_left_accepts_again_when_it_has_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as server:
        real = server._socket
        full = [True, True]

        class Full:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def fileno(self) -> int:
                return real.fileno()

            def accept(self) -> Any:
                if full:
                    full.pop()
                    raise OSError(24, "Too many open files")
                return real.accept()

        server._socket = Full()  # type: ignore[assignment]
        peer = await connect(server, data=ASK)
        assert (await peer[0].readuntil(b"xx")).startswith(b"HTTP/1.1 200")
        assert server.counts.failed == 2
        close(peer)


async def test_the_end_gives_the_answer_that_is_due_and_takes_no_more() -> None:
    async with serving() as server:
        waiting = await connect(server, data=b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n")
        idle = await connect(server)
        await until(lambda: server.open == 2)
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0.05)
        waiting[1].write(b"abc")
        assert (await waiting[0].readuntil(b"xx")).startswith(b"HTTP/1.1 200")
        await stopping
        with pytest.raises(OSError, match=r".*"), socket.create_connection(("127.0.0.1", server.port), 1):
            pass
        close(waiting, idle)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
@pytest.mark.parametrize(("key", "limit"), [("KEY0189", 1), ("", None)])
def test_with_a_key_in_the_environment_there_is_no_core_file(key: str, limit: int | None) -> None:
    """faults.md 47. One byte keeps it from a pipe too, and nothing of a program fits into it."""
    code = "import resource as r, strep.cli.limits as s; b = r.getrlimit(4); s.hide_key(); print(b, r.getrlimit(4))"
    code = code.replace("4", "r.RLIMIT_CORE")
    environment = {**os.environ, "TELNYX_API_KEY": key}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    before, after = done.stdout.strip().removesuffix(")").split(") ")
    assert after == (before if limit is None or before == "(0, 0" else f"({limit}, {limit}")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
def test_a_program_that_crashes_with_the_key_leaves_no_core_file(tmp_path: Path) -> None:
    code = (
        "import resource as r, strep.cli.limits as s, os, signal; hard = r.getrlimit(r.RLIMIT_CORE)[1];"
        "r.setrlimit(r.RLIMIT_CORE, (hard, hard)); s.hide_key(); os.kill(os.getpid(), signal.SIGSEGV)"
    )
    left = {}
    for key in ("", "KEY0189"):
        environment = {**os.environ, "TELNYX_API_KEY": key, "PYTHONPATH": str(Path(strep.__file__).parents[1])}
        done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True)
        assert done.returncode == -11
        left[key] = [path.unlink() for path in tmp_path.iterdir()]
    if not left[""]:
        pytest.skip("this machine writes no core file beside a program that crashes")
    assert left["KEY0189"] == []
