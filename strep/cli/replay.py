"""strep replay and strep inspect: recorded datagrams."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from .._receiver.replay import Replay
from .._receiver.replay import replay as run_replay
from ..sinks import Sink
from .events import EventSink, emit
from .options import (
    EXIT_SINK,
    check_writable,
    console,
    keep_summary,
    leg_options,
    sink_failed,
    source_arguments,
    source_options,
)
from .output import Output, output_options
from .tables import stream_table, totals_line

__all__ = ["inspect", "replay"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR")
@click.option("--rx", metavar="PORT", help="Plain RTP to this port is what the platform received (inbound).")
@click.option("--tx", metavar="PORT", help="Plain RTP to this port is what it transmitted (outbound).")
@output_options
@leg_options
@source_options
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on stdout.")
def replay(file: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Run a capture FILE through the receiver, as fast as it goes; write WAV files and summary.json to --out.

    FILE is pcap, pcapng, rtpdump or Janus' mjr, as it is or compressed (gzip, zstd, lz4); - is standard input."""
    output = Output.take_from(options)
    source = source_arguments(options)
    check_writable(out)
    sinks = output.sinks(out)
    if as_json:
        sinks.append(EventSink())
    result = _run(file, sinks, **options, **source, redact=output.redact)
    summary = result.summary()
    err = console()
    path = keep_summary(err, out, summary)
    if as_json:
        emit({"event": "summary", **summary})
    if path is not None:
        err.print(f"wrote {path} and {sum(len(s['files']) for s in summary['streams'])} files", soft_wrap=True)
    err.print(totals_line(result.totals(), 0), soft_wrap=True)
    _tell_capture(err, result)
    if sink_failed(summary["sinks"]):
        err.print(f"[red]{summary['sinks']}[/]", soft_wrap=True)
    if path is None or sink_failed(summary["sinks"]):
        sys.exit(EXIT_SINK)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--rx", metavar="PORT", help="Plain RTP to this port is what the platform received (inbound).")
@click.option("--tx", metavar="PORT", help="Plain RTP to this port is what it transmitted (outbound).")
@leg_options
@source_options
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON on stdout.")
def inspect(file: Path, as_json: bool, **options: Any) -> None:
    """Show the streams in a capture FILE with loss and jitter. Writes nothing.

    FILE is pcap, pcapng, rtpdump or Janus' mjr, as it is or compressed (gzip, zstd, lz4); - is standard input."""
    source = source_arguments(options)
    result = _run(file, [], **options, **source)
    if as_json:
        click.echo(json.dumps(result.summary()))
        return
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    out.print(stream_table(result.reports()))
    out.print(totals_line(result.totals(), 0), soft_wrap=True)
    _tell_capture(console(), result)


_MOST_NAMES: Final = 8  # of what is told of a file, in a line
_DAMAGE: Final = {
    "truncated_file": "the file ends inside a record: it was read up to there",
    "truncated_compression": "the compressed file is cut: it was read up to there",
    "damaged_compression": "the compressed file is damaged: it was read up to there",
    "bad_record": "the file has a record that cannot be one: it was read up to there",
    "bad_block": "the file has blocks that cannot be ones",
}
_ODD: Final = {
    "cut": "datagrams were not captured whole: they count for loss and jitter, but have no audio",
    "sorted": "datagrams stood behind later ones: they were put in order of time",
    "retimed": "datagrams had times out of line, or of a clock that was set: they were given times that go on",
    "untimed": "datagrams have no times in the file: no jitter can be told",
}


def _tell_capture(err: Console, result: Replay) -> None:
    """What a person should know of the file, a line each."""
    capture = result.capture
    left_out = {cause: count for cause, count in capture["skipped"].items() if cause not in _DAMAGE}
    if left_out:
        share = f"{sum(left_out.values()):,} of {capture['frames']:,} frames left out"
        err.print(f"{share}: {_counts(left_out)}", soft_wrap=True, markup=False)
    if capture["encapsulated"]:
        err.print(f"looked into {_counts(capture['encapsulated'])}", soft_wrap=True, markup=False)
    lines = [text for cause, text in _DAMAGE.items() if cause in capture["skipped"]]
    lines += [f"{capture[name]:,} {text}" for name, text in _ODD.items() if capture[name]]
    for line in lines:
        err.print(line, soft_wrap=True, markup=False, style="yellow")


def _counts(counts: Mapping[str, int]) -> str:
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count:,} {name}" for name, count in most[:_MOST_NAMES]]
    return ", ".join(told) + (f" and {len(most) - _MOST_NAMES} more kinds" if len(most) > _MOST_NAMES else "")


def _run(file: Path, sinks: list[Sink], **arguments: Any) -> Replay:
    """The rest are :func:`strep.replay`'s."""
    err = console()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as progress:
        task = progress.add_task(file.name, total=None)
        return run_replay(
            file,
            sinks=sinks,
            **arguments,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
