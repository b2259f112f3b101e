"""strep replay and strep inspect: recorded datagrams."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from .._receiver.replay import Replay, replay_with
from .._receiver.settings import Settings
from ..sinks.base import Sink
from .captures import tell_capture
from .events import EventSink, emit, events_lost
from .exit_codes import EXIT_SINK
from .options import leg_options, port_options, settings_of, stream_options, values_of
from .output import Output, output_options
from .results import check_writable, keep_summary, sink_failed, undecodable, wrote
from .running import console
from .tables import stream_table, totals_line

__all__ = ["inspect", "replay"]

_WAY: Final = "strep replay"
_FILE_COLUMNS: Final = 160  # columns of text, when stdout is no terminal


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR")
@port_options(_WAY)
@output_options
@leg_options(_WAY)
@stream_options(_WAY)
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on stdout.")
def replay(file: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Run a capture FILE through the receiver, as fast as it goes; write WAV files and summary.json to --out.

    FILE is pcap, pcapng, rtpdump or Janus' mjr, as it is or compressed (gzip, zstd, lz4); - is standard input."""
    output = values_of(Output, options)
    settings = settings_of(_WAY, options)
    check_writable(out)
    sinks = output.sinks(out)
    if as_json:
        sinks.append(EventSink())
    result = _run(file, sinks, settings)
    summary = result.summary()
    err = console()
    path = keep_summary(err, out, summary)
    if as_json:
        emit({"event": "summary", **summary})
    if path is not None:
        err.print(wrote(path, summary), soft_wrap=True)
    err.print(totals_line(result.totals(), 0), soft_wrap=True)
    tell_capture(err, result.capture)
    if sink_failed(summary["sinks"]):
        err.print(str(summary["sinks"]), style="red", soft_wrap=True)
    nothing = undecodable(summary)
    if nothing is not None:
        err.print(nothing, style="red", soft_wrap=True)
    if path is None or nothing or events_lost() or sink_failed(summary["sinks"]):
        sys.exit(EXIT_SINK)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@port_options(_WAY)
@leg_options(_WAY)
@stream_options(_WAY)
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON on stdout.")
def inspect(file: Path, as_json: bool, **options: Any) -> None:
    """Show the streams in a capture FILE with loss and jitter. Writes nothing.

    FILE is pcap, pcapng, rtpdump or Janus' mjr, as it is or compressed (gzip, zstd, lz4); - is standard input."""
    result = _run(file, [], settings_of(_WAY, options))
    if as_json:
        click.echo(json.dumps(result.summary()))
        return
    out = console(stderr=False, file_columns=_FILE_COLUMNS)
    out.print(stream_table(result.reports()))
    out.print(totals_line(result.totals(), 0), soft_wrap=True)
    tell_capture(console(), result.capture)


def _run(file: Path, sinks: list[Sink], settings: Settings) -> Replay:
    err = console()
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as progress:
        task = progress.add_task(file.name, total=None)
        return replay_with(
            settings,
            file,
            sinks=sinks,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
