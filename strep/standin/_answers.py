"""What the stand-in answers: bodies and status codes, errors in the form of the contract. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["OK", "Answer", "Problem", "Refusal", "call_ended", "not_answered", "not_found", "unknown_call"]

_ERRORS_URL: Final = "https://developers.telnyx.com/docs/overview/errors/"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


OK: Final = Answer(200, {"data": {"result": "ok"}})


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry of ``errors``. ``pointer`` is a JSON pointer into the body (RFC 6901), ``parameter`` of the query."""

    code: str
    title: str
    detail: str
    pointer: str | None = None
    parameter: str | None = None

    def as_dict(self) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "code": self.code,
            "title": self.title,
            "detail": self.detail,
            "meta": {"url": _ERRORS_URL + self.code},
        }
        if self.pointer is not None:
            entry["source"] = {"pointer": self.pointer}
        elif self.parameter is not None:
            entry["source"] = {"parameter": self.parameter}
        return entry


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, *problems: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__("; ".join(p.detail for p in problems))
        self.answer = Answer(status, {"errors": [p.as_dict() for p in problems]}, headers or {})


def unknown_call() -> Refusal:
    return Refusal(
        422,
        Problem(
            "90015",
            "Invalid Call Control ID",
            "The call_control_id provided was not valid.",
            pointer="/call_control_id",
        ),
    )


def call_ended() -> Refusal:
    return Refusal(
        422,
        Problem(
            "90018",
            "Call has already ended",
            "This call is no longer active and can't receive commands.",
        ),
    )


def not_answered(command: str) -> Refusal:
    return Refusal(
        422,
        Problem(
            "90034",
            "Call not answered yet",
            f"This call can't receive {command} command because it has not been answered yet.",
        ),
    )


def not_found(what: str) -> Refusal:
    return Refusal(404, Problem("10005", "Resource not found", f"{what} could not be found."))
