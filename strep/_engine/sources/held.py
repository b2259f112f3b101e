"""What is kept of packets on probation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["HELD_COLUMNS", "HeldPackets"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

HELD_COLUMNS: Final = np.dtype(
    [
        ("packet", np.int64),  # serial number of the packet here
        ("at", np.int64),
        ("length", np.int64),
        ("arrival_ns", np.int64),
        ("source_hi", np.uint64),
        ("source_lo", np.uint64),
        ("source", np.uint64),  # the address's word, as streams are pinned
        ("timestamp", np.uint32),
        ("ssrc", np.uint32),
        ("sequence_number", np.uint16),
        ("source_port", np.uint16),
        ("local_port", np.uint16),
        ("payload_type", np.uint8),
        ("foreign", np.bool_),  # its stream belonged to another address when it came
    ]
)


@dataclass(slots=True)
class HeldPackets:
    """Packets that probation gave back, (p,).

    ``columns``    of HELD_COLUMNS
    ``owner``      int64: whose of the keys that were asked for each is
    ``slab``       uint8 (rows, SLOT_MINIMUM): their payloads, end to end
    ``first_row``  int64: where in it each payload begins
    """

    columns: npt.NDArray[np.void]
    owner: I64
    slab: U8
    first_row: I64

    def take(self, chosen: I64 | npt.NDArray[np.bool_]) -> HeldPackets:
        """Some of them. The slab is not copied."""
        return HeldPackets(self.columns[chosen], self.owner[chosen], self.slab, self.first_row[chosen])

    @classmethod
    def joined(cls, parts: list[HeldPackets]) -> HeldPackets:
        if len(parts) == 1:
            return parts[0]
        behind = np.cumsum([0, *(len(part.slab) for part in parts[:-1])])
        return cls(
            np.concatenate([part.columns for part in parts]),
            np.concatenate([part.owner for part in parts]),
            np.concatenate([part.slab for part in parts]),
            np.concatenate([part.first_row + rows for part, rows in zip(parts, behind, strict=True)]),
        )
