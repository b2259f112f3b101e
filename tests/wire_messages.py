"""Runs of the engine as messages."""

from __future__ import annotations

import numpy as np
from support import T0, Result

from strep._model.types import StreamEvent
from strep.wire import WireMessage, WireWriter

__all__ = ["written"]


def written(
    result: Result, writer: WireWriter, cuts: int = 3, events: bool = True, beat: bool = False
) -> list[WireMessage]:
    """What a run made, as messages: of ``cuts`` batches at a time."""
    made: list[WireMessage] = []
    for stream in result.started:
        writer.started(stream)
    for at in range(0, len(result.batches), cuts):
        parts = [writer.part(batch) for batch in result.batches[at : at + cuts]]
        if events and at == 0:
            writer.event(StreamEvent(result.started[0], "speech", 160, T0, 0.5, {"level": np.float64(-20.5)}))
        made += writer.messages(parts, T0, beat=beat)
    for report in result.reports:
        writer.ended(report.stream, report)
    return made + writer.messages([], T0)
