"""Simulated traffic as if it had been received: batches for the engine, and pcap files. Reads no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from .._model.datagrams import SLOT_MINIMUM, DatagramBatch
from .._model.exceptions import ConfigurationError

__all__ = ["START_NS", "Sending", "batches", "write_pcap"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

START_NS: Final = 1_700_000_000_000_000_000  # a whole second, UTC
_SOURCE: Final = 0xFFFF_C000_0201  # 192.0.2.1, kept for documentation (RFC 5737)
_FIRST_SOURCE_PORT: Final = 20_000
_SOURCE_PORTS: Final = 40_000
_BATCH_ROWS: Final = 4096  # datagrams of a batch


class Sending(Protocol):
    """Datagrams in order of sending, as :class:`.traffic.Traffic` has them.

    ``time_ns`` int64 (n,) since the start; ``stream`` int64 (n,); ``streams_a_call``: this many streams, side by side,
    are of one call.
    """

    time_ns: I64
    stream: I64

    def __len__(self) -> int: ...
    @property
    def streams_a_call(self) -> int: ...
    def direction(self, rows: slice) -> I64: ...
    def lengths(self, rows: slice, *, strep: bool) -> I64: ...
    def datagrams(self, rows: slice, *, strep: bool) -> U8: ...


def batches(traffic: Sending, *, strep: bool, rx_port: int, tx_port: int, start_ns: int) -> Iterator[DatagramBatch]:
    """What a socket would give: each datagram arrives when it is sent, ``start_ns`` (UTC) being the start.

    With STREP all go to ``rx_port``; without, inbound to ``rx_port`` and outbound to ``tx_port``. All directions of a
    call leave from one port, as real forks do. Raises ConfigurationError for ports that are none.
    """
    for port in (rx_port, tx_port):
        if not 0 < port < 65_536:
            raise ConfigurationError(f"port {port}: choose 1 to 65535")
    per_call = traffic.streams_a_call
    for begin in range(0, len(traffic), _BATCH_ROWS):
        rows = slice(begin, begin + _BATCH_ROWS)
        data = traffic.datagrams(rows, strep=strep)
        n, width = data.shape
        slab = np.zeros((n, max(SLOT_MINIMUM, -(-width // 8) * 8)), np.uint8)
        slab[:, :width] = data
        local_port = np.where(traffic.direction(rows) == 1, rx_port if strep else tx_port, rx_port)
        yield DatagramBatch(
            slab=slab,
            length=traffic.lengths(rows, strep=strep).astype(np.int32),
            arrival_ns=start_ns + traffic.time_ns[rows],
            source_hi=np.zeros(n, np.uint64),
            source_lo=np.full(n, _SOURCE, np.uint64),
            source_port=(_FIRST_SOURCE_PORT + traffic.stream[rows] // per_call % _SOURCE_PORTS).astype(np.uint16),
            local_port=local_port.astype(np.uint16),
        )


def write_pcap(parts: Iterable[DatagramBatch], path: str | PathLike[str]) -> int:
    """Write batches as a pcap file (nanoseconds, Ethernet, to 127.0.0.1); returns how many datagrams it holds."""
    from .._edge.pcap import PcapWriter

    writer = PcapWriter(path)
    try:
        return sum(writer.write(part) for part in parts)
    finally:
        writer.close()
