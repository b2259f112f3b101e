"""Files that are written completely or not at all, above all summary.json."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final

from .._model.report import Totals

__all__ = ["losses", "write_summary", "write_whole"]


def losses(totals: Totals, sinks: Iterable[Mapping[str, Any]]) -> list[str]:
    """What was received and is not in the results, a sentence each. Empty: nothing is missing."""
    found: list[str] = []
    if totals.kernel_dropped:
        found.append(f"{totals.kernel_dropped:,} datagrams were dropped by the kernel: the receive buffer was full")
    for cause, why in _CAUSES.items():
        if count := totals.dropped_by.get(cause):
            found.append(f"{count:,} {why}")
    for report in sinks:
        kind = report.get("kind")
        if count := report.get("dropped_frames"):
            why = ", ".join(report.get("errors") or ()) or "it was too slow, or failed"
            found.append(f"{count:,} sample frames are missing in what {kind} made: {why}")
        if count := report.get("dropped_datagrams"):
            found.append(f"{count:,} datagrams are missing in {kind}: the disk was too slow, or failed")
        if count := report.get("refused_streams"):
            found.append(f"{count:,} streams have no file from {kind}: no descriptors were left")
    return found


_CAUSES: Final = {
    "unread": "datagrams had come and were not read when the time was up: give more with --drain",
    "worker_died": "datagrams waited in workers that died",
    "fault": "packets were lost to faults that were contained: see the log",
}


def write_summary(directory: str | PathLike[str], summary: dict[str, Any]) -> Path:
    """Write ``DIR/summary.json``. Readers see either the old file or the new one, complete. Raises OSError."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "summary.json"
    write_whole(path, _text(summary))
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file. Readers see either the old file or the new one, complete. If it raises OSError, nothing is left."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def _text(summary: dict[str, Any]) -> str:
    """JSON that people can read too: a line for each stream. Not ``indent``, which json's fast C encoder cannot do."""
    lines = []
    for key, value in summary.items():
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        else:
            text = json.dumps(value)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
