"""What is kept of streams that ended: all of it, in little memory."""

from __future__ import annotations

import gc
import time
import tracemalloc
import uuid
from pathlib import Path

from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import LEG, MS, T0, Arrival, batch_of, packet

from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine, EngineConfig
from strep._threads.archive import Archive
from strep.sinks import WavSink


@given(st.lists(st.integers(0, 400), unique=True, max_size=300), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_an_archive_is_a_dict_that_forgets_the_oldest(serials: list[int], limit: int) -> None:
    archive: Archive[list[str]] = Archive(limit)
    for n, serial in enumerate(serials):
        archive.add(serial, [f"{serial}.wav", str(n)])
    kept = list(archive)
    assert len(archive) == len(kept)
    assert kept == [[f"{s}.wav", str(n)] for n, s in enumerate(serials)][len(serials) - len(kept) :]
    assert len(kept) == len(serials) or limit - 64 < len(kept) <= limit + 64
    for n, serial in enumerate(serials):
        known = n >= len(serials) - len(kept)
        assert archive.get(serial) == ([f"{serial}.wav", str(n)] if known else None)
    assert archive.get(1000) is None


def test_a_stream_that_ended_costs_half_a_kilobyte(tmp_path: Path) -> None:
    """faults.md 44: engine, dispatcher and files; what stays of it in memory, with files and without."""
    for name, options, streams in (
        ("none", {}, usual_or_slow(2000, 3000)),
        ("all", {"shortest_s": 0.0}, usual_or_slow(1500, 2000)),
    ):
        engine, sink = Engine(EngineConfig(idle_ns=2_000 * MS)), WavSink(tmp_path / name, **options)
        dispatcher = Dispatcher([sink])
        now, made, before = T0, 0, 0
        tracemalloc.start(1)
        while made < streams:
            calls = [uuid.UUID(int=LEG.int + made + n) for n in range(500)]
            made += len(calls)
            arrivals = [Arrival(now + k * 20 * MS, packet(k, call=c, ssrc=made)) for k in range(3) for c in calls]
            dispatcher.handle(engine.receive(batch_of(arrivals)))
            now += 5_000 * MS
            dispatcher.handle(engine.advance(now))
            while sink._unsettled:
                time.sleep(0.001)
            if made == 1000:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert len(dispatcher.ended) == streams
        print(f"{name}: {grown / (streams - 1000):.0f} bytes a stream")
        assert grown <= 500 * (streams - 1000)
        dispatcher.handle(engine.flush())
        dispatcher.close(20)
        assert sink.report()["short_streams"] == (streams if not options else 0)
        files = {r.stream.call_leg_id: sink.files(r.stream) for r in list(dispatcher.ended)[-500:]}
        assert files == {call: [f"{call}/a-inbound.wav"] if options else [] for call in calls}
