"""faults.md 35, in virtual time: the wall clock is set, as often and as far as one likes, and arrival times go on."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import MS

from strep._edge.udp.clock import SteadyClock
from strep._edge.udp.stamps import Stamps

S = 1000 * MS
US = MS // 1000
BASE = 1_700_000_000 * S
GUARD = 2 * MS  # what the edge allows for between stamping and queueing


@dataclass
class World:
    """A machine whose wall clock is set at some moments; each reading of a clock takes 60 ns."""

    steps: list[tuple[int, int]]  # when, on the monotonic clock, and by how much
    now: int = 0
    times: list[int] = field(init=False)
    leads: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.steps.sort()
        self.times = [at for at, _ in self.steps]
        self.leads = [BASE, *(BASE + np.cumsum([by for _, by in self.steps], dtype=np.int64)).tolist()]

    def wall_at(self, at: int) -> int:
        return at + self.leads[bisect_right(self.times, at)]

    def wall_ns(self) -> int:
        self.now += 60
        return self.wall_at(self.now)

    def monotonic_ns(self) -> int:
        self.now += 60
        return self.now


@dataclass
class Read:
    """Datagrams of one look: when they came, when they are said to have come, how long the look before is ago."""

    true: npt.NDArray[np.int64]
    told: npt.NDArray[np.int64]
    window: int
    now: int


def read_all(world: World, arrivals: list[int], looks: list[int], rows: int = 4096) -> list[Read]:
    """What a socket makes of ``arrivals``, read at the times of ``looks``, at most ``rows`` at once."""
    clock = SteadyClock(world.wall_ns, world.monotonic_ns)
    origin = clock.now_ns() - world.now
    stamps = Stamps(clock)
    stamps.none()
    done, emptied, found = 0, world.now, []
    for look in looks:
        world.now = max(look, world.now)
        while True:
            stamps.begin()
            begun = world.now
            there = arrivals[done : done + rows]
            there = there[: bisect_right(there, world.now)]
            if not there:
                stamps.none()
            else:
                done += len(there)
                told = stamps.take(np.array([world.wall_at(a) for a in there], np.int64), len(there) < rows)
                found.append(Read(np.array(there) + origin, told, world.now - emptied, world.now + origin))
            if len(there) < rows:
                emptied = begun
                break
    return found


def check(reads: list[Read]) -> int:
    """What holds whatever happens; returns the largest error."""
    last, largest = 0, 0
    for read in reads:
        assert read.told[0] >= last
        assert (np.diff(read.told) >= 0).all()
        assert read.told[-1] <= read.now
        error = np.abs(read.told - read.true)
        assert error.max() <= read.window + GUARD + 100 * US
        last, largest = int(read.told[-1]), max(largest, int(error.max()))
    return largest


moments = st.integers(MS, 1200 * MS)
sizes = st.one_of(
    st.sampled_from([1, -1, 30, -30, 3600, -3600, 86_400 * 365 * 20]).map(lambda s: s * S),
    st.integers(-20 * MS, 20 * MS),
    st.integers(-2 * S, 2 * S),
)


@given(
    steps=st.lists(st.tuples(moments, sizes), max_size=6),
    arrivals=st.lists(moments, min_size=1, max_size=300),
    looks=st.lists(moments, max_size=40),
    rows=st.sampled_from([1, 2, 7, 64, 4096]),
)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_steps_any_traffic_any_looks(
    steps: list[tuple[int, int]], arrivals: list[int], looks: list[int], rows: int
) -> None:
    reads = read_all(World(steps), sorted(arrivals), [*sorted(looks), 1201 * MS], rows)
    assert sum(len(read.told) for read in reads) == len(arrivals)
    check(reads)


@given(
    steps=st.lists(
        st.tuples(moments, st.integers(13 * MS, 4000 * S), st.booleans()), max_size=12, unique_by=lambda s: s[0] // S
    ),
    arrivals=st.lists(moments, min_size=1, max_size=300),
    phase=st.integers(0, 10 * MS),
    rows=st.sampled_from([1, 7, 64, 4096]),
)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_step_longer_than_between_two_looks_moves_nothing(
    steps: list[tuple[int, int, bool]], arrivals: list[int], phase: int, rows: int
) -> None:
    world = World([(at, by if forward else -by) for at, by, forward in steps])
    looks = list(range(phase, 1220 * MS, 10 * MS))
    assert check(read_all(world, sorted(arrivals), looks, rows)) <= US


@given(
    at=st.integers(50 * MS, 1100 * MS),
    by=st.integers(200 * US, 10 * MS),
    forward=st.booleans(),
    gap=st.integers(20 * US, 190 * US),
)
@settings(max_examples=40, deadline=None)
def test_a_short_step_moves_nothing_where_traffic_is_denser(at: int, by: int, forward: bool, gap: int) -> None:
    world = World([(at, by if forward else -by)])
    assert check(read_all(world, list(range(MS, 1200 * MS, gap)), list(range(0, 1210 * MS, 10 * MS)))) <= US


@pytest.mark.parametrize("by", [1, -1, 30, -30, 3600, -3600])
@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize("stalled", [False, True])
def test_row_35(by: int, tenth: int, stalled: bool) -> None:
    """20 legs, both directions; the loop looks every 10 ms, or was held up for half a second around the step."""
    arrivals = sorted(MS + k * 20 * MS + j * 500 * US for k in range(100) for j in range(40))
    at = S + tenth * 100 * MS + 137 * US
    looks = [t for t in range(0, 3 * S, 10 * MS) if not (stalled and at - 300 * MS < t < at + 200 * MS)]
    assert check(read_all(World([(at, by * S)]), arrivals, looks)) <= US


def test_who_wakes_for_a_datagram_reads_it_at_once() -> None:
    """Nothing came for a minute, in which the clock was set back by a second: a time of before would fit as well."""
    for by in (-S, S, -30 * S):
        reads = read_all(World([(40 * S, by)]), [S, 61 * S], [S, S + 10 * MS, 61 * S + 50 * US])
        assert check(reads) <= US


def test_steps_that_no_look_saw_cost_the_place_not_the_distances() -> None:
    world = World([(500 * MS, 3600 * S), (540 * MS, -3600 * S)])
    arrivals = list(range(MS, S, 500 * US))
    reads = read_all(world, arrivals, [*range(0, 490 * MS, 10 * MS), *range(550 * MS, 1010 * MS, 10 * MS)])
    check(reads)
    told = np.concatenate([read.told for read in reads])
    true = np.concatenate([read.true for read in reads])
    between = (true >= BASE + 500 * MS) & (true < BASE + 540 * MS)
    assert np.abs(told - true)[~between].max() <= US
    assert np.abs(np.diff(told[between]) - 500 * US).max() <= US
    assert np.abs(told - true)[between].max() <= 2 * MS


@given(ppm=st.integers(-500, 500), looks=st.lists(st.integers(1, 300 * MS), min_size=5, max_size=80))
@settings(max_examples=100, deadline=None)
@example(ppm=500, looks=[300 * MS] * 80)
def test_clocks_that_drift_apart_do_not_part(ppm: int, looks: list[int]) -> None:
    """Not Linux's: there both are slewed together. Stamps stay as close to the time as to a look."""
    now = 0

    def monotonic_ns() -> int:
        nonlocal now
        now += 60
        return now

    clock = SteadyClock(lambda: BASE + monotonic_ns() + now * ppm // 1_000_000, monotonic_ns)
    origin = clock.now_ns() - now
    stamps = Stamps(clock)
    for pause in looks:
        arrivals = np.sort(now + np.arange(1, 6) * pause // 6)
        now += pause
        stamps.begin()
        told = stamps.take(BASE + arrivals + arrivals * ppm // 1_000_000, True)
        assert np.abs(told - arrivals - origin).max() <= pause * abs(ppm) // 1_000_000 + 100 * US
        assert told[-1] <= clock.now_ns()


def test_a_wall_clock_that_nobody_sets_adds_no_jitter() -> None:
    """However long a look at the clocks is held up."""
    rng = np.random.default_rng(5)
    world = World([])
    clock = SteadyClock(world.wall_ns, world.monotonic_ns)
    told = []
    for _ in range(2000):
        world.now += int(rng.choice([0, 0, 0, 30 * US, 3 * MS]))
        clock.look()
        told.append(clock.epochs[-1].correction_ns)
    assert set(told) == {0}


def test_stamps_of_several_cores_stay_as_they_are() -> None:
    """Two queues of a network card: a few microseconds of disorder are the kernel's, and true."""
    world = World([])
    clock = SteadyClock(world.wall_ns, world.monotonic_ns)
    origin = clock.now_ns() - world.now
    stamps = Stamps(clock)
    stamps.begin()
    came = world.now + np.arange(100) * 50 * US
    came[40], came[41] = came[41], came[40]
    world.now += 10 * MS
    np.testing.assert_array_equal(stamps.take(came + BASE, True), came + origin)
