"""A batch of datagrams as arrays: what every edge gives to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .spans import copy_spans
from .time import TICK_NS

__all__ = ["ROW_BYTES", "SLOT_MINIMUM", "DatagramBatch", "end_to_end", "in_one_tick", "joined", "merged"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

SLOT_MINIMUM = 64  # slab rows are at least this wide, so that fixed header offsets are always readable
ROW_BYTES = 2048  # up to here datagrams have a row each; a batch with longer ones has them end to end


@dataclass(slots=True)
class DatagramBatch:
    """``n`` UDP payloads and what is known of them. Rows stand in order of arrival.

    ``slab``       uint8, shape (n, width), C-contiguous rows, width ≥ SLOT_MINIMUM and a multiple of 8. Row i holds
                   the first ``min(length[i], width)`` bytes of datagram i; the bytes after that are garbage.
    ``length``     int32, the datagram's length on the wire; more than ``kept()`` tells means that it was truncated.
    ``arrival_ns`` int64, UTC nanoseconds, kernel time stamps where there are any.
    ``source_hi, source_lo`` uint64, the source address as a 128-bit integer (IPv4 as ::ffff:a.b.c.d).
    ``source_port, local_port`` uint16.
    ``captured``   int32, how many bytes of each datagram are there, of those that were truncated; None: as many as
                   there is room for.
    ``first_row``  int64, None in a usual batch. Otherwise the datagrams stand end to end, because some are long: rows
                   have SLOT_MINIMUM bytes, and datagram i begins with row ``first_row[i]`` and goes on through those
                   behind it. It is whole, but where ``captured`` says otherwise.
    ``destination_hi, destination_lo`` as the source, of traffic between others; None: it came to us.

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
    first_row: I64 | None = None
    destination_hi: npt.NDArray[np.uint64] | None = None
    destination_lo: npt.NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.length)

    def kept(self) -> npt.NDArray[np.int32]:
        """How many bytes of each datagram are here, int32 (n,)."""
        if self.captured is not None:
            return np.minimum(self.captured, self.length)
        return self.length if self.first_row is not None else np.minimum(self.length, self.slab.shape[1])

    def heads(self) -> U8:
        """uint8 (n, SLOT_MINIMUM or more): each datagram's first bytes; what stands behind its end is garbage."""
        return self.slab if self.first_row is None else self.slab[self.first_row]

    def begins(self) -> I64:
        """Where each datagram begins in the flat slab, int64 (n,)."""
        row: I64 = np.arange(len(self), dtype=np.int64) if self.first_row is None else self.first_row
        return np.multiply(row, self.slab.shape[1])

    def data(self, i: int) -> bytes:
        """What is here of one datagram."""
        begin = int(self.begins()[i])
        return self.slab.reshape(-1)[begin : begin + int(self.kept()[i])].tobytes()

    def copy(self) -> DatagramBatch:
        """One that the edge does not overwrite."""
        slab = self.slab
        if self.first_row is None:
            width = min(max(SLOT_MINIMUM, -(-int(self.length.max(initial=0)) // 8) * 8), slab.shape[1])
            slab = slab[:, :width]
        return DatagramBatch(
            slab=slab.copy(),
            length=self.length.copy(),
            arrival_ns=self.arrival_ns.copy(),
            source_hi=self.source_hi.copy(),
            source_lo=self.source_lo.copy(),
            source_port=self.source_port.copy(),
            local_port=self.local_port.copy(),
            captured=None if self.captured is None else self.captured.copy(),
            first_row=None if self.first_row is None else self.first_row.copy(),
            destination_hi=None if self.destination_hi is None else self.destination_hi.copy(),
            destination_lo=None if self.destination_lo is None else self.destination_lo.copy(),
        )

    def take(self, rows: npt.NDArray[np.intp] | slice, slab: U8 | None = None) -> DatagramBatch:
        """A batch of the given rows (copies, unless ``rows`` is a slice). ``slab``: their slab, if that is there."""
        if slab is None:
            slab = self.slab[rows] if self.first_row is None else self.slab
        return DatagramBatch(
            slab=slab,
            length=self.length[rows],
            arrival_ns=self.arrival_ns[rows],
            source_hi=self.source_hi[rows],
            source_lo=self.source_lo[rows],
            source_port=self.source_port[rows],
            local_port=self.local_port[rows],
            captured=None if self.captured is None else self.captured[rows],
            first_row=None if self.first_row is None else self.first_row[rows],
            destination_hi=None if self.destination_hi is None else self.destination_hi[rows],
            destination_lo=None if self.destination_lo is None else self.destination_lo[rows],
        )


def end_to_end(kept: npt.NDArray[np.integer]) -> tuple[U8, I64]:
    """An empty slab for datagrams of which so many bytes are kept, and their first rows: as a batch with long datagrams
    has them."""
    rows = np.maximum(-(-kept.astype(np.int64) // SLOT_MINIMUM), 1)
    end = np.cumsum(rows)
    return np.empty((int(end[-1]) if len(end) else 0, SLOT_MINIMUM), np.uint8), end - rows


def merged(batches: list[DatagramBatch]) -> list[DatagramBatch]:
    """Batches of several sockets that were read together. If they reach over a boundary of the engine's 10 ms
    ticks, they come as one batch in order of arrival, for then that order matters; otherwise as they are."""
    if len(batches) < 2:
        return batches
    return batches if in_one_tick([b.arrival_ns for b in batches]) else [joined(batches)]


def in_one_tick(arrivals: Sequence[I64]) -> bool:
    """Whether all of these times, int64 ns, none of them empty, lie in one of the engine's ticks. Then their order does
    not matter."""
    earliest, latest = min(int(a.min()) for a in arrivals), max(int(a.max()) for a in arrivals)
    return earliest // TICK_NS == latest // TICK_NS


def joined(batches: list[DatagramBatch]) -> DatagramBatch:
    """Batches, at least one, as one batch in order of arrival."""
    if len(batches) == 1:
        return batches[0]
    slab, first_row = _slabs_of(batches)
    one = DatagramBatch(
        slab=slab,
        length=np.concatenate([b.length for b in batches]),
        arrival_ns=np.concatenate([b.arrival_ns for b in batches]),
        source_hi=np.concatenate([b.source_hi for b in batches]),
        source_lo=np.concatenate([b.source_lo for b in batches]),
        source_port=np.concatenate([b.source_port for b in batches]),
        local_port=np.concatenate([b.local_port for b in batches]),
        captured=None if all(b.captured is None for b in batches) else np.concatenate([b.kept() for b in batches]),
        first_row=first_row,
        destination_hi=_known([b.destination_hi for b in batches], batches),
        destination_lo=_known([b.destination_lo for b in batches], batches),
    )
    return one.take(np.argsort(one.arrival_ns, kind="stable"))


def _known(columns: list[U64 | None], batches: list[DatagramBatch]) -> U64 | None:
    """One column of several; zeros where there is none. None: there is none at all."""
    if all(column is None for column in columns):
        return None
    return np.concatenate([
        np.zeros(len(batch), np.uint64) if column is None else column
        for column, batch in zip(columns, batches, strict=True)
    ])  # fmt: skip


def _slabs_of(batches: list[DatagramBatch]) -> tuple[U8, I64 | None]:
    """The slabs of batches as one, and the first rows in it."""
    width = max(b.slab.shape[1] for b in batches)
    if all(b.first_row is None for b in batches):
        slab = np.zeros((sum(len(b) for b in batches), width), np.uint8)
        done = 0
        for b in batches:
            slab[done : done + len(b), : b.slab.shape[1]] = b.slab
            done += len(b)
        return slab, None
    slab, first_row = end_to_end(np.concatenate([b.kept() for b in batches]))
    done = 0
    for b in batches:
        to = first_row[done : done + len(b)] * SLOT_MINIMUM
        copy_spans(slab.reshape(-1), to, np.ascontiguousarray(b.slab).reshape(-1), b.begins(), b.kept())
        done += len(b)
    return slab, first_row
