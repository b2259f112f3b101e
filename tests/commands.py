"""The command line as a process of its own, and datagrams sent to it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

STREP = [sys.executable, "-m", "strep"]


def strep_command(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **(env or {})}
    command = [*STREP, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A capture in the background, listening: the process and its ports."""
    command = [*STREP, "capture", *map(str, arguments), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        first = process.stdout.readline()  # type: ignore[union-attr]
        assert first, process.stderr.read()  # type: ignore[union-attr]
        event = json.loads(first)
        assert event["event"] == "listening"
        yield process, [int(s["address"].rpartition(":")[2]) for s in event["sockets"]]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def send(port: int, datagrams: list[bytes], chunk: int = 20) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        for begin in range(0, len(datagrams), chunk):
            for data in datagrams[begin : begin + chunk]:
                plain.sendto(data, ("127.0.0.1", port))
            time.sleep(0.012)  # the window of a stream is 44 packets a tick
