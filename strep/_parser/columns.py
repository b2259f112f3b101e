"""Parsed headers as columns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["COLUMN_NAMES", "PacketColumns"]


@dataclass(slots=True)
class PacketColumns:
    """One row per datagram, native-endian, shape (n,). Fields a datagram is too short or of the wrong kind for are 0.

    ``kind`` uint8 (DatagramKind) · ``status`` uint8 (Status) · ``version, leg, direction`` uint8 (STREP)
    ``call_leg_hi, call_leg_lo`` uint64, the halves of call_leg_id · ``header_length`` int32 (STREP's, 0 for plain RTP)
    ``marker, payload_type`` uint8 · ``sequence_number`` uint16 · ``rtp_timestamp, ssrc`` uint32
    ``payload_offset, payload_length`` int32, without padding; 0 unless the status is OK
    """

    kind: npt.NDArray[np.uint8]
    status: npt.NDArray[np.uint8]
    version: npt.NDArray[np.uint8]
    leg: npt.NDArray[np.uint8]
    direction: npt.NDArray[np.uint8]
    call_leg_hi: npt.NDArray[np.uint64]
    call_leg_lo: npt.NDArray[np.uint64]
    header_length: npt.NDArray[np.int32]
    marker: npt.NDArray[np.uint8]
    payload_type: npt.NDArray[np.uint8]
    sequence_number: npt.NDArray[np.uint16]
    rtp_timestamp: npt.NDArray[np.uint32]
    ssrc: npt.NDArray[np.uint32]
    payload_offset: npt.NDArray[np.int32]
    payload_length: npt.NDArray[np.int32]
    uniform: int | None = None  # the DatagramKind of all, when all are OK and of one kind; None: look

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> PacketColumns:
        columns = {name: getattr(self, name)[rows] for name in COLUMN_NAMES}
        return PacketColumns(**columns, uniform=self.uniform)


COLUMN_NAMES: Final = tuple(f.name for f in fields(PacketColumns) if f.name != "uniform")
