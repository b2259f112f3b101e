"""Parsed packets on their way through the engine: columns, and where their payloads lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .sources.probation import HELD_COLUMNS, HeldPackets

__all__ = ["Bodies", "Packets"]

Rows = npt.NDArray[np.int64]


@dataclass(slots=True)
class Bodies:
    """What of packets goes into the ring, once it is known whose they are. Columns as in :class:`Packets`."""

    timestamp: npt.NDArray[np.uint32]
    payload_type: npt.NDArray[np.uint8]
    arrival_ns: Rows
    offset: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]
    slab_rows: Rows | None
    slab: npt.NDArray[np.uint8]

    def take(self, rows: Rows) -> Bodies:
        return Bodies(
            self.timestamp[rows],
            self.payload_type[rows],
            self.arrival_ns[rows],
            self.offset[rows],
            self.length[rows],
            rows if self.slab_rows is None else self.slab_rows[rows],
            self.slab,
        )


@dataclass(slots=True)
class Packets:
    """Columns of shape (n,). Payload i is ``slab[slab_rows[i], offset[i] : offset[i] + length[i]]``.

    The source columns stand by row of the slab too: only who comes to probation is asked for them.
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

    def __len__(self) -> int:
        return len(self.hi)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_] | slice) -> Packets:
        slab, chosen = self.slab, self.slab_rows
        sources = self.source_hi, self.source_lo, self.source_port, self.local_port
        if chosen is not None:
            chosen = chosen[rows]
        elif isinstance(rows, slice):
            slab = slab[rows]
            sources = sources[0][rows], sources[1][rows], sources[2][rows], sources[3][rows]
        else:
            chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64, copy=False)
        return Packets(
            self.hi[rows],
            self.lo[rows],
            self.tag[rows],
            self.sequence_number[rows],
            self.timestamp[rows],
            self.ssrc[rows],
            self.payload_type[rows],
            self.arrival_ns[rows],
            self.offset[rows],
            self.length[rows],
            chosen,
            slab,
            *sources,
            self.source[rows],
        )

    def bodies(self) -> Bodies:
        return Bodies(
            self.timestamp, self.payload_type, self.arrival_ns, self.offset, self.length, self.slab_rows, self.slab
        )

    def rows(self) -> npt.NDArray[np.int64]:
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
