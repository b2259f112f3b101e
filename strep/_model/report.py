"""Figures in the form that users read: per stream and in total."""

from __future__ import annotations

import datetime
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .types import GapCause, StreamInfo

__all__ = ["StreamReport", "Totals", "leg_created_ns", "rank_by", "report_of", "summary_of", "utc_text"]

_GAP_CAUSES: Final = tuple(GapCause)
_UUID_EPOCH: Final = 0x01B2_1DD2_1381_4000  # 100 ns from 1582-10-15 to 1970-01-01 (RFC 9562 section 5.1)
_OLDEST_LEG_NS: Final = 30 * 86_400 * 1_000_000_000  # an id that claims more was not made when its leg was
_EPOCH: Final = datetime.datetime(1970, 1, 1)


@dataclass(slots=True)
class StreamReport:
    """The figures of one stream, RFC 3550 sections 6.4.1, A.3 and A.8.

    ``packets_received`` counts every RTP packet of the stream, duplicates and late ones too.
    ``packets_lost`` = sequence numbers that never came = expected - (received - duplicates).
    ``rfc3550_lost`` = expected - received, which duplicates make smaller, even negative.
    ``recovered`` = packets that did not come in time, and that redundant copies (RFC 2198) stand in for. They count as
    lost, or late, as the network lost them, or was late; but there is no gap.
    ``media_ratio``: seconds of audio that were sent for each second that passed, pauses not counted; below 1 the sender
    was starved. ``media_ratio_min``: that of the worst 10 s. None for less than 1 s, or 10 s.
    ``skew_ppm``: how much faster than the receiver's the sender's clock runs; None for less than 30 s.
    """

    stream: StreamInfo
    payload_types: list[int]
    packets_received: int
    packets_expected: int
    packets_lost: int
    rfc3550_lost: int
    duplicates: int
    reordered: int
    late: int
    jitter_ms_mean: float
    jitter_ms_max: float
    jitter_ms_last: float
    samples: int  # sample frames on the timeline, gaps included
    gap_samples: int
    sources: int
    last_arrival_ns: int
    gaps: dict[str, int] = field(default_factory=dict)  # frames by cause
    undecoded: int = 0  # packets of unknown payload types or other formats: dropped, counted
    recovered: int = 0  # lost or late ones that redundant copies (RFC 2198) stood in for
    trimmed: int = 0  # frames of audio left out, because what is there already overlaps them
    timestamp_jumps: int = 0
    restarts: int = 0  # SSRC changes and sequence restarts
    skew_ppm: float | None = None
    timed: bool = True  # False: when packets came is not known, so jitter and skew are not either
    media_ratio: float | None = None
    media_ratio_min: float | None = None
    end: str = ""  # why the stream ended: "idle", "closed"

    @classmethod
    def empty(cls, stream: StreamInfo, end: str) -> StreamReport:
        """For a stream whose figures are lost: all of them 0."""
        return cls(
            stream=stream,
            payload_types=[],
            packets_received=0,
            packets_expected=0,
            packets_lost=0,
            rfc3550_lost=0,
            duplicates=0,
            reordered=0,
            late=0,
            jitter_ms_mean=0.0,
            jitter_ms_max=0.0,
            jitter_ms_last=0.0,
            samples=0,
            gap_samples=0,
            sources=0,
            last_arrival_ns=stream.first_arrival_ns,
            end=end,
        )

    @property
    def leg_created_ns(self) -> int | None:
        """When the call leg was created, by its id; see :func:`leg_created_ns`."""
        return leg_created_ns(self.stream.call_leg_id, self.stream.first_arrival_ns)

    @property
    def forked_late_s(self) -> float | None:
        """How long the leg was there before its first packet came here."""
        created = self.leg_created_ns
        return None if created is None or not self.timed else (self.stream.first_arrival_ns - created) / 1e9

    @property
    def duration_s(self) -> float:
        """Seconds of audio; 0 while the codec is unknown."""
        rate = self.stream.sample_rate
        return self.samples / rate if rate else 0.0

    def as_dict(self, files: list[str] | None = None) -> dict[str, Any]:
        """The stream's entry in ``summary.json``."""
        info = self.stream
        return {
            "call_leg_id": str(info.call_leg_id) if info.call_leg_id else None,
            "name": info.name,
            "leg": info.leg.label,
            "direction": info.direction.label,
            "codec": info.codec.name if info.codec else None,
            "codec_guessed": info.codec_guessed,
            "encrypted": info.encrypted,
            "notes": list(info.notes),
            "payload_types": self.payload_types,
            "clock_rate": info.clock_rate or (info.codec.clock_rate if info.codec else None),
            "clock_rate_nominal": info.codec.clock_rate if info.codec else None,
            "sample_rate": info.sample_rate or None,
            "channels": info.channels,
            "ssrcs": list(info.ssrcs),
            "sources": self.sources,
            "source": f"{info.source[0]}:{info.source[1]}",
            "local_port": info.local_port,
            "first_arrival": utc_text(info.first_arrival_ns) if self.timed else None,
            "first_arrival_ns": info.first_arrival_ns if self.timed else None,
            "last_arrival_ns": self.last_arrival_ns if self.timed else None,
            "leg_created_ns": self.leg_created_ns,
            "forked_late_s": None if (late := self.forked_late_s) is None else round(late, 6),
            "packets_received": self.packets_received,
            "packets_expected": self.packets_expected,
            "packets_lost": self.packets_lost,
            "rfc3550_lost": self.rfc3550_lost,
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "late": self.late,
            "undecoded": self.undecoded,
            "recovered": self.recovered,
            "timestamp_jumps": self.timestamp_jumps,
            "trimmed": self.trimmed,
            "restarts": self.restarts,
            "jitter_ms": {
                "mean": round(self.jitter_ms_mean, 6) if self.timed else None,
                "max": round(self.jitter_ms_max, 6) if self.timed else None,
                "last": round(self.jitter_ms_last, 6) if self.timed else None,
            },
            "skew_ppm": None if self.skew_ppm is None or not self.timed else round(self.skew_ppm, 3),
            "media_ratio": None if self.media_ratio is None else round(self.media_ratio, 4),
            "media_ratio_min": None if self.media_ratio_min is None else round(self.media_ratio_min, 4),
            "duration_s": round(self.duration_s, 6),
            "samples": self.samples,
            "gap_samples": self.gap_samples,
            "gaps": self.gaps,
            "end": self.end,
            "files": files or [],
        }


def report_of(stream: StreamInfo, figures: Mapping[str, Any], end: str = "") -> StreamReport:
    """The report of a stream whose raw ``figures`` these are, by the names of ``StreamState.columns``."""
    received, expected, duplicates = (int(figures[name]) for name in ("received", "expected", "duplicates"))
    if stream.codec:
        clock_rate = stream.clock_rate or stream.codec.clock_rate
    else:
        clock_rate = int(figures.get("clock_rate", 0))
    milliseconds = 1000.0 / clock_rate if clock_rate else 0.0
    count = int(figures["jitter_count"])
    gaps = figures["gap_frames"]
    return StreamReport(
        stream=stream,
        payload_types=np.flatnonzero(figures["types_seen"]).tolist(),
        packets_received=received,
        packets_expected=expected,
        packets_lost=max(expected - (received - duplicates), 0),
        rfc3550_lost=expected - received,
        duplicates=duplicates,
        reordered=int(figures["reordered"]),
        late=int(figures["late"]),
        jitter_ms_mean=float(figures["jitter_sum"]) / count * milliseconds if count else 0.0,
        jitter_ms_max=float(figures["jitter_max"]) * milliseconds,
        jitter_ms_last=float(figures["jitter"]) * milliseconds,
        samples=int(figures["position"]),
        gap_samples=int(gaps.sum()),
        sources=int(figures["sources"]),
        last_arrival_ns=int(figures["last_arrival_ns"]),
        gaps={cause.label: int(gaps[cause]) for cause in _GAP_CAUSES if gaps[cause]},
        undecoded=int(figures["undecoded"]),
        recovered=int(figures["recovered"]),
        trimmed=int(figures["trimmed"]),
        timestamp_jumps=int(figures["timestamp_jumps"]),
        restarts=int(figures["restarts"]),
        skew_ppm=_known(figures["skew_ppm"]),
        media_ratio=_known(figures["media_ratio"]),
        media_ratio_min=_known(figures["media_ratio_min"]),
        end=end,
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def utc_text(time_ns: int) -> str:
    """UTC nanoseconds since 1970 as ISO 8601, like "2026-01-02T03:04:05.678901234Z"."""
    seconds, ns = divmod(time_ns, 1_000_000_000)
    return f"{(_EPOCH + datetime.timedelta(seconds=seconds)).isoformat()}.{ns:09d}Z"


def leg_created_ns(call_leg_id: uuid.UUID | None, seen_ns: int) -> int | None:
    """The time in a version 1 UUID (RFC 9562 section 5.1), UTC nanoseconds, precise to 100 ns.

    None for other ids, and where it makes no sense: after ``seen_ns``, or more than 30 days before.
    """
    if call_leg_id is None or call_leg_id.version != 1:
        return None
    created = (call_leg_id.time - _UUID_EPOCH) * 100
    return created if 0 <= seen_ns - created <= _OLDEST_LEG_NS else None


def rank_by(key: str, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """How much of "jitter", "lost" packets or (else) "packets" each stream has; ``columns`` as ``StreamState``'s."""
    if key == "jitter":
        rank = columns["jitter"]
    elif key == "lost":
        rank = columns["expected"] - columns["received"] + columns["duplicates"]
    else:
        rank = columns["received"]
    return rank.astype(np.float64)


@dataclass(slots=True)
class Totals:
    """What became of every datagram. At every moment

    ``datagrams = delivered + duplicate + late + malformed + rejected + dropped + buffered``

    and ``buffered`` (waiting in a jitter ring or on probation) is 0 once everything is closed.
    ``kernel_dropped`` (the buffer was full) and ``after_end`` (the end of a socket had begun) never reached us and are
    not part of ``datagrams``. What was still unread at the end is ``dropped`` (cause "unread"). ``faults`` counts
    exceptions that were contained, by place; the packets that they cost are among ``dropped`` (cause "fault").
    ``recovered`` counts packets that redundant copies (RFC 2198) stood in for: none of ``datagrams``, they did not
    come in time.
    ``unused_copies_by`` counts redundant blocks (RFC 2198) that no use can be made of; their packets are counted above.
    """

    datagrams: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    delivered: int = 0
    duplicate: int = 0
    late: int = 0
    malformed: int = 0
    rejected: int = 0
    dropped: int = 0
    buffered: int = 0
    recovered: int = 0
    kernel_dropped: int = 0
    after_end: int = 0
    malformed_by: dict[str, int] = field(default_factory=dict)
    rejected_by: dict[str, int] = field(default_factory=dict)
    dropped_by: dict[str, int] = field(default_factory=dict)
    unused_copies_by: dict[str, int] = field(default_factory=dict)
    streams_started: int = 0
    streams_ended: int = 0
    streams_refused: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def unaccounted(self) -> int:
        """Always 0; anything else is a bug of ours."""
        return self.datagrams - (
            self.delivered + self.duplicate + self.late + self.malformed + self.rejected + self.dropped + self.buffered
        )

    def as_dict(self) -> dict[str, Any]:
        """The ``totals`` of ``summary.json``."""
        return {name: getattr(self, name) for name in self.__slots__}


def summary_of(
    totals: Totals,
    reports: Iterable[StreamReport],
    files: Callable[[StreamInfo], list[str]],
    sinks: Sequence[dict[str, Any]],
    sockets: Sequence[Any],
    figures: Callable[[StreamInfo], dict[str, Any]] = lambda stream: {},
) -> dict[str, Any]:
    """What ``summary.json`` holds, the same for live runs and replays. ``figures`` are what sinks add to a stream's
    entry; ``sockets`` are dataclasses."""
    return {
        "schema": 1,
        "totals": totals.as_dict(),
        "streams": [{**report.as_dict(files(report.stream)), **figures(report.stream)} for report in reports],
        "sinks": list(sinks),
        "sockets": [asdict(socket) for socket in sockets],
    }
