"""Whether to send a request again, and when. Pure.

Exponential backoff with full jitter: before retry n (0, 1, …) a wait uniform in [0, min(cap, base · 2ⁿ)], never less
than what ``Retry-After`` asks for (RFC 9110 section 10.2.3). All of a command's requests are sent within the deadline,
which is less than the 60 s in which the API ignores a repeated command_id: so a retry never does a thing twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Literal

from .._model.exceptions import ConfigurationError

__all__ = ["DEDUPLICATION_S", "Failure", "RetryPolicy", "retry_after_s", "retry_delay_s"]

DEDUPLICATION_S: Final = 60.0  # documented: commands with a command_id seen within it are ignored
_RETRIED: Final = frozenset({408, 409, 429})


@dataclass(frozen=True)
class RetryPolicy:
    """How long to try. Times in seconds.

    timeout_s: of one request; deadline_s: of all of a command's, waits included, below 60;
    base_s, cap_s: the longest wait before the first retry, and before any.
    """

    timeout_s: float = 10.0
    deadline_s: float = 55.0
    max_retries: int = 6
    base_s: float = 0.5
    cap_s: float = 8.0

    def __post_init__(self) -> None:
        if not 0 < self.deadline_s < DEDUPLICATION_S:
            raise ConfigurationError(
                f"deadline_s={self.deadline_s:g}: must be above 0 and below {DEDUPLICATION_S:g}: after that the API "
                "does not know a repeated command_id again"
            )
        if not 0 < self.timeout_s < math.inf:
            raise ConfigurationError(f"timeout_s={self.timeout_s:g}: must be above 0")
        if self.max_retries < 0 or not 0 <= self.base_s <= self.cap_s < math.inf:
            raise ConfigurationError("need max_retries >= 0 and 0 <= base_s <= cap_s")


@dataclass(frozen=True)
class Failure:
    """What an attempt ended with: a status that is not 2xx and the answer's headers (names in lower case), or none."""

    kind: Literal["status", "connection", "timeout"]
    status: int = 0
    headers: Mapping[str, str] | None = None

    @property
    def transient(self) -> bool:
        """Whether another attempt may end better."""
        return self.kind != "status" or self.status in _RETRIED or self.status >= 500


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait by ``retry-after`` (a number or an HTTP date); None when there is none that makes sense.

    A date is taken relative to the answer's own ``date``, when it has one, so that this machine's clock is no matter;
    else to ``now`` (Unix seconds).
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.replace(".", "", 1).isdecimal() and text.isascii():
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    when = _http_date(text)
    if when is None:
        return None
    sent = _http_date(headers.get("date", ""))
    return max(0.0, when - (now if sent is None else sent))


def _http_date(text: str) -> float | None:
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def retry_delay_s(
    policy: RetryPolicy, attempt: int, failure: Failure, *, elapsed_s: float, now: float, random: Callable[[], float]
) -> float | None:
    """Seconds until the next attempt; None to give up.

    attempt: how many have failed, this one included; elapsed_s: since the first began; now: Unix seconds;
    random: uniform in [0, 1).
    """
    if not failure.transient or attempt > policy.max_retries:
        return None
    delay = random() * min(policy.cap_s, policy.base_s * 2.0 ** min(attempt - 1, 64))
    asked = retry_after_s(failure.headers, now) if failure.headers else None
    if asked is not None:
        delay = max(delay, asked)
    return delay if elapsed_s + delay < policy.deadline_s else None
