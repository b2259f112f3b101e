"""One worker as the parent sees it: its processes one after the other, and all that they have told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from socket import socketpair
from typing import Any, Final, Literal

import numpy as np

from .._model.exceptions import ConfigurationError
from .._model.report import StreamReport, rank_by
from .._model.types import Codec, StreamInfo
from .._threads.incidents import Incident
from ..sinks.wav.leftovers import complete_files, find_left_files
from .board import Board, Snapshot, report_of_row
from .merge import totals_of_the_dead
from .messages import next_message
from .nursery import Nursery

__all__ = ["WorkerProcess", "WorkerStatus"]

_log = logging.getLogger("strep")

State = Literal["starting", "running", "waiting", "stopped"]

_MAX_ENTRIES: Final = 100_000  # of ended streams; the oldest are forgotten
_MAX_DEATHS: Final = 5  # within _DEATHS_WITHIN_S; after that, restarts are delayed
_DEATHS_WITHIN_S: Final = 10.0
_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 1.0
_CLOCKS_APART_S: Final = 1.0  # how far a file's time and ours may differ
_KILL_AFTER_S: Final = 5.0  # without new figures
_PROBLEM_AFTER_S: Final = 1.0  # without new figures


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """``state``: "starting", "running", "waiting" (it died too often, and is tried again within a second) or "stopped".
    ``pid`` is None while there is no process; ``restarts`` counts processes that were replaced."""

    index: int
    pid: int | None
    state: State
    restarts: int


@dataclass(slots=True)
class _Record:
    """What one process has told, until now or until it ended."""

    generation: int = 0
    since_s: float = 0.0
    infos: dict[int, StreamInfo] = field(default_factory=dict)  # streams that live, by serial
    roots: list[str] = field(default_factory=list)  # directories of WAV files
    final: dict[str, Any] | None = None  # its figures, if it ended in order
    failed: str | None = None  # why it cannot go on
    stopping: bool = False
    ended: bool = False


class _Deaths:
    """When a worker's processes died, and how long its next one waits."""

    def __init__(self) -> None:
        self._at_s: deque[float] = deque(maxlen=_MAX_DEATHS + 1)
        self._delay_s = 0.0  # before the last restart

    def delay_s(self, index: int) -> float:
        """Worker ``index`` has died now: wait so long before the next process."""
        now = time.monotonic()
        self._at_s.append(now)
        within_s = now - self._at_s[0]
        if len(self._at_s) <= _MAX_DEATHS or within_s >= _DEATHS_WITHIN_S:
            self._delay_s = 0.0
            return 0.0
        self._delay_s = min(max(2 * self._delay_s, _FIRST_DELAY_S), _LONGEST_DELAY_S)
        _log.warning(
            "worker %d died %d times within %g s: the next one is started in %g s",
            index, len(self._at_s), within_s, self._delay_s,
        )  # fmt: skip
        return self._delay_s


class WorkerProcess:
    """Keeps one worker going: starts a process, listens to it until it ends, and starts another.

    ``fds`` are the parent's, what to receive on, and each process gets all of them. ``rows`` is how many streams it may
    have.
    """

    def __init__(
        self,
        index: int,
        *,
        nursery: Nursery,
        fds: Sequence[int],
        rows: int,
        codecs: tuple[Codec, ...],
        on_event: Callable[[dict[str, Any]], None],
        on_incident: Callable[[Incident], None],
    ) -> None:
        self.index = index
        self.restarts = 0
        self._nursery = nursery
        self._fds = list(fds)
        self._board = Board(rows)
        self._codecs = codecs
        self._on_event = on_event
        self._on_incident = on_incident
        self._published = 0  # as of the last look
        self._silent_s = 0.0  # for how long it has published nothing
        self._state: State = "starting"
        self._pid: int | None = None
        self._record = _Record()
        self._writer: asyncio.StreamWriter | None = None
        self._stopping = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._deaths = _Deaths()
        # of processes that have ended
        self._past_totals: list[dict[str, Any]] = []
        self._past_sinks: list[list[dict[str, Any]]] = []
        self._past_gap = 0
        self._past_skipped: Counter[str] = Counter()
        self._entries: dict[tuple[int, int], dict[str, Any]] = {}  # of ended streams, by generation and serial
        self._completions: list[asyncio.Task[None]] = []

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._task = asyncio.create_task(self._live(), name=f"strep-worker-{self.index}")

    async def ready(self) -> None:
        """Wait until it receives. Raises ConfigurationError where it cannot."""
        await asyncio.shield(self._ready)

    async def stop(self, timeout_s: float) -> None:
        if self._task is None:
            return
        self._stopping.set()
        self._tell_to_stop()
        _, waiting = await asyncio.wait([self._task], timeout=timeout_s)
        if waiting and self._pid is not None and self._writer is not None:
            _log.warning("worker %d did not finish within %g s and is killed", self.index, timeout_s)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        elif waiting:
            self._task.cancel()
        await asyncio.gather(self._task, *self._completions, return_exceptions=True)
        if not self._ready.done():
            self._ready.cancel()
        elif not self._ready.cancelled():
            self._ready.exception()  # whoever waited for several workers has heard of one
        self._state = "stopped"
        self._board.close()

    def _tell_to_stop(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._writer.write(b"s")

    async def _live(self) -> None:
        while True:
            await self._one_process()
            if self._stopping.is_set() or self._ready.exception() is not None:
                break
            self.restarts += 1
            await self._wait_before_restart()
            if self._stopping.is_set():
                break
        self._state = "stopped"

    async def _one_process(self) -> None:
        self._state = "starting"
        self._record = _Record(self._record.generation + 1, time.time())
        ours, theirs = socketpair()
        try:
            with theirs:
                self._nursery.fork(self.index, self._record.generation, [theirs.fileno(), self._board.fd, *self._fds])
        except OSError as error:  # no memory, no process, no descriptor to be had: perhaps later
            ours.close()
            self._record.failed = f"not started: {error.strerror or error}"
            self._close_record(None)
            return
        reader, self._writer = await asyncio.open_connection(sock=ours)
        if self._stopping.is_set():
            self._tell_to_stop()
        while (message := await next_message(reader)) is not None:
            self._receive(message)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        self._writer, pid, self._pid = None, self._pid, None
        streams = self._close_record(pid)
        if streams and self._record.roots:
            await self._save_files(streams)

    async def _wait_before_restart(self) -> None:
        delay_s = self._deaths.delay_s(self.index)
        if delay_s:
            self._state = "waiting"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    def look(self, seconds: float) -> None:
        """See whether it still publishes figures; to be called every ``seconds``. If it does not, it is killed, and
        replaced like any that died."""
        published, pid = self._board.published if self._state == "running" else 0, self._pid
        if pid is None or published != self._published or self._record.stopping or self._stopping.is_set():
            self._published, self._silent_s = published, 0.0
            return
        self._silent_s += seconds
        if self._silent_s >= _KILL_AFTER_S:
            self._silent_s = 0.0
            self._record.failed = f"it published nothing for {_KILL_AFTER_S:g} s"
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def problems(self) -> list[str]:
        """What is wrong with it now."""
        if self._state != "running":
            return [f"worker {self.index} is {self._state}"]
        problems = [f"worker {self.index}: {problem}" for problem in self._present().figures.get("problems", ())]
        if self._silent_s >= _PROBLEM_AFTER_S:
            problems.append(f"worker {self.index} has published nothing for {self._silent_s:g} s")
        return problems

    @property
    def last_read_age_s(self) -> float:
        return float(self._present().figures.get("last_read_age_s", 0.0)) + self._silent_s

    # --- what it tells --------------------------------------------------------------------------------------------

    def _receive(self, message: tuple[Any, ...]) -> None:
        kind, record = message[0], self._record
        if kind == "event":
            try:
                self._on_event(message[1])
            except Exception:
                _log.exception("what was to be done with an event failed")
        elif kind == "incident":
            self._report_incident(message[1])
        elif kind == "stopping":
            record.stopping = True
        elif kind == "started":
            record.infos.update((info.serial, info) for info in message[1])
        elif kind == "ended":
            self._note_ended(message[1])
        elif kind == "later":
            self._note_later(message[1])
        elif kind == "log":
            logging.getLogger(message[1]).log(message[2], message[3])
        elif kind == "ready":
            self._pid, record.roots = message[1], message[2]
            self._state = "running"
            if not self._ready.done():
                self._ready.set_result(None)
        elif kind == "final":
            record.final = message[1]
            self._note_ended(message[1]["ended"])
            self._note_later(message[1]["later"])
        elif kind == "failed":
            record.failed = message[1]

    def _report_incident(self, incident: Incident) -> None:
        self._on_incident(replace(incident, data={**incident.data, "worker": self.index}))

    def _note_ended(self, ended: list[tuple[int, dict[str, Any]]]) -> None:
        for serial, entry in ended:
            self._record.infos.pop(serial, None)
            self._entries[self._record.generation, serial] = entry
        while len(self._entries) > _MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]

    def _note_later(self, later: dict[int, dict[str, Any]]) -> None:
        for serial, additions in later.items():
            entry = self._entries.get((self._record.generation, serial))
            if entry is not None:
                entry.update(additions)

    def _close_record(self, pid: int | None) -> list[StreamInfo]:
        """The process has ended: add the figures that it told last. Returns the streams that it has not ended."""
        record = self._record
        streams: list[StreamInfo] = []
        if record.final is not None:
            figures: dict[str, Any] = record.final
            totals = figures["totals"]
            how = "was told to end by somebody else"
        else:
            snapshot = self._present(columns=True)
            figures = snapshot.figures
            totals = totals_of_the_dead(figures["totals"]) if figures else None
            streams = self._end_streams(snapshot)
            how = f"died ({record.failed})" if record.failed else "died"
        if totals is not None:
            self._past_totals.append(totals)
            self._past_sinks.append(figures["sinks"])
            self._past_gap += figures["restart_gap"]
            self._past_skipped.update(figures.get("skipped", {}))
        record.ended = True
        record.infos.clear()
        if not self._ready.done():
            self._ready.set_exception(
                ConfigurationError(record.failed or f"worker {self.index} {how} while it started: see what stderr says")
            )
        elif not self._stopping.is_set():
            text = f"worker {self.index} (process {pid}) {how}: another one takes over"
            _log.warning("%s", text)
            data = {"pid": pid, "why": record.failed, "restarts": self.restarts + 1}
            self._report_incident(Incident("worker_replaced", time.time_ns(), text, data))
        elif record.final is None:
            _log.warning("worker %d (process %s) %s before it had finished", self.index, pid, how)
        return streams

    def _end_streams(self, dead: Snapshot) -> list[StreamInfo]:
        reports = self._reports(dead, range(len(dead)), "worker died")
        self._note_ended(
            [(report.stream.serial, {**report.as_dict(), "restart_gap_packets": gap}) for report, gap in reports]
        )
        return [report.stream for report, _ in reports]

    async def _save_files(self, streams: list[StreamInfo]) -> None:
        """Find what the dead one left before its successor writes anything; complete it while that one starts."""
        record = self._record
        since_s = record.since_s - _CLOCKS_APART_S
        roots = [Path(root) for root in record.roots]
        left = [await asyncio.to_thread(find_left_files, root, streams, since_s) for root in roots]
        self._completions.append(asyncio.create_task(self._complete(record.generation, roots, left)))

    async def _complete(self, generation: int, roots: list[Path], left: list[dict[int, list[Path]]]) -> None:
        for root, files in zip(roots, left, strict=True):
            for serial, names in (await asyncio.to_thread(complete_files, root, files)).items():
                entry = self._entries.get((generation, serial))
                if entry is not None:
                    entry["files"] = [*entry["files"], *names]

    # --- figures --------------------------------------------------------------------------------------------------

    def status(self) -> WorkerStatus:
        return WorkerStatus(self.index, self._pid, self._state, self.restarts)

    def totals(self) -> list[dict[str, Any]]:
        """Of each process; together they are the worker's."""
        figures = self._present().figures
        return [*self._past_totals, figures["totals"]] if figures else self._past_totals

    def sink_reports(self) -> list[list[dict[str, Any]]]:
        figures = self._present().figures
        return [*self._past_sinks, figures["sinks"]] if figures else self._past_sinks

    @property
    def live_streams(self) -> int:
        return int(self._present().figures.get("live", 0))

    @property
    def restart_gap(self) -> int:
        return self._past_gap + int(self._present().figures.get("restart_gap", 0))

    @property
    def skipped(self) -> Counter[str]:
        """What came to its ring and is no usable datagram, by cause."""
        skipped = Counter(self._past_skipped)
        skipped.update(self._present().figures.get("skipped", {}))
        return skipped

    def entries(self) -> list[dict[str, Any]]:
        """What summary.json says of each stream, ended and live."""
        now = self._present(columns=True)
        live = self._reports(now, range(len(now)))
        return [
            *self._entries.values(),
            *({**report.as_dict(), "restart_gap_packets": gap} for report, gap in live),
        ]

    def top(self, limit: int, key: str) -> list[tuple[float, StreamReport]]:
        """The live streams with the most, and how much that is."""
        now = self._present(columns=True)
        if not len(now):
            return []
        rank = rank_by(key, now.columns)
        best = np.argsort(-rank, kind="stable")[:limit].tolist()
        by_serial = {report.stream.serial: report for report, _ in self._reports(now, best)}
        serial = now.columns["serial"]
        return [(float(rank[i]), by_serial[int(serial[i])]) for i in best if int(serial[i]) in by_serial]

    def _present(self, *, columns: bool = False) -> Snapshot:
        """What the present process published last; nothing where it has not, or has ended."""
        if self._record.ended or self._record.final is not None or self._state == "stopped":
            return Snapshot()
        snapshot = self._board.read(columns=columns)
        return snapshot if snapshot.generation == self._record.generation else Snapshot()

    def _reports(self, snapshot: Snapshot, rows: Iterable[int], end: str = "") -> list[tuple[StreamReport, int]]:
        """Streams of which we know who they are, and their restart gaps."""
        found = []
        for i in rows:
            info = self._record.infos.get(int(snapshot.columns["serial"][i]))
            if info is not None:
                gap = int(snapshot.columns["restart_gap"][i])
                found.append((report_of_row(snapshot.columns, i, info, self._codecs, end), gap))
        return found
