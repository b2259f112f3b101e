"""Parsed packets on their way through the engine: columns, and where their payloads lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .sources.held import HELD_COLUMNS, HeldPackets
from .streams.slots import Bodies

__all__ = ["Packets"]


@dataclass(slots=True)
class Packets:
    """Columns of shape (n,). Payload i begins in the slab at row ``slab_rows[i]``, or ``first_row[slab_rows[i]]`` where
    there are first rows, and ``offset[i]``; it has ``length[i]`` bytes, and may go on through the rows behind it.

    The source columns and ``first_row`` are by number of the datagram in its batch, which ``slab_rows`` tells: the
    former are only read of packets that go on probation.
    """

    hi: npt.NDArray[np.uint64]
    lo: npt.NDArray[np.uint64]
    tag: npt.NDArray[np.uint64]
    sequence_number: npt.NDArray[np.uint16]
    timestamp: npt.NDArray[np.uint32]
    ssrc: npt.NDArray[np.uint32]
    payload_type: npt.NDArray[np.uint8]
    arrival_ns: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]
    slab_rows: npt.NDArray[np.int64] | None  # None: 0..n-1
    slab: npt.NDArray[np.uint8]
    source_hi: npt.NDArray[np.uint64]
    source_lo: npt.NDArray[np.uint64]
    source_port: npt.NDArray[np.uint16]
    local_port: npt.NDArray[np.uint16]
    source: npt.NDArray[np.uint64]  # the source address's word, as streams are pinned to it; by packet
    first_row: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.hi)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_] | slice) -> Packets:
        """The packets of these rows: views where ``rows`` is a slice, copies otherwise. The slab is never copied."""
        slab, slab_rows, first_row = self.slab, self.slab_rows, self.first_row
        hi, lo, port, local_port = self.source_hi, self.source_lo, self.source_port, self.local_port
        if slab_rows is not None:
            slab_rows = slab_rows[rows]
        elif isinstance(rows, slice):
            hi, lo, port, local_port = hi[rows], lo[rows], port[rows], local_port[rows]
            if first_row is None:
                slab = slab[rows]
            else:
                first_row = first_row[rows]
        else:
            slab_rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64, copy=False)
        return Packets(
            hi=self.hi[rows],
            lo=self.lo[rows],
            tag=self.tag[rows],
            sequence_number=self.sequence_number[rows],
            timestamp=self.timestamp[rows],
            ssrc=self.ssrc[rows],
            payload_type=self.payload_type[rows],
            arrival_ns=self.arrival_ns[rows],
            offset=self.offset[rows],
            length=self.length[rows],
            slab_rows=slab_rows,
            slab=slab,
            source_hi=hi,
            source_lo=lo,
            source_port=port,
            local_port=local_port,
            source=self.source[rows],
            first_row=first_row,
        )

    def bodies(self) -> Bodies:
        """What of them goes into the ring."""
        return Bodies(
            timestamp=self.timestamp,
            payload_type=self.payload_type,
            arrival_ns=self.arrival_ns,
            offset=self.offset,
            length=self.length,
            slab_rows=self.slab_rows if self.first_row is None else self.rows(),
            slab=self.slab,
            across=self.first_row is not None,
        )

    def rows(self) -> npt.NDArray[np.int64]:
        """The rows of the slab that payloads' datagrams begin with."""
        if self.first_row is not None:
            return self.first_row if self.slab_rows is None else self.first_row[self.slab_rows]
        return np.arange(len(self), dtype=np.int64) if self.slab_rows is None else self.slab_rows

    def held_columns(self) -> npt.NDArray[np.void]:
        """What probation keeps of a packet beside its payload."""
        columns = np.zeros(len(self), HELD_COLUMNS)
        for name in _HELD:
            columns[name] = getattr(self, name)
        for name in _SOURCE:
            column = getattr(self, name)
            columns[name] = column if self.slab_rows is None else column[self.slab_rows]
        return columns

    @classmethod
    def of_held(
        cls, held: HeldPackets, hi: npt.NDArray[np.uint64], lo: npt.NDArray[np.uint64], tag: npt.NDArray[np.uint64]
    ) -> Packets:
        """Packets that probation gave back; the keys are those of their streams, one per owner."""
        columns = held.columns
        values: dict[str, Any] = {name: np.ascontiguousarray(columns[name]) for name in (*_HELD, *_SOURCE)}
        values["length"] = values["length"].astype(np.int32)
        return cls(
            hi=hi[held.owner],
            lo=lo[held.owner],
            tag=tag[held.owner],
            offset=np.zeros(len(columns), np.int32),
            slab_rows=None,
            slab=held.slab,
            first_row=held.first_row,
            **values,
        )


_HELD = (
    "sequence_number",
    "timestamp",
    "ssrc",
    "payload_type",
    "arrival_ns",
    "length",
    "source",
)
_SOURCE = ("source_hi", "source_lo", "source_port", "local_port")
