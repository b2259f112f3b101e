"""Payloads of more than 2,048 bytes: L16/48000/2, and whatever else fits into a datagram."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from depth import usual_or_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import TESTS
from support import MS, T0, Arrival, leg_id, run, steady

import strep
from strep._codecs.payload_types import PayloadTypes
from strep._engine.engine import EngineConfig
from strep._engine.streams.slots import LARGE_WIDTHS, SLOTS, LargeSlots
from strep._engine.undo import Undo

TYPES = PayloadTypes({96: "L16/48000/2"})
CONFIG = EngineConfig(payload_types=TYPES)
PART = 4 << 20  # the largest that a stream gets


def l16(
    frames: list[int], *, call: int = 100, seed: int = 0, sequence: int = 65_500
) -> tuple[list[Arrival], npt.NDArray[np.int16]]:
    """Packets of so many stereo frames at 48 kHz, each when its last sample was spoken; and all samples."""
    samples = np.random.default_rng(seed).integers(-(1 << 15), 1 << 15, (sum(frames), 2), np.int16)
    arrivals, done = [], 0
    for k, count in enumerate(frames):
        data = strep.build_datagram(
            payload=samples[done : done + count].astype(">i2").tobytes(), payload_type=96,
            sequence_number=(sequence + k) & 0xFFFF, rtp_timestamp=done, ssrc=9, call_leg_id=leg_id(call),
        )  # fmt: skip
        done += count
        arrivals.append(Arrival(T0 + done * 1_000_000_000 // 48_000, data))
    return arrivals, samples.reshape(-1)


@pytest.mark.parametrize("ptime_ms", [10, 20, 60, 200, 340])
def test_every_sample_of_l16_48000_2(ptime_ms: int) -> None:
    arrivals, samples = l16([48 * ptime_ms] * 30)
    result = run(arrivals, width=0, config=CONFIG)
    audio, report = result.only()
    np.testing.assert_array_equal(audio, samples)
    assert (report.packets_lost, result.gaps) == (0, {})
    assert (result.totals.delivered, result.totals.dropped_by) == (30, {})


@given(seed=st.integers(0, 1 << 32), cut_seed=st.integers(0, 1 << 32))
@settings(max_examples=usual_or_slow(4, 60), deadline=None, suppress_health_check=list(HealthCheck))
def test_any_sizes_among_ordinary_streams_and_any_split(seed: int, cut_seed: int) -> None:
    """Streams whose packets grow and shrink, with losses and swaps, beside streams of 20 ms of G.711."""
    rng = np.random.default_rng(seed)
    arrivals: list[Arrival] = []
    truth = {}
    for call in range(4):
        sizes = rng.choice([1, 15, 480, 512, 513, 960, 1024, 1025, 2880, 9600, 16_000, 16_360], 25)
        packets, samples = l16(sizes.tolist(), call=100 + call, seed=call)
        lost = set((3 + rng.choice(20, 2, replace=False)).tolist())
        kept = np.ones(len(samples) // 2, np.bool_)
        for k in lost:
            kept[int(sizes[:k].sum()) : int(sizes[: k + 1].sum())] = False
        truth[call] = np.where(np.repeat(kept, 2), samples, 0)
        arrivals += [a for k, a in enumerate(packets) if k not in lost]
    arrivals += [a for call in range(5) for a in steady(60, call=leg_id(call))]
    arrivals.sort(key=lambda a: a.ns)
    whole = run(arrivals, width=0, config=CONFIG)
    assert whole.totals.dropped_by == {}
    assert whole.totals.delivered == len(arrivals)
    found = {r.stream.call_leg_id: r for r in whole.reports}
    for call, samples in truth.items():
        report = found[leg_id(100 + call)]
        position, parts = 0, whole.audio[report.stream.serial]
        gaps = {at: length for at, length, _ in whole.gaps.get(report.stream.serial, [])}
        out = []  # gaps are counted in frames, audio in samples of both channels
        done = 0
        while done < len(parts) or position in gaps:
            if position in gaps:
                length = gaps.pop(position)
                out.append(np.zeros(2 * length, np.int16))
                done += length
                position += length
                continue
            following = min((at for at in gaps if at > position), default=None)
            count = len(parts) - done if following is None else 2 * (following - position)
            out.append(parts[done : done + count])
            done += count
            position += count // 2
        np.testing.assert_array_equal(np.concatenate(out), samples)
    cuts = np.random.default_rng(cut_seed).integers(0, len(arrivals), 40).tolist()
    other = run(arrivals, width=0, config=CONFIG, cuts=cuts, live=bool(seed & 1), ticking=bool(seed & 2))
    assert other.totals == whole.totals
    assert [r.as_dict() for r in other.reports] == [r.as_dict() for r in whole.reports]
    assert other.gaps == whole.gaps
    for serial, audio in whole.audio.items():
        np.testing.assert_array_equal(other.audio[serial], audio)


def test_packets_that_there_is_no_room_for_are_counted_and_cost_nobody_else() -> None:
    """Memory for one stream of the largest packets, and for eight of 20 ms in its place."""
    streams = [l16([960] * 20, call=200 + n, seed=n) for n in range(10)]
    config = EngineConfig(payload_types=TYPES, large_bytes=2 * SLOTS * 4096 * 4 + 1)  # rounded down to nothing
    ordinary = [a for n in range(5) for a in steady(20, call=leg_id(n))]
    arrivals = sorted([a for packets, _ in streams for a in packets] + ordinary, key=lambda a: a.ns)
    result = run(arrivals, width=0, config=config)
    assert result.totals.dropped_by == {"oversize": 200}
    assert result.totals.delivered == 100
    result = run(arrivals, width=0, config=EngineConfig(payload_types=TYPES, large_bytes=PART))
    assert result.totals.dropped_by == {}
    late = [l16([16_000] * 20, call=300 + n, seed=n)[0] for n in range(3)]
    arrivals = sorted(arrivals + [a for packets in late for a in packets], key=lambda a: a.ns)
    result = run(arrivals, width=0, config=EngineConfig(payload_types=TYPES, large_bytes=2 * PART))
    # of two parts of 4 MiB one may be of packets that no codec needs
    assert result.totals.dropped_by == {"oversize": 40}
    assert result.totals.delivered == 300 + 20
    by_call = {r.stream.call_leg_id: r.stream.serial for r in result.reports}
    for n, (_, samples) in enumerate(streams):
        np.testing.assert_array_equal(result.audio[by_call[leg_id(200 + n)]], samples)


def test_room_of_streams_that_ended_is_used_again() -> None:
    arrivals = []
    for n in range(6):  # one after the other, each 2 minutes after the one before
        packets, _ = l16([16_000] * 4, call=n, seed=n)
        arrivals += [Arrival(a.ns + n * 120_000 * MS, a.data) for a in packets]
    config = EngineConfig(payload_types=TYPES, large_bytes=2 * PART)
    result = run(arrivals, width=0, config=config, ticking=True, cuts=range(24))
    assert (result.totals.delivered, result.totals.dropped_by) == (24, {})


@given(data=st.data())
@settings(max_examples=usual_or_slow(60, 600), deadline=None)
def test_parts_of_the_memory_never_overlap(data: st.DataObject) -> None:
    slots = LargeSlots(8 * PART)
    held: dict[tuple[int, int], None] = {}

    def ends(base: int, order: int) -> tuple[int, int]:
        return base * LARGE_WIDTHS[order], (base + SLOTS) * LARGE_WIDTHS[order]

    for _ in range(data.draw(st.integers(1, 60))):
        if held and data.draw(st.booleans()):
            base, order = data.draw(st.sampled_from(list(held)))
            slots.release(base, order)
            del held[base, order]
        else:
            order = data.draw(st.integers(0, len(LARGE_WIDTHS) - 1))
            before = slots.held()
            base = slots.acquire(order)
            if base >= 0 and data.draw(st.booleans()):
                slots.restore(before)
                assert slots.acquire(order) == base
            if base >= 0:
                held[base, order] = None
                assert len(slots.data(order)) > base + SLOTS
                assert len(slots.meta(order)) > base + SLOTS
        used = sorted(ends(*one) for one in held)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(used))
        assert sum(end - begin for (begin, end), order in zip(used, held, strict=True)) <= 8 * PART
        assert sum(SLOTS * LARGE_WIDTHS[o] for _, o in held if o >= 3) <= 4 * PART
    for base, order in held:
        slots.release(base, order)
    assert not slots.data(0).size  # nothing is kept for nobody
    assert [slots.acquire(2) for _ in range(33)] == [*(SLOTS * n for n in range(32)), -1]


@pytest.mark.parametrize("sizes", [(160, 512), (160, 4000), (2000, 9000), (4000, 60_000)])
def test_growing_can_be_undone(sizes: tuple[int, int]) -> None:
    from strep._engine.streams.ring import JitterRing

    undo = Undo()
    ring = JitterRing(4, undo, large_bytes=4 * PART)
    rows = np.arange(2)
    ring.open(rows, np.zeros(2, np.int64), np.full(2, sizes[0]))
    before = ring.base.tolist(), ring.size.tolist(), ring.any_large
    undo.clear()
    size = int(ring.size_for(np.array([sizes[1]]))[0])
    assert ring.enlarge(0, size)
    assert ring.enlarge(1, size)
    assert ring.room_in(rows).min() >= sizes[1]
    undo.back()
    assert (ring.base.tolist(), ring.size.tolist(), ring.any_large) == before
    assert ring.enlarge(1, size)
    for row in (0, 1):
        ring.close(row)
    assert ring.any_large == 0
    ring.open(rows, np.zeros(2, np.int64), np.full(2, sizes[1]))
    assert len(set(ring.base[rows].tolist())) == 2


_FLOOD = """
import json, resource, sys
import numpy as np
sys.path[:0] = [{tests!r}]
from support import MS, T0, Arrival, leg_id, long_batch_of, steady
from test_large_packets import CONFIG, l16
import strep
from strep._engine.engine import Engine
from strep._model.events import Ended

def large(call, sequence):
    return strep.build_datagram(payload=bytes(65_507 - 36), payload_type=0, sequence_number=sequence,
        rtp_timestamp=sequence * 160, ssrc=call, call_leg_id=leg_id(call))

engine = Engine(CONFIG)
real = [l16([960] * 50, call=n, seed=n)[0] for n in range(5)] + [steady(50, call=leg_id(50 + n)) for n in range(5)]
events = []
peaks = []
serial = 1000
for step in range(50):
    now = T0 + step * 20 * MS
    batch = [Arrival(now, packets[step].data) for packets in real]
    for n in range({a_step}):
        serial += 1
        # strangers; or streams that prove themselves, with packets as large as can be
        batch += [Arrival(now, large(serial, k)) for k in range({packets})]
    events += engine.receive(long_batch_of(batch))
    events = [e for e in events if isinstance(e, Ended)]
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
events += [e for e in engine.flush() if isinstance(e, Ended)]
totals = engine.totals()
mine = [e.report for e in events if e.report.packets_received == 50]
print(json.dumps({{
    "grown_mib": (peaks[-1] - peaks[2]) / 1024, "unaccounted": totals.unaccounted, "mine": len(mine),
    "lost": sum(r.packets_lost for r in mine), "samples": sorted(r.samples for r in mine),
    "rejected": totals.rejected_by, "dropped": totals.dropped_by,
}}))
"""


def _flooded(a_step: int, packets: int) -> dict[str, object]:
    code = _FLOOD.format(tests=str(TESTS), a_step=a_step, packets=packets)
    path = f"import sys; sys.path.insert(0, {str(TESTS / 'engine')!r})\n"
    done = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    assert (found.pop("unaccounted"), found.pop("mine"), found.pop("lost")) == (0, 10, 0)
    assert found.pop("samples") == [50 * 160] * 5 + [50 * 960] * 5
    return found


def test_a_flood_of_the_largest_datagrams_costs_little_and_others_nothing() -> None:
    found = _flooded(40, 1)
    grown = found.pop("grown_mib")
    assert isinstance(grown, float)
    assert grown <= 32  # two generations of probation are 24 MiB
    assert found == {"rejected": {"probation": 2000}, "dropped": {}}


def test_streams_of_the_largest_datagrams_have_bounded_memory() -> None:
    """Each proves itself, and so is a stream; at 4 MiB each, half of the memory is enough for 32 of them."""
    found = _flooded(10, 3)
    grown = found.pop("grown_mib")
    assert isinstance(grown, float)
    assert grown <= 160
    assert found["dropped"] == {"oversize": 3 * (500 - 32)}
