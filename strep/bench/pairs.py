"""rx/tx pairs beside target mode: the same calls, on two ports each and on one port for all, in one run."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from ._outcome import Outcome, spread
from ._processes import MeasuredProcess
from ._settings import Settings
from ._trial import Load, Trial, run_trial
from .latency import latencies_ns

__all__ = ["measure"]

_PACKETS_A_CALL: Final = 100.0  # a second, of both directions
_BEGINNING_S: Final = 3.0  # files are made, and what came meanwhile is worked off
_STALL_MS: Final = 200.0  # of the generator: from about here on files have its pauses, as they should
COLUMNS: Final = (
    "calls",
    "written",
    "on",
    "lost",
    "wrong",
    "CPU µs/packet",
    "x target",
    "% of a core",
    "% while it runs",
    "KiB a pair",
    "p50 ms",
    "p99 ms",
)
_MODES: Final = {"monitor": "nothing", "wav": "WAV", "iterate": "iterated"}
_KINDS: Final = {"target": "one port", "pairs": "pairs"}


@dataclass(frozen=True, slots=True)
class _Run:
    trial: Trial
    late_ms: list[float]  # at 50 and 99 %, if streams are iterated
    running: float | None  # % of a core, behind the beginning; None: it was too short

    @property
    def stalled(self) -> bool:
        """Whether the generator stood still, and files hold its pauses."""
        return self.trial.behind_ms_max >= _STALL_MS


class _Running:
    """CPU time of a process while it runs, without the beginning."""

    def __init__(self) -> None:
        self._looks: list[tuple[float, float]] = []  # monotonic seconds, CPU seconds

    def look(self, process: MeasuredProcess) -> None:
        self._looks.append((time.monotonic(), process.cpu_s()))

    @property
    def share(self) -> float | None:
        """% of a core."""
        looks = [look for look in self._looks if look[0] >= self._looks[0][0] + _BEGINNING_S]
        if len(looks) < 3:
            return None
        (begin, before), (end, after) = looks[0], looks[-1]
        return 100 * (after - before) / (end - begin)


def measure(settings: Settings) -> Outcome:
    """Real time: 50 packets/s a stream. Iterated at latency 0 with 100 calls."""
    sizes = (10, 50) if settings.quick else (10, 100, 500, 2000)
    seconds = 3.0 if settings.quick else min(settings.duration_s, 10.0)
    runs = settings.repeat(3)
    outcome = Outcome("pairs", f"calls of two streams, 50 packets/s each, {seconds:g} s; median of {runs}", COLUMNS)
    cases = [(calls, mode) for calls in sizes for mode in ("monitor", "wav")]
    cases.append((sizes[1], "iterate"))
    with settings.work() as work:
        for calls, mode in cases:
            load = Load(2 * calls, calls * _PACKETS_A_CALL, seconds)
            trials: dict[str, list[_Run]] = {kind: [] for kind in _KINDS}
            for run in range(runs):
                for kind in _KINDS:
                    settings.progress(f"{calls:,} calls, {_MODES[mode]}, {_KINDS[kind]}, {run + 1}/{runs}")
                    trials[kind].append(_run(kind, calls, mode, load, work))
            for kind, group in trials.items():
                _row(outcome, kind, calls, mode, load, group, trials["target"])
    return outcome


def _run(kind: str, calls: int, mode: str, load: Load, work: Path) -> _Run:
    if kind == "pairs":
        load = Load(load.streams, load.rate, load.duration_s, port_a_stream=True)
    arrivals = work / "arrivals.npy"
    path = str(arrivals) if mode == "iterate" else "{out}"
    command = [sys.executable, "-m", "strep.bench._pairs_listen", kind, str(calls), mode, path]
    running = _Running()
    trial = run_trial(mode, load, work, command=command, watch=running.look)
    if mode != "iterate":
        return _Run(trial, [], running.share)
    late = latencies_ns(np.load(arrivals), load, trial.load["start_ns"]) / 1e6
    arrivals.unlink()
    return _Run(trial, np.quantile(late, (0.5, 0.99)).tolist() if late.size else [], running.share)


def _row(
    outcome: Outcome,
    kind: str,
    calls: int,
    mode: str,
    load: Load,
    group: list[_Run],
    target: list[_Run],
) -> None:
    trials = [run.trial for run in group]
    late = [run.late_ms for run in group if run.late_ms]
    running = [run.running for run in group if run.running is not None]
    ratios = [t.cpu_us / f.trial.cpu_us for t, f in zip(trials, target, strict=True) if f.trial.cpu_us]
    memory = [trial.summary["kib_a_pair"] for trial in trials]
    outcome.rows.append(
        [
            calls,
            _MODES[mode],
            _KINDS[kind],
            sum(t.sent - t.datagrams + t.lost for t in trials),
            sum(run.trial.wrong for run in group if not run.stalled),
            spread([t.cpu_us for t in trials]),
            spread(ratios) if kind != "target" else None,
            round(median(t.cpu_us * t.sent / load.duration_s for t in trials) / 1e4, 1),
            round(median(running), 1) if running else None,
            round(median(memory), 1) if kind == "pairs" else None,
            round(median(q[0] for q in late), 1) if late else None,
            round(median(q[1] for q in late), 1) if late else None,
        ]
    )
    outcome.data.setdefault("cases", []).append(
        {
            "calls": calls,
            "mode": mode,
            "kind": kind,
            "kib_a_pair": memory,
            "latency_ms": late,
            "running": running,
            "trials": [t.as_dict() for t in trials],
        }
    )
    where = f"{calls:,} calls, {_MODES[mode]}, {_KINDS[kind]}"
    for n, run in enumerate(group):
        trial = run.trial
        if run.stalled and trial.wrong and replace(trial, wrong=0).exact:
            outcome.notes.append(f"{where}, run {n + 1}: the generator stood still, and files hold its pauses")
        elif not trial.exact:
            outcome.wrong.append(f"{where}, run {n + 1}: not everything came right")
    if any(t.generator_was_the_limit for t in trials):
        outcome.notes.append(f"{where}: the generator was the limit in some runs")
