"""All that is known of all streams: arrays with one row a stream, in one object for each concern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._codecs.facts import UNKNOWN
from .._codecs.payload_types import PayloadTypes
from .._model.report import StreamReport, rank_by, report_of
from .._model.time import SECOND_NS
from .._model.types import StreamInfo
from .outlet.doubt import Doubt
from .outlet.sender_clock import SenderClocks
from .packets import Packets
from .sources.key_table import KeyTable
from .sources.registry import Registry
from .sources.siblings import Siblings
from .streams.clock import ClockFilter
from .streams.reception import Reception
from .streams.ring import JitterRing
from .streams.supply import Supply
from .streams.timeline import Timeline
from .throttle import Throttle
from .undo import Undo

__all__ = ["ESTABLISHED_NS", "StreamState", "each_of"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

ESTABLISHED_NS: Final = 500_000_000  # a stream that has lasted so long is more than a stray pair of packets
_COPIED: Final = 8  # packets before one, of which it may bring copies
_NO_TYPE: Final = 255  # no payload type has been seen yet


class StreamState:
    def __init__(self, rows: int, types: PayloadTypes, registry: Registry, large_bytes: int) -> None:
        self.types = types
        self.registry = registry
        self.undo = undo = Undo()  # all objects below note in it what they overwrite
        self.table = KeyTable(rows)
        self.siblings = Siblings(rows, self.table)
        self.ring = JitterRing(rows, undo, large_bytes=large_bytes)
        self.ring.peeked = types.peeked
        self.reception = Reception(rows, undo)
        self.clock = ClockFilter(rows, undo)
        self.timeline = Timeline(rows, types.codecs, self.clock.floor, undo)
        self.supply = Supply(rows, self.reception, self.timeline, undo)
        self.doubt = Doubt(rows, undo)
        self.sender_clocks = SenderClocks(rows, types.codecs, undo)
        self.throttle = Throttle(rows)
        self.codec_of_type = types.index_of
        self._rates = np.array([c.sample_rate for c in types.codecs] + [1])  # the last one: no codec yet
        self._clock_rates = np.array([c.clock_rate for c in types.codecs], np.float64)
        self.ssrc = np.zeros(rows, np.uint32)  # of the present source
        self.source = np.zeros(rows, np.uint64)  # its address's word
        # of the source before, which had fallen silent, and may come back; 0: none
        self.former_source = np.zeros(rows, np.uint64)
        self.first_arrival_ns = np.zeros(rows, np.int64)  # 0: no stream in this row
        self.moving_until_ns = np.zeros(rows, np.int64)  # another address is expected until then
        self.restarts = np.zeros(rows, np.int64)
        self.sources = np.zeros(rows, np.int64)
        self.encrypted = np.zeros(rows, np.bool_)  # looks like SRTP
        self.any_encrypted = 0
        self.types_seen = np.zeros((rows, 128), np.bool_)
        self.red_settled = np.zeros((rows, 128), np.uint8)  # whether unnamed types are redundant data (``Redundancy``)
        self.has_red = np.zeros(rows, np.bool_)  # redundant data have come
        self.recovered = np.zeros(rows, np.int64)  # packets that redundant copies stood in for
        self._last_type = np.zeros(rows, np.uint8)  # one that has been seen
        self._clocks_found: dict[int, float] = {}  # ticks a nanosecond, by row: not counted with so far
        self.codecless: set[int] = set()  # rows whose StreamInfo has no codec yet
        reception, timeline = self.reception, self.timeline
        # what reports are made of, by row, beside the expected packets; these arrays stay as long as we do
        self._figures: dict[str, npt.NDArray[Any]] = {
            "ssrc": self.ssrc,
            "types_seen": self.types_seen,
            "codec": timeline.codec,
            "first_ext": reception.base_ext,
            "max_ext": reception.max_ext,
            "received": reception.received,
            "duplicates": reception.duplicates,
            "reordered": reception.reordered,
            "late": reception.late,
            "jitter": reception.jitter,
            "jitter_max": reception.jitter_max,
            "jitter_sum": reception.jitter_sum,
            "jitter_count": reception.jitter_count,
            "last_arrival_ns": reception.last_arrival_ns,
            "position": timeline.position,
            "gap_frames": timeline.gap_frames,
            "undecoded": timeline.undecoded,
            "recovered": self.recovered,
            "timestamp_jumps": timeline.timestamp_jumps,
            "trimmed": timeline.trimmed,
            "sources": self.sources,
            "restarts": self.restarts,
            "skew_ppm": self.clock.skew_ppm,
            "media_ratio_min": self.supply.lowest,
        }

    def open(
        self,
        rows: I64,
        hi: U64,
        lo: U64,
        tag: U64,
        ssrc: npt.NDArray[np.uint32],
        source: U64,
        first_ext: I64,
        arrival_ns: I64,
        timestamp: npt.NDArray[np.uint32],
        payload_bytes: I64,
    ) -> None:
        """Start streams in free rows."""
        self.table.add(rows, hi, lo, tag)
        self.ssrc[rows] = ssrc
        self.source[rows] = source
        self.former_source[rows] = 0
        self.first_arrival_ns[rows] = arrival_ns
        self.moving_until_ns[rows] = 0
        self.restarts[rows] = 0
        self.sources[rows] = 1
        self.encrypted[rows] = False
        self.types_seen[rows] = False
        self.red_settled[rows] = 0
        self.has_red[rows] = False
        self.recovered[rows] = 0
        self._last_type[rows] = _NO_TYPE
        self.ring.open(rows, first_ext, payload_bytes)
        self.reception.open(rows, first_ext, arrival_ns, timestamp)
        self.timeline.open(rows, first_ext)
        self.supply.open(rows, arrival_ns)
        self.clock.open(rows)
        self.doubt.open(rows)
        self.sender_clocks.open(rows)
        self.throttle.open(rows)
        self.codecless.update(rows.tolist())
        self.siblings.opened(rows, hi, lo, tag)

    def rows_of(self, packets: Packets) -> I64:
        """The packets' streams: rows, int64 (n,), -1 where there is none. Siblings' packets get their streams' keys."""
        row = self.table.find(packets.hi, packets.lo, packets.tag)
        if self.siblings:
            source = packets.source
            strange = (row < 0) | (self.source.take(row, mode="clip") != source)
            theirs = self.siblings.find(row, strange, source, packets.lo, packets.tag)
            if theirs.size:
                packets.hi = packets.hi.copy()
                packets.hi[theirs] = source[theirs]
        return row

    def close(self, row: int) -> None:
        """Free a row; its key must have been removed from the table."""
        self.ring.close(row)
        self.first_arrival_ns[row] = 0
        self.siblings.closed(row)
        self.registry.release(row)
        self.sender_clocks.close(row)
        self._clocks_found.pop(row, None)
        self.any_encrypted -= int(self.encrypted[row])
        self.encrypted[row] = False
        self.codecless.discard(row)

    def audio_s(self, rows: slice) -> npt.NDArray[np.float64]:
        """Seconds of audio that streams have brought, gaps not counted."""
        timeline = self.timeline
        frames = timeline.position[rows] - timeline.gap_frames[rows].sum(axis=1)
        seconds: npt.NDArray[np.float64] = frames / self._rates.take(timeline.codec[rows])
        return seconds

    def is_brief(self, rows: I64, silent_since_ns: int) -> npt.NDArray[np.bool_]:
        """Which streams were only a few packets, and have been silent since then. Bool (n,)."""
        last_ns = self.reception.last_arrival_ns[rows]
        brief: npt.NDArray[np.bool_] = last_ns - self.first_arrival_ns[rows] < ESTABLISHED_NS
        return brief & (last_ns <= silent_since_ns)

    def is_sparse(self, rows: I64, silent_since_ns: int) -> npt.NDArray[np.bool_]:
        """Which streams have had less than a packet a second, and have been silent since then. Bool (n,). No call sends
        so little, even with silence suppression: only somebody who wants to occupy a row does."""
        lasted_ns = silent_since_ns - self.first_arrival_ns[rows]
        sparse: npt.NDArray[np.bool_] = self.reception.received[rows] * SECOND_NS < lasted_ns
        return sparse & (self.reception.last_arrival_ns[rows] <= silent_since_ns)

    def skip(self, rows: I64, packets: I64) -> None:
        """So many packets (0 or more) will not come in rows whose packets have all left their rings; those excepted of
        which redundant copies may still come."""
        self.ring.skip(rows, np.where(self.has_red[rows], np.maximum(packets - _COPIED, 0), packets))

    def mark_encrypted(self, row: int) -> None:
        self.undo.note((self.encrypted, row, self.encrypted[row]))
        self.undo.note((self.__dict__, "any_encrypted", self.any_encrypted))
        self.any_encrypted += not self.encrypted[row]
        self.encrypted[row] = True

    def found_clock(self, row: int, rate: float) -> None:
        """A sender's RTP clock was measured, in Hz: :meth:`adopt_clocks` makes it count."""
        self.undo.call(self._clocks_found.pop, row, None)
        self._clocks_found[row] = rate / 1e9

    def adopt_clocks(self) -> None:
        """Measure jitter by the clocks that were found: what was measured by others is worth nothing."""
        if self._clocks_found:
            for row, ticks in self._clocks_found.items():
                self.reception.retune(row, ticks)
            self._clocks_found.clear()

    def has_new_types(self, row: I64, payload_type: npt.NDArray[np.uint8]) -> bool:
        """Whether any packet has another type than the one before it of its stream: rare, and cheap to tell."""
        return bool(np.count_nonzero(self._last_type.take(row) != payload_type))

    def note_types(self, row: I64, payload_type: npt.NDArray[np.uint8]) -> list[tuple[StreamInfo, int]]:
        """Note the payload types of packets, of which some are new (:meth:`has_new_types`). Returns the unknown types
        that a stream has for the first time."""
        seen = self.types_seen[row, payload_type]
        self.undo.note((self._last_type, row, self._last_type[row]))
        if seen.all():
            self._last_type[row] = payload_type
            return []
        new = np.flatnonzero(~seen)
        _, first = np.unique(row[new] * 128 + payload_type[new], return_index=True)
        new = new[np.sort(first)]  # in order: the clock of a stream is that of its first type
        rows, types = row[new], payload_type[new]
        self.undo.note((self.types_seen, (rows, types), np.zeros(len(new), np.bool_)))
        self.types_seen[rows, types] = True
        codec = self.codec_of_type[types]
        self._learn_clocks(rows[codec >= 0], codec[codec >= 0])
        of_unknown = codec == UNKNOWN
        named = zip(rows[of_unknown].tolist(), types[of_unknown].tolist(), strict=True)
        return [(info, pt) for r, pt in named if (info := self.registry.info[r]) is not None]

    def _learn_clocks(self, rows: I64, codec: npt.NDArray[np.integer]) -> None:
        """Streams' first known codecs say how their timestamps run."""
        new = np.flatnonzero(self.reception.tick_rate[rows] == 0)
        if new.size:
            rows, first = np.unique(rows[new], return_index=True)
            self.undo.note((self.reception.tick_rate, rows, np.zeros(len(rows))))
            self.reception.tick_rate[rows] = self._clock_rates[codec[new[first]]] / 1e9

    def report(self, stream: StreamInfo, end: str = "", derived: Mapping[str, Any] | None = None) -> StreamReport:
        """The figures of a live stream. ``derived``: its values of :meth:`derived`, if they are known."""
        row = stream.index
        figures = {name: figure[row] for name, figure in self._figures.items()}
        if derived is None:
            (derived,) = each_of(self.derived(np.array([row])))
        if stream.codec is None:  # nothing was decoded; its clock may be known all the same
            known = self.codec_of_type[np.flatnonzero(self.types_seen[row] & ~self.types.is_red[:128])]
            figures["clock_rate"] = max(
                (self.types.codecs[i].clock_rate for i in known[:1].tolist() if i >= 0), default=0
            )
        return report_of(stream, {**figures, **derived}, end)

    def reports(self, streams: Sequence[StreamInfo]) -> list[StreamReport]:
        """The figures of live streams."""
        if not streams:
            return []
        derived = each_of(self.derived(np.array([stream.index for stream in streams])))
        return [self.report(stream, derived=one) for stream, one in zip(streams, derived, strict=True)]

    def derived(self, rows: I64) -> dict[str, npt.NDArray[Any]]:
        """Figures that are made of others, arrays of shape (n,). For all rows at once they cost little more than for
        one."""
        return {
            "expected": self.reception.expected(rows),
            "media_ratio": self.supply.whole(rows, self.suppresses(rows)),
        }

    def suppresses(self, rows: I64) -> npt.NDArray[np.bool_]:
        """Which streams have sent comfort noise, bool (n,)."""
        noise: npt.NDArray[np.bool_] = np.logical_or.reduce(self.types_seen[rows] & self.types.is_noise[:128], axis=1)
        return noise

    def columns(self, rows: I64) -> dict[str, npt.NDArray[Any]]:
        """The figures that :meth:`report` is made of, for many streams at once: arrays of shape (n, ...)."""
        columns = {name: figure[rows] for name, figure in self._figures.items()}
        return {**columns, **self.derived(rows)}

    def top(self, limit: int, key: str = "packets") -> list[StreamReport]:
        """The ``limit`` live streams with the most packets, lost packets or jitter."""
        rows = np.array([i.index for i in self.registry.live()], np.int64)
        if not rows.size:
            return []
        ranked = {name: self._figures[name][rows] for name in ("received", "duplicates", "jitter")}
        rank = rank_by(key, {**ranked, "expected": self.reception.expected(rows)})
        if rows.size > limit:
            part = np.argpartition(-rank, limit)[:limit]
            rows, rank = rows[part], rank[part]
        found = [self.registry.info[r] for r in rows[np.argsort(-rank, kind="stable")].tolist()]
        return self.reports([info for info in found if info is not None])


def each_of(columns: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
    """Columns (n,) as n rows."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]
