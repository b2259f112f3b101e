"""Blocks that are frames as they stand are what a framer makes of them; a consumer's queue keeps count."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from block_batches import Part, batch_of_blocks, stream
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import packet
from virtual import in_memory, run_virtually, send, until

from strep import GapCause, Mask
from strep._delivery.feed import Subscription
from strep._delivery.framer import Frame, Framer
from strep._delivery.pieces import Pieces

Told = tuple[int, int, int, object, int, int, bytes, bytes | None]


def told(frame: Frame) -> Told:
    mask = None if frame.mask is None else frame.mask.tobytes()
    fixed = (frame.position, frame.rtp_timestamp, frame.arrival_ns, frame.gap, frame.missed, frame.padding)
    return *fixed, frame.samples.tobytes(), mask


@st.composite
def blocks_of_a_stream(draw: st.DrawFn) -> list[Part]:
    channels = draw(st.sampled_from([1, 1, 2]))
    info = stream(3, 8000, channels)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    position = draw(st.sampled_from([0, 0, 160, 77]))
    parts: list[Part] = []
    for _ in range(draw(st.integers(1, 12))):
        gap = draw(st.sampled_from([0, 0, 0, 0, 1, 160, 9000]))
        n = draw(st.sampled_from([160, 160, 160, 160, 320, 80, 1]))
        mask = rng.integers(0, 4, n).astype(np.uint8) if draw(st.integers(0, 5)) == 0 else None
        samples = rng.integers(-12_000, 12_000, n * channels).astype(np.int16)
        parts.append(Part(info, position + gap, gap, samples, mask))
        position += gap + n
    return parts


@settings(max_examples=usual_or_slow(150, 600), deadline=None)
@given(blocks_of_a_stream(), st.sampled_from(["int16", "float32"]), st.booleans(), st.sets(st.integers(0, 11)))
def test_the_short_way_is_the_long_way(parts: list[Part], dtype: str, masked: bool, slow: set[int]) -> None:
    """``slow``: before which blocks something was missed."""
    batch = batch_of_blocks(parts)
    pieces = Pieces(batch)
    channels = parts[0].stream.channels
    short, long = (
        Framer(ms=20, rate_in=8000, clock_rate=8000, dtype=dtype, channels=channels)  # type: ignore[arg-type]
        for _ in range(2)
    )
    one: list[Frame] = []
    other: list[Frame] = []
    short_ways = 0
    for i, (part, block) in enumerate(zip(parts, batch, strict=True)):
        mask = block.mask if masked and not (block.mask == Mask.RECEIVED).all() else None
        assert pieces.made_up(i) == (not (block.mask == Mask.RECEIVED).all())
        cause = block.gap.cause if block.gap else GapCause.NONE
        marks = [(block.position, block.rtp_timestamp, block.arrival_ns)]
        assert pieces.marks(i) == marks
        assert pieces.cause(i) == cause
        if i in slow:
            short.miss(5)
            long.miss(5)
        frame = None if i in slow else short.whole(pieces, i, masked)
        if frame is None:
            one += short.push(pieces.values(i, channels), part.position, cause, marks, mask)
        else:
            short_ways += 1
            one.append(frame)
        other += long.push(block.samples, block.position, cause, marks, mask)
    one += short.finish()
    other += long.finish()
    assert [told(f) for f in one] == [told(f) for f in other]
    assert {f.samples.dtype for f in one} <= {np.dtype(dtype)}
    if not slow and not any(p.gap or p.mask is not None for p in parts) and set(batch.frames.tolist()) == {160}:
        assert short_ways == len(parts) - (parts[0].position > 0)  # who begins in the middle goes the long way first


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([40, 160, 800]), min_size=1, max_size=30), st.lists(st.integers(0, 4), max_size=30))
def test_a_queue_holds_what_fits_and_counts_what_it_lost(sizes: list[int], takes: list[int]) -> None:
    """Room for 0.1 s: a block at least, and as many more as fit. The oldest go first."""
    info = stream(0)
    subscription = Subscription(0.1)
    expected: list[int] = []  # blocks that wait
    missed = position = 0
    for i, size in enumerate(sizes):
        batch = batch_of_blocks([Part(info, position, 0, np.full(size, i, np.int16))])
        subscription.put(Pieces(batch), 0)
        expected.append(i)
        while len(expected) > 1 and sum(sizes[k] for k in expected) > 800:
            missed += sizes[expected.pop(0)]
        position += size
        for _ in range(takes[i] if i < len(takes) else 0):
            assert bool(subscription) == bool(expected)
            if expected:
                lost, pieces, block = subscription.take()
                assert (lost, int(pieces.samples[0]), block) == (missed, expected.pop(0), 0)
                missed = 0
    subscription.end()
    left = []
    while not subscription.ended:
        left.append(int(subscription.take()[1].samples[0]))
    assert left == expected


def test_who_is_cancelled_while_waiting_hears_no_more_and_others_do() -> None:
    async def main() -> None:
        async with in_memory(latency_ms=0) as receiver:
            streams = aiter(receiver)
            await send(receiver, [packet(k) for k in range(4)])
            stream_ = await anext(streams)
            first, second = stream_.frames(), stream_.frames()
            got = [await anext(first) for _ in range(4)]
            waiting = [asyncio.create_task(anext(one)) for one in (first, second)]  # type: ignore[arg-type]
            await asyncio.sleep(0.1)
            assert len(stream_._feed.subscriptions) == 2
            waiting[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting[0]
            assert len(stream_._feed.subscriptions) == 1
            await send(receiver, [packet(k) for k in range(4, 8)])
            await until(lambda: receiver.totals().datagrams == 8)
            rest = [await waiting[1]]
        rest += [frame async for frame in second]
        assert [f.position for f in got] == [0, 160, 320, 480]
        assert [f.position for f in rest] == [640, 800, 960, 1120]

    run_virtually(main())
