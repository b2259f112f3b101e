"""What is decided of sources, for others to carry out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..._model.events import Limited
from ..._model.types import Direction
from .held import HeldPackets
from .keys import Key, Keys

__all__ = ["Decision", "Eviction", "NewStreams", "Takeover"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class NewStreams:
    """Sources that begin streams, columns (k,).

    ``keys``       of the streams
    ``sources``    words of their addresses (``pinning``)
    ``ssrc``       uint32
    ``direction``  a list; None: as the key says
    ``lowest``     uint16: the sequence numbers that they begin with
    ``first``      of HELD_COLUMNS: the packets that came first
    ``origin_ns``  int64: when their first samples arrived, or would have without delay; 0: not known yet
    ``encrypted``  bool: looks like SRTP
    ``held``       all their packets that waited; ``held.owner`` indexes these columns
    """

    keys: Keys
    sources: U64
    ssrc: npt.NDArray[np.uint32]
    direction: list[Direction | None]
    lowest: npt.NDArray[np.uint16]
    first: npt.NDArray[np.void]
    origin_ns: I64
    encrypted: Bools
    held: HeldPackets


@dataclass(frozen=True, slots=True)
class Takeover:
    """Sources that take over existing streams, columns (k,).

    ``rows``     int64, distinct: the streams
    ``sources``  words of the new addresses
    ``ssrc``     uint32
    ``lowest``   uint16: the sequence numbers that they begin with
    ``held``     their packets that waited; ``held.owner`` indexes these columns
    ``key``      the key that the stream (k = 1) has from now on; None: the one it has
    """

    rows: I64
    sources: U64
    ssrc: npt.NDArray[np.uint32]
    lowest: npt.NDArray[np.uint16]
    held: HeldPackets
    key: Key | None = None


@dataclass(frozen=True, slots=True)
class Eviction:
    """Streams, rows int64 (k,), that make room for others."""

    rows: I64


Decision = NewStreams | Takeover | Eviction | Limited
