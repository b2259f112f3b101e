"""Raw datagrams to a pcap file, off the event loop. Floor 5."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from os import PathLike
from typing import Any

from ._datagrams import DatagramBatch
from ._pcap import PcapWriter

__all__ = ["Recorder"]


class Recorder:
    """Writes what was received, as it was received, from a thread of its own. What a slow disk costs is counted."""

    def __init__(self, path: str | PathLike[str], roles: Mapping[int, int], *, queue_bytes: int = 64 << 20) -> None:
        self._writer = PcapWriter(path, roles=roles)
        self._queue: queue.SimpleQueue[DatagramBatch | None] = queue.SimpleQueue()
        self._limit = queue_bytes
        self._waiting = 0
        self._lock = threading.Lock()
        self.dropped = 0
        self.written = 0
        self.failed: str | None = None
        self._thread = threading.Thread(target=self._run, name="strep-pcap", daemon=True)
        self._thread.start()

    def bind(self, roles: Mapping[int, int]) -> None:
        """What further ports are for; before the first packet that comes to them."""
        self._writer.bind(roles)

    def write(self, batch: DatagramBatch) -> None:
        """Keep a copy of the batch (the slab is the edge's); returns at once."""
        width = min(max(64, -(-int(batch.length.max()) // 8) * 8), batch.slab.shape[1])
        copy = DatagramBatch(
            batch.slab[:, :width].copy(),
            batch.length.copy(),
            batch.arrival_ns.copy(),
            batch.source_hi.copy(),
            batch.source_lo.copy(),
            batch.source_port.copy(),
            batch.local_port.copy(),
        )
        size = copy.slab.nbytes
        with self._lock:
            if self._waiting + size > self._limit or self.failed:
                self.dropped += len(batch)
                return
            self._waiting += size
        self._queue.put(copy)

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            if self.failed is None:
                try:
                    self.written += self._writer.write(batch)
                    if self._queue.empty():
                        self._writer.flush()
                except OSError as error:
                    self.failed = str(error)
            if self.failed is not None:
                self.dropped += len(batch)
            with self._lock:
                self._waiting -= batch.slab.nbytes

    def close(self, timeout_s: float = 2.0) -> None:
        self._queue.put(None)
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            try:
                self._writer.close()
            except OSError as error:
                self.failed = self.failed or str(error)

    def report(self) -> dict[str, Any]:
        return {"kind": "pcap", "failed": self.failed, "dropped_datagrams": self.dropped, "written": self.written}
