"""What tests with real sockets need: loops to run on, traffic to send, conditions to wait for."""

from __future__ import annotations

import asyncio
import hashlib
import selectors
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import soundfile

import strep
from strep._edge.udp import recvmmsg_available
from strep.simulate import StreamTruth

T = TypeVar("T")


class UnwatchingLoop(asyncio.SelectorEventLoop):
    """As Windows' proactor loop: it receives datagrams, but cannot tell when a socket is readable."""

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        raise NotImplementedError

    def remove_reader(self, fd: Any) -> bool:
        raise NotImplementedError


def _loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": lambda: asyncio.SelectorEventLoop(selectors.DefaultSelector()),
        "endpoint": UnwatchingLoop,
    }
    if sys.platform != "win32":
        import uvloop

        loops["uvloop"] = uvloop.new_event_loop
    return loops


LOOPS = _loops()
EDGES = [
    *([("recvmmsg", "uvloop"), ("recvmmsg", "asyncio")] if recvmmsg_available() else []),
    *([("portable", "uvloop")] if "uvloop" in LOOPS else []),
    ("portable", "asyncio"),
    ("portable", "endpoint"),
]


def run_on(loop: str, main: Coroutine[Any, Any, T], seconds: float = 120) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(main, seconds)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(bounded())


async def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait for something that happens elsewhere; its own error when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s")
        await asyncio.sleep(0.005)


async def send_paced(
    address: tuple[str, int], datagrams: Sequence[bytes], chunk: int = 20, pause_s: float = 0.012
) -> None:
    """Faster than real time, but no faster than the window of a stream allows."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.setblocking(False)
        for begin in range(0, len(datagrams), chunk):
            for data in datagrams[begin : begin + chunk]:
                plain.sendto(data, address)
            await asyncio.sleep(pause_s)


def port_of(receiver: strep.Receiver, role: str = "listen") -> int:
    (address,) = [s.address for s in receiver.sockets if s.role == role]
    return int(address.rpartition(":")[2])


def listening(receiver: strep.Receiver) -> tuple[str, int]:
    return "127.0.0.1", port_of(receiver)


def samples_of(path: Path) -> npt.NDArray[np.int16]:
    samples, _ = soundfile.read(path, dtype="int16")
    return samples


def hashes(folder: Path) -> dict[str, str]:
    """Every file below a folder but the summary."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "summary.json"
    }


def check_truth(truth: StreamTruth, report: strep.StreamReport) -> None:
    """Figures equal what was done to the packets."""
    assert (report.packets_expected, report.packets_lost, report.duplicates) == (
        truth.expected,
        truth.lost,
        truth.duplicates,
    )
    assert report.rfc3550_lost == truth.rfc3550_lost
    assert report.reordered == truth.reordered
    assert report.late == 0
