"""Who listens decides how long anything waits."""

from __future__ import annotations

import pytest

from strep._engine.release import Release
from strep._model.time import TICK_NS
from strep._receiver.pacing import Pacing, PairsLook

MIB = 1 << 20


def of(release: Release) -> tuple[int, int]:
    return release.within_ns, release.groups


@pytest.mark.parametrize("streams", [1, 5000])
@pytest.mark.parametrize("latency_ms", [0, 5, 20, 60, 200, 800])
def test_a_prompt_sink_waits_no_longer_than_the_latency(streams: int, latency_ms: int) -> None:
    pacing = Pacing(latency_ms * 1_000_000, prompt=True, buffer=MIB)
    release = pacing.release(streams)
    release_ns, groups = release.within_ns, release.groups
    assert release_ns + TICK_NS <= max(latency_ms * 1_000_000, TICK_NS)
    assert release_ns % TICK_NS == 0
    assert groups >= 1
    assert release_ns // TICK_NS // groups >= 1 or release_ns == 0
    for datagrams in (1, 100, 10_000):
        assert pacing.pause_s(datagrams, 123_456_789) <= 0.0102


@pytest.mark.parametrize(("buffer", "longest"), [(MIB, 0.0102), (64 * MIB, 0.1002)])
def test_files_and_nobody_have_time_but_a_small_buffer_has_not(buffer: int, longest: float) -> None:
    pacing = Pacing(0, prompt=False, buffer=buffer)
    assert max(pacing.pause_s(n, now) for n in (0, 10, 100, 9999) for now in (0, 9_999_999)) == pytest.approx(longest)
    assert of(pacing.release(10)) == (100_000_000, 1)
    assert of(pacing.release(5000)) == (300_000_000, 6)


@pytest.mark.parametrize(
    ("datagrams", "since_ms", "buffer", "ticks"),
    [
        (0, 10, 64 * MIB, 10),
        (100, 10, 64 * MIB, 10),  # 10,000 packets/s
        (1000, 100, 64 * MIB, 10),
        (1000, 10, 64 * MIB, 5),  # 100,000 packets/s
        (2500, 10, 64 * MIB, 2),
        (5000, 20, 64 * MIB, 2),
        (5001, 10, 64 * MIB, 1),
        (1000, 10, 16 * MIB, 4),  # a datagram counts for 1 KiB, and what a look finds may fill a quarter of the buffer
        (1000, 10, 4 * MIB, 1),
        (1, 10, 3 * MIB, 1),
        (100_000, 10, 64 * MIB, 1),
        (1, 60_000, 64 * MIB, 10),  # after a pause without media
    ],
)
def test_a_look_finds_some_thousands_if_there_is_room_and_nobody_is_in_a_hurry(
    datagrams: int, since_ms: int, buffer: int, ticks: int
) -> None:
    def pause(*, prompt: bool = False) -> float:
        pacing = Pacing(200_000_000, prompt=prompt, buffer=buffer)
        return pacing.pause_s(datagrams, 9_000_000, since_ns=since_ms * 1_000_000)

    assert pause() == pytest.approx(0.0012 + 0.01 * (ticks - 1))
    assert pause(prompt=True) == pytest.approx(0.0012)


def test_an_iteration_waits_for_nothing() -> None:
    pacing = Pacing(200_000_000, prompt=False, buffer=64 * MIB)
    pacing.iterate()
    assert of(pacing.release(5000)) == (0, 1)
    assert max(pacing.pause_s(n, 0) for n in (0, 50, 5000)) == 0.002


def test_payloads_of_many_streams_are_not_kept_for_nobody() -> None:
    pacing = Pacing(200_000_000, prompt=False, buffer=MIB, audio=False)
    assert pacing.release(500, consumed=False).payloads
    assert not pacing.release(501, consumed=False).payloads
    assert pacing.release(501, consumed=True).payloads
    assert not pacing.release(10).audio
    pacing.iterate()
    assert pacing.release(10).audio
    assert pacing.release(10).prompt


SINCE_NS = 200_000_000


def look(datagrams: int, full: bool = False, buffer: int = 2 * MIB, rows: int = 32_768) -> PairsLook:
    return PairsLook(datagrams, full, buffer, rows)


@pytest.mark.parametrize("datagrams", [0, 1, 1000, 20_000])
def test_pairs_wait_long_however_much_comes_when_nobody_is_in_a_hurry(datagrams: int) -> None:
    """It comes to many ports, and a look costs a system call for each of them."""
    pacing = Pacing(200_000_000, prompt=False, buffer=0)
    assert pacing.pause_s(0, 123_456_789, look(datagrams), SINCE_NS) == 0.2
    assert pacing.pause_s(0, 3_000_000, look(datagrams, full=True), SINCE_NS) == pytest.approx(0.0072)  # there is more
    # 2,700 packets/s fit into each port's buffer meanwhile, as the kernel counts their bytes (768 a packet)
    assert pacing.pause_s(0, 0, look(datagrams, buffer=425_984), SINCE_NS) == 0.2
    assert pacing.pause_s(0, 0, look(datagrams, buffer=212_992), SINCE_NS) == pytest.approx(0.1016, abs=1e-4)
    assert pacing.pause_s(0, 3_000_000, look(datagrams, buffer=2304), SINCE_NS) == pytest.approx(0.0072)


@pytest.mark.parametrize(
    ("datagrams", "since_ms", "rows", "pause_s"),
    [
        (40_000, 200, 32_768, 0.1),  # 2,000 pairs: 200,000 packets/s, of which 20,000 are read in a look
        (20_000, 100, 32_768, 0.1),
        (10_000, 200, 16_384, 0.2),  # 500 pairs
        (1000, 100, 1024, 0.0768),  # three quarters of a small table
        (1_000_000, 100, 32_768, 0.01),  # then whole ticks
        (8000, 10_000, 32_768, 0.2),  # after a pause without media
    ],
)
def test_a_look_at_pairs_finds_no_more_than_is_read_in_one_go(
    datagrams: int, since_ms: int, rows: int, pause_s: float
) -> None:
    pacing = Pacing(200_000_000, prompt=False, buffer=0)
    found = look(datagrams, rows=rows)
    assert pacing.pause_s(0, 200_000, found, since_ms * 1_000_000) == pytest.approx(pause_s)


@pytest.mark.parametrize(
    ("shared", "datagrams", "longest"),
    [(MIB, 0, 0.0102), (64 * MIB, 0, 0.1), (64 * MIB, 1000, 0.05), (64 * MIB, 9999, 0.0102)],
)
def test_a_shared_socket_beside_pairs_is_looked_at_as_without_them(shared: int, datagrams: int, longest: float) -> None:
    pacing = Pacing(200_000_000, prompt=False, buffer=shared)
    found = max(pacing.pause_s(datagrams, now, look(1000)) for now in (0, 5_000_000, 9_999_999))
    assert found == pytest.approx(longest)


def test_who_iterates_pairs_gets_each_tick_whole_and_waits_2_ms_when_others_come_too() -> None:
    pacing = Pacing(0, prompt=False, buffer=64 * MIB)
    pacing.iterate()
    # ports are read just before a tick's end, and once more behind it
    assert pacing.pause_s(0, 3_000_000, look(80)) == pytest.approx(0.0064)
    assert pacing.pause_s(0, 9_400_000, look(80)) == pytest.approx(0.0008)
    assert pacing.pause_s(0, 9_999_999, look(1)) == pytest.approx(0.0002, abs=1e-6)
    for now in range(0, 10_000_000, 50_000):
        assert 0.0002 <= pacing.pause_s(0, now, look(80)) <= 0.0094
    assert pacing.pause_s(5, 0, look(80)) == 0.002
    assert pacing.pause_s(0, 0, look(0)) == 0.002
    assert [pacing.whole_ticks(n, of_pairs) for n, of_pairs in ((0, 0), (80, 80), (80, 79), (500, 0))] == [
        False, True, False, False
    ]  # fmt: skip
    prompt = Pacing(5_000_000, prompt=True, buffer=0)
    assert max(prompt.pause_s(0, now, look(n)) for n in (0, 50, 5000) for now in (0, 1, 9_999_999)) <= 0.0102
    assert prompt.pause_s(0, 0, look(50)) == 0.008
