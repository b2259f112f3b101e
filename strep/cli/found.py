"""What analyzers have found in streams that live, in a word each: for the table that is shown meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any, Final

from .._model.report import StreamReport
from ..sinks import DtmfDetector, MutedSink, QualityMeter, Sink, SpeechMeter

__all__ = ["Found", "every_sink"]

_TALK, _MOS, _KEYS = "talk", "MOS", "keys"
_ORDER: Final = (_TALK, _MOS, _KEYS)  # what is shown first where not all of it fits


def every_sink(sinks: Iterable[Sink]) -> list[Sink]:
    """Also those that others wrap."""
    return [one for sink in sinks for one in (sink.sinks if isinstance(sink, MutedSink) else [sink])]


class Found:
    """Asks these sinks, those of them that know something."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        kinds = {QualityMeter: _MOS, SpeechMeter: _TALK, DtmfDetector: _KEYS}
        self._sinks = {kinds[type(sink)]: sink for sink in every_sink(sinks) if type(sink) in kinds}

    def columns(self, reports: Sequence[StreamReport]) -> dict[str, list[str]]:
        """By heading: a word for each of the streams; "" where nothing is known yet. Of talk the share of the time so
        far, of MOS that of the last window, of keys how many were pressed."""
        return {name: self._words(name, reports) for name in _ORDER if name in self._sinks}

    def _words(self, name: str, reports: Sequence[StreamReport]) -> list[str]:
        arrays: dict[str, Any] = self._sinks[name].arrays()  # type: ignore[attr-defined]
        value = {_MOS: "mos_cq", _TALK: "talk_s", _KEYS: "presses"}[name]
        known = dict(zip(arrays["serial"].tolist(), arrays[value].tolist(), strict=True))
        return [_word(name, known.get(report.stream.serial), report.duration_s) for report in reports]


def _word(name: str, value: float | None, seconds: float) -> str:
    if value is None or isnan(value):
        return ""
    if name == _MOS:
        return f"{value:.2f}"
    if name == _TALK:
        return f"{min(100.0, 100 * value / seconds):.0f}%" if seconds > 0 else ""
    return str(int(value))
