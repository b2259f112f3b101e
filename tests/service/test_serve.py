"""strep serve as a process of its own, against the stand-in: what it records is what the stand-in says it sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import uuid
import wave
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import service_world
import soundfile
from click.testing import CliRunner
from live import samples_of, send_paced, until
from ports import free_port
from service_world import (
    KEY,
    calls_of,
    check_audio,
    serving,
    stand_in,
)
from support import leg_id, packet

from strep import Leg
from strep.cli import cli
from strep.standin import Faults, WebhookFaults
from strep.standin._requests import Command

pytest.importorskip("uvicorn", reason="extra serve")
pytest.importorskip("cryptography", reason="extra serve")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


# --- calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.sockets
@pytest.mark.parametrize("mode", ["target", "rx_tx"])
async def test_fifty_calls_of_which_thirty_at_once(tmp_path: Path, port_range: range, mode: str) -> None:
    port = free_port()
    # 60 ports suffice for 50 calls only if they are given back
    first = port_range[0]
    ports = ("--mode", mode, "--ports", f"{first}-{first + 59}") if mode == "rx_tx" else ()
    faults = WebhookFaults(duplicate=0.3, reorder=True, delay_s=0.15, retry_s=0.1, retries=7)
    api = stand_in(port, calls=0, ring_s=0.1, seconds=3600, webhook_faults=faults)
    slots = asyncio.Semaphore(30)

    async def live(daemon: service_world.Daemon) -> None:
        """A call that is there until it has been recorded for a while, however slow the machine is."""
        async with slots:
            call = api._calls._make(api._clock(), None, Leg.A, "incoming")
            api._perform(api._calls.advance(api._clock()))
            await daemon.until(lambda: ("fork_media", call.call_control_id) in daemon.told)
            await asyncio.sleep(0.8)
            await daemon.until(lambda: min(truth.packets for truth in api.truth(call.call_leg_id)) > 20)
            api._perform(api._calls.hangup(call.call_control_id, Command(), api._clock())[1])
            await daemon.until(lambda: ("fork_stopped", call.call_control_id) in daemon.told)

    async with serving(api, port, tmp_path / "out", *ports) as daemon, calls_of(api, daemon):
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(live(daemon))
            await daemon.until(lambda: len(daemon.of("fork_media")) > 5)
            health = await daemon.get("/healthz")
            assert health.status_code == 200, health.text
            assert health.json()["receiver"]["live_streams"] > 5
            assert sum(health.json()["forks"].values()) <= 30
        await daemon.until(lambda: len(daemon.of("leg")) == 50)
        assert all(call.fork is None for call in api.calls)
        assert set((await daemon.get("/healthz")).json()["forks"].values()) == {0}
        metrics = (await daemon.get("/metrics")).text
        assert 'strep_api_requests_total{operation="fork_start",outcome="200"} ' in metrics
        assert re.search(r'strep_calls_total\{outcome="recorded"\} 50\.0', metrics)
        assert not re.search(r'strep_forks\{state="\w+"\} [1-9]', metrics)
        assert str(api.calls[0].call_leg_id) not in metrics
    check_audio(api, daemon, api.calls)
    summary = daemon.summary
    assert {k: v for k, v in summary["calls"].items() if v} == {"recorded": 50}
    assert summary["webhooks"]["duplicate"] > 10
    assert len(summary["legs"]) == 50
    assert all(leg["directions"] == ["inbound", "outbound"] for leg in summary["legs"])
    totals = summary["totals"]
    assert totals["datagrams"] == totals["delivered"] == api.media.datagrams
    assert not list((daemon.out / ".calls").iterdir())
    for number in range(first, first + 60) if mode == "rx_tx" else ():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.bind(("127.0.0.1", number))


@pytest.mark.sockets
async def test_an_api_in_trouble_costs_no_call(tmp_path: Path) -> None:
    port = free_port()
    api = stand_in(port, calls=12, seconds=60, faults=Faults(rate_429=0.2, rate_5xx=0.3, retry_after_s=0.05))
    async with serving(api, port, tmp_path / "out", "--only-answered") as daemon, calls_of(api, daemon):
        await daemon.until(lambda: len(daemon.of("stream_started")) == 24)
    check_audio(api, daemon, api.calls)
    assert daemon.summary["calls"]["recorded"] == 12
    outcomes = daemon.summary["api_requests"]
    assert outcomes["fork_start"]["200"] == outcomes["fork_stop"]["200"] == 12
    assert set(outcomes["fork_start"]) > {"200", "429"}


@pytest.mark.sockets
async def test_it_answers_if_it_is_to(tmp_path: Path) -> None:
    port = free_port()
    api = stand_in(port, calls=2, ring_s=None, seconds=60)
    async with serving(api, port, tmp_path / "out", "--answer", "--only-answered") as daemon, calls_of(api, daemon):
        await daemon.until(lambda: len(daemon.of("stream_started")) == 4)
    check_audio(api, daemon, api.calls)
    assert daemon.summary["api_requests"]["answer"] == {"200": 2}


@pytest.mark.sockets
async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media, socket.create_server(("127.0.0.1", 0)) as hooks:
        media.bind(("127.0.0.1", 0))
        taken = [str(taken.getsockname()[1]) for taken in (media, hooks)]
        api = stand_in(0)
        for listen, port in ((taken[0], 0), ("0", int(taken[1]))):
            async with serving(api, port, tmp_path / "out", "--listen", f"127.0.0.1:{listen}") as daemon:
                assert await daemon.process.wait() == 4
            assert f"127.0.0.1:{taken[listen == '0']}" in daemon.log
            assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.sockets
async def test_what_goes_wrong_with_one_call_is_logged_once_and_touches_no_other(tmp_path: Path) -> None:
    port = free_port()
    api = stand_in(port, calls=2, seconds=60)
    async with serving(api, port, tmp_path / "out") as daemon, calls_of(api, daemon):

        async def send(client: httpx.AsyncClient, event_type: str) -> None:
            ids = {"call_control_id": "v3:nobodys", "call_leg_id": str(leg_id(7)), "call_session_id": "s"}
            data = {"event_type": event_type, "id": str(uuid.uuid4()), "payload": ids}
            body = json.dumps({"data": data}).encode()
            headers = api._signer.headers(body, api._clock() // 10**9)
            assert (await client.post(f"{daemon.url}/webhooks", content=body, headers=headers)).is_success

        async with httpx.AsyncClient(trust_env=False) as client:
            await send(client, "call.answered")
            await daemon.until(lambda: len(daemon.of("call_failed")) == 1)
            await send(client, "call.bridged")
            await daemon.until(lambda: len(daemon.of("call_failed")) == 2)
            assert (await client.post(f"{daemon.url}/webhooks", content=b"{}")).status_code == 403
            assert (await client.get(f"{daemon.url}/elsewhere")).status_code == 404
            for path in ("/healthz", "/metrics"):
                assert (await client.get(daemon.url + path)).status_code == 200
                forwarded = {"X-Forwarded-For": "203.0.113.7"}  # as any proxy's
                assert (await client.get(daemon.url + path, headers=forwarded)).status_code == 404
        await daemon.until(lambda: len(daemon.of("stream_started")) == 4)
    assert daemon.log.count("v3:nobodys") == 1
    assert "90015" in daemon.log
    check_audio(api, daemon, api.calls)
    summary = daemon.summary
    assert (summary["calls"]["recorded"], summary["calls"]["failed"]) == (2, 2)
    assert summary["webhooks"]["forged"] == 1


@pytest.mark.sockets
async def test_an_api_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    port = free_port()
    api = stand_in(port, calls=3, seconds=60)
    async with serving(api, port, tmp_path / "out", "--stop-timeout", "1") as daemon, calls_of(api, daemon):
        await daemon.until(lambda: len(daemon.of("stream_started")) == 6)
        api.fail_next(*["hang"] * 12)
    assert daemon.log.count("fork_stop was given up") == 3
    check_audio(api, daemon, api.calls)


@pytest.mark.sockets
async def test_an_end_while_forks_are_being_started_stops_them_in_time_and_quietly(tmp_path: Path) -> None:
    """faults.md 33: a command that is under way is given up; the calls are left to the next one."""
    port, out = free_port(), tmp_path / "out"
    api = stand_in(port, calls=6, seconds=60)
    api.fail_next(*["hang"] * 60)
    async with serving(api, port, out, "--stop-timeout", "1.5") as daemon, api:
        await daemon.until(lambda: api.app.requests >= 6)
        began = asyncio.get_running_loop().time()
        assert await daemon.end() == 0
        # far less than the 55 s that a command may take; where the machine is slow, the process needs time to end
        assert asyncio.get_running_loop().time() - began < 1.5 + 20
        said = [line for line in daemon.log.splitlines() if line.startswith("strep: ")]
        assert all("fork_stop was given up: no answer in time" in line for line in said)
        assert len(said) <= 6
    assert not daemon.of("call_failed")
    assert sum(daemon.summary["calls"].values()) == 0
    assert len(list((out / ".calls").glob("*.json"))) == 6


@pytest.mark.sockets
async def test_a_key_that_the_api_refuses_is_told_at_the_start(tmp_path: Path) -> None:
    """Before any call: in words, and with the exit code of the API."""
    port = free_port()
    api = stand_in(port, calls=0)
    async with api:
        api.app._token = b"Bearer KEY_of_somebody_else"
        async with serving(api, port, tmp_path / "out") as daemon:
            assert await daemon.process.wait() == 5
    assert f"{api.base_url} refuses the API key (" in daemon.log
    assert "set TELNYX_API_KEY" in daemon.log
    assert daemon.summary["api_requests"] == {"call_events": {"401": 1}}


@pytest.mark.sockets
async def test_what_is_told_of_calls_that_go_well_is_no_alarm(tmp_path: Path) -> None:
    """Calls that ring while they are asked for, and are hung up: nothing fails and nothing stalls."""
    port = free_port()
    api = stand_in(port, calls=3, ring_s=0.4, seconds=1.5)
    async with serving(api, port, tmp_path / "out") as daemon, calls_of(api, daemon):
        await daemon.until(lambda: len(daemon.of("leg")) == 3)
    assert daemon.summary["api_requests"]["fork_start"]["422"] >= 1
    kinds = {event["event"] for event in daemon.events if event["event"].startswith(("fork_", "call_", "no_"))}
    assert kinds == {"fork_started", "fork_media", "fork_stopped"}
    told = {event["call_control_id"]: event for event in daemon.of("leg")}
    for call in api.calls:
        event = told[call.call_control_id]
        assert (event["from"], event["to"]) == (call.from_, call.to)
        assert event["call_leg_id"] == str(call.call_leg_id)
        leg = daemon.leg(call)
        assert (leg["silent"], [each["event"] for each in leg["fork_events"]]) == ([], sorted(kinds, key=ORDER.index))
    check_audio(api, daemon, api.calls)


ORDER = ["fork_started", "fork_media", "fork_stopped"]


@pytest.mark.sockets
async def test_a_fork_that_was_stopped_by_hand_stays_so(tmp_path: Path) -> None:
    """`strep fork stop` of one call: it is not forked again, whatever webhooks follow, nor by the next process."""
    port, out = free_port(), tmp_path / "out"
    api = stand_in(port, calls=2, seconds=60)
    async with serving(api, port, out) as daemon, api:
        await daemon.until(lambda: len(daemon.of("stream_started")) == 4)
        stopped, other = api.calls
        env = {**os.environ, "TELNYX_API_KEY": KEY, "TELNYX_BASE_URL": api.base_url}
        command = [sys.executable, "-m", "strep", "fork", "stop", stopped.call_control_id]
        by_hand = await asyncio.create_subprocess_exec(*command, env=env, stderr=asyncio.subprocess.PIPE)
        assert (await by_hand.communicate())[1].startswith(b"no longer forking")
        await daemon.until(lambda: ("fork_stopped", stopped.call_control_id) in daemon.told)
        await daemon.until(lambda: len(daemon.of("leg")) == 1)
        api._perform([api._calls._event(stopped, "call.bridged", api._clock(), state="bridged")])
        await asyncio.sleep(1)
        assert stopped.fork is None
        assert other.fork is not None
        assert await daemon.end() == 0
        async with serving(api, port, out) as again:
            await again.until(lambda: len(again.of("stream_started")) == 2)
            api._perform([api._calls._event(stopped, "call.bridged", api._clock(), state="bridged")])
            await asyncio.sleep(1)
            assert stopped.fork is None
            assert len(list((out / ".calls").iterdir())) == 2
            for call in api.calls:
                api._perform(api._calls.hangup(call.call_control_id, Command(), api._clock())[1])
            await again.until(lambda: len(again.of("leg")) == 1)
    check_audio(api, daemon, [stopped])
    assert not list((out / ".calls").iterdir())
    assert again.summary["calls"]["recorded"] == 1
    assert not [event for event in daemon.events if event["event"] in ("fork_stalled", "fork_restarting")]


@pytest.mark.sockets
async def test_a_hold_is_told_of_in_the_legs_file(tmp_path: Path) -> None:
    """Nothing comes for 12 s of a call that lives; then it goes on, in the same recording."""
    port = free_port()
    api = stand_in(port, calls=1, seconds=60)
    async with serving(api, port, tmp_path / "out") as daemon, calls_of(api, daemon):
        await daemon.until(lambda: len(daemon.of("stream_started")) == 2)
        (call,) = api.calls
        assert call.fork is not None
        await until(lambda: min(truth.packets for truth in api.truth(call.call_leg_id)) > 20)
        api.media.stop(call.fork)
        await daemon.until(lambda: daemon.of("fork_resumed"))  # the platform begins anew when it is asked
        api._perform(api._calls.hangup(call.call_control_id, Command(), api._clock())[1])
        await daemon.until(lambda: daemon.of("leg"))
    told = daemon.leg(call)
    (silent,) = told["silent"]
    assert 11 < silent["seconds"] < 60
    assert [event["silent_since"] for event in daemon.of("fork_resumed")] == [silent["from"]]
    assert [event["silent_s"] for event in daemon.of("leg")] == [silent["seconds"]]
    assert daemon.log.count("no media for 10 s") == 1


class Losing(httpx.AsyncBaseTransport):
    """A network that loses the webhooks of some kinds, and says that they came."""

    def __init__(self, *kinds: str) -> None:
        self._kinds = [f'"event_type":"{kind}"'.encode() for kind in kinds]
        self._through = httpx.AsyncHTTPTransport()
        self.lost = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        if any(kind in body for kind in self._kinds):
            self.lost += 1
            return httpx.Response(200)
        return await self._through.handle_async_request(request)

    async def aclose(self) -> None:
        await self._through.aclose()


@pytest.mark.sockets
async def test_a_call_whose_end_nobody_tells_ends_by_itself(tmp_path: Path) -> None:
    """faults.md 42."""
    port, network = free_port(), Losing("call.hangup", "call.fork.stopped")
    api = stand_in(port, calls=3, ring_s=0.3, seconds=0.8, webhook_transport=network)
    async with serving(api, port, tmp_path / "out", "--idle-timeout", "1") as daemon, calls_of(api, daemon):
        await daemon.until(lambda: len(daemon.of("leg")) == 3)
        assert set((await daemon.get("/healthz")).json()["forks"].values()) == {0}
    check_audio(api, daemon, api.calls)
    assert daemon.leg(api.calls[0])["ended_at"] is None
    assert network.lost == 6
    assert daemon.summary["calls"]["recorded"] == 3


@pytest.mark.sockets
async def test_a_call_whose_answer_nobody_tells_is_forked_all_the_same(tmp_path: Path) -> None:
    port, network = free_port(), Losing("call.answered")
    api = stand_in(port, calls=1, ring_s=0.5, seconds=60, webhook_transport=network)
    async with serving(api, port, tmp_path / "out") as daemon, calls_of(api, daemon):
        await daemon.until(lambda: len(daemon.of("stream_started")) == 2)
    assert "not been answered" not in daemon.log
    assert daemon.summary["api_requests"]["fork_start"]["422"] >= 1
    check_audio(api, daemon, api.calls)


@pytest.mark.sockets
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_calls_that_live_are_forked_again_by_the_next_one(tmp_path: Path, number: signal.Signals) -> None:
    port, out = free_port(), tmp_path / "out"
    api = stand_in(port, calls=4, seconds=60)
    async with serving(api, port, out) as daemon, api:
        await daemon.until(lambda: len(daemon.of("stream_started")) == 8)
        sent = api.media.datagrams
        await until(lambda: api.media.datagrams > sent + 400)  # streams that last a second have files
        code = await daemon.end(number)
        terminated = number == signal.SIGTERM
        if terminated:
            assert code == 0
            assert all(call.fork is None and call.alive for call in api.calls)
            check_audio(api, daemon, api.calls)
            assert {entry["end"] for call in api.calls for entry in daemon.leg(call)["streams"]} == {"stopped"}
        api._perform(api._calls.hangup(api.calls[3].call_control_id, Command(), api._clock())[1])
        async with serving(api, port, out) as again:
            await again.until(lambda: len(again.of("stream_started")) == 6)
    assert again.summary["calls"]["recorded"] == 3
    assert len(list(out.glob("summary-*.json"))) == terminated
    for call in api.calls[:3]:
        told = again.leg(call, "leg-2.json")
        assert told["from"] == call.from_
        for entry in told["streams"]:
            (truth,) = [t for t in api.truth(call.call_leg_id)[2:] if t.direction.label == entry["direction"]]
            assert samples_of(out / entry["files"][0]).tolist() == truth.audio().tolist()
    assert len(list((out / ".calls").iterdir())) == 3  # they live


def readable(path: Path) -> npt.NDArray[np.int16]:
    """By the standard library, which takes a header at its word."""
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


@pytest.mark.sockets
async def test_what_kill_9_leaves_is_completed_and_told_of(tmp_path: Path) -> None:
    """faults.md 55: while the same 50 calls go on in further files."""
    port, out = free_port(), tmp_path / "out"
    api = stand_in(port, calls=50, seconds=60)
    async with serving(api, port, out) as daemon, api:
        await daemon.until(lambda: len(daemon.of("stream_started")) == 100)
        sent = api.media.datagrams
        await until(lambda: api.media.datagrams > sent + 100 * 75)
        await daemon.end(signal.SIGKILL)
        assert len(list(out.rglob("*.part.wav"))) == 100
        (out / ".summary.json.1.part").write_text("scrap")
        os.utime(out / ".summary.json.1.part", (1, 1))
        async with serving(api, port, out) as again:
            await again.until(lambda: len([leg for leg in again.of("leg") if leg.get("recovered")]) == 50)
            await again.until(lambda: len(again.of("stream_started")) == 100)
    assert not list(out.rglob("*.part*"))
    summary = again.summary
    assert summary["calls"]["recorded"] == 50
    figures = summary["recovered"]
    assert (figures["done"], figures["files"], figures["failed"], len(figures["names"])) == (True, 100, 0, 100)
    assert len([leg for leg in summary["legs"] if leg.get("recovered")]) == 50
    for call in api.calls:
        told = again.leg(call)
        assert (told["recovered"], told["call_control_id"], told["from"]) == (True, call.call_control_id, call.from_)
        found = {entry["direction"]: entry for entry in told["streams"]}
        assert set(found) == {"inbound", "outbound"}
        for truth in api.truth(call.call_leg_id)[:2]:
            entry = found[truth.direction.label]
            (name,) = entry["files"]
            samples = readable(out / name)
            assert samples.tolist() == truth.audio()[: len(samples)].tolist()
            assert len(samples) >= 8000 * 0.5  # 1.5 s and more were sent, the last second may be missing
            assert entry["duration_s"] == len(samples) / 8000
            assert name in figures["names"]


@pytest.mark.sockets
async def test_a_second_one_is_refused_the_directory(tmp_path: Path) -> None:
    """faults.md 54: it takes no call of the first, which goes on; nor does a capture write there."""
    port, out = free_port(), tmp_path / "out"
    api = stand_in(port, calls=2, seconds=60)
    async with serving(api, port, out) as daemon, calls_of(api, daemon):
        await daemon.until(lambda: len(daemon.of("stream_started")) == 4)
        journal = sorted((out / ".calls").iterdir())
        async with serving(api, free_port(), out) as second:
            assert await second.process.wait() == 2
        assert f"strep serve (process {daemon.process.pid})" in second.log
        assert "give this one another --out" in second.log
        command = [sys.executable, "-m", "strep", "capture", "--listen", "127.0.0.1:0", "--out", str(out)]
        capture = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, told = await capture.communicate()
        assert capture.returncode == 2
        assert f"process {daemon.process.pid}" in told.decode()
        assert sorted((out / ".calls").iterdir()) == journal
    check_audio(api, daemon, api.calls)
    assert daemon.summary["api_requests"]["fork_start"] == {"200": 2}


@pytest.mark.sockets
async def test_a_call_whose_files_cannot_be_made_is_not_called_recorded(tmp_path: Path) -> None:
    """What stands in the way is named; it is tried again until the end, and the other call is whole."""
    port, out = free_port(), tmp_path / "out"
    api = stand_in(port, calls=2, arrive_s=0.5, seconds=60)
    async with serving(api, port, out) as daemon, api:
        lost, whole = reversed(api.calls)
        for number in ("", *(f"-{n}" for n in range(2, 1000))):
            (out / f"{lost.call_leg_id}{number}").touch()  # in the way, whatever the directory is called
        await daemon.until(lambda: len(daemon.of("stream_started")) == 4)
        sent = api.media.datagrams
        await until(lambda: api.media.datagrams > sent + 4 * 60)
        api._perform(api._calls.hangup(lost.call_control_id, Command(), api._clock())[1])
        await daemon.until(lambda: daemon.of("fork_stopped"))
        assert await daemon.end() == 6  # audio is missing
    check_audio(api, daemon, [whole])
    summary = daemon.summary
    assert (summary["calls"]["recorded"], summary["calls"]["no_file"]) == (1, 1)
    assert daemon.log.count("cannot be written") == 1
    assert summary["leg_files_failed"] >= 1


@pytest.mark.sockets
@pytest.mark.parametrize("mode", ["target", "rx_tx"])
async def test_who_only_connects_takes_nothing_from_calls(tmp_path: Path, mode: str) -> None:
    """faults.md 57: twenty times as many connections as the process has descriptors; half of them begin a request."""
    port, out = free_port(), tmp_path / "out"
    api = stand_in(port, calls=20, arrive_s=0.15, seconds=60)
    some = 2000
    async with serving(api, port, out, "--mode", mode, descriptors=320) as daemon:
        peers = []
        try:
            async with calls_of(api, daemon):
                for number in range(some):
                    peer = socket.socket()
                    peer.bind(("127.0.0.2", 0))
                    peer.setblocking(False)
                    peer.connect_ex(("127.0.0.1", port))
                    peers.append(peer)
                    if number % 10 == 9:
                        await asyncio.sleep(0.01)
                    if number % 2 and number > 20:
                        with contextlib.suppress(OSError):
                            peers[-20].send(b"POST /webhooks HTTP/1.1\r\nhost: ")
                await daemon.until(lambda: len(daemon.of("stream_started")) == 40)
                assert (await daemon.get("/healthz")).status_code == 200
                sent = api.media.datagrams
                await until(lambda: api.media.datagrams > sent + 40 * 25)
        finally:
            for peer in peers:
                peer.close()
    check_audio(api, daemon, api.calls)
    summary = daemon.summary
    assert summary["calls"]["recorded"] == 20
    assert summary["totals"]["delivered"] == api.media.datagrams
    counts = summary["http"]
    assert counts["refused"] + counts["accepted"] >= some
    assert counts["refused"] > some / 2
    assert counts["failed"] == 0
    assert [report["errors"] for report in summary["sinks"] if report["kind"] == "wav"] == [{}]


@pytest.mark.sockets
async def test_media_of_no_call_is_recorded_only_if_allowed(tmp_path: Path) -> None:
    for allowed in (False, True):
        port, out = free_port(), tmp_path / f"out-{allowed}"
        api = stand_in(port, calls=0)
        more = ["--allow-unannounced"] if allowed else []
        async with serving(api, port, out, *more) as daemon, calls_of(api, daemon):
            host, _, number = daemon.of("serving")[0]["media"][0].rpartition(":")
            await send_paced((host, int(number)), [packet(k) for k in range(50)])
            if allowed:
                await daemon.until(lambda: daemon.of("stream_started"))
        summary = daemon.summary
        assert summary["totals"]["datagrams"] == 50
        assert len(list(out.rglob("*.wav"))) == allowed
        assert summary["calls"]["unannounced"] == allowed == len(list(out.rglob("leg.json")))
        assert summary["totals"]["rejected_by"].get("unannounced", 0) == (0 if allowed else 50)


@pytest.mark.sockets
@pytest.mark.parametrize(("wanted", "legs"), [("b", {"b"}), ("both", {"a", "b"})])
async def test_legs_of_a_session_as_one_file(tmp_path: Path, wanted: str, legs: set[str]) -> None:
    port, out = free_port(), tmp_path / "out"
    more = ("--record-legs", wanted, "--layout", "session", "--analyze", "level,quality", "--admin-listen",
            "127.0.0.1:0")  # fmt: skip
    noise = np.random.default_rng(1).integers(-3000, 3000, (8000, 2)).astype(np.int16)
    soundfile.write(tmp_path / "noise.wav", noise, 8000)
    api = stand_in(port, calls=2, bridged=True, ring_s=0.1, seconds=1.0, file=tmp_path / "noise.wav")
    async with serving(api, port, out, *more) as daemon, calls_of(api, daemon):
        await daemon.until(lambda: len(daemon.of("leg")) == len(legs))
        assert (await daemon.get("/healthz")).status_code == 404
        admin = daemon.of("serving")[0]["admin"]
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{admin}/healthz")).status_code == 200
    assert len(daemon.of("leg")) == len(legs)
    found = {leg["leg"]: leg for leg in (daemon.leg(call) for call in api.calls if call.leg.label in legs)}
    assert set(found) == legs
    (file,) = out.rglob("*.wav")
    assert file.relative_to(out).as_posix() == f"{api.calls[0].call_session_id}/session.wav"
    samples = samples_of(file)
    heard = [bool(samples[:, channel].any()) for channel in range(4)]
    assert heard == ["a" in legs] * 2 + ["b" in legs] * 2
    for entry in (entry for leg in found.values() for entry in leg["streams"]):
        assert entry["files"] == [file.relative_to(out).as_posix()]
        assert {"level", "quality"} <= set(entry)


# --- wrong uses -------------------------------------------------------------------------------------------------------

ALWAYS = ["--advertise", "127.0.0.1"]


@pytest.mark.parametrize(
    ("arguments", "environment", "text"),
    [
        (ALWAYS, {"TELNYX_PUBLIC_KEY": None}, "TELNYX_PUBLIC_KEY"),
        (ALWAYS, {"TELNYX_API_KEY": None}, "TELNYX_API_KEY"),
        (ALWAYS, {"TELNYX_PUBLIC_KEY": "short"}, "32 bytes in base64"),
        (ALWAYS, {"TELNYX_BASE_URL": None}, "127.0.0.1"),  # the real API reaches no loopback address
        (["--advertise", "example.com"], {}, "example.com"),
        ([*ALWAYS, "--ports", "20000-20009"], {}, "--mode rx_tx"),
        ([*ALWAYS, "--mode", "rx_tx", "--ports", "9-1"], {}, "range of ports"),
        ([*ALWAYS, "--stream-type", "decrypted"], {}, "rx_tx"),
        ([*ALWAYS, "--public-url", "calls.example.com"], {}, "https://calls.example.com/webhooks"),
        ([*ALWAYS, "--public-url", "https://x/healthz"], {}, "/healthz"),
        ([*ALWAYS, "--session", "a=b"], {}, "--layout session"),
        ([*ALWAYS, "--analyze", "mood"], {}, "mood"),
        ([*ALWAYS, "--webhook-listen", "here"], {}, "--webhook-listen"),
    ],
)
def test_wrong_uses_are_told_before_anything_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, Any], text: str
) -> None:
    right = {"TELNYX_API_KEY": KEY, "TELNYX_PUBLIC_KEY": "A" * 43 + "=", "TELNYX_BASE_URL": "http://127.0.0.1:9/v2"}
    for name, value in (right | environment).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    ports = [] if "--webhook-listen" in arguments else ["--webhook-listen", "127.0.0.1:0"]
    command = ["serve", "--listen", "127.0.0.1:0", "--out", str(tmp_path / "out"), *ports, *arguments]
    result = CliRunner().invoke(cli, command)
    assert result.exception is not None
    assert text in str(result.exception) + result.output
    assert not list(tmp_path.rglob("*.json"))
    assert KEY not in str(result.exception) + result.output
