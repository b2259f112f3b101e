"""strep plot: pictures of recorded calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..plot.plot import plot_directory
from .running import console

__all__ = ["plot"]


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where pictures go (default: beside each call leg's files).",
)
@click.option("--format", "format_", type=click.Choice(["png", "svg", "pdf"]), default="png", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The files written, as JSON on stdout.")
def plot(directory: Path, out: Path | None, format_: Literal["png", "svg", "pdf"], as_json: bool) -> None:
    """Draw each call leg of a capture DIR: waveforms, spectrograms, losses, talk, keys, MOS. Needs the extra "plot"."""
    err = console()
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as progress:
        task = progress.add_task("call legs", total=None)
        written = plot_directory(
            directory,
            out,
            format=format_,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        click.echo(json.dumps([str(path) for path in written]))
        return
    for path in written:
        click.echo(str(path))
    if not written:
        err.print(f"{directory} has no audio and no figures to draw", soft_wrap=True)
