"""strep doctor: whether this machine is ready to receive, line by line, and what to do where it is not; with --call,
whether a call's media come here."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import click
from rich.text import Text

from .._edge.ring.making import group_problem
from .._edge.ring.packet_socket import ring_problem
from .._edge.udp import UdpAddress, open_socket, parse_address, recvmmsg_available
from .._model.exceptions import StrepError
from .._model.extras import install
from .._workers.steering import steering_problem
from .call_check import CallOptions, call_options, check_call
from .exit_codes import EXIT_DOCTOR
from .options import values_of
from .running import console, run_async

__all__ = ["Check", "doctor", "examine"]

_BYTES_A_DATAGRAM: Final = 832  # what a 196-byte datagram costs of the receive buffer
_RATE: Final = 250_000  # packets/s that buffers are told in
_SMALL_BUFFER: Final = 8 << 20  # bytes
_LITTLE_FREE: Final = 10**9  # bytes
_FEW_FILES: Final = 4096
_DISK_BLOCKS: Final = 16  # of 1 MiB, written to see how fast the disk is
_LOOPBACK_S: Final = 1.0
_CLOCK_WATCH_S: Final = 0.05
_EXTRAS: Final = {
    "captures": ("zstandard", "lz4"),
    "codecs": ("av",),
    "metrics": ("prometheus_client", "uvicorn"),
    "plot": ("matplotlib",),
    "serve": ("uvicorn", "cryptography", "sqlalchemy"),
    "livekit": ("livekit",),
    "nats": ("nats",),
    "pipecat": ("pipecat",),
    "postgresql": ("psycopg",),
    "vad": ("onnxruntime",),
}


@dataclass(frozen=True, slots=True)
class Check:
    """A line of the report."""

    name: str
    result: Literal["ok", "warn", "fail"]
    text: str


@click.command()
@click.option("--listen", default="0.0.0.0:9000", show_default=True, metavar="ADDR:PORT")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="Where recordings would go (default: here).",
)
@click.option("--json", "as_json", is_flag=True)
@call_options
def doctor(listen: str, out: Path, as_json: bool, **options: Any) -> None:
    """Check port, buffers, system calls, clock and disk.

    With --call (the API key is taken from TELNYX_API_KEY): fork a call that is up to this machine, say whether its
    media come and what is wrong if they do not, and stop the fork. Exit code 7: no media; 5: the API refused.
    """
    call = values_of(CallOptions, options)
    if call.call is not None:
        sys.exit(run_async(lambda: check_call(call, listen, as_json=as_json)))
    sys.exit(_check_machine(parse_address(listen), out, as_json=as_json))


def _check_machine(address: UdpAddress, out: Path, *, as_json: bool) -> int:
    """Print all checks; returns the exit code."""
    checks = list(examine(address, out))
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks]))
    else:
        err = console()
        color = {"ok": "green", "warn": "yellow", "fail": "red"}
        for check in checks:
            line = Text.assemble((f"{check.result:>4}", color[check.result]), f"  {check.name:<14} {check.text}")
            err.print(line, soft_wrap=True)
    return EXIT_DOCTOR if any(check.result == "fail" for check in checks) else 0


def examine(address: UdpAddress, out: Path) -> Iterator[Check]:
    """All checks, in order."""
    yield from _port(address)
    yield (
        Check("recvmmsg", "ok", "available")
        if recvmmsg_available()
        else Check("recvmmsg", "warn", "not on this system: the portable path is used, at about a tenth of the speed")
    )
    yield _ring()
    yield _workers()
    yield _timestamps()
    yield _uvloop()
    yield _extras()
    yield _clock()
    yield _disk(out)
    yield _descriptors()
    yield _ipv6()


def _port(address: UdpAddress) -> Iterator[Check]:
    try:
        sock = open_socket(address)
    except StrepError as error:
        yield Check("port", "fail", getattr(error, "strerror", None) or str(error))
        return
    granted = sock.granted_buffer
    sock.close()
    yield Check("port", "ok", f"udp:{address} is free")
    held_ms = granted / _BYTES_A_DATAGRAM / _RATE * 1000
    text = f"{granted >> 20} MiB granted: {held_ms:.0f} ms of {_RATE:,} packets/s"
    if granted < _SMALL_BUFFER:
        limit = Path("/proc/sys/net/core/rmem_max")
        now = f" (net.core.rmem_max is {limit.read_text().strip()})" if limit.exists() else ""
        text += f"; raise it: sysctl -w net.core.rmem_max=67108864{now}"
        yield Check("receive buffer", "warn", text)
    else:
        yield Check("receive buffer", "ok", text)


def _ring() -> Check:
    """A choice, so that it is no fault to have none."""
    problem = ring_problem()
    if problem is None:
        return Check(
            "packet ring", "ok", "--transport ring works; it is in front of the firewall: --allow limits senders"
        )
    return Check("packet ring", "ok", f"not there, and not needed: {problem}")


def _workers() -> Check:
    problem = steering_problem()
    if problem is not None:
        return Check("workers", "warn", f"{problem}: --workers runs one process")
    rings = ring_problem() or group_problem()
    also = "rings or sockets" if rings is None else "sockets"
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return Check("workers", "ok", f"the kernel steers call legs to --workers, with {also}; {cores} cores")


def _timestamps() -> Check:
    try:
        receiver = open_socket(UdpAddress("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"strep", ("127.0.0.1", receiver.local_port))
            before = receiver.now_ns()
            deadline = time.monotonic() + _LOOPBACK_S
            batch = None
            while batch is None and time.monotonic() < deadline:
                batch = receiver.receive()
        receiver.close()
    except (OSError, StrepError) as error:
        return Check("loopback", "fail", f"a datagram to ourselves failed: {error}")
    if batch is None:
        return Check("loopback", "fail", "a datagram to 127.0.0.1 never came: look at the firewall")
    age_ms = abs(before - int(batch.arrival_ns[0])) / 1e6
    if age_ms > 1000:
        return Check("time stamps", "warn", f"arrival times are {age_ms:.0f} ms off the clock")
    return Check("time stamps", "ok", f"a datagram to ourselves came, stamped within {age_ms:.2f} ms")


def _uvloop() -> Check:
    try:
        import uvloop  # noqa: F401  # is it there
    except ImportError:
        return Check("uvloop", "warn", "missing: asyncio's own loop is used (pip install uvloop)")
    return Check("uvloop", "ok", metadata.version("uvloop"))


def _extras() -> Check:
    there = {extra: all(find_spec(module) is not None for module in modules) for extra, modules in _EXTRAS.items()}
    text = ", ".join(extra for extra, found in there.items() if found) or "none installed"
    if missing := [extra for extra, found in there.items() if not found]:
        text += f"; missing {', '.join(missing)}: {install(*missing)}"
    return Check("extras", "ok", text)


def _clock() -> Check:
    wall = time.get_clock_info("time")
    first = time.time_ns() - time.monotonic_ns()
    time.sleep(_CLOCK_WATCH_S)
    moved_us = abs(time.time_ns() - time.monotonic_ns() - first) / 1000
    if wall.resolution > 1e-3:
        return Check("clock", "warn", f"the clock ticks every {1000 * wall.resolution:g} ms: arrival times are coarse")
    if moved_us > 1000:
        return Check("clock", "warn", f"the wall clock moved {moved_us:.0f} µs against the monotonic one in 50 ms")
    return Check("clock", "ok", f"resolution {1e9 * wall.resolution:g} ns, steady")


def _disk(out: Path) -> Check:
    folder = out
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        free = shutil.disk_usage(folder).free
        block = os.urandom(1 << 20)
        with tempfile.TemporaryFile(dir=folder) as file:
            start = time.perf_counter()
            for _ in range(_DISK_BLOCKS):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            speed = _DISK_BLOCKS / (time.perf_counter() - start)
    except OSError as error:
        return Check("disk", "fail", f"{folder} cannot be written: {error.strerror}; choose another --out")
    hours = free / 16_000 / 3600
    text = f"{free / 1e9:.1f} GB free: {hours:,.0f} stream hours of PCM; writes {speed:.0f} MB/s"
    return Check("disk", "warn" if free < _LITTLE_FREE else "ok", text)


def _descriptors() -> Check:
    try:
        import resource
    except ImportError:
        return Check("files", "ok", "no limit to look at on this system")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FEW_FILES:
        return Check(
            "files", "warn", f"{hard} open files at most: more streams than that write slowly; raise ulimit -n"
        )
    return Check("files", "ok", f"{soft} open files, raised to {hard} when recording")


def _ipv6() -> Check:
    try:
        open_socket(UdpAddress("::1", 0)).close()
    except StrepError:
        return Check("IPv6", "warn", "not on this machine: listen on IPv4 addresses")
    return Check("IPv6", "ok", "available")
