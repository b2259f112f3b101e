"""How much audio senders send: the media ratio, seconds of audio for each second that passes. All streams at once.

A sender that is starved (of processor time, or by its own upstream) numbers its packets without a gap, so nothing is
lost, and yet half of the audio may never have been sent. Its media ratio is 0.5.

What was lost on the network was sent. Pauses of more than 90 ms are silence suppression or a hold: they do not count as
time, but where most packets come after such pauses, and neither the codec nor comfort noise tells of silence. Packets
without audio (keys pressed, comfort noise) count as long as a stream's others.

Example: 250 packets of 20 ms in 10 s: 0.5. 250 in 5 s of talk, then 5 s of silence: 1.0.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from ..._model.supply import SILENT_CODECS, STARVED_RATIO
from ..._model.time import NEVER_NS, SECOND_NS
from ..._model.types import Codec, GapCause
from ..undo import Undo

__all__ = ["SUPPLY_WINDOW_NS", "Supply"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SUPPLY_WINDOW_NS: Final = 10 * SECOND_NS
_LEAST_NS: Final = SECOND_NS  # of less than this nothing is concluded


class Counts(Protocol):
    """What is counted of packets as they arrive, by row (``Reception``)."""

    last_arrival_ns: I64
    paused_ns: I64
    pauses: I64

    def expected(self, rows: I64) -> I64: ...


class Places(Protocol):
    """What is known of packets as they are placed, by row (``Timeline``)."""

    codecs: tuple[Codec, ...]
    codec: npt.NDArray[np.int16]
    position: I64
    gap_frames: I64

    def packet_frames(self, rows: I64) -> I64: ...


class Supply:
    """``lowest`` float64, by row: the lowest media ratio of a stream's windows; NaN while there is none."""

    def __init__(self, streams: int, reception: Counts, timeline: Places, undo: Undo | None = None) -> None:
        self._note = (undo or Undo(keep=False)).note
        self._reception = reception
        self._timeline = timeline
        self._rates = np.array([c.sample_rate for c in timeline.codecs] + [1])  # the last one: no codec yet
        self._silent = np.array([c.name.upper() in SILENT_CODECS for c in timeline.codecs] + [False])
        self.lowest = np.full(streams, np.nan)
        self.starved = np.zeros(streams, np.bool_)  # the last window was
        self._due_ns = np.zeros(streams, np.int64)
        self._first_ns = np.zeros(streams, np.int64)
        # of the present window, when it began: time, packets, seconds of audio, pauses in ns, and their number
        self._before = np.zeros((streams, 5), np.float64)

    def open(self, rows: I64, arrival_ns: I64) -> None:
        self.lowest[rows] = np.nan
        self.starved[rows] = False
        self._due_ns[rows] = arrival_ns + SUPPLY_WINDOW_NS
        self._first_ns[rows] = arrival_ns
        self._before[rows] = 0.0

    def due(self, rows: I64, now_ns: int) -> I64:
        """Those of these rows whose window is complete."""
        return rows[self._due_ns[rows] <= now_ns]

    def _counts(self, rows: I64) -> F64:
        """As ``_before``, (n, 5), since the stream's beginning."""
        reception, timeline = self._reception, self._timeline
        rate = self._rates.take(timeline.codec[rows])
        gaps = timeline.gap_frames[rows]
        sent_s = (timeline.position[rows] - gaps.sum(axis=1) + gaps[:, GapCause.LOSS]) / rate
        columns = (
            reception.last_arrival_ns[rows] - self._first_ns[rows],
            reception.expected(rows),
            sent_s,
            reception.paused_ns[rows],
            reception.pauses[rows],
        )
        return np.stack([column.astype(np.float64) for column in columns], axis=1)

    def _ratio(self, rows: I64, counts: F64, packet_s: F64, suppresses: Bools) -> F64:
        passed_ns, packets, sent_s, paused_ns, pauses = counts.T
        counted = suppresses | self._silent.take(self._timeline.codec[rows]) | (2 * pauses <= packets)
        silent_ns = np.maximum(paused_ns - pauses * packet_s * SECOND_NS, 0.0)
        time_s = (passed_ns - np.where(counted, silent_ns, 0.0)) / SECOND_NS
        sound = (self._timeline.codec[rows] >= 0) & (time_s >= _LEAST_NS / SECOND_NS)
        ratio = np.maximum(sent_s, packets * packet_s) / np.where(sound, time_s, 1.0)
        return np.where(sound, ratio, np.nan)

    def _packet_s(self, rows: I64) -> F64:
        """How long packets with audio are: the last one of each."""
        seconds: F64 = self._timeline.packet_frames(rows) / self._rates.take(self._timeline.codec[rows])
        return seconds

    def whole(self, rows: I64, suppresses: Bools) -> F64:
        """The media ratios of streams since their beginning, float64 (n,); NaN for less than a second. ``suppresses``:
        which of them have sent comfort noise."""
        counts = self._counts(rows)
        packet_s = self._packet_s(rows)
        counts[:, 0] += packet_s * SECOND_NS  # the last one lasts, too
        return self._ratio(rows, counts, packet_s, suppresses)

    def close(self, rows: I64, now_ns: int, suppresses: Bools) -> tuple[F64, Bools]:
        """The windows of these rows are complete: their media ratios, and which streams are starved since now."""
        counts = self._counts(rows)
        packet_s = self._packet_s(rows)
        for column in (self.lowest, self.starved, self._due_ns, self._before):
            self._note((column, rows, column[rows]))
        ratio = self._ratio(rows, counts - self._before[rows], packet_s, suppresses)
        self._before[rows] = counts
        self._due_ns[rows] = min(now_ns + SUPPLY_WINDOW_NS, NEVER_NS)  # times may be absurd
        self.lowest[rows] = np.fmin(self.lowest[rows], ratio)
        starved = ratio < STARVED_RATIO
        begins: Bools = starved & ~self.starved[rows]
        self.starved[rows] = np.where(np.isnan(ratio), self.starved[rows], starved)
        return ratio, begins
