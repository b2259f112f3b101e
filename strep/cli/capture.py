"""strep capture: receive, show, write."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from .._edge.http import HttpServer
from .._receiver.receiver import Receiver
from .._receiver.summary import losses
from .._workers import Supervisor, steering_problem
from ..sinks import LevelMeter, MutedSink
from .events import EventSink, EventWriter, emit, tell_incidents
from .limits import hide_key
from .lock import DirectoryLock
from .options import (
    EXIT_SINK,
    check_writable,
    console,
    drain_option,
    http_address,
    keep_summary,
    leg_options,
    run_async,
    sink_failed,
    source_arguments,
    source_options,
    stop_on_signals,
)
from .output import Output, output_options
from .tables import stream_table, totals_line
from .workers import WorkerSinks

__all__ = ["capture", "run_capture"]

_REFRESH_S: Final = 0.33
_SMALL_BUFFER: Final = 8 << 20


@click.command()
@click.option("--listen", metavar="ADDR:PORT", help="Port for STREP (and plain RTP). Default: 0.0.0.0:9000.")
@click.option("--rx", metavar="ADDR:PORT", help="Port for plain RTP that the platform received (inbound).")
@click.option("--tx", metavar="ADDR:PORT", help="Port for plain RTP that it transmitted (outbound); may be rx's.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where files go; without it nothing is written.",
)
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Stop after S seconds.")
@output_options
@leg_options
@source_options
@click.option(
    "--pcap",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Record every datagram raw, for Wireshark and `strep replay`. With workers: FILE-stem.0.pcap, .1.pcap ...; "
    "who replaces a dead one takes the next free name, like .1-2.pcap.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that share the --listen port, one a core. All of a call leg meets in one; a dead one is replaced.",
)
@click.option("--transport", type=click.Choice(["auto", "recvmmsg", "portable"]), default="auto", show_default=True)
@click.option(
    "--receive-buffer",
    type=click.IntRange(1 << 12, 1 << 30),
    default=128 << 20,
    show_default=True,
    metavar="BYTES",
    help="Socket buffer to ask the kernel for.",
)
@drain_option()
@click.option("--metrics", metavar="ADDR:PORT", help="Serve figures for Prometheus at http://ADDR:PORT/metrics.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on stdout.")
def capture(**options: Any) -> None:
    """Receive forked media until interrupted; write WAV files and summary.json to --out."""
    if options["listen"] is None and options["rx"] is None and options["tx"] is None:
        options["listen"] = "0.0.0.0:9000"
    # the thread that writes files gives the interpreter back sooner when datagrams wait (default: 5 ms)
    sys.setswitchinterval(0.0005)
    gc.freeze()  # what has been imported stays: not to be looked through again each time
    hide_key()
    output = Output.take_from(options)
    output.warm_up()
    source = source_arguments(options)
    with _locked(options["out"]):
        sys.exit(run_async(lambda: run_capture(output=output, source=source, **options)))


def _locked(out: Path | None) -> contextlib.AbstractContextManager[object]:
    """The directory as ours alone. Raises ConfigurationError."""
    if out is None:
        return contextlib.nullcontext()
    check_writable(out)
    return DirectoryLock(out, "capture")


async def run_capture(
    *,
    listen: str | None,
    rx: str | None,
    tx: str | None,
    out: Path | None,
    duration: float | None,
    output: Output,
    source: dict[str, Any],
    pcap: Path | None,
    transport: str,
    receive_buffer: int,
    drain_s: float,
    as_json: bool,
    workers: int = 1,
    metrics: str | None = None,
) -> int:
    """Everything that the command does; returns the exit code. ``source``: see :func:`source_arguments`."""
    err = console()
    if workers > 1 and (problem := _why_alone(listen, output.layout)):
        err.print(f"[yellow]{problem}: one process does it all[/]", soft_wrap=True)
        workers = 1
    options: dict[str, Any] = {
        "rx": rx,
        "tx": tx,
        **source,
        "pcap": pcap,
        "transport": transport,
        "receive_buffer": receive_buffer,
        "drain_s": drain_s,
        "redact": output.redact,
    }
    writer = EventWriter() if as_json else None
    receiver: Receiver | Supervisor
    meter: LevelMeter | None = None
    if workers > 1:
        if out is not None:
            check_writable(out)
        made = WorkerSinks(out, output, as_json)
        receiver = Supervisor(listen, workers=workers, sinks=made, **options)
        if writer is not None:
            receiver.on_event = writer
    else:
        if out is not None:
            check_writable(out)
        sinks = output.sinks(out)
        every = [one for sink in sinks for one in (sink.sinks if isinstance(sink, MutedSink) else [sink])]
        meter = next((sink for sink in every if isinstance(sink, LevelMeter)), None)
        if meter is None and err.is_terminal:
            meter = LevelMeter()
            sinks.append(meter)
        if writer is not None:
            sinks.append(EventSink(writer))
        receiver = Receiver(listen, sinks=sinks, **options)
    stop = stop_on_signals()
    await receiver.start()
    server: HttpServer | None = None
    telling = None if writer is None else asyncio.create_task(tell_incidents(receiver, writer))
    try:
        _announce(err, receiver, as_json)
        if metrics is not None:
            server = _metrics_server(metrics, receiver)
            await server.start()
            err.print(f"metrics at http://{server.address}/metrics", soft_wrap=True)
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(duration):
                await _show_until(stop, err, receiver, meter)
    finally:
        if server is not None:
            await server.stop()
        await receiver.stop()
        if writer is not None and telling is not None:
            await asyncio.wait([telling], timeout=1.0)
            writer.close()
    summary = receiver.summary()
    lost = summary["lost"] = losses(receiver.totals(), summary["sinks"])
    kept = out is None
    if out is not None and (path := keep_summary(err, out, summary)) is not None:
        kept = True
        err.print(f"wrote {path} and {sum(len(s['files']) for s in summary['streams'])} files", soft_wrap=True)
    if as_json:
        emit({"event": "summary", **summary})
    err.print(totals_line(receiver.totals(), 0), soft_wrap=True)
    for report in summary["sinks"]:
        if report.get("failed"):
            err.print(f"[red]{report['kind']}: {report['failed']}[/]", soft_wrap=True)
    for sentence in lost:
        err.print(f"[red]lost: {sentence}[/]", soft_wrap=True)
    unread = receiver.totals().dropped_by.get("unread")
    return EXIT_SINK if unread or not kept or sink_failed(summary["sinks"]) else 0


def _metrics_server(address: str, receiver: Receiver | Supervisor) -> HttpServer:
    """Raises ConfigurationError, BindError, MissingExtraError."""
    from ..metrics import collector, metrics_app

    host, port = http_address("--metrics", address)
    return HttpServer(metrics_app(collector(receiver)), host, port, extra="metrics")


def _why_alone(listen: str | None, layout: str) -> str | None:
    """Why there cannot be several workers; None: there can."""
    if layout == "session":
        return "the call legs of a session are written into one file"
    if listen is None:
        return "the rx and tx ports carry one call leg, which one process receives"
    return steering_problem()


def _announce(err: Console, receiver: Receiver | Supervisor, as_json: bool) -> None:
    sockets = receiver.sockets
    workers = {"workers": len(receiver.workers)} if isinstance(receiver, Supervisor) else {}
    if as_json:
        listening = [{"address": s.address, "role": s.role} for s in sockets]
        emit({"event": "listening", "sockets": listening, **workers})
    each = f" for each of {workers['workers']} workers" if workers else ""
    for s in sockets:
        err.print(
            f"listening on udp:{s.address} ({s.role}, {s.transport}, buffer {s.granted_buffer >> 20} MiB{each})",
            soft_wrap=True,
        )
        if s.granted_buffer < min(_SMALL_BUFFER, s.requested_buffer):
            err.print(
                f"[yellow]the receive buffer is small ({s.granted_buffer >> 10} KiB): bursts may be lost; "
                "raise it with: sysctl -w net.core.rmem_max=67108864[/]",
                soft_wrap=True,
            )


async def _show_until(
    stop: asyncio.Event, err: Console, receiver: Receiver | Supervisor, meter: LevelMeter | None
) -> None:
    """Wait for the end; on a terminal with a table that is refreshed a few times a second."""
    if not err.is_terminal:
        await stop.wait()
        return
    began, last, last_at = time.monotonic(), 0, time.monotonic()
    with Live(console=err, auto_refresh=False, transient=True) as live:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _REFRESH_S)
            totals, now = receiver.totals(), time.monotonic()
            speed = (totals.datagrams - last) / max(now - last_at, 1e-3)
            last, last_at = totals.datagrams, now
            # only the streams that fit are looked at: thousands cost no more
            top = receiver.top(max(3, err.height - 6))
            head = Text(f"{now - began:6.1f} s  {speed:,.0f} datagrams/s  {totals_line(totals, receiver.live_streams)}")
            live.update(Group(head, stream_table(top, meter=meter)), refresh=True)
