"""How good the network was to each stream: loss, bursts, jitter, R and MOS, window by window."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.exceptions import ConfigurationError
from ..._model.supply import SILENT_CODECS
from ..._model.types import GapCause, StreamEvent, StreamInfo
from ...quality import SCALES, impairment_of, impairments_by_mode
from .analyzer import Analyzer
from .columns import Columns, column
from .quality_rating import MODELS, CodecCosts
from .quality_series import WINDOW_FIELDS, GapList, WindowSeries
from .quality_windows import QualityWindows, WindowFigures

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from .quality_rating import Rating

__all__ = ["QualityMeter"]

F32 = npt.NDArray[np.float32]

_ENDED_STREAMS_KEPT: Final = 100_000  # whose figures can still be asked for, as their reports are kept
_MIN_WINDOW_S: Final = 1.0  # of less than this nothing is concluded


class _Judgements(Columns):
    """What is known of each stream."""

    serial: npt.NDArray[np.int64] = column(np.int64, -1)  # of the row's live stream; -1: none
    poor: npt.NDArray[np.bool_] = column(np.bool_)  # the last window was
    last: F32 = column(np.float32, np.nan, shape=(len(WINDOW_FIELDS),))  # the figures of the last window


@dataclass(slots=True)
class _StreamQuality:
    """A live stream's windows and gaps so far."""

    stream: StreamInfo
    series: WindowSeries = field(default_factory=WindowSeries)
    gaps: GapList = field(default_factory=GapList)


@dataclass(slots=True)
class _FinalQuality:
    """What is kept of a stream that has ended."""

    figures: dict[str, Any]
    series: WindowSeries
    gaps: GapList
    rate: float  # sample frames a second


class QualityMeter(Analyzer):
    """Tells how good the network was: loss, RFC 3611 bursts and gaps, jitter, and by the E-model R and MOS.

    Each stream is looked at in windows of ``window_s`` seconds of its timeline. Nothing is concluded from windows of
    less than 1 s. It never looks at samples; of AMR-WB and opus it reads the mode from each payload.

    R and MOS are of the scale of the codec's bandwidth: "narrowband" (G.107), "wideband" (G.107.1: G.722, AMR-WB, L16
    from 16 kHz on) or "fullband" (G.107.2: opus, L16 from 44.1 kHz on). Each has a clean call at about 4.4. Compare
    figures of one scale only.

    ``threshold``   MOS-CQ below which a window is poor, of its stream's scale. What the codec costs is in it: AMR-WB
                    at 6.6 kbit/s and opus in narrowband are below 3.6 without any loss
    ``delay_ms``    one-way delay that cannot be measured here (network, terminals); it is added to the absolute delay
    ``latency_ms``  the jitter buffer of the listener. None: what the window's jitter needs, that is the mean time that
                    packets came after the earliest, and twice the mean deviation (95 % of packets, if delays are
                    exponential)
    ``plc``         whether the listener conceals lost packets (of G.711: Bpl 25.1, else 4.3)

    Events are of the kind ``quality``: one when a window is poor, and another one when a window is good again. Their
    ``data``: ``state`` "poor" or "good" · ``mos_cq`` · ``r`` · ``scale`` of these · ``loss``, a fraction ·
    ``jitter_ms``; all of that window, which begins at ``position`` and lasts ``duration_s``.

    Figures of a stream, under ``"quality"``:

    ``r``, ``mos_cq``, ``mos_lq``  of the conversation, with delay; ``mos_lq`` of listening, without delay
    ``mos_min``                    MOS-CQ of the worst window
    ``scale``, ``model``           of all R and MOS here: "narrowband", "wideband" or "fullband"; its Recommendation
    ``ie``, ``bpl``, ``basis``     the codec's impairments, and where these are from, or that they are estimates; of a
                                   codec with modes: means over what came, and the basis of the mode that came most
    ``modes``                      of such a codec: which fraction of the speech came in each, {"12.65": 0.9, ...}
    ``loss``, ``discard``          fraction of the expected audio that could not be played; of that, what came too late
    ``media_ratio``                seconds of audio sent for each second that passed, pauses not counted; below 0.8
                                   what is missing counts as lost in R and MOS
    ``jitter_ms``, ``delay_ms``    mean abs(D) of RFC 3550; the absolute delay as assumed
    ``burst``                      density and duration of bursts and gaps (RFC 3611 4.7.2 with Gmin 16)
    ``window_s``                   length of the windows
    ``series``                     a dict for each window with 1 s of audio or more; it ends at ``end_s``. At most 360:
                                   when there are more, each two become one with the worse MOS
    ``gap_list``                   [[position_s, duration_s, cause], ...], at most 1,000: the longest, losses first
    ``gap_list_omitted``           how many more gaps there were

    On outbound plain RTP (rx/tx forks) keys pressed (RFC 4733) and comfort noise take sequence numbers and are not
    forked. So what is called loss there need not be loss, and MOS is too low.

    Raises ConfigurationError for a window of less than 1 s, a threshold that is no MOS, or a negative delay.
    """

    kind = "quality"
    event_kinds = ("quality",)
    concealment = False

    def __init__(
        self,
        window_s: float = 10.0,
        threshold: float = 3.6,
        on_event: Callable[[StreamEvent], object] | None = None,
        *,
        delay_ms: float = 0.0,
        latency_ms: float | None = None,
        plc: bool = True,
    ) -> None:
        super().__init__(on_event)
        if window_s < _MIN_WINDOW_S:
            raise ConfigurationError(f"window_s {window_s}: at least 1 s, for example 10")
        if not 1.0 <= threshold <= 4.5:
            raise ConfigurationError(f"threshold {threshold}: a MOS is 1 to 4.5, and good ones are above 4")
        if delay_ms < 0 or (latency_ms is not None and latency_ms < 0):
            raise ConfigurationError("delay_ms and latency_ms: 0 or more milliseconds")
        self._threshold = threshold
        self._delay_ms = delay_ms
        self._latency_ms = latency_ms
        self._plc = plc
        self._window_s = window_s
        self._windows = QualityWindows(window_s)
        self._judgements = _Judgements(self._windows.rows)
        self._costs = CodecCosts(self._windows.rows)
        self._live: dict[int, _StreamQuality] = {}  # by row
        self._ended: OrderedDict[int, _FinalQuality] = OrderedDict()  # by serial

    def _make_room(self, row: int) -> None:
        self._windows.make_room(row)
        self._judgements.make_room(row)
        self._costs.make_room(row)

    def stream_started(self, stream: StreamInfo) -> None:
        with self._lock:
            self._begin(stream)

    def _begin(self, stream: StreamInfo) -> None:
        row = stream.index
        self._make_room(row)
        self._windows.open(row)
        self._judgements.reset(row)
        self._costs.reset(row)
        self._judgements.serial[row] = stream.serial
        self._live[row] = _StreamQuality(stream)

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
        self._tell_all(told)

    def _note(self, batch: BlockBatch, windows: list[WindowFigures]) -> list[StreamEvent]:
        """Note the gaps of a batch, and judge the windows that it completed."""
        for i in np.flatnonzero(batch.gap_frames).tolist():
            live, frames = self._live.get(int(batch.index[i])), int(batch.gap_frames[i])
            if live is not None:
                live.gaps.add(int(batch.position[i]) - frames, frames, int(batch.gap_cause[i]))
        return [event for complete in windows for event in self._judge_apart(complete)]

    def _judge_apart(self, windows: WindowFigures) -> list[StreamEvent]:
        """Judge windows, without the stream whose window cannot be judged."""
        try:
            return self._judge(windows)
        except Exception as error:
            if len(windows.row) == 1:
                live = self._live.get(int(windows.row[0]))
                if live is None:
                    raise
                self.aside.put(live.stream, error)
                return []
        middle = len(windows.row) // 2
        parts = windows.take(slice(0, middle)), windows.take(slice(middle, len(windows.row)))
        return [event for part in parts for event in self._judge_apart(part)]

    def _abandon(self, stream: StreamInfo) -> None:
        with self._lock:
            row = stream.index
            if row < self._windows.rows and self._judgements.serial[row] == stream.serial:
                self._windows.open(row)
                self._judgements.serial[row] = -1
                self._live.pop(row, None)

    def _learn(self, stream: StreamInfo) -> None:
        row, codec = stream.index, stream.codec
        judgements = self._judgements
        if judgements.serial[row] != stream.serial:
            self._begin(stream)
        if codec is not None and not self._windows.rate[row]:
            self._windows.learn(row, codec)
            self._windows.suppresses[row] = codec.name.upper() in SILENT_CODECS
            self._costs.learn(row, impairment_of(codec.name, codec.sample_rate, concealment=self._plc))

    def _rate(self, windows: WindowFigures) -> Rating:
        return self._costs.rate(windows, self._windows.modes, self._delay_ms, self._latency_ms)

    def _judge(self, windows: WindowFigures) -> list[StreamEvent]:
        """Judge windows and remember what they say; the events of streams that became poor or good."""
        judgements = self._judgements
        rating = self._rate(windows)
        mos = rating.mos_cq
        rate = self._windows.rate[windows.row]
        table = np.stack(
            [
                windows.begin / rate,
                windows.span_s,
                windows.loss,
                windows.burst_r,
                windows.burst_density,
                windows.burst_ms,
                windows.jitter_ms,
                rating.buffer_ms,
                rating.r,
                mos,
                rating.mos_lq,
                windows.end / rate,
                windows.media_ratio,
            ],
            axis=1,
        ).astype(np.float32)
        long = windows.span_s >= _MIN_WINDOW_S
        for i, row in enumerate(windows.row.tolist()):
            live = self._live.get(row)
            if live is not None and (long[i] or not live.series.count):
                self._for(live.stream, live.series.add, table[i])
        sound = windows.row[long]
        judgements.last[sound] = table[long]
        poor = mos < self._threshold
        events = []
        for i in np.flatnonzero(long & (poor != judgements.poor[windows.row])).tolist():
            live = self._live.get(int(windows.row[i]))
            if live is None:
                continue
            data = {
                "state": "poor" if poor[i] else "good",
                "mos_cq": round(float(mos[i]), 3),
                "r": round(float(rating.r[i]), 2),
                "scale": self._costs.scale_of(int(windows.row[i])),
                "loss": round(float(windows.loss[i]), 5),
                "jitter_ms": round(float(windows.jitter_ms[i]), 3),
            }
            at, at_ns, span = int(windows.begin[i]), int(windows.begin_ns[i]), float(windows.span_s[i])
            events.append(StreamEvent(live.stream, "quality", at, at_ns, span, data))
        judgements.poor[sound] = poor[long]
        return events

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        told: list[StreamEvent] = []
        with self._lock:
            row = stream.index
            live = self._live.get(row)
            if live is None or live.stream.serial != stream.serial:
                return
            if self._windows.rate[row]:
                rows = np.array([row])
                if self._windows.open_rows(rows).size:
                    told = self._judge(self._windows.close(rows))
                live.gaps.shorten()
                late = report.late / max(report.packets_expected, 1)
                rate = float(self._windows.rate[row])
                self._ended[stream.serial] = _FinalQuality(self._whole(stream, late), live.series, live.gaps, rate)
                if len(self._ended) > _ENDED_STREAMS_KEPT:
                    self._ended.popitem(last=False)
            self._judgements.serial[row] = -1
            del self._live[row]
        self._tell_all(told)

    def _whole(self, stream: StreamInfo, late: float) -> dict[str, Any]:
        rows = np.array([stream.index])
        whole = self._windows.whole(rows)
        _, delay_ms, ie, bpl, r, mos, listening = (float(values[0]) for values in self._rate(whole))
        burst = self._windows.total.metrics(rows, whole.packet_ms)
        codec = stream.codec
        basis = impairment_of(codec.name if codec else "", stream.sample_rate, concealment=self._plc)
        weights = whole.modes
        shares: dict[str, Any] = {}
        if codec is not None and weights.any():
            modes = impairments_by_mode(codec.name)
            basis = modes[int(weights[0].argmax())]
            share = (weights[0] / weights.sum()).tolist()
            shares["modes"] = {m.mode: round(part, 4) for m, part in zip(modes, share, strict=False) if part}
        return {
            "r": round(r, 2),
            "mos_cq": round(mos, 3),
            "mos_lq": round(listening, 3),
            "mos_min": None,
            "scale": basis.scale,
            "model": MODELS[basis.scale],
            "ie": round(ie, 3),
            "bpl": round(bpl, 3),
            "basis": basis.source,
            **shares,
            "loss": round(float(whole.loss[0]), 6),
            "discard": round(late, 6),
            "media_ratio": round(float(whole.media_ratio[0]), 4),
            "burst_r": round(float(whole.burst_r[0]), 4),
            "jitter_ms": round(float(whole.jitter_ms[0]), 4),
            "delay_ms": round(delay_ms, 3),
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
        series, gaps, rate = ended.series, ended.gaps, ended.rate
        listed = [
            [round(position / rate, 4), round(frames / rate, 4), GapCause(cause).label]
            for position, frames, cause in gaps.kept
        ]
        return {
            "quality": {
                **ended.figures,
                "mos_min": round(series.mos_min, 3) if series.count else ended.figures["mos_cq"],
                "window_s": self._window_s,
                "series": series.as_list(),
                "gap_list": listed,
                "gap_list_omitted": gaps.omitted,
            }
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All live streams as columns (n,).

        ``serial`` int64 · ``scale`` of R and MOS, str · ``wideband`` bool, whether it is that scale · of the last
        complete window, float32 (NaN while there is none): ``start_s``, ``duration_s``, ``loss``, ``burst_r``,
        ``burst_density``, ``burst_ms``, ``jitter_ms``, ``buffer_ms``, ``r``, ``mos_cq``, ``mos_lq``, ``end_s``,
        ``media_ratio`` · ``loss_all`` float64, the fraction lost since the beginning
        """
        with self._lock:
            judgements = self._judgements
            rows = np.flatnonzero(judgements.serial >= 0)
            last = judgements.last[rows]
            columns: dict[str, npt.NDArray[Any]] = {
                "serial": judgements.serial[rows],
                "scale": np.array(SCALES)[self._costs.scale[rows]],
                "wideband": self._costs.scale[rows] == SCALES.index("wideband"),
                **{name: last[:, i] for i, name in enumerate(WINDOW_FIELDS)},
            }
            counts = self._windows.total.counts(rows)
        columns["loss_all"] = counts["lost"] / np.maximum(counts["lost"] + counts["received"], 1)
        return columns
