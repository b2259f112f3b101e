"""The attempts of one command: the outcome of each goes in, what to do next comes out. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ._answers import Answer
from ._errors import APIConnectionError, APIError, APIStatusError, APITimeoutError, CallEndedError, status_error
from ._figures import RequestFigures
from ._requests import Request
from ._retry import Failure, RetryPolicy, retry_after_s, retry_delay_s
from ._secret import Secret

__all__ = ["Broken", "Exchange", "Received"]

_REQUEST_ID: Final = "x-request-id"

log = logging.getLogger("strep.control")


@dataclass(frozen=True)
class Received:
    """An answer came. Names of headers in lower case. Its text is not in the repr: it may echo the key."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def kind(self) -> str:
        return str(self.status)


@dataclass(frozen=True)
class Broken:
    """No answer came, and why."""

    reason: str
    timeout: bool

    @property
    def kind(self) -> str:
        return "timeout" if self.timeout else "connection"


class Exchange:
    """One command: ``budget_s`` before each attempt, ``settle`` after it."""

    def __init__(
        self, request: Request[Any], policy: RetryPolicy, secret: Secret, figures: RequestFigures, started_s: float
    ) -> None:
        self._request = request
        self._figures = figures
        self._policy = policy
        self._secret = secret
        self._started_s = self._sent_s = started_s
        self._attempts = 0

    def budget_s(self, now_s: float) -> float:
        """Seconds the next attempt, which begins now, may take."""
        self._sent_s = now_s
        return max(0.001, min(self._policy.timeout_s, self._started_s + self._policy.deadline_s - now_s))

    def settle(
        self, outcome: Received | Broken, *, now_s: float, wall_s: float, random: Callable[[], float]
    ) -> float | Answer:
        """Seconds to wait before the next attempt, or the answer that ends the command. Raises APIError to give up."""
        self._attempts += 1
        self._figures.add(self._request.operation, outcome.kind, now_s - self._sent_s)
        error: APIError
        if isinstance(outcome, Received):
            if 200 <= outcome.status < 300:
                return self._answered(outcome)
            error = self._refused(outcome, wall_s)
            if isinstance(error, CallEndedError) and self._request.ended_is_success:
                return self._answered(outcome, already_ended=True)
            failure = Failure("status", outcome.status, outcome.headers)
        else:
            error = self._unanswered(outcome)
            failure = Failure("timeout" if outcome.timeout else "connection")
        delay = retry_delay_s(
            self._policy, self._attempts, failure, elapsed_s=now_s - self._started_s, now=wall_s, random=random
        )
        if delay is None:
            raise error
        log.info("%s; attempt %d in %.1f s", error, self._attempts + 1, delay)
        return delay

    def closed(self) -> APIError:
        """What becomes of a command whose client is closed before it has come to an end."""
        return self._unanswered(Broken("the client has been closed", timeout=False))

    def _answered(self, outcome: Received, *, already_ended: bool = False) -> Answer:
        return Answer(
            self._request.operation, self._text(outcome), self._request.command_id, outcome.headers.get(_REQUEST_ID),
            self._attempts, already_ended,
        )  # fmt: skip

    def _text(self, outcome: Received) -> str:
        return self._secret.redact(outcome.body.decode("utf-8", "replace"))

    def _refused(self, outcome: Received, wall_s: float) -> APIStatusError:
        return status_error(
            outcome.status, self._text(outcome), operation=self._request.operation, command_id=self._request.command_id,
            attempts=self._attempts, request_id=outcome.headers.get(_REQUEST_ID),
            retry_after_s=retry_after_s(outcome.headers, wall_s),
        )  # fmt: skip

    def _unanswered(self, outcome: Broken) -> APIConnectionError:
        operation, command_id = self._request.operation, self._request.command_id
        kind = APITimeoutError if outcome.timeout else APIConnectionError
        after = f" ({self._attempts} attempts)" if self._attempts > 1 else ""
        message = self._secret.redact(f"{operation}: no answer: {outcome.reason}{after}")
        return kind(message, operation=operation, command_id=command_id, attempts=self._attempts)
