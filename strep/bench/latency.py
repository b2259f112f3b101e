"""From the intended time of sending to the consumer: what a slow sender, kernel or receiver adds is all in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from ._histogram import Histogram
from ._listen import RING_LATENCY_MS
from ._outcome import Outcome
from ._settings import Settings
from ._trial import Load, Trial, run_trial
from .search import zero_loss_rate

__all__ = ["latencies_ns", "measure"]

_STREAMS: Final = 1000
_WARM_UP_S: Final = 1.0
_SINGLE_SENDS: Final = 200_000.0  # packets/s, above which the generator needs segmentation offload
_REAL_TIME_RATE: Final = 50.0 * _STREAMS
COLUMNS: Final = (
    "consumer",
    "packets/s",
    "share",
    "streams are",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "sender p99",
)
CONSUMERS: Final = {"iterate": "stream.frames(), latency 0", "ring": f"a sink, latency {RING_LATENCY_MS:g} ms"}


def measure(settings: Settings) -> Outcome:
    """Real time first (50 packets/s a stream), then shares of the zero-loss rate of the consumer that decodes."""
    seconds = 4.0 if settings.quick else 6.0
    runs = settings.repeat(5)
    outcome = Outcome("latency", f"{_STREAMS:,} streams, packets in order, {seconds:g} s; all of {runs} runs", COLUMNS)
    with settings.work() as work:
        settings.progress("zero-loss rate")
        top = zero_loss_rate(
            "arrays", _STREAMS, work, trial_s=1.0, confirm_s=3.0, bounds=(80_000.0, 1_600_000.0), note=settings.progress
        ).rate
        outcome.data["zero_loss_rate"] = top
        cases: list[tuple[str, str, float, str]] = []
        for pattern in ("even", "phase"):
            cases += [
                ("iterate", "real time", _REAL_TIME_RATE, pattern),
                ("ring", "real time", _REAL_TIME_RATE, pattern),
            ]
            cases += [("ring", f"{share:.0%}", top * share, pattern) for share in (0.5, 0.9)]
        for consumer, share, rate, pattern in cases:
            histogram, trials = Histogram(), []
            for run in range(runs):
                settings.progress(f"{consumer}, {rate:,.0f} packets/s, {pattern}, {run + 1}/{runs}")
                load = Load(_STREAMS, rate, seconds, pattern, segment=rate > _SINGLE_SENDS, spin=True)
                values, trial = _run(consumer, load, work)
                histogram.add(values)
                trials.append(trial)
            _row(outcome, consumer, share, rate, pattern, histogram, trials)
    return outcome


def _row(
    outcome: Outcome,
    consumer: str,
    share: str,
    rate: float,
    pattern: str,
    histogram: Histogram,
    trials: list[Trial],
) -> None:
    quantiles = {name: histogram.quantile_ns(q) / 1e6 for name, q in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))}
    sender = max(t.load["behind_ms_p99"] for t in trials)
    where = {"even": "evenly phased", "phase": "in phase"}[pattern]
    cells = [round(value, 2) for value in (*quantiles.values(), histogram.max_ns / 1e6, sender)]
    outcome.rows.append([CONSUMERS[consumer], round(rate), share, where, *cells])
    outcome.data.setdefault("cases", []).append(
        {
            "consumer": consumer,
            "share": share,
            "rate": rate,
            "pattern": pattern,
            "packets": len(histogram),
            **quantiles,
            "max": histogram.max_ns / 1e6,
            "sender_p99_ms": sender,
            "histogram": histogram.points(),
        }
    )
    if not all(t.exact for t in trials):
        outcome.wrong.append(f"{consumer}, {rate:,.0f} packets/s, {where}: not everything came")
    if any(t.generator_was_the_limit for t in trials):
        outcome.notes.append(f"the generator was the limit at {rate:,.0f} packets/s, {where}")


def _run(consumer: str, load: Load, work: Path) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Trial]:
    arrivals = work / "arrivals.npy"
    trial = run_trial(
        consumer, load, work, command=[sys.executable, "-m", "strep.bench._listen", consumer, str(arrivals)]
    )
    values = latencies_ns(np.load(arrivals), load, trial.load["start_ns"])
    arrivals.unlink()
    return values, trial


def latencies_ns(
    arrivals: np.ndarray[Any, np.dtype[np.int64]], load: Load, start_ns: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Arrival minus intended sending, int64 ns, of each packet after the warm-up.

    ``arrivals``: int64 (n, 3): CLOCK_MONOTONIC ns, SSRC, RTP timestamp. Packets that never came are not among them.
    """
    stream, number = arrivals[:, 1] - 1, arrivals[:, 2] // 160
    if load.pattern == "phase":
        intended_s = number * (load.streams / load.rate)
    else:
        intended_s = (number * load.streams + stream) / load.rate
    late = arrivals[:, 0] - start_ns - np.round(intended_s * 1e9).astype(np.int64)
    chosen: np.ndarray[Any, np.dtype[np.int64]] = late[intended_s >= _WARM_UP_S]
    return chosen
