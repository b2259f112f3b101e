"""strep capture: receive, show, write."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from .._edge.http import HttpServer
from .._receiver.receiver import Receiver
from .._receiver.settings import Settings
from .._receiver.summary import losses
from .._workers.steering import steering_problem
from .._workers.supervisor import Supervisor
from ..sinks import LevelMeter
from ..sinks.base import Sink
from .events import EventSink, EventWriter, emit, events_lost, write_incidents
from .exit_codes import EXIT_SINK
from .found import Found, every_sink
from .limits import hide_key
from .options import (
    http_address,
    leg_options,
    pcap_option,
    port_options,
    recording_options,
    settings_of,
    socket_options,
    stream_options,
    values_of,
)
from .output import Output, nats_options, output_options
from .results import keep_summary, locked, sink_failed, undecodable, wrote
from .running import console, favor_receiving, run_async, stop_on_signals
from .tables import stream_table, totals_line
from .workers import WorkerSinks

__all__ = ["CaptureOptions", "capture", "run_capture"]

_WAY: Final = "strep capture"
_DEFAULT_LISTEN: Final = "0.0.0.0:9000"
_REFRESH_S: Final = 0.33  # of the table
_OTHER_LINES: Final = 6  # of a terminal's, that the table is not for
_FEWEST_ROWS: Final = 3
_SMALL_BUFFER: Final = 8 << 20  # bytes; a smaller receive buffer is warned of
_LAST_INCIDENTS_S: Final = 1.0


@dataclass(frozen=True)
class CaptureOptions:
    """Options that only this command has."""

    out: Path | None
    duration: float | None  # s
    workers: int
    metrics: str | None
    as_json: bool


@click.command()
@port_options(_WAY)
@recording_options
@output_options
@nats_options
@leg_options(_WAY)
@stream_options(_WAY)
@pcap_option(_WAY)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that share the --listen port, one a core. All of a call leg meets in one; a dead one is replaced.",
)
@socket_options(_WAY)
@click.option("--metrics", metavar="ADDR:PORT", help="Serve figures for Prometheus at http://ADDR:PORT/metrics.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on stdout.")
def capture(**options: Any) -> None:
    """Receive forked media until interrupted; write WAV files and summary.json to --out."""
    if all(options[name] is None for name in ("listen", "rx", "tx", "sniff")):
        options["listen"] = _DEFAULT_LISTEN
    favor_receiving()
    hide_key()
    own = values_of(CaptureOptions, options)
    output = values_of(Output, options)
    output.warm_up()
    settings = settings_of(_WAY, options)
    with locked(own.out):
        sys.exit(run_async(lambda: run_capture(settings, output, own)))


async def run_capture(settings: Settings, output: Output, own: CaptureOptions) -> int:
    """Everything that the command does; returns the exit code."""
    err = console()
    writer = EventWriter() if own.as_json else None
    receiver, meter, found = _make_receiver(err, settings, output, own, writer)
    stop = stop_on_signals()
    await receiver.start()
    server: HttpServer | None = None
    incidents = None if writer is None else asyncio.create_task(write_incidents(receiver, writer))
    try:
        _announce(err, receiver, own.as_json)
        if own.metrics is not None:
            server = _metrics_server(own.metrics, receiver)
            await server.start()
            err.print(f"metrics at http://{server.address}/metrics", soft_wrap=True)
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(own.duration):
                await _show_until(stop, err, receiver, meter, found)
    finally:
        if server is not None:
            await server.stop()
        await receiver.stop()
        if writer is not None and incidents is not None:
            await asyncio.wait([incidents], timeout=_LAST_INCIDENTS_S)
            writer.close()
    return _conclude(err, receiver, own)


def _make_receiver(
    err: Console, settings: Settings, output: Output, own: CaptureOptions, writer: EventWriter | None
) -> tuple[Receiver | Supervisor, LevelMeter | None, Found]:
    """What receives; the meter whose levels the table shows, and what else it shows."""
    workers = own.workers
    if workers > 1 and (problem := _why_alone(settings, output.layout)):
        err.print(f"{problem}: one process does it all", style="yellow", soft_wrap=True)
        workers = 1
    if workers > 1:
        made = WorkerSinks(own.out, output, own.as_json)
        supervisor = Supervisor.of(settings, workers=workers, sinks=made)
        if writer is not None:
            supervisor.on_event = writer
        return supervisor, None, Found([])
    sinks: list[Sink] = output.sinks(own.out)
    found = Found(sinks)
    meter = next((sink for sink in every_sink(sinks) if isinstance(sink, LevelMeter)), None)
    if meter is None and err.is_terminal:
        meter = LevelMeter()
        sinks.append(meter)
    if writer is not None:
        sinks.append(EventSink(writer))
    return Receiver.of(settings, sinks), meter, found


def _conclude(err: Console, receiver: Receiver | Supervisor, own: CaptureOptions) -> int:
    """Write and print what has come; returns the exit code."""
    summary = receiver.summary()
    lost = summary["lost"] = losses(receiver.totals(), summary["sinks"])
    kept = own.out is None
    if own.out is not None and (path := keep_summary(err, own.out, summary)) is not None:
        kept = True
        err.print(wrote(path, summary), soft_wrap=True)
    if own.as_json:
        emit({"event": "summary", **summary})
    err.print(totals_line(receiver.totals(), 0), soft_wrap=True)
    for report in summary["sinks"]:
        if report.get("failed"):
            err.print(f"{report['kind']}: {report['failed']}", style="red", soft_wrap=True)
    for sentence in lost:
        err.print(f"lost: {sentence}", style="red", soft_wrap=True)
    nothing = None if own.out is None else undecodable(summary)
    if nothing is not None:
        err.print(nothing, style="red", soft_wrap=True)
    unread = receiver.totals().dropped_by.get("unread")
    return EXIT_SINK if unread or nothing or not kept or events_lost() or sink_failed(summary["sinks"]) else 0


def _metrics_server(address: str, receiver: Receiver | Supervisor) -> HttpServer:
    """Raises ConfigurationError, BindError, MissingExtraError."""
    from ..metrics import collector, metrics_app

    host, port = http_address("--metrics", address)
    return HttpServer(metrics_app(collector(receiver)), host, port, extra="metrics")


def _why_alone(settings: Settings, layout: str) -> str | None:
    """Why there cannot be several workers; None: there can."""
    if layout == "session":
        return "the call legs of a session are written into one file"
    if settings.sniff is not None:
        return "one process takes traffic between others"
    if settings.listen is None:
        return "the rx and tx ports carry one call leg, which one process receives"
    return steering_problem()


def _announce(err: Console, receiver: Receiver | Supervisor, as_json: bool) -> None:
    sockets = receiver.sockets
    workers = {"workers": len(receiver.workers)} if isinstance(receiver, Supervisor) else {}
    if as_json:
        listening = [{"address": s.address, "role": s.role} for s in sockets if s.role != "ring"]
        emit({"event": "listening", "sockets": listening, **workers})
    each = f" for each of {workers['workers']} workers" if workers else ""
    for s in sockets:
        if s.role == "ring":
            continue  # its ports stand there
        if s.role == "sniff":
            err.print(f"sniffing on {s.address} (buffer {s.granted_buffer >> 20} MiB)", soft_wrap=True)
            continue
        err.print(
            f"listening on udp:{s.address} ({s.role}, {s.transport}, buffer {s.granted_buffer >> 20} MiB{each})",
            soft_wrap=True,
        )
        if s.granted_buffer < min(_SMALL_BUFFER, s.requested_buffer):
            err.print(
                f"the receive buffer is small ({s.granted_buffer >> 10} KiB): bursts may be lost; "
                "raise it with: sysctl -w net.core.rmem_max=67108864",
                style="yellow",
                soft_wrap=True,
            )


async def _show_until(
    stop: asyncio.Event, err: Console, receiver: Receiver | Supervisor, meter: LevelMeter | None, found: Found
) -> None:
    """Wait for the end; on a terminal with a table that is refreshed a few times a second."""
    if not err.is_terminal:
        await stop.wait()
        return
    began, last, last_at = time.monotonic(), 0, time.monotonic()
    with Live(console=err, auto_refresh=False) as live:  # what it showed last stays there
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _REFRESH_S)
            totals, now = receiver.totals(), time.monotonic()
            speed = (totals.datagrams - last) / max(now - last_at, 1e-3)
            last, last_at = totals.datagrams, now
            # only the streams that fit are looked at: thousands cost no more
            top = receiver.top(max(_FEWEST_ROWS, err.height - _OTHER_LINES))
            # a row stays where it is
            top.sort(key=lambda report: (report.stream.first_arrival_ns, report.stream.serial))
            head = Text(f"{now - began:6.1f} s  {speed:,.0f} datagrams/s  {totals_line(totals, receiver.live_streams)}")
            more = found.columns(top)
            table = stream_table(top, meter=meter, found=more, columns=err.width, now_ns=time.time_ns())
            live.update(Group(head, table), refresh=True)
