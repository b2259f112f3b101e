"""Does the number of streams cost? A constant packet rate over ever more streams; and what next to nothing costs."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Final

from ._machine import build_floor, core_pair
from ._outcome import Outcome, spread
from ._processes import MeasuredProcess
from ._settings import Settings
from ._trial import Load, Trial, capture_command, run_trial

__all__ = ["measure"]

_STREAM_COUNTS: Final = (10, 100, 1000, 5000, 20_000)
_RATE: Final = 100_000.0  # packets/s
_SMALL_USER: Final = Load(10, 500.0, 10.0)
COLUMNS: Final = ("streams", "packets/s", "lost", "CPU µs/packet", "x floor", "x fewest", "% of a core", "MiB")


def measure(settings: Settings) -> Outcome:
    duration_s = 3.0 if settings.quick else 6.0
    runs = settings.repeat(5)
    counts = _STREAM_COUNTS[::2] if settings.quick else _STREAM_COUNTS
    title = f"strep capture without files at {_RATE:,.0f} packets/s; median (range) of {runs}"
    outcome = Outcome("growth", title, COLUMNS)
    trials: dict[int, list[Trial]] = {n: [] for n in counts}
    floors: list[Trial] = []
    few: list[Trial] = []
    with settings.work() as work:
        floor = build_floor(work)
        for number in range(runs):
            settings.progress(f"run {number + 1}/{runs}")
            if floor is not None:
                floors.append(run_trial("floor", Load(1000, _RATE, duration_s), work, floor=floor))
            for streams in counts:
                trials[streams].append(run_trial("monitor", Load(streams, _RATE, duration_s), work))
            few.append(run_trial("monitor", _SMALL_USER, work))
        idle = _idle(work / "idle.log", 2.0 if settings.quick else 10.0)
    fewest = trials[counts[0]]
    for streams, group in trials.items():
        _row(outcome, streams, _RATE, duration_s, group, floors, fewest)
    _row(outcome, _SMALL_USER.streams, _SMALL_USER.rate, _SMALL_USER.duration_s, few, [], [])
    last = outcome.rows[-1][-2]
    outcome.notes.append(f"a small user, 10 streams at 50 packets/s: {last} % of a core")
    outcome.notes.append(f"idle: {idle['wake_ups_per_s']:g} wake-ups/s, {idle['percent']:.2f} % of a core")
    outcome.data["idle"] = idle
    return outcome


def _row(
    outcome: Outcome,
    streams: int,
    rate: float,
    duration_s: float,
    group: list[Trial],
    floors: list[Trial],
    fewest: list[Trial],
) -> None:
    cost = [t.cpu_us for t in group]
    outcome.rows.append(
        [
            streams,
            round(rate),
            sum(t.sent - t.datagrams + t.lost for t in group),
            spread(cost),
            spread([t.cpu_us / f.cpu_us for t, f in zip(group, floors, strict=False) if f.cpu_us]),
            spread([t.cpu_us / f.cpu_us for t, f in zip(group, fewest, strict=False) if f.cpu_us]),
            round(median(cost) * rate / 1e4, 2),
            round(median(t.memory_mib for t in group)),
        ]
    )
    outcome.data.setdefault("trials", []).append(
        {"streams": streams, "rate": rate, "duration_s": duration_s, "trials": [t.as_dict() for t in group]}
    )
    if not all(t.exact for t in group):
        outcome.wrong.append(f"{streams} streams at {rate:g} packets/s: not everything came right")
    if any(t.generator_was_the_limit for t in group):
        outcome.notes.append(f"the generator was the limit in some runs with {streams} streams")


def _idle(log: Path, seconds: float) -> dict[str, float]:
    """A receiver to which nothing is sent."""
    with MeasuredProcess(capture_command(), core_pair()[0], log) as process:
        process.line()
        time.sleep(1.0)
        before, cpu_s = process.wake_ups(), process.cpu_s()
        time.sleep(seconds)
        woken, used = process.wake_ups() - before, process.cpu_s() - cpu_s
        process.end()
    return {"seconds": seconds, "wake_ups_per_s": woken / seconds, "percent": 100 * used / seconds}
