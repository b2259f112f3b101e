"""call_leg_ids as users write them."""

from __future__ import annotations

import uuid

from .exceptions import ConfigurationError

__all__ = ["parse_call_leg_id", "require_call_leg_id"]


def parse_call_leg_id(value: uuid.UUID | str | None) -> uuid.UUID | None:
    """A call_leg_id as a UUID; None stays None. Raises ConfigurationError if the text is not a UUID."""
    if value is None or isinstance(value, uuid.UUID):
        return value
    try:
        return uuid.UUID(value)
    except ValueError:
        raise ConfigurationError(
            f"call_leg_id {value!r} is not a UUID like 428c31b6-7af4-4bcb-b7f5-5013ef9657c1"
        ) from None


def require_call_leg_id(value: uuid.UUID | str) -> uuid.UUID:
    """The same where there has to be one. Raises ConfigurationError."""
    leg = parse_call_leg_id(value)
    if leg is None:
        raise ConfigurationError("no call_leg_id: give a UUID")
    return leg
