"""What of packets goes into a jitter ring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Bodies"]

I64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class Bodies:
    """Packets of which it is known whose they are, columns (n,). Payload i is
    ``slab[slab_rows[i], offset[i] : offset[i] + length[i]]``."""

    timestamp: npt.NDArray[np.uint32]
    payload_type: npt.NDArray[np.uint8]
    arrival_ns: I64
    offset: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]
    slab_rows: I64 | None  # None: 0 to n-1
    slab: npt.NDArray[np.uint8]

    def take(self, rows: I64) -> Bodies:
        """Some of them. The slab is not copied."""
        return Bodies(
            timestamp=self.timestamp[rows],
            payload_type=self.payload_type[rows],
            arrival_ns=self.arrival_ns[rows],
            offset=self.offset[rows],
            length=self.length[rows],
            slab_rows=rows if self.slab_rows is None else self.slab_rows[rows],
            slab=self.slab,
        )
