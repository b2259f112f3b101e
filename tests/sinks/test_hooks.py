"""What wraps a sink passes on each hook that BaseSink has, those too that it will have one day."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isfunction, signature
from pathlib import Path
from typing import Any

import pytest
from live import listening, run_on, send_paced
from support import T0, batch_of, packet, steady

import strep
from strep import SinkError
from strep._edge.pcap import PcapWriter
from strep._engine.engine import Engine
from strep._model.blocks import BlockBatch
from strep._model.report import StreamReport
from strep._model.types import Direction, Leg, StreamEvent, StreamInfo
from strep.sinks import BaseSink, MutedSink, Sink, WavSink
from strep.sinks.base import HOOKS, as_sink, class_name
from strep.sinks.guarded import GuardedSink

STREAM = StreamInfo(
    index=0, serial=7, call_leg_id=None, leg=Leg.A, direction=Direction.INBOUND, name="x", leg_name="x",
    stem="a-inbound", local_port=9000, ssrc=1, source=("127.0.0.1", 9), payload_type=0, first_arrival_ns=T0,
    origin_ns=T0,
)  # fmt: skip
EVENT = StreamEvent(STREAM, "x", 0, 0, 0.0)

METHODS = [name for name in HOOKS if isfunction(getattr(BaseSink, name))]
ATTRIBUTES = [name for name in HOOKS if name not in METHODS]
VALUES: dict[str, Any] = {  # other ones than BaseSink's
    "kind": "inner", "inline": True, "prompt": False, "gather_ms": 50.0, "wants_audio": False, "repeatable": True,
    "concealment": True,
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "settled": False,
    "figures": {"inner": 1},
    "files": ["a.wav"],
    "recording_directories": [Path("calls")],
    "report": {"kind": "inner", "failed": "no", "dropped_frames": 7},
}
ARGUMENTS: dict[str, Any] = {
    "incidents": None, "publish": print, "stream": STREAM, "event": EVENT, "report": None, "timeout_s": 1.0,
}  # fmt: skip


def test_every_hook_is_known_here() -> None:
    """A new hook needs a value of its own in these tests."""
    assert set(ATTRIBUTES) == set(VALUES)
    assert all(getattr(BaseSink, name) != value for name, value in VALUES.items())
    for name in METHODS:
        assert getattr(BaseSink, name).__doc__, f"{name} says nothing of itself"


class Calls:
    """Notes the calls of every method of BaseSink, and answers with other things than BaseSink does."""

    def __init__(self) -> None:
        self.calls: list[str] = []


def _noting(name: str) -> Callable[..., Any]:
    def method(self: Calls, *arguments: Any) -> Any:
        self.calls.append(name)
        return ANSWERS.get(name)

    return method


Inner = type("Inner", (Calls, BaseSink), {**{name: _noting(name) for name in METHODS}, **VALUES})
Foreign = type("Foreign", (Calls,), {**{name: _noting(name) for name in METHODS}, **VALUES})  # only satisfies Sink


def batches() -> list[BlockBatch]:
    engine = Engine()
    return [e for e in [*engine.receive(batch_of(steady(50))), *engine.flush()] if isinstance(e, BlockBatch)]


WRAPPERS: dict[str, tuple[Callable[[], Calls], Callable[[Any], BaseSink]]] = {
    "guarded": (Inner, GuardedSink),
    "adapted": (Foreign, as_sink),
    "muted": (Inner, lambda sink: MutedSink([sink])),
    "muted, adapted": (Foreign, lambda sink: MutedSink([sink])),
}
# a MutedSink has a thread and a name of its own, and never raises
OF_ITS_OWN = {"kind", "inline", "repeatable"}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_wraps_a_sink_has_each_attribute_of_it(wrapper: str) -> None:
    make, wrap = WRAPPERS[wrapper]
    wrapped = wrap(make())
    for name in ATTRIBUTES:
        if wrapper.startswith("muted") and name in OF_ITS_OWN:
            continue
        assert getattr(wrapped, name) == VALUES[name], name


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_wraps_a_sink_passes_on_each_call_and_its_answer(wrapper: str, name: str) -> None:
    make, wrap = WRAPPERS[wrapper]
    inner: Any = make()
    inner.wants_audio = True
    wrapped = wrap(inner)
    if name == "blocks":
        for batch in batches():
            wrapped.blocks(batch)
        assert set(inner.calls) == {"blocks"}
        return
    arguments = [ARGUMENTS[p] for p in signature(getattr(BaseSink, name)).parameters if p != "self"]
    answer = getattr(wrapped, name)(*arguments)
    assert inner.calls == [name]
    if name == "report":
        assert (answer["failed"], answer["dropped_frames"]) == ("no", 7)
    else:
        assert answer == ANSWERS.get(name)


# --- sinks that are no BaseSink ---------------------------------------------------------------------------------------


class Minimal:
    """What the Protocol asks for, and nothing else."""

    def __init__(self) -> None:
        self.streams: list[StreamInfo] = []
        self.frames = 0

    def stream_started(self, stream: StreamInfo) -> None:
        self.streams.append(stream)

    def blocks(self, batch: BlockBatch) -> None:
        self.frames += int(batch.frames.sum())

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None: ...

    def close(self, timeout_s: float) -> None: ...

    def report(self) -> dict[str, Any]:
        return {"kind": "minimal", "failed": None, "dropped_frames": 0}

    def files(self, stream: StreamInfo) -> list[str]:
        return []


def test_a_sink_that_is_no_base_sink_has_the_defaults() -> None:
    sink = Minimal()
    assert isinstance(sink, Sink)
    adapted = as_sink(sink)
    assert as_sink(adapted) is adapted
    assert (adapted.kind, class_name(adapted)) == ("Minimal", "Minimal")
    default = BaseSink()
    for name in (name for name in ATTRIBUTES if name != "kind"):
        assert getattr(adapted, name) == getattr(default, name)
    for name in (name for name in METHODS if not hasattr(Minimal, name)):
        arguments = [ARGUMENTS[p] for p in signature(getattr(BaseSink, name)).parameters if p != "self"]
        assert getattr(adapted, name)(*arguments) == getattr(default, name)(*arguments)


def test_a_sink_that_is_no_base_sink_may_change_its_mind() -> None:
    sink: Any = Minimal()
    adapted = as_sink(sink)
    sink.concealment = True
    assert adapted.concealment is True
    assert MutedSink([sink]).concealment is True


@pytest.mark.parametrize("muted", [False, True])
def test_a_replay_takes_sinks_that_are_no_base_sinks(tmp_path: Path, muted: bool) -> None:
    path = tmp_path / "call.pcap"
    writer = PcapWriter(path)
    writer.write(batch_of(steady(50)))
    writer.close()
    sink: Any = Minimal()
    found = strep.replay(path, sinks=[MutedSink([sink])] if muted else [sink])
    assert sink.frames == 50 * 160
    assert len(sink.streams) == 1
    assert found.sink_reports()[0]["failed"] is None


@pytest.mark.sockets
def test_a_live_receiver_takes_sinks_that_are_no_base_sinks() -> None:
    async def run(sink: Any) -> None:
        async with strep.Receiver("udp:127.0.0.1:0", sinks=[sink]) as receiver:
            await send_paced(listening(receiver), [packet(k) for k in range(50)])

    sink: Any = Minimal()
    run_on("asyncio", run(sink))
    assert sink.frames == 50 * 160


# --- the files of a worker that died ----------------------------------------------------------------------------------


def test_recordings_are_found_behind_whatever_wraps_their_sink(tmp_path: Path) -> None:
    """A supervisor completes what a dead worker left below these directories."""
    plain, muted = WavSink(tmp_path / "plain"), MutedSink([Inner(), WavSink(tmp_path / "muted")])
    assert plain.recording_directories() == [tmp_path / "plain"]
    assert muted.recording_directories() == [*ANSWERS["recording_directories"], tmp_path / "muted"]
    plain.close(1)
    muted.close(1)


# --- sinks that cannot go on ------------------------------------------------------------------------------------------


def test_a_sink_that_says_it_cannot_go_on_is_quarantined_at_once() -> None:
    class Full(BaseSink):
        kind = "full"
        calls = 0

        def blocks(self, batch: BlockBatch) -> None:
            self.calls += 1
            raise SinkError("the tape is full")

    sink = Full()
    guarded = GuardedSink(sink)
    for batch in batches():
        guarded.blocks(batch)
    assert sink.calls == 1
    assert guarded.report()["failed"] == "SinkError: the tape is full"
