"""What calls came to, counted when their files are there, and the files that tell of their legs."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..control.calls import CallState
from ._legs import Figures, LegStreams, LegWriter
from ._recording import CallDesk, Recording
from ._telling import heard_s, leg_entry, told_of

__all__ = ["LegOutcomes"]

_LEGS_IN_SUMMARY: Final = 1000
_NEEDS_NO_FILE_S: Final = 0.5  # of audio


class LegOutcomes:
    """``counts``: what calls came to, as :class:`CallRecorder` names it. ``legs``: the last 1,000 of them, for the
    summary. ``writer`` writes ``leg.json``. ``live`` says whether a call is being recorded."""

    def __init__(
        self,
        directory: Path,
        receiver: Figures,
        streams: LegStreams,
        desk: CallDesk,
        live: Callable[[str], bool],
    ) -> None:
        self._directory = directory
        self._streams = streams
        self._desk = desk
        self._live = live
        self.counts: Counter[str] = Counter(
            recorded=0, no_file=0, failed=0, no_media=0, owned_elsewhere=0, missed=0, unannounced=0
        )
        self.legs: deque[dict[str, Any]] = deque(maxlen=_LEGS_IN_SUMMARY)
        self.writer = LegWriter(
            directory, receiver, streams, self.written, on_done=self._done, keep=desk.keep, clock=desk.clock
        )
        streams.on_silent = self._silent

    def over(self, recording: Recording, outcome: str) -> None:
        """A call is recorded no more, and came to that; "" is not counted."""
        leg = recording.call_leg_id or recording.state.call_leg_id
        if leg is not None:
            self._desk.held.pop(leg, None)
        if leg is not None and (self._streams.ended(leg) or self._streams.live(leg)):
            calls = int(outcome == "recorded")
            self.writer.over(leg, lambda: self.describe(leg, recording), calls=calls)
            outcome = "" if calls else outcome  # it is counted when its files are there
        elif outcome == "recorded":
            outcome = "no_media"
            if leg is not None:
                self.writer.over(leg, lambda: self.describe(leg, recording))
        if outcome:
            self.counts[outcome] += 1

    def describe(self, call_leg_id: uuid.UUID, recording: Recording | None) -> dict[str, Any]:
        """What is known of a leg's call, for its ``leg.json``."""
        book = self._desk.book
        state = recording.state if recording is not None else book.by_leg(call_leg_id) or CallState()
        return {
            "call_leg_id": str(call_leg_id),
            **told_of(state, book.leg_of(state)),
            "error": None if recording is None else recording.error,
            "silent": [] if recording is None else recording.silent,
            "fork_events": [] if recording is None else recording.events,
        }

    def written(self, path: Path, found: dict[str, Any]) -> None:
        """A ``leg.json`` has been written."""
        entry = leg_entry(path.relative_to(self._directory).as_posix(), found)
        self.legs.append(entry)
        self._desk.tell({"event": "leg", **entry})

    def recovered(self, path: Path, found: dict[str, Any]) -> None:
        """A ``leg.json`` has been written of what a dead process left behind."""
        self._desk.keep(found, path.relative_to(self._directory).as_posix())
        self.written(path, found)

    def _done(self, entries: list[dict[str, Any]], calls: int) -> str | None:
        """All sinks are done with a leg; returns what is wrong with its files."""
        without = [entry["direction"] for entry in entries if not entry["files"] and heard_s(entry) > _NEEDS_NO_FILE_S]
        self.counts["no_file" if without else "recorded"] += calls
        if not without:
            return None
        return f"no file could be made of {' and '.join(sorted(set(without)))}: the summary's sinks say why"

    def _silent(self, call_leg_id: uuid.UUID) -> None:
        """A leg has no streams any more: write its file, unless its call is held, which does so when it ends."""
        state = self._desk.book.by_leg(call_leg_id)
        if self.writer.has(call_leg_id) or call_leg_id in self._desk.held:
            return
        if state is None or state.call_control_id is None or not self._live(state.call_control_id):
            if state is None:
                self.counts["unannounced"] += 1
            self.writer.over(call_leg_id, lambda: self.describe(call_leg_id, None))
