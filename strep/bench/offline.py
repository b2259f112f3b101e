"""Replay of a large capture: packets a second, and how much faster than the calls were."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from .._edge.pcap import PcapWriter
from .._model.datagrams import DatagramBatch
from ..simulate.load import VERIFY_SEED, PacketWriter
from ..simulate.schedule import Even
from ._outcome import Outcome, spread
from ._settings import Settings
from ._trial import is_right

__all__ = ["measure", "write_capture"]

_STREAMS: Final = 1000
_RATE: Final = 50.0 * _STREAMS
_START_NS: Final = 1_790_000_000_000_000_000
_LOCALHOST: Final = 0xFFFF_7F00_0001
COLUMNS: Final = ("command", "packets", "seconds", "packets/s", "x real time", "CPU s", "wrong files")


def measure(settings: Settings) -> Outcome:
    duration_s = 10.0 if settings.quick else 40.0
    runs = settings.repeat(5)
    packets = int(_RATE * duration_s)
    title = f"a pcap of {_STREAMS:,} streams of {duration_s:g} s ({packets:,} packets); median (range) of {runs}"
    outcome = Outcome("offline", title, COLUMNS)
    with settings.work() as work:
        path = work / "load.pcap"
        settings.progress("writing the capture")
        write_capture(path, streams=_STREAMS, rate=_RATE, duration_s=duration_s)
        commands = {
            "inspect": ["inspect", str(path), "--json"],
            "replay, WAV": ["replay", str(path), "--out"],
            "replay, native": ["replay", str(path), "--encoding", "native", "--out"],
        }
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
        for run in range(runs):
            for name, command in commands.items():
                settings.progress(f"{name} {run + 1}/{runs}")
                found[name].append(_run(command, work / f"{name[-3:]}-{run}", packets))
    for name, results in found.items():
        seconds = [r["seconds"] for r in results]
        outcome.rows.append(
            [
                name,
                packets,
                spread(seconds),
                spread([packets / s for s in seconds]),
                spread([duration_s / s for s in seconds]),
                spread([r["cpu_s"] for r in results]),
                sum(r["wrong"] for r in results) if name == "replay, WAV" else None,
            ]
        )
        outcome.data[name] = results
        outcome.wrong += [f"{name}: {text}" for r in results for text in r["problems"]]
        if any(r["wrong"] for r in results):
            outcome.wrong.append(f"{name}: files are wrong")
    return outcome


def write_capture(path: Path, *, streams: int, rate: float, duration_s: float) -> None:
    """What ``send_load`` would send, as a pcap file."""
    schedule = Even(streams, rate, duration_s)
    writer = PacketWriter(schedule, VERIFY_SEED)
    capture = PcapWriter(path)
    for begin in range(0, schedule.total, 1024):
        end = min(begin + 1024, schedule.total)
        slab, lengths = writer.write(*schedule.packets(begin, end))
        n = end - begin
        capture.write(
            DatagramBatch(
                slab,
                lengths.astype(np.int32),
                _START_NS + np.round(np.arange(begin, end) / rate * 1e9).astype(np.int64),
                np.zeros(n, np.uint64),
                np.full(n, _LOCALHOST, np.uint64),
                np.full(n, 40_000, np.uint16),
                np.full(n, 9000, np.uint16),
            )
        )
    capture.close()


def _run(command: list[str], out: Path, packets: int) -> dict[str, Any]:
    writes = command[-1] == "--out"
    began, before = time.monotonic(), _children_cpu_s()
    done = subprocess.run(
        [sys.executable, "-m", "strep", *command, *([str(out)] if writes else [])], capture_output=True, text=True
    )
    seconds, cpu_s = time.monotonic() - began, _children_cpu_s() - before
    problems = [] if done.returncode == 0 else [f"exit code {done.returncode}: {done.stderr[-300:]}"]
    wrong = 0
    if writes and not problems:
        totals = json.loads((out / "summary.json").read_text())["totals"]
        if totals["delivered"] != packets:
            problems.append(f"{totals['delivered']} of {packets} packets delivered")
        if "native" not in command:
            wrong = sum(not is_right(out, s, packets // _STREAMS) for s in range(_STREAMS))
    if out.exists():
        shutil.rmtree(out)
    return {"seconds": seconds, "cpu_s": cpu_s, "wrong": wrong, "problems": problems}


def _children_cpu_s() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
