"""Who listens decides how long anything waits."""

from __future__ import annotations

import pytest

from strep._engine.release import Release
from strep._model.time import TICK_NS
from strep._receiver.pacing import Pacing

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


@pytest.mark.parametrize(("buffer", "longest"), [(MIB, 0.0102), (64 * MIB, 0.1)])
def test_files_and_nobody_have_time_but_a_small_buffer_has_not(buffer: int, longest: float) -> None:
    pacing = Pacing(0, prompt=False, buffer=buffer)
    assert max(pacing.pause_s(n, now) for n in (0, 10, 100, 9999) for now in (0, 9_999_999)) == pytest.approx(longest)
    assert pacing.pause_s(9999, 9_000_000) == pytest.approx(0.0012)
    assert of(pacing.release(10)) == (100_000_000, 1)
    assert of(pacing.release(5000)) == (300_000_000, 6)


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
