"""Utterances are exact pieces of the stream, however its blocks were cut and whatever is missing from it."""

from __future__ import annotations

import uuid
from itertools import pairwise

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st

import strep
from strep import Block, Codec, Direction, Ending, Gap, GapCause, Leg, Mask, SpeechStarted, SpeechStopped, Utterance
from strep._speech.cutter import Heard, UtteranceCutter, UtteranceShape
from strep._speech.energy import Verdict
from strep.resample import resample

FRAME, RATE = 160, 8000
BEGIN_NS = 1_700_000_000_000_000_000
LOUD = 1000
PCMU = Codec("PCMU", RATE, RATE, 1, 1)
INFO = strep.StreamInfo(
    0, 0, uuid.UUID(int=1), Leg.A, Direction.INBOUND, "a", "a", "a-inbound", 9000, 1, ("192.0.2.1", 5), 0, BEGIN_NS,
    BEGIN_NS, PCMU,
)  # fmt: skip

Part = tuple[int, bool, int, GapCause]  # samples, whether loud, gap before them and its cause

parts_strategy = st.lists(
    st.tuples(
        st.integers(1, 9000),
        st.booleans(),
        st.sampled_from([0, 0, 0, 1, 160, 333, 4000, 40_000]),
        st.sampled_from([GapCause.LOSS, GapCause.SILENCE, GapCause.OVERRUN]),
    ),
    min_size=1,
    max_size=10,
)


def timeline(parts: list[Part]) -> tuple[np.ndarray, np.ndarray, list[Block]]:
    """The audio with zeros in its gaps, its mask, and a block for each part."""
    rng = np.random.default_rng(1)
    audio, mask, blocks, position = [], [], [], 0
    for count, loud, gap, cause in parts:
        samples = rng.integers(LOUD, 2 * LOUD, count) if loud else rng.integers(0, 10, count)
        silent = cause is GapCause.SILENCE
        audio += [np.zeros(gap, np.int16), samples.astype(np.int16)]
        mask += [np.full(gap, Mask.SILENCE if silent else Mask.LOST, np.uint8), np.full(count, Mask.RECEIVED, np.uint8)]
        position += gap
        time_ns = BEGIN_NS + position * 125_000
        told = Gap(gap, cause) if gap else None
        blocks.append(Block(INFO, position, told, 0, time_ns, audio[-1], mask[-1], time_ns))
        position += count
    return np.concatenate(audio), np.concatenate(mask), blocks


def recut(blocks: list[Block], size: int) -> list[Block]:
    out = []
    for block in blocks:
        for at in range(0, len(block.samples), size):
            piece = slice(at, at + size)
            time_ns = block.time_ns + at * 125_000
            told = None if at else block.gap
            samples, mask = block.samples[piece], block.mask[piece]
            out.append(Block(INFO, block.position + at, told, 0, time_ns, samples, mask, time_ns))
    return out


def loud(samples: np.ndarray) -> Verdict:
    level = float(np.abs(samples.astype(float)).mean())
    return Verdict(level > LOUD / 2, level > LOUD / 4, level)


def cut(blocks: list[Block], shape: UtteranceShape) -> list[Heard]:
    cutter = UtteranceCutter(shape, rate_in=RATE, channels=1, frame=FRAME, start=3, stop=3)
    out: list[Heard] = []
    for block in blocks:
        for samples, received in cutter.frames(block):
            assert len(samples) == FRAME
            assert 0 <= received <= 1
            out += cutter.step(loud(samples))
    return out + cutter.finish()


def same(one: list[Heard], other: list[Heard]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        if isinstance(a, Utterance):
            assert isinstance(b, Utterance)
            np.testing.assert_array_equal(a.samples, b.samples)
            assert (a.position, a.speech, a.ending, a.lost, a.silence, a.missed, a.continued) == (
                b.position, b.speech, b.ending, b.lost, b.silence, b.missed, b.continued,
            )  # fmt: skip
        else:
            assert a == b


@settings(max_examples=usual_or_slow(120, 1500))
@given(parts_strategy, st.integers(40, 700), st.sampled_from([0, 60, 200]), st.sampled_from([100, 500]), st.booleans())
def test_utterances_are_pieces_of_the_stream(
    parts: list[Part], size: int, lead_ms: int, hang_ms: int, short: bool
) -> None:
    audio, mask, blocks = timeline(parts)
    shape = UtteranceShape(None, lead_ms, hang_ms, 1 if short else 30)
    heard = cut(blocks, shape)
    same(heard, cut(recut(blocks, size), shape))
    utterances = [item for item in heard if isinstance(item, Utterance)]
    for u in utterances:
        end = u.position + len(u.samples)
        np.testing.assert_array_equal(u.samples, audio[u.position : end])
        wanted = mask[u.position : end]
        np.testing.assert_array_equal(wanted if u.mask is None else u.mask, wanted if u.mask is not None else 1)
        assert (u.lost, u.silence, u.concealed) == ((wanted == Mask.LOST).sum(), (wanted == Mask.SILENCE).sum(), 0)
        assert 0 <= u.speech[0] <= u.speech[1] <= len(u.samples) <= RATE * shape.max_s + FRAME
        assert u.begin_ns == BEGIN_NS + u.position * 125_000
        assert u.end_ns == BEGIN_NS + end * 125_000
        lead = lead_ms * RATE // 1000
        assert u.speech[0] <= lead
        assert len(u.samples) - u.speech[1] <= lead or u.ending is Ending.LIMIT
    for a, b in pairwise(utterances):
        assert (a.position + len(a.samples) == b.position) if b.continued else b.position >= a.position + len(a.samples)
        assert a.ending is Ending.LIMIT or not b.continued
    # what is told in between: started and stopped in turns, an utterance's end after it stopped or at its limit
    talking = False
    for item in heard:
        if isinstance(item, SpeechStarted):
            assert not talking
            talking = True
        elif isinstance(item, SpeechStopped):
            assert talking
            talking = False
        else:
            assert item.ending is Ending.LIMIT or not talking
    assert not talking
    missed = sum(p[2] for p in parts[1:] if p[3] is GapCause.OVERRUN)
    assert sum(u.missed for u in utterances) <= missed + parts[0][2]


def intervals(flags: list[bool], start: int, hang: int) -> list[tuple[int, int]]:
    """The oracle: [begin, end) in frames of what is said, by looking at the whole of it."""
    out, at = [], 0
    while at + start <= len(flags):
        if not all(flags[at : at + start]):
            at += 1
            continue
        end = at + start
        while any(flags[end : end + hang]):
            end += flags[end : end + hang].index(True) + 1
        out.append((at, end))
        at = end + hang
    return out


@settings(max_examples=usual_or_slow(150, 1500))
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), min_size=1, max_size=20), st.sampled_from([60, 200, 500]))
def test_what_is_speech_is_what_the_oracle_says(runs: list[tuple[bool, int]], hang_ms: int) -> None:
    flags = [flag for flag, count in runs for _ in range(count)]
    _, _, blocks = timeline([(count * FRAME, flag, 0, GapCause.NONE) for flag, count in runs])
    utterances = [u for u in cut(blocks, UtteranceShape(None, 40, hang_ms)) if isinstance(u, Utterance)]
    found = [((u.position + u.speech[0]) // FRAME, (u.position + u.speech[1]) // FRAME) for u in utterances]
    assert found == intervals(flags, 3, -(-hang_ms * 8 // FRAME))


@pytest.mark.parametrize(
    ("rate", "dtype"), [(16_000, "int16"), (16_000, "float32"), (24_000, "int16"), (11_025, "int16")]
)
def test_resampled_as_the_whole_stream_would_be(rate: int, dtype: str) -> None:
    parts = [(9000, False, 0, GapCause.NONE), (20_003, True, 0, GapCause.NONE), (9001, False, 0, GapCause.NONE)]
    audio, _, blocks = timeline([*parts, (30_000, True, 0, GapCause.NONE), (12_000, False, 0, GapCause.NONE)])
    whole = resample(audio if dtype == "int16" else audio.astype(np.float32) / np.float32(32_768), RATE, rate)
    shape = UtteranceShape(rate, 200, 500, 2, dtype)  # type: ignore[arg-type]
    utterances = [u for u in cut(recut(blocks, 160), shape) if isinstance(u, Utterance)]
    assert [u.ending for u in utterances] == [Ending.LIMIT, Ending.PAUSE, *[Ending.LIMIT] * 2, Ending.PAUSE]
    for u in utterances:
        assert u.rate == rate
        np.testing.assert_array_equal(u.samples, whole[u.position : u.position + len(u.samples)])
    assert utterances[0].position + len(utterances[0].samples) == utterances[1].position


def test_a_long_one_is_cut_where_it_is_quietest() -> None:
    quiet = [
        (8000 * 2 - 1600, True, 0, GapCause.NONE),
        (320, False, 0, GapCause.NONE),
        (16_000, True, 0, GapCause.NONE),
    ]
    _, _, blocks = timeline(quiet)
    first, second, *_ = [u for u in cut(blocks, UtteranceShape(None, 0, 500, 2)) if isinstance(u, Utterance)]
    assert first.position + len(first.samples) == second.position
    assert 8000 * 2 - 1600 <= second.position < 8000 * 2 - 1600 + 320
    assert second.continued


def test_missed_audio_is_told_in_the_next_utterance() -> None:
    _, _, blocks = timeline(
        [(1600, True, 0, GapCause.NONE), (1600, True, 80_000, GapCause.OVERRUN), (8000, False, 0, GapCause.NONE)]
    )
    first, second = [u for u in cut(blocks, UtteranceShape(None, 0, 100)) if isinstance(u, Utterance)]
    assert (first.lost, first.missed) == (0, 0)
    assert second.missed == 80_000


@pytest.mark.parametrize(
    "wrong",
    [{"lead_ms": -1}, {"hang_ms": 0}, {"max_s": 0.5}, {"max_s": 1e9}, {"rate": 0}, {"dtype": "int32"}],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(strep.ConfigurationError):
        UtteranceShape(**wrong)  # type: ignore[arg-type]
