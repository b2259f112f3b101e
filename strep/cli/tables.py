"""Tables of streams for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from .._model.report import StreamReport, Totals
from ..sinks import LevelMeter

__all__ = ["stream_table", "totals_line"]

_COLUMNS: Final = ("codec", "seconds", "packets", "lost", "recovered", "dup", "reord", "late", "jitter ms")
_WHERE_ANY: Final = ("recovered",)  # few senders add copies (RFC 2198)
_WIDE_ONLY: Final = ("dup", "reord", "late")
_WIDE: Final = 120  # columns that all of it needs
_SHORTEST_NAME: Final = 9
_BETWEEN: Final = 2  # spaces
_SILENT_S: Final = 2.0  # after that a stream is shown as silent


def stream_table(
    reports: Sequence[StreamReport],
    *,
    meter: LevelMeter | None = None,
    found: Mapping[str, Sequence[str]] | None = None,
    title: str | None = None,
    columns: int | None = None,
    now_ns: int | None = None,
) -> Table:
    """A row per stream. columns: as wide as may be; where that is little, what matters less is left out (None: all is
    there). found: by heading, what else is known of each; as many of these as fit. now_ns: rows of streams from
    which nothing has come for a while are dim, and say so. What copies stood in for has a column where there is any."""
    wide = columns is None or columns >= _WIDE
    names = [name for name in _COLUMNS if wide or name not in _WIDE_ONLY]
    if not any(report.recovered for report in reports):
        names = [name for name in names if name not in _WHERE_ANY]
    heads = ["leg", *names, *([] if meter is None else ["level dBFS" if wide else "dBFS"])]
    rows: list[tuple[str, list[str | Text], bool]] = []
    for report in reports:
        info, cells = report.stream, _cells(report)
        silent_s = 0.0 if now_ns is None else (now_ns - report.last_arrival_ns) / 1e9
        silent = silent_s >= _SILENT_S
        row: list[str | Text] = [f"{info.leg.label} {info.direction.label if wide else info.direction.label[:3]}"]
        row += [cells[name] for name in names]
        if meter is not None:
            levels = meter.snapshot(info)
            level = "" if levels is None else _bar(levels.last_rms_dbfs) if wide else f"{levels.last_rms_dbfs:.0f}"
            row.append(f"{'silent ' if wide else '>'}{silent_s:.0f} s" if silent else level)
        rows.append((info.name, row, silent))
    widths = [max(map(len, column)) for column in zip(heads, *(row for _, row, _ in rows), strict=True)]
    for name, words in (found or {}).items():
        width = max(map(len, (name, *words)))
        taken = sum(widths) + width + _BETWEEN * (len(widths) + 1)
        if columns is not None and columns - taken < _SHORTEST_NAME:
            continue
        at = len(heads) - (meter is not None)
        heads.insert(at, name)
        widths.insert(at, width)
        for (_, row, _), word in zip(rows, words, strict=True):
            row.insert(at, word)
    room = None if columns is None else max(_SHORTEST_NAME, columns - sum(widths) - _BETWEEN * len(widths))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("stream", no_wrap=True, min_width=24 if room is None else None)
    for head, width in zip(heads, widths, strict=True):
        table.add_column(head, justify="left" if head in ("leg", "codec") else "right", no_wrap=True, min_width=width)
    for name, row, silent in rows:
        shown = name if room is None or len(name) <= room else f"{name[: room - 1]}…"  # only names are cut
        table.add_row(shown, *row, style="dim" if silent else None)
    return table


def _cells(report: StreamReport) -> dict[str, str | Text]:
    info = report.stream
    share = 100 * report.packets_lost / report.packets_expected if report.packets_expected else 0.0
    lost = f"{report.packets_lost} ({share:.1f}%)" if report.packets_lost else "0"
    return {
        "codec": str(info.codec) if info.codec else f"PT {info.payload_type}?",
        "seconds": f"{report.duration_s:.1f}",
        "packets": str(report.packets_received),
        "lost": Text(lost, style="yellow" if report.packets_lost else ""),
        "recovered": str(report.recovered),
        "dup": str(report.duplicates),
        "reord": str(report.reordered),
        "late": Text(str(report.late), style="yellow" if report.late else ""),
        "jitter ms": f"{report.jitter_ms_mean:.2f}" if report.timed else "?",
    }


def _bar(dbfs: float) -> str:
    if dbfs <= -99:
        return "silent"
    blocks = max(0, min(8, round((dbfs + 60) / 6)))
    return f"{'▮' * blocks}{'▯' * (8 - blocks)} {dbfs:6.1f}"


def totals_line(totals: Totals, live: int) -> str:
    """One line of what has come and what became of it."""
    parts = [
        f"{live} live streams, {totals.streams_started} in all",
        f"{totals.datagrams:,} datagrams",
        f"{totals.delivered:,} delivered",
    ]
    for name in (
        "duplicate",
        "late",
        "recovered",
        "malformed",
        "rejected",
        "dropped",
        "kernel_dropped",
        "after_end",
        "streams_refused",
    ):
        value = getattr(totals, name)
        if value:
            by = getattr(totals, f"{name}_by", {})
            causes = f" ({', '.join(f'{cause} {count:,}' for cause, count in by.items())})" if by else ""
            parts.append(f"{value:,} {name.replace('_', ' ')}{causes}")
    return " · ".join(parts)
