"""What files are worth when things go wrong: killed processes, full disks, no descriptors, slow writers."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from depth import usual_or_slow
from live import hashes, samples_of
from places import TESTS
from programs import four_programs_read
from stopwatch import Stopwatch, run_delay_s
from support import MS, T0, Arrival, batch_of, leg_id, packet, payload_of, pcmu, run, steady

from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine
from strep._engine.release import Release
from strep._threads.incidents import Incident
from strep.sinks import WavSink
from strep.sinks.wav import disk as _wavdisk

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals and descriptors as of POSIX"),
    pytest.mark.realtime,
]

# --- SIGKILL: faults.md 31 --------------------------------------------------------------------------------------------

KILLS = usual_or_slow(16, 200)
STREAMS = 4
AT_ONCE = 20

# imports everything once, then is a receiver in a forked child for every line it is told
_ZYGOTE = """
import asyncio, os, sys
import strep
from strep.sinks import WavSink

def child(port, folder, encoding, layout):
    async def main():
        # who sends here does so when it gets to it: corrected for that, samples would not be those that were sent
        sink = WavSink(folder, encoding=encoding, layout=layout, drift_correction=False)
        async with strep.Receiver(f"127.0.0.1:{port}", sinks=[sink]):
            open(folder + ".ready", "w").close()
            await asyncio.Event().wait()
    asyncio.run(main())

for line in sys.stdin:
    if (pid := os.fork()) == 0:
        sys.stdin.close()
        child(*line.split())
    print(pid, flush=True)
"""


@pytest.mark.sockets
@pytest.mark.witness
@pytest.mark.timeout(600)
@pytest.mark.realtime
def test_a_killed_process_leaves_files_that_open_and_lack_at_most_a_second(tmp_path: Path) -> None:
    rng = random.Random(31)
    zygote = subprocess.Popen(
        [sys.executable, "-c", _ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    children: list[int] = []
    try:
        for first in range(0, KILLS, AT_ONCE):
            opened = [_start(zygote, tmp_path / str(first + k), rng) for k in range(min(AT_ONCE, KILLS - first))]
            children += [pid for pid, *_ in opened]
            _check(_feed_and_kill(opened, rng))
    finally:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        zygote.stdin.close()  # type: ignore[union-attr]
        zygote.wait(100)
        zygote.stdout.close()  # type: ignore[union-attr]


def _start(zygote: Any, folder: Path, rng: random.Random) -> tuple[int, int, Path, int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    encoding, layout = rng.choice([("pcm16", "split"), ("native", "split"), ("pcm16", "stereo")])
    zygote.stdin.write(f"{port} {folder} {encoding} {layout}\n")
    pid = int(zygote.stdout.readline())
    ready = folder.with_name(folder.name + ".ready")
    deadline = time.monotonic() + 100
    while not ready.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return pid, port, folder, 1 if layout == "split" else 2


@dataclass
class Killed:
    """A receiver that was fed and killed."""

    folder: Path
    channels: int
    ages: list[float] = field(default_factory=list)
    """Of each packet: how long before the kill it was sent, without what the process waited for a processor since."""
    apart_s: float = 0.0  # the longest time between the first packets of a call's two directions


def _feed_and_kill(opened: list[tuple[int, int, Path, int]], rng: random.Random) -> list[Killed]:
    """Streams to all of them in real time; each is killed at a moment of its own."""
    began = time.monotonic()
    ends = {pid: began + rng.uniform(0.05, 2.5) for pid, *_ in opened}
    alive = {pid: port for pid, port, _, _ in opened}
    killed = {pid: Killed(folder, channels) for pid, _, folder, channels in opened}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        k = 0
        while alive:
            if time.monotonic() >= began + 0.02 * k:
                datagrams = [packet(k, call=leg_id(s // 2), direction=s % 2) for s in range(STREAMS)]
                for pid, port in alive.items():
                    at = time.monotonic()
                    for data in datagrams:
                        plain.sendto(data, ("127.0.0.1", port))
                    killed[pid].apart_s = max(killed[pid].apart_s, time.monotonic() - at)
                    killed[pid].ages.append(at - run_delay_s(pid))
                k += 1
            for pid in [pid for pid in alive if time.monotonic() >= ends[pid]]:
                waited = run_delay_s(pid)
                os.kill(pid, signal.SIGKILL)
                end = time.monotonic() - waited
                killed[pid].ages = [end - at for at in killed[pid].ages]
                del alive[pid]
            time.sleep(0.001)
    return list(killed.values())


def _check(killed: list[Killed]) -> None:
    paths = [sorted(one.folder.rglob("*.wav")) for one in killed]
    frames = four_programs_read([p for found in paths for p in found if p.stat().st_size])
    for one, found in zip(killed, paths, strict=True):
        # what was sent a second before the kill is there
        due = sum(age >= 1.0 for age in one.ages)
        if due > 1:
            assert len(found) == STREAMS // one.channels
        for path in found:
            assert path.name.endswith(".part.wav")
            # a file that was being created may be empty; it lacks nothing that is due
            there = frames.get(path, 0)
            assert there >= due * 160
            if there:
                samples = samples_of(path)
                wanted = np.concatenate([pcmu(payload_of(k)) for k in range(there // 160 + 1)])
                shifts = range(160 + round(8000 * one.apart_s) if one.channels == 2 else 1)
                for channel in samples.reshape(-1, one.channels).T:
                    assert any(_is(channel, wanted, shift, due * 160) for shift in shifts)


def _is(channel: np.ndarray, wanted: np.ndarray, shift: int, due: int) -> bool:
    """Whether a channel is ``wanted`` as far as it is due. With two channels one begins later, by when it came, and may
    lag behind the other at the end."""
    wrong = np.flatnonzero(channel != np.concatenate([np.zeros(shift, np.int16), wanted])[: len(channel)])
    return not len(wrong) or (shift + due <= wrong[0] and not channel[wrong].any())


# --- a full disk: faults.md 29 ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if not shutil.which("mount") or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a test that failed has left files open


def test_a_full_disk_pauses_the_files_and_they_go_on(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wavdisk, "PAUSE_S", 0.1)
    monkeypatch.setattr(_wavdisk, "_CALM_S", 0.3)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(400 << 10))
    sink = WavSink(small_disk / "out")
    engine = Engine(release=Release(20 * MS))
    dispatcher = Dispatcher([sink])
    told: list[Incident] = []
    dispatcher.incidents.listen(told.append)
    arrivals = steady(1000)
    wanted = np.concatenate([pcmu(payload_of(k)) for k in range(1000)])
    # 1,000 packets are 320 kB: there is room for about a third
    for begin in range(0, 600, 10):
        dispatcher.handle(engine.receive(batch_of(arrivals[begin : begin + 10])))
        _settle(sink)
    report = sink.report()
    assert set(report["errors"]) == {"ENOSPC"}
    assert (report["failed"], report["paused"]) == (None, True)
    assert report["problem"].startswith("ENOSPC: ")
    assert 0 < report["dropped_frames"] < 600 * 160
    (part,) = (small_disk / "out").rglob("*.wav")
    four_programs_read([part])
    ballast.unlink()
    _until(lambda: sink.report()["problem"] is None)  # though nothing comes
    lost = sink.report()["dropped_frames"]
    dispatcher.handle(engine.receive(batch_of(arrivals[600:])))
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    (path,) = (small_disk / "out").rglob("*.wav")
    assert path.name == "a-inbound.wav"
    samples = samples_of(path)
    assert len(samples) == 1000 * 160
    # what was lost is silence, at its place; of the first block that is lost the beginning may be there
    right = samples == wanted
    first = int(np.flatnonzero(~right)[0])
    assert not samples[first:][~right[first:]].any()
    assert lost == sink.report()["dropped_frames"]
    last = int(np.flatnonzero(~right)[-1]) // 160 * 160 + 160
    assert last - lost <= first < last - lost + 10 * 160
    assert right[600 * 160 :].all()
    assert [i.kind for i in told] == ["disk_paused", "disk_resumed"]
    assert told[0].data["error"].startswith("ENOSPC")
    assert told[0].data["where"].startswith(str(small_disk / "out"))
    assert told[1].data["lost_frames"] == lost
    four_programs_read([path])


def _until(condition: Callable[[], object], seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _settle(sink: WavSink) -> None:
    """Wait until the writing thread has taken everything."""
    _until(lambda: sink._thread.idle)


def test_a_disk_that_is_full_from_the_start_is_told(small_disk: Path) -> None:
    with contextlib.suppress(OSError):
        (small_disk / "ballast").write_bytes(bytes(1 << 20))
    sink = WavSink(small_disk / "out")
    engine, dispatcher = Engine(), Dispatcher([sink])
    dispatcher.handle(engine.receive(batch_of(steady(200))))
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    report = sink.report()
    assert report["failed"]
    assert report["dropped_frames"] == 200 * 160


# --- descriptors: faults.md 36 ----------------------------------------------------------------------------------------

_FEW = """
import json, os, resource, sys, time
import numpy.ma  # np.unique does when it is first called, which is no more possible then
sys.path[:0] = [{tests!r}]
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
from pathlib import Path
import strep
from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine
from strep._engine.release import Release
from strep.sinks import WavSink
from support import Arrival, T0, MS, batch_of, leg_id, packet
engine, sink = Engine(), WavSink({out!r})
dispatcher = Dispatcher([sink])
def feed(streams, first, count):
    batch = [Arrival(T0 + 20 * MS * k, packet(k, call=leg_id(n))) for k in range(first, first + count) for n in streams]
    dispatcher.handle(engine.receive(batch_of(batch)))
    while not sink._thread.idle: time.sleep(0.002)
"""


def script(tmp_path: Path, limit: int, body: str) -> dict[str, Any]:
    head = _FEW.format(tests=str(TESTS), limit=limit, out=str(tmp_path / "out"))
    tail = "\ndispatcher.handle(engine.flush()); dispatcher.close(30)\nprint(json.dumps(sink.report()))"
    done = subprocess.run([sys.executable, "-c", head + body + tail], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    import json

    return dict(json.loads(done.stdout))


def test_more_streams_than_descriptors(tmp_path: Path) -> None:
    report = script(tmp_path, 90, "feed(range(120), 0, 40); feed(range(120), 40, 40)")
    assert (report["failed"], report["dropped_frames"], report["refused_streams"]) == (None, 0, 0)
    wanted = np.concatenate([pcmu(payload_of(k)) for k in range(80)])
    for n in range(120):
        np.testing.assert_array_equal(samples_of(tmp_path / "out" / str(leg_id(n)) / "a-inbound.wav"), wanted)


@pytest.mark.parametrize("freed", [True, False])
def test_without_a_descriptor_the_newest_streams_wait(tmp_path: Path, freed: bool) -> None:
    """Old calls go on. New ones wait in memory, and have their files when old ones are complete at the latest."""
    body = f"""
feed(range(5), 0, 40)
others = []
while True:
    try: others.append(os.open("/dev/null", os.O_RDONLY))
    except OSError: break
feed(range(8), 40, 40)
for fd in others if {freed} else (): os.close(fd)
feed(range(8), 80, 40)
"""
    report = script(tmp_path, 400, body)
    assert set(report["errors"]) == {"EMFILE"}
    assert (report["failed"], report["dropped_frames"], report["refused_streams"]) == (None, 0, 0)
    wanted = np.concatenate([pcmu(payload_of(k)) for k in range(120)])
    for n in range(8):
        path = tmp_path / "out" / str(leg_id(n)) / "a-inbound.wav"
        np.testing.assert_array_equal(samples_of(path), wanted[0 if n < 5 else 40 * 160 :])


def test_streams_without_a_descriptor_are_refused_at_the_end(tmp_path: Path) -> None:
    body = """
others = []
while True:
    try: others.append(os.open("/dev/null", os.O_RDONLY))
    except OSError: break
feed(range(8), 0, 40)
"""
    report = script(tmp_path, 400, body)
    assert (report["dropped_frames"], report["refused_streams"]) == (8 * 40 * 160, 8)
    assert report["failed"].startswith("EMFILE")


# --- slow and broken writers -----------------------------------------------------------------------------------------


def test_a_slow_disk_loses_blocks_of_files_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = WavSink(tmp_path, queue_bytes=50_000)
    write = sink._writer.write

    def slow(*arguments: Any) -> None:
        time.sleep(0.05)
        write(*arguments)

    monkeypatch.setattr(sink._writer, "write", slow)
    engine, dispatcher = Engine(release=Release(20 * MS)), Dispatcher([sink])
    arrivals = steady(1000)
    watch = Stopwatch()
    for begin in range(0, 1000, 10):
        dispatcher.handle(engine.receive(batch_of(arrivals[begin : begin + 10])))
    assert watch.seconds < 2.5  # 100 batches of 50 ms would be 5 s: nobody waited for the disk
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    (path,) = tmp_path.rglob("*.wav")
    samples = samples_of(path)
    wanted = np.concatenate([pcmu(payload_of(k)) for k in range(1000)])
    assert sink.report()["dropped_frames"] > 0
    wrong = samples != wanted[: len(samples)]
    assert not samples[wrong].any()
    assert 1000 * 160 - np.count_nonzero(~wrong) <= sink.report()["dropped_frames"]


def test_a_directory_that_vanishes_is_made_again(tmp_path: Path) -> None:
    sink = WavSink(tmp_path / "out")
    for n in (0, 1):
        engine, dispatcher = Engine(), Dispatcher([sink])
        dispatcher.handle(engine.receive(batch_of(steady(20, call=leg_id(n)))))
        dispatcher.handle(engine.flush())
        _settle(sink)
        if n == 0:
            shutil.rmtree(tmp_path / "out")
    dispatcher.close(10)
    assert set(hashes(tmp_path / "out")) == {f"{leg_id(1)}/a-inbound.wav"}


def test_a_path_that_cannot_be_is_a_failure_of_the_sink_alone(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file, not a directory")
    sink = WavSink(tmp_path / "out")
    engine, dispatcher = Engine(), Dispatcher([sink])
    dispatcher.handle(engine.receive(batch_of(steady(20))))
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    report = dispatcher.reports()[0]
    assert report["failed"]
    assert report["dropped_frames"] == 20 * 160
    assert engine.totals().delivered == 20


def test_a_jump_far_ahead_costs_no_disk(tmp_path: Path) -> None:
    """faults.md 8, in the file: the hour is not written."""
    ahead = [Arrival(T0 + (1000 + 20 * k) * MS, packet(50 + k, timestamp=(3600 * 8000 + 160 * k))) for k in range(50)]
    arrivals = steady(50) + ahead
    sink = WavSink(tmp_path)
    engine, dispatcher = Engine(), Dispatcher([sink])
    dispatcher.handle(engine.receive(batch_of(arrivals)))
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    (path,) = tmp_path.rglob("*.wav")
    assert soundfile.info(path).frames < 3 * 8000
    assert run(arrivals).only()[1].timestamp_jumps == 1
