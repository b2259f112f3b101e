"""Programs that listen, one of which dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import numpy as np
import pytest
from broker import broker
from commands import STREP, strep_command
from live import hashes, listening, send_paced, until
from places import ROOT
from support import leg_id, packet, payload_of, pcmu

import strep
import strep.remote
from strep.remote.roster import Roster
from strep.sinks import NatsSink, Sink, WavSink

pytestmark = pytest.mark.realtime
LEGS = 16
SHARDS = 8


def datagrams(first: int, count: int) -> list[bytes]:
    return [
        packet(k, call=leg_id(leg), direction=d, ssrc=2 * leg + d + 1)
        for k in range(first, first + count)
        for leg in range(LEGS)
        for d in (0, 1)
    ]


def receiving(*sinks: Sink) -> strep.Receiver:
    return strep.Receiver("udp:127.0.0.1:0", transport="recvmmsg", sinks=sinks, drain_s=10)


@contextlib.contextmanager
def listening_to(url: str, *folders: Path, group: str = "listeners") -> Iterator[list[subprocess.Popen[bytes]]]:
    """``strep listen`` once for each folder."""
    options = ["listen", "--nats", url, "--shortest", "0", "--group", group]
    processes = [subprocess.Popen([*STREP, *options, "--out", str(folder)]) for folder in folders]
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


async def roster_of(url: str, group: str = "listeners") -> Roster:
    client = await nats.connect(url)
    try:
        bucket = await client.jetstream().key_value(f"strep-{group}")
        return Roster.parse((await bucket.get("roster")).value)
    except nats.js.errors.NotFoundError:
        return Roster()
    finally:
        await client.close()


async def shared(url: str, members: int) -> Roster:
    """When so many share all shards."""
    for _ in range(600):
        roster = await roster_of(url)
        shares = [len(roster.of(name)) for name in roster.members]
        if len(shares) == members and sum(shares) == SHARDS and max(shares) - min(shares) <= 1:
            return roster
        await asyncio.sleep(0.1)
    raise AssertionError(f"not shared: {roster}")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.wav"))


def final(folder: Path) -> dict[str, np.ndarray]:
    """Samples of each file, by its name when it is complete."""
    found = {}
    for path in files(folder):
        name = str(path.relative_to(folder)).replace(".part", "")
        data = path.read_bytes().partition(b"data")[2][4:]  # of a file that is not complete, all that is there
        found[name] = np.frombuffer(data[: len(data) // 2 * 2], np.int16)
    return found


async def test_a_listener_that_is_killed_is_replaced_from_where_it_was(tmp_path: Path) -> None:
    """kill -9 of one of two: the other hears its legs within 5 s, and what the dead one had not written is in its
    files. Before, no leg was heard by both."""
    here, a, b = (tmp_path / name for name in ("here", "a", "b"))
    with broker(tmp_path / "broker") as server, listening_to(server.url, a, b) as processes:
        async with receiving(WavSink(here), NatsSink(server.url, shards=SHARDS, tick_s=0.05)) as receiver:
            target = listening(receiver)
            await shared(server.url, 2)
            await send_paced(target, datagrams(0, 150), 2 * LEGS, 0.02)
            await until(lambda: len(files(a)) + len(files(b)) == 2 * LEGS)
            legs = [{path.parent.name for path in files(folder)} for folder in (a, b)]
            assert not legs[0] & legs[1]
            assert legs[0]
            sending = asyncio.create_task(send_paced(target, datagrams(150, 250), 2 * LEGS, 0.02))
            await asyncio.sleep(1)
            processes[0].kill()
            killed_s = time.monotonic()
            await until(lambda: {path.parent.name for path in files(b)} == legs[0] | legs[1])
            taken_s = time.monotonic() - killed_s
            await sending
            written = final(a)
        await until(lambda: not list(b.rglob("*.part.wav")) and len(files(b)) == 2 * LEGS)
        processes[1].send_signal(signal.SIGINT)
        assert await asyncio.to_thread(processes[1].wait, 60) == 0
    assert taken_s < 5
    whole, heard = final(here), final(b)
    assert whole.keys() == heard.keys()
    summary = json.loads((b / "summary.json").read_text())
    assert summary["nats"]["taken_over"] >= SHARDS // 2
    assert summary["nats"]["lost_frames"] == 0
    for name, meant in whole.items():
        assert len(meant) >= 400 * 160  # more where the machine was so slow that it looked like a pause
        rest = heard[name]
        assert len(rest) == len(meant)
        begin = int(np.flatnonzero(rest)[0]) if name in written else 0
        assert np.array_equal(rest[begin:], meant[begin:])
        if name in written:
            before = written[name]
            assert np.array_equal(before, meant[: len(before)])
            assert begin <= len(before)
            assert begin > 0


async def test_both_directions_of_a_leg_are_heard_as_one(tmp_path: Path) -> None:
    """receiver.legs() on another machine: the samples of both directions, at the same time."""
    count = 60

    async def hear(leg: strep.CallLeg) -> np.ndarray:
        return np.concatenate([frame.samples async for frame in leg.frames()], axis=1)

    with broker(tmp_path / "broker") as server:
        async with strep.remote.Receiver(server.url) as remote:
            heard: dict[str, asyncio.Task[np.ndarray]] = {}

            async def listen() -> None:
                async for leg in remote.legs():
                    heard[leg.name] = asyncio.create_task(hear(leg))

            task = asyncio.create_task(listen())
            async with receiving(NatsSink(server.url, shards=SHARDS, tick_s=0.05)) as receiver:
                await send_paced(listening(receiver), datagrams(0, count), 2 * LEGS, 0.02)
            await until(lambda: remote.totals().streams_ended == 2 * LEGS)
            await remote.stop()
            await task
    assert heard.keys() == {str(leg_id(leg)) for leg in range(LEGS)}
    wanted = np.concatenate([pcmu(payload_of(k)) for k in range(count)])
    for hearing in heard.values():
        rows = await hearing
        for row in rows:  # a machine that is so slow that it looks like a pause moves what comes later
            sounding = row[np.flatnonzero(row)[0] :]
            assert np.array_equal(sounding[: 20 * 160], wanted[: 20 * 160])


@pytest.mark.slow
async def test_one_who_joins_takes_its_share_and_one_who_leaves_gives_it_back(tmp_path: Path) -> None:
    """Nothing is heard by two, and nothing by nobody: what ends at one goes on at the other."""
    here, a, b = (tmp_path / name for name in ("here", "a", "b"))
    with broker(tmp_path / "broker") as server, listening_to(server.url, a) as first:
        async with receiving(WavSink(here), NatsSink(server.url, shards=SHARDS, tick_s=0.05)) as receiver:
            target = listening(receiver)
            await shared(server.url, 1)
            sending = asyncio.create_task(send_paced(target, datagrams(0, 400), 2 * LEGS, 0.02))
            await until(lambda: len(files(a)) == 2 * LEGS)
            with listening_to(server.url, b) as second:
                await shared(server.url, 2)
                await until(lambda: len(files(b)) > 4)
                second[0].send_signal(signal.SIGINT)
                assert await asyncio.to_thread(second[0].wait, 60) == 0
            await sending
        await until(lambda: len(files(a)) > 2 * LEGS and not list(a.rglob("*.part.wav")))
        first[0].send_signal(signal.SIGINT)
        assert await asyncio.to_thread(first[0].wait, 60) == 0
    whole = final(here)
    for name, meant in whole.items():
        stem = name.removesuffix(".wav")
        pieces = [found for folder in (a, b) for n, found in final(folder).items() if n.startswith(stem)]
        told = sum((np.pad(piece, (0, len(meant) - len(piece))) != 0).astype(int) for piece in pieces)
        joined = np.zeros_like(meant)
        for piece in pieces:
            joined[: len(piece)] |= piece
        assert np.array_equal(joined, meant)
        assert int(np.max(told)) == 1


async def test_strep_capture_publishes_and_strep_listen_records_the_same(tmp_path: Path) -> None:
    """Also through workers' sinks: the command's options, and files bit for bit."""
    here, there = tmp_path / "here", tmp_path / "there"
    with broker(tmp_path / "broker") as server, listening_to(server.url, there) as processes:
        command = ["capture", "--listen", "127.0.0.1:0", "--nats", server.url, "--shortest", "0", "--out", str(here)]
        capture = subprocess.Popen([*STREP, *command, "--json"], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
        try:
            assert capture.stdout is not None
            event = json.loads(capture.stdout.readline())
            port = int(event["sockets"][0]["address"].rpartition(":")[2])
            await send_paced(("127.0.0.1", port), datagrams(0, 60), 2 * LEGS, 0.02)
            await until(lambda: len(files(there)) == 2 * LEGS)
            capture.send_signal(signal.SIGINT)
            await asyncio.to_thread(capture.communicate, None, 60)
        finally:
            if capture.poll() is None:
                capture.kill()
            capture.communicate()
        assert capture.returncode == 0
        await until(lambda: not list(there.rglob("*.part.wav")))
        processes[0].send_signal(signal.SIGINT)
        assert await asyncio.to_thread(processes[0].wait, 60) == 0
    assert hashes(here) == hashes(there)
    assert len(hashes(here)) == 2 * LEGS
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (here, there)]
    assert summaries[0]["streams"] == sorted(summaries[1]["streams"], key=lambda s: summaries[0]["streams"].index(s))


async def test_the_example_hears_frames_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    example = str(ROOT / "examples" / "remote_frames.py")
    with broker(tmp_path / "broker") as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, example, server.url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            assert (await asyncio.wait_for(process.stdout.readline(), 60)).startswith(b"listening to nats://")
            async with receiving(NatsSink(server.url, shards=SHARDS)) as receiver:
                await send_paced(listening(receiver), datagrams(0, 50), 4 * LEGS)
            told = [(await asyncio.wait_for(process.stdout.readline(), 60)).decode() for _ in range(2 * LEGS)]
            process.send_signal(signal.SIGTERM)
            _, err = await asyncio.wait_for(process.communicate(), 60)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    assert all(line.endswith("bound: 1.00 s, 0 ms of them missing\n") for line in told), told


@pytest.mark.parametrize("options", [["--nats", "http://x"], ["--nats", "x", "--group", "a b"]])
def test_what_is_wrong_is_told(options: list[str]) -> None:
    done = strep_command("listen", *options)
    assert done.returncode == 2
    assert "strep: " in done.stderr
    assert "Traceback" not in done.stderr
