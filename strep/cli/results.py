"""What a command leaves behind: a directory that it can write, a summary, and whether audio is missing."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from rich.console import Console

from .._model.exceptions import ConfigurationError
from .._receiver.summary import write_summary
from .lock import DirectoryLock

__all__ = ["check_writable", "keep_summary", "locked", "sink_failed", "undecodable", "wrote"]


def check_writable(out: Path) -> None:
    """Raises ConfigurationError for a directory that cannot be made or written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".strep-writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(f"--out {out}: {error.strerror}; choose a directory that can be written") from error


def locked(out: Path | None, command: str = "capture") -> contextlib.AbstractContextManager[object]:
    """The directory as ours alone. Raises ConfigurationError."""
    if out is None:
        return contextlib.nullcontext()
    check_writable(out)
    return DirectoryLock(out, command)


def keep_summary(err: Console, out: Path, summary: dict[str, Any]) -> Path | None:
    """Write summary.json and return its path. If it cannot be written, say so and return None: a full disk is no reason
    to be silent about everything else."""
    try:
        return write_summary(out, summary)
    except OSError as error:
        err.print(f"summary.json cannot be written: {error}", style="red", soft_wrap=True)
        return None


def wrote(path: Path, summary: dict[str, Any]) -> str:
    """What is there now: a file may hold several streams."""
    count = len({name for stream in summary["streams"] for name in stream["files"]})
    return f"wrote {path} and {count} file{'' if count == 1 else 's'}"


def undecodable(summary: dict[str, Any]) -> str | None:
    """What to say when packets came and no audio could be made of any; None: there is some, or there were no
    packets."""
    streams = summary["streams"]
    packets = sum(stream["undecoded"] for stream in streams)
    if not packets or any(stream["files"] or stream["samples"] > stream["gap_samples"] for stream in streams):
        return None
    why = (
        "they look encrypted (SRTP): have them sent decrypted"
        if any(stream["encrypted"] for stream in streams)
        else "say what it is with --pt, like --pt 96=opus/48000/2, and install the extra that decodes it"
    )
    return f"none of {packets:,} packets could be decoded, so there is no audio of them: {why}"


def sink_failed(reports: list[dict[str, Any]]) -> bool:
    """Whether data was lost on the way into a sink."""
    lost = ("dropped_frames", "dropped_datagrams", "refused_streams")
    return any(r.get("failed") or any(r.get(key) for key in lost) for r in reports)
