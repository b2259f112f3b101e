"""The gap before each packet, and what of it overlaps what is there: for all streams at once, but for the few whose
place on the receiver's clock is asked for (:mod:`.judge`).

Per packet, with ``delta`` the frames from where the packet before it ended to where it begins, by timestamps, and
``elapsed`` the same by arrival times:

    delta = 0                        goes on without a gap
    0 < delta <= elapsed + 1 s       a gap of delta frames: LOSS when sequence numbers are missing, else SILENCE (DTX)
                                     (HOLD from 2 s on)
    -frames < delta < 0              overlaps what is there: its first -delta frames are trimmed
    otherwise, for new sources, and  the receiver's clock is asked
    if elapsed - delta >= 250 ms

What is trimmed is counted, ``trimmed``.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.time import SECOND_NS
from ..._model.types import GapCause
from ..undo import Undo
from .judge import RISE_DIVISOR, PacketFacts, Place, Watch

__all__ = ["RISE_NS", "Gaps"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_HOLD_S: Final = 2
RISE_NS: Final = SECOND_NS // RISE_DIVISOR  # between two packets: less is no question of the clock


class Gaps:
    """Rows are streams. ``floor`` int64 is their lines' (``ClockFilter.floor``), which is only read."""

    def __init__(self, floor: I64, undo: Undo) -> None:
        streams = len(floor)
        self._note = undo.note
        self._floor = floor
        self.restarted = np.zeros(streams, np.bool_)  # a new source begins with the next packet
        self.asked = np.zeros(streams, np.bool_)  # the clock is asked for the next packet, whatever it is
        self.timestamp_jumps = np.zeros(streams, np.int64)
        self.trimmed = np.zeros(streams, np.int64)  # frames
        self.known_ext = np.full(streams, -1)  # packets up to this one are placed together
        self._watch = np.zeros((streams, len(fields(Watch))), np.int64)
        self._twice = np.zeros(streams, np.int64)

    def open(self, rows: I64) -> None:
        for column in (self.restarted, self.asked, self.timestamp_jumps, self.trimmed, self._watch, self._twice):
            column[rows] = 0
        self.known_ext[rows] = -1

    def new_source(self, rows: I64) -> None:
        self.restarted[rows] = self.asked[rows] = True
        self.known_ext[rows] = -1

    def note(self, rows: I64) -> None:
        for column in (self.restarted, self.asked, self.timestamp_jumps, self.trimmed, self._watch, self._twice):
            self._note((column, rows, column.take(rows, axis=0)))

    def before(
        self,
        row: I64,
        start: I64,
        ext: I64,
        rate: I64,
        delta: I64,
        frames: I64,
        arrival: I64,
        lost: Bools,
        begun: Bools,
        position: I64,
        prior_arrival: I64,
    ) -> tuple[I64, I64, I64, Bools]:
        """Per packet: gap before it, frames to trim off it, GapCause, whether it was placed by arrival times.

        ``begun, position``: of the streams, whose packets begin at ``start``. ``lost``: sequence numbers are missing
        before the packet. The rows must have been noted.
        """
        rows = row[start]
        since = arrival - prior_arrival  # years, when a clock went wrong: more than can be multiplied in one
        passed = since // SECOND_NS * rate + since % SECOND_NS * rate // SECOND_NS - frames
        forward = (delta > 0) & (delta <= np.maximum(passed, 0) + rate)
        overlap = (delta < 0) & (-delta < frames)
        gap = np.where(forward, delta, 0)
        doubtful = (delta != 0) & ~forward & ~overlap
        doubtful |= passed - gap >= rate // RISE_DIVISOR - 1  # rounded
        doubtful[start] |= self.asked.take(rows)
        trim = np.where(overlap, -delta, 0)
        first = start[~begun]
        gap[first] = trim[first] = 0
        doubtful[first] = False
        anchored = np.zeros(len(row), np.bool_)
        self.asked[rows[~begun]] = False
        if np.count_nonzero(doubtful):
            end = np.append(start[1:], len(row))
            for i in np.logical_or.reduceat(doubtful, start).nonzero()[0].tolist():
                at = int(start[i])
                place = Place(
                    rate=int(rate[at]),
                    position=int(position[i]),
                    floor=int(self._floor[rows[i]]),
                    prior_arrival_ns=int(prior_arrival[at]),
                    begun=bool(begun[i]),
                    restarted=bool(self.restarted[rows[i]]),
                    watch=Watch(*self._watch[rows[i]].tolist()),
                    twice=int(self._twice[rows[i]]),
                )
                mine = slice(at, int(end[i]))
                columns = (column[mine].tolist() for column in (delta, frames, arrival))
                packets = [PacketFacts(*facts) for facts in zip(*columns, strict=True)]
                judged = place.judge_all(packets, int(np.count_nonzero(ext[mine] <= self.known_ext[rows[i]])))
                gap[mine] = [one.gap for one in judged]
                trim[mine] = [one.trim for one in judged]
                anchored[mine] = [one.anchored for one in judged]
                self._keep(int(rows[i]), place, sum(one.jumped for one in judged))
        self.restarted[rows] = False
        cause = np.where(anchored, int(GapCause.RESTART), np.where(lost, int(GapCause.LOSS), int(GapCause.SILENCE)))
        cause[(gap >= _HOLD_S * rate) & (cause != int(GapCause.LOSS))] = int(GapCause.HOLD)
        cause[(gap == 0) & ~anchored] = int(GapCause.NONE)
        trimmed = trim.nonzero()[0]
        if trimmed.size:
            np.add.at(self.trimmed, row[trimmed], trim[trimmed])
        return gap, trim, cause, anchored

    def _keep(self, row: int, place: Place, jumps: int) -> None:
        self.timestamp_jumps[row] += jumps
        watch = place.watch
        self._watch[row] = (
            watch.packets, watch.since_ns, watch.most, watch.least, watch.fell, watch.prior_arrival_ns,
        )  # fmt: skip
        self._twice[row] = place.twice
        self.asked[row] = place.asks
