"""What was received of each call leg, and ``DIR/<call_leg_id>/leg.json``, which tells it.

A leg's file is written when the leg is over and all sinks are done with its streams. If that takes long (files that
other legs share), it is written once before and once more in the end. Nothing is kept of a leg after that.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from .._model.report import StreamReport
from .._model.types import StreamInfo
from ..sinks.base import BaseSink
from ._json_files import write_json

__all__ = ["Figures", "LegStreams", "LegWriter", "Pending"]

log = logging.getLogger("strep.service")

_COMPLETE_WITHIN_S: Final = 5.0  # after that a leg is told of as far as it goes
_COMPLETE_AT_LAST_S: Final = 4 * 3600.0  # the longest that files are waited for: calls last no longer
_LOOK_S: Final = 0.1
_AGAIN_S: Final = 5.0  # between two tries to write a file that the disk did not take
_UNWRITTEN_LEGS: Final = 10_000  # legs whose files the disk does not take; of more the oldest are given up
_STREAMS_PER_LEG: Final = 1000
_LEGS_TOLD: Final = 1000  # whose trouble with the disk was logged


class Figures(Protocol):
    """What a receiver tells of streams that have ended."""

    def settled(self, stream: StreamInfo) -> bool:
        """Whether all sinks are done with one: its entry does not change any more."""

    def entry(self, report: StreamReport) -> dict[str, Any]:
        """Its entry in the leg's file."""


class LegStreams(BaseSink):
    """A sink that knows which streams a leg has and had; ``on_silent`` is called when a leg has none any more."""

    kind = "legs"
    inline = True
    wants_audio = False

    def __init__(self) -> None:
        self._live: dict[uuid.UUID, dict[int, StreamInfo]] = {}
        self._ended: dict[uuid.UUID, deque[StreamReport]] = {}
        self.on_silent: Callable[[uuid.UUID], object] = lambda call_leg_id: None

    def stream_started(self, stream: StreamInfo) -> None:
        if stream.call_leg_id is not None:
            self._live.setdefault(stream.call_leg_id, {})[stream.serial] = stream

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        leg = stream.call_leg_id
        if leg is None:
            return
        self._ended.setdefault(leg, deque(maxlen=_STREAMS_PER_LEG)).append(report)
        live = self._live.get(leg, {})
        live.pop(stream.serial, None)
        if not live:
            self._live.pop(leg, None)
            self.on_silent(leg)

    def live(self, call_leg_id: uuid.UUID) -> list[StreamInfo]:
        """Streams of a leg that live."""
        return list(self._live.get(call_leg_id, {}).values())

    def ended(self, call_leg_id: uuid.UUID) -> list[StreamReport]:
        """Reports of streams of a leg that have ended."""
        return list(self._ended.get(call_leg_id, ()))

    def forget(self, call_leg_id: uuid.UUID) -> None:
        """Forget the reports of a leg."""
        self._ended.pop(call_leg_id, None)


@dataclass(slots=True)
class Pending:
    """A leg that is over. ``describe`` tells, at the moment, what is known of the call; ``calls``: how many recordings
    of it there were."""

    call_leg_id: uuid.UUID
    describe: Callable[[], dict[str, Any]]
    since_s: float
    calls: int = 0
    reports: list[StreamReport] = field(default_factory=list)
    written: Path | None = None
    told: bool = False
    again_s: float = 0.0  # when a file that could not be written is tried again


class LegWriter:
    """Writes the files of legs that are over. ``on_written`` hears of each leg once: its file and what stands in it.
    ``keep`` hears each time that it is written: what stands in it, and its path below the directory.
    ``on_done`` hears, when its sinks are done with it, of the entries of its streams and how many recordings they are.
    """

    def __init__(
        self,
        directory: Path,
        receiver: Figures,
        streams: LegStreams,
        on_written: Callable[[Path, dict[str, Any]], object],
        *,
        on_done: Callable[[list[dict[str, Any]], int], str | None] = lambda entries, calls: None,
        keep: Callable[[dict[str, Any], str], object] = lambda found, file: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._receiver = receiver
        self._streams = streams
        self._on_written = on_written
        self._on_done = on_done
        self._keep = keep
        self._clock = clock
        self._pending: dict[uuid.UUID, Pending] = {}
        self._wake = asyncio.Event()
        self._told: deque[uuid.UUID] = deque(maxlen=_LEGS_TOLD)  # legs whose files could not be written
        self.failed = 0  # tries to write one that the disk did not take

    @property
    def waiting(self) -> int:
        """Legs that are over and not told of yet, or not for the last time."""
        return len(self._pending)

    def has(self, call_leg_id: uuid.UUID) -> bool:
        """Whether the leg is among them."""
        return call_leg_id in self._pending

    def over(self, call_leg_id: uuid.UUID, describe: Callable[[], dict[str, Any]], *, calls: int = 0) -> None:
        """The leg is over: its streams have ended, or will in a moment."""
        before = self._pending.get(call_leg_id)
        self._pending[call_leg_id] = pending = Pending(call_leg_id, describe, self._clock(), calls)
        if before is not None:  # it was forked again at once: one file tells of both
            pending.reports, pending.written, pending.told = before.reports, before.written, before.told
            pending.calls += before.calls
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            await self.look()
            if not self._pending:
                self._wake.clear()
            await asyncio.sleep(_LOOK_S)

    async def look(self, *, last: bool = False) -> None:
        """Write what can be written; ``last``: whatever there is."""
        for pending in list(self._pending.values()):
            leg, age_s = pending.call_leg_id, self._clock() - pending.since_s
            live = bool(self._streams.live(leg))
            if not last and ((live and age_s < _COMPLETE_WITHIN_S) or self._clock() < pending.again_s):
                continue
            known = {report.stream.serial for report in pending.reports}
            pending.reports += [r for r in self._streams.ended(leg) if r.stream.serial not in known]
            settled = not live and all(self._receiver.settled(report.stream) for report in pending.reports)
            done = settled or last or age_s > _COMPLETE_AT_LAST_S
            if not done and (pending.told or age_s <= _COMPLETE_WITHIN_S):
                continue
            kept = await self._write(pending, done)
            if self._pending.get(leg) is not pending:
                continue  # it has been forked again meanwhile
            if done and (kept or last or len(self._pending) > _UNWRITTEN_LEGS):
                self._pending.pop(leg, None)
                self._streams.forget(leg)

    async def _write(self, pending: Pending, done: bool) -> bool:
        """Whether the disk took it."""
        entries = [self._receiver.entry(report) for report in pending.reports]
        problem = None
        if done:
            calls, pending.calls = pending.calls, 0
            problem = self._on_done(entries, calls)
        found = {"schema": 1, **pending.describe(), "streams": entries}
        if problem is not None:
            found["error"] = found.get("error") or problem
        try:
            pending.written = await asyncio.to_thread(
                write_json, self._directory / str(pending.call_leg_id), "leg", found, pending.written
            )
        except OSError as error:
            self.failed += 1
            pending.again_s = self._clock() + _AGAIN_S
            if pending.call_leg_id not in self._told:
                self._told.append(pending.call_leg_id)
                log.warning("the file of leg %s cannot be written: %s", pending.call_leg_id, error)
            return False
        self._keep(found, pending.written.relative_to(self._directory).as_posix())
        if not pending.told:
            pending.told = True
            self._on_written(pending.written, found)
        return True
