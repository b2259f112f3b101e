"""What is written is what the schemas say, and the schemas say no to what is not."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support import Arrival, run
from traffic import traffic
from wire_messages import written

import strep
from strep.schemas import NAMES, schema
from strep.sinks import BaseSink, DtmfDetector, LevelMeter, QualityMeter, SpeechMeter, ToneDetector, WavSink
from strep.wire import WireWriter, event_as_told

VALIDATORS = {name: jsonschema.Draft202012Validator(schema(name)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))
    assert (Path(strep.__file__).parent / "schemas" / f"{name}.json").is_file()
    with pytest.raises(KeyError, match="one of event, leg"):
        schema("nothing")


def headers(native: bool) -> list[dict[str, Any]]:
    result = run(traffic(3, 5, 0.1, packets=80), cuts=range(0, 800, 50), live=True)
    messages = written(result, WireWriter("a", 3, native=native), beat=True)
    return [json.loads(m.data[24 : 24 + struct.unpack_from("<I", m.data, 8)[0]]) for m in messages]


@pytest.mark.parametrize("native", [True, False])
def test_headers_of_messages(native: bool) -> None:
    found = headers(native)
    kinds = {record["record"] for header in found for record in header["records"]}
    assert kinds == {"started", "event", "ended"}
    for header in found:
        VALIDATORS["wire-header"].validate(header)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda h: h.pop("sender"),
        lambda h: h.update(number=0),
        lambda h: h.update(wire="2.0"),
        lambda h: h["records"][0]["stream"].update(name="../x"),
        lambda h: h["records"][0].pop("stream"),
        lambda h: h["columns"].append(["x", "i8", 1]),
    ],
)
def test_headers_that_are_none(spoil: Any) -> None:
    header = headers(True)[0]
    spoil(header)
    assert not VALIDATORS["wire-header"].is_valid(header)


class Told(BaseSink):
    """All events, as ``--json`` prints them."""

    inline = True

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def event(self, event: strep.StreamEvent) -> None:
        self.events.append(event_as_told(event))


def test_summaries_and_events(tmp_path: Path) -> None:
    """Of streams in trouble, with every analyzer."""
    from support import batch_of

    from strep._edge.pcap import PcapWriter

    arrivals: list[Arrival] = traffic(5, 6, 0.1, packets=300)
    writer = PcapWriter(tmp_path / "a.pcap")
    writer.write(batch_of(arrivals))
    writer.close()
    told = Told()
    analyzers = [LevelMeter(), SpeechMeter(), DtmfDetector(), ToneDetector(), QualityMeter()]
    sinks = [WavSink(tmp_path / "out"), told, *analyzers]
    summary = json.loads(json.dumps(strep.replay(tmp_path / "a.pcap", sinks=sinks).summary()))
    VALIDATORS["summary"].validate(summary)
    assert any(stream["files"] for stream in summary["streams"])
    kinds = {event["event"] for event in told.events}
    assert kinds & {"speech", "dead_air", "turn", "quality", "dtmf", "telephone_event"}
    for event in told.events:
        VALIDATORS["event"].validate(event)
    del summary["streams"][0]["samples"]
    assert not VALIDATORS["summary"].is_valid(summary)


def test_events_that_are_none(tmp_path: Path) -> None:
    event = {
        "event": "dtmf", "call_leg_id": None, "name": "x", "leg": "a", "direction": "inbound", "position_s": 0.0,
        "time_ns": 1, "duration_s": 0.1, "digit": "5", "source": "inband",
    }  # fmt: skip
    VALIDATORS["event"].validate(event)
    for wrong in ({"digit": "55"}, {"direction": "up"}, {"duration_s": -1}, {"call_leg_id": "x"}, {"time_ns": "now"}):
        assert not VALIDATORS["event"].is_valid({**event, **wrong})
