"""Reception statistics of all streams at once: RFC 3550 section 6.4.1, appendices A.3 and A.8.

A stream may have several sources one after the other (SSRC changes, sequence restarts); expected packets are summed
over them, jitter starts anew with each.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.supply import PAUSE_NS
from ..undo import Undo

__all__ = ["LAG_NS", "Reception"]

I64 = npt.NDArray[np.int64]

_PACKETS_SIDE_BY_SIDE: Final = 4  # further ones of a stream at once, up to which they are counted as arrays
_ROUND_COST: Final = 32  # packets one by one cost as much as one round of arrays
_BOTH_ARRIVALS: Final = np.dtype((np.void, 16))
_WRONG_CLOCK: Final = 4.0  # times as fast as it should, or less
LAG_NS: Final = 200_000_000  # behind their timestamps: a queue, or a clock that stood
_DISCONTINUITY_NS: Final = 2e9  # timestamps that are this far off say something of the sender's clock, not of jitter


class Reception:
    def __init__(self, streams: int, undo: Undo | None = None) -> None:
        self._note = (undo or Undo(keep=False)).note

        def counter() -> I64:
            return np.zeros(streams, np.int64)

        self.received = counter()  # every packet: RFC 3550's number
        self.duplicates = counter()
        self.late = counter()
        self.reordered = counter()
        self.paused_ns = counter()  # time in pauses between packets, and their number
        self.pauses = counter()
        self.base_ext = counter()  # lowest extended sequence number of the source
        self.max_ext = counter()
        self.expected_before = counter()  # of earlier sources
        # when the last packet came, and the last one of a known codec, side by side: both are read at once
        arrivals = np.zeros((streams, 2), np.int64)
        self._arrivals = arrivals.view(_BOTH_ARRIVALS)[:, 0]
        # to be indexed: ``take`` would copy all of such a column first
        self.last_arrival_ns, self._prior_arrival_ns = arrivals.T
        # jitter, in RTP timestamp units
        self.tick_rate = np.zeros(streams, np.float64)  # timestamp units a nanosecond, 0 while unknown
        self._prior_timestamp = np.zeros(streams, np.uint32)
        self.jitter = np.zeros(streams, np.float64)
        self.jitter_max = np.zeros(streams, np.float64)
        self.jitter_sum = np.zeros(streams, np.float64)
        self.jitter_count = counter()
        # packets in question: rows, extended sequence numbers, arrival times; taken by who puts packets into the ring
        self.questions: list[tuple[I64, I64, I64]] = []

    def open(self, rows: I64, first_ext: I64, arrival_ns: I64, timestamp: npt.NDArray[np.uint32]) -> None:
        for array in (
            self.received, self.duplicates, self.late, self.reordered, self.expected_before, self.paused_ns,
            self.pauses,
        ):  # fmt: skip
            array[rows] = 0
        self.jitter_max[rows] = 0.0
        self.jitter_sum[rows] = 0.0
        self.jitter_count[rows] = 0
        self.tick_rate[rows] = 0.0
        self.last_arrival_ns[rows] = arrival_ns
        self._begin(rows, first_ext, arrival_ns, timestamp)

    def _begin(self, rows: I64, first_ext: I64, arrival_ns: I64, timestamp: npt.NDArray[np.uint32]) -> None:
        self.base_ext[rows] = first_ext
        self.max_ext[rows] = first_ext - 1
        self.jitter[rows] = 0.0
        self._prior_arrival_ns[rows] = arrival_ns
        self._prior_timestamp[rows] = timestamp

    def new_source(self, rows: I64, first_ext: I64, arrival_ns: I64, timestamp: npt.NDArray[np.uint32]) -> None:
        self.expected_before[rows] += self.max_ext[rows] - self.base_ext[rows] + 1
        self._begin(rows, first_ext, arrival_ns, timestamp)

    def retune(self, row: int, tick_rate: float) -> None:
        """A stream's timestamps run at another rate, in units a nanosecond, than was thought: jitter starts anew."""
        self.tick_rate[row] = tick_rate
        self.jitter[row] = self.jitter_max[row] = self.jitter_sum[row] = 0.0
        self.jitter_count[row] = 0

    def arrived(
        self,
        rows: I64,
        ext: I64,
        timestamp: npt.NDArray[np.uint32],
        arrival_ns: I64,
        timed: npt.NDArray[np.bool_] | None = None,
        copies: npt.NDArray[np.bool_] | None = None,
        again: I64 | None = None,
    ) -> None:
        """Count packets in order of arrival.

        ``timed`` says which are of a known codec (None: all), ``copies`` which came before (None: none), ``again``
        which, as indices, are not the first of their row in ``rows`` (None: none).
        """
        if again is None or not again.size:
            self._arrived_once(
                rows=rows, ext=ext, timestamp=timestamp, arrival_ns=arrival_ns, timed=timed, copies=copies, fresh=True
            )
            return
        # several packets of a stream: the first of each, then the second of each, ...
        first = np.ones(len(rows), np.bool_)
        first[again] = False
        order = again[np.argsort(rows[again], kind="stable")]
        ordered = rows[order]
        start = np.append(True, ordered[1:] != ordered[:-1]).nonzero()[0]
        count = np.diff(np.append(start, len(order)))
        many = count > _PACKETS_SIDE_BY_SIDE
        # a round for each of them costs as much as some 32 packets one by one
        if np.count_nonzero(many) and int(count[many].sum()) < _ROUND_COST * int(count.max()):
            first[np.isin(rows, ordered[start[many]], assume_unique=False)] = False
            for row in ordered[start[many]].tolist():
                mine = (rows == row).nonzero()[0]
                self._arrived_to_one(
                    row=row,
                    ext=ext[mine].tolist(),
                    timestamp=timestamp[mine].tolist(),
                    arrival_ns=arrival_ns[mine].tolist(),
                    timed=[True] * len(mine) if timed is None else timed[mine].tolist(),
                    copies=[False] * len(mine) if copies is None else copies[mine].tolist(),
                )
            start, count = start[~many], count[~many]
        ranks = [order[start[count > rank] + rank] for rank in range(int(count.max(initial=0)))]
        for rank, members in enumerate((first.nonzero()[0], *ranks)):
            if not members.size:
                continue
            self._arrived_once(
                rows=rows[members],
                ext=ext[members],
                timestamp=timestamp[members],
                arrival_ns=arrival_ns[members],
                timed=None if timed is None else timed[members],
                copies=None if copies is None else copies[members],
                fresh=not rank or timed is not None,
            )

    def _arrived_to_one(
        self,
        row: int,
        ext: list[int],
        timestamp: list[int],
        arrival_ns: list[int],
        timed: list[bool],
        copies: list[bool],
    ) -> None:
        """What :meth:`_arrived_once` does with each of many packets of one stream, in the same arithmetic: a flood of
        one stream costs less so than array by array."""
        for column in (
            self.max_ext, self.base_ext, self.received, self.reordered, self.duplicates, self._arrivals,
            self._prior_timestamp, self.jitter, self.jitter_max, self.jitter_sum, self.jitter_count, self.paused_ns,
            self.pauses,
        ):  # fmt: skip
            self._note((column, row, column[row].copy()))
        highest, lowest, reordered = int(self.max_ext[row]), int(self.base_ext[row]), 0
        rate = float(self.tick_rate[row])
        most = rate * _DISCONTINUITY_NS
        prior_arrival, prior_timestamp = int(self._prior_arrival_ns[row]), int(self._prior_timestamp[row])
        last_ns, paused_ns, pauses = int(self.last_arrival_ns[row]), 0, 0
        jitter, largest, total = (float(f[row]) for f in (self.jitter, self.jitter_max, self.jitter_sum))
        for one, ticks, at_ns, known, copy in zip(ext, timestamp, arrival_ns, timed, copies, strict=True):
            if one < highest:
                lowest = min(lowest, one)
                reordered += not copy
            else:
                highest = one
            if at_ns - last_ns > PAUSE_NS:
                paused_ns += at_ns - last_ns
                pauses += 1
                if known and not copy and last_ns == prior_arrival:
                    step = (ticks - prior_timestamp) & 0xFFFF_FFFF
                    if step < 1 << 31 and rate and (at_ns - prior_arrival) * rate - step >= LAG_NS * rate:
                        self.questions.append((np.array([row]), np.array([one]), np.array([at_ns])))
            last_ns = at_ns
            if known:
                step = (ticks - prior_timestamp) & 0xFFFF_FFFF
                change = abs((at_ns - prior_arrival) * rate - (step - (step >> 31 << 32)))
                if change > most:
                    change = jitter
                jitter += (change - jitter) * 0.0625
                total += jitter
                largest = max(largest, jitter)
                prior_arrival, prior_timestamp = at_ns, ticks
        self.max_ext[row], self.base_ext[row] = highest, lowest
        self.received[row] += len(ext)
        self.paused_ns[row] += paused_ns
        self.pauses[row] += pauses
        self.reordered[row] += reordered
        self.duplicates[row] += sum(copies)
        self.last_arrival_ns[row] = arrival_ns[-1]
        self._prior_arrival_ns[row], self._prior_timestamp[row] = prior_arrival, prior_timestamp
        self.jitter[row], self.jitter_max[row], self.jitter_sum[row] = jitter, largest, total
        self.jitter_count[row] += sum(timed)

    def _arrived_once(
        self,
        rows: I64,
        ext: I64,
        timestamp: npt.NDArray[np.uint32],
        arrival_ns: I64,
        timed: npt.NDArray[np.bool_] | None,
        copies: npt.NDArray[np.bool_] | None,
        fresh: bool,
    ) -> None:
        """At most one packet a row. ``fresh``: what these rows hold has not been noted in the journal yet."""
        note = self._note
        received, highest, arrivals = self.received.take(rows), self.max_ext.take(rows), self._arrivals.take(rows)
        if fresh:
            note((self.received, rows, received))
            note((self.max_ext, rows, highest))
            note((self._arrivals, rows, arrivals))
        self.received[rows] = received + 1
        behind = ext < highest
        if np.count_nonzero(behind):
            which = behind.nonzero()[0]
            late = rows[which]
            note((self.base_ext, late, self.base_ext[late]))
            note((self.reordered, late, self.reordered[late]))
            self.base_ext[late] = np.minimum(self.base_ext[late], ext[which])
            self.reordered[late if copies is None else late[~copies[which]]] += 1
            self.max_ext[rows] = np.maximum(highest, ext)
        else:
            self.max_ext[rows] = ext
        if copies is not None:
            copied = rows[copies]
            note((self.duplicates, copied, self.duplicates[copied]))
            self.duplicates[copied] += 1
        both_ns = arrivals.view(np.int64)
        prior_ns = both_ns[1::2]
        pause_ns = arrival_ns - both_ns[::2]
        long = pause_ns > PAUSE_NS
        if np.count_nonzero(long):
            which = long.nonzero()[0]
            paused = rows[which]
            note((self.paused_ns, paused, self.paused_ns[paused]))
            note((self.pauses, paused, self.pauses[paused]))
            self.paused_ns[paused] += pause_ns[which]
            self.pauses[paused] += 1
            asks = self.lags(
                paused, timestamp[which], arrival_ns[which], self._prior_timestamp[paused], both_ns[::2][which]
            )
            asks &= both_ns[::2][which] == prior_ns[which]  # the packet before was of a known codec, as this one is
            if timed is not None:
                asks &= timed[which]
            if copies is not None:
                asks &= ~copies[which]
            if np.count_nonzero(asks):
                self.questions.append((paused[asks], ext[which[asks]], arrival_ns[which[asks]]))
        self.last_arrival_ns[rows] = arrival_ns
        if timed is not None and not timed.all():
            rows, timestamp, arrival_ns, prior_ns = rows[timed], timestamp[timed], arrival_ns[timed], prior_ns[timed]
        # A.8: D(i-1,i) = (R_i - R_i-1) - (S_i - S_i-1);  J += (|D| - J) / 16
        rate = self.tick_rate.take(rows)
        prior_timestamp, jitter = self._prior_timestamp.take(rows), self.jitter.take(rows)
        total, largest, count = self.jitter_sum.take(rows), self.jitter_max.take(rows), self.jitter_count.take(rows)
        if fresh:
            note((self._prior_timestamp, rows, prior_timestamp))
            note((self.jitter, rows, jitter))
            note((self.jitter_sum, rows, total))
            note((self.jitter_max, rows, largest))
            note((self.jitter_count, rows, count))
        change = (arrival_ns - prior_ns) * rate
        change -= (timestamp - prior_timestamp).view(np.int32)
        np.abs(change, out=change)
        jumped = change > rate * _DISCONTINUITY_NS
        if np.count_nonzero(jumped):
            change[jumped] = jitter[jumped]
        change -= jitter
        change *= 0.0625
        change += jitter  # which is what the jitter is now
        self.jitter[rows] = change
        self.jitter_sum[rows] = total + change
        self.jitter_max[rows] = np.maximum(largest, change)
        self.jitter_count[rows] = count + 1
        self._prior_arrival_ns[rows] = arrival_ns
        self._prior_timestamp[rows] = timestamp

    def lags(
        self,
        rows: I64,
        timestamp: npt.NDArray[np.uint32],
        arrival_ns: I64,
        prior_timestamp: npt.NDArray[np.uint32],
        prior_arrival_ns: I64,
    ) -> npt.NDArray[np.bool_]:
        """Which packets came ``LAG_NS`` later behind those before than timestamps say that go forward. Bool (n,)."""
        rate = self.tick_rate.take(rows)
        step = (timestamp - prior_timestamp).view(np.int32)
        lags: npt.NDArray[np.bool_] = (arrival_ns - prior_arrival_ns) * rate - step >= LAG_NS * rate
        lags &= (step >= 0) & (rate > 0)
        return lags

    def lag_among(
        self, rows: I64, start: I64, timestamp: npt.NDArray[np.uint32], arrival_ns: I64
    ) -> npt.NDArray[np.bool_] | None:
        """Likewise for packets that follow each other, by row and in order of arrival; a row's begin at ``start``. Rows
        of -1 do not count. None: none does."""
        since = np.empty_like(arrival_ns)
        np.subtract(arrival_ns[1:], arrival_ns[:-1], out=since[1:])
        since[start] = arrival_ns[start] - self.last_arrival_ns.take(rows[start], mode="clip")
        which = (since >= LAG_NS).nonzero()[0]
        if not which.size:
            return None
        first = np.zeros(len(rows), np.bool_)
        first[start] = True
        prior = np.where(first[which], self._prior_timestamp.take(rows[which], mode="clip"), timestamp[which - 1])
        asks = np.zeros(len(rows), np.bool_)
        asks[which] = self.lags(
            np.maximum(rows[which], 0), timestamp[which], arrival_ns[which], prior, arrival_ns[which] - since[which]
        )
        return asks

    def may_go_on(self, rows: I64, timestamp: npt.NDArray[np.uint32], arrival_ns: I64) -> npt.NDArray[np.bool_]:
        """Whether packets may be their streams' next ones by their timestamps: which have advanced by no more than time
        has passed, give or take a second, and a clock that is not the one that the codec should have. Bool (n,)."""
        rate = self.tick_rate.take(rows)
        passed_ns = np.maximum(arrival_ns - self._prior_arrival_ns[rows], 0)
        ahead = (timestamp - self._prior_timestamp.take(rows)).view(np.int32)
        sound: npt.NDArray[np.bool_] = ahead <= rate * (_WRONG_CLOCK * passed_ns + 1e9)
        sound &= ahead >= -1e9 * rate
        sound |= rate == 0
        return sound

    def came_late(self, rows: I64) -> None:
        self._note((self.late, rows, self.late[rows]))
        np.add.at(self.late, rows, 1)

    def expected(self, rows: I64) -> I64:
        return self.expected_before[rows] + self.max_ext[rows] - self.base_ext[rows] + 1
