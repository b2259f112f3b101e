"""Figures for Prometheus: of a receiver, its sinks, call control and webhooks. Needs the extra ``metrics``.

::

    prometheus_client.REGISTRY.register(strep.metrics.collector(receiver))

A collector reads figures when it is asked, so it costs nothing between two scrapes. Nothing is labelled by stream or
call: the number of series is bounded. All counters begin with the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from ._model.exceptions import MissingExtraError
from ._model.extras import install

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.registry import Collector

    from ._receiver.receiver import Receiver
    from ._workers.supervisor import Supervisor
    from .control._figures import RequestFigures
    from .control.asgi import WebhookCounts

__all__ = ["CONTENT_TYPE", "collector", "exposition", "metrics_app"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_OUTCOMES: Final = ("malformed", "rejected", "dropped")  # those that have causes


def collector(
    receiver: Receiver | Supervisor,
    *,
    requests: RequestFigures | None = None,
    webhooks: WebhookCounts | None = None,
    forks: Callable[[], Mapping[str, int]] | None = None,
    calls: Callable[[], Mapping[str, int]] | None = None,
    connections: Callable[[], Mapping[str, int]] | None = None,
) -> Collector:
    """A collector to register with prometheus_client.

    requests: ``CallControl.figures``. webhooks: ``WebhookApp.counts``. forks: how many there are by state, now.
    calls: how many calls came to what, so far. connections: the same of HTTP
    connections. Collect in the loop's thread. Raises MissingExtraError.
    """
    try:
        from prometheus_client import core
    except ImportError as error:
        raise MissingExtraError(f"metrics need prometheus-client: {install('metrics')}") from error
    from prometheus_client.registry import Collector as Base

    class StrepCollector(Base):
        def describe(self) -> list[Metric]:
            return []  # registering it must not ask a receiver that has not been started

        def collect(self) -> Iterator[Metric]:
            yield from _of_receiver(core, receiver)
            if requests is not None:
                yield from _of_requests(core, requests)
            if webhooks is not None:
                counter = core.CounterMetricFamily(
                    "strep_webhooks", "Webhook requests by what became of them.", labels=["outcome"]
                )
                for entry in fields(webhooks):
                    counter.add_metric([entry.name], getattr(webhooks, entry.name))
                yield counter
            if forks is not None:
                gauge = core.GaugeMetricFamily("strep_forks", "Forks by state.", labels=["state"])
                for state, count in forks().items():
                    gauge.add_metric([state], count)
                yield gauge
            if calls is not None:
                counter = core.CounterMetricFamily("strep_calls", "Calls by what came of them.", labels=["outcome"])
                for outcome, count in calls().items():
                    counter.add_metric([outcome], count)
                yield counter
            if connections is not None:
                counter = core.CounterMetricFamily(
                    "strep_http_connections", "HTTP connections by what became of them.", labels=["outcome"]
                )
                for outcome, count in connections().items():
                    counter.add_metric([outcome], count)
                yield counter

    return StrepCollector()


def _of_receiver(core: Any, receiver: Receiver | Supervisor) -> Iterator[Metric]:
    totals = receiver.totals()
    counter = core.CounterMetricFamily(
        "strep_datagrams",
        "Datagrams by what became of them; those that still wait in a jitter ring are in none.",
        labels=["outcome", "cause"],
    )
    for outcome in ("delivered", "duplicate", "late"):
        counter.add_metric([outcome, ""], getattr(totals, outcome))
    for outcome in _OUTCOMES:
        for cause, count in getattr(totals, f"{outcome}_by").items():
            counter.add_metric([outcome, cause], count)
    yield counter
    counter = core.CounterMetricFamily("strep_datagrams_received", "Datagrams by what they are.", labels=["kind"])
    for kind, count in totals.by_kind.items():
        counter.add_metric([kind], count)
    yield counter
    yield core.CounterMetricFamily(
        "strep_packets_recovered", "Packets that redundant copies (RFC 2198) stood in for.", value=totals.recovered
    )
    yield core.GaugeMetricFamily("strep_datagrams_buffered", "Datagrams that wait in a ring.", value=totals.buffered)
    yield core.CounterMetricFamily(
        "strep_kernel_dropped", "Datagrams that the kernel dropped: full socket buffers.", value=totals.kernel_dropped
    )
    yield core.GaugeMetricFamily("strep_streams", "Streams that are being received.", value=receiver.live_streams)
    for name, text in (
        ("started", "Streams that were admitted."),
        ("ended", "Streams that have ended."),
        ("refused", "Streams that were not admitted: there were max_streams."),
    ):
        yield core.CounterMetricFamily(f"strep_streams_{name}", text, value=getattr(totals, f"streams_{name}"))
    counter = core.CounterMetricFamily("strep_faults", "Exceptions that were contained, by place.", labels=["place"])
    for place, count in totals.faults.items():
        counter.add_metric([place], count)
    yield counter
    yield core.GaugeMetricFamily(
        "strep_receiver_healthy", "1: it receives, and nothing is wrong now.", value=int(receiver.healthy)
    )
    yield core.GaugeMetricFamily(
        "strep_last_read_age_seconds",
        "How long ago the sockets were last read; they are not while nothing comes.",
        value=receiver.last_read_age_s,
    )
    buffers = [socket.granted_buffer for socket in receiver.sockets]
    if buffers:
        yield core.GaugeMetricFamily(
            "strep_socket_buffer_bytes", "What the kernel granted the smallest socket.", value=min(buffers)
        )
    last_ns = getattr(receiver, "last_datagram_ns", None)
    if last_ns is not None:
        yield core.GaugeMetricFamily(
            "strep_last_datagram_timestamp_seconds", "When the last datagram came, Unix time.", value=last_ns / 1e9
        )
    reports: list[dict[str, Any]] = getattr(receiver, "sink_reports", list)()
    yield from _of_sinks(core, reports)


def _of_sinks(core: Any, reports: list[dict[str, Any]]) -> Iterator[Metric]:
    """Sinks of one kind are one: there may be several."""
    dropped: dict[str, int] = {}
    failed: dict[str, int] = {}
    for report in reports:
        kind = str(report.get("kind"))
        lost = int(report.get("dropped_frames") or 0) + int(report.get("dropped_datagrams") or 0)
        dropped[kind] = dropped.get(kind, 0) + lost
        failed[kind] = max(failed.get(kind, 0), int(report.get("failed") is not None))
    counter = core.CounterMetricFamily(
        "strep_sink_dropped", "Sample frames (pcap: datagrams) that a sink did not take.", labels=["sink"]
    )
    gauge = core.GaugeMetricFamily("strep_sink_failed", "1: a sink has told of an error.", labels=["sink"])
    for kind in dropped:
        counter.add_metric([kind], dropped[kind])
        gauge.add_metric([kind], failed[kind])
    yield counter
    yield gauge


def _of_requests(core: Any, requests: RequestFigures) -> Iterator[Metric]:
    from .control._figures import LATENCY_S

    counter = core.CounterMetricFamily(
        "strep_api_requests",
        "Requests to the call-control API, each attempt, by status or why there is none.",
        labels=["operation", "outcome"],
    )
    for (operation, outcome), count in requests.outcomes.items():
        counter.add_metric([operation, outcome], count)
    yield counter
    histogram = core.HistogramMetricFamily(
        "strep_api_request_seconds", "Time until the answer, or until it was given up.", labels=["operation"]
    )
    for operation, latencies in requests.latencies.items():
        ends = [*map(str, LATENCY_S), "+Inf"]
        buckets = list(zip(ends, accumulate(latencies.counts), strict=True))
        histogram.add_metric([operation], buckets, sum_value=latencies.total_s)
    yield histogram


def exposition(collected: Collector) -> bytes:
    """The collector's figures in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(collected)
    return generate_latest(registry)


def metrics_app(collected: Collector) -> Callable[[Any, Any, Any], Any]:
    """An ASGI application that answers ``GET /metrics``."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] != "/metrics" or scope["method"] not in ("GET", "HEAD"):
            status, body = 404, b"metrics are at /metrics\n"
        else:
            status, body = 200, exposition(collected)
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
