"""strep repair: WAV files that a killed process or a crashed machine has left."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import click

from .._model.exceptions import ConfigurationError
from ..sinks.wav.repair import mend_tree
from .exit_codes import EXIT_FILE
from .running import console

__all__ = ["repair"]


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--min-age",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Leave files alone that were written in the last S seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON line for each file on stdout.")
def repair(directory: Path, dry_run: bool, min_age: float, as_json: bool) -> None:
    """Mend WAV files of strep below DIR that were left unfinished: their headers, their names.

    All samples that are in a file stay. Files that a process is writing are left alone (they are locked, and
    --min-age), so are symlinks and whatever is not strep's. A file in which there is no sample is removed. Exit code 3:
    a file could not be mended.
    """
    if not hasattr(os, "fwalk"):
        raise ConfigurationError("strep repair needs a system with directory descriptors: run it on Linux or macOS")
    err = console()
    counts: Counter[str] = Counter()
    for found in mend_tree(directory, dry_run=dry_run, min_age_s=min_age):
        counts[found.did] += 1
        if as_json:
            click.echo(json.dumps({**found.as_dict(), "dry_run": dry_run}))
        elif found.did != "fine":
            click.echo(_line(found.file, found.did, found.name, found.frames, found.guessed, found.why))
    text = ", ".join(f"{count} {did}" for did, count in sorted(counts.items())) or "no WAV files"
    err.print(f"{'would be: ' if dry_run else ''}{text}", soft_wrap=True)
    if counts["failed"]:
        sys.exit(EXIT_FILE)


def _line(file: str, did: str, name: str, frames: int, guessed: bool, why: str) -> str:
    text = f"{did:<9} {file}"
    if name != file:
        text += f" -> {name}"
    if did in ("mended", "completed"):
        text += f" ({frames:,} frames{', format guessed' if guessed else ''})"
    return f"{text}: {why}" if why else text
