"""Trouble that is asked for: of the API's answers and of the webhooks. Deterministic by seed. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from .._model.exceptions import ConfigurationError

__all__ = ["Fault", "Faults", "Misfortune", "WebhookFaults"]


class Fault(StrEnum):
    """What happens to a request."""

    TOO_MANY = "429"  # nothing is done; Retry-After says when
    UNAVAILABLE = "503"  # nothing is done
    LOST = "500"  # it is done, and answered with an error all the same
    CUT = "cut"  # it is done, and the connection ends within the answer
    HANG = "hang"  # it is done, and never answered


@dataclass(frozen=True, slots=True)
class Faults:
    """Of the API: every answer ``latency_ms`` late; probabilities 0 to 1 of requests that fail.

    ``rate_5xx``: half of them have taken effect (500), half have not (503). What hangs has taken effect.
    Raises ConfigurationError.
    """

    latency_ms: float = 0.0
    rate_429: float = 0.0
    rate_5xx: float = 0.0
    rate_hang: float = 0.0
    retry_after_s: float = 1.0

    def __post_init__(self) -> None:
        rates = self.rate_429, self.rate_5xx, self.rate_hang
        if not all(rate >= 0 for rate in rates) or sum(rates) > 1:
            raise ConfigurationError(f"rates of 429, 5xx and hanging {rates}: 0 or more, together 1 at most")
        if not (0 <= self.latency_ms < 1e6 and 0 <= self.retry_after_s < 1e6):
            raise ConfigurationError(f"latency {self.latency_ms} ms, Retry-After {self.retry_after_s} s: 0 or more")


@dataclass(frozen=True, slots=True)
class WebhookFaults:
    """Of webhooks: ``duplicate`` and ``drop`` are probabilities; ``reorder``: each is up to ``delay_s`` late by itself.

    One that is not answered with 2xx is sent again ``retries`` times, the first after ``retry_s``, then after twice
    that, and so on. Raises ConfigurationError.
    """

    duplicate: float = 0.0
    drop: float = 0.0
    reorder: bool = False
    delay_s: float = 0.2
    retries: int = 4
    retry_s: float = 0.25

    def __post_init__(self) -> None:
        for name in ("duplicate", "drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"webhook {name} {getattr(self, name)}: a probability from 0 to 1")
        if self.delay_s < 0 or self.retries < 0 or self.retry_s < 0:
            raise ConfigurationError("delay, retries and time between them: 0 or more")


class Misfortune:
    """Which request meets which fault: those of ``fail_next`` first, in turn."""

    def __init__(self, faults: Faults, seed: int | None) -> None:
        self.faults = faults
        self._rng = np.random.default_rng(seed)
        self._script: deque[Fault | None] = deque()

    def fail_next(self, *faults: Fault | str | None) -> None:
        """What the next requests meet; None: nothing."""
        self._script.extend(None if fault is None else Fault(fault) for fault in faults)

    def draw(self) -> Fault | None:
        if self._script:
            return self._script.popleft()
        faults = self.faults
        chance, half = self._rng.random(2)
        if chance < faults.rate_429:
            return Fault.TOO_MANY
        if chance < faults.rate_429 + faults.rate_5xx:
            return Fault.UNAVAILABLE if half < 0.5 else Fault.LOST
        if chance < faults.rate_429 + faults.rate_5xx + faults.rate_hang:
            return Fault.HANG
        return None
