"""Who iterates pairs gets each tick whole: what came after it waits for the next look, and is never lost."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, batch_of, leg_id, packet
from virtual import edge_of, in_memory, run_virtually, until

import strep
from strep._model.datagrams import DatagramBatch
from strep._model.time import TICK_NS
from strep._receiver.whole_ticks import HeldBack


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3 * TICK_NS), max_size=6), min_size=1, max_size=8))
def test_nothing_is_lost_and_no_tick_comes_in_two_parts(looks: list[list[int]]) -> None:
    """Looks at random times: each reads what came since the one before, and may read what came while it read."""
    held = HeldBack()
    begin = T0
    taken: list[tuple[int, int]] = []
    sent: list[tuple[int, int]] = []
    ticks_of_looks: list[set[int]] = []
    for look in looks:
        times = sorted(begin + ns for ns in look)
        numbers = range(len(sent), len(sent) + len(times))
        sent += zip(times, numbers, strict=True)
        batch = None
        if times:
            batch = batch_of([Arrival(t, packet(n, call=None)) for t, n in zip(times, numbers, strict=True)])
        before_ns = (begin + 2 * TICK_NS) // TICK_NS * TICK_NS
        now = held.cut(batch, before_ns)
        found = _numbers(now)
        if batch is not None:
            batch.slab[:] = 0  # the edge overwrites it
        assert all(t < before_ns for t, _ in found)
        taken += found
        ticks_of_looks.append({t // TICK_NS for t, _ in found})
        begin = max([before_ns, *times])
    assert len(held) == len(sent) - len(taken)
    taken += _numbers(held.cut(None, None))
    assert len(held) == 0
    assert sorted(taken) == sorted(sent)
    assert sum(map(len, ticks_of_looks)) == len(set().union(*ticks_of_looks))


def _numbers(batch: DatagramBatch | None) -> list[tuple[int, int]]:
    if batch is None:
        return []
    arrival: list[int] = batch.arrival_ns.tolist()
    return [(t, int.from_bytes(batch.data(i)[2:4], "big")) for i, t in enumerate(arrival)]


@pytest.mark.parametrize("calls", [1, 40])
def test_streams_of_pairs_are_iterated_a_tick_at_a_time(calls: int) -> None:
    """One look a tick, all of it at once; and what a look has put off is there at the end."""
    came: list[tuple[int, int, int]] = []

    async def main() -> None:
        async with in_memory(None, pairs="udp:127.0.0.1:0", latency_ms=0) as receiver:
            edge = edge_of(receiver)
            pairs = [await receiver.open_pair(leg_id(n)) for n in range(calls)]
            batches: list[int] = []
            hub_blocks = receiver._hub.blocks
            receiver._hub.blocks = lambda batch: (batches.append(len(batch)), hub_blocks(batch))  # type: ignore[method-assign,assignment]

            async def listen() -> None:
                async with asyncio.TaskGroup() as tasks:
                    async for stream in receiver:
                        tasks.create_task(note(stream))

            async def note(stream: strep.Stream) -> None:
                async for frame in stream.frames(ms=20):
                    came.append(  # noqa: PERF401  # each at its time
                        (edge.now_ns() - frame.arrival_ns, stream.info.ssrc, frame.rtp_timestamp)
                    )

            listening = asyncio.create_task(listen())
            for k in range(100):
                for n, pair in enumerate(pairs):
                    for direction, port in enumerate(pair.ports):
                        edge.send(("127.0.0.1", port), packet(k, call=None, ssrc=2 * n + direction + 1))
                if k == 20:
                    batches.clear()
                await asyncio.sleep(0.02)
            assert 75 <= len(batches) <= 85
            await until(lambda: receiver.totals().datagrams >= 100 * 2 * calls - 2 * calls)
        await listening
        totals = receiver.totals()
        assert totals.delivered == totals.datagrams == 200 * calls
        assert totals.unaccounted == 0

    run_virtually(main())
    assert sorted((ssrc, timestamp) for _, ssrc, timestamp in came) == [
        (ssrc, 160 * k) for ssrc in range(1, 2 * calls + 1) for k in range(100)
    ]
    late = [late_ns for late_ns, _, timestamp in came if timestamp > 160 * 20]
    assert max(late) <= 10.5 * MS
