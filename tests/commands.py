"""The command line, and datagrams sent to it."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from strep.cli import main

STREP = [sys.executable, "-m", "strep"]


def strep_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command as a user starts it, to its end."""
    return subprocess.run([*STREP, *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False)


def strep_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same without a process: a command that needs no signals, no terminal and no environment of its own."""
    command = ["strep", *map(str, arguments)]
    root = logging.getLogger()
    with pytest.MonkeyPatch.context() as patch, CliRunner().isolation() as (stdout, stderr, _):
        patch.setattr(sys, "argv", command)
        patch.setattr(root, "handlers", [])  # the command has its own
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return subprocess.CompletedProcess(command, int(code), *(io.getvalue().decode() for io in (stdout, stderr)))


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
