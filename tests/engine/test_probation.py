"""What proves a source: two packets in sequence, or four that advance as media do (FAULTS 21; RFC 3550 A.1)."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, packet, payload_of, pcmu, run, steady

from strep._engine.sources.beginnings import Runs
from strep._engine.sources.held import HELD_COLUMNS, HeldPackets
from strep._engine.sources.probation import Probation


@pytest.mark.parametrize("each", range(2, 11))
@pytest.mark.parametrize("first", [100, 65_530])
def test_a_stream_of_which_only_each_nth_packet_comes_from_the_start_is_recorded(each: int, first: int) -> None:
    numbers = range(first, first + 100 * each, each)
    arrivals = [Arrival(T0 + (n - first) * 20 * MS, packet(n)) for n in numbers]
    result = run(arrivals, cuts=range(1, 100, 7))
    audio, report = result.only()
    assert (report.packets_received, report.packets_expected) == (100, 99 * each + 1)
    assert (report.packets_lost, result.totals.rejected, report.sources) == (99 * (each - 1), 0, 1)
    assert report.gaps == {"loss": 99 * (each - 1) * 160}
    for n in numbers:
        np.testing.assert_array_equal(audio[(n - first) * 160 : (n - first + 1) * 160], pcmu(payload_of(n)))


def test_another_ssrc_of_which_each_second_packet_is_lost_goes_on_with_its_stream() -> None:
    later = [Arrival(T0 + (2000 + 20 * n) * MS, packet(n, ssrc=0x77)) for n in range(0, 100, 2)]
    _, report = run(steady(50) + later).only()
    assert (report.packets_received, report.packets_lost, report.stream.ssrcs) == (100, 49, [0x1234, 0x77])


@pytest.mark.parametrize(
    ("step", "ticks"),
    [
        (11, 11 * 160),  # too far apart
        (2, 0),  # timestamps stand still
        (2, -320),  # or go back
        (-2, 320),  # sequence numbers go back
        (7919, 160),
    ],
)
def test_what_does_not_advance_as_media_do_proves_nothing(step: int, ticks: int) -> None:
    arrivals = [Arrival(T0 + k * 20 * MS, packet(k * step, timestamp=1 << 20 | k * ticks)) for k in range(200)]
    result = run(arrivals, cuts=range(1, 200, 3))
    assert (result.started, result.totals.rejected_by) == ([], {"probation": 200})


def test_random_packets_of_one_source_prove_nothing() -> None:
    """A million of them, none right after the one before."""
    rng = np.random.default_rng(13)
    sequence = rng.integers(0, 65_536, 1_000_000).astype(np.uint16)
    sequence[1:][np.diff(sequence) == 1] += np.uint16(7)
    sequence[1:][np.diff(sequence) == 1] += np.uint16(7)
    assert not (np.diff(sequence) == 1).any()
    timestamp = rng.integers(0, 1 << 32, len(sequence)).astype(np.uint32)
    probation = Probation(seed=1)
    for low in range(0, len(sequence), 5000):
        part = slice(low, low + 5000)
        assert not _offer(probation, np.zeros(5000, np.int64), sequence[part], timestamp[part])


# --- whatever comes, however it is cut ----------------------------------------------------------------------------


def _offer(probation: Probation, who: np.ndarray, sequence: np.ndarray, timestamp: np.ndarray) -> list[int]:
    """Offer packets without payloads; the sources that proved themselves, in order."""
    n = len(who)
    columns = np.zeros(n, HELD_COLUMNS)
    columns["sequence_number"], columns["timestamp"] = sequence, timestamp
    none, zero = np.zeros(n, np.uint64), np.zeros(n, np.int64)
    proofs = probation.offer(none, who.astype(np.uint64), none, columns, np.zeros((1, 1), np.uint8), zero, zero)
    return [one for part in proofs for one in part.lo.tolist()]


def _first_proof(packets: list[tuple[int, int]]) -> int | None:
    """By which of a source's packets it is proved: one by one, in plain numbers."""
    paces: list[Fraction] = []
    for k in range(1, len(packets)):
        step = (packets[k][0] - packets[k - 1][0]) % 65_536
        ticks = (packets[k][1] - packets[k - 1][1] + (1 << 31)) % (1 << 32) - (1 << 31)
        paces.append(Fraction(ticks, step) if 1 <= step <= 10 and ticks > 0 else Fraction(0))
        three = paces[-3:]
        if step == 1 or (len(three) == 3 and min(three) > 0 and max(three) <= min(three) * Fraction(5, 4)):
            return k
    return None


_STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),  # whose
        st.sampled_from([2, 2, 2, 3, 5, 10, 11, 0, -1, 40, 1]),  # sequence numbers further
        st.sampled_from([160, 160, 160, 200, 128, 240, 80, 0, -160]),  # timestamp units for each
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=usual_or_slow(80, 2000), deadline=None)
@given(steps=_STEPS, cuts=st.sets(st.integers(1, 59)), at=st.tuples(st.integers(0, 65_535), st.integers(0, 2**32 - 1)))
def test_sources_are_proved_by_the_packet_that_proves_them(
    steps: list[tuple[int, int, int]], cuts: set[int], at: tuple[int, int]
) -> None:
    of: dict[int, list[tuple[int, int]]] = {}
    sequence, timestamp = [], []
    for who, step, pace in steps:
        prior = of[who][-1] if who in of else at
        number, stamp = (prior[0] + step) % 65_536, (prior[1] + max(step, 1) * pace) % (1 << 32)
        of.setdefault(who, []).append((number, stamp))
        sequence.append(number)
        timestamp.append(stamp)
    whose = np.array([who for who, _, _ in steps])
    wanted = {}
    for who, packets in of.items():
        if (k := _first_proof(packets)) is not None:
            wanted[who] = np.flatnonzero(whose == who)[k]
    probation = Probation(seed=1)
    edges = [0, *sorted(c for c in cuts if c < len(steps)), len(steps)]
    found: dict[int, int] = {}
    for low, high in itertools.pairwise(edges):
        part = slice(low, high)
        proved = _offer(
            probation, whose[part], np.array(sequence[part], np.uint16), np.array(timestamp[part], np.uint32)
        )
        for who in proved:
            found.setdefault(who, high)
    assert found == {who: next(e for e in edges[1:] if e > k) for who, k in wanted.items()}
    # and what was held of a source says the same of it
    for who in of:
        key = np.zeros(1, np.uint64), np.full(1, who, np.uint64), np.zeros(1, np.uint64)
        held = probation.release(*key)
        assert isinstance(held, HeldPackets)
        assert len(held.columns) == len(of[who])
        assert bool(Runs(held, 1, takes_over=False).proven[0]) is (who in wanted)
