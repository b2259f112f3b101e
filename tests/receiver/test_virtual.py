"""Virtual time itself, and what a receiver does in hours of it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
from support import LEG, leg_id, packet, payload_of, pcmu
from virtual import EPOCH_NS, MemoryEdge, VirtualLoop, run_virtually, until

import strep
from strep._receiver.receiver import Receiver
from strep._receiver.settings import Settings
from strep.sinks import ArraySink

HOUR_S = 3600.0


def test_hours_take_no_time_and_timers_come_in_their_order() -> None:
    heard: list[tuple[str, float]] = []

    async def main() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def ring(name: str, after_s: float) -> None:
            await asyncio.sleep(after_s)
            heard.append((name, round(loop.time() - began, 6)))

        await asyncio.gather(ring("late", 5 * HOUR_S), ring("early", 0.25), ring("middle", 90.0), ring("middle", 90.0))
        return loop.time() - began

    began = time.monotonic()
    assert run_virtually(main()) == pytest.approx(5 * HOUR_S)
    assert time.monotonic() - began < 5
    assert heard == [("early", 0.25), ("middle", 90.0), ("middle", 90.0), ("late", 5 * HOUR_S)]


def test_while_a_thread_works_time_passes_as_it_does() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        timer = loop.call_later(60, lambda: None)
        await asyncio.to_thread(time.sleep, 0.2)
        timer.cancel()
        return loop.time() - began

    assert 0.1 < run_virtually(main()) < 30


def test_what_threads_and_sockets_bring_is_heard() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[int] = loop.create_future()
        threading.Timer(0.05, lambda: loop.call_soon_threadsafe(told.set_result, 1)).start()
        first = await told

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(30)
            writer.write(await reader.readline())
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"a line\n")
        assert await reader.readline() == b"a line\n"
        writer.close()
        server.close()
        return first

    assert run_virtually(main(), grace_s=0.1) == 1


def test_a_loop_that_waits_for_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virtual._HANGING_S", 0.05)
    loop = VirtualLoop()
    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_a_call_and_the_silence_after_it() -> None:
    """A stream with a hole; then it falls silent, and ends after exactly its time-out, though nothing comes."""
    missing = {100, 101}

    async def main() -> None:
        edge, sink = MemoryEdge(), ArraySink()
        receiver = Receiver.of(Settings("127.0.0.1:0", idle_timeout_s=60), [sink], edge=edge)
        loop = asyncio.get_running_loop()
        async with receiver:
            assert [s.transport for s in receiver.sockets] == ["memory"]
            began = loop.time()
            for k in range(600):
                if k not in missing:
                    edge.send(edge.first, packet(k))
                await asyncio.sleep(0.02)
            last = loop.time() - 0.02
            assert loop.time() - began == pytest.approx(12)
            assert receiver.live_streams == 1
            await until(lambda: not receiver.live_streams, 62)
            assert 60 <= loop.time() - last <= 61.1  # idle streams are looked for each second
            await asyncio.sleep(10 * HOUR_S)
            assert receiver.healthy
        (report,) = receiver.reports()
        assert (report.packets_received, report.packets_lost, report.end) == (598, 2, "idle")
        assert report.stream.first_arrival_ns == EPOCH_NS + 1_000_000_000_000
        assert receiver.totals().unaccounted == 0
        view = sink.get(report.stream)
        wanted = np.concatenate([pcmu(payload_of(k)) * (k not in missing) for k in range(600)])
        np.testing.assert_array_equal(view.samples, wanted)

    began = time.monotonic()
    run_virtually(main())
    assert time.monotonic() - began < 30


def test_a_sleeping_receiver_does_nothing_until_something_comes() -> None:
    async def main() -> int:
        edge = MemoryEdge()
        async with Receiver.of(Settings("127.0.0.1:0"), edge=edge) as receiver:
            looks = 0
            pump: Any = receiver._parts.pump  # type: ignore[union-attr]
            real = pump._look

            def look() -> Any:
                nonlocal looks
                looks += 1
                return real()

            await asyncio.sleep(1)
            pump._look = look
            await asyncio.sleep(24 * HOUR_S - 10)
            assert looks == 0
            edge.send(edge.first, packet(0))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert looks == 1
            assert receiver.totals().datagrams == 1
            await asyncio.sleep(5)
            return looks

    assert run_virtually(main()) < 100


def test_pairs_and_what_does_not_fit() -> None:
    async def main() -> None:
        edge = MemoryEdge()
        settings = Settings(pairs="udp:127.0.0.1:20000-20003", receive_buffer=9 * (768 + 172))
        async with Receiver.of(settings, edge=edge) as receiver:
            pair = await receiver.open_pair(LEG)
            for k in range(20):
                for port in pair.ports:
                    edge.send(("127.0.0.1", port), packet(k, call=None))
            await asyncio.sleep(1)
            assert receiver.close_pair(pair) == 2
            totals = receiver.totals()
            assert (totals.datagrams, totals.kernel_dropped) == (18, 22)
            other = await receiver.open_pair(leg_id(1))
            assert set(other.ports).isdisjoint(pair.ports)
            assert not edge.send(("127.0.0.1", pair.rx), packet(0, call=None))
        assert edge.sockets == {}
        with pytest.raises(strep.ConfigurationError, match="stopped"):
            await receiver.open_pair()

    run_virtually(main())


def test_a_port_that_is_taken() -> None:
    async def main() -> None:
        edge = MemoryEdge()
        async with Receiver.of(Settings("127.0.0.1:9000"), edge=edge):
            with pytest.raises(strep.BindError):
                await Receiver.of(Settings("127.0.0.1:9000"), edge=edge).start()

    run_virtually(main())
