"""What the call-control API can answer instead of success. Pure.

StrepError
├── APIError                              carries operation, command_id, attempts
│   ├── APIConnectionError                no answer: refused, reset, no such host
│   │   └── APITimeoutError               none in time
│   ├── APIResponseValidationError        an answer that is not what the contract says
│   └── APIStatusError                    carries status_code, errors, request_id, retry_after_s, body
│       ├── BadRequestError (400)
│       ├── AuthenticationError (401)
│       ├── PermissionDeniedError (403)
│       ├── NotFoundError (404)
│       ├── ConflictError (409)
│       ├── UnprocessableEntityError (422)
│       │   └── CallEndedError            code 90018: the call has already ended
│       ├── RateLimitError (429)
│       └── InternalServerError (5xx)
└── WebhookError                          a request that is no webhook to act on
    ├── ForgedWebhookError                not signed, or not with this key
    ├── StaleWebhookError                 its time is too far from now
    └── MalformedWebhookError             signed, but not an event

The API's part is named like the official SDK's. None of them holds the request: the API key is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from .._model.exceptions import StrepError

__all__ = [
    "CALL_ENDED",
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "CallEndedError",
    "ConflictError",
    "ErrorDetail",
    "ForgedWebhookError",
    "InternalServerError",
    "MalformedWebhookError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "StaleWebhookError",
    "UnprocessableEntityError",
    "WebhookError",
    "parse_errors",
    "status_error",
]

CALL_ENDED: Final = "90018"
_BODY_KEPT: Final = 2000  # characters of a body kept with an error
_LETTERS_SHOWN: Final = 120


@dataclass(frozen=True)
class ErrorDetail:
    """An entry of an answer's ``errors``. ``pointer`` and ``parameter`` say what of the request is meant."""

    code: str
    title: str
    detail: str | None = None
    pointer: str | None = None
    parameter: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        text = " ".join(part for part in (self.code, self.title) if part)
        if self.detail and self.detail != self.title:
            text += f": {self.detail}"
        where = self.pointer or self.parameter
        return f"{text} ({where})" if where else text


class APIError(StrepError):
    """A command did not succeed.

    ``operation`` is the method's name, ``attempts`` how many requests were sent. ``command_id`` is what all of them
    carried: a later repetition with it, within 60 s, is safe.
    """

    def __init__(
        self, message: str, *, operation: str | None = None, command_id: str | None = None, attempts: int = 0
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.command_id = command_id
        self.attempts = attempts


class APIConnectionError(APIError):
    """No answer came: the connection was refused, reset or could not be made. The command may have had its effect."""


class APITimeoutError(APIConnectionError):
    """No answer came in time. The command may have had its effect."""


class APIResponseValidationError(APIError):
    """A 2xx answer that is not what the contract says (no JSON, or a required field is missing)."""


class APIStatusError(APIError):
    """The API refused: ``status_code``, its ``errors``, its ``request_id``; ``body`` is the text, at most 2,000
    characters of it; ``retry_after_s`` when it said how long to wait."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int = 0,
        errors: tuple[ErrorDetail, ...] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
        body: str = "",
        operation: str | None = None,
        command_id: str | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(message, operation=operation, command_id=command_id, attempts=attempts)
        self.status_code = status_code
        self.errors = errors
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.body = body

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of ``errors``."""
        return tuple(error.code for error in self.errors)


class BadRequestError(APIStatusError):
    """400."""


class AuthenticationError(APIStatusError):
    """401: the API key is missing, wrong or revoked."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""


class NotFoundError(APIStatusError):
    """404."""


class ConflictError(APIStatusError):
    """409, still after retries."""


class UnprocessableEntityError(APIStatusError):
    """422: the API understood and cannot; ``errors`` says why (90015: no such call_control_id)."""


class CallEndedError(UnprocessableEntityError):
    """422 with code 90018: the call has already ended."""


class RateLimitError(APIStatusError):
    """429, still after retries or asking for a longer wait than the deadline leaves."""


class InternalServerError(APIStatusError):
    """5xx, still after retries."""


class WebhookError(StrepError):
    """A request that is no webhook to act on."""


class ForgedWebhookError(WebhookError):
    """Not signed, or not with this public key, or changed on its way."""


class StaleWebhookError(WebhookError):
    """Its timestamp is more than the tolerance before or after now: a replay, or a clock that is wrong."""


class MalformedWebhookError(WebhookError):
    """Signed by the right key, but not a JSON object with an event in ``data``."""


_BY_STATUS: Final[dict[int, type[APIStatusError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def parse_errors(body: str) -> tuple[ErrorDetail, ...]:
    """The ``errors`` of an answer; () for a body that is not of the contract's form. Never raises."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    entries = document.get("errors") if isinstance(document, dict) else None
    return tuple(_detail(entry) for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()


def _detail(entry: dict[str, Any]) -> ErrorDetail:
    source = entry.get("source")
    meta = entry.get("meta")
    where = source if isinstance(source, dict) else {}
    return ErrorDetail(
        code=_text(entry.get("code")) or "",
        title=_text(entry.get("title")) or "",
        detail=_text(entry.get("detail")),
        pointer=_text(where.get("pointer")),
        parameter=_text(where.get("parameter")),
        meta=meta if isinstance(meta, dict) else {},
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def status_error(
    status: int,
    body: str,
    *,
    operation: str,
    command_id: str | None = None,
    attempts: int = 1,
    request_id: str | None = None,
    retry_after_s: float | None = None,
) -> APIStatusError:
    """The error of an answer that is not 2xx, of the class the official SDK gives that status."""
    errors = parse_errors(body)
    kind = _BY_STATUS.get(status, InternalServerError if status >= 500 else APIStatusError)
    if status == 422 and any(error.code == CALL_ENDED for error in errors):
        kind = CallEndedError
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    if errors:
        reason = "; ".join(map(str, errors))
    elif 300 <= status < 400:
        reason = "a redirection, which is not followed: check the base URL"
    elif text := " ".join(body.split()):
        reason = f"no errors in the answer, which begins {text[:_LETTERS_SHOWN]!r}"
    else:
        reason = "an empty answer"
    said = [part for part in (f"request {request_id}" if request_id else "",
                              f"{attempts} attempts" if attempts > 1 else "") if part]  # fmt: skip
    message = f"{operation}: {phrase}: {reason}" + (f" ({', '.join(said)})" if said else "")
    return kind(
        message, status_code=status, errors=errors, request_id=request_id, retry_after_s=retry_after_s,
        body=body[:_BODY_KEPT], operation=operation, command_id=command_id, attempts=attempts,
    )  # fmt: skip
