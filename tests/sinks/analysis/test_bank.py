"""Frames of all streams at once are those that a plain loop cuts from each stream by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from block_batches import Part, batch_of_blocks, stream
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0

import strep
from strep._model.blocks import BlockBatch
from strep._model.types import Mask
from strep.resample import resample
from strep.sinks import FrameSink
from strep.sinks.analysis import gathered_frames
from strep.sinks.analysis.bank import FrameBank
from strep.sinks.analysis.frame_batch import FrameBatch
from strep.sinks.analysis.gathered_frames import FrameGatherer

Frame = tuple[int, int, np.ndarray, float]  # position, time, samples, real


def naive(parts: list[Part], size: int, hop: int, rate: int, dtype: str) -> list[Frame]:
    """One stream, sample by sample."""
    out: list[Frame] = []
    segments: list[list[Part]] = []
    for part in parts:
        last = segments[-1][-1] if segments else None
        if last is not None and last.position + len(last.samples) // last.stream.channels == part.position:
            segments[-1].append(part)
        else:
            segments.append([part])
    before = None  # position of the last frame
    for segment in segments:
        info = segment[0].stream
        rate_in, position = info.sample_rate, segment[0].position
        samples = np.concatenate([p.samples for p in segment])
        mask = np.concatenate(
            [np.ones(len(p.samples) // info.channels, np.uint8) if p.mask is None else p.mask for p in segment]
        )
        if info.channels > 1:
            samples = samples.reshape(-1, info.channels).mean(axis=1).astype(np.float32)
        divisor = np.gcd(rate_in, rate)
        up, down = rate // divisor, rate_in // divisor
        lead = position % down
        padded = np.concatenate([np.zeros(lead, np.float32), samples.astype(np.float32)])
        first = (position - lead) // down * up
        values = resample(padded, rate_in, rate) if rate != rate_in else padded
        values = np.clip(np.rint(values), -32768, 32767) if dtype == "int16" else values / 32768
        real_at = {  # output position → whether the input sample that covers its time was received
            first + i: lead <= i * down // up < len(padded) and mask[i * down // up - lead] == Mask.RECEIVED
            for i in range(len(values))
        }
        at = first // hop * hop
        if before is not None:
            at = max(at, before + hop)
        end = first + len(values)
        covered = max(at, first)
        while covered < end and (at + size <= end or covered < end):
            frame = np.zeros(size)
            real = 0
            for k in range(size):
                if first <= at + k < end:
                    frame[k] = values[at + k - first]
                    real += real_at[at + k]
            out.append((at, T0 + at * 1_000_000_000 // rate, frame, real / size))
            covered = at + size
            before = at
            at += hop
            if at + size > end and covered >= end:
                break
    return out


def collected(found: list[FrameBatch], size: int) -> dict[int, list[Frame]]:
    out: dict[int, list[Frame]] = {}
    for batch in found:
        assert len(set(batch.row.tolist())) == len(batch) == len(batch.streams)
        assert batch.samples.shape == (len(batch), size)
        for i, info in enumerate(batch.streams):
            assert info.index == batch.row[i]
            out.setdefault(info.serial, []).append(
                (int(batch.position[i]), int(batch.time_ns[i]), batch.samples[i].copy(), float(batch.real[i]))
            )
    return out


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[list[Part]], int, int, int, str]:
    """Blocks of several streams, in batches; size, hop, rate, dtype."""
    rate = draw(st.sampled_from([8000, 16_000]))
    size = draw(st.sampled_from([7, 80, 160, 256]))
    hop = draw(st.sampled_from([size, size, max(1, size // 2), max(1, size // 3)]))
    dtype = draw(st.sampled_from(["float32", "int16"]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    batches: list[list[Part]] = [[] for _ in range(draw(st.integers(1, 4)))]
    for index in range(draw(st.integers(1, 5))):
        rate_in = draw(st.sampled_from([8000, 8000, 16_000, 48_000, 44_100]))
        channels = draw(st.sampled_from([1, 1, 1, 2]))
        info = stream(index * 37, rate_in, channels)
        position = draw(st.sampled_from([0, 0, 0, 333]))
        for batch in batches:
            for _ in range(draw(st.integers(0, 3))):
                gap = draw(st.sampled_from([0, 0, 0, 1, 160, 1000]))
                n = draw(st.sampled_from([1, 40, 160, 160, 160, 161, 320, 882]))
                position += gap
                samples = rng.integers(-12_000, 12_000, n * channels).astype(np.int16)
                mask = rng.integers(0, 4, 1 + n // 40).repeat(40)[:n].astype(np.uint8)
                batch.append(Part(info, position, gap, samples, mask if draw(st.booleans()) else None))
                position += n
    return batches, size, hop, rate, dtype


@settings(max_examples=usual_or_slow(40, 600), deadline=None)
@given(traffic())
def test_frames_are_those_of_a_plain_loop(case: tuple[list[list[Part]], int, int, int, str]) -> None:
    batches, size, hop, rate, dtype = case
    bank = FrameBank(size, hop, rate, dtype)  # type: ignore[arg-type]
    out: list[FrameBatch] = []
    for parts in batches:
        if parts:
            out += bank.push(batch_of_blocks(parts))
    parts_of: dict[int, list[Part]] = {}
    for part in [p for batch in batches for p in batch]:
        parts_of.setdefault(part.stream.serial, []).append(part)
    for parts in parts_of.values():
        out += bank.flush(parts[0].stream.index)
    got = collected(out, size)
    for serial, parts in parts_of.items():
        wanted = naive(parts, size, hop, rate, dtype)
        assert [f[0] for f in got.get(serial, [])] == [f[0] for f in wanted]
        for mine, other in zip(got.get(serial, []), wanted, strict=True):
            assert mine[1] == pytest.approx(other[1], abs=2)
            np.testing.assert_allclose(mine[2], other[2], atol=1 if dtype == "int16" else 2e-6)
            assert mine[3] == pytest.approx(other[3], abs=1e-6)
        assert all(f[2].dtype == np.dtype(dtype) for f in got.get(serial, []))
    assert not any(bank.flush(parts[0].stream.index) for parts in parts_of.values())


@settings(max_examples=usual_or_slow(25, 60), deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=30), st.sampled_from([8000, 16_000, 48_000]))
def test_the_cut_into_batches_does_not_matter(cuts: list[int], rate_in: int) -> None:
    infos = [stream(n, rate_in) for n in range(3)]
    audio = np.random.default_rng(1).integers(-9000, 9000, (3, sum(cuts))).astype(np.int16)
    whole, cut = FrameBank(160, rate=16_000), FrameBank(160, rate=16_000)
    once = whole.push(batch_of_blocks([Part(i, 0, 0, a) for i, a in zip(infos, audio, strict=True)]))
    parts: list[FrameBatch] = []
    at = 0
    for n in cuts:
        some = [Part(i, at, 0, a[at : at + n]) for i, a in zip(infos, audio, strict=True)]
        parts += cut.push(batch_of_blocks(some))
        at += n
    for bank, out in ((whole, once), (cut, parts)):
        for info in infos:
            out += bank.flush(info.index)
    a, b = collected(once, 160), collected(parts, 160)
    assert a.keys() == b.keys()
    for serial in a:
        for one, other in zip(a[serial], b[serial], strict=True):
            assert one[:2] == other[:2]
            np.testing.assert_allclose(one[2], other[2], atol=2e-6)


def test_all_streams_of_a_batch_come_together() -> None:
    infos = [stream(n, (8000, 16_000)[n % 2]) for n in range(100)]
    bank = FrameBank(512, rate=16_000)
    out: list[FrameBatch] = []
    for tick in range(10):
        out += bank.push(
            batch_of_blocks(
                [Part(i, tick * i.sample_rate // 10, 0, np.zeros(i.sample_rate // 10, np.int16)) for i in infos]
            )
        )
    # 16,000 samples are 31 frames; those of streams that are resampled come at most one push later
    assert sum(len(b) for b in out) in range(3000, 3101)
    assert len(out) <= 2 * 31


def test_a_row_that_another_stream_takes_begins_anew() -> None:
    bank = FrameBank(160)
    assert bank.push(batch_of_blocks([Part(stream(5, serial=1), 0, 0, np.ones(100, np.int16))])) == []
    bank.reset(5)
    later = stream(5, serial=2)
    (batch,) = bank.push(batch_of_blocks([Part(later, 0, 0, np.full(160, 16_384, np.int16))]))
    assert batch.streams == [later]
    assert (batch.samples == 0.5).all()
    assert batch.real.tolist() == [1.0]


WRONG = [{"size": 0}, {"size": 5, "hop": 6}, {"size": 5, "rate": 0}, {"size": 5, "dtype": "x"}]


@pytest.mark.parametrize("wrong", WRONG)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(strep.ConfigurationError):
        FrameBank(**wrong)


def test_the_sink_gives_what_the_bank_cuts_and_the_rest_at_the_end() -> None:
    calls: list[Any] = []
    sink = FrameSink(
        lambda frames: calls.append((frames.row.tolist(), frames.samples.copy(), frames.samples.flags.c_contiguous)),
        n=256,
        hop=128,
        rate=8000,
        on_started=lambda info: calls.append(("started", info.index)),
        on_ended=lambda info, report: calls.append(("ended", info.index)),
    )
    infos = [stream(n) for n in range(3)]
    audio = np.random.default_rng(1).integers(-9000, 9000, (3, 400)).astype(np.int16)
    for info in infos:
        sink.stream_started(info)
    sink.blocks(batch_of_blocks([Part(i, 0, 0, a) for i, a in zip(infos, audio, strict=True)]))
    for info in infos:
        sink.stream_ended(info, None)  # type: ignore[arg-type]
    assert calls[:3] == [("started", 0), ("started", 1), ("started", 2)]
    rows, samples, contiguous = calls[4]
    assert (rows, contiguous) == ([0, 1, 2], True)
    np.testing.assert_array_equal(samples, audio[:, 128:384] / np.float32(32768))
    assert [c[:2] for c in calls if c[0] == "ended"] == [("ended", n) for n in range(3)]
    rows, samples, _ = calls[5]
    assert rows == [0]
    np.testing.assert_array_equal(samples[0, :144], audio[0, 256:] / np.float32(32768))
    assert not samples[0, 144:].any()
    assert len(calls) == 3 + 2 + 3 * 2


# --- cut from some streams at a time --------------------------------------------------------------------------------


@settings(max_examples=usual_or_slow(60, 400), deadline=None)
@given(traffic(), st.integers(1, 3))
def test_frames_cut_from_some_streams_at_a_time_are_the_same_and_stay_what_they_are(case: tuple, blocks: int) -> None:  # type: ignore[type-arg]
    batches, size, hop, rate, dtype = case
    once, gatherer = FrameBank(size, hop, rate, dtype), FrameGatherer(FrameBank(size, hop, rate, dtype))
    wanted: list[FrameBatch] = []
    got: list[FrameBatch] = []
    kept: list[np.ndarray] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gathered_frames, "_VALUES", 1)
        patched.setattr(gathered_frames, "_FEWEST_BLOCKS", blocks)
        for parts in batches:
            if parts:
                wanted += once.push(batch_of_blocks(parts))
                some = gatherer.push(batch_of_blocks(parts))
                assert all(frames.samples.flags.c_contiguous for frames in some)
                got += some
                kept += [frames.samples.copy() for frames in some]
    for frames, samples in zip(got, kept, strict=True):
        np.testing.assert_array_equal(frames.samples, samples)  # nothing was put over what somebody holds
    a, b = collected(wanted, size), collected(got, size)
    assert a.keys() == b.keys()
    for serial in a:
        assert [frame[:2] for frame in a[serial]] == [frame[:2] for frame in b[serial]]
        for one, other in zip(a[serial], b[serial], strict=True):
            np.testing.assert_allclose(one[2], other[2], atol=1 if dtype == "int16" else 2e-6)
            assert one[3] == other[3]


@settings(max_examples=40, deadline=None)
@given(traffic(), st.data())
def test_a_part_of_a_batch_is_what_is_taken_of_it(case: tuple, data: st.DataObject) -> None:  # type: ignore[type-arg]
    for parts in filter(None, case[0]):
        batch = batch_of_blocks(parts)
        begin = data.draw(st.integers(0, len(batch) - 1))
        end = data.draw(st.integers(begin + 1, len(batch)))
        part, taken = batch.part(begin, end), batch.take(np.arange(begin, end))
        names = (*taken.__slots__, "samples", "mask")
        arrays = [name for name in names if isinstance(getattr(taken, name), np.ndarray) and name[0] != "_"]
        assert len(arrays) >= 14
        for name in arrays:
            np.testing.assert_array_equal(getattr(part, name), getattr(taken, name), err_msg=name)
        assert list(part.streams) == list(taken.streams)


def test_memory_is_used_again_when_nobody_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered_frames, "_FEWEST_BLOCKS", 2)
    monkeypatch.setattr(gathered_frames, "_VALUES", 1)
    gatherer = FrameGatherer(FrameBank(160))
    seen: list[int] = []
    held: list[np.ndarray] = []
    for tick in range(6):
        (frames,) = gatherer.push(_batch(tick))
        seen.append(frames.samples.ctypes.data)
        if tick < 3:
            held.append(frames.samples[1:2])  # a view keeps it all
        del frames
    assert len(set(seen[:3])) == 3
    assert len(set(seen[3:])) == 1
    assert not set(seen[:3]) & set(seen[3:])
    assert [int(view[0, 0] * 32_768) for view in held] == [1, 1001, 2001]


def _batch(tick: int) -> BlockBatch:

    return batch_of_blocks([Part(stream(n), 160 * tick, 0, np.full(160, 1000 * tick + n, np.int16)) for n in range(6)])
