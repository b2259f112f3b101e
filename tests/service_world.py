"""`strep serve` as a process of its own beside a stand-in for the API."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
from live import samples_of, until
from ports import free_port

from strep.schemas import schema
from strep.standin import Call, StandIn, WebhookFaults

KEY = "KEY0189_serve_canary"
_SUMMARY = jsonschema.Draft202012Validator(schema("summary"))
_LEG = jsonschema.Draft202012Validator(schema("leg"))


def stand_in(port: int, **options: Any) -> StandIn:
    """One whose webhooks go to that port. It is to be entered when the daemon is there to hear of its calls."""
    faults = options.pop("webhook_faults", WebhookFaults(retry_s=0.1, retries=7))
    url = f"http://127.0.0.1:{port}/webhooks"
    return StandIn(port=free_port(), webhook=url, api_key=KEY, seed=1, webhook_faults=faults, **options)


class Daemon:
    """A running strep serve: the events that it prints, what it answers over HTTP."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, out: Path, log: Path) -> None:
        self.process, self.out, self._log = process, out, log
        self.events: list[dict[str, Any]] = []
        self.told: set[tuple[str, str]] = set()  # kinds of events, and the call_control_id of each
        self.url = f"http://127.0.0.1:{port}"
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            event = json.loads(line)
            self.events.append(event)
            self.told.add((event["event"], event.get("call_control_id", "")))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        try:
            await until(condition, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}\n{[e['event'] for e in self.events][-40:]}") from None

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(self.url + path)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = await self.process.wait()
        await self._reading
        return code

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        _SUMMARY.validate(found)
        return found

    def leg(self, call: Call, name: str = "leg.json") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / str(call.call_leg_id) / name).read_text())
        _LEG.validate(found)
        return found


@asynccontextmanager
async def serving(
    api: StandIn, port: int, out: Path, *arguments: str, descriptors: int | None = None
) -> AsyncIterator[Daemon]:
    """``descriptors``: as many files and sockets may it open."""
    keys = {"TELNYX_API_KEY": KEY, "TELNYX_PUBLIC_KEY": api.public_key,
            "TELNYX_BASE_URL": f"http://127.0.0.1:{api._address[1]}/v2"}  # fmt: skip
    command = ["-m", "strep", "serve", "--listen", "127.0.0.1:0", "--webhook-listen", f"127.0.0.1:{port}",
               "--advertise", "127.0.0.1", "--out", str(out), "--json", *arguments]  # fmt: skip
    log = out.with_suffix(f".{uuid.uuid4().hex[:6]}.log")
    with log.open("w") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", *command, env={**os.environ, **keys, "NO_COLOR": "1"},
            stdout=asyncio.subprocess.PIPE, stderr=stderr, limit=1 << 24,
            preexec_fn=None if descriptors is None else lambda: limit_descriptors(descriptors),
        )  # fmt: skip
    daemon = Daemon(process, port, out, log)
    try:
        await daemon.until(lambda: daemon.of("serving") or process.returncode is not None)
        yield daemon
        if process.returncode is None:
            assert await daemon.end() == 0, daemon.log
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await daemon._reading
    assert "Traceback" not in daemon.log, daemon.log
    check_secrecy(daemon, log)


def limit_descriptors(number: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def check_secrecy(daemon: Daemon, log: Path) -> None:
    """The API key is nowhere. faults.md 47."""
    files = [path for path in [*daemon.out.rglob("*"), log] if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in json.dumps(daemon.events)


@asynccontextmanager
async def calls_of(api: StandIn, daemon: Daemon) -> AsyncIterator[None]:
    """The stand-in's calls, from now on; in the end the daemon is to end first, and well."""
    async with api:
        yield
        assert await daemon.end() == 0, daemon.log


def check_audio(api: StandIn, daemon: Daemon, calls: list[Call]) -> None:
    """Every leg has both directions, with the very samples that were sent, and a file that tells of it."""
    for call in calls:
        truths = api.truth(call.call_leg_id)
        assert len(truths) == 2
        told = daemon.leg(call)
        entries = {entry["direction"]: entry for entry in told["streams"]}
        for truth in truths:
            entry = entries[truth.direction.label]
            (file,) = entry["files"]
            assert samples_of(daemon.out / file).tolist() == truth.audio().tolist()
            assert truth.packets >= 3
            assert entry["packets_lost"] == 0
        assert told["call_control_id"] == call.call_control_id
        assert told["call_session_id"] == str(call.call_session_id)
        assert (told["from"], told["to"]) == (call.from_, call.to)
    assert not list(daemon.out.rglob("*.part*"))
