"""The zero-loss rate of one core, searched as RFC 2544 section 26.1 says: halving, then long trials that confirm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ._outcome import Outcome, spread
from ._settings import Settings
from ._trial import Load, run_trial

__all__ = ["SearchResult", "bisect", "measure", "zero_loss_rate"]

_LOWEST_RATE: Final = 20_000.0  # packets/s, as all rates here
_HIGHEST_RATE: Final = 1_600_000.0
_PRECISION: Final = 0.04  # the search ends when the bounds are this near
_RETREAT: Final = 0.96  # when a long trial fails, the next one has this share of its rate
_MAX_CONFIRMATIONS: Final = 6
_BOUNDS_AROUND_EARLIER: Final = 0.85, 1.2  # later searches begin around what the first found
_SAMPLED: Final = 40  # streams whose files are compared
COLUMNS: Final = ("receiver", "streams", "zero-loss packets/s", "calls of 2 x 50/s", "limit")


@dataclass(slots=True)
class SearchResult:
    rate: float  # 0: not even the lowest
    generator_was_the_limit: bool
    trials: list[dict[str, Any]] = field(default_factory=list)


def bisect(
    good: Callable[[float], bool | None], confirm: Callable[[float], bool | None], low: float, high: float
) -> tuple[float, bool]:
    """The highest rate that is ``good`` and confirmed, and whether the generator ended the search.

    Both say None where the generator could not send that fast: such a rate says nothing of the receiver.
    """
    limited = False
    top = 0.0
    while high / low > 1 + _PRECISION:
        rate = (low * high) ** 0.5
        verdict = good(rate)
        if verdict:
            top = low = rate
        else:
            limited = verdict is None
            high = rate
    rate = top or low
    for _ in range(_MAX_CONFIRMATIONS):
        verdict = confirm(rate)
        if verdict:
            return rate, limited
        limited = verdict is None
        rate *= _RETREAT
    return 0.0, limited


def zero_loss_rate(
    receiver: str,
    streams: int,
    work: Path,
    *,
    trial_s: float,
    confirm_s: float,
    bounds: tuple[float, float],
    segment: bool = True,
    note: Callable[[str], None] = lambda text: None,
) -> SearchResult:
    """Search the highest rate at which ``receiver`` loses nothing and every checked answer is right."""
    found = SearchResult(0.0, False)

    def attempt(rate: float, seconds: float) -> bool | None:
        note(f"{receiver}, {streams:,} streams: {rate:,.0f} packets/s for {seconds:g} s")
        trial = run_trial(receiver, Load(streams, rate, seconds, segment=segment), work, samples=_SAMPLED)
        found.trials.append({"rate": rate, "seconds": seconds, **trial.as_dict()})
        if trial.generator_was_the_limit and trial.exact:
            return None
        return trial.exact

    found.rate, found.generator_was_the_limit = bisect(
        lambda rate: attempt(rate, trial_s), lambda rate: attempt(rate, confirm_s), *bounds
    )
    return found


def measure(settings: Settings) -> Outcome:
    runs = settings.repeat(5)
    trial_s, confirm_s = (1.0, 3.0) if settings.quick else (2.0, 10.0)
    title = f"the highest rate without loss on one core, confirmed over {confirm_s:g} s; median (range) of {runs}"
    outcome = Outcome("zero-loss", title, COLUMNS)
    cases = [(receiver, streams) for streams in (1000, 5000) for receiver in ("monitor", "arrays", "wav")]
    found: dict[tuple[str, int], list[SearchResult]] = {case: [] for case in cases}
    with settings.work() as work:
        for _ in range(runs):
            for case in cases:
                earlier = [f.rate for f in found[case] if f.rate]
                before, after = _BOUNDS_AROUND_EARLIER
                bounds = (earlier[-1] * before, earlier[-1] * after) if earlier else (_LOWEST_RATE * 4, _HIGHEST_RATE)
                found[case].append(
                    zero_loss_rate(
                        *case, work, trial_s=trial_s, confirm_s=confirm_s, bounds=bounds, note=settings.progress
                    )
                )
    for (receiver, streams), group in found.items():
        rates = [f.rate for f in group]
        limited = sum(f.generator_was_the_limit for f in group)
        value = spread(rates)
        outcome.rows.append(
            [
                receiver,
                streams,
                value,
                round(value.median / 100) if value else None,
                f"the generator ({limited} of {len(group)})" if limited else "the receiver",
            ]
        )
        outcome.data.setdefault("searches", []).append(
            {
                "receiver": receiver,
                "streams": streams,
                "rates": rates,
                "generator_was_the_limit": [f.generator_was_the_limit for f in group],
                "trials": [f.trials for f in group],
            }
        )
        if not all(rates):
            outcome.wrong.append(f"{receiver}, {streams} streams: no rate without loss")
    return outcome
