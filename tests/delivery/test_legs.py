"""Both directions of a leg stand in one frame, at the time at which they were sent."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import leg_id, packet, payload_of, pcmu
from virtual import edge_of, in_memory, run_virtually

import strep
from strep import Block, Codec, Direction, Gap, GapCause, Leg, LegFrame, Mask
from strep._delivery.leg_aligner import LegAligner

RATE = 8000
BEGIN_NS = 1_700_000_000_000_000_000
SAMPLE_NS = 125_000
INFOS = [
    strep.StreamInfo(
        index=0,
        serial=int(direction),
        call_leg_id=uuid.UUID(int=1),
        leg=Leg.A,
        direction=direction,
        name="a",
        leg_name="a",
        stem=f"a-{direction.label}",
        local_port=9000,
        ssrc=1,
        source=("192.0.2.1", 5),
        payload_type=0,
        first_arrival_ns=BEGIN_NS,
        origin_ns=BEGIN_NS,
        codec=Codec("PCMU", RATE, RATE, 1, 1),
    )
    for direction in Direction
]

Part = tuple[int, int]  # samples, gap before them
parts_strategy = st.lists(
    st.tuples(st.integers(1, 400), st.sampled_from([0, 0, 0, 1, 160, 800, 20_000])), min_size=0, max_size=12
)


def blocks_of(direction: Direction, parts: list[Part], offset: int, position: int) -> list[tuple[int, Block]]:
    """Blocks and where they are on the leg's timeline, from ``offset`` on; the stream counts from ``position``."""
    rng = np.random.default_rng(int(direction))
    out, at = [], 0
    for count, gap in parts:
        at += gap
        samples = rng.integers(1, 9000, count).astype(np.int16)
        told = Gap(gap, GapCause.LOSS) if gap else None
        time_ns = BEGIN_NS + (offset + at) * SAMPLE_NS
        mask = np.full(count, Mask.RECEIVED, np.uint8)
        out.append((offset + at, Block(INFOS[direction], position + at, told, 0, time_ns, samples, mask, time_ns)))
        at += count
    return out


def placed(frames: list[LegFrame[Any]]) -> tuple[dict[int, tuple[int, int]], int]:
    """Every sample of the frames by its time, both rows; frames follow each other."""
    found: dict[int, tuple[int, int]] = {}
    end: int | None = None
    for frame in frames:
        assert frame.samples.shape == frame.mask.shape == (2, 160)
        assert (frame.time_ns - frames[0].time_ns) == frame.position * SAMPLE_NS
        if end is not None:
            assert frame.position == end + frame.left_out
        end = frame.position + 160
        begin = (frame.time_ns - BEGIN_NS) // SAMPLE_NS
        assert ((frame.samples != 0) == (frame.mask == Mask.RECEIVED)).all()
        for k, pair in enumerate(zip(*frame.samples.tolist(), strict=True)):
            found[begin + k] = pair
    return found, end or 0


@settings(max_examples=usual_or_slow(150, 1500))
@given(parts_strategy, parts_strategy, st.integers(0, 900), st.integers(0, 10_000), st.data())
def test_every_sample_stands_at_its_time(
    one: list[Part], other: list[Part], offset: int, position: int, data: st.DataObject
) -> None:
    sides = [
        blocks_of(Direction.INBOUND, one, 0, 0),
        blocks_of(Direction.OUTBOUND, other, offset, position),
    ]
    wanted = {
        side: {at + k: int(v) for at, block in blocks for k, v in enumerate(block.samples)}
        for side, blocks in enumerate(sides)
    }
    order = sorted((at, side, n) for side, blocks in enumerate(sides) for n, (at, _) in enumerate(blocks))
    # a direction may be behind by any time; within the wait nothing is late
    aligner = LegAligner(rate=RATE, ms=20, wait_ms=5000)
    frames: list[LegFrame[Any]] = []
    if data.draw(st.booleans()):
        order = sorted((at + (400 if side else 0), side, n) for at, side, n in order)
    last = {side: n for _, side, n in order}
    for _, side, n in order:
        frames += aligner.push(Direction(side), sides[side][n][1])
    for side in last:
        frames += aligner.end(Direction(side))
    found, _ = placed(frames)
    assert aligner.late == 0
    for side in (0, 1):
        assert {at: pair[side] for at, pair in found.items() if pair[side]} == wanted[side]
    assert sum(frame.left_out for frame in frames) % 160 == 0
    assert len(frames) <= (sum(map(sum, one)) + sum(map(sum, other)) + offset) // 160 + 2


def test_who_comes_too_late_is_left_out_and_counted() -> None:
    blocks = blocks_of(Direction.INBOUND, [(160, 0)] * 50, 0, 0)
    late = blocks_of(Direction.OUTBOUND, [(160, 0)] * 50, 0, 0)
    aligner = LegAligner(rate=RATE, wait_ms=100)
    frames = [frame for _, block in blocks for frame in aligner.push(Direction.INBOUND, block)]
    assert len(frames) == 45  # 100 ms are five frames
    assert all((frame.mask[1] == Mask.LOST).all() for frame in frames)
    frames = [frame for _, block in late for frame in aligner.push(Direction.OUTBOUND, block)]
    assert aligner.late == 45 * 160
    assert [frame.position for frame in frames] == [160 * k for k in range(45, 50)]
    assert all((frame.mask == Mask.RECEIVED).all() for frame in frames)


@pytest.mark.parametrize("drift", [-40, 40])
def test_a_clock_that_drifts_is_followed(drift: int) -> None:
    """Each 10 s the clock corrects by ``drift`` samples: the direction is put anew, and nothing is out of order."""
    aligner = LegAligner(rate=RATE, wait_ms=100)
    frames: list[LegFrame[Any]] = []
    for k in range(100):
        for side in Direction:
            correction = drift * (k // 10) if side else 0
            samples = np.full(160, k + 1, np.int16)
            time_ns = BEGIN_NS + (160 * k + correction) * SAMPLE_NS
            block = Block(INFOS[side], 160 * k, None, 0, time_ns, samples, np.ones(160, np.uint8), time_ns)
            frames += aligner.push(side, block)
    for side in Direction:
        frames += aligner.end(side)
    rows = np.concatenate([frame.samples for frame in frames], axis=1)
    at = 160 * 95 + drift * 9 + 80
    assert rows[1, at] == 96
    assert (np.diff(rows[1][rows[1] > 0]) >= 0).all()
    assert (rows[0, : 160 * 100] == np.repeat(np.arange(1, 101), 160)).all()


def test_a_leg_live_with_the_second_direction_later() -> None:
    count, late = 200, 60

    async def main() -> list[LegFrame[Any]]:
        receiver = in_memory()
        edge = edge_of(receiver)
        frames: list[LegFrame[Any]] = []

        async def send() -> None:
            for k in range(count):
                edge.send(edge.first, packet(k, ssrc=1, payload=payload_of(2 * k)))
                if k >= late:
                    edge.send(edge.first, packet(k, ssrc=2, direction=1, payload=payload_of(2 * k + 1)))
                await asyncio.sleep(0.02)

        async def listen(leg: strep.CallLeg) -> None:
            frames.extend([frame async for frame in leg.frames()])

        async with receiver, asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send())
            leg = await anext(aiter(receiver.legs()))
            assert leg.outbound is None
            assert leg.inbound is not None
            tasks.create_task(listen(leg))
            await sending
            await receiver.stop()
        await leg.wait_ended()
        return frames

    frames = run_virtually(main())
    rows = np.concatenate([frame.samples for frame in frames], axis=1)
    wanted = np.concatenate([pcmu(payload_of(2 * k)) for k in range(count)])
    np.testing.assert_array_equal(rows[0, : len(wanted)], wanted)
    later = np.concatenate([pcmu(payload_of(2 * k + 1)) for k in range(late, count)])
    np.testing.assert_array_equal(rows[1, 160 * late : 160 * count], later)
    assert not rows[1, : 160 * late].any()
    assert (frames[0].mask == [[Mask.RECEIVED] * 160, [Mask.LOST] * 160]).all()


def test_legs_come_once_and_end() -> None:
    async def main() -> list[tuple[str, int]]:
        receiver = in_memory()
        edge = edge_of(receiver)
        found: list[tuple[str, int]] = []

        async def send() -> None:
            for k in range(50):
                for number in range(3):
                    for side in Direction:
                        data = packet(k, ssrc=10 * number + side + 1, call=leg_id(number), direction=side)
                        edge.send(edge.first, data)
                await asyncio.sleep(0.02)
            await receiver.stop()

        async def listen(leg: strep.CallLeg) -> None:
            frames = [frame async for frame in leg.frames(rate=16_000, dtype="float32")]
            assert leg.ended
            assert all(frame.samples.dtype == np.float32 for frame in frames)
            assert {stream.direction for stream in (leg.inbound, leg.outbound) if stream} == set(Direction)
            found.append((leg.name, sum(frame.samples.shape[1] for frame in frames)))

        async with receiver, asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            async for leg in receiver.legs():
                tasks.create_task(listen(leg))
                await asyncio.sleep(0.5)  # whoever iterates may be busy
        return found

    found = run_virtually(main())
    assert sorted(name for name, _ in found) == sorted(str(leg_id(n)) for n in range(3))
    assert {samples for _, samples in found} == {16_000}


def test_wrong_arguments() -> None:
    for wrong in ({"ms": 0.3}, {"wait_ms": -1}, {"dtype": "int32"}, {"ms": 20, "n": 3}):
        with pytest.raises(strep.ConfigurationError):
            LegAligner(rate=RATE, **wrong)  # type: ignore[arg-type]
