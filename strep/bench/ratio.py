"""CPU per packet beside the floor, a C program that only receives: without files, with arrays, with WAVs."""

from __future__ import annotations

from statistics import median
from typing import Final

from ._disk import files_note
from ._machine import build_floor
from ._outcome import Outcome, spread
from ._settings import Settings
from ._trial import RECEIVERS, Load, Trial, run_trial

__all__ = ["measure", "measure_ratios"]

COLUMNS: Final = (
    "receiver", "lost", "missing", "wrong", "CPU µs/packet", "x floor", "machine µs/packet", "% of a core", "MiB",
    "finish s",
)  # fmt: skip


def measure(settings: Settings) -> Outcome:
    duration_s = min(settings.duration_s, 4.0) if settings.quick else settings.duration_s
    load = Load(settings.streams, settings.rate, duration_s)
    runs = settings.repeat(5)
    title = f"{load.streams:,} streams, {load.rate:,.0f} packets/s, {duration_s:g} s on one core; median of {runs}"
    if settings.transport != "auto":
        title += f"; transport {settings.transport}"
    outcome = Outcome("ratio", title, COLUMNS)
    trials = measure_ratios(settings, load, runs)
    for name, group in trials.items():
        ratios = [t.cpu_us / f.cpu_us for t, f in zip(group, trials.get("floor", []), strict=False) if f.cpu_us]
        outcome.rows.append(
            [
                name,
                sum(t.sent - t.datagrams + t.lost for t in group),
                sum(t.missing for t in group),
                sum(t.wrong for t in group),
                spread([t.cpu_us for t in group]),
                spread(ratios),
                spread([t.machine_us for t in group]),
                round(median(t.cpu_us * t.sent / duration_s for t in group) / 1e4),
                round(median(t.memory_mib for t in group)),
                round(median(t.finish_s for t in group), 2),
            ]
        )
        outcome.data[name] = {"trials": [t.as_dict() for t in group], "ratios": ratios}
        outcome.wrong += [f"{name}, run {n + 1}: not everything came right" for n, t in enumerate(group) if not t.exact]
    outcome.notes.append(files_note([t.file_us for t in trials["wav"]]))
    if "floor" not in trials:
        outcome.notes.append("no C compiler: no floor to compare with (apt install gcc)")
    if any(t.generator_was_the_limit for group in trials.values() for t in group):
        outcome.notes.append("the generator was the limit in some runs: ask for a lower --rate")
    return outcome


def measure_ratios(settings: Settings, load: Load, runs: int) -> dict[str, list[Trial]]:
    """Trials of each receiver in rounds: the n-th ones belong together. No floor where there is no C compiler."""
    trials: dict[str, list[Trial]] = {}
    with settings.work() as work:
        floor = build_floor(work)
        for number in range(runs):
            for receiver in RECEIVERS:
                if receiver == "floor" and floor is None:
                    continue
                settings.progress(f"{receiver} {number + 1}/{runs}")
                options = [] if settings.transport == "auto" else ["--transport", settings.transport]
                trials.setdefault(receiver, []).append(run_trial(receiver, load, work, floor=floor, options=options))
    return trials
