"""What a command leaves behind: a directory that it can write, a summary, and whether audio is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from .._model.exceptions import ConfigurationError
from .._receiver.summary import write_summary

__all__ = ["check_writable", "keep_summary", "sink_failed"]


def check_writable(out: Path) -> None:
    """Raises ConfigurationError for a directory that cannot be made or written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".strep-writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(f"--out {out}: {error.strerror}; choose a directory that can be written") from error


def keep_summary(err: Console, out: Path, summary: dict[str, Any]) -> Path | None:
    """Write summary.json and return its path. If it cannot be written, say so and return None: a full disk is no reason
    to be silent about everything else."""
    try:
        return write_summary(out, summary)
    except OSError as error:
        err.print(f"[red]summary.json cannot be written: {error}[/]", soft_wrap=True)
        return None


def sink_failed(reports: list[dict[str, Any]]) -> bool:
    """Whether data was lost on the way into a sink."""
    lost = ("dropped_frames", "dropped_datagrams", "refused_streams")
    return any(r.get("failed") or any(r.get(key) for key in lost) for r in reports)
