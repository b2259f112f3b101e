"""strep simulate --api: a call-control API on this machine, with simulated calls. Options, and running it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, fields
from typing import Any, Final

import click
from rich.console import Console

from .events import EventWriter
from .options import decorated, http_address
from .running import stop_on_signals
from .simulated_calls import PROBABILITY, SimulatedCalls

__all__ = ["API_OPTIONS", "ApiOptions", "api_options", "serve_api"]

_LAST_WEBHOOKS_S: Final = 5.0


@decorated
def api_options() -> list[Any]:
    """What only ``--api`` knows."""
    return [
        click.option("--api", metavar="HOST:PORT",
                     help="Serve a call-control API there instead; its fork_start says where media go."),
        click.option("--api-key", default="KEYstandin", show_default=True, metavar="KEY", help="[api] Bearer key."),
        click.option("--seconds", type=click.FloatRange(0, 14_400, min_open=True), default=600.0, show_default=True,
                     metavar="S", help="[api] Each call is hung up after so long."),
        click.option("--arrive", "arrive_s", type=click.FloatRange(0), default=0.0, metavar="S",
                     help="[api] Time between two calls (default: all at once)."),
        click.option("--ring", "ring_s", type=click.FloatRange(0), default=0.0, metavar="S",
                     help="[api] How long a call rings before it is answered (default: not at all)."),
        click.option("--wait-for-answer", is_flag=True, help="[api] Calls ring until the answer command."),
        click.option("--bridged", is_flag=True, help="[api] Calls are pairs of bridged legs with one session."),
        click.option("--once", is_flag=True, help="[api] End when all calls have ended."),
        click.option("--webhook", metavar="URL", help="[api] Where signed webhooks are sent."),
        click.option("--webhook-duplicate", type=PROBABILITY, default=0.0, metavar="P",
                     help="[api] Probability that a webhook comes twice."),
        click.option("--webhook-drop", type=PROBABILITY, default=0.0, metavar="P",
                     help="[api] ... that it never comes."),
        click.option("--webhook-reorder", is_flag=True, help="[api] Webhooks come in any order."),
        click.option("--latency", "latency_ms", type=click.FloatRange(0, 600_000), default=0.0, metavar="MS",
                     help="[api] Every answer is so late."),
        click.option("--rate-429", type=PROBABILITY, default=0.0, metavar="P",
                     help="[api] Probability that a request is refused with 429."),
        click.option("--rate-5xx", type=PROBABILITY, default=0.0, metavar="P",
                     help="[api] ... that it fails with 503, or takes effect and fails with 500."),
        click.option("--rate-hang", type=PROBABILITY, default=0.0, metavar="P",
                     help="[api] ... that it takes effect and is never answered."),
        click.option("--retry-after", "retry_after_s", type=click.FloatRange(0, 3600), default=1.0,
                     show_default=True, metavar="S", help="[api] What 429 asks for."),
    ]  # fmt: skip


@dataclass(frozen=True)
class ApiOptions:
    """The values of :func:`api_options`."""

    api: str | None
    api_key: str
    seconds: float
    arrive_s: float
    ring_s: float
    wait_for_answer: bool
    bridged: bool
    once: bool
    webhook: str | None
    webhook_duplicate: float
    webhook_drop: float
    webhook_reorder: bool
    latency_ms: float
    rate_429: float
    rate_5xx: float
    rate_hang: float
    retry_after_s: float


API_OPTIONS: Final = frozenset(one.name for one in fields(ApiOptions) if one.name != "api")
"""Names of the options that make no sense without ``--api``."""


async def serve_api(options: ApiOptions, calls: SimulatedCalls, err: Console, *, as_json: bool) -> None:
    """Until a signal comes, or all calls have ended with ``--once``."""
    from ..standin import Faults, StandIn, WebhookFaults

    host, port = http_address("--api", str(options.api))
    writer = EventWriter() if as_json else None
    stop = stop_on_signals()
    try:
        async with StandIn(
            host=host,
            port=port,
            calls=calls.calls,
            arrive_s=options.arrive_s,
            ring_s=None if options.wait_for_answer else options.ring_s,
            seconds=options.seconds,
            bridged=options.bridged,
            webhook=options.webhook,
            api_key=options.api_key,
            codec=calls.codec.upper(),
            ptime_ms=calls.ptime_ms,
            file=calls.file,
            impairments=calls.impairments,
            drift_ppm=calls.drift_ppm,
            faults=Faults(
                options.latency_ms, options.rate_429, options.rate_5xx, options.rate_hang, options.retry_after_s
            ),
            webhook_faults=WebhookFaults(options.webhook_duplicate, options.webhook_drop, options.webhook_reorder),
            on_event=writer or (lambda event: _print_event(err, event)),
            seed=calls.seed,
        ) as standin:
            waiting: set[asyncio.Future[Any]] = {asyncio.ensure_future(stop.wait())}
            if options.once:
                waiting.add(asyncio.ensure_future(standin.wait()))
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
            if options.once:
                await standin.outbox.drain(_LAST_WEBHOOKS_S)
        media, outbox = standin.media, standin.outbox
        figures = {
            "datagrams": media.datagrams,
            "refused": media.refused,
            "behind_ms_max": media.behind_ns / 1e6,
            "webhooks_delivered": outbox.delivered,
            "webhooks_failed": outbox.failed,
            "webhooks_dropped": outbox.dropped,
        }
        if writer is not None:
            writer({"event": "ended", **figures})
        else:
            err.print(
                f"sent {media.datagrams:,} datagrams; {outbox.delivered} webhooks delivered, {outbox.failed} failed",
                soft_wrap=True,
            )
    finally:
        if writer is not None:
            writer.close()


def _print_event(err: Console, event: dict[str, Any]) -> None:
    what = event["event"]
    if what == "serving":
        for name in ("base_url", "api_key", "public_key"):
            err.print(f"TELNYX_{name.upper()}={event[name]}", soft_wrap=True)
    elif what == "call":
        err.print(f"call {event['call_control_id']}  leg {event['call_leg_id']}", soft_wrap=True)
    elif what == "fork_started":
        err.print(f"fork of leg {event['call_leg_id']} started → {event['to']}", soft_wrap=True)
    elif what == "fork_stopped":
        figures = ", ".join(f"{name} {event[name]['packets']:,} packets" for name in ("inbound", "outbound"))
        err.print(f"fork of leg {event['call_leg_id']} stopped: {figures}", soft_wrap=True)
    elif what in ("audio_started", "audio_stopped"):
        err.print(f"{event['kind']} on leg {event['call_leg_id']} {what.removeprefix('audio_')}", soft_wrap=True)
    elif event["outcome"] != "delivered":
        err.print(f"webhook {event['event_type']} of leg {event['call_leg_id']} {event['outcome']}", soft_wrap=True)
