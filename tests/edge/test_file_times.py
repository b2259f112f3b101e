"""Captures whose times make no sense: a clock that was set, frames of another century. What can be told stays right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, batch_of, packet, run, steady

import strep
from strep._edge.pcap import PcapWriter
from strep._edge.pcap.times import FileTimes
from strep._engine.intake import ticks_of

S = 1000 * MS
YEAR_2100 = 4_102_444_800 * S
I64 = npt.NDArray[np.int64]


def retimed(times: I64, cuts: list[int] | None = None) -> tuple[I64, int]:
    """As they come out of a file that is read in parts."""
    found = FileTimes()
    parts = np.split(times, sorted(cuts or []))
    following = [*parts[1:], np.zeros(0, np.int64)]
    out = [found.take(part, after) for part, after in zip(parts, following, strict=True)]
    return np.concatenate(out), found.retimed


def replayed(path: Path, arrivals: list[Arrival]) -> strep.Replay:
    writer = PcapWriter(path)
    writer.write(batch_of(arrivals))
    writer.close()
    return strep.replay(path)


LINE = T0 + np.arange(400) * 20 * MS


@given(
    pauses=st.lists(st.integers(0, 100_000 * S), min_size=1, max_size=60),
    disorder=st.lists(st.integers(-500 * MS, 0), min_size=60, max_size=60),
    cut=st.integers(0, 60),
)
@settings(max_examples=150, deadline=None)
def test_times_that_make_sense_are_the_files(pauses: list[int], disorder: list[int], cut: int) -> None:
    """However long pauses are, and where a few frames stand half a second out of order."""
    times = T0 + np.cumsum(pauses) + np.array(disorder[: len(pauses)])
    out, count = retimed(times, [min(cut, len(times))])
    np.testing.assert_array_equal(out, times)
    assert count == 0


@given(
    at=st.sets(st.integers(0, 399), min_size=1, max_size=7),
    wrong=st.sampled_from([YEAR_2100, 1 << 62, 0, T0 - 86_400 * S, T0 + 40 * S]),
    cuts=st.lists(st.integers(1, 399), max_size=2, unique=True),  # a reader gives no empty parts
)
@settings(max_examples=150, deadline=None)
def test_frames_of_another_century_leave_the_others_as_they_are(at: set[int], wrong: int, cuts: list[int]) -> None:
    """Lone ones, each between two that are right; the first of a file too."""
    rows = sorted(at - {399} - {a + 1 for a in at} - ({0} if wrong == T0 - 86_400 * S else set()))
    times = LINE.copy()
    times[rows] = wrong
    out, count = retimed(times, [c for c in cuts if c > 2])
    others = np.setdiff1d(np.arange(400), rows)
    np.testing.assert_array_equal(out[others], LINE[others])
    assert count == len(rows)
    # each stands where those around it do
    assert np.abs(out - LINE)[rows].max(initial=0) <= 20 * MS


@given(
    steps=st.lists(
        st.tuples(st.integers(200, 399), st.integers(2 * S, 100_000 * S)),
        min_size=1,
        max_size=5,
        unique_by=lambda s: s[0],
    )
)
@settings(max_examples=150, deadline=None)
def test_a_clock_that_was_set_back_goes_on(steps: list[tuple[int, int]]) -> None:
    times = LINE.copy()
    for at, by in steps:
        times[at:] -= by
    out, _ = retimed(times)
    # where it was set back nothing tells how long the pause was: none is assumed
    lost = 20 * MS * np.searchsorted(np.sort([at for at, _ in steps]), np.arange(400), "right")
    assert np.abs(out - LINE + lost).max() == 0


def test_set_back_and_right_again() -> None:
    times = LINE.copy()
    times[100:200] -= 3600 * S
    out, count = retimed(times)
    assert np.abs(out - LINE).max() <= 20 * MS
    assert count == 100
    np.testing.assert_array_equal(out[200:], LINE[200:])


@given(seed=st.integers(0, 1 << 32), cuts=st.lists(st.integers(0, 300), max_size=4))
@settings(max_examples=100, deadline=None)
def test_whatever_a_file_tells_times_go_on(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    times = rng.choice([0, T0, YEAR_2100, 1 << 62, T0 + 5 * S], 300) + rng.integers(0, 3 * S, 300)
    out, _ = retimed(times.astype(np.int64), cuts)
    assert np.diff(out).min() >= -1 * S


@pytest.mark.parametrize(
    ("wrong", "at"), [(wrong, at) for wrong in (YEAR_2100, 0) for at in (0, 1, 2, 50, 198)] + [(0, 199)]
)
def test_a_replay_with_one_frame_of_another_century(wrong: int, at: int, tmp_path: Path) -> None:
    arrivals = steady(200)
    right = run(arrivals)
    arrivals[at] = Arrival(wrong, arrivals[at].data)
    found = replayed(tmp_path / "a.pcap", arrivals)
    (report,) = found.reports()
    (wanted,) = right.reports
    assert (report.packets_received, report.packets_lost, report.late, report.restarts) == (200, 0, 0, 0)
    assert (report.samples, report.gap_samples) == (wanted.samples, 0)
    assert report.jitter_ms_max < 25
    assert found.totals().delivered == 200
    capture = {name: count for name, count in found.summary()["capture"].items() if count}
    assert capture == {"frames": 200, "datagrams": 200, "retimed": 1}


def test_the_engine_is_not_carried_away() -> None:
    """Where the time is known nothing is after it."""
    arrivals = steady(10)
    batch = batch_of([*arrivals[:5], Arrival(YEAR_2100, packet(99)), *arrivals[5:]])
    now_ns = arrivals[-1].ns + MS
    parts = ticks_of(batch, 0, now_ns)
    assert batch.arrival_ns.max() == now_ns
    assert parts[-1][0] == now_ns // (10 * MS)
