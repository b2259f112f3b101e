"""What a command's error says of the fork that it was for. Pure."""

from __future__ import annotations

from typing import Final

from .._model.exceptions import ConfigurationError
from ._errors import APIError, APIStatusError, CallEndedError

__all__ = ["call_is_over", "error_text", "may_have_had_effect"]

_NO_CALL: Final = "90015"  # invalid call_control_id
_UNDECIDED: Final = (408, 409, 429)  # of 4xx


def error_text(error: BaseException) -> str:
    """What it says, for logs and events."""
    return error.message if isinstance(error, APIError) else f"{type(error).__name__}: {error}"


def may_have_had_effect(error: BaseException) -> bool:
    """Whether a command may have done what it says, though it failed."""
    if isinstance(error, APIStatusError):
        return error.status_code >= 500 or error.status_code in _UNDECIDED
    return not isinstance(error, ConfigurationError)


def call_is_over(error: BaseException, forked: bool) -> bool:
    """Whether the error says that the call has ended; of one that was ``forked`` before, that it is not known."""
    if isinstance(error, CallEndedError):
        return True
    return forked and isinstance(error, APIStatusError) and (error.status_code == 404 or _NO_CALL in error.codes)
