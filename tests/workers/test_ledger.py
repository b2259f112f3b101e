"""The ledger tells what sinks add to an entry once they are done with its stream. It looks at few that they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import T0, batch_of, leg_id, steady

from strep import StreamInfo
from strep._engine.engine import Engine
from strep._model.events import Ended, Started
from strep._workers.board import Snapshot
from strep._workers.ledger import _UNSETTLED_A_LOOK, Ledger

STREAMS = _UNSETTLED_A_LOOK + 100


class Results:
    """As of a dispatcher whose sinks have settled some streams."""

    def __init__(self) -> None:
        self.done: set[int] = set()
        self.asked = 0

    def settled(self, stream: StreamInfo) -> bool:
        self.asked += 1
        return stream.serial in self.done

    def files(self, stream: StreamInfo) -> list[str]:
        return [f"{stream.serial}.wav"] if stream.serial in self.done else []

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        return {"mos": 4.0} if stream.serial in self.done and stream.serial % 2 else {}


@pytest.fixture
def ended() -> tuple[Ledger, list[int]]:
    """A ledger that knows streams which have ended, and their serials."""
    engine = Engine()
    ledger = Ledger(Snapshot(), lambda stream: ((0, 0, 0), 0))
    arrivals = [a for n in range(STREAMS) for a in steady(4, call=leg_id(n), start_ns=T0)]
    events = [*engine.receive(batch_of(sorted(arrivals, key=lambda a: a.ns))), *engine.flush()]
    serials = []
    for event in events:
        if isinstance(event, Started):
            ledger.stream_started(event.stream)
        elif isinstance(event, Ended):
            ledger.stream_ended(event.stream, event.report)
            serials.append(event.stream.serial)
    assert len(serials) == STREAMS
    return ledger, serials


def test_what_sinks_add_is_told_once_they_have_settled(ended: tuple[Ledger, list[int]]) -> None:
    ledger, serials = ended
    results = Results()
    started, entries, later = ledger.take(results)
    assert (len(started), [serial for serial, _ in entries], later) == (STREAMS, serials, {})
    assert results.asked == _UNSETTLED_A_LOOK
    results.done = set(serials[:10])
    told: dict[int, dict[str, Any]] = {}
    for _ in range(2):
        started, entries, later = ledger.take(results)
        assert (started, entries) == ([], [])
        told |= later
    assert told == {s: {"files": [f"{s}.wav"], **({"mos": 4.0} if s % 2 else {})} for s in serials[:10]}
    assert ledger.take(results)[2] == {}  # once


def test_all_is_told_at_the_end(ended: tuple[Ledger, list[int]]) -> None:
    ledger, serials = ended
    results = Results()
    ledger.take(results)
    results.done = set(serials)
    entries, later = ledger.take_all(results)
    assert (entries, set(later)) == ([], set(serials))


def test_settled_streams_are_all_told_in_one_look(ended: tuple[Ledger, list[int]]) -> None:
    ledger, serials = ended
    results = Results()
    results.done = set(serials)
    assert set(ledger.take(results)[2]) == set(serials)
    rows = np.arange(STREAMS)
    assert sorted(ledger.columns(rows)["serial"].tolist()) == sorted(serials)
