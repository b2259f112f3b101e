"""Call control: start and stop forks through the API, and take the webhooks that tell how calls go.

:class:`CallControl` (asyncio) and :class:`SyncCallControl` speak to the API; :mod:`strep.control.webhooks` verifies and
parses what it sends; :mod:`strep.control.asgi` is an application that takes it; :class:`CallState` is what a call's
webhooks come to, in whatever order they come. :meth:`CallControl.fork` ties a call's fork to the streams that arrive.
Not imported by ``import strep``: it needs httpx.
"""

from ._answers import Call, CallEvent, CallEventPage, CommandResult
from ._client import CallControl, SyncCallControl
from ._diagnosis import Diagnosis, Facts, Finding
from ._errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CallEndedError,
    ConflictError,
    ErrorDetail,
    ForgedWebhookError,
    InternalServerError,
    MalformedWebhookError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    StaleWebhookError,
    UnprocessableEntityError,
    WebhookError,
)
from ._fork import Fork
from ._fork_event import ForkEvent
from ._fork_state import ForkLimits, ForkPhase
from ._forks import ForkRegistry
from ._retry import RetryPolicy
from ._secret import Secret
from .calls import CallPhase, CallState

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "Call",
    "CallControl",
    "CallEndedError",
    "CallEvent",
    "CallEventPage",
    "CallPhase",
    "CallState",
    "CommandResult",
    "ConflictError",
    "Diagnosis",
    "ErrorDetail",
    "Facts",
    "Finding",
    "ForgedWebhookError",
    "Fork",
    "ForkEvent",
    "ForkLimits",
    "ForkPhase",
    "ForkRegistry",
    "InternalServerError",
    "MalformedWebhookError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "RetryPolicy",
    "Secret",
    "StaleWebhookError",
    "SyncCallControl",
    "UnprocessableEntityError",
    "WebhookError",
]
