"""Figures for Prometheus: they are the receiver's, they are read only when asked for, and their number is bounded."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import listening, send_paced, until
from support import leg_id, packet

import strep
from strep._edge.http import HttpServer
from strep._model.exceptions import ConfigurationError, MissingExtraError
from strep._model.extras import install
from strep.cli.options import http_address
from strep.control._figures import LATENCY_S, RequestFigures
from strep.control.asgi import WebhookCounts
from strep.sinks import ArraySink, BaseSink

pytest.importorskip("prometheus_client", reason="extra metrics")

from prometheus_client.parser import text_string_to_metric_families

from strep.metrics import collector, exposition, metrics_app

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """Read by Prometheus' own parser: value by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


class Broken(BaseSink):
    kind = "broken"

    def report(self) -> dict[str, Any]:
        return {"kind": self.kind, "failed": "EIO: no", "dropped_frames": 160}


@pytest.fixture
async def receiver() -> AsyncIterator[strep.Receiver]:
    receiver = strep.Receiver("127.0.0.1:0", sinks=[ArraySink(), Broken(), Broken()], latency_ms=60)
    async with receiver:
        yield receiver


@pytest.mark.sockets
async def test_every_datagram_is_in_one_outcome_as_in_the_totals(receiver: strep.Receiver) -> None:
    data = [packet(k) for k in range(50)] + [packet(49), b"", b"\x00\x01stun", b"\xc4\x18"]
    await send_paced(listening(receiver), data)
    await until(lambda: receiver.totals().datagrams == len(data))
    await until(lambda: receiver.totals().buffered == 0)
    totals = receiver.totals()
    found = samples(exposition(collector(receiver)).decode())
    counted = sum(v for (name, _), v in found.items() if name == "strep_datagrams_total")
    assert counted == totals.datagrams == len(data)
    assert value(found, "strep_datagrams_total", outcome="delivered", cause="") == 50
    assert value(found, "strep_datagrams_total", outcome="duplicate", cause="") == 1
    for outcome in ("malformed", "rejected", "dropped"):
        for cause, count in getattr(totals, f"{outcome}_by").items():
            assert value(found, "strep_datagrams_total", outcome=outcome, cause=cause) == count > 0
    kinds = {dict(labels)["kind"]: v for (n, labels), v in found.items() if n == "strep_datagrams_received_total"}
    assert kinds == totals.by_kind
    assert value(found, "strep_streams") == 1
    assert value(found, "strep_streams_started_total") == 1
    assert value(found, "strep_kernel_dropped_total") == 0
    assert value(found, "strep_sink_dropped_total", sink="broken") == 320  # two of a kind are one
    assert value(found, "strep_sink_failed", sink="broken") == 1
    assert value(found, "strep_sink_failed", sink="array") == 0
    assert value(found, "strep_last_datagram_timestamp_seconds") == pytest.approx(receiver.last_datagram_ns / 1e9)


@pytest.mark.sockets
async def test_the_number_of_series_does_not_grow_with_streams(receiver: strep.Receiver) -> None:
    collected = collector(receiver)
    await send_paced(listening(receiver), [packet(k) for k in range(5)])
    await until(lambda: receiver.live_streams == 1)
    few = samples(exposition(collected).decode()).keys()
    many = [packet(k, call=leg_id(call), direction=d) for k in range(5) for call in range(30) for d in (0, 1)]
    await send_paced(listening(receiver), many)
    await until(lambda: receiver.live_streams > 59)
    assert samples(exposition(collected).decode()).keys() == few


def test_a_collector_can_be_registered_before_the_receiver_starts() -> None:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(collector(strep.Receiver("127.0.0.1:0")))
    assert registry.get_sample_value("strep_streams") == 0


def test_requests_webhooks_forks_and_calls() -> None:
    requests = RequestFigures()
    times = [0.01, 0.025, 0.03, 0.2, 4.0, 11.0]
    for seconds in times:
        requests.add("fork_start", "200", seconds)
    requests.add("fork_stop", "429", 0.5)
    requests.add("fork_stop", "timeout", 10.0)
    webhooks = WebhookCounts(accepted=7, forged=2)
    found = samples(
        exposition(
            collector(
                strep.Receiver("127.0.0.1:0"),
                requests=requests,
                webhooks=webhooks,
                forks=lambda: {"media": 3, "stalled": 0},
                calls=lambda: {"recorded": 5},
            )
        ).decode()
    )
    assert value(found, "strep_api_requests_total", operation="fork_start", outcome="200") == len(times)
    assert value(found, "strep_api_requests_total", operation="fork_stop", outcome="429") == 1
    for end in LATENCY_S:
        bucket = value(found, "strep_api_request_seconds_bucket", operation="fork_start", le=str(end))
        assert bucket == sum(seconds <= end for seconds in times)
    assert value(found, "strep_api_request_seconds_bucket", operation="fork_start", le="+Inf") == len(times)
    assert value(found, "strep_api_request_seconds_count", operation="fork_start") == len(times)
    assert value(found, "strep_api_request_seconds_sum", operation="fork_start") == pytest.approx(sum(times))
    assert value(found, "strep_webhooks_total", outcome="accepted") == 7
    assert value(found, "strep_webhooks_total", outcome="forged") == 2
    assert value(found, "strep_forks", state="media") == 3
    assert value(found, "strep_calls_total", outcome="recorded") == 5
    assert requests.as_dict() == {"fork_start": {"200": 6}, "fork_stop": {"429": 1, "timeout": 1}}


@pytest.mark.sockets
async def test_it_is_served(receiver: strep.Receiver) -> None:
    server = HttpServer(metrics_app(collector(receiver)), "127.0.0.1", 0)
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://{server.address}", trust_env=False) as client:
            answer = await client.get("/metrics")
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert value(samples(answer.text), "strep_streams") == 0
            assert (await client.get("/")).status_code == 404
            assert (await client.post("/metrics")).status_code == 404
    finally:
        await server.stop()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=re.escape(install("metrics"))):
        collector(strep.Receiver("127.0.0.1:0"))


def test_where_http_is_served() -> None:
    assert http_address("--metrics", "127.0.0.1:9") == ("127.0.0.1", 9)
    assert http_address("--metrics", "[::1]:9") == ("::1", 9)
    for text in ("nowhere", "1.2.3.4:99999", "a:b"):
        with pytest.raises(ConfigurationError, match="--metrics"):
            http_address("--metrics", text)


@pytest.mark.sockets
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_capture_serves_metrics_and_ends_in_order(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "strep", "capture", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            url = next(found[0] for line in lines if (found := re.search(r"http://\S+/metrics", line)))
            text = httpx.get(url, trust_env=False).text
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait(100) == 0
        finally:
            process.kill()
    assert value(samples(text), "strep_streams") == 0


def test_every_attempt_of_a_client_is_counted() -> None:
    from api import CALL, KEY, Reply, serving

    from strep.control import CallControl, RetryPolicy

    async def main() -> RequestFigures:
        with serving() as server:
            server.script = [Reply(429), Reply(503), Reply(how="reset")]
            policy = RetryPolicy(base_s=0.001, cap_s=0.002)
            async with CallControl(KEY, base_url=server.url, policy=policy) as control:
                await control.fork_stop(CALL)
                return control.figures

    figures = asyncio.run(main())
    assert figures.as_dict() == {"fork_stop": {"200": 1, "429": 1, "503": 1, "connection": 1}}
    assert sum(figures.latencies["fork_stop"].counts) == 4
