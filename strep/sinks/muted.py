"""Other sinks' audio with the keys taken out: a digit is no speech, and has no level worth knowing. Floor 4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._exceptions import ConfigurationError
from ._base import BaseSink
from ._mute import MuteKeys

if TYPE_CHECKING:
    from .._blocks import BlockBatch
    from .._report import StreamReport
    from .._types import StreamEvent, StreamInfo
    from ._base import Sink

__all__ = ["MutedSink"]


class MutedSink(BaseSink):
    """Gives ``sinks`` what it gets, DTMF digits in the audio zeroed, 0.1 s later: statistics of speech and level then
    know nothing of keys. Digits are looked for once for all of them (2 µs for 20 ms of audio).

    They share a thread and fail together. Sinks that keep encoded bytes cannot be muted. Raises ConfigurationError for
    no sinks.
    """

    kind = "muted"
    prompt = False

    def __init__(self, sinks: Sequence[Sink]) -> None:
        if not sinks:
            raise ConfigurationError("MutedSink needs sinks to give audio to: MutedSink([SpeechMeter()])")
        self.sinks = list(sinks)
        self.concealment = any(getattr(sink, "concealment", False) for sink in sinks)
        self._mute = MuteKeys()

    def connect(self, publish: Callable[[StreamEvent], object]) -> None:
        """For the dispatcher: where analyzers among the sinks tell their events."""
        for sink in self.sinks:
            connect = getattr(sink, "connect", None)
            if connect is not None:
                connect(publish)

    def stream_started(self, stream: StreamInfo) -> None:
        for sink in self.sinks:
            sink.stream_started(stream)

    def blocks(self, batch: BlockBatch) -> None:
        self._hand_on(self._mute.process(batch))

    def _hand_on(self, batch: BlockBatch | None) -> None:
        if batch is not None and len(batch):
            for sink in self.sinks:
                sink.blocks(batch)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        self._hand_on(self._mute.end(stream))
        for sink in self.sinks:
            sink.stream_ended(stream, report)

    def event(self, event: StreamEvent) -> None:
        for sink in self.sinks:
            hear = getattr(sink, "event", None)
            if hear is not None:
                hear(event)

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for sink in self.sinks:
            figures = getattr(sink, "figures", None)
            if figures is not None:
                found |= figures(stream)
        return found

    def close(self, timeout_s: float) -> None:
        for sink in self.sinks:
            sink.close(timeout_s)

    def report(self) -> dict[str, Any]:
        reports = [sink.report() for sink in self.sinks]
        return {
            "kind": self.kind,
            "failed": next((r["failed"] for r in reports if r.get("failed")), None),
            "dropped_frames": sum(int(r.get("dropped_frames") or 0) for r in reports),
            "sinks": [r["kind"] for r in reports],
        }

    def files(self, stream: StreamInfo) -> list[str]:
        return [path for sink in self.sinks for path in sink.files(stream)]
