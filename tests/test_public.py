"""What is public, and what must never block the loop."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from live import listening, send_paced, until
from support import packet

import strep
import strep.control
import strep.metrics
import strep.quality
import strep.resample
import strep.service
import strep.simulate
import strep.sinks
import strep.standin
from strep.sinks import ArraySink, LevelMeter, WavSink


def test_the_public_names() -> None:
    assert strep.__all__ == sorted(strep.__all__)
    assert set(strep.__all__) == {
        "AddressError", "BindError", "Block", "BlockBatch", "CallLeg", "CaptureFileError", "Codec",
        "ConfigurationError", "DatagramKind", "Direction", "Ending", "Frame", "Gap", "GapCause", "Incident", "Leg",
        "LegFrame", "Mask", "MissingExtraError", "Packet", "ParseError", "Receiver", "Replay", "Resampler",
        "SinkError", "SocketStatus", "SpeechStarted", "SpeechStopped", "Status", "Stream", "StreamEvent", "StreamInfo",
        "StreamReport", "StrepError", "Supervisor", "Totals", "Utterance", "WorkerStatus", "__version__",
        "build_datagram", "parse_datagram", "replay", "run_until_stopped", "sinks",
    }  # fmt: skip
    assert set(strep.sinks.__all__) == {
        "ArraySink", "ArrayView", "BaseSink", "BatchCallbackSink", "CallbackSink", "DtmfDetector", "FrameBatch",
        "FrameSink", "LevelMeter", "Levels", "MutedSink", "NatsSink", "QualityMeter", "Sink", "Spectrogram",
        "Spectrum", "SpeechMeter", "ToneDetector", "VoiceBatch", "VoiceSink", "WavSink",
    }  # fmt: skip
    assert set(strep.simulate.__all__) == {
        "Impairments", "SimulationReport", "StreamTruth", "Traffic", "make_traffic", "play", "simulate",
    }  # fmt: skip
    assert set(strep.standin.__all__) == {"Call", "Fault", "Faults", "StandIn", "WebhookFaults"}


PUBLIC = [
    strep,
    strep.control,
    strep.metrics,
    strep.quality,
    strep.resample,
    strep.service,
    strep.simulate,
    strep.sinks,
    strep.standin,
]


def members(thing: type) -> dict[str, object]:
    """What a class has that is public, its own and inherited from ours; of dataclasses not the fields, which the text
    of the class tells."""
    found: dict[str, object] = {}
    for base in thing.__mro__:
        if base.__module__.partition(".")[0] == "strep":
            found = {name: value for name, value in vars(base).items() if not name.startswith("_")} | found
    data = {field.name for field in fields(thing)} if is_dataclass(thing) else set()  # type: ignore[arg-type]
    return {name: value for name, value in found.items() if name not in data}


def documented(thing: type, name: str, value: object) -> bool:
    """Methods and properties have docstrings, their own or of what they override."""
    if inspect.isfunction(value) or isinstance(value, classmethod | staticmethod | property | cached_property):
        return bool(inspect.getdoc(getattr(thing, name)) or inspect.getdoc(value))
    return True  # constants, enumeration members: their text stands in the class


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_everything_public_is_there_and_documented(module: object) -> None:
    missing = []
    for name in module.__all__:  # type: ignore[attr-defined]
        thing = getattr(module, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        if not inspect.getdoc(thing):
            missing.append(name)
        for member, value in members(thing).items() if inspect.isclass(thing) else ():
            if not documented(thing, member, value):
                missing.append(f"{name}.{member}")
    assert missing == []


def test_every_module_says_what_it_holds_and_what_of_it_is_for_others() -> None:
    for info in pkgutil.walk_packages(strep.__path__, "strep."):
        if info.name.endswith("__main__"):
            continue
        try:
            module = importlib.import_module(info.name)
        except strep.MissingExtraError:
            assert info.name.startswith("strep.integrations.")
            continue
        if info.name == "strep._version":
            continue
        assert module.__doc__, info.name
        if not any(getattr(value, "__module__", None) == info.name for value in vars(module).values()):
            continue  # a folder: what it holds is told, nothing is its own
        assert hasattr(module, "__all__"), info.name
        assert all(hasattr(module, name) for name in module.__all__), info.name


def test_importing_is_quiet_and_light() -> None:
    code = "import sys, strep, strep.cli; print(sorted({'scipy.signal', 'uvloop', 'httpx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.sockets
def test_nothing_blocks_the_loop(tmp_path: Path) -> None:
    """Files are written by threads; whatever would block raises here."""

    wrong: list[dict[str, object]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: wrong.append(context))
        sinks = [WavSink(tmp_path / "out"), ArraySink(), LevelMeter()]
        receiver = strep.Receiver("127.0.0.1:0", sinks=sinks, pcap=tmp_path / "a.pcap")
        await receiver.start()  # opens the recording, which may block

        async def consume() -> int:
            return sum([1 async for stream in receiver async for _ in stream.frames(rate=16_000)])

        with blockbuster_ctx() as guard:
            guard.functions["io.BufferedWriter.write"].activate()
            counting = asyncio.create_task(consume())
            await send_paced(listening(receiver), [packet(k) for k in range(100)])
            await until(lambda: receiver.totals().datagrams == 100)
            await receiver.stop()
            assert await counting >= 95
        assert len(list((tmp_path / "out").rglob("a-inbound.wav"))) == 1

    asyncio.run(main())
    assert wrong == []
