"""Tables of streams for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from .._model.report import StreamReport, Totals
from ..sinks import LevelMeter

__all__ = ["stream_table", "totals_line"]


def stream_table(
    reports: Sequence[StreamReport], *, meter: LevelMeter | None = None, title: str | None = None
) -> Table:
    """A row per stream."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("stream", overflow="ellipsis", no_wrap=True, min_width=24)
    table.add_column("leg")
    for name in ("codec", "seconds", "packets", "lost", "dup", "reord", "late", "jitter ms"):
        table.add_column(name, justify="left" if name == "codec" else "right")
    if meter is not None:
        table.add_column("level dBFS", justify="right")
    for report in reports:
        info = report.stream
        share = 100 * report.packets_lost / report.packets_expected if report.packets_expected else 0.0
        lost = f"{report.packets_lost} ({share:.1f}%)" if report.packets_lost else "0"
        row = [
            info.name,
            f"{info.leg.label} {info.direction.label}",
            str(info.codec) if info.codec else f"PT {info.payload_type}?",
            f"{report.duration_s:.1f}",
            str(report.packets_received),
            f"[yellow]{lost}[/]" if report.packets_lost else lost,
            str(report.duplicates),
            str(report.reordered),
            f"[yellow]{report.late}[/]" if report.late else "0",
            f"{report.jitter_ms_mean:.2f}" if report.timed else "?",
        ]
        if meter is not None:
            levels = meter.snapshot(info)
            row.append(_bar(levels.last_rms_dbfs) if levels else "")
        table.add_row(*row)
    return table


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
