"""Records raw datagrams to a pcap file, from a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from os import PathLike
from typing import Any

from .._edge.pcap import PcapWriter
from .._model.datagrams import DatagramBatch
from .._threads.incidents import Incidents
from .._threads.worker_queue import WorkerQueue

__all__ = ["Recorder"]


class Recorder:
    """Writes what was received, as it was received.

    Datagrams that a slow disk leaves no room for are counted in ``dropped``. If writing fails, the rest of the
    recording is lost, and nothing else. ``roles`` says what each local port is for; up to ``queue_bytes`` wait for the
    disk. Raises OSError if the file cannot be written.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        roles: Mapping[int, int],
        incidents: Incidents,
        *,
        queue_bytes: int = 64 << 20,
    ) -> None:
        self._incidents = incidents
        self._writer = PcapWriter(path, roles=roles)
        self._lock = threading.Lock()
        self.dropped = 0
        self.written = 0
        self._unsaved = 0  # handed to the writer, and not known to be in the file
        self.failed: str | None = None
        self._queue = WorkerQueue(self._write, name="strep-pcap", limit=queue_bytes, on_fault=self._fail)

    def bind(self, roles: Mapping[int, int]) -> None:
        """What more ports are for, from the next batch on: those that wait keep what they came to."""
        self._queue.put(dict(roles))

    def write(self, batch: DatagramBatch) -> None:
        """Keep a copy of the batch, because its slab belongs to the socket. Returns at once, and never raises."""
        if self.failed is None:
            try:
                self._keep(batch)
            except Exception as error:
                self._fail(error)
        if self.failed is not None:
            with self._lock:
                self.dropped += len(batch)

    def _fail(self, error: Exception) -> None:
        self.failed = str(error)
        with self._lock:
            self.dropped += self._unsaved
            self._unsaved = 0
        self._incidents.fault("recorder", error)

    def _keep(self, batch: DatagramBatch) -> None:
        copy = batch.copy()
        if not self._queue.put(copy, copy.slab.nbytes):
            with self._lock:
                self.dropped += len(batch)

    def _write(self, batch: DatagramBatch | dict[int, int]) -> None:
        if isinstance(batch, dict):
            self._writer.bind(batch)
            return
        if self.failed is not None:
            with self._lock:
                self.dropped += len(batch)
            return
        self._unsaved += len(batch)
        self._writer.write(batch)
        if not len(self._queue):
            self._writer.flush()
            self._saved()

    def _saved(self) -> None:
        self.written += self._unsaved
        self._unsaved = 0

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, within ``timeout_s`` seconds, and close the file. Blocks."""
        if self._queue.close(timeout_s):
            try:
                self._writer.close()
                self._saved()
            except Exception as error:
                if self.failed is None:
                    self._fail(error)

    def report(self) -> dict[str, Any]:
        """What it says of itself, as sinks do."""
        return {"kind": "pcap", "failed": self.failed, "dropped_datagrams": self.dropped, "written": self.written}
