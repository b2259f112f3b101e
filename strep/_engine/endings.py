"""How streams end: what they hold leaves, their key goes, their last figures are told, their row is free."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._model.events import Ended, Event, Started
from .._model.report import StreamReport
from .._model.types import StreamInfo
from .accounts import Accounts
from .containment import Containment
from .playout import Playout
from .state import StreamState, each_of

__all__ = ["Endings"]

I64 = npt.NDArray[np.int64]


class Endings:
    """``last_events`` gives what is still to be told of a stream whose packets have all left. Events are appended to
    ``events``."""

    def __init__(
        self,
        state: StreamState,
        accounts: Accounts,
        containment: Containment,
        playout: Playout,
        last_events: Callable[[StreamInfo], list[Event]],
        events: list[Event],
    ) -> None:
        self._state = state
        self._accounts = accounts
        self._containment = containment
        self._playout = playout
        self._last_events = last_events
        self._events = events

    def end(self, rows: I64, reason: str) -> None:
        """End the streams in these rows (distinct): "idle", "closed", "evicted", "stopped" or "fault"."""
        if not rows.size:
            return
        self._playout.drain(rows)
        try:
            self._state.table.remove(rows)
        except Exception as error:
            self._containment.broken("end", error)
            self._rebuild_table(set(rows.tolist()))
        for row, derived in zip(rows.tolist(), self._derived(rows), strict=True):
            self._end_one(row, reason, derived=derived)

    def end_aside(self) -> None:
        """End the streams that were set aside."""
        if self._containment.aside:
            self.end(np.array(sorted(self._containment.aside), np.int64), "fault")

    def end_idle(self, until_ns: int) -> None:
        """End the streams of which nothing has come since ``until_ns``."""
        infos = self._state.registry.info
        rows = np.flatnonzero(self._state.reception.last_arrival_ns[: len(infos)] <= until_ns)
        if rows.size:
            live = [row for row in rows.tolist() if infos[row] is not None]
            if live:
                self.end(np.array(live, np.int64), "idle")

    def end_begun(self, first_serial: int) -> None:
        """Streams from this serial on began in the middle of something that failed: they end, and what they hold is
        forgotten."""
        self._playout.hand_over_waiting()
        begun = [info for info in self._state.registry.live() if info.serial >= first_serial]
        self._rebuild_table({info.index for info in begun})
        told = {event.stream.serial for event in self._events if isinstance(event, Started)}
        for info in begun:
            self._end_one(info.index, "fault", told=info.serial in told)

    def _derived(self, rows: I64) -> Sequence[Mapping[str, Any] | None]:
        """What reports of these rows need that costs as much for one as for all; None: each is tried by itself."""
        try:
            return each_of(self._state.derived(rows))
        except Exception:  # it is told when it arises for the stream alone
            return [None] * len(rows)

    def _end_one(self, row: int, reason: str, *, told: bool = True, derived: Mapping[str, Any] | None = None) -> None:
        """A stream that holds nothing and has no key any more. ``told``: that it began."""
        info = self._state.registry.info[row]
        if self._containment.aside.pop(row, None) is not None:
            reason = "fault"
        if info is not None:
            try:
                self._events += self._last_events(info)
            except Exception as error:
                self._containment.lost("end", error, 0)
            if told:
                self._events.append(Ended(info, self._last_report(info, reason, derived)))
        try:
            self._state.close(row)
        except Exception as error:
            self._containment.lost("end", error, 0)
            self._state.registry.info[row] = None  # and nobody gets this row again
        self._accounts.streams_ended += 1

    def _last_report(self, info: StreamInfo, reason: str, derived: Mapping[str, Any] | None) -> StreamReport:
        try:
            return self._state.report(info, reason, derived)
        except Exception as error:
            self._containment.lost("end", error, 0)
            return StreamReport.empty(info, reason)

    def _rebuild_table(self, without: set[int]) -> None:
        """Enter the keys of all live streams but those in these rows anew."""
        table = self._state.table
        live = self._state.registry.live()
        rows = np.array([info.index for info in live if info.index not in without], np.int64)
        keys = table.keys(rows)
        table.clear()
        if rows.size:
            table.add(rows, *keys)
