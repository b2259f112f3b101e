"""The stand-in over real HTTP and UDP, driven by the official SDK; what is recorded is what it says it sent."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from contract import answer_schema, errors_of, event_schema
from lazily import Lazily
from live import check_truth, port_of, until
from sessions_world import memory_sender, virtually
from virtual import MemoryEdge

import strep
from strep._edge.http import HttpServer
from strep._edge.udp import recvmmsg_available
from strep._model.exceptions import BindError, ConfigurationError, MissingExtraError
from strep._model.extras import install
from strep.cli import cli
from strep.control import CallControl
from strep.control.webhooks import verify_and_parse
from strep.simulate import Impairments
from strep.sinks import ArraySink
from strep.standin import Call, Fault, Faults, StandIn, WebhookFaults

pytestmark = pytest.mark.realtime

telnyx = Lazily("telnyx")
verification = Lazily("telnyx.lib.webhook_verification")

TROUBLE = Impairments(loss=0.03, duplicate=0.03, reorder=0.03, jitter_ms=4, protect_first=4)
RETRY_AT_ONCE = Faults(retry_after_s=0.01)


def sdk(api: StandIn, **options: Any) -> telnyx.AsyncTelnyx:
    return telnyx.AsyncTelnyx(
        **{"api_key": api.api_key, "base_url": api.base_url, "public_key": api.public_key} | options
    )


def to(receiver: strep.Receiver) -> dict[str, str]:
    return {"target": f"udp:127.0.0.1:{port_of(receiver)}"}


class Hooks:
    """A receiver of webhooks: an ASGI app that keeps what comes and answers with ``status`` in turn, then 200."""

    def __init__(self, *status: int) -> None:
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.status = list(status)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.came.append(({k.decode(): v.decode() for k, v in scope["headers"]}, body))
        status = self.status.pop(0) if self.status else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    @property
    def data(self) -> list[dict[str, Any]]:
        return [json.loads(body)["data"] for _, body in self.came]

    def of(self, call: Call) -> list[str]:
        leg = str(call.call_leg_id)
        return [d["event_type"] for d in self.data if d["payload"]["call_leg_id"] == leg]


def in_process(hooks: Hooks, **options: Any) -> dict[str, Any]:
    return {"webhook": "http://hooks/", "webhook_transport": httpx.ASGITransport(hooks), **options}


# --- the SDK drives it -----------------------------------------------------------------------------------------------


@pytest.mark.sockets
async def test_the_sdk_starts_and_stops_a_fork_and_both_directions_arrive_bit_exact():
    kept = ArraySink()
    hooks = Hooks()
    async with (
        StandIn(calls=2, seed=1, impairments=TROUBLE, **in_process(hooks)) as api,
        strep.Receiver("127.0.0.1:0", sinks=[kept]) as receiver,
        sdk(api) as client,
    ):
        call, other = api.calls
        answer = await client.calls.actions.start_forking(
            call.call_control_id, client_state="YQ==", extra_body=to(receiver)
        )
        assert answer.data.result == "ok"
        await asyncio.sleep(1.2)
        assert (await client.calls.actions.stop_forking(call.call_control_id)).data.result == "ok"
        truths = api.truth(call.call_leg_id)
        await until(lambda: receiver.totals().datagrams == api.media.datagrams)
        assert (await client.calls.retrieve_status(call.call_control_id)).data.is_alive
        await api.outbox.drain(120)
    reports = {r.stream.direction: r for r in receiver.reports()}
    assert len(reports) == 2
    for truth in truths:
        report = reports[truth.direction]
        assert report.stream.call_leg_id == call.call_leg_id
        check_truth(truth, report)
        assert truth.packets > 50
        assert kept.get(report.stream).samples.tolist() == truth.audio().tolist()
    assert api.truth(other.call_leg_id) == []
    assert hooks.of(call) == ["call.initiated", "call.answered", "call.fork.started", "call.fork.stopped"]
    assert hooks.of(other) == ["call.initiated", "call.answered"]


@pytest.mark.sockets
async def test_rx_and_tx_get_plain_rtp_from_one_port():
    kept = ArraySink()
    async with (
        StandIn(calls=1, seed=2, codec="PCMA") as api,
        strep.Receiver(rx="127.0.0.1:0", tx="127.0.0.1:0", sinks=[kept]) as receiver,
        sdk(api) as client,
    ):
        control_id = api.calls[0].call_control_id
        addresses = {role: f"127.0.0.1:{port_of(receiver, role)}" for role in ("rx", "tx")}
        addresses["rx"] = "udp:" + addresses["rx"]
        await client.calls.actions.start_forking(control_id, stream_type="decrypted", **addresses)
        await asyncio.sleep(1.0)
        await client.calls.actions.stop_forking(control_id)
        truths = api.truth(str(api.calls[0].call_leg_id))
        await until(lambda: receiver.totals().datagrams == api.media.datagrams)
    reports = receiver.reports()
    assert len({r.stream.source for r in reports}) == 1
    assert {r.stream.ssrc: r.stream.direction for r in reports} == {t.ssrc: t.direction for t in truths}
    for truth in truths:
        (report,) = [r for r in reports if r.stream.ssrc == truth.ssrc]
        check_truth(truth, report)
        assert truth.packets > 40
        assert kept.get(report.stream).samples.tolist() == truth.audio().tolist()


@pytest.mark.sockets
async def test_nothing_is_sent_before_it_is_asked_for_nor_after():
    async with (
        StandIn(calls=2, seed=1) as api,
        strep.Receiver("127.0.0.1:0") as receiver,
        sdk(api) as client,
    ):
        await client.calls.actions.start_forking(api.calls[0].call_control_id, extra_body=to(receiver))
        await until(lambda: receiver.totals().datagrams > 4)
        await client.calls.actions.hangup(api.calls[0].call_control_id)
        sent = api.media.datagrams
        await asyncio.sleep(0.1)
        assert (api.media.datagrams, receiver.totals().datagrams) == (sent, sent)
        assert {s.call_leg_id for s in (r.stream for r in receiver.reports())} <= {api.calls[0].call_leg_id}


@pytest.mark.sockets
@pytest.mark.skipif(not recvmmsg_available(), reason="sends to each address by itself")
async def test_a_target_the_network_refuses_holds_up_nobody():
    async with (
        StandIn(calls=2, seed=1) as api,
        strep.Receiver("127.0.0.1:0") as receiver,
        sdk(api) as client,
    ):
        bad, good = (call.call_control_id for call in api.calls)
        await client.calls.actions.start_forking(bad, extra_body={"target": "udp:255.255.255.255:9"})
        await client.calls.actions.start_forking(good, extra_body=to(receiver))
        await until(lambda: receiver.totals().datagrams > 10 and api.media.refused > 10)


@pytest.mark.sockets
async def test_media_go_to_ipv6_too():
    try:
        receiver = strep.Receiver("udp:[::1]:0")
        await receiver.start()
    except BindError:
        pytest.skip("no IPv6 here")
    try:
        async with StandIn(host="::1", calls=1, seed=1) as api, sdk(api) as client:
            assert api.base_url.startswith("http://[::1]:")
            target = f"udp:{receiver.sockets[0].address}"
            await client.calls.actions.start_forking(api.calls[0].call_control_id, extra_body={"target": target})
            await until(lambda: receiver.totals().datagrams > 10)
    finally:
        await receiver.stop()


async def test_errors_are_the_ones_the_sdk_knows():
    async with StandIn(calls=2, seed=1) as api, sdk(api) as client, sdk(api, api_key="KEYwrong") as stranger:
        actions, (one, two) = client.calls.actions, (call.call_control_id for call in api.calls)

        async def code_of(kind: type[telnyx.APIStatusError], work: Any) -> list[str]:
            with pytest.raises(kind) as caught:
                await work
            assert type(caught.value) is kind
            assert errors_of(caught.value.response.json(), "schemas/Errors") == []
            assert caught.value.response.headers["x-request-id"]
            return [e["code"] for e in caught.value.response.json()["errors"]]

        target = {"target": "udp:127.0.0.1:9"}
        unprocessable = telnyx.UnprocessableEntityError
        assert await code_of(telnyx.AuthenticationError, stranger.calls.actions.hangup(one)) == ["10009"]
        assert await code_of(unprocessable, actions.start_forking("v3:no", extra_body=target)) == ["90015"]
        assert await code_of(unprocessable, actions.start_forking(one)) == ["10004"]
        assert await code_of(unprocessable, actions.start_forking(one, rx="1.1.1.1:1")) == ["10004"]
        assert await code_of(unprocessable, actions.start_forking(one, rx="x", tx="y")) == ["10015", "10015"]
        await actions.hangup(two)
        assert await code_of(unprocessable, actions.start_forking(two, extra_body=target)) == ["90018"]
        assert await code_of(unprocessable, actions.stop_forking(two)) == ["90018"]
        assert await code_of(telnyx.NotFoundError, client.calls.retrieve_status("v3:no")) == ["10005"]
        assert await code_of(telnyx.NotFoundError, actions.send_dtmf(one, digits="1")) == ["10005"]
        assert (await client.calls.retrieve_status(two)).data.is_alive is False
        assert [call.fork for call in api.calls] == [None, None]


async def test_the_sdk_retries_what_is_injected_and_a_command_id_makes_that_safe():
    hooks = Hooks()
    async with (
        StandIn(calls=1, seed=1, faults=RETRY_AT_ONCE, **in_process(hooks)) as api,
        sdk(api) as client,
    ):
        (call,) = api.calls
        body = {"target": "udp:127.0.0.1:9"}
        api.fail_next(Fault.TOO_MANY, Fault.UNAVAILABLE)
        await client.calls.actions.start_forking(call.call_control_id, command_id="once", extra_body=body)
        assert api.app.requests == 3
        api.fail_next("500")  # stopped, but the answer says otherwise: the retry finds it done
        await client.calls.actions.stop_forking(call.call_control_id, command_id="twice")
        api.fail_next("cut")
        await client.calls.actions.start_forking(call.call_control_id, command_id="thrice", extra_body=body)
        assert api.app.requests == 7
        api.fail_next("429", "429", "429")
        with pytest.raises(telnyx.RateLimitError):
            await client.calls.actions.hangup(call.call_control_id)
        api.fail_next("503")
        with pytest.raises(telnyx.InternalServerError):
            await client.with_options(max_retries=0).calls.actions.hangup(call.call_control_id)
        assert call.alive
        await api.outbox.drain(120)
    wanted = ["initiated", "answered", "fork.started", "fork.stopped", "fork.started"]
    assert hooks.of(call) == [f"call.{name}" for name in wanted]


async def test_our_client_has_one_effect_a_command_through_any_trouble():
    """40 calls forked, moved, stopped and hung up; a third of all requests fail, many of them after the effect."""
    hooks = Hooks()

    async def at_once(delay_s: float) -> None:
        await asyncio.sleep(0)

    faults = Faults(rate_429=0.1, rate_5xx=0.25)
    async with StandIn(port=None, calls=40, seed=5, faults=faults, **in_process(hooks)) as api:
        transport = httpx.ASGITransport(api.app)
        async with (
            httpx.AsyncClient(transport=transport) as client,
            CallControl(api.api_key, base_url=api.base_url, client=client, sleep=at_once) as control,
        ):
            for call in api.calls:
                for port in (9, 10):
                    await control.fork_start(call.call_control_id, target=f"udp:127.0.0.1:{port}")
                await control.fork_stop(call.call_control_id, client_state=b"bye")
                await control.hangup(call.call_control_id)
            assert api.app.requests > 160
            page = await control.call_events()
            assert page.events[0].name == "call.initiated"
        await api.outbox.drain(120)
    forks = ["call.fork.started", "call.fork.stopped"] * 2
    for call in api.calls:
        assert hooks.of(call) == ["call.initiated", "call.answered", *forks, "call.hangup"]
    for headers, body in hooks.came:
        event = verify_and_parse(body, headers, api.public_key, time.time())
        assert event.event_type == json.loads(body)["data"]["event_type"]
        if event.event_type == "call.hangup":
            assert event.client_state == b"bye"


async def test_a_request_whose_client_goes_before_it_is_whole_does_nothing():
    """Its command_id has not come yet: done now, it would be done again when the client sends it again."""
    async with StandIn(port=None, calls=1, seed=1) as api:
        (call,) = api.calls
        sent: list[Any] = []
        command = json.dumps({"command_id": "once"}).encode()

        async def ask(action: str, *messages: dict[str, Any]) -> None:
            coming = iter(messages)

            async def receive() -> dict[str, Any]:
                return next(coming)

            async def send(message: Any) -> None:
                sent.append(message)

            path = f"/v2/calls/{call.call_control_id}/actions/{action}"
            headers = [(b"authorization", f"Bearer {api.api_key}".encode())]
            await api.app({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)

        gone = {"type": "http.disconnect"}
        await ask("hangup", gone)
        await ask("hangup", {"type": "http.request", "body": command[:5], "more_body": True}, gone)
        assert (call.alive, sent, api.app.requests) == (True, [], 2)
        await ask("hangup", {"type": "http.request", "body": command, "more_body": False})
        assert (call.alive, sent[0]["status"]) == (False, 200)
        names = [(record.name, record.command_id) for record in api._calls.records if record.type == "command"]
        assert names == [("hangup", "once")]


async def test_what_hangs_has_taken_effect_and_hangs_until_the_client_goes_or_the_server_ends():
    async with StandIn(calls=2, seed=1) as api:
        one, two = api.calls
        client = sdk(api, max_retries=0)
        api.fail_next("hang", "hang")
        gone = asyncio.create_task(client.calls.actions.hangup(one.call_control_id))
        await until(lambda: one.state == "hangup")
        gone.cancel()
        left = asyncio.create_task(client.calls.actions.hangup(two.call_control_id))
        await until(lambda: two.state == "hangup")
    with pytest.raises(telnyx.APIConnectionError):
        await left
    await client.close()


@virtually
async def test_every_answer_is_late_when_asked_for():
    loop = asyncio.get_running_loop()
    async with (
        StandIn(port=None, calls=1, faults=Faults(latency_ms=50), **memory_sender(MemoryEdge())) as api,
        httpx.AsyncClient(transport=httpx.ASGITransport(api.app)) as transport,
        sdk(api, http_client=transport) as client,
    ):
        begin = loop.time()
        await client.calls.retrieve_status(api.calls[0].call_control_id)
        assert loop.time() - begin == pytest.approx(0.05)


async def test_dialling_with_the_sdk():
    async with StandIn(calls=0) as api, sdk(api) as client:
        answer = await client.calls.dial(connection_id="7", from_="+15550100001", to="+15550100002")
        (call,) = api.calls
        assert answer.data.call_control_id == call.call_control_id
        assert answer.data.call_leg_id == str(call.call_leg_id)
        await client.calls.actions.hangup(call.call_control_id)
        await asyncio.wait_for(api.wait(), 120)
        found = await client.get("/call_events", cast_to=httpx.Response)
        names = [e["name"] for e in found.json()["data"]]
        assert names == ["dial", "call.initiated", "call.answered", "hangup", "call.hangup"]


# --- the contract ----------------------------------------------------------------------------------------------------


async def test_every_answer_has_the_form_of_the_contract():
    async with StandIn(port=None, calls=2, seed=1, ring_s=None) as api:
        assert api.base_url == "http://127.0.0.1/v2"
        headers = {"authorization": f"Bearer {api.api_key}"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), headers=headers) as client:
            seen = Counter()

            async def ask(method: str, path: str, call_control_id: str, body: Any = None, **options: Any) -> Any:
                url = api.base_url + path.replace("{call_control_id}", call_control_id)
                response = await client.request(method, url, json=body, **options)
                document = response.json()
                assert errors_of(document, answer_schema(path, method.lower(), response.status_code)) == []
                assert ("errors" in document) == (response.status_code != 200)
                seen[path, response.status_code] += 1
                return document

            one, two = (call.call_control_id for call in api.calls)
            action = "/calls/{call_control_id}/actions/"
            for path, body in (
                (action + "fork_start", {"target": "udp:127.0.0.1:9"}),
                (action + "answer", {}),
                (action + "fork_start", {"target": "udp:127.0.0.1:9"}),
                (action + "fork_start", {}),
                (action + "fork_stop", {"client_state": "YQ=="}),
                (action + "fork_stop", {"client_state": "?"}),
                (action + "speak", {"payload": "Good day", "voice": "female", "language": "en-GB"}),
                (action + "speak", {"payload": "Good day"}),
                (action + "playback_start", {"audio_url": "http://127.0.0.1:9/"}),
                (action + "playback_start", {}),
                (action + "playback_stop", {}),
                (action + "playback_stop", {"stop": "?"}),
                (action + "hangup", None),
                (action + "hangup", {}),
                (action + "answer", {}),
            ):
                await ask("POST", path, one, body)
            await ask("GET", "/calls/{call_control_id}", one.replace(":", "%3A"))
            await ask("GET", "/calls/{call_control_id}", "v3:unknown")
            await ask("POST", "/calls", "", {"connection_id": "7", "to": "+1555", "from": "+1556"})
            await ask("POST", "/calls", "", {"connection_id": "7"})
            await ask("GET", "/call_events", "")
            await ask("GET", "/call_events", "", params={"page[size]": "0"})
            await ask("GET", "/call_events", "", headers={"authorization": "Bearer no"})
            for content, status in ((b"{", 400), (b"[1]", 400), (b"{" + b" " * (1 << 20), 413)):
                response = await client.post(f"{api.base_url}/calls/{two}/actions/answer", content=content)
                assert response.status_code == status
                assert errors_of(response.json(), "schemas/Errors") == []
            for url in ("http://127.0.0.1/", "http://127.0.0.1/v2/", f"http://127.0.0.1/v2/calls/{two}/actions/dance"):
                assert (await client.get(url)).status_code == 404
            assert {status for _, status in seen} == {200, 401, 404, 422}


# --- webhooks --------------------------------------------------------------------------------------------------------


def forged() -> tuple[type[Exception], ...]:
    """Which of the two the SDK raises depends on whether anybody has imported telnyx.lib."""
    return ValueError, verification.WebhookVerificationError


async def test_the_sdk_verifies_webhooks_over_http_and_refuses_changed_ones():
    hooks = Hooks(500, 503)
    server = HttpServer(hooks, "127.0.0.1", 0)
    await server.start()
    try:
        url = f"http://127.0.0.1:{server.port}/hooks"
        quick = WebhookFaults(retry_s=0.01)
        async with StandIn(calls=2, bridged=True, seed=1, webhook=url, webhook_faults=quick) as api, sdk(api) as client:
            for call in api.calls:
                body = {"target": "udp:127.0.0.1:9"}
                await client.calls.actions.start_forking(call.call_control_id, client_state="YQ==", extra_body=body)
            await client.calls.actions.hangup(api.calls[0].call_control_id)
            await api.outbox.drain(120)
            assert (api.outbox.delivered, api.outbox.failed) == (12, 0)
    finally:
        await server.stop()
    assert len(hooks.came) == 14  # two were refused and came again
    verify = telnyx.Telnyx(api_key="x").webhooks.unwrap
    for headers, body in hooks.came:
        event = verify(body.decode(), headers=headers, key=api.public_key)
        assert event.data.event_type == json.loads(body)["data"]["event_type"]
        assert errors_of(json.loads(body), event_schema(event.data.event_type)) == []
        with pytest.raises(forged(), match=r"(?i)signature"):
            verify(body.decode().replace("call.", "cell."), headers=headers, key=api.public_key)
        wrong = headers | {"telnyx-timestamp": str(int(headers["telnyx-timestamp"]) + 1)}
        with pytest.raises(forged(), match=r"(?i)signature"):
            verify(body.decode(), headers=wrong, key=api.public_key)
    assert len({d["id"] for d in hooks.data}) == 12
    for call in api.calls:
        order = list(dict.fromkeys(hooks.of(call)))
        names = ["initiated", "answered", "bridged", "fork.started", "fork.stopped", "hangup"]
        assert order == [f"call.{name}" for name in names]


async def deliver(hooks: Hooks, faults: WebhookFaults, calls: int = 40) -> tuple[StandIn, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    options = in_process(hooks, webhook_faults=faults, on_event=events.append, **memory_sender(MemoryEdge()))
    async with StandIn(port=None, calls=calls, seed=1, **options) as api:
        await api.outbox.drain(120)
    return api, events


@virtually
async def test_webhooks_are_doubled_and_dropped_and_the_truth_is_told():
    hooks = Hooks()
    api, events = await deliver(hooks, WebhookFaults(duplicate=0.5, drop=0.25, delay_s=0.02))
    times = Counter(d["id"] for d in hooks.data)
    outcomes = Counter(e["outcome"] for e in events if e["event"] == "webhook")
    assert outcomes["dropped"] == api.outbox.dropped == 80 - len(times)
    assert 8 <= outcomes["dropped"] <= 32
    assert set(times.values()) == {1, 2}
    assert len(hooks.came) == api.outbox.delivered == outcomes["delivered"]
    bodies: dict[str, set[bytes]] = {}
    for _, body in hooks.came:
        bodies.setdefault(json.loads(body)["data"]["id"], set()).add(body)
    assert all(len(same) == 1 for same in bodies.values())


@virtually
async def test_webhooks_come_in_order_unless_asked_otherwise():
    straight, mixed = Hooks(), Hooks()
    api, _ = await deliver(straight, WebhookFaults())
    assert all(straight.of(call) == ["call.initiated", "call.answered"] for call in api.calls)
    api, _ = await deliver(mixed, WebhookFaults(reorder=True, delay_s=0.05))
    turned = sum(mixed.of(call) == ["call.answered", "call.initiated"] for call in api.calls)
    assert 5 <= turned <= 35
    assert len(mixed.came) == 80


@virtually
async def test_webhooks_nobody_takes_are_given_up():
    hooks = Hooks(*[500] * 100)
    api, events = await deliver(hooks, WebhookFaults(retries=2, retry_s=0.001), calls=1)
    assert [(e["outcome"], e["attempts"]) for e in events if e["event"] == "webhook"] == [("failed", 3)] * 2
    assert (len(hooks.came), api.outbox.failed) == (6, 2)


async def test_the_answer_command_may_name_another_url():
    hooks = Hooks()
    async with StandIn(port=None, calls=1, ring_s=None, webhook_transport=httpx.ASGITransport(hooks)) as api:
        headers = {"authorization": f"Bearer {api.api_key}"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), headers=headers) as client:
            url = f"{api.base_url}/calls/{api.calls[0].call_control_id}/actions/answer"
            assert (await client.post(url, json={"webhook_url": "http://elsewhere/"})).status_code == 200
        await api.outbox.drain(120)
    assert hooks.of(api.calls[0]) == ["call.answered"]


# --- as a whole ------------------------------------------------------------------------------------------------------


def open_sockets() -> list[str]:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc here")
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return [link for link in links if link.startswith("socket:")]


@pytest.mark.sockets
async def test_fifty_calls_at_once_and_nothing_left_running():
    gc.collect()
    before = len(open_sockets()), asyncio.all_tasks()
    hooks = Hooks()
    kept = ArraySink()
    async with (
        StandIn(calls=50, bridged=True, seed=1, impairments=Impairments(loss=0.02), **in_process(hooks)) as api,
        strep.Receiver("127.0.0.1:0", sinks=[kept]) as receiver,
        httpx.AsyncClient(headers={"authorization": f"Bearer {api.api_key}"}) as client,
    ):

        async def act(what: str, calls: Iterable[Call], body: dict[str, str]) -> None:
            answers = await asyncio.gather(
                *(client.post(f"{api.base_url}/calls/{c.call_control_id}/actions/{what}", json=body) for c in calls)
            )
            assert {a.status_code for a in answers} == {200}

        await act("fork_start", api.calls, to(receiver))
        await asyncio.sleep(1.0)
        await act("fork_stop", api.calls, {})
        await until(lambda: receiver.totals().datagrams == api.media.datagrams)
        truths = {t.key: t for call in api.calls for t in api.truth(call.call_leg_id)}
    assert len(truths) == 100
    reports = receiver.reports()
    assert {(r.stream.call_leg_id, r.stream.leg, r.stream.direction) for r in reports} == truths.keys()
    for report in reports:
        truth = truths[report.stream.call_leg_id, report.stream.leg, report.stream.direction]
        check_truth(truth, report)
        assert truth.packets > 20
        assert np.array_equal(kept.get(report.stream).samples, truth.audio())
    assert sum(t.packets for t in truths.values()) == api.media.datagrams
    names = Counter(d["event_type"] for d in hooks.data)
    assert names == {f"call.{n}": 50 for n in ("initiated", "answered", "bridged", "fork.started", "fork.stopped")}
    await until(lambda: asyncio.all_tasks() <= before[1])
    gc.collect()
    assert len(open_sockets()) == before[0]


@virtually
async def test_calls_come_and_go_without_anybody_asking():
    events: list[dict[str, Any]] = []
    options = {"arrive_s": 20.0, "ring_s": 0.01, "seconds": 3600.0, **memory_sender(MemoryEdge())}
    async with StandIn(port=None, calls=3, on_event=events.append, **options) as api:
        await asyncio.wait_for(api.wait(), 7200)
    assert [e["event"] for e in events] == ["serving", "call", "call", "call"]
    assert [c.answered_ns - c.initiated_ns for c in api.calls if c.answered_ns] == [10_000_000] * 3


async def test_an_error_inside_closes_everything_and_is_passed_on():
    before = asyncio.all_tasks()
    ports = []

    async def fail() -> None:
        async with StandIn(calls=1) as api:
            ports.append(int(api.base_url.split(":")[2].partition("/")[0]))
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await fail()
    await until(lambda: asyncio.all_tasks() <= before)
    async with StandIn(port=ports[0], calls=1) as api:  # the port is free again
        with pytest.raises(BindError, match="taken"):
            await StandIn(port=ports[0], calls=1).__aenter__()
        with pytest.raises(ConfigurationError, match="another"):
            await api.__aenter__()


@pytest.mark.parametrize(
    "wrong",
    [{"api_key": ""}, {"api_key": "ä"}, {"webhook": "ftp://x"}, {"seed": -1}, {"calls": -1}, {"codec": "MP3"}],
)
def test_wrong_arguments_are_told_at_once(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        StandIn(**wrong)


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=re.escape(install("serve"))):
        HttpServer(None, "127.0.0.1", 0)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(MissingExtraError, match=re.escape(install("serve"))):
        StandIn()


def test_a_leg_that_is_none_of_these_calls():
    with pytest.raises(ConfigurationError):
        StandIn().truth(uuid.uuid4())


# --- the command -----------------------------------------------------------------------------------------------------


def run_command(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "strep", "simulate", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_says_all_a_client_needs_and_ends_on_a_signal():
    process = run_command("--api", "127.0.0.1:0", "--calls", 2, "--bridged", "--json", "--seed", 1)
    assert process.stdout is not None
    serving, *calls = (json.loads(process.stdout.readline()) for _ in range(3))
    assert serving.keys() == {"event", "base_url", "api_key", "public_key"}
    assert [c["event"] for c in calls] == ["call"] * 2
    assert len({c["call_session_id"] for c in calls}) == 1
    assert all(c["public_key"] == serving["public_key"] for c in calls)
    assert len(base64.b64decode(serving["public_key"])) == 32
    headers = {"authorization": f"Bearer {serving['api_key']}"}
    for call in calls:
        url = f"{serving['base_url']}/calls/{call['call_control_id']}"
        answer = httpx.get(url, headers=headers, trust_env=False).json()["data"]
        assert {k: answer[k] for k in ("call_leg_id", "call_session_id")} == {
            k: call[k] for k in ("call_leg_id", "call_session_id")
        }
    body = {"target": "udp:127.0.0.1:9"}
    httpx.post(url + "/actions/fork_start", headers=headers, json=body, trust_env=False).raise_for_status()
    assert json.loads(process.stdout.readline())["event"] == "fork_started"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["event"] == "ended"


def test_the_command_for_people():
    process = run_command("--api", "127.0.0.1:0", "--calls", 1, "--seconds", 0.2, "--once")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "")
    lines = err.splitlines()
    names = ["TELNYX_BASE_URL", "TELNYX_API_KEY", "TELNYX_PUBLIC_KEY"]
    assert [line.partition("=")[0] for line in lines[:3]] == names
    assert lines[3].startswith("call v3:")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--api", "nonsense"], "HOST:PORT"),
        (["--api", "127.0.0.1:0", "--to", "udp:127.0.0.1:9"], "--to is not for"),
        (["--bridged"], "--bridged is only for"),
        (["--api", "127.0.0.1:0", "--rate-429", "0.6", "--rate-5xx", "0.6"], "together 1"),
        (["--api", "127.0.0.1:0", "--bridged", "--calls", "3"], "even"),
    ],
)
def test_wrong_use_of_the_command(arguments: list[str], says: str):
    done = CliRunner().invoke(cli, ["simulate", *arguments])
    if isinstance(done.exception, ConfigurationError):  # main() makes this exit code 2
        assert says in str(done.exception)
    else:
        assert (done.exit_code, says in done.output) == (2, True)
