"""Other sinks, given audio with the keys taken out: a digit is no speech, and its level says nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._model.exceptions import ConfigurationError
from .base import BaseSink, as_sink, hears_events
from .guarded import GuardedSink
from .muter import key_muter

if TYPE_CHECKING:
    from pathlib import Path

    from .._model.blocks import BlockBatch
    from .._model.report import StreamReport
    from .._model.types import StreamEvent, StreamInfo
    from .._threads.incidents import Incidents
    from .analysis.dtmf import DtmfDetector
    from .base import Sink

__all__ = ["MutedSink"]


class MutedSink(BaseSink):
    """Passes on to ``sinks`` what it gets, 0.1 s later and with DTMF digits in the audio set to zero, so that keys do
    not change figures of speech and level. Digits are looked for once for all sinks.

    ``detector``  who tells of the same keys: it gets audio as it is, and what it finds need not be looked for again

    The sinks share a thread, and all get gaps concealed when one of them wants that. When one raises, it costs the
    others nothing. Sinks that keep encoded bytes cannot be muted. Raises ConfigurationError if there are no sinks.
    """

    kind = "muted"

    def __init__(self, sinks: Sequence[Sink], detector: DtmfDetector | None = None) -> None:
        if not sinks:
            raise ConfigurationError("MutedSink needs sinks to give audio to: MutedSink([SpeechMeter()])")
        self.sinks: list[Sink] = list(sinks)
        self._muted = [GuardedSink(as_sink(sink)) for sink in sinks]
        self._detector = None if detector is None else GuardedSink(detector)
        self._guarded = list(self._muted)
        if detector is not None and self._detector is not None:
            self.sinks.insert(0, detector)
            self._guarded.insert(0, self._detector)  # first: it is asked what it found
        self.prompt = any(guarded.prompt for guarded in self._guarded)
        self.gather_ms = min(guarded.gather_ms for guarded in self._guarded)
        self.wants_audio = any(guarded.wants_audio for guarded in self._guarded)
        self._muter = key_muter(detector)

    @property
    def concealment(self) -> bool:  # type: ignore[override]  # sinks may change their minds
        return any(guarded.concealment for guarded in self._guarded)

    def report_to(self, incidents: Incidents) -> None:
        self._muter.aside.incidents = incidents
        for guarded in self._guarded:
            guarded.report_to(incidents)

    def connect(self, publish: Callable[[StreamEvent], object]) -> None:
        for guarded in self._guarded:
            guarded.connect(publish)

    def stream_started(self, stream: StreamInfo) -> None:
        for guarded in self._guarded:
            guarded.stream_started(stream)

    def blocks(self, batch: BlockBatch) -> None:
        if self._detector is not None:
            self._detector.blocks(batch)
        self._hand_on(self._muter.process(batch))

    def _hand_on(self, batch: BlockBatch | None) -> None:
        if batch is not None and len(batch):
            for guarded in self._muted:
                if guarded.wants_audio:
                    guarded.blocks(batch)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        if self._detector is not None:
            self._detector.stream_ended(stream, report)
        self._hand_on(self._muter.end(stream))
        for guarded in self._muted:
            guarded.stream_ended(stream, report)

    def event(self, event: StreamEvent) -> None:
        for guarded in self._guarded:
            if hears_events(guarded.sink):
                guarded.event(event)

    def settled(self, stream: StreamInfo) -> bool:
        return all(guarded.settled(stream) for guarded in self._guarded)

    def wait_for_room(self) -> None:
        for guarded in self._guarded:
            guarded.wait_for_room()

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for guarded in self._guarded:
            found |= guarded.figures(stream)
        return found

    def close(self, timeout_s: float) -> None:
        for guarded in self._guarded:
            guarded.close(timeout_s)

    def report(self) -> dict[str, Any]:
        """The sinks' reports as one: ``failed`` of the first that failed, sums of what was dropped, and ``paused`` and
        ``problem`` if one of them has these."""
        reports = [guarded.report() for guarded in self._guarded]
        mute = self._muter.aside
        aside = mute.streams + sum(int(r.get("set_aside") or 0) for r in reports)
        told = {key: value for r in reversed(reports) for key, value in r.items() if key in ("paused", "problem")}
        if "problem" in told:
            told["problem"] = next((p for r in reports if (p := r.get("problem", r.get("failed")))), None)
        if any("refused_streams" in r for r in reports):
            told["refused_streams"] = sum(int(r.get("refused_streams") or 0) for r in reports)
        return {
            "kind": self.kind,
            "failed": next((r["failed"] for r in reports if r.get("failed")), None),
            "dropped_frames": mute.dropped_frames + sum(int(r.get("dropped_frames") or 0) for r in reports),
            "sinks": [r["kind"] for r in reports],
            **told,
            **({"set_aside": aside} if aside else {}),
        }

    def files(self, stream: StreamInfo) -> list[str]:
        return [path for guarded in self._guarded for path in guarded.files(stream)]

    def recording_directories(self) -> list[Path]:
        return [path for guarded in self._guarded for path in guarded.recording_directories()]
