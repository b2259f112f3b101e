"""What the parent must know of a worker's streams, gathered as they begin and end; and what a restart cost them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from .._model.report import StreamReport
from .._model.types import StreamInfo
from ..sinks.base import BaseSink
from .board import Columns, Snapshot

__all__ = ["Ledger", "SinkResults", "packets_between"]

Key = tuple[int, int, int]  # of a stream, as the engine's key table has it: high, low, tag
Entry = tuple[int, dict[str, Any]]  # serial, the stream's entry in summary.json
Additions = dict[int, dict[str, Any]]  # by serial: what is to be added to an entry

_FIRST_ROWS: Final = 256
_UNSETTLED_A_LOOK: Final = 500  # ended streams that sinks are still busy with; more are not looked at in one look
_MAX_PENDING: Final = 100_000  # ended streams; what sinks have to add to older ones is lost
_SHORTEST_PACKET_NS: Final = 2_500_000  # nobody sends more often


class SinkResults(Protocol):
    """What sinks know of streams that have ended: of a dispatcher."""

    def settled(self, stream: StreamInfo) -> bool:
        """Whether all sinks are done with a stream, so that the others here do not change any more."""

    def files(self, stream: StreamInfo) -> list[str]:
        """Paths written for a stream."""

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        """What analyzers found, for its entry in summary.json."""


@dataclass(frozen=True, slots=True)
class _LastFigures:
    """Of a stream that the dead predecessor received."""

    ssrc: int
    sequence_number: int  # the highest, extended
    arrival_ns: int


def packets_between(last: int, first: int, elapsed_ns: int) -> int:
    """How many sequence numbers lie between ``last`` and ``first``, modulo 2^16.

    0 if ``first`` is not after ``last``, or so far after it that nobody sends as much in ``elapsed_ns``: then the
    sequence has begun anew, and tells nothing.
    """
    between = (first - last - 1) & 0xFFFF
    return between if between < 0x8000 and between <= max(elapsed_ns, 0) // _SHORTEST_PACKET_NS + 1 else 0


class Ledger(BaseSink):
    """A sink that keeps books of streams, for :meth:`take`.

    ``before`` is what the worker's predecessor published last, if there was one. ``beginning`` gives a stream's key and
    its first sequence number, extended.
    """

    kind = "ledger"
    inline = True
    wants_audio = False

    def __init__(self, before: Snapshot, beginning: Callable[[StreamInfo], tuple[Key, int]]) -> None:
        self._beginning = beginning
        self._predecessor = _last_figures(before.columns) if len(before) else {}
        self._serial = np.zeros(_FIRST_ROWS, np.int64)  # by row
        self._gap = np.zeros(_FIRST_ROWS, np.int64)  # packets, by row
        self.restart_gap = 0  # packets, of all streams
        self._started: list[StreamInfo] = []
        self._ended: list[tuple[StreamReport, int]] = []
        self._pending: deque[StreamInfo] = deque(maxlen=_MAX_PENDING)  # ended; sinks may have more to say

    def stream_started(self, stream: StreamInfo) -> None:
        row = stream.index
        if row >= len(self._serial):
            rows = max(2 * len(self._serial), row + 1)
            self._serial, self._gap = _grown(self._serial, rows), _grown(self._gap, rows)
        gap = self._restart_gap(stream) if self._predecessor else 0
        self._serial[row] = stream.serial
        self._gap[row] = gap
        self.restart_gap += gap
        self._started.append(stream)

    def _restart_gap(self, stream: StreamInfo) -> int:
        """Packets that were sent between the predecessor's last figures of this stream and its first packet here."""
        key, first = self._beginning(stream)
        last = self._predecessor.pop(key, None)
        if last is None or last.ssrc != stream.ssrc:
            return 0
        return packets_between(last.sequence_number, first, stream.first_arrival_ns - last.arrival_ns)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        self._ended.append((report, int(self._gap[stream.index])))

    def columns(self, rows: npt.NDArray[np.int64]) -> Columns:
        """For the board: "serial" and "restart_gap", int64, of the streams in these rows."""
        if rows.size and int(rows[-1]) >= len(self._serial):  # cannot be: every live stream was announced
            raise IndexError(int(rows[-1]))
        return {"serial": self._serial[rows], "restart_gap": self._gap[rows]}

    def take(self, results: SinkResults) -> tuple[list[StreamInfo], list[Entry], Additions]:
        """Since the last call: streams that began, entries of streams that ended, and what sinks have added to entries
        since (names of files, what analyzers found)."""
        started, self._started = self._started, []
        ended = self._take_ended()
        additions: Additions = {}
        unsettled = 0
        for _ in range(len(self._pending)):
            if unsettled >= _UNSETTLED_A_LOOK:
                break
            stream = self._pending.popleft()
            if results.settled(stream):
                _add(additions, results, stream)
            else:
                unsettled += 1
                self._pending.append(stream)
        return started, ended, additions

    def take_all(self, results: SinkResults) -> tuple[list[Entry], Additions]:
        """What is left at the very end, when sinks are closed and everything is known."""
        ended = self._take_ended()
        additions: Additions = {}
        for stream in self._pending:
            _add(additions, results, stream)
        return ended, additions

    def _take_ended(self) -> list[Entry]:
        ended, self._ended = self._ended, []
        self._pending.extend(report.stream for report, _ in ended)
        return [(report.stream.serial, {**report.as_dict(), "restart_gap_packets": gap}) for report, gap in ended]


def _add(additions: Additions, results: SinkResults, stream: StreamInfo) -> None:
    found = results.figures(stream)
    if files := results.files(stream):
        found = {"files": files, **found}
    if found:
        additions[stream.serial] = found


def _last_figures(columns: Columns) -> dict[Key, _LastFigures]:
    keys = zip(columns["hi"].tolist(), columns["lo"].tolist(), columns["tag"].tolist(), strict=True)
    names = ("ssrc", "max_ext", "last_arrival_ns")
    figures = zip(*(columns[name].tolist() for name in names), strict=True)
    return {key: _LastFigures(*each) for key, each in zip(keys, figures, strict=True)}


def _grown(column: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    grown = np.zeros(rows, np.int64)
    grown[: len(column)] = column
    return grown
