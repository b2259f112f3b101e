"""Gaps become sound, marked as what it is; how the audio was cut does not matter."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st

from strep import BlockBatch, Codec, Direction, GapCause, Leg, Mask, StreamInfo
from strep._delivery.conceal import Concealer, white_noise

LOSS, SILENCE, RESTART = GapCause.LOSS, GapCause.SILENCE, GapCause.RESTART
PCMU = Codec("PCMU", 8000, 8000, 1, 1)
STEREO = Codec("L16", 16_000, 16_000, 2, 4)
WIDE = Codec("G722", 8000, 16_000, 1, 1)  # the clock runs at half the rate


def info(index: int = 0, serial: int | None = None, codec: Codec = PCMU) -> StreamInfo:
    serial = index if serial is None else serial
    return StreamInfo(index, serial, None, Leg.A, Direction.INBOUND, "n", "n", "s", 9000, 1, ("::1", 1), 0, 0, 0, codec)


@dataclass
class Part:
    """A block: what is missing before it, and its samples."""

    stream: StreamInfo
    position: int
    samples: np.ndarray  # (frames,) or (frames, channels)
    gap: int = 0
    cause: int = 0
    own: np.ndarray | None = None
    noise: bytes | None = None


@dataclass
class Heard:
    """All that came out of one stream."""

    samples: list[np.ndarray] = field(default_factory=list)
    mask: list[np.ndarray] = field(default_factory=list)
    gaps: list[tuple[int, int, int]] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Heard)
        return (
            self.gaps == other.gaps
            and np.array_equal(np.concatenate(self.samples), np.concatenate(other.samples))
            and np.array_equal(np.concatenate(self.mask), np.concatenate(other.mask))
        )


def batch_of(parts: list[Part]) -> BlockBatch:
    """One packet a block."""
    count = len(parts)
    i64: Any = np.int64
    values = np.concatenate([p.samples.reshape(-1) for p in parts])
    codec = [p.stream.codec or PCMU for p in parts]
    timestamp = [1000 + p.position * c.clock_rate // c.sample_rate for p, c in zip(parts, codec, strict=True)]
    return BlockBatch(
        streams=[p.stream for p in parts],
        index=np.array([p.stream.index for p in parts], i64),
        position=np.array([p.position for p in parts], i64),
        frames=np.array([len(p.samples) for p in parts], i64),
        gap_frames=np.array([p.gap for p in parts], i64),
        gap_cause=np.array([p.cause for p in parts], np.uint8),
        rtp_timestamp=np.array(timestamp, np.uint32),
        arrival_ns=np.arange(count, dtype=i64),
        time_ns=np.array([p.position * 1_000_000_000 // p.stream.sample_rate for p in parts], i64),
        offset=np.r_[0, np.cumsum([p.samples.size for p in parts])].astype(i64),
        payload=np.zeros(values.size, np.uint8),
        payload_offset=np.r_[0, np.cumsum([p.samples.size for p in parts])].astype(i64),
        packet_first=np.arange(count + 1, dtype=i64),
        packet_frames=np.array([len(p.samples) for p in parts], i64),
        packet_arrival_ns=np.arange(count, dtype=i64),
        packet_rtp_timestamp=np.array(timestamp, np.uint32),
        decode=lambda: values,
        own_fill=lambda: {i: p.own for i, p in enumerate(parts) if p.own is not None},
        noise={i: p.noise for i, p in enumerate(parts) if p.noise is not None} or None,
    )


def parts_of(stream: StreamInfo, plan: list[tuple[int, int, int]], seed: int = 0) -> list[Part]:
    """A stream by ``plan``: (gap, cause, frames)."""
    rng = np.random.default_rng((stream.serial, seed))
    time, parts = 0, []
    for gap, cause, frames in plan:
        time += gap
        n = np.arange(time, time + frames)[:, None] + 7 * np.arange(stream.channels)
        values = 6000 * np.sin(n * (0.05 + 0.01 * stream.serial)) + rng.normal(0, 900, n.shape)
        samples = np.rint(values).astype(np.int16)
        parts.append(Part(stream, time, samples[:, 0] if stream.channels == 1 else samples, gap, cause))
        time += frames
    return parts


def cut(parts: list[Part], sizes: list[int]) -> list[Part]:
    """The same audio in smaller blocks of these sizes in turn."""
    out, size = [], itertools.cycle(sizes)
    for part in parts:
        at = 0
        while at < len(part.samples):
            step = next(size)
            samples = part.samples[at : at + step]
            if at:
                out.append(Part(part.stream, part.position + at, samples))
            else:
                out.append(Part(part.stream, part.position, samples, part.gap, part.cause, part.own, part.noise))
            at += step
    return out


def checked(batch: BlockBatch, filled: BlockBatch) -> None:
    """What holds of every filled batch."""
    inside = batch.gap_frames - filled.gap_frames
    assert filled.filled is filled
    assert (filled.frames == batch.frames + inside).all()
    assert (filled.position + filled.frames == batch.position + batch.frames).all()
    assert int(filled.frames.sum()) == len(filled.mask)
    channels = np.array([s.channels for s in filled.streams])
    assert (np.diff(filled.offset) == filled.frames * channels).all()
    assert filled.offset[-1] == len(filled.samples)
    assert (np.add.reduceat(filled.packet_frames, filled.packet_first[:-1]) == filled.frames).all()
    assert (filled.rtp_timestamp == filled.packet_rtp_timestamp[filled.packet_first[:-1]]).all()
    assert (filled.gap_cause[filled.gap_frames == 0] == 0).all()
    assert int((filled.mask == Mask.RECEIVED).sum()) == int(batch.frames.sum())
    for block, stream in zip(filled, filled.streams, strict=True):
        codec = stream.codec or PCMU
        wanted = 1000 + block.position * codec.clock_rate // codec.sample_rate
        assert abs(wanted - block.rtp_timestamp) <= (codec.sample_rate > codec.clock_rate)  # half a tick is none
        assert len(block.mask) == len(block.samples)


def heard(batches: list[list[Part]], concealer: Concealer | None = None) -> dict[int, Heard]:
    concealer = concealer or Concealer()
    out: dict[int, Heard] = {}
    for parts in batches:
        batch = batch_of(parts)
        before = batch.samples.copy()
        filled = concealer.fill(batch)
        assert np.array_equal(batch.samples, before)
        checked(batch, filled)
        for block in filled:
            own = out.setdefault(block.stream.serial, Heard())
            if block.gap:
                own.gaps.append((block.position, block.gap.samples, block.gap.cause))
            own.samples.append(block.samples)
            own.mask.append(block.mask)
            own.begins.append(block.position)
    return out


def counts(mask: list[np.ndarray]) -> list[int]:
    return np.bincount(np.concatenate(mask), minlength=4).tolist()


def test_without_gaps_nothing_is_made() -> None:
    concealer = Concealer()
    for k in range(4):
        batch = batch_of([Part(info(i), 160 * k, np.full(160, i, np.int16)) for i in range(3)])
        assert concealer.fill(batch) is batch
    empty = BlockBatch(**{n: getattr(batch, n)[:0] for n in (
        "streams", "index", "position", "frames", "gap_frames", "gap_cause", "rtp_timestamp", "arrival_ns", "time_ns",
        "offset", "payload", "payload_offset", "packet_first", "packet_frames", "packet_arrival_ns",
        "packet_rtp_timestamp")}, decode=lambda: batch.samples[:0])  # fmt: skip
    assert concealer.fill(empty) is empty


@pytest.mark.parametrize(
    ("gap", "cause", "lost", "concealed", "silence"),
    [
        (1, LOSS, 0, 1, 0),
        (160, LOSS, 0, 160, 0),
        (480, GapCause.OVERRUN, 0, 480, 0),
        (481, LOSS, 1, 480, 0),
        (8000, LOSS, 7520, 480, 0),
        (8001, LOSS, 0, 0, 0),
        (800, RESTART, 800, 0, 0),
        (800, SILENCE, 0, 0, 800),
        (8000, GapCause.HOLD, 0, 0, 8000),
        (16_000, GapCause.HOLD, 0, 0, 0),
    ],
)
@pytest.mark.parametrize("codec", [PCMU, STEREO, WIDE])
def test_the_mask_is_exact(codec: Codec, gap: int, cause: int, lost: int, concealed: int, silence: int) -> None:
    times = codec.sample_rate // 8000
    gap, lost, concealed, silence = (times * n for n in (gap, lost, concealed, silence))
    out = heard([parts_of(info(codec=codec), [(0, 0, 1600), (gap, cause, 1600)])])[0]
    assert counts(out.mask) == [lost, 3200, concealed, silence]
    mask, samples = np.concatenate(out.mask), np.concatenate(out.samples)
    inside = lost + concealed + silence
    assert out.gaps == ([] if inside else [(1600 + gap, gap, cause)])
    assert out.begins == [0, 1600] if inside else [0, 1600 + gap]
    assert (mask[:1600] == Mask.RECEIVED).all()
    assert (mask[1600 + inside :] == Mask.RECEIVED).all()
    assert not samples[(mask == Mask.LOST) | (mask == Mask.SILENCE)].any()
    if concealed:
        assert (mask[1600 : 1600 + concealed] == Mask.CONCEALED).all()


def test_only_the_first_10_ms_behind_a_loss_are_mixed() -> None:
    parts = parts_of(info(), [(0, 0, 800), (480, LOSS, 800), (300, SILENCE, 400), (99, RESTART, 400)])
    samples = np.concatenate(heard([parts])[0].samples)
    begins = [800 + 480, 2080 + 300, 2780 + 99]
    for part, begin, changed in zip(parts[1:], begins, (80, 0, 0), strict=True):
        out = samples[begin : begin + len(part.samples)]
        assert np.array_equal(out[changed:], part.samples[changed:])
        assert changed == 0 or not np.array_equal(out[:changed], part.samples[:changed])
    # nothing is left after 60 ms: what comes is faded in from zero
    ramp = np.rint(parts[1].samples[:80] * np.minimum(np.arange(1, 81) / 80, 1))
    assert np.array_equal(samples[1280:1360], ramp)


def test_a_decoders_own_concealment_comes_first() -> None:
    parts = parts_of(info(codec=STEREO), [(0, 0, 800), (640, LOSS, 800)])
    parts[1].own = np.arange(2 * 320, dtype=np.int16)
    out = heard([parts])[0]
    assert counts(out.mask) == [320, 1600, 320, 0]
    samples = np.concatenate(out.samples)
    assert np.array_equal(samples[800:1120].reshape(-1), parts[1].own)
    assert not samples[1120:1440].any()
    assert np.array_equal(samples[1440:], parts[1].samples)
    parts[1].own = np.ones(2 * 700, np.int16)
    out = heard([parts])[0]
    assert counts(out.mask) == [0, 1600, 640, 0]


def test_comfort_noise_at_its_level() -> None:
    parts = parts_of(info(serial=5), [(0, 0, 800), (8000, SILENCE, 800)])
    parts[1].noise = bytes([40, 3, 4])
    out = heard([parts])[5]
    noise = np.concatenate(out.samples)[800:8800].astype(float)
    assert counts(out.mask) == [0, 1600, 0, 8000]
    assert 10 * np.log10((noise**2).mean() / 32_768**2) == pytest.approx(-40, abs=0.3)
    again = heard([cut(parts, [37])])[5]
    assert out == again

    asked: list[tuple[bytes, int, int]] = []

    def maker(payload: bytes, frames: int, rate: int, rng: np.random.Generator) -> np.ndarray:
        asked.append((payload, frames, rate))
        return np.full(frames, 9, np.int16)

    out = heard([parts], Concealer(noise=maker))[5]
    assert asked == [(bytes([40, 3, 4]), 8000, 8000)]
    assert (np.concatenate(out.samples)[800:8800] == 9).all()
    assert not white_noise(b"", 10, 8000, np.random.default_rng(0)).any()
    assert abs(int(white_noise(b"\x00", 1000, 8000, np.random.default_rng(0)).min())) == 32_768  # clipped, not wrapped


def test_behind_a_long_gap_everything_begins_anew() -> None:
    """A loss behind it is concealed from what came since, not from what was before."""
    before = [(0, 0, 1600), (8001, LOSS, 200)]
    a = heard([parts_of(info(), [*before, (160, LOSS, 200)])])[0]
    loud = parts_of(info(), [*before, (160, LOSS, 200)])
    loud[0].samples = np.full(1600, 30_000, np.int16)
    b = heard([loud])[0]
    assert np.array_equal(np.concatenate(a.samples)[1600:], np.concatenate(b.samples)[1600:])
    # nor from what a stream before it in the same row has said, nor from blocks that passed unseen
    alone = heard([parts_of(info(0, 1), [(0, 0, 200), (160, LOSS, 200)])])[1]
    reused = heard([parts_of(info(0, 0), [(0, 0, 1600)]), parts_of(info(0, 1), [(0, 0, 200), (160, LOSS, 200)])])[1]
    assert alone == reused
    later = [Part(p.stream, p.position + 9000, p.samples, p.gap, p.cause) for p in loud[1:]]
    later[0].gap = later[0].cause = 0
    unseen = heard([loud[:1], later])[0]
    assert np.array_equal(np.concatenate(unseen.samples)[1600:], np.concatenate(a.samples)[1600:])


def test_loud_waveforms_are_clipped() -> None:
    square = np.where(np.arange(1600) // 40 % 2, -32_768, 32_767).astype(np.int16)
    parts = [Part(info(), 0, square), Part(info(), 1920, square, 320, LOSS)]
    out = np.concatenate(heard([parts])[0].samples)
    assert np.array_equal(out[1600:1680], square[:80])  # the period is exact, and so is its continuation


plans = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([0, 0, 1, 79, 80, 160, 320, 481, 960]), st.integers(1, 17_000)),
        st.sampled_from([LOSS, LOSS, LOSS, SILENCE, RESTART, GapCause.OVERRUN, GapCause.HOLD]),
        st.one_of(st.sampled_from([1, 20, 80, 160]), st.integers(1, 900)),
    ),
    min_size=1,
    max_size=6,
)
sizes = st.lists(st.sampled_from([3, 40, 80, 160, 161, 1000]), min_size=1, max_size=3)


@settings(max_examples=usual_or_slow(50, 150), deadline=None)
@given(st.lists(plans, min_size=1, max_size=4), st.lists(sizes, min_size=4, max_size=4), st.integers(1, 9), st.data())
def test_how_the_audio_is_cut_does_not_matter(
    all_plans: list[list[tuple[int, int, int]]], all_sizes: list[list[int]], most: int, data: st.DataObject
) -> None:
    """Each stream alone in one batch; all together in blocks of any size, any number of them at a time."""
    streams = [info(i, 10 + i, (PCMU, PCMU, STEREO, WIDE)[i]) for i in range(len(all_plans))]
    whole, pieces = {}, []
    for stream, plan, lengths in zip(streams, all_plans, all_sizes, strict=False):
        plan = [(0, 0, plan[0][2]), *((g, c if g else 0, n) for g, c, n in plan[1:])]
        parts = parts_of(stream, plan)
        for part in parts:
            if part.cause == SILENCE and part.gap % 2:
                part.noise = bytes([30])
            if part.cause == LOSS and part.gap % 7 == 3:
                part.own = np.full(part.gap * stream.channels // 2, 77, np.int16)
        whole |= heard([parts])
        pieces.append(cut(parts, lengths))
    batches = []
    while any(pieces):
        batch: list[Part] = []
        for queue in pieces:
            count = data.draw(st.integers(0, most))
            batch += queue[:count]
            del queue[:count]
        if not batch:  # go on
            queue = next(q for q in pieces if q)
            batch.append(queue.pop(0))
        batches.append(batch)
    assert heard(batches) == whole
