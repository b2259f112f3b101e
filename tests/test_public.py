"""What is public, what may import what, and what must never block the loop."""

from __future__ import annotations

import ast
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

PACKAGE = Path(strep.__file__).parent


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
        if Path(str(module.__file__)).stat().st_size < 30 or info.name == "strep._version":
            continue
        assert module.__doc__, info.name
        assert hasattr(module, "__all__"), info.name
        assert all(hasattr(module, name) for name in module.__all__), info.name


FLOORS = [
    {"_exceptions", "_types", "_datagrams", "_blocks", "_report", "_addresses"},
    {"_parser"},
    {"_codecs", "_packed", "_payload_types", "_streams", "_plc", "_conceal", "_drift", "_talk", "quality", "resample",
     "_packets", "_accounts"},
    {"_announcements", "_admission", "_state", "_throttle", "_intake", "_sources", "_events", "_outlet", "_sorting",
     "_presses", "_quarantine", "_containment", "_engine", "_pacing"},
    {"sinks", "_frames", "_inorder", "_incidents", "_archive"},
    {"_udp", "_options", "_pairs", "_pcap", "_recording", "_recorded", "_plot", "_dispatch", "_lane", "_stream",
     "_receiver", "_troubles", "_watchdog", "_problems", "_ending", "_replay", "_summary", "_workers", "_http",
     "_connections", "_lock", "_limits", "simulate", "standin", "bench", "control", "metrics", "service"},
    {"cli", "__init__", "__main__", "_version"},
]  # fmt: skip
PURE = 4  # floors 0 to 3 know no clock, socket, thread or loop
OUTER_WORLD = {
    "asyncio",
    "socket",
    "time",
    "httpx",
    "threading",
    "select",
    "os",
    "subprocess",
    "uvloop",
    "click",
    "rich",
}


def floor_of(name: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if name in names)


def test_each_floor_stands_on_those_below() -> None:
    seen = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        seen.add(parts[0])
        floor = floor_of(parts[0])
        package = ["strep", *parts[:-1]]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                outside = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                outside = {str(node.module).partition(".")[0]}
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
                names = [base[1]] if len(base) > 1 else [alias.name for alias in node.names]
                for name in names:
                    if name != "_version":
                        assert floor_of(name) <= floor, f"{path.name} imports {name} from above"
                continue
            else:
                continue
            if floor < PURE:
                assert not outside & OUTER_WORLD, f"{path} is pure, but imports {outside & OUTER_WORLD}"
    assert {name for names in FLOORS for name in names} == seen


def test_importing_is_quiet_and_light() -> None:
    code = "import sys, strep, strep.cli; print(sorted({'scipy.signal', 'uvloop', 'httpx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


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
