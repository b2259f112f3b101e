"""Several services that hear the same webhooks: each call is recorded by one of them, whole."""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ports import free_port
from service_world import Daemon, check_audio, serving, stand_in
from support import leg_id

from strep._edge.http import HttpServer
from strep.control import APIConnectionError
from strep.control._answers import CallEvent
from strep.control.calls import CallState
from strep.control.events import parse_event
from strep.service._owner import CallLog, CallOwners, Refused, call_log
from strep.standin import WebhookFaults

OURS, EARLIER, THEIRS = "203.0.113.1:9000", "203.0.113.1:9002", "203.0.113.2:9000"
NOW_S = 1_800_000_000.0


# --- what the API's log says ------------------------------------------------------------------------------------------


def logged(name: str, at_s: float, kind: str = "webhook", **metadata: Any) -> CallEvent:
    return CallEvent(name, kind, "", "", datetime.fromtimestamp(at_s, UTC), metadata)


START = logged("fork_start", 1.0, "command", event={"target": f"udp:{THEIRS}"}, command_id="x")
STARTED = logged("call.fork.started", 1.1, payload={"call_leg_id": "…"})
STOPPED = logged("call.fork.stopped", 2.0)
MOVE = logged("fork_start", 3.0, "command", rx="203.0.113.1:1", tx="udp:203.0.113.1:2")
MOVED = logged("call.fork.started", 3.1)


@pytest.mark.parametrize(
    ("events", "right"),
    [
        ([], CallLog()),
        ([logged("call.answered", 1.0)], CallLog()),
        ([STARTED], CallLog(True)),
        ([START], CallLog(True, frozenset({THEIRS}))),
        ([START, STARTED], CallLog(True, frozenset({THEIRS}))),
        ([START, STARTED, STOPPED], CallLog(False, frozenset({THEIRS}))),
        ([START, STARTED, STOPPED, MOVE, MOVED], CallLog(True, frozenset({"203.0.113.1:1", "203.0.113.1:2"}))),
    ],
)
def test_the_last_of_a_call_s_events_decide_whatever_their_order(events: list[CallEvent], right: CallLog) -> None:
    for order in itertools.permutations(events):
        assert call_log(order) == right


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["target", "rx", "x"]), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["target", "rx", "x"]), JSON))
def test_whatever_stands_in_the_log_raises_nothing(metadata: dict[str, Any]) -> None:
    assert call_log([logged("fork_start", 1.0, "command", **metadata)]).on


# --- whether a call is taken ------------------------------------------------------------------------------------------


def state(*kinds: str, age_s: float = 5.0) -> CallState:
    """A call of which these webhooks have come; they all occurred so long ago."""
    found = CallState()
    for kind in kinds:
        at = (datetime.fromtimestamp(NOW_S, UTC) - timedelta(seconds=age_s)).isoformat()
        payload = {"call_control_id": "v3:a", "call_leg_id": str(leg_id(1))}
        found = found.after(parse_event({"data": {"event_type": kind, "occurred_at": at, "payload": payload}}))
    return found


ANSWERED = state("call.answered")
OLD = state("call.initiated", "call.answered", age_s=40.0)
LOGS = {"nothing": [], "ours": OURS, "earlier": EARLIER, "theirs": THEIRS, "untold": None}


class Api:
    def __init__(self, log: Any) -> None:
        self.log, self.asked = log, 0

    async def __call__(self, call_leg_id: uuid.UUID) -> Iterable[CallEvent]:
        self.asked += 1
        if isinstance(self.log, Exception):
            raise self.log
        if self.log == "slow":
            await asyncio.sleep(60)
        return [] if self.log == [] else [logged("fork_start", 1.0, "command", target=self.log)]


@pytest.mark.parametrize(
    ("log", "own", "right"),
    [
        ("nothing", False, False),
        ("ours", False, False),  # a process before this one began it, and media come here
        ("theirs", False, True),
        ("untold", False, True),
        ("nothing", True, False),
        ("ours", True, False),
        ("earlier", True, False),
        ("earlier", False, True),
        ("theirs", True, True),
        ("untold", True, False),  # what was ours is left to others only if they have it for sure
    ],
)
async def test_a_call_is_taken_when_the_log_says_so(log: str, own: bool, right: bool) -> None:
    api = Api(LOGS[log])
    owners = CallOwners(
        api,
        ours=lambda addresses, before: addresses == {OURS} or (before and addresses == {EARLIER}),
        wall=lambda: NOW_S,
    )
    assert await owners.taken(OLD, Refused(), own=own) is right
    assert api.asked == 1


@pytest.mark.parametrize(
    ("call", "only_answered", "refused", "asked"),
    [
        (ANSWERED, True, Refused(), 0),
        (OLD, True, Refused(), 1),
        (ANSWERED, False, Refused(), 1),  # somebody may have forked it long ago, when it rang
        (ANSWERED, False, Refused(early=1), 0),  # nobody may
        (ANSWERED, False, Refused(early=1, other=1), 1),
        (state("call.initiated", "call.answered"), False, Refused(), 0),
        (OLD, False, Refused(early=1), 1),
        (state("call.initiated"), False, Refused(), 0),
        (state("call.initiated", age_s=31.0), False, Refused(early=1), 0),
        (state("call.initiated", age_s=31.0), False, Refused(), 1),
        (state("call.initiated", age_s=-31.0), False, Refused(), 1),  # a clock that is wrong
        (state("call.fork.started"), True, Refused(), 1),
    ],
)
async def test_who_may_be_late_asks_first(call: CallState, only_answered: bool, refused: Refused, asked: int) -> None:
    api = Api(LOGS["theirs"])
    owners = CallOwners(api, ours=lambda *_: False, only_answered=only_answered, wall=lambda: NOW_S)
    assert await owners.taken(call, refused, own=False) is bool(asked)
    assert api.asked == asked


@pytest.mark.parametrize("log", [APIConnectionError("away"), "slow"])
async def test_an_api_that_cannot_be_asked_costs_no_call(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strep.service._owner._ASK_S", 0.01)
    owners = CallOwners(Api(log), ours=lambda *_: False, wall=lambda: NOW_S)
    assert not await owners.taken(OLD, Refused(), own=False)
    assert await owners.ask(leg_id(1)) is None


async def test_a_fork_has_moved_when_the_log_names_another_address() -> None:
    for log, right in (("ours", False), ("theirs", True), ("untold", False), ("nothing", False)):
        found = await CallOwners(Api(LOGS[log])).ask(leg_id(1))
        assert found is not None
        assert found.goes_elsewhere([f"udp:{OURS}"]) is right


BODY = {"event_type": "call.hangup", "occurred_at": "2026-11-01T10:00:00Z",
        "payload": {"call_control_id": "v3:a", "hangup_cause": "user_busy"}}  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "cause"),
    [({"data": BODY}, "user_busy"), (BODY, "user_busy"), ({}, None), ({"data": 3}, None),
     ({"data": {**BODY, "payload": {"call_control_id": "v3:other", "hangup_cause": "x"}}}, None)],
)  # fmt: skip
def test_a_hangup_that_another_service_heard_of_is_read_from_the_log(metadata: dict[str, Any], cause: str) -> None:
    found = call_log([START, STARTED, logged("call.hangup", 4.0, **metadata)])
    event = found.hangup_of(ANSWERED)
    assert event is not None
    assert not found.on
    after = ANSWERED.after(event)
    assert (after.ended, after.hangup_cause, after.call_control_id) == (True, cause, "v3:a")
    assert after.ended_at is not None
    assert call_log([START]).hangup_of(ANSWERED) is None


def test_the_first_command_is_the_same_for_all() -> None:
    one, other = CallOwners(), CallOwners()
    early, named = state("call.initiated"), CallState()
    assert one.command_id(early, Refused(early=3)) == other.command_id(ANSWERED, Refused())
    assert one.command_id(ANSWERED, Refused(other=1)) != other.command_id(ANSWERED, Refused())
    assert one.command_id(ANSWERED, Refused()) != one.command_id(named, Refused())


# --- two services and a load balancer ---------------------------------------------------------------------------------


@asynccontextmanager
async def balancer(port: int, ports: list[int], seed: int) -> AsyncIterator[Counter[int]]:
    """Hands each webhook to one of the services, at random; counts what each got."""
    rng, got = random.Random(seed), Counter[int]()
    async with httpx.AsyncClient(trust_env=False) as client:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            to = rng.choice(ports)
            got[to] += 1
            headers = [(name, value) for name, value in scope["headers"] if name not in (b"host", b"content-length")]
            try:
                status = (
                    await client.post(f"http://127.0.0.1:{to}{scope['path']}", content=body, headers=headers)
                ).status_code
            except httpx.HTTPError:
                status = 502
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        server = HttpServer(app, "127.0.0.1", port)
        await server.start()
        try:
            yield got
        finally:
            await server.stop()


@pytest.mark.sockets
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("more", [(), pytest.param(("--only-answered", "--mode", "rx_tx"), marks=pytest.mark.slow)])
async def test_each_of_twenty_calls_is_recorded_by_one_of_two_services_whole(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    pytest.importorskip("uvicorn", reason="extra serve")
    pytest.importorskip("cryptography", reason="extra serve")
    ports = [free_port(), free_port()]
    front = free_port()
    faults = WebhookFaults(duplicate=0.5, reorder=True, delay_s=0.3, retry_s=0.1, retries=7)
    api = stand_in(front, calls=20, arrive_s=0.05, ring_s=0.3, seconds=7.0, webhook_faults=faults)
    async with (
        balancer(front, ports, seed=1) as got,
        serving(api, ports[0], tmp_path / "one", *more) as one,
        serving(api, ports[1], tmp_path / "two", *more) as two,
        api,
    ):
        pair: list[Daemon] = [one, two]

        def recorded() -> int:
            return sum(len(daemon.of("leg")) for daemon in pair)

        await one.until(lambda: recorded() >= 20 and not any(call.alive for call in api.calls))
        await asyncio.sleep(1.0)
        for daemon in pair:
            assert await daemon.end() == 0, daemon.log
    assert min(got.values()) > 20
    owners: dict[uuid.UUID, list[Daemon]] = {}
    for daemon in pair:
        for leg in daemon.of("leg"):
            owners.setdefault(uuid.UUID(leg["call_leg_id"]), []).append(daemon)
    assert {leg: len(daemons) for leg, daemons in owners.items()} == {call.call_leg_id: 1 for call in api.calls}
    for call in api.calls:
        check_audio(api, owners[call.call_leg_id][0], [call])
        names = [record.name for record in api._calls.records if record.call is call]
        assert (names.count("fork_start"), names.count("fork_stop")) == (1, 0)
    outcomes = [daemon.summary["calls"] for daemon in pair]
    assert sum(each["recorded"] for each in outcomes) == 20
    assert min(each["recorded"] for each in outcomes) > 0
    assert sum(each["owned_elsewhere"] for each in outcomes) > 5
    assert not any(each[name] for each in outcomes for name in ("failed", "no_media", "no_file", "unannounced"))
    assert not any("no media" in daemon.log for daemon in pair)
