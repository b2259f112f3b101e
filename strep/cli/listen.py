"""strep listen: streams that other machines publish."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from ..remote import Receiver
from .events import EventSink, EventWriter, emit, events_lost, write_incidents
from .exit_codes import EXIT_SINK
from .options import recording_options, values_of
from .output import Output, output_options
from .results import keep_summary, locked, sink_failed, wrote
from .running import console, favor_receiving, run_async, stop_on_signals

__all__ = ["listen"]

_LAST_INCIDENTS_S: Final = 1.0
_CLOSING_S: Final = 10.0


@dataclass(frozen=True)
class ListenOptions:
    """Options that only this command has."""

    nats: str
    group: str
    subject: str
    start: Any
    out: Path | None
    duration: float | None  # s
    as_json: bool


@click.command()
@click.option("--nats", required=True, metavar="URL", help="NATS server, like nats://127.0.0.1:4222.")
@click.option(
    "--group",
    default="listeners",
    show_default=True,
    metavar="NAME",
    help="Who share the call legs: each is heard by one of a group. Another group hears them all again.",
)
@click.option("--subject", default="strep", show_default=True, metavar="NAME", help="As --nats-subject of capture.")
@click.option(
    "--start",
    type=click.Choice(["stored", "now"]),
    default="stored",
    show_default=True,
    help="Where a new group begins: with what the server keeps, or with what comes.",
)
@recording_options
@output_options
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on stdout.")
def listen(**options: Any) -> None:
    """Record streams that other machines publish to NATS; write WAV files and summary.json to --out."""
    favor_receiving()
    own = values_of(ListenOptions, options)
    output = values_of(Output, {name: value for name, value in options.items() if name != "nats"})
    output.warm_up()
    with locked(own.out, "listen"):
        sys.exit(run_async(lambda: run_listen(output, own)))


async def run_listen(output: Output, own: ListenOptions) -> int:
    """Everything that the command does; returns the exit code."""
    err = console()
    writer = EventWriter() if own.as_json else None
    sinks = output.sinks(own.out)
    if writer is not None:
        sinks.append(EventSink(writer))
    receiver = Receiver(own.nats, own.group, subject=own.subject, sinks=sinks, start=own.start, redact=output.redact)
    stop = stop_on_signals()
    await receiver.start()
    incidents = None if writer is None else asyncio.create_task(write_incidents(receiver, writer))
    try:
        err.print(f"listening to {own.subject} as one of {own.group}", soft_wrap=True)
        if own.as_json:
            emit({"event": "listening", "subject": own.subject, "group": own.group, "member": receiver.member})
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(own.duration):
                await _tell_problems_until(stop, err, receiver)
    finally:
        await receiver.stop(_CLOSING_S)
        if writer is not None and incidents is not None:
            await asyncio.wait([incidents], timeout=_LAST_INCIDENTS_S)
            writer.close()
    return _conclude(err, receiver, own)


async def _tell_problems_until(stop: asyncio.Event, err: Console, receiver: Receiver) -> None:
    told: list[str] = []
    waiter = asyncio.create_task(stop.wait())
    try:
        while not waiter.done():
            await asyncio.wait([waiter], timeout=2.0)
            problems = receiver.problems()
            for problem in problems if problems != told else ():
                err.print(problem, style="yellow", soft_wrap=True)
            told = problems
    finally:
        waiter.cancel()


def _conclude(err: Console, receiver: Receiver, own: ListenOptions) -> int:
    """Write and print what was heard; returns the exit code."""
    summary = receiver.summary()
    kept = own.out is None
    if own.out is not None and (path := keep_summary(err, own.out, summary)) is not None:
        kept = True
        err.print(wrote(path, summary), soft_wrap=True)
    if own.as_json:
        emit({"event": "summary", **summary})
    totals, figures = receiver.totals(), receiver.figures()
    err.print(
        f"{totals.streams_started:,} streams, {totals.delivered:,} packets in {figures.messages:,} messages",
        soft_wrap=True,
    )
    if figures.lost_frames or figures.refused:
        refused = sum(figures.refused.values())
        err.print(
            f"lost: {figures.lost_frames:,} sample frames in {figures.lost:,} messages; {refused:,} messages refused",
            style="red",
            soft_wrap=True,
        )
    for report in summary["sinks"]:
        if report.get("failed"):
            err.print(f"{report['kind']}: {report['failed']}", style="red", soft_wrap=True)
    lost = not kept or events_lost() or sink_failed(summary["sinks"])
    return EXIT_SINK if lost or figures.lost_frames or figures.refused else 0
