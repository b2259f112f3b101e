"""Packets that left the jitter ring, as columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["RingPackets"]

I64 = npt.NDArray[np.int64]


class RingPackets:
    """Packets that left the ring, columns (p,): by stream, and each stream's in sequence order."""

    __slots__ = ("arrival_ns", "ext", "length", "payload_type", "recovered", "row", "slot", "timestamp")

    def __init__(
        self,
        row: I64,
        ext: I64,
        slot: I64,
        timestamp: npt.NDArray[np.uint32],
        length: I64,
        payload_type: I64,
        arrival_ns: I64,
        recovered: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.row = row
        self.ext = ext
        self.slot = slot  # index into the stream's slab: base + (ext mod 64)
        self.timestamp = timestamp
        self.length = length
        self.payload_type = payload_type
        self.arrival_ns = arrival_ns
        self.recovered = recovered  # which did not come themselves, but in a redundant copy; None: none

    def __len__(self) -> int:
        return len(self.row)

    @property
    def came(self) -> int:
        """Packets that came themselves."""
        return len(self.row) - (0 if self.recovered is None else int(np.count_nonzero(self.recovered)))

    def take(self, chosen: I64 | npt.NDArray[np.bool_]) -> RingPackets:
        return RingPackets(
            row=self.row[chosen],
            ext=self.ext[chosen],
            slot=self.slot[chosen],
            timestamp=self.timestamp[chosen],
            length=self.length[chosen],
            payload_type=self.payload_type[chosen],
            arrival_ns=self.arrival_ns[chosen],
            recovered=None if self.recovered is None else self.recovered[chosen],
        )

    def starts(self) -> I64:
        """Where each stream's packets begin."""
        return np.append(True, self.row[1:] != self.row[:-1]).nonzero()[0]

    @classmethod
    def joined(cls, parts: list[RingPackets]) -> RingPackets:
        """Several as one; of a stream, what left the ring earlier comes first."""
        if len(parts) == 1:
            return parts[0]
        row = np.concatenate([part.row for part in parts])
        order = row.argsort(kind="stable")
        rest = (
            np.concatenate([getattr(part, name) for part in parts])[order]
            for name in ("ext", "slot", "timestamp", "length", "payload_type", "arrival_ns")
        )
        joined = cls(row[order], *rest)
        if any(part.recovered is not None for part in parts):
            none = (np.zeros(len(p), np.bool_) if p.recovered is None else p.recovered for p in parts)
            joined.recovered = np.concatenate(list(none))[order]
        return joined
