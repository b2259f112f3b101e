"""Datagrams as capture files, and what a replay writes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support import Arrival, batch_of, steady

import strep
from strep._edge.pcap import PcapWriter
from strep.sinks import WavSink


def capture_file(path: Path, arrivals: list[Arrival] | None = None) -> Path:
    writer = PcapWriter(path)
    arrivals = arrivals or [a for d in (0, 1) for a in steady(100, direction=d)]
    writer.write(batch_of(sorted(arrivals, key=lambda a: a.ns), width=1024))
    writer.close()
    return path


def record(
    folder: Path, arrivals: list[Arrival], replay_options: dict[str, Any] | None = None, **options: Any
) -> strep.Replay:
    """The arrivals as a capture file, replayed into WAV files below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f"{folder.name}.pcap"
    writer = PcapWriter(path)
    writer.write(batch_of(sorted(arrivals, key=lambda a: a.ns), width=2048))
    writer.close()
    return strep.replay(path, sinks=[WavSink(folder, **options)], **(replay_options or {}))
