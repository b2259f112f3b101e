"""What the parent must know of a worker's streams, gathered as they begin and end; and what a restart cost them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .._model.report import StreamReport
from .._model.types import StreamInfo
from ..sinks import BaseSink
from .board import Columns, Snapshot

if TYPE_CHECKING:
    from .worker import _Worker

__all__ = ["Ledger", "packets_between"]

Entry = tuple[int, dict[str, Any]]  # serial, what summary.json says of the stream
Additions = dict[int, dict[str, Any]]  # by serial, what is to stand there too

_TRIES: Final = 20  # how often a stream's file names are asked for before the end
_SETTLED: Final = 10  # looks after a stream's end until analyzers have heard all of it
_KEPT: Final = 100_000
_NS_A_PACKET: Final = 2_500_000  # nobody sends more often


def packets_between(last: int, first: int, elapsed_ns: int) -> int:
    """How many sequence numbers lie between ``last`` and ``first``, modulo 2^16. 0 where ``first`` is not behind
    ``last``, or further than could have been sent in that time: then the sequence began anew, and says nothing."""
    between = (first - last - 1) & 0xFFFF
    return between if between < 0x8000 and between <= max(elapsed_ns, 0) // _NS_A_PACKET + 1 else 0


class Ledger(BaseSink):
    """A sink. ``before`` is what the worker's predecessor published last, if it had one."""

    kind = "ledger"
    inline = True
    wants_audio = False

    def __init__(self, receiver: _Worker, before: Snapshot) -> None:
        self._receiver = receiver
        self._left = _left_streams(before.columns) if len(before) else {}
        self._serial = np.zeros(256, np.int64)
        self._gap = np.zeros(256, np.int64)
        self.restart_gap = 0
        self._started: list[StreamInfo] = []
        self._ended: list[tuple[StreamInfo, StreamReport, int]] = []
        self._unfiled: deque[tuple[StreamInfo, int]] = deque()  # ended, files not known, times asked
        self._forgotten: deque[StreamInfo] = deque(maxlen=_KEPT)  # as before, not asked any more until the end
        self._untold: deque[tuple[StreamInfo, int]] = deque()  # ended, analyzers may still be at it; times passed over

    def stream_started(self, stream: StreamInfo) -> None:
        row = stream.index
        if row >= len(self._serial):
            rows = max(2 * len(self._serial), row + 1)
            self._serial, self._gap = _grown(self._serial, rows), _grown(self._gap, rows)
        gap = self._restart_gap(stream) if self._left else 0
        self._serial[row] = stream.serial
        self._gap[row] = gap
        self.restart_gap += gap
        self._started.append(stream)

    def _restart_gap(self, stream: StreamInfo) -> int:
        """What was sent between the predecessor's last word on this stream and its first packet here."""
        state = self._receiver.interior.engine.state
        left = self._left.pop(state.table.key(stream.index), None)
        if left is None or left[0] != stream.ssrc:
            return 0
        _, last, last_arrival_ns = left
        first = int(state.reception.base_ext[stream.index])
        return packets_between(last, first, stream.first_arrival_ns - last_arrival_ns)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        self._ended.append((stream, report, int(self._gap[stream.index])))

    def columns(self, rows: npt.NDArray[np.int64]) -> Columns:
        if rows.size and int(rows[-1]) >= len(self._serial):  # cannot be: every live stream was told
            raise IndexError(int(rows[-1]))
        return {"serial": self._serial[rows], "restart_gap": self._gap[rows]}

    def take(self) -> tuple[list[StreamInfo], list[Entry], Additions]:
        """Streams that began and ended, and what has become known of ended ones (names of files, what analyzers found),
        since the last call."""
        started, self._started = self._started, []
        ended = self._take_ended()
        later: Additions = {}
        for _ in range(len(self._unfiled)):
            stream, tries = self._unfiled.popleft()
            if found := self._receiver.interior.dispatcher.files(stream):
                later[stream.serial] = {"files": found}
            elif tries < _TRIES:
                self._unfiled.append((stream, tries + 1))
            else:
                self._forgotten.append(stream)
        for _ in range(len(self._untold)):
            stream, tries = self._untold.popleft()
            if tries < _SETTLED:
                self._untold.append((stream, tries + 1))
            elif figures := self._receiver.interior.dispatcher.figures(stream):
                later.setdefault(stream.serial, {}).update(figures)
        return started, ended, later

    def take_all(self) -> tuple[list[Entry], Additions]:
        """What is left at the very end: sinks are closed, everything is known."""
        ended = self._take_ended()
        streams = [*self._forgotten, *(stream for stream, _ in self._unfiled)]
        later: Additions = {
            s.serial: {"files": found} for s in streams if (found := self._receiver.interior.dispatcher.files(s))
        }
        for stream, _ in self._untold:
            if figures := self._receiver.interior.dispatcher.figures(stream):
                later.setdefault(stream.serial, {}).update(figures)
        return ended, later

    def _take_ended(self) -> list[Entry]:
        ended, self._ended = self._ended, []
        self._unfiled.extend((stream, 0) for stream, _, _ in ended)
        self._untold.extend((stream, 0) for stream, _, _ in ended)
        return [(stream.serial, {**report.as_dict(), "restart_gap_packets": gap}) for stream, report, gap in ended]


def _left_streams(columns: Columns) -> dict[tuple[int, int, int], tuple[int, int, int]]:
    """By key: SSRC, highest sequence number, last arrival."""
    keys = zip(columns["hi"].tolist(), columns["lo"].tolist(), columns["tag"].tolist(), strict=True)
    names = ("ssrc", "max_ext", "last_arrival_ns")
    return dict(zip(keys, zip(*(columns[name].tolist() for name in names), strict=True), strict=True))


def _grown(array: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    grown = np.zeros(rows, np.int64)
    grown[: len(array)] = array
    return grown
