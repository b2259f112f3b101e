"""strep bench: what this machine carries."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Final

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from .options import EXIT_WRONG, console

__all__ = ["bench"]

_WIDE: Final = 130


@click.command()
@click.option("--streams", type=click.IntRange(1, 20_000), default=4000, show_default=True, metavar="N")
@click.option(
    "--rate",
    type=click.FloatRange(1),
    default=250_000.0,
    show_default=True,
    metavar="R",
    help="Packets a second, of all streams together.",
)
@click.option("--duration", type=click.FloatRange(min=0.1), default=10.0, show_default=True, metavar="S")
@click.option("--trials", type=click.IntRange(1), default=3, show_default=True, metavar="N")
@click.option(
    "--out",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Where the measured WAVs go until the end (default: the temporary directory); "
    "320 bytes a packet, for each trial.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write everything measured.",
)
def bench(streams: int, rate: float, duration: float, trials: int, out: Path | None, json_file: Path | None) -> None:
    """Measure what one core carries, beside the C program that only receives and discards; check every sample.

    The receiver runs on one core, the generator on another.
    """
    from ..bench import machine, measure_capacity

    err = console()
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=None)
        capacity = measure_capacity(
            streams=streams, rate=rate, duration_s=duration, trials=trials, directory=out,
            progress=lambda receiver, n: progress.update(task, description=f"{receiver} {n + 1}/{trials}"),
        )  # fmt: skip
    here = machine()
    title = f"{streams:,} streams, {rate:,.0f} packets/s, {duration:g} s; median (range) of {trials}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("receiver", "lost", "missing", "wrong", "CPU µs/packet", "x floor", "% of a core", "MiB", "finish s"):
        table.add_column(name, justify="left" if name == "receiver" else "right")
    for name, trial in capacity.trials.items():
        table.add_row(
            name,
            str(sum(t.sent - t.datagrams + t.lost for t in trial)),
            str(sum(t.missing for t in trial)),
            str(sum(t.wrong for t in trial)),
            _spread([t.cpu_us for t in trial]),
            _spread(capacity.ratios(name)),
            f"{median(t.cpu_us * t.sent / duration for t in trial) / 1e4:.0f}",
            f"{median(t.memory_mib for t in trial):.0f}",
            f"{median(t.finish_s for t in trial):.2f}",
        )
    out_console = console(stderr=False)
    if not out_console.is_terminal:
        out_console.width = _WIDE
    out_console.print(table)
    out_console.print(
        f"{here.processor}, {here.cores} cores, {here.memory_gib:g} GiB; {here.system}; Python {here.python}, "
        f"numpy {here.numpy}, strep {here.strep}",
        soft_wrap=True,
    )
    if "floor" not in capacity.trials:
        err.print("[yellow]no C compiler: no floor to compare with (apt install gcc)[/]")
    every = [t for group in capacity.trials.values() for t in group]
    if any(t.generator_was_the_limit for t in every):
        err.print("[yellow]the generator was the limit in some trials: ask for a lower --rate[/]")
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": asdict(here), "capacity": capacity.as_dict()}, indent=1) + "\n")
    sys.exit(0 if all(t.exact for t in every) else EXIT_WRONG)


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else f"{values[0]:.2f}"
