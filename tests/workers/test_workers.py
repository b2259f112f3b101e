"""Workers behind one port: nothing goes astray, a dead one is replaced, and all their figures make one summary."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import strep_command
from live import port_of, samples_of, until
from places import TESTS
from stopwatch import Stopwatch
from supervised import (
    check_accounts,
    check_after_restart,
    check_plain_load,
    load,
    plain_load,
    streams_of,
    supervising,
    under_load,
    worker_of_stream,
)
from support import LEG
from worker_sinks import Recording, RecordingMuted, Stuck, contradicting, dying, failing, raising

import strep
from strep._workers import steering
from strep.cli import cli
from strep.simulate.load import call_leg_id_of, expected_samples, send_load

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux steers datagrams by a program"),
    pytest.mark.realtime,
]


def wait_until(condition: Callable[[], object]) -> None:
    asyncio.run(until(condition))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- what they receive -----------------------------------------------------------------------------------------------


@pytest.mark.sockets
async def test_two_workers_record_forty_calls_exactly(tmp_path: Path) -> None:
    came: list[dict[str, Any]] = []
    async with supervising(sinks=Recording(tmp_path)) as supervisor:
        supervisor.on_event = came.append
        assert [w.state for w in supervisor.workers] == ["running", "running"]
        sent = await load(supervisor, streams=80, rate=8000, duration_s=1.5)
        await until(lambda: supervisor.totals().datagrams == sent.sent)
        assert supervisor.live_streams == 80
        best = supervisor.top(5)
        assert [r.packets_received for r in best] == [sent.packets_a_stream] * 5
        assert len(supervisor.summary()["streams"]) == 80
    summary = supervisor.summary()
    assert json.loads(json.dumps(summary)) == summary
    check_accounts(summary)
    totals = summary["totals"]
    assert totals["delivered"] == sent.sent == 80 * sent.packets_a_stream
    assert (totals["streams_started"], totals["streams_ended"], totals["kernel_dropped"]) == (80, 80, 0)
    assert summary["sinks"][0]["files"] == 80
    assert summary["schema"] == 1
    assert len(summary["sockets"]) == 1
    arrivals = [entry["first_arrival_ns"] for entry in summary["streams"]]
    assert arrivals == sorted(arrivals)
    for stream, (entry,) in streams_of(summary).items():
        assert entry["call_leg_id"] == str(call_leg_id_of(stream))
        assert entry["packets_received"] == entry["packets_expected"] == sent.packets_a_stream
        assert (entry["end"], entry["restart_gap_packets"]) == ("closed", 0)
        (file,) = entry["files"]
        assert file == f"{call_leg_id_of(stream)}/a-{('inbound', 'outbound')[stream % 2]}.wav"
        np.testing.assert_array_equal(samples_of(tmp_path / file), expected_samples(stream, sent.packets_a_stream))
    # both directions of a leg came to one worker, the one that the steering says
    steered = {
        event["call"]: worker_of_stream(2 * n)
        for n in range(40)
        for event in came
        if event["call"] == str(call_leg_id_of(2 * n))
    }
    assert len(came) == 80
    assert all(event["worker"] == steered[event["call"]] for event in came)
    assert [w["datagrams"] for w in summary["workers"]] == [
        sent.packets_a_stream * sum(worker_of_stream(s) == index for s in range(80)) for index in (0, 1)
    ]
    assert [w.state for w in supervisor.workers] == ["stopped", "stopped"]
    assert supervisor.totals().datagrams == sent.sent


@pytest.mark.sockets
async def test_plain_rtp_and_a_pair_of_ports(tmp_path: Path) -> None:
    async with supervising(
        rx="127.0.0.1:0",
        tx="127.0.0.1:0",
        call_leg_id=LEG,
        workers=3,
        sinks=Recording(tmp_path),
        pcap=tmp_path / "a.pcap",
    ) as supervisor:
        assert [s.role for s in supervisor.sockets] == ["listen", "rx", "tx"]
        names = await plain_load(supervisor)
    summary = supervisor.summary()
    check_plain_load(summary, [tmp_path / name for name in names])
    recorded = [strep.replay(tmp_path / f"a.{i}.pcap").totals().datagrams for i in range(3)]
    assert recorded == [w["datagrams"] for w in summary["workers"]]


@pytest.mark.sockets
async def test_one_worker_for_a_pair_of_ports_alone() -> None:
    async with supervising(listen=None, rx="127.0.0.1:0", workers=4) as supervisor:
        assert len(supervisor.workers) == 1


# --- who dies --------------------------------------------------------------------------------------------------------


@pytest.mark.sockets
async def test_kill_9_costs_the_other_nothing_and_the_calls_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with supervising(sinks=Recording(tmp_path), pcap=tmp_path / "a.pcap") as supervisor:
        sent = await under_load(supervisor, lambda pid: os.kill(pid, signal.SIGKILL))
    check_after_restart(supervisor.summary(), sent, tmp_path, "worker died")
    dropped = supervisor.totals().dropped_by.get("worker_died", 0)
    assert dropped == supervisor.totals().dropped
    assert "worker 1" in caplog.text
    assert "died: another one takes over" in caplog.text
    check_files_of_the_dead(tmp_path)


async def test_recordings_behind_a_muted_sink_are_completed_when_their_worker_is_killed(tmp_path: Path) -> None:
    async with supervising(sinks=RecordingMuted(tmp_path)) as supervisor:
        sent = await under_load(supervisor, lambda pid: os.kill(pid, signal.SIGKILL))
    check_after_restart(supervisor.summary(), sent, tmp_path, "worker died")


def check_files_of_the_dead(folder: Path) -> None:
    assert {p.name for p in folder.glob("*.pcap")} == {"a.0.pcap", "a.1.pcap", "a.1-2.pcap"}
    dead = next(s for s in range(0, 40, 2) if worker_of_stream(s) == 1)
    if shutil.which("ffmpeg"):
        path = folder / str(call_leg_id_of(dead)) / "a-inbound.wav"
        done = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-f", "null", "-"], capture_output=True, check=True)
        assert not done.stderr


@pytest.mark.sockets
async def test_sigterm_to_a_worker_finishes_its_files_and_another_takes_over(tmp_path: Path) -> None:
    async with supervising(sinks=Recording(tmp_path)) as supervisor:
        sent = await under_load(supervisor, lambda pid: os.kill(pid, signal.SIGTERM), seconds=1.5)
    check_after_restart(supervisor.summary(), sent, tmp_path, "closed")
    assert supervisor.totals().dropped == 0


@pytest.mark.sockets
async def test_what_the_kernel_drops_is_counted_over_restarts() -> None:
    """A worker that does not look: its socket runs over. The socket, and what is in it, are its successor's."""
    async with supervising(receive_buffer=1 << 16) as supervisor:
        first = supervisor.workers[1].pid
        assert first
        os.kill(first, signal.SIGSTOP)
        sent = await load(supervisor, streams=40, rate=10_000, duration_s=0.5)
        dropped = supervisor.sockets[0].kernel_dropped
        assert dropped > 0
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.totals().datagrams + dropped == sent.sent)
        assert supervisor.workers[1].restarts == 1
    summary = supervisor.summary()
    check_accounts(summary)
    by_worker = [w["kernel_dropped"] for w in summary["workers"]]
    assert by_worker[1] > 0
    assert sum(by_worker) == dropped
    assert summary["totals"]["kernel_dropped"] == summary["sockets"][0]["kernel_dropped"] == dropped


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("how", "says"),
    [("pump", "nothing has been read"), ("loop", "nothing has been read"), ("silent", "published nothing for 5 s")],
)
async def test_a_worker_that_cannot_go_on_is_replaced_and_what_waited_is_received(
    how: str, says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = tmp_path / "first"
    told: list[strep.Incident] = []
    async with supervising(sinks=Stuck(how, mark)) as supervisor:

        async def hear() -> None:
            async for incident in supervisor.incidents():
                told.append(incident)  # noqa: PERF401  # they are read while they come

        hearing = asyncio.create_task(hear())
        first = [w.pid for w in supervisor.workers]
        assert int(mark.read_text()) == first[1]
        assert (supervisor.healthy, supervisor.problems()) == (True, [])
        await asyncio.sleep(0.7)
        began, watch = time.monotonic(), Stopwatch()
        sent = await load(supervisor, streams=20, rate=1000, duration_s=1.0)
        if how != "silent":
            assert supervisor.totals().datagrams < sent.sent
        await until(lambda: not supervisor.healthy)
        await until(lambda: supervisor.workers[1].restarts)
        assert time.monotonic() - began > 3.5
        assert watch.seconds < 9
        await until(lambda: supervisor.workers[1].state == "running")
        if how != "silent":  # that one had received all of it, and told nobody
            await until(lambda: supervisor.totals().datagrams == sent.sent)
        more = await load(supervisor, streams=20, rate=1000, duration_s=0.3)
        assert more.sent
        await until(lambda: supervisor.healthy)
        assert supervisor.workers[0] == strep.WorkerStatus(0, first[0], "running", 0)
    await hearing
    (replaced,) = [i for i in told if i.kind == "worker_replaced"]
    assert (replaced.data["worker"], replaced.data["pid"], replaced.data["restarts"]) == (1, first[1], 1)
    assert says in replaced.data["why"]
    assert says in caplog.text
    if how != "silent":
        assert ("stalled", 1) in {(i.kind, i.data["worker"]) for i in told}
    check_accounts(supervisor.summary())


@pytest.mark.sockets
async def test_who_dies_again_and_again_is_tried_less_often(caplog: pytest.LogCaptureFixture) -> None:
    async with supervising(sinks=dying) as supervisor:
        other = supervisor.workers[0].pid
        await until(lambda: supervisor.workers[1].state == "waiting")
        assert supervisor.workers[1].restarts >= 6
        assert "the next one is started in 0.1 s" in caplog.text
        await until(lambda: "the next one is started in 0.2 s" in caplog.text)
        assert supervisor.workers[0] == strep.WorkerStatus(0, other, "running", 0)


@pytest.mark.sockets
async def test_a_nursery_that_was_ended_is_replaced(tmp_path: Path) -> None:
    async with supervising(sinks=Recording(tmp_path)) as supervisor:
        nursery = supervisor._nursery._process  # type: ignore[union-attr]
        assert nursery
        nursery.kill()
        nursery.wait()
        await under_load(supervisor, lambda pid: os.kill(pid, signal.SIGKILL), streams=4, seconds=1.5)
        assert supervisor.workers[1].restarts == 1


@pytest.mark.sockets
async def test_who_cannot_be_started_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with supervising(sinks=Recording(tmp_path)) as supervisor:
        nursery = supervisor._nursery
        assert nursery
        original, failures = nursery.fork, [OSError(11, "no process to be had"), OSError(12, "no memory")]

        def fork(index: int, generation: int, fds: list[int]) -> None:
            if failures:
                raise failures.pop()
            original(index, generation, fds)

        nursery.fork = fork  # type: ignore[method-assign]
        supervisor.on_event = lambda event: 1 / 0  # type: ignore[assignment,return-value]
        await under_load(supervisor, lambda pid: os.kill(pid, signal.SIGKILL), streams=4, seconds=1.5)
        assert supervisor.workers[1].restarts == 3
    assert "not started: no memory" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    check_accounts(supervisor.summary())


# --- the parent ------------------------------------------------------------------------------------------------------

SCRIPT = """
    import asyncio, json, sys
    from pathlib import Path
    import strep
    from worker_sinks import Recording

    async def main():
        async with strep.Supervisor("127.0.0.1:0", workers=2, sinks=Recording(Path(sys.argv[1]))) as supervisor:
            pids = [w.pid for w in supervisor.workers] + [supervisor._nursery._process.pid]
            print(json.dumps([supervisor.sockets[0].address, pids]), flush=True)
            await asyncio.sleep(60)

    {guard}
        asyncio.run(main())
"""


def script(tmp_path: Path, guard: str = 'if __name__ == "__main__":') -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(SCRIPT).format(guard=guard))
    return [sys.executable, str(path), str(tmp_path / "out")]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}


@pytest.mark.sockets
def test_a_parent_that_is_killed_leaves_finished_files_and_nobody(tmp_path: Path) -> None:
    process = subprocess.Popen(script(tmp_path), stdout=subprocess.PIPE, text=True, env=environment())
    try:
        address, pids = json.loads(process.stdout.readline())  # type: ignore[union-attr]
        send_load(f"udp:{address}", streams=20, rate=2000, duration_s=0.5)
        wait_until(lambda: len(list((tmp_path / "out").rglob("*.part.wav"))) == 20)
    finally:
        process.kill()
        process.communicate()
    wait_until(lambda: not any(map(alive, pids)))
    assert not list((tmp_path / "out").rglob("*.part.wav"))
    for stream in range(20):
        path = tmp_path / "out" / str(call_leg_id_of(stream)) / f"a-{('inbound', 'outbound')[stream % 2]}.wav"
        np.testing.assert_array_equal(samples_of(path), expected_samples(stream, 50))


@pytest.mark.sockets
def test_a_main_module_without_a_guard_says_so(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
            import asyncio, strep

            def sinks(index):
                return []

            async def main():
                async with strep.Supervisor("127.0.0.1:0", workers=2, sinks=sinks):
                    print("running")

            asyncio.run(main())
        """)
    )
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert 'if __name__ == "__main__"' in done.stderr.splitlines()[-1]
    (tmp_path / "program.py").write_text(
        (tmp_path / "program.py").read_text().replace("\nasyncio", '\nif __name__ == "__main__":\n    asyncio')
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "running\n", "")


# --- strep capture --workers -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def capturing(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A capture in a process group of its own, as a shell would start it; and its port."""
    command = [sys.executable, "-m", "strep", "capture", "--listen", "127.0.0.1:0", "--json", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        first = process.stdout.readline()  # type: ignore[union-attr]
        assert first, process.stderr.read()  # type: ignore[union-attr]
        event = json.loads(first)
        assert event == {"event": "listening", "workers": 2, "sockets": event["sockets"]}
        (listening,) = event["sockets"]
        yield process, int(listening["address"].rpartition(":")[2])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.sockets
@pytest.mark.parametrize("everybody", [True, False])
def test_a_signal_finishes_everything(tmp_path: Path, everybody: bool) -> None:
    """Ctrl-C reaches the whole process group; a service manager's SIGTERM the parent."""
    with capturing("--workers", 2, "--out", tmp_path) as (process, port):
        sent = send_load(f"udp:127.0.0.1:{port}", streams=40, rate=4000, duration_s=0.5)
        watch = Stopwatch()
        if everybody:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=100)
        took = watch.seconds
    assert process.returncode == 0, err
    assert took <= 2
    assert "Traceback" not in err
    assert "died" not in err
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [e["event"] for e in events]
    assert sorted(kinds) == sorted([*["stream_started"] * 40, *["stream_ended"] * 40, "summary"])
    assert kinds[-1] == "summary"
    for kind in ("stream_started", "stream_ended"):
        mine = [e["call_leg_id"] + e["direction"] for e in events if e["event"] == kind]
        assert len(set(mine)) == 40
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {k: v for k, v in events[-1].items() if k != "event"} == summary
    check_accounts(summary)
    assert summary["totals"]["delivered"] == sent.sent
    for stream, (entry,) in streams_of(summary).items():
        wanted = expected_samples(stream, sent.packets_a_stream)
        np.testing.assert_array_equal(samples_of(tmp_path / entry["files"][0]), wanted)
    assert "wrote" in err
    assert not list(tmp_path.rglob("*.part.wav"))


def strep_capture(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "strep", "capture", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.sockets
def test_the_command_line_says_what_is_wrong(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        done = strep_capture("--workers", 2, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (done.returncode, "taken by another program" in done.stderr) == (4, True)
    contradiction = ("--encoding", "native", "--layout", "stereo", "--out", tmp_path)
    done = strep_capture("--workers", 2, "--listen", "127.0.0.1:0", *contradiction)
    assert (done.returncode, 'use layout "split"' in done.stderr, "Traceback" in done.stderr) == (2, True, False)
    assert strep_command("capture", "--workers", 65).returncode == 2
    done = strep_capture("--workers", 2, "--rx", "127.0.0.1:0", "--duration", 0.2)
    assert (done.returncode, "one call leg" in done.stderr) == (0, True)


@pytest.mark.sockets
def test_a_sink_that_failed_in_one_worker_is_exit_code_6(tmp_path: Path) -> None:
    for number in ("", *(f"-{n}" for n in range(2, 1000))):
        (tmp_path / f"{call_leg_id_of(0)}{number}").touch()  # files where a directory should be
    with capturing("--workers", 2, "--out", tmp_path, "--duration", 1.5) as (process, port):
        send_load(f"udp:127.0.0.1:{port}", streams=8, rate=800, duration_s=0.5)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 6
    assert "wav: EEXIST" in err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["sinks"][0]["dropped_frames"] == 2 * 50 * 160
    assert summary["sinks"][0]["files"] == 6


@pytest.mark.sockets
def test_the_command_line_runs_one_process_where_there_is_no_steering(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module("strep.cli.capture")
    monkeypatch.setattr(module, "steering_problem", lambda: "the kernel does not steer here")
    monkeypatch.setattr(gc, "freeze", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli(["capture", "--listen", "127.0.0.1:0", "--workers", "3", "--duration", "0.2"], standalone_mode=False)
    assert ended.value.code == 0
    said = capsys.readouterr().err
    assert "the kernel does not steer here: one process does it all" in said
    assert "listening on udp:127.0.0.1:" in said


# --- what is wrong at the start --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"workers": 0}, "1 to 64"),
        ({"workers": 65}, "1 to 64"),
        ({"sinks": []}, "function"),
        ({"listen": None}, "no port"),
        ({"max_streams": 0}, "max_streams"),
        ({"transport": "tcp"}, "transport"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(strep.ConfigurationError, match=says):
        strep.Supervisor(**{"listen": "127.0.0.1:0", "workers": 2, **wrong})


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("sinks", "says"),
    [
        (raising, "sinks failed in worker [01]: KeyError: 'no such thing'"),
        (contradicting, 'use layout "split"'),
        (lambda index: [], "pickled"),
    ],
)
async def test_sinks_that_cannot_be_made(sinks: Any, says: str) -> None:
    supervisor = strep.Supervisor("127.0.0.1:0", workers=2, sinks=sinks)
    with pytest.raises(strep.ConfigurationError, match=says):
        await supervisor.start()
    assert not any(w.pid for w in supervisor.workers)
    with pytest.raises(strep.ConfigurationError, match="make a new one"):
        await supervisor.start()


@pytest.mark.sockets
async def test_a_port_that_is_taken() -> None:
    async with supervising() as supervisor:
        port = port_of(supervisor)  # type: ignore[arg-type]
        with pytest.raises(strep.BindError, match="taken"):
            await strep.Supervisor(f"127.0.0.1:{port}", workers=2).start()
        with pytest.raises(strep.BindError, match="taken"):
            await strep.Receiver(f"127.0.0.1:{port}").start()


@pytest.mark.sockets
async def test_without_steering_one_process_does_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(member: socket.socket, workers: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(steering, "attach_program", refuse)
    async with supervising(workers=4, sinks=Recording(tmp_path)) as supervisor:
        assert "not permitted" in str(supervisor.fallback)
        assert "one process does it all" in caplog.text
        assert len(supervisor.workers) == 1
        sent = await load(supervisor, streams=10, rate=1000, duration_s=0.3)
        await until(lambda: supervisor.totals().datagrams == sent.sent)
    check_accounts(supervisor.summary())
    assert len(supervisor.summary()["streams"]) == 10


@pytest.mark.sockets
async def test_a_sink_that_fails_in_a_worker_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with supervising(sinks=failing) as supervisor:
        sent = await load(supervisor, streams=20, rate=1000, duration_s=0.3)
        await until(lambda: supervisor.totals().datagrams == sent.sent)
    assert supervisor.summary()["sinks"][0]["failed"] == "RuntimeError: this sink cannot"
    # what workers log is the parent's to show
    assert any(r.name == "strep" and r.levelno == logging.ERROR and "Failing" in r.message for r in caplog.records)
