"""What the stand-in remembers: the entries of ``/call_events``, and which commands it has carried out. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from ._answers import Answer, Problem, Refusal
from ._call import NEVER_NS, CallRecord
from ._requests import Command, Page

__all__ = ["COMMAND_WINDOW_NS", "CallRecords", "CommandMemory"]

COMMAND_WINDOW_NS: Final = 60_000_000_000
_RECORDS_KEPT: Final = 10_000


class CallRecords(deque[CallRecord]):
    """The last entries of ``/call_events``, the oldest first."""

    def __init__(self) -> None:
        super().__init__(maxlen=_RECORDS_KEPT)

    def page(self, page: Page) -> Answer:
        """Commands and webhooks so far. Raises Refusal for a filter the contract does not have."""
        found = [record for record in self if _matches(record, page.filters)]
        first = (page.number - 1) * page.size
        meta = {
            "page_number": page.number,
            "page_size": page.size,
            "total_pages": -(-len(found) // page.size),
            "total_results": len(found),
        }
        return Answer(200, {"data": [r.as_dict() for r in found[first : first + page.size]], "meta": meta})


class CommandMemory:
    """Which commands, by call and command_id, were carried out within the last 60 s, and how they were answered."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], tuple[int, Answer]] = {}  # in order of time

    def answer(self, call_control_id: str, command: Command, now_ns: int) -> Answer | None:
        """The answer that this command got before; None: it is new."""
        if command.command_id is None:
            return None
        when, answer = self._answers.get((call_control_id, command.command_id), (-NEVER_NS, None))
        return answer if now_ns - when < COMMAND_WINDOW_NS else None

    def remember(self, call_control_id: str, command: Command, now_ns: int, answer: Answer) -> None:
        """This command has been carried out. One without a command_id is not known again."""
        while self._answers:
            oldest = next(iter(self._answers))
            if now_ns - self._answers[oldest][0] < COMMAND_WINDOW_NS:
                break
            del self._answers[oldest]
        if command.command_id is not None:
            self._answers[call_control_id, command.command_id] = now_ns, answer


def _matches(record: CallRecord, filters: dict[str, str]) -> bool:
    own = record.as_dict()
    when = own["event_timestamp"]
    for name, value in filters.items():
        if name == "status":
            fits = record.status == value
        elif name in ("call_leg_id", "call_session_id", "type"):
            fits = own[name] == value
        elif name == "event_timestamp][gt":
            fits = when > value
        elif name == "event_timestamp][gte":
            fits = when >= value
        elif name == "event_timestamp][lt":
            fits = when < value
        elif name == "event_timestamp][lte":
            fits = when <= value
        elif name == "event_timestamp][eq":
            fits = when == value
        else:
            detail = f"filter[{name}] is no filter of call events."
            raise Refusal(422, Problem("10015", "Invalid value", detail, parameter=f"filter[{name}]"))
        if not fits:
            return False
    return True
