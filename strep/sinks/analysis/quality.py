"""How good the network was to each stream: loss, bursts, jitter, R and MOS, window by window."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.exceptions import ConfigurationError
from ..._model.types import GapCause, StreamEvent, StreamInfo
from ...quality import impairment_of, mos_from_r, r_factor, r_factor_wideband
from .analyzer import Analyzer
from .windows import Closed, Windows

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport

__all__ = ["QualityMeter"]

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

_KEPT_WINDOWS: Final = 360  # an hour of 10 s; then two become one
_KEPT_GAPS: Final = 1000
_KEPT_STREAMS: Final = 100_000  # that ended, as their reports are kept
_SHORTEST_S: Final = 1.0  # of less than this nothing is concluded
_BURSTIEST: Final = 8.0  # BurstR up to which G.107 (table 3) allows it
_FIELDS: Final = (
    "start_s",
    "duration_s",
    "loss",
    "burst_r",
    "burst_density",
    "burst_ms",
    "jitter_ms",
    "buffer_ms",
    "r",
    "mos_cq",
    "mos_lq",
)
_DIGITS: Final = (3, 3, 5, 3, 4, 1, 3, 2, 2, 3, 3)
_WORST: Final = ("mos_cq", "mos_lq", "r")


class _Series:
    """A stream's windows: at most ``_KEPT_WINDOWS`` rows of ``_FIELDS``; when they are full, each two become one."""

    __slots__ = ("count", "mos_min", "rows")

    def __init__(self) -> None:
        self.rows = np.zeros((8, len(_FIELDS)), np.float32)
        self.count = 0
        self.mos_min = np.inf

    def add(self, row: F32) -> None:
        if self.count == _KEPT_WINDOWS:
            self._halve()
        elif self.count == len(self.rows):
            more = np.zeros((min(len(self.rows), _KEPT_WINDOWS - len(self.rows)), len(_FIELDS)), np.float32)
            self.rows = np.concatenate([self.rows, more])
        self.rows[self.count] = row
        self.count += 1
        self.mos_min = min(self.mos_min, float(row[_FIELDS.index("mos_cq")]))

    def _halve(self) -> None:
        a, b = self.rows[0::2], self.rows[1::2]
        weight = a[:, 1:2] / np.maximum(a[:, 1:2] + b[:, 1:2], 1e-6)
        merged = weight * a + (1 - weight) * b
        merged[:, 0] = a[:, 0]
        merged[:, 1] = a[:, 1] + b[:, 1]
        for name in _WORST:  # a bad window must not vanish among good ones
            column = _FIELDS.index(name)
            merged[:, column] = np.minimum(a[:, column], b[:, column])
        self.count = len(merged)
        self.rows[: self.count] = merged

    def as_list(self) -> list[dict[str, float]]:
        return [
            {name: round(value, digits) for name, value, digits in zip(_FIELDS, row, _DIGITS, strict=True)}
            for row in self.rows[: self.count].tolist()
        ]


class _Gaps:
    """A stream's gaps: (position, frames, cause); of too many the longest, and losses before silence."""

    __slots__ = ("kept", "omitted")

    def __init__(self) -> None:
        self.kept: list[tuple[int, int, int]] = []
        self.omitted = 0

    def add(self, position: int, frames: int, cause: int) -> None:
        self.kept.append((position, frames, cause))
        if len(self.kept) >= 2 * _KEPT_GAPS:
            self.shorten()

    def shorten(self) -> None:
        if len(self.kept) > _KEPT_GAPS:
            self.omitted += len(self.kept) - _KEPT_GAPS
            best = sorted(self.kept, key=lambda gap: (gap[2] != GapCause.LOSS, -gap[1], gap[0]))
            self.kept = sorted(best[:_KEPT_GAPS])


class QualityMeter(Analyzer):
    """Tells how good the network was: loss, RFC 3611 bursts and gaps, jitter, and by the E-model R and MOS.

    Each stream is looked at in windows of ``window_s`` seconds of its timeline. When a window's MOS-CQ is below
    ``threshold`` a "quality" event says so (``state`` "poor"), and another one when it is better again ("good").
    Nothing is concluded from windows of less than 1 s.

    ``delay_ms``    one-way delay that cannot be measured here and is added to the absolute delay: network, terminals
    ``latency_ms``  the jitter buffer of who listens; None: what the window's jitter needs, that is the mean time that
                    packets came after the earliest, and twice the mean deviation (95 % of packets, when delays are
                    exponential)
    ``plc``         whether who listens conceals lost packets (of G.711: Bpl 25.1, else 4.3)

    Figures of a stream, under ``"quality"``: ``r``, ``mos_cq`` (conversation: with delay), ``mos_lq`` (listening:
    without), ``mos_min`` of the worst window, ``model`` ("G.107", or "G.107.1" for wideband codecs: R up to 129,
    another scale), ``ie``, ``bpl``, ``basis`` (where these are from, or that they are estimates), ``loss`` (of all that
    was expected what could not be played; ``discard`` of it came too late), ``jitter_ms`` (mean |D| of RFC 3550),
    ``delay_ms`` (absolute delay as assumed), ``burst`` (density and duration of bursts and gaps, RFC 3611 4.7.2 with
    Gmin 16), ``series`` (a dict a window; at most 360: when there are more, each two become one with the worse MOS) and
    ``gap_list``: [[position_s, duration_s, cause], ...], at most 1,000, the longest, losses first
    (``gap_list_omitted`` how many more there were).

    On outbound plain RTP (rx/tx forks) keys pressed (RFC 4733) and comfort noise take sequence numbers and are not
    forked: what is called loss there need not be, and MOS is too low.

    Never looks at samples. Raises ConfigurationError for a window of less than 1 s or a threshold that is no MOS.
    """

    kind = "quality"
    concealment = False

    def __init__(
        self,
        window_s: float = 10.0,
        threshold: float = 3.6,
        *,
        delay_ms: float = 0.0,
        latency_ms: float | None = None,
        plc: bool = True,
        on_event: Callable[[StreamEvent], object] | None = None,
    ) -> None:
        super().__init__(on_event)
        if window_s < _SHORTEST_S:
            raise ConfigurationError(f"window_s {window_s}: at least 1 s, for example 10")
        if not 1.0 <= threshold <= 4.5:
            raise ConfigurationError(f"threshold {threshold}: a MOS is 1 to 4.5, and good ones are above 4")
        if delay_ms < 0 or (latency_ms is not None and latency_ms < 0):
            raise ConfigurationError("delay_ms and latency_ms: 0 or more milliseconds")
        self._threshold = threshold
        self._delay_ms = delay_ms
        self._latency_ms = latency_ms
        self._plc = plc
        self._windows = Windows(window_s)
        rows = self._windows.rows
        self._serial = np.full(rows, -1, np.int64)
        self._ie, self._bpl = np.zeros(rows), np.zeros(rows)
        self._wideband = np.zeros(rows, np.bool_)
        self._poor = np.zeros(rows, np.bool_)
        self._last = np.full((rows, len(_FIELDS)), np.nan, np.float32)
        self._stream: list[StreamInfo | None] = [None] * rows
        self._series: list[_Series | None] = [None] * rows
        self._gaps: list[_Gaps | None] = [None] * rows
        self._ended: OrderedDict[int, tuple[dict[str, Any], _Series, _Gaps, float]] = OrderedDict()

    def _make_room(self, row: int) -> None:
        old = self._windows.rows
        if row < old:
            return
        rows = max(2 * old, row + 1)
        more = rows - old
        self._windows.grow(rows)
        self._serial = np.append(self._serial, np.full(more, -1, np.int64))
        self._ie, self._bpl = np.append(self._ie, np.zeros(more)), np.append(self._bpl, np.zeros(more))
        self._wideband = np.append(self._wideband, np.zeros(more, np.bool_))
        self._poor = np.append(self._poor, np.zeros(more, np.bool_))
        self._last = np.concatenate([self._last, np.full((more, len(_FIELDS)), np.nan, np.float32)])
        for column in (self._stream, self._series, self._gaps):
            column.extend([None] * more)

    def stream_started(self, stream: StreamInfo) -> None:
        with self._lock:
            self._begin(stream)

    def _begin(self, stream: StreamInfo) -> None:
        row = stream.index
        self._make_room(row)
        self._windows.open(row)
        self._serial[row] = stream.serial
        self._poor[row] = False
        self._last[row] = np.nan
        self._stream[row], self._series[row], self._gaps[row] = stream, _Series(), _Gaps()

    def _take(self, batch: BlockBatch) -> None:
        if not len(batch):
            return
        with self._lock:
            self._make_room(int(batch.index.max()))
            for i in np.flatnonzero(self._windows.rate[batch.index] == 0).tolist():
                self._for(batch.streams[i], self._learn, batch.streams[i])
            if self.aside.fresh:
                batch = batch.without({stream.serial for stream in self.aside.fresh})
            told = [
                event
                for part, windows in self.aside.blocks(batch, self._windows.add)
                for event in self._note(part, windows)
            ]
        for event in told:
            self.tell(event)

    def _note(self, batch: BlockBatch, windows: list[Closed]) -> list[StreamEvent]:
        for i in np.flatnonzero(batch.gap_frames).tolist():
            gaps, frames = self._gaps[int(batch.index[i])], int(batch.gap_frames[i])
            if gaps is not None:
                gaps.add(int(batch.position[i]) - frames, frames, int(batch.gap_cause[i]))
        return [event for closed in windows for event in self._judge_apart(closed)]

    def _judge_apart(self, closed: Closed) -> list[StreamEvent]:
        """Windows judged, without the stream whose window cannot be."""
        try:
            return self._judge(closed)
        except Exception as error:
            if len(closed.row) == 1:
                stream = self._stream[int(closed.row[0])]
                if stream is None:
                    raise
                self.aside.put(stream, error)
                return []
        middle = len(closed.row) // 2
        parts = closed.take(slice(0, middle)), closed.take(slice(middle, len(closed.row)))
        return [event for part in parts for event in self._judge_apart(part)]

    def _abandon(self, stream: StreamInfo) -> None:
        with self._lock:
            row = stream.index
            if row < self._windows.rows and self._serial[row] == stream.serial:
                self._windows.open(row)
                self._serial[row] = -1
                self._stream[row] = self._series[row] = self._gaps[row] = None

    def _learn(self, stream: StreamInfo) -> None:
        row, codec = stream.index, stream.codec
        if self._serial[row] != stream.serial:
            self._begin(stream)
        if codec is not None and not self._windows.rate[row]:
            self._windows.learn(row, codec.sample_rate, codec.clock_rate)
            cost = impairment_of(codec.name, codec.sample_rate, concealment=self._plc)
            self._ie[row], self._bpl[row], self._wideband[row] = cost.ie, cost.bpl, cost.wideband

    def _rate(self, closed: Closed) -> tuple[F64, F64, F64, F64, F64]:
        """Absolute delay and jitter buffer, ms; R, MOS-CQ and MOS-LQ."""
        row = closed.row
        if self._latency_ms is None:
            buffer_ms = closed.wait_ms + 2.0 * closed.jitter_ms
        else:
            buffer_ms = np.full(len(row), self._latency_ms)
        ta = self._delay_ms + closed.packet_ms + buffer_ms
        wide = self._wideband[row]
        cost: dict[str, Any] = {
            "ie": self._ie[row],
            "bpl": self._bpl[row],
            "ppl": 100.0 * closed.loss,
            "burst_r": np.minimum(closed.burst_r, _BURSTIEST),
        }
        path: dict[str, Any] = {"ta": ta, "t": ta, "tr": 2.0 * ta}
        r = np.where(wide, r_factor_wideband(**cost, **path), r_factor(**cost, **path))
        listening = np.where(wide, r_factor_wideband(**cost), r_factor(**cost))
        return buffer_ms, ta, r, mos_from_r(r, wideband=wide), mos_from_r(listening, wideband=wide)

    def _judge(self, closed: Closed) -> list[StreamEvent]:
        buffer_ms, _, r, mos, listening = self._rate(closed)
        rate = self._windows.rate[closed.row]
        table = np.stack(
            [
                closed.begin / rate,
                closed.span_s,
                closed.loss,
                closed.burst_r,
                closed.burst_density,
                closed.burst_ms,
                closed.jitter_ms,
                buffer_ms,
                r,
                mos,
                listening,
            ],
            axis=1,
        ).astype(np.float32)
        long = closed.span_s >= _SHORTEST_S
        for i, row in enumerate(closed.row.tolist()):
            series = self._series[row]
            if series is not None and (long[i] or not series.count):
                self._for(self._stream[row], series.add, table[i])
        sound = closed.row[long]
        self._last[sound] = table[long]
        poor = mos < self._threshold
        events = []
        for i in np.flatnonzero(long & (poor != self._poor[closed.row])).tolist():
            stream = self._stream[int(closed.row[i])]
            if stream is None:
                continue
            data = {
                "state": "poor" if poor[i] else "good",
                "mos_cq": round(float(mos[i]), 3),
                "r": round(float(r[i]), 2),
                "loss": round(float(closed.loss[i]), 5),
                "jitter_ms": round(float(closed.jitter_ms[i]), 3),
            }
            at, at_ns, span = int(closed.begin[i]), int(closed.begin_ns[i]), float(closed.span_s[i])
            events.append(StreamEvent(stream, "quality", at, at_ns, span, data))
        self._poor[sound] = poor[long]
        return events

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        told: list[StreamEvent] = []
        with self._lock:
            row = stream.index
            series, gaps = (self._series[row], self._gaps[row]) if row < self._windows.rows else (None, None)
            if series is None or gaps is None or self._serial[row] != stream.serial:
                return
            if self._windows.rate[row]:
                rows = np.array([row])
                if self._windows.open_rows(rows).size:
                    told = self._judge(self._windows.close(rows))
                gaps.shorten()
                late = report.late / max(report.packets_expected, 1)
                figures = self._whole(stream, late)
                self._ended[stream.serial] = figures, series, gaps, float(self._windows.rate[row])
                if len(self._ended) > _KEPT_STREAMS:
                    self._ended.popitem(last=False)
            self._serial[row] = -1
            self._stream[row] = self._series[row] = self._gaps[row] = None
        for event in told:
            self.tell(event)

    def _whole(self, stream: StreamInfo, late: float) -> dict[str, Any]:
        rows = np.array([stream.index])
        whole = self._windows.whole(rows)
        _, ta, r, mos, listening = (float(values[0]) for values in self._rate(whole))
        burst = self._windows.total.metrics(rows, whole.packet_ms)
        codec = stream.codec
        basis = impairment_of(codec.name if codec else "", stream.sample_rate, concealment=self._plc)
        return {
            "r": round(r, 2),
            "mos_cq": round(mos, 3),
            "mos_lq": round(listening, 3),
            "mos_min": None,
            "model": "G.107.1" if basis.wideband else "G.107",
            "ie": basis.ie,
            "bpl": basis.bpl,
            "basis": basis.source,
            "loss": round(float(whole.loss[0]), 6),
            "discard": round(late, 6),
            "burst_r": round(float(whole.burst_r[0]), 4),
            "jitter_ms": round(float(whole.jitter_ms[0]), 4),
            "delay_ms": round(ta, 3),
            "burst": {
                "gmin": 16,
                "count": int(burst["bursts"][0]),
                "density": round(float(burst["burst_density"][0]), 5),
                "duration_ms": round(float(burst["burst_ms"][0]), 2),
                "gap_density": round(float(burst["gap_density"][0]), 5),
                "gap_duration_ms": round(float(burst["gap_ms"][0]), 2),
            },
        }

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        with self._lock:
            ended = self._ended.get(stream.serial)
        if ended is None:
            return {}
        figures, series, gaps, rate = ended
        listed = [
            [round(position / rate, 4), round(frames / rate, 4), GapCause(cause).label]
            for position, frames, cause in gaps.kept
        ]
        return {
            "quality": {
                **figures,
                "mos_min": round(series.mos_min, 3) if series.count else figures["mos_cq"],
                "series": series.as_list(),
                "gap_list": listed,
                "gap_list_omitted": gaps.omitted,
            }
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All live streams as columns (n,): ``serial`` int64, ``wideband`` bool; float32 of the last complete window:
        start_s, duration_s, loss, burst_r, burst_density, burst_ms, jitter_ms, buffer_ms, r, mos_cq, mos_lq (NaN while
        there is none); float64 ``loss_all`` since the beginning."""
        with self._lock:
            rows = np.flatnonzero(self._serial >= 0)
            last = self._last[rows]
            columns: dict[str, npt.NDArray[Any]] = {
                "serial": self._serial[rows],
                "wideband": self._wideband[rows],
                **{name: last[:, i] for i, name in enumerate(_FIELDS)},
            }
            counts = self._windows.total.closed(rows)
        columns["loss_all"] = counts["lost"] / np.maximum(counts["lost"] + counts["received"], 1)
        return columns
