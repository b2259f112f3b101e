"""Streams that come and go: 200 a second at a steady 5,000. Nothing may grow."""

from __future__ import annotations

from typing import Final

from ._outcome import Outcome
from ._processes import MeasuredProcess
from ._settings import Settings
from ._trial import Load, run_trial
from .impairment import differences

__all__ = ["measure"]

_CHURN_PER_S: Final = 200.0
_IDLE_TIMEOUT_S: Final = 2.0
_MAX_GROWTH: Final = 1.1  # resident memory in the last quarter beside the third one
COLUMNS: Final = ("receiver", "streams", "ever", "lost", "CPU µs/packet", "MiB half-way", "MiB at the end", "growth")


def measure(settings: Settings) -> Outcome:
    steady, seconds = (1000, 14.0) if settings.quick else (5000, 60.0)
    runs = settings.repeat(1)
    title = (
        f"{steady:,} live streams, {_CHURN_PER_S:g} begin and end each second, {seconds:g} s; "
        f"idle after {_IDLE_TIMEOUT_S:g} s"
    )
    outcome = Outcome("churn", title, COLUMNS)
    load = Load(steady, 50.0 * steady, seconds, "churn", churn=_CHURN_PER_S)
    schedule = load.schedule()
    with settings.work() as work:
        for run in range(runs):
            for name, options in (
                ("monitor", ["--idle-timeout", str(_IDLE_TIMEOUT_S)]),
                ("wav", ["--idle-timeout", str(_IDLE_TIMEOUT_S), "--out", str(work / f"churn-{run}")]),
            ):
                settings.progress(f"{name} {run + 1}/{runs}")
                memory: list[float] = []

                def watch(process: MeasuredProcess, memory: list[float] = memory) -> None:
                    memory.append(process.memory_mib())

                trial = run_trial("monitor", load, work, options=options, watch=watch)
                quarter = len(memory) // 4
                third, last = max(memory[2 * quarter : 3 * quarter]), max(memory[3 * quarter :])
                wrong = differences(trial.summary, schedule)
                lost = trial.sent - trial.datagrams + trial.lost
                ever = len(trial.summary["streams"])
                outcome.rows.append(
                    [
                        name,
                        steady,
                        ever,
                        lost,
                        round(trial.cpu_us, 2),
                        round(third),
                        round(last),
                        round(last / third, 3),
                    ]
                )
                outcome.data.setdefault("runs", []).append({**trial.as_dict(), "receiver": name, "memory_mib": memory})
                outcome.wrong += [f"{name}: {text}" for text in wrong[:5]]
                if trial.missing:
                    outcome.wrong.append(f"{name}: {trial.missing} sample frames missing")
                if last > _MAX_GROWTH * third:
                    outcome.wrong.append(f"{name}: memory still grows: {third:.0f} to {last:.0f} MiB")
                if trial.generator_was_the_limit:
                    outcome.notes.append("the generator was the limit")
    return outcome
