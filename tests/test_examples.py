"""Every example and the README's own code, run as they stand."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from depth import usual_or_slow
from places import ROOT
from support import LEG, batch_of, steady

from strep._edge.pcap import PcapWriter
from strep.simulate import Impairments, make_traffic, play
from strep.standin import StandIn

EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not here")

SAYS = {
    "record.py": [r"inbound 1\.\d+ s .*/a\.wav", r"outbound 1\.\d+ s .*/a\.wav"],
    "frames.py": [r"inbound: 1\.\d+ s, \d+ ms of them missing, [1-9]\d* packets lost"],
    "batch_analytics.py": [r"(inbound|outbound): \d\d+\.\d dB"],
    "last_seconds.py": [r"inbound: 1\.\d+ s from 0\.00 s on, -\d+ dBFS"],
    "monitor.py": [r"4 streams, \d+ datagrams, 0 kernel drops", r"inbound: \d+ lost, jitter \d+\.\d ms, -\d+ dBFS"],
    "workers.py": [r"worker 1: running, 0 restarts", r"[1-9]\d\d packets of 4 streams delivered"],
    "silero_batch.py": [r"inbound talked for \d+\.\d s", r"outbound talked for \d+\.\d s"],
    "voice_bytes.py": [r"inbound: [6-9]\d frames, \d+ bytes", r"outbound: [6-9]\d frames, \d+ bytes"],
    "legs.py": [r"[0-9a-f-]{36}: 1\.\d s, inbound \d\.\d s, outbound \d\.\d s, both at once \d\.\d s"],
    "own_sink.py": [r"inbound from 127\.0\.0\.1", r"at [01]\.\d\d s: \d+ samples of loss", r"ended \(closed\): [1-9]"],
}


async def run_example(command: list[str], cwd: Path) -> str:
    """The program, and two calls with loss played to it; what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        first = (await asyncio.wait_for(process.stdout.readline(), 100)).decode()
        assert first.startswith("listening on"), (await process.communicate())[1].decode()
        port = int(first.rpartition(":")[2])
        traffic = make_traffic(calls=2, duration_s=1.5, impairments=Impairments(loss=0.1, protect_first=3), seed=2)
        await play(traffic, f"udp:127.0.0.1:{port}")
        out, err = await asyncio.wait_for(process.communicate(), 100)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, err.decode()
    assert not err, err.decode()
    return out.decode()


SECONDS = "6"  # each begins when it is ready, and the calls are over long before, also where all begin at once


@pytest.fixture(scope="module")
def said(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | BaseException]:
    """What the examples printed that are tested now; all run at the same time."""
    wanted = [i.callspec.params["name"] for i in request.session.items if i.originalname == "test_examples_that_listen"]
    folder = tmp_path_factory.mktemp("examples")

    async def run(name: str) -> str:
        cwd = folder / Path(name).stem
        cwd.mkdir()
        into = ["calls"] if name == "record.py" else []
        out = await run_example([str(EXAMPLES / name), "udp:127.0.0.1:0", *into, SECONDS], cwd)
        if into:
            assert len(list((cwd / "calls").rglob("*.wav"))) == 2
            assert (cwd / "calls" / "summary.json").is_file()
        return out

    async def main() -> list[str | BaseException]:
        return await asyncio.gather(*map(run, wanted), return_exceptions=True)

    return dict(zip(wanted, asyncio.run(main()), strict=True))


@pytest.mark.sockets
@pytest.mark.parametrize("name", SAYS)
def test_examples_that_listen(name: str, said: dict[str, str | BaseException]) -> None:
    out = said[name]
    if isinstance(out, BaseException):
        raise out
    for pattern in SAYS[name]:
        assert re.search(pattern, out), out


@pytest.mark.sockets
@pytest.mark.skipif(sys.platform == "win32", reason="signals as of POSIX")
async def test_examples_end_well_when_they_are_told_to(tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM: no traceback, no error; what was recorded is complete."""

    async def run(name: str, number: signal.Signals) -> None:
        cwd = tmp_path / f"{name}-{number.name}"
        cwd.mkdir()
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(EXAMPLES / name), "udp:127.0.0.1:0", cwd=cwd,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert (await asyncio.wait_for(process.stdout.readline(), 100)).startswith(b"listening on")
            process.send_signal(number)
            _, err = await asyncio.wait_for(process.communicate(), 100)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        assert (process.returncode, err.decode()) == (0, ""), name
        assert name != "record.py" or (cwd / "calls" / "summary.json").is_file()

    for name in SAYS:
        assert "strep.run_until_stopped(main(" in (EXAMPLES / name).read_text()
    names = ("record.py", "frames.py", "monitor.py", "workers.py")
    ways = [(name, number) for name in names for number in (signal.SIGINT, signal.SIGTERM)]
    ways = usual_or_slow([ways[0], ways[3], ways[4], ways[7]], ways)  # each example one of them, the other nightly
    for number in (signal.SIGINT, signal.SIGTERM):
        await asyncio.gather(*(run(*way) for way in ways if way[1] == number))


def test_the_example_that_replays(tmp_path: Path) -> None:
    writer = PcapWriter(tmp_path / "a.pcap")
    writer.write(batch_of(steady(100)))
    writer.close()
    command = [sys.executable, str(EXAMPLES / "replay_file.py"), "a.pcap", "out"]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert f"{LEG} inbound PCMU/8000: 2.00 s, 0 lost" in out
    assert "100 of 100 datagrams delivered" in out
    assert (tmp_path / "out" / str(LEG) / "a-inbound.wav").is_file()


@pytest.mark.sockets
async def test_the_example_that_forks_a_call(tmp_path: Path) -> None:
    async with StandIn(calls=1) as api:
        (call,) = api.calls
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(EXAMPLES / "fork_call.py"), call.call_control_id, "127.0.0.1", "udp:127.0.0.1:0", "1.5",
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "TELNYX_API_KEY": api.api_key, "TELNYX_BASE_URL": api.base_url},
        )  # fmt: skip
        out, err = (text.decode() for text in await asyncio.wait_for(process.communicate(), 100))
        assert (process.returncode, err) == (0, "")
        sent = {truth.direction.label: truth.packets for truth in api.truth(call.call_leg_id)}
        assert call.fork is None
    assert re.findall(r"^fork_\w+", out, re.MULTILINE) == ["fork_started", "fork_media", "fork_stopped"]
    for direction, packets in sent.items():
        assert f"{direction}: {packets * 0.02:.2f} s, 0 packets lost" in out


def test_every_example_is_told_and_run() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names >= {*SAYS, "replay_file.py", "fork_call.py"}
    run = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    # a LiveKit room needs a server, which is in no package registry
    assert all(f'"{name}"' in run for name in names - {"livekit_tracks.py"})
    told = (EXAMPLES / "README.md").read_text()
    assert all(f"[`{name}`]({name})" in told for name in names)


@pytest.mark.sockets
async def test_the_code_in_the_readme(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 14
    fields = re.search(r"^ +(frame\..*?)(  #.*)?$", code, re.MULTILINE)
    assert fields
    # the same code, told to listen on a free port and to show what it gets
    shown = code.replace(fields[0], fields[0].replace(fields[1], f"print({fields[1]}, flush=True)"))
    shown = shown.replace("0.0.0.0:9000", "127.0.0.1:0").replace(
        " as receiver:", ' as receiver:\n        print("listening on", receiver.sockets[0].address, flush=True)'
    )
    (tmp_path / "readme.py").write_text(shown)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(tmp_path / "readme.py"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        port = int((await asyncio.wait_for(process.stdout.readline(), 100)).decode().rpartition(":")[2])
        sending = asyncio.create_task(play(make_traffic(calls=1, duration_s=1.5, seed=2), f"udp:127.0.0.1:{port}"))
        text = ""
        while text.count("None") < 20:  # the gap of each frame
            text += (await asyncio.wait_for(process.stdout.readline(), 100)).decode()
        await sending
        assert process.returncode is None
    finally:
        process.kill()
        _, err = await process.communicate()
    assert not err, err.decode()
