"""The contract of the engine, as its docstring tells it."""

from __future__ import annotations

import doctest
from dataclasses import fields

import pytest
from support import MS, T0, Arrival, batch_of, leg_id, packet, steady

from strep._engine.engine import Engine
from strep._engine.release import Release
from strep._model.blocks import BlockBatch
from strep._model.events import Ended


def test_the_loop_in_the_docstring_drives_the_engine() -> None:
    """Ten packets of 20 ms, read one by one 3 ms after they came."""
    reads = [(arrival.ns + 3 * MS, batch_of([arrival])) for arrival in steady(10)]
    names = {"Engine": Engine, "Release": Release, "BlockBatch": BlockBatch, "reads": reads}
    (example,) = doctest.DocTestFinder(recurse=False).find(Engine, "Engine", globs=names)
    assert len(example.examples) > 5
    told: list[str] = []
    assert doctest.DocTestRunner().run(example, out=told.append).failed == 0, "".join(told)


@pytest.mark.parametrize(
    "release",
    [Release(0), Release(50 * MS, 2, prompt=False), Release(audio=False), Release(audio=False, payloads=False)],
)
def test_a_release_policy_applies_until_another_comes(release: Release) -> None:
    """Given when the engine is made, with the first call, or with each: the same events."""
    arrivals = [a for k, a in enumerate(steady(100)) if k % 17]
    outcomes = []
    for at_first, with_calls in ((release, None), (None, release)):
        engine = Engine(release=at_first)
        events = []
        for begin in range(0, len(arrivals), 7):
            part = arrivals[begin : begin + 7]
            events += engine.receive(batch_of(part), release=with_calls)
            events += engine.advance(part[-1].ns, with_calls)
        events += engine.flush()
        blocks = [(b.position.tolist(), b.samples.tobytes()) for b in events if isinstance(b, BlockBatch)]
        outcomes.append((blocks, [e.report.as_dict() for e in events if isinstance(e, Ended)], engine.totals()))
    assert outcomes[0] == outcomes[1]
    assert bool(outcomes[0][0]) == release.audio


def test_what_waits_goes_by_the_policy_before_when_audio_becomes_wanted() -> None:
    """Packets that left the ring behind a hole, and wait for company, are sent off by the change itself."""
    engine = Engine(release=Release(1000 * MS, prompt=False, audio=False))
    arrivals = [Arrival(T0 + k * 20 * MS, packet(k)) for k in range(30) if k != 10]
    engine.receive(batch_of(arrivals))
    engine.advance(T0 + 600 * MS)
    before = engine.totals()
    assert before.buffered
    assert engine.advance(engine.now_ns, Release(1000 * MS, prompt=False)) == []  # placed and counted, without blocks
    assert engine.totals().delivered > before.delivered
    blocks = [e for e in engine.flush() if isinstance(e, BlockBatch)]
    assert blocks


def test_defaults_are_those_of_a_replay() -> None:
    assert {f.name: f.default for f in fields(Release)} == {
        "within_ns": 200 * MS, "groups": 1, "prompt": True, "audio": True, "payloads": True,
    }  # fmt: skip


@pytest.mark.parametrize("look_ms", [103, 197])
def test_a_look_at_many_ticks_makes_one_batch(look_ms: int) -> None:
    """What came in the tick in which the look before ended leaves with what comes after it."""
    arrivals = [
        Arrival(T0 + (20 * k + n) * MS, packet(k, ssrc=n, call=leg_id(n))) for k in range(100) for n in range(20)
    ]
    engine = Engine(release=Release(100 * MS, prompt=False))
    batches = []
    for begin_ms in range(0, 2000, look_ms):
        part = [a for a in arrivals if begin_ms <= (a.ns - T0) // MS < begin_ms + look_ms]
        events = engine.receive(batch_of(part)) + engine.advance(T0 + (begin_ms + look_ms - 2) * MS)
        batches.append(sum(isinstance(event, BlockBatch) for event in events))
    engine.flush()
    assert sum(batches) <= 1.25 * len(batches)  # now and then a release falls into a look's first tick
    assert engine.totals().delivered == 2000
