"""Frames are the same however the blocks were cut; gaps, positions and time stamps are exact."""

from __future__ import annotations

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st

import strep
from strep import GapCause, Mask
from strep._delivery.framer import Frame, Framer
from strep.resample import resample

Part = tuple[int, int]  # samples, gap before them


def pushed(parts: list[Part], cuts: int, **options: object) -> tuple[list[Frame], np.ndarray]:
    """Frames of these parts, each cut into blocks of ``cuts`` samples; and the audio with zeros in its gaps."""
    size = {} if "n" in options else {"ms": 20}
    framer = Framer(**{**size, "rate_in": 8000, "clock_rate": 8000, **options})  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    frames: list[Frame] = []
    audio: list[np.ndarray] = []
    position = 0
    for size, gap in parts:
        samples = rng.integers(-9000, 9000, size).astype(np.int16)
        audio += [np.zeros(gap, np.int16), samples]
        position += gap
        cause = GapCause.LOSS if gap else GapCause.NONE
        for begin in range(0, size, cuts):
            block = samples[begin : begin + cuts]
            mark = [(position + begin, 1000 + position + begin, 10**6 + position + begin)]
            frames += framer.push(block, position + begin, cause if not begin else GapCause.NONE, mark)
        position += size
    frames += framer.finish()
    return frames, np.concatenate(audio)


parts_strategy = st.lists(
    st.tuples(st.integers(1, 700), st.sampled_from([0, 0, 1, 159, 160, 500])), min_size=1, max_size=6
)


@settings(max_examples=150, deadline=None)
@given(
    parts_strategy,
    st.integers(1, 400),
    st.sampled_from([(None, "int16"), (16_000, "float32"), (24_000, "int16"), (8000, "float32")]),
    st.sampled_from([10, 20, 32]),
)
def test_the_cut_into_blocks_does_not_matter(
    parts: list[Part], cuts: int, form: tuple[int | None, str], ms: float
) -> None:
    parts = [(parts[0][0], 0), *parts[1:]]
    rate, dtype = form
    whole, audio = pushed(parts, 10_000, rate=rate, dtype=dtype, ms=ms)
    frames, _ = pushed(parts, cuts, rate=rate, dtype=dtype, ms=ms)
    assert len(frames) == len(whole)
    for a, b in zip(frames, whole, strict=True):
        np.testing.assert_array_equal(a.samples, b.samples)
        assert (a.position, a.gap, a.padding, a.missed) == (b.position, b.gap, b.padding, b.missed)
    size = round((rate or 8000) * ms / 1000)
    assert [f.position for f in frames] == [size * i for i in range(len(frames))]
    got = np.concatenate([f.samples for f in frames])
    assert got.dtype == np.dtype(dtype)
    wanted = audio if dtype == "int16" else (audio / np.float32(32768)).astype(np.float32)
    wanted = resample(wanted, 8000, rate or 8000)
    np.testing.assert_array_equal(got[: len(wanted)], wanted)
    assert frames[-1].padding == len(got) - len(wanted) < size
    # every sample that never came is told, in the frame where it is missing
    assert sum(f.gap.samples for f in frames if f.gap) == pytest.approx(
        sum(g for _, g in parts) * (rate or 8000) / 8000, abs=3 * len(parts)
    )


def test_time_stamps_of_frames_between_packets() -> None:
    frames, _ = pushed([(480, 0), (480, 160)], 240, ms=10)
    assert [f.rtp_timestamp for f in frames] == [1000 + 80 * i for i in range(14)]
    # the packet that a frame's first sample came in; in a gap the last one before it
    assert [f.arrival_ns - 10**6 for f in frames] == [0, 0, 0, 240, 240, 240, 240, 240, 640, 640, 640, 880, 880, 880]


def test_of_a_long_gap_whole_frames_are_left_out() -> None:
    frames, _ = pushed([(400, 0), (320, 80_000)], 160)
    assert [f.position for f in frames] == [0, 160, 320, 80_320, 80_480, 80_640]
    gaps = [f.gap.samples if f.gap else 0 for f in frames]
    assert sum(gaps) == 80_000
    assert gaps[:2] == [0, 0]
    assert all(f.gap is None or f.gap.cause is GapCause.LOSS for f in frames)
    # 400 samples fill two frames and half of the third, 80,400 lies in the middle of one
    assert frames[2].samples[:80].any()
    assert not frames[2].samples[80:].any()
    assert not frames[3].samples[:80].any()


def test_missed_samples_are_told_once() -> None:
    framer = Framer(ms=20, rate_in=8000, clock_rate=8000)
    first = framer.push(np.ones(160, np.int16), 0, GapCause.NONE, [(0, 0, 1)])
    framer.miss(320)
    rest = framer.push(np.ones(480, np.int16), 480, GapCause.OVERRUN, [(480, 480, 2)])
    assert [f.missed for f in first + rest] == [0, 320, 0, 0, 0, 0]
    assert [f.gap for f in first + rest] == [
        None, strep.Gap(160, GapCause.OVERRUN), strep.Gap(160, GapCause.OVERRUN), None, None, None
    ]  # fmt: skip


def test_who_begins_in_the_middle_has_no_gap_before() -> None:
    framer = Framer(ms=20, rate_in=8000, clock_rate=8000)
    (frame,) = framer.push(np.ones(160, np.int16), 12_345, GapCause.LOSS, [(12_345, 7, 9)])
    assert (frame.position, frame.gap, frame.rtp_timestamp, frame.arrival_ns) == (12_345, None, 7, 9)


def test_two_channels() -> None:
    framer = Framer(ms=10, rate_in=16_000, clock_rate=16_000, channels=2, dtype="float32")
    frames = framer.push(np.full((320, 2), 16_384, np.int16), 0, GapCause.NONE, [(0, 0, 1)])
    assert [f.samples.shape for f in frames] == [(160, 2), (160, 2)]
    assert frames[0].samples[0, 0] == np.float32(0.5)


@settings(max_examples=usual_or_slow(50, 150), deadline=None)
@given(
    parts_strategy,
    st.integers(1, 400),
    st.sampled_from([(None, "int16"), (16_000, "float32")]),
    st.sampled_from([(512, 512), (480, 160), (100, 33), (7, 1), (20_000, 300), (320, 319)]),
)
def test_frames_of_any_size_and_hop(
    parts: list[Part], cuts: int, form: tuple[int | None, str], cut: tuple[int, int]
) -> None:
    parts = [(parts[0][0], 0), *parts[1:]]
    rate, dtype = form
    n, hop = cut
    frames, audio = pushed(parts, cuts, rate=rate, dtype=dtype, n=n, hop=hop)
    wanted = audio if dtype == "int16" else (audio / np.float32(32768)).astype(np.float32)
    wanted = resample(wanted, 8000, rate or 8000)
    # as many as it takes until every sample has been in one
    assert len(frames) == max(1, -(-(len(wanted) - n) // hop) + 1)
    padded = np.concatenate([wanted, np.zeros(n, wanted.dtype)])
    for i, frame in enumerate(frames):
        assert frame.position == i * hop
        np.testing.assert_array_equal(frame.samples, padded[i * hop : i * hop + n])
    assert frames[-1].padding == (len(frames) - 1) * hop + n - len(wanted)
    assert not any(f.padding for f in frames[:-1])
    if rate is None:
        here = np.concatenate([np.repeat([True, False], [gap, size]) for size, gap in parts] + [np.zeros(n, bool)])
        assert [f.gap.samples if f.gap else 0 for f in frames] == [
            int(here[i * hop : i * hop + n].sum()) for i in range(len(frames))
        ]


@pytest.mark.parametrize(("n", "hop"), [(160, 80), (160, 160), (512, 100), (24_000, 8000)])
def test_a_long_gap_with_frames_that_overlap(n: int, hop: int) -> None:
    frames, audio = pushed([(1000, 0), (700, 80_000)], 160, n=n, hop=hop)
    padded = np.concatenate([audio, np.zeros(n, np.int16)])
    seen = np.zeros(len(padded), bool)
    for frame in frames:
        assert frame.position % hop == 0
        np.testing.assert_array_equal(frame.samples, padded[frame.position : frame.position + n])
        seen[frame.position : frame.position + n] = True
    assert seen[:1000].all()
    assert seen[81_000:81_700].all()
    assert [f.position for f in frames] == sorted({f.position for f in frames})
    # what no frame holds was told by the next one
    (jump,) = [i for i in range(1, len(frames)) if frames[i].position - frames[i - 1].position > hop]
    gap = frames[jump].gap
    assert gap is not None
    left_out = frames[jump].position - frames[jump - 1].position - n
    assert gap.samples == max(0, left_out) + min(81_000, frames[jump].position + n) - frames[jump].position


def test_frames_that_are_longer_than_the_gap_are_filled() -> None:
    frames, audio = pushed([(400, 0), (320, 16_000)], 160, n=40_000)
    (frame,) = frames
    np.testing.assert_array_equal(frame.samples[: len(audio)], audio)
    assert frame.gap == strep.Gap(16_000, GapCause.LOSS)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_frames_as_bytes(dtype: str) -> None:
    framer = Framer(n=4, rate_in=8000, clock_rate=8000, dtype=dtype)  # type: ignore[arg-type]
    (frame,) = framer.push(np.array([0, 1, -32_768, 32_767], np.int16), 0, GapCause.NONE, [(0, 0, 1)])
    assert frame.pcm == bytes.fromhex("0000 0100 0080 ff7f")


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 5, "ms": 20}, {"n": 5, "hop": 6}, {"hop": 0}, {"ms": 0.3}])
def test_sizes_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(strep.ConfigurationError):
        Framer(rate_in=8000, clock_rate=8000, **wrong)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(parts_strategy, st.integers(1, 400), st.sampled_from([None, 16_000, 11_000, 6000]), st.integers(0, 3))
def test_masks_are_those_of_the_nearest_samples(parts: list[Part], cuts: int, rate: int | None, seed: int) -> None:
    """However the blocks were cut; without one, gaps are LOST or SILENCE and all else is RECEIVED."""
    parts = [(parts[0][0], 0), *parts[1:]]
    rng = np.random.default_rng(seed)
    framer = Framer(ms=20, rate_in=8000, clock_rate=8000, rate=rate)
    frames: list[Frame] = []
    wanted: list[np.ndarray] = []
    position = 0
    for size, gap in parts:
        cause = GapCause.SILENCE if gap == 160 else GapCause.LOSS
        wanted.append(np.full(gap, Mask.SILENCE if gap == 160 else Mask.LOST, np.uint8))
        position += gap
        mask = np.full(size, Mask.RECEIVED, np.uint8)
        if seed and size > 20:
            mask[10 : 10 + int(rng.integers(1, 10))] = Mask.CONCEALED
        wanted.append(mask)
        for begin in range(0, size, cuts):
            block = np.zeros(len(mask[begin : begin + cuts]), np.int16)
            mark = [(position + begin, 0, 0)]
            told = mask[begin : begin + cuts] if seed else None
            frames += framer.push(block, position + begin, GapCause.NONE if begin else cause, mark, told)
        position += size
    frames += framer.finish()
    truth = np.concatenate(wanted)
    out = np.concatenate([np.full(len(f.samples), Mask.RECEIVED) if f.mask is None else f.mask for f in frames])
    padding = frames[-1].padding
    assert all(f.mask is None or f.mask.dtype == np.uint8 for f in frames)
    assert not any((f.mask == Mask.RECEIVED).all() for f in frames if f.mask is not None)
    assert (out[len(out) - padding :] == Mask.LOST).all()
    at = np.floor(np.arange(len(out) - padding) * 8000 / framer.rate + 0.5).astype(int)
    np.testing.assert_array_equal(out[: len(at)], truth[np.minimum(at, len(truth) - 1)])


def test_the_mask_of_what_a_long_gap_leaves() -> None:
    framer = Framer(ms=20, rate_in=8000, clock_rate=8000)
    ones = np.ones(100, np.int16)
    frames = framer.push(ones, 0, GapCause.NONE, [(0, 0, 0)])
    frames += framer.push(ones, 20_000, GapCause.HOLD, [(20_000, 0, 0)])
    frames += framer.finish()
    assert [f.position for f in frames] == [0, 20_000]
    assert [np.bincount(f.mask, minlength=4).tolist() for f in frames if f.mask is not None] == [
        [0, 100, 0, 60],
        [60, 100, 0, 0],
    ]


@pytest.mark.parametrize(("n", "hop"), [(160, 160), (160, 40), (100, 99), (512, 100)])
@pytest.mark.parametrize("cuts", [37, 160, 4000])
def test_the_mask_of_frames_that_overlap(n: int, hop: int, cuts: int) -> None:
    rng = np.random.default_rng(3)
    mask = rng.choice(4, 50).repeat(40).astype(np.uint8)
    samples = rng.integers(-9000, 9000, len(mask)).astype(np.int16)
    framer = Framer(n=n, hop=hop, rate_in=8000, clock_rate=8000)
    frames: list[Frame] = []
    for at in range(0, len(mask), cuts):
        marks = [(at, at, at + 1)]
        frames += framer.push(samples[at : at + cuts], at, GapCause.NONE, marks, mask[at : at + cuts])
    assert len(frames) > 10 * (n == 160)
    for frame in frames:
        wanted = mask[frame.position : frame.position + n]
        got = np.ones(n, np.uint8) if frame.mask is None else frame.mask
        np.testing.assert_array_equal(got, wanted)
