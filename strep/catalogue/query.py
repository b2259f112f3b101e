"""What calls are looked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._model.exceptions import ConfigurationError

__all__ = ["OUTCOMES", "CallQuery"]

OUTCOMES = ("live", "recorded", "recovered", "no_media", "no_file", "failed")


@dataclass(frozen=True)
class CallQuery:
    """All that is given must hold, of one leg of the call.

    ``from_number``, ``to_number``  a number, or a pattern with ``*``
    ``since_ns``, ``until_ns``  the call began in [since, until), UTC nanoseconds
    ``outcome``    one of "live", "recorded", "recovered", "no_media", "no_file", "failed"
    ``mos_below``  its worst ten seconds were below
    ``tags``       key and value
    ``limit``      of calls, the latest ones

    Raises ConfigurationError.
    """

    from_number: str | None = None
    to_number: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    outcome: str | None = None
    mos_below: float | None = None
    tags: dict[str, str] = field(default_factory=dict)
    limit: int = 100

    def __post_init__(self) -> None:
        if self.outcome is not None and self.outcome not in OUTCOMES:
            raise ConfigurationError(f"outcome {self.outcome!r}: choose {', '.join(OUTCOMES)}")
        if self.limit < 1:
            raise ConfigurationError(f"limit {self.limit}: choose 1 or more")
