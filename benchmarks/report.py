"""The table of compare.py, from what it writes as JSON."""

from __future__ import annotations

from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

__all__ = ["print_table", "ratios", "reference_of"]

_MAX_COLUMNS: Final = 180  # of the terminal: the table is no wider
_LATE_MS: Final = 100  # a sender later than this catches up in a burst, which is not the load that was asked for
_REFERENCE: Final = {"record": "strep-wav", "order": "strep-monitor", "parse": "strep-monitor"}

Key = tuple[str, int]


def grouped(measured: dict[str, Any]) -> dict[Key, list[dict[str, Any]]]:
    """Trials by name and number of streams, in rounds."""
    groups: dict[Key, list[dict[str, Any]]] = {}
    for trial in measured["trials"]:
        groups.setdefault((trial["name"], trial["streams"]), []).append(trial)
    return groups


def reference_of(measured: dict[str, Any], key: Key, *, most: bool = False) -> Key | None:
    """The strep that does no less than this one, at as many streams (or, ``most``, at the most that were measured)."""
    name = _REFERENCE[measured["peers"][key[0]]["job"]]
    sizes = [streams for other, streams in grouped(measured) if other == name]
    if most:
        return (name, max(sizes)) if sizes else None
    return (name, key[1]) if key[1] in sizes else None


def ratios(measured: dict[str, Any], key: Key, reference: Key) -> list[float]:
    """CPU per packet over the reference's in the same round."""
    groups = grouped(measured)
    pairs = zip(groups[key], groups[reference], strict=True)
    return [ours["cpu_us"] / theirs["cpu_us"] for ours, theirs in pairs if theirs["cpu_us"]]


def print_table(measured: dict[str, Any]) -> None:
    title = f"20 ms PCMU, 50 packets/s a stream, {measured['duration_s']:g} s; median (range) of {measured['rounds']}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    columns = ["", "job", "streams", "CPU µs/packet", "CPU s/stream-hour", "x strep", "x strep at its most"]
    columns += ["of a core", "MiB", "missing", "tail", "wrong"]
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=True)
    for key, trials in grouped(measured).items():
        name, streams = key
        same, most = reference_of(measured, key), reference_of(measured, key, most=True)
        table.add_row(
            name,
            measured["peers"][name]["job"],
            f"{streams:,}",
            spread([t["cpu_us"] for t in trials]),
            f"{median(t['cpu_us'] for t in trials) * 50 * 3600 / 1e6:.2f}",
            spread(ratios(measured, key, same)) if same else "",
            spread(ratios(measured, key, most)) if most else "",
            f"{median(t['share'] for t in trials):.0%}" + (" !" if any(t["saturated"] for t in trials) else ""),
            f"{median(t['memory_mib'] for t in trials):.0f}",
            *(f"{sum(t['answer'][what] for t in trials):,}" for what in ("missing", "tail", "wrong")),
        )
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = _MAX_COLUMNS
    console.print(table)
    here = measured["machine"]
    console.print(f"{here['processor']}, {here['cores']} cores, {here['memory_gib']:g} GiB; {here['system']}")
    for name, peer in measured["peers"].items():
        console.print(f"  {name}: {peer['version']}", highlight=False)
    if any(t["saturated"] for t in measured["trials"]):
        console.print("! more than 95 % of the core taken: with more streams, or a slower machine, packets are lost")
    if any(t["generator_was_the_limit"] for t in measured["trials"]):
        console.print("the generator was the limit in some trials")
    late = [t for t in measured["trials"] if t["behind_ms_max"] > _LATE_MS]
    if late:
        most = max(t["behind_ms_max"] for t in late)
        console.print(
            f"the generator was late in {len(late)} trials, by up to {most:.0f} ms: what it caught up with came at once"
        )


def spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else f"{values[0]:.2f}"
