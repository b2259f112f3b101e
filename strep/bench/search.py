"""The zero-loss rate of one core, searched as RFC 2544 section 26.1 says: halving, then long trials that confirm."""

from __future__ import annotations

import time
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
_RETREAT: Final = 0.96  # when a long trial fails, the next one has this share of its rate; then its square
_MAX_CONFIRMATIONS: Final = 4
_LIMIT_S: Final = 540.0  # for all of it: the first round fits in, further ones as far as there is time
_HALVING_SHARE: Final = 0.55  # of a search's time; then long trials confirm
_BOUNDS_AROUND_EARLIER: Final = 0.85, 1.2  # later searches begin around what the first found
_SAMPLED: Final = 40  # streams whose files are compared
COLUMNS: Final = ("receiver", "streams", "zero-loss packets/s", "calls of 2 x 50/s", "limit")


@dataclass(slots=True)
class SearchResult:
    rate: float  # 0: not even the lowest
    generator_was_the_limit: bool
    precision: float = 0.0  # by how much the next rate that failed is higher, as a share
    trials: list[dict[str, Any]] = field(default_factory=list)


def bisect(
    good: Callable[[float], bool | None],
    confirm: Callable[[float], bool | None],
    low: float,
    high: float,
    hurry: Callable[[], bool] = lambda: False,
) -> SearchResult:
    """The highest rate that is ``good`` and confirmed. ``hurry``: time is up, and what was found is confirmed.

    Both say None where the generator could not send that fast: such a rate says nothing of the receiver.
    """
    limited = False
    top = 0.0
    while high / low > 1 + _PRECISION and not hurry():
        rate = (low * high) ** 0.5
        verdict = good(rate)
        if verdict:
            top = low = rate
        else:
            limited = verdict is None
            high = rate
    rate, retreat = top or low, _RETREAT
    for _ in range(_MAX_CONFIRMATIONS):
        verdict = confirm(rate)
        if verdict:
            return SearchResult(rate, limited, high / rate - 1)
        limited, high = verdict is None, rate
        rate *= retreat
        retreat *= retreat
    return SearchResult(0.0, limited)


def zero_loss_rate(
    receiver: str,
    streams: int,
    work: Path,
    *,
    trial_s: float,
    confirm_s: float,
    bounds: tuple[float, float],
    hurry: Callable[[], bool] = lambda: False,
    segment: bool = True,
    note: Callable[[str], None] = lambda text: None,
) -> SearchResult:
    """Search the highest rate at which ``receiver`` loses nothing and every checked answer is right."""
    trials: list[dict[str, Any]] = []

    def attempt(rate: float, seconds: float) -> bool | None:
        note(f"{receiver}, {streams:,} streams: {rate:,.0f} packets/s for {seconds:g} s")
        trial = run_trial(receiver, Load(streams, rate, seconds, segment=segment), work, samples=_SAMPLED)
        trials.append({"rate": rate, "seconds": seconds, **trial.as_dict()})
        if trial.generator_was_the_limit and trial.exact:
            return None
        return trial.exact

    found = bisect(lambda rate: attempt(rate, trial_s), lambda rate: attempt(rate, confirm_s), *bounds, hurry)
    found.trials = trials
    return found


def measure(settings: Settings) -> Outcome:
    runs = settings.repeat(5)
    trial_s, confirm_s = (1.0, 3.0) if settings.quick else (1.5, 6.0)
    cases = [(receiver, streams) for streams in (1000, 5000) for receiver in ("monitor", "arrays", "wav")]
    found: dict[tuple[str, int], list[SearchResult]] = {case: [] for case in cases}
    began, rounds = time.monotonic(), 0
    with settings.work() as work:
        while rounds < runs and _fits(time.monotonic() - began, rounds):
            for number, case in enumerate(cases):
                earlier = [f.rate for f in found[case] if f.rate]
                before, after = _BOUNDS_AROUND_EARLIER
                bounds = (earlier[-1] * before, earlier[-1] * after) if earlier else (_LOWEST_RATE * 4, _HIGHEST_RATE)
                left_s = _LIMIT_S - (time.monotonic() - began)
                until_s = time.monotonic() + _HALVING_SHARE * left_s / (len(cases) - number)
                found[case].append(
                    zero_loss_rate(
                        *case, work, trial_s=trial_s, confirm_s=confirm_s, bounds=bounds, note=settings.progress,
                        hurry=lambda until_s=until_s: time.monotonic() > until_s,  # type: ignore[misc]
                    )
                )  # fmt: skip
            rounds += 1
    title = f"the highest rate without loss on one core, confirmed over {confirm_s:g} s; median (range) of {rounds}"
    outcome = Outcome("zero-loss", title, COLUMNS)
    if rounds < runs:
        outcome.notes.append(f"{rounds} of {runs} rounds: there were {_LIMIT_S / 60:g} minutes for all")
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
                "precision": [f.precision for f in group],
                "generator_was_the_limit": [f.generator_was_the_limit for f in group],
                "trials": [f.trials for f in group],
            }
        )
        if not all(rates):
            outcome.wrong.append(f"{receiver}, {streams} streams: no rate without loss")
    return outcome


def _fits(spent_s: float, rounds: int) -> bool:
    """Whether there is time for one more round, as long as those before it were."""
    return not rounds or spent_s * (rounds + 1) / rounds <= _LIMIT_S
