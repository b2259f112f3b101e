"""A batch of datagrams as arrays: what every edge gives to the engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .time import TICK_NS

__all__ = ["SLOT_MINIMUM", "DatagramBatch", "merged"]

SLOT_MINIMUM = 64  # slab rows are at least this wide, so that fixed header offsets are always readable


@dataclass(slots=True)
class DatagramBatch:
    """``n`` UDP payloads and what is known of them. Rows stand in order of arrival.

    ``slab``       uint8, shape (n, width), C-contiguous rows, width ≥ SLOT_MINIMUM and a multiple of 8. Row i holds
                   the first ``min(length[i], width)`` bytes of datagram i; the bytes after that are garbage.
    ``length``     int32, the datagram's length on the wire; more than ``width`` means it was truncated.
    ``arrival_ns`` int64, UTC nanoseconds, kernel time stamps where there are any.
    ``source_hi, source_lo`` uint64, the source address as a 128-bit integer (IPv4 as ::ffff:a.b.c.d).
    ``source_port, local_port`` uint16.
    ``captured``   int32, how many bytes of each datagram are in its row, of those that were truncated; None: as many as
                   there is room for.

    The slab belongs to the edge, which overwrites it with its next batch. Do not keep a view of it.
    """

    slab: npt.NDArray[np.uint8]
    length: npt.NDArray[np.int32]
    arrival_ns: npt.NDArray[np.int64]
    source_hi: npt.NDArray[np.uint64]
    source_lo: npt.NDArray[np.uint64]
    source_port: npt.NDArray[np.uint16]
    local_port: npt.NDArray[np.uint16]
    captured: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.length)

    def take(self, rows: npt.NDArray[np.intp] | slice) -> DatagramBatch:
        """A batch of the given rows (copies, unless ``rows`` is a slice)."""
        return DatagramBatch(
            slab=self.slab[rows],
            length=self.length[rows],
            arrival_ns=self.arrival_ns[rows],
            source_hi=self.source_hi[rows],
            source_lo=self.source_lo[rows],
            source_port=self.source_port[rows],
            local_port=self.local_port[rows],
            captured=None if self.captured is None else self.captured[rows],
        )


def merged(batches: list[DatagramBatch]) -> list[DatagramBatch]:
    """Batches of several sockets that were read together. If they reach over a boundary of the engine's 10 ms
    ticks, they come as one batch in order of arrival, for then that order matters; otherwise as they are."""
    if len(batches) < 2:
        return batches
    earliest = min(int(b.arrival_ns.min()) for b in batches)
    latest = max(int(b.arrival_ns.max()) for b in batches)
    if earliest // TICK_NS == latest // TICK_NS:
        return batches
    width = max(b.slab.shape[1] for b in batches)
    slab = np.zeros((sum(len(b) for b in batches), width), np.uint8)
    done = 0
    for b in batches:
        slab[done : done + len(b), : b.slab.shape[1]] = b.slab
        done += len(b)
    one = DatagramBatch(
        slab=slab,
        length=np.concatenate([b.length for b in batches]),
        arrival_ns=np.concatenate([b.arrival_ns for b in batches]),
        source_hi=np.concatenate([b.source_hi for b in batches]),
        source_lo=np.concatenate([b.source_lo for b in batches]),
        source_port=np.concatenate([b.source_port for b in batches]),
        local_port=np.concatenate([b.local_port for b in batches]),
    )
    return [one.take(np.argsort(one.arrival_ns, kind="stable"))]
