"""Other sinks' audio with the keys taken out: a digit is no speech, and has no level worth knowing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._model.exceptions import ConfigurationError
from .base import BaseSink, as_sink
from .guarded import GuardedSink
from .muting import MuteKeys

if TYPE_CHECKING:
    from pathlib import Path

    from .._model.blocks import BlockBatch
    from .._model.report import StreamReport
    from .._model.types import StreamEvent, StreamInfo
    from .._threads.incidents import Incidents
    from .base import Sink

__all__ = ["MutedSink"]


class MutedSink(BaseSink):
    """Gives ``sinks`` what it gets, DTMF digits in the audio zeroed, 0.1 s later: statistics of speech and level then
    know nothing of keys. Digits are looked for once for all of them (2 µs for 20 ms of audio).

    They share a thread, and get gaps concealed when one of them wants that. What one raises costs the others nothing.
    Sinks that keep encoded bytes cannot be muted. Raises ConfigurationError for no sinks.
    """

    kind = "muted"

    def __init__(self, sinks: Sequence[Sink]) -> None:
        if not sinks:
            raise ConfigurationError("MutedSink needs sinks to give audio to: MutedSink([SpeechMeter()])")
        self.sinks = list(sinks)
        self._guarded = [GuardedSink(as_sink(sink)) for sink in sinks]
        self.prompt = any(guarded.prompt for guarded in self._guarded)
        self.wants_audio = any(guarded.wants_audio for guarded in self._guarded)
        self._mute = MuteKeys()

    @property
    def concealment(self) -> bool:  # type: ignore[override]  # sinks may change their minds
        return any(guarded.concealment for guarded in self._guarded)

    def report_to(self, incidents: Incidents) -> None:
        self._mute.aside.incidents = incidents
        for guarded in self._guarded:
            guarded.report_to(incidents)

    def connect(self, publish: Callable[[StreamEvent], object]) -> None:
        for guarded in self._guarded:
            guarded.connect(publish)

    def stream_started(self, stream: StreamInfo) -> None:
        for guarded in self._guarded:
            guarded.stream_started(stream)

    def blocks(self, batch: BlockBatch) -> None:
        self._hand_on(self._mute.process(batch))

    def _hand_on(self, batch: BlockBatch | None) -> None:
        if batch is not None and len(batch):
            for guarded in self._guarded:
                if guarded.wants_audio:
                    guarded.blocks(batch)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        self._hand_on(self._mute.end(stream))
        for guarded in self._guarded:
            guarded.stream_ended(stream, report)

    def event(self, event: StreamEvent) -> None:
        for guarded in self._guarded:
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
        """The sinks' own as one: what failed first, sums of what was dropped; and what else one of them tells."""
        reports = [guarded.report() for guarded in self._guarded]
        mute = self._mute.aside
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
