"""faults.md 35 on a real socket: a capture whose wall clock and kernel stamps are set 60 times while 20 legs talk."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from live import EDGES, samples_of
from places import TESTS

from strep.simulate import make_traffic, play

pytestmark = pytest.mark.realtime

_SIZES = (1, -1, 30, -30, 3600, -3600, -1, 1, -30, 30, -3600, 3600)
_HERE = TESTS


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("no C compiler here (cc), or no LD_PRELOAD: clockshim.c cannot be used")
    library = tmp_path_factory.mktemp("shim") / "clockshim.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, _HERE / "clockshim.c", "-ldl"], check=True)
    return library


@pytest.mark.parametrize("transport", sorted({transport for transport, _ in EDGES}))
async def test_twenty_legs_while_the_clock_is_set(transport: str, shim: Path, tmp_path: Path) -> None:
    """Six sizes at ten places in a second each, one every 51 ms; and back at once the other way round."""
    traffic = make_traffic(calls=20, duration_s=3.2, legs="a", seed=35)
    begin = time.time() + 2.5
    steps = " ".join(f"{begin + 0.05 + 0.051 * i:.6f}:{_SIZES[i % 12]}" for i in range(60))
    capture = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "strep", "capture", "--listen", "127.0.0.1:0", "--out", str(tmp_path), "--json",
        "--transport", transport,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, limit=1 << 26,
        env={**os.environ, "LD_PRELOAD": str(shim), "STEPS": steps},
    )  # fmt: skip
    assert capture.stdout is not None
    try:
        listening = json.loads(await capture.stdout.readline())
        assert time.time() < begin, "the machine is too slow for this test's plan"
        await asyncio.sleep(begin - time.time())
        sent = await play(traffic, "udp:" + listening["sockets"][0]["address"])
        await asyncio.sleep(0.3)
    finally:
        capture.terminate()
        out, _ = await capture.communicate()
    summary = json.loads(out.splitlines()[-1])
    totals = summary["totals"]
    assert (totals["datagrams"], totals["delivered"]) == (sent.datagrams, sent.datagrams)
    assert len(summary["streams"]) == 40
    for stream in summary["streams"]:
        assert (stream["late"], stream["packets_lost"], stream["restarts"], stream["sources"]) == (0, 0, 0, 1)
        spans_ns = stream["last_arrival_ns"] - stream["first_arrival_ns"]
        assert abs(spans_ns / 1e9 - 3.18) < 0.2
        assert stream["jitter_ms"]["max"] < 200
    for truth in traffic.truth:
        audio = samples_of(tmp_path / str(truth.call_leg_id) / f"a-{truth.direction.label}.wav")
        np.testing.assert_array_equal(audio, truth.audio())
