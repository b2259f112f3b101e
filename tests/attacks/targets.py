"""What is attacked: captures as processes of their own, whose CPU is measured; and replays of what they recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .check import Verdict, verdict
from .kinds import KINDS
from .wire import Hostile, RealSender

__all__ = ["Outcome", "attacked", "replayed"]

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Outcome:
    """``cpu_us`` of the receiving processes for a hostile packet, real calls' share taken off; ``share`` of a core."""

    kind: str
    target: str
    real: Verdict
    sent: int
    rate: float
    cpu_us: float
    share: float
    exit_code: int
    stopped_s: float
    unaccounted: int | None
    kernel_dropped: int
    faults: dict[str, int]
    rss_mib: float

    @property
    def good(self) -> bool:
        return self.real.good and self.exit_code == 0 and self.unaccounted == 0 and not self.faults

    def line(self) -> str:
        state = "exact" if self.real.good else f"{self.real.exact}/{self.real.streams}, {self.real.wrong_packets} wrong"
        more = "" if self.exit_code == 0 and not self.faults else f" exit {self.exit_code} {self.faults or ''}"
        return (
            f"{self.kind:18} {self.target:9} {state:22} {self.rate:7.0f}/s {self.cpu_us:7.1f} us"
            f" {100 * self.share:5.0f} % {self.rss_mib:5.0f} MiB stop {self.stopped_s:4.1f} s"
            f" kernel {self.kernel_dropped}{more}"
        )


def _family(pid: int) -> list[int]:
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(one for child in below for one in _family(int(child)))]


def _cpu_s(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total


def _rss_mib(pids: list[int]) -> float:
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@contextmanager
def _capture(out: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "strep", "capture", "--listen", "127.0.0.1:0", "--out", str(out), "--json"]
    with Path(f"{out}.log").open("w") as log:
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            event = json.loads(process.stdout.readline())
            drain = _Drain(process.stdout)
            yield process, int(event["sockets"][0]["address"].rpartition(":")[2])
            drain.join(5)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


class _Drain:
    """Reads what a process prints, so that it is never held up."""

    def __init__(self, pipe: Any) -> None:
        self._thread = threading.Thread(target=pipe.read, daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)


def attacked(
    kinds: Sequence[str],
    out: Path,
    *,
    legs: int = 10,
    seconds: float = 4.0,
    rate: float = 10_000,
    workers: int = 1,
    seed: int = 1,
    pcap: Path | None = None,
    analyze: str = "",
) -> Outcome:
    """A capture with real calls, attacked by ``kinds`` in turn all the while, but for the first 0.4 s."""
    arguments = [*(("--analyze", analyze) if analyze else ()), "--idle-timeout", "5"]
    arguments += ["--workers", str(workers)] if workers > 1 else []
    arguments += ["--pcap", str(pcap)] if pcap else []
    rng = np.random.default_rng(seed)
    storm_s = max(seconds - 1.0, 0.5)
    with _capture(out, *arguments) as (process, port):
        real = RealSender(port, legs, seconds)
        each = int(rate * storm_s / max(len(kinds), 1))
        hostile = Hostile(port, np.concatenate([KINDS[kind](each, rng) for kind in kinds]), rate) if kinds else None
        pids = _family(process.pid)
        before = _cpu_s(pids)
        began = time.monotonic()
        real.start()
        time.sleep(0.4)
        if hostile is not None:
            hostile.start()
        real.join()
        if hostile is not None:
            hostile.join()
        pids = _family(process.pid)
        spent, lasted, rss = _cpu_s(pids) - before, time.monotonic() - began, _rss_mib(pids)
        time.sleep(0.3)
        stopping = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(100)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        stopped = time.monotonic() - stopping
    sent = hostile.sent if hostile else 0
    base = _BASE.get(workers, 0.0) * lasted if kinds else 0.0
    if not kinds:
        _BASE[workers] = spent / lasted
    totals: dict[str, Any] = {}
    summary = out / "summary.json"
    if summary.exists():
        totals = json.loads(summary.read_text())["totals"]
    known = ("delivered", "duplicate", "late", "malformed", "rejected", "dropped", "buffered")
    unaccounted = totals["datagrams"] - sum(totals[name] for name in known) if totals else None
    return Outcome(
        ", ".join(kinds) or "nobody", f"{workers} workers" if workers > 1 else "capture",
        verdict(out, legs, real.packets), sent,
        sent / hostile.seconds if hostile and hostile.seconds else 0.0,
        1e6 * (spent - base) / sent if sent else 0.0, (spent - base) / lasted, code, stopped, unaccounted,
        totals.get("kernel_dropped", -1), totals.get("faults", {}), rss,
    )  # fmt: skip


_BASE: dict[int, float] = {}  # by workers: what the real calls alone cost a second


def replayed(pcap: Path, out: Path, legs: int, packets: int) -> tuple[int, Verdict]:
    """What ``strep replay`` makes of what was recorded: its exit code, and the real calls."""
    command = [sys.executable, "-m", "strep", "replay", str(pcap), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    return done.returncode, verdict(out, legs, packets)
