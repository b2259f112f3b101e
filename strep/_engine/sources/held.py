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

    ``columns``  of HELD_COLUMNS
    ``owner``    int64: whose of the keys that were asked for each is
    ``slab``     uint8 (p, width): their payloads, from each row's beginning
    """

    columns: npt.NDArray[np.void]
    owner: I64
    slab: U8
