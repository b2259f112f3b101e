"""strep calls, show and catalogue: find what was recorded."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .._model.exceptions import ConfigurationError
from .running import console

if TYPE_CHECKING:
    from ..catalogue import Catalogue

__all__ = ["CATALOGUE_FILE", "calls", "catalogue", "open_catalogue", "show"]

CATALOGUE_FILE: Final = "catalogue.sqlite"  # beside the recordings
_WIDTH: Final = 140

_where = click.option(
    "--catalogue", "where", metavar="DIR|FILE|URL", envvar="STREP_CATALOGUE", default="calls", show_default=True,
    help="Recordings whose catalogue is meant, a SQLite file, or postgresql://USER@HOST/DATABASE. STREP_CATALOGUE says "
    "it once for all.",
)  # fmt: skip
_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


def open_catalogue(where: str, *, make: bool = False) -> Catalogue:
    """The catalogue at a directory of recordings, in a file, or at an url. Raises ConfigurationError if there is none,
    unless it is to be made."""
    from ..catalogue import Catalogue

    if "://" not in where:
        path = Path(where)
        path = path / CATALOGUE_FILE if path.is_dir() else path
        if not make and not path.exists():
            raise ConfigurationError(f"--catalogue {where}: there is none; `strep catalogue rebuild DIR` makes it")
        where = str(path)
    return Catalogue(where)


@click.command()
@_where
@click.option("--from", "from_number", metavar="NUMBER", help="Who calls; +1555* for all that begin so.")
@click.option("--to", "to_number", metavar="NUMBER", help="Who is called.")
@click.option("--since", metavar="TIME", help='Began then or later: "yesterday 15:00", "2h" (ago), "2026-11-29".')
@click.option("--until", metavar="TIME", help="Began before.")
@click.option("--outcome", metavar="WORD", help="live, recorded, recovered, no_media, no_file, failed.")
@click.option("--mos-below", type=float, metavar="MOS", help="Its worst ten seconds were below.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="It has this tag (repeat).")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="The latest N.")
@_as_json
def calls(where: str, tags: tuple[str, ...], as_json: bool, since: str | None, until: str | None, **words: Any) -> None:
    """Find recorded calls, and those that live; the latest first."""
    from ..catalogue import CallQuery, moment

    now = datetime.now().astimezone()
    query = CallQuery(
        since_ns=None if since is None else moment(since, now),
        until_ns=None if until is None else moment(until, now),
        tags=dict(map(_tag, tags)),
        **words,
    )
    with open_catalogue(where) as opened:
        found = opened.find(query)
    if as_json:
        for call in found:
            click.echo(json.dumps(call))
        return
    from rich.table import Table

    table = Table("began", "from", "to", "leg", "seconds", "lost", "MOS", "outcome", "call leg", box=None)
    for call in found:
        for leg in call["legs"]:
            table.add_row(
                _clock(leg["began_ns"] or call["began_ns"]), leg["from_number"] or "", leg["to_number"] or "",
                leg["leg"] or "", f"{leg['duration_s'] or 0:.1f}", str(leg["packets_lost"] or 0),
                "" if leg["mos_min"] is None else f"{leg['mos_min']:.2f}", leg["outcome"], leg["call_leg_id"],
            )  # fmt: skip
    out = console(stderr=False)
    out.width = max(out.width, _WIDTH)  # rather than cut ids, which are there to be copied
    out.print(table)
    if len(found) == query.limit:
        out.print(f"the latest {query.limit} calls; --limit shows more")


@click.command()
@click.argument("call")
@_where
@_as_json
def show(call: str, where: str, as_json: bool) -> None:
    """Show all that is known of CALL: its id, or the call_leg_id or call_control_id of one of its legs."""
    with open_catalogue(where) as opened:
        found = opened.show(call)
    if found is None:
        raise click.ClickException(f"there is no call {call} in {where}")
    if as_json:
        click.echo(json.dumps(found))
        return
    out = console(stderr=False)
    tags = " ".join(f"{key}={value}" for key, value in found["tags"].items())
    out.print(f"call {found['call']}  {found['from_number'] or '?'} → {found['to_number'] or '?'}  {tags}".rstrip())
    for leg in found["legs"]:
        heading = f"leg {leg['leg'] or ''} {leg['call_leg_id']}: {leg['outcome']}, {leg['duration_s'] or 0:.1f} s"
        out.print(heading + (f", {leg['error']}" if leg["error"] else ""), soft_wrap=True)
        for recording in leg["recordings"]:
            out.print(f"  {recording['machine']}:{recording['file']}", soft_wrap=True)
            for stream in recording["streams"]:
                mos = "" if stream["mos"] is None else f", MOS {stream['mos']:.2f}"
                out.print(
                    f"    {stream['direction']} {stream['codec']} from {_clock(stream['began_ns'])}, "
                    f"{stream['duration_s'] or 0:.2f} s, {stream['packets_lost'] or 0} of "
                    f"{stream['packets_received'] or 0} packets lost{mos}",
                    soft_wrap=True,
                )
            for file in recording["files"]:
                out.print(f"    {file['path']}" + (f" is at {file['place']}" if file["place"] else ""), soft_wrap=True)
            for event in recording["events"]:
                when = _clock(event["time_ns"]) if event["time_ns"] else f"{event['position_s'] or 0:.2f} s"
                out.print(f"    {when} {event['kind']} {json.dumps(event['data'])}", soft_wrap=True)


@click.group()
def catalogue() -> None:
    """Look after the catalogue of recordings."""


@catalogue.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--catalogue", "where", metavar="FILE|URL", envvar="STREP_CATALOGUE", help="Default: in DIRECTORY.")
def rebuild(directory: Path, where: str | None) -> None:
    """Make it anew of the leg.json files below DIRECTORY. Tags stay."""
    from ..catalogue import rebuild as made_anew

    with open_catalogue(where or str(directory), make=True) as opened:
        done = made_anew(opened, directory)
        click.echo(f"{done.legs} legs, {done.failed} files left out → {opened.url}")


@catalogue.command()
@click.argument("call")
@click.argument("tags", nargs=-1, required=True, metavar="KEY=VALUE...")
@_where
def tag(call: str, tags: tuple[str, ...], where: str) -> None:
    """Give CALL tags; KEY= takes one away."""
    values = {key: value or None for key, value in map(_tag, tags)}
    with open_catalogue(where) as opened:
        if not opened.tag(call, values):
            raise click.ClickException(f"there is no call {call} in {where}")


def _tag(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise ConfigurationError(f"tag {text!r}: give KEY=VALUE")
    return key, value


def _clock(time_ns: int | None) -> str:
    return "" if time_ns is None else datetime.fromtimestamp(time_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")
