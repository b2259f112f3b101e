"""strep bench: what this machine carries."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from .._receiver.settings import TRANSPORTS
from .exit_codes import EXIT_WRONG
from .running import console

if TYPE_CHECKING:
    from ..bench._outcome import Outcome

__all__ = ["bench"]

_FILE_COLUMNS: Final = 160  # columns of text, when stdout is no terminal


@click.command()
@click.argument("workloads", nargs=-1, metavar="[WORKLOAD]...")
@click.option("--quick", is_flag=True, help="Fewer and shorter runs: a first look, not a figure to quote.")
@click.option("--runs", type=click.IntRange(1), metavar="N", help="Runs of each measurement (default: the workload's).")
@click.option(
    "--streams",
    type=click.IntRange(1, 20_000),
    default=4000,
    show_default=True,
    metavar="N",
    help="Streams (workload ratio only).",
)
@click.option(
    "--rate",
    type=click.FloatRange(1),
    default=250_000.0,
    show_default=True,
    metavar="R",
    help="Packets a second of all streams together (workload ratio only).",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds (workload ratio only).",
)
@click.option(
    "--transport",
    type=click.Choice(TRANSPORTS),
    default="auto",
    show_default=True,
    help="How strep reads (workload ratio only; what decodes into arrays reads as auto does).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    metavar="DIR",
    help="Directory for temporary files (default: the working one). More than once: what writes is measured on each.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write everything measured.",
)
@click.option("--list", "list_only", is_flag=True, help="Say what the workloads are.")
def bench(
    workloads: tuple[str, ...],
    quick: bool,
    runs: int | None,
    streams: int,
    rate: float,
    duration: float,
    transport: str,
    out: tuple[Path, ...],
    json_file: Path | None,
    list_only: bool,
) -> None:
    """Measure what this machine carries, and check every answer. Without a WORKLOAD: all of them.

    The receiver runs on one core, the generator on another.
    """
    from ..bench import WORKLOADS, WRITING, Settings, machine, run_workload

    if list_only:
        for name, (text, _) in WORKLOADS.items():
            click.echo(f"{name:12} {text}")
        return
    if unknown := [name for name in workloads if name not in WORKLOADS]:
        raise click.UsageError(f"no workload {unknown[0]!r}: choose from {', '.join(WORKLOADS)}")
    err = console()
    here = machine()
    outcomes = []
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=None)
        for name, place in _measurements(workloads or tuple(WORKLOADS), out, WRITING):
            settings = Settings(
                quick=quick, runs=runs, directory=place, streams=streams, rate=rate, duration_s=duration,
                transport=transport,
                progress=lambda text, name=name: progress.update(task, description=f"{name}: {text}"),  # type: ignore[misc]
            )  # fmt: skip
            outcome = run_workload(name, settings)
            outcomes.append(outcome)
            _show(outcome)
            if json_file is not None:  # as far as it has come: a workload takes minutes
                json_file.write_text(json.dumps(_report(asdict(here), outcomes), indent=1) + "\n")
    console(stderr=False).print(
        f"{here.processor}, {here.cores} cores, {here.memory_gib:g} GiB; {here.system}; Python {here.python}, "
        f"numpy {here.numpy}, strep {here.strep}",
        soft_wrap=True,
    )
    sys.exit(EXIT_WRONG if any(o.wrong for o in outcomes) else 0)


def _measurements(
    workloads: tuple[str, ...], places: tuple[Path, ...], writing: tuple[str, ...]
) -> Iterator[tuple[str, Path | None]]:
    """Each workload and where its files go; what writes none is measured once, wherever."""
    for workload in workloads:
        for place in (places if workload in writing else places[:1]) or (None,):
            yield workload, place


def _report(here: dict[str, Any], outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "machine": here,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": " ".join(["strep", *sys.argv[1:]]),
        "outcomes": [outcome.as_dict() for outcome in outcomes],
    }


def _show(outcome: Outcome) -> None:
    table = Table(
        title=f"{outcome.workload}: {outcome.title}",
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for number, name in enumerate(outcome.columns):
        words = bool(outcome.rows) and isinstance(outcome.rows[0][number], str)
        table.add_column(name, justify="left" if words else "right")
    for row in outcome.rows:
        table.add_row(*(_cell(cell) for cell in row))
    out = console(stderr=False, file_columns=_FILE_COLUMNS)
    out.print(table)
    for note in outcome.notes:
        out.print(f"  {note}", soft_wrap=True)
    for wrong in outcome.wrong:
        out.print(f"  wrong: {wrong}", style="red", soft_wrap=True)
    out.print()


def _cell(cell: Any) -> str:
    from ..bench._outcome import Spread

    if cell is None:
        return ""
    if isinstance(cell, Spread):
        if cell.runs == 1:
            return _number(cell.median)
        return f"{_number(cell.median)} ({_number(cell.low)}–{_number(cell.high)})"
    return cell if isinstance(cell, str) else _number(cell)


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 100 else f"{value:.2f}"
