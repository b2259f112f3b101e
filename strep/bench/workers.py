"""Several processes on one port: packets steered right, what two carry beside one, and a worker that is killed."""

from __future__ import annotations

import os
from dataclasses import asdict
from statistics import median
from typing import Final

from .._edge.ring.packet_socket import ring_problem
from ._outcome import Outcome, spread
from ._settings import Settings
from ._trial import Load, Trial, run_trial
from .restart import measure_restart
from .steering import measure_steering

__all__ = ["measure"]

_STREAMS: Final = 4000
_RATE: Final = 100_000.0  # for each worker
_WANTED_SCALE: Final = 1.7
COLUMNS: Final = ("workers", "packets/s", "lost", "CPU µs/packet", "% of a core each", "x one worker")


def measure(settings: Settings) -> Outcome:
    """How many packets a second N workers carry beside one, if each had a core of its own: N times the cost of a packet
    with one worker over that with N, each at the same rate. The generator's own CPU time is in neither."""
    runs = settings.repeat(5)
    seconds = 3.0 if settings.quick else 10.0
    cores = sorted(os.sched_getaffinity(0))
    title = f"{_STREAMS:,} streams, {_RATE:,.0f} packets/s for each worker; median (range) of {runs}"
    outcome = Outcome("workers", title, COLUMNS)
    trials: dict[int, list[Trial]] = {1: [], 2: []}
    with settings.work() as work:
        for run in range(runs):
            for workers, group in trials.items():
                settings.progress(f"{workers} workers, {run + 1}/{runs}")
                load = Load(_STREAMS, _RATE * workers, seconds)
                options = ["--workers", str(workers)]
                group.append(run_trial("monitor", load, work, options=options, cores=cores))
        settings.progress("steering")
        packets = 100_000 if settings.quick else 1_000_000
        steering = {"sockets": measure_steering(packets, 2)}
        if ring_problem() is None:
            steering["rings"] = measure_steering(packets, 2, transport="ring")
        settings.progress("killing a worker")
        restarts = [
            measure_restart(streams=2000, rate=_RATE, duration_s=6.0, directory=work) for _ in range(min(runs, 3))
        ]
    for workers, group in trials.items():
        scale = [workers * one.cpu_us / t.cpu_us for one, t in zip(trials[1], group, strict=True)]
        rate = _RATE * workers
        outcome.rows.append(
            [
                workers,
                round(rate),
                sum(t.sent - t.datagrams + t.lost for t in group),
                spread([t.cpu_us for t in group]),
                round(median(t.cpu_us for t in group) * rate / workers / 1e4, 1),
                spread(scale),
            ]
        )
        outcome.data[str(workers)] = {"trials": [t.as_dict() for t in group], "scale": scale}
        if not all(t.exact for t in group):
            outcome.wrong.append(f"{workers} workers: not everything came")
    outcome.data["steering"] = {kind: asdict(one) for kind, one in steering.items()}
    outcome.data["restarts"] = [asdict(r) for r in restarts]
    outcome.notes += [
        f"steering of {kind}: {one.wrong} of {one.packets:,} packets wrong, {one.split_legs} call legs split"
        for kind, one in steering.items()
    ]
    if len(cores) < 4:
        outcome.notes.append(
            f"{len(cores)} cores, which the generator shares: the last column is from CPU time per packet, as if each "
            f"worker had a core of its own (wanted: {_WANTED_SCALE:g})"
        )
    if not all(one.exact for one in steering.values()):
        outcome.wrong.append("packets were steered wrong")
    for restart in restarts:
        outcome.notes.append(
            f"kill -9 at {restart.rate:,.0f} packets/s: back after {restart.back_s:.2f} s, others lost "
            f"{restart.others_lost} packets, gap counted {restart.gap_counted} (in truth {restart.gap_true}), "
            f"{restart.killed_unreadable} of {restart.killed_files} files unreadable"
        )
        if not restart.exact:
            outcome.wrong.append("a killed worker cost what it should not")
    return outcome
