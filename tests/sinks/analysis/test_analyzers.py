"""Analyzers are one family: made, listened to, asked and reported in the same way."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from block_batches import Part, batch_of_blocks

import strep.sinks
import strep.sinks.analysis
from strep._model.types import Codec, Direction, Leg, StreamEvent, StreamInfo
from strep.sinks.analysis.analyzer import Analyzer

T0 = 1_700_000_000_000_000_000
RATE = 8000
PCMU = Codec("PCMU", RATE, RATE, 1, 1)


def every_analyzer() -> list[type[Analyzer]]:
    for module in pkgutil.walk_packages(strep.sinks.analysis.__path__, "strep.sinks.analysis."):
        importlib.import_module(module.name)
    classes: list[type[Analyzer]] = []
    waiting = Analyzer.__subclasses__()
    while waiting:
        kind = waiting.pop()
        classes.append(kind)
        waiting += kind.__subclasses__()
    return sorted((c for c in classes if c.__module__.startswith("strep.")), key=lambda c: c.__name__)


ANALYZERS = every_analyzer()
family = pytest.mark.parametrize("analyzer", ANALYZERS, ids=lambda c: c.__name__)


def streams() -> list[StreamInfo]:
    """Both directions of a call leg."""
    return [
        StreamInfo(
            n, 10 + n, uuid.UUID(int=1), Leg.A, Direction(n), "leg", "leg", ("a-inbound", "a-outbound")[n], 9000, 1,
            ("127.0.0.1", 1), 0, T0, T0, PCMU,
        )
        for n in range(2)
    ]  # fmt: skip


def audio() -> list[npt.NDArray[np.int16]]:
    """20 s of speech-like noise in turns; in the first direction a digit and a ringback tone too."""
    rng = np.random.default_rng(1)
    t = np.arange(20 * RATE) / RATE
    out = []
    for n in range(2):
        x = rng.normal(0, 20, len(t))
        talks = (np.floor(t / 2) % 2 == n) & (t < 8)
        x[talks] = rng.normal(0, 3000, int(talks.sum()))
        if n == 0:
            for begin, end, frequencies in ((8.5, 8.6, (697, 1209)), (10.0, 12.0, (440, 480))):
                at = (t >= begin) & (t < end)
                x[at] = sum(4000 * np.sin(2 * np.pi * f * t[at]) for f in frequencies)
        out.append(np.clip(x, -32_000, 32_000).astype(np.int16))
    return out


def heard_by(analyzer: Analyzer) -> list[StreamInfo]:
    """Feed both streams in blocks of 100 ms; the second one loses half of its second half."""
    infos, sound = streams(), audio()
    for info in infos:
        analyzer.stream_started(info)
    block = RATE // 10
    missing = 0
    for tick in range(200):
        at = tick * block
        parts = [Part(infos[0], at, 0, sound[0][at : at + block])]
        if tick > 100 and tick % 2:
            missing = block
        else:
            parts.append(Part(infos[1], at, missing, sound[1][at : at + block]))
            missing = 0
        analyzer.blocks(batch_of_blocks(parts))
    return infos


class Report:
    """What analyzers ask of a StreamReport."""

    late = 0
    packets_expected = 100


def test_the_family_is_all_that_analyze() -> None:
    names = {c.__name__ for c in ANALYZERS}
    assert names == {"DtmfDetector", "LevelMeter", "QualityMeter", "Spectrum", "SpeechMeter", "ToneDetector"}
    assert names <= set(strep.sinks.__all__)
    kinds = [c.kind for c in ANALYZERS]
    assert len(set(kinds)) == len(kinds)
    assert Analyzer.kind not in kinds


@family
def test_constructors_have_one_order(analyzer: type[Analyzer]) -> None:
    """What is measured, ``on_event``, options by keyword; all with defaults."""
    parameters = list(inspect.signature(analyzer).parameters.values())
    assert all(p.default is not inspect.Parameter.empty for p in parameters)
    place = [p.name for p in parameters].index("on_event")
    assert all(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for p in parameters[: place + 1])
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters[place + 1 :])
    assert analyzer().on_event is None


@family
def test_what_an_analyzer_has_is_its_own_and_told(analyzer: type[Analyzer]) -> None:
    for hook in ("arrays", "figures"):
        assert getattr(analyzer, hook) is not getattr(Analyzer, hook), hook
    text = inspect.getdoc(analyzer) or ""
    own = [p for p in inspect.signature(analyzer).parameters if p != "on_event"]
    assert all(f"``{name}``" in text for name in own), own
    assert all(f"``{kind}``" in text for kind in analyzer.event_kinds)
    assert "``serial``" in (inspect.getdoc(analyzer.arrays) or "")


@family
def test_an_analyzer_tells_events_of_its_kinds(analyzer: type[Analyzer]) -> None:
    told: list[StreamEvent] = []
    published: list[StreamEvent] = []
    found = analyzer(on_event=told.append)
    found.connect(published.append)
    infos = heard_by(found)
    for info in infos:
        found.stream_ended(info, Report())  # type: ignore[arg-type]
    assert found.report()["failed"] is None
    assert found.report()["dropped_frames"] == 0
    assert "set_aside" not in found.report()
    assert published == told
    assert bool(told) == bool(analyzer.event_kinds)
    assert {event.kind for event in told} <= set(analyzer.event_kinds)
    assert all(event.stream in infos for event in told)
    json.dumps([event.data for event in told])


@family
def test_arrays_hold_live_streams_and_figures_those_that_ended(analyzer: type[Analyzer]) -> None:
    found = analyzer()
    empty = found.arrays()
    assert all(len(column) == 0 for column in empty.values())
    infos = heard_by(found)
    columns = found.arrays()
    assert columns.keys() == empty.keys()
    assert {name: c.dtype for name, c in columns.items()} == {name: c.dtype for name, c in empty.items()}
    assert columns["serial"].dtype == np.int64
    assert sorted(columns["serial"].tolist()) == [10, 11]
    assert all(isinstance(column, np.ndarray) and len(column) == 2 for column in columns.values())
    for column in columns.values():  # copies: what is done to them changes nothing
        column[:] = 0
    assert sorted(found.arrays()["serial"].tolist()) == [10, 11]
    for info in infos:
        found.stream_ended(info, Report())  # type: ignore[arg-type]
    figures: dict[str, Any] = found.figures(infos[0])
    assert len(figures) == 1
    json.dumps(figures)
    stranger = StreamInfo(
        5, 99, uuid.UUID(int=5), Leg.A, Direction.INBOUND, "x", "x", "x", 9000, 1, ("127.0.0.1", 1), 0, T0, T0, PCMU
    )
    assert found.figures(stranger) == {}


@family
def test_a_listener_may_ask_the_analyzer(analyzer: type[Analyzer]) -> None:
    """Events are told without the lock."""
    sizes: list[int] = []
    found: list[Analyzer] = []
    found.append(analyzer(on_event=lambda event: sizes.append(len(found[0].arrays()["serial"]))))
    for info in heard_by(found[0]):
        found[0].stream_ended(info, Report())  # type: ignore[arg-type]
    assert bool(sizes) == bool(analyzer.event_kinds)


def test_every_module_of_theirs_is_short() -> None:
    folder = Path(strep.sinks.analysis.__file__).parent
    assert {path.name: n for path in folder.glob("*.py") if (n := len(path.read_text().splitlines())) > 400} == {}
