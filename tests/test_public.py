"""What is public, and what must never block the loop."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from live import listening, send_paced, until
from support import packet

import strep
import strep.quality
import strep.simulate
import strep.sinks
import strep.standin
from strep.sinks import ArraySink, LevelMeter, WavSink


def test_the_public_names() -> None:
    assert strep.__all__ == sorted(strep.__all__)
    assert set(strep.__all__) == {
        "AddressError", "BindError", "Block", "BlockBatch", "CaptureFileError", "Codec", "ConfigurationError",
        "DatagramKind", "Direction", "Frame", "Gap", "GapCause", "Incident", "Leg", "Mask", "MissingExtraError",
        "Packet", "ParseError", "Receiver", "Replay", "Resampler", "SinkError", "SocketStatus", "Status", "Stream",
        "StreamEvent", "StreamInfo", "StreamReport", "StrepError", "Supervisor", "Totals", "WorkerStatus",
        "__version__", "build_datagram", "parse_datagram", "replay", "sinks",
    }  # fmt: skip
    assert set(strep.sinks.__all__) == {
        "ArraySink", "ArrayView", "BaseSink", "BatchCallbackSink", "CallbackSink", "DtmfDetector", "FrameBatch",
        "FrameSink", "LevelMeter", "Levels", "MutedSink", "QualityMeter", "Sink", "Spectrogram", "Spectrum",
        "SpeechMeter", "ToneDetector", "WavSink",
    }  # fmt: skip
    assert set(strep.simulate.__all__) == {
        "Impairments", "SimulationReport", "StreamTruth", "Traffic", "make_traffic", "play", "simulate",
    }  # fmt: skip
    assert set(strep.standin.__all__) == {"Call", "Fault", "Faults", "StandIn", "WebhookFaults"}


@pytest.mark.parametrize("module", [strep, strep.quality, strep.sinks, strep.simulate, strep.standin])
def test_everything_public_is_there_and_documented(module: object) -> None:
    for name in module.__all__:  # type: ignore[attr-defined]
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), name
            for method, value in vars(thing).items() if inspect.isclass(thing) else ():
                # what the name does not say is said; dataclass fields stand in the class's text
                assert method.startswith("_") or not isinstance(value, staticmethod) or inspect.getdoc(value), method


def test_every_module_says_what_it_holds_and_what_of_it_is_for_others() -> None:
    for info in pkgutil.walk_packages(strep.__path__, "strep."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
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
