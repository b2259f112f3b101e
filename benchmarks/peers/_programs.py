"""What the peers that are programs share: free ports, starting them, ending them with SIGINT, the two lines to say."""

from __future__ import annotations

import contextlib
import ctypes
import json
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["arguments", "free_ports", "run"]

_LOWEST, _HIGHEST = 20_000, 32_000  # below the ports that the kernel gives to others
_PATIENCE_S = 60.0
_PDEATHSIG = 1
_GOODBYE = struct.Struct("!BBHIBBHI")  # RFC 3550, 6.1: a receiver report, here without blocks, then BYE


def free_ports(streams: int) -> range:
    """An even port for each stream, the odd one above it free as well."""
    first = _LOWEST
    while first + 2 * streams <= _HIGHEST:
        with contextlib.ExitStack() as sockets:
            for port in range(first, first + 2 * streams):
                try:
                    sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("127.0.0.1", port))
                except OSError:
                    first = port + 2 - port % 2
                    break
            else:
                return range(first, first + 2 * streams, 2)
    raise SystemExit(f"no {2 * streams} free UDP ports in a row")


def run(
    commands: Sequence[Sequence[str]],
    ports: range,
    *,
    bye: bool = False,
    opening: Callable[[], None] = lambda: None,
    closing: Callable[[], None] = lambda: None,
) -> None:
    """Run the commands until SIGTERM; they are ready when the ports are bound, which ``opening`` may have them do.
    ``closing`` is called before they are ended.

    They are ended by SIGINT, or, ``bye``, by an RTCP BYE of stream s + 1 to its port's odd neighbour.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PDEATHSIG, signal.SIGKILL)  # whatever becomes of this one, none of them stays behind
        signal.pthread_sigmask(signal.SIG_SETMASK, set())

    processes = [
        subprocess.Popen(c, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=prepare) for c in commands
    ]
    opening()
    began = time.monotonic()
    while not set(ports) <= _bound():
        if any(p.poll() is not None for p in processes) or time.monotonic() - began > _PATIENCE_S:
            raise SystemExit(f"{commands[0][0]} did not open its ports")
        time.sleep(0.1)
    time.sleep(1.0)  # a port is open before all is ready
    print(json.dumps({"port": ports[0], "pids": [p.pid for p in processes]}), flush=True)
    if signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGCHLD:
        raise SystemExit(f"{commands[0][0]} ended by itself")
    closing()
    if bye:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for stream, port in enumerate(ports):
                sender.sendto(
                    _GOODBYE.pack(0x80, 201, 1, stream + 1, 0x81, 203, 1, stream + 1), ("127.0.0.1", port + 1)
                )
    else:
        for process in processes:
            process.send_signal(signal.SIGINT)
    for process in processes:
        process.wait(_PATIENCE_S)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"cpu_s": usage.ru_utime + usage.ru_stime}), flush=True)


def _bound() -> set[int]:
    """The UDP ports that somebody has on this machine."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return {int(line.split()[1].rpartition(":")[2], 16) for line in lines}


def arguments() -> tuple[Path, int]:
    """The directory for the files and the number of streams, from the command line."""
    return Path(sys.argv[1]), int(sys.argv[2])
