"""strep report: a capture in one HTML file."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .running import console

__all__ = ["report"]


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--leg", "legs", multiple=True, metavar="NAME", help="Only this call leg (repeat).")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Default: report.html in DIR."
)
def report(directory: Path, legs: tuple[str, ...], out: Path | None) -> None:
    """Write a capture DIR as one HTML file: players, waveforms, spectrograms, losses, talk, keys, MOS. Needs the extra
    "plot"."""
    from ..plot.report import report_directory

    err, path = console(), out or directory / "report.html"
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("call legs", total=None)
        count = report_directory(
            directory,
            path,
            legs=frozenset(legs) or None,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    click.echo(f"{path}: {count} call leg{'s' * (count != 1)}")
