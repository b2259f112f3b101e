"""Redundant audio data (RFC 2198): payloads that carry the packets before them once more.

A header of 4 bytes for each redundant block, oldest first, one of 1 byte for the primary block, then the blocks:

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |1|   block PT  |  timestamp offset         |   block length    |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |0|   block PT  |  the primary block: this packet's own audio, up to the payload's end
    +-+-+-+-+-+-+-+-+

Example: 80 02 80 A0 00, then 160 and 160 bytes: PCMU (0) of 160 ticks earlier, 160 bytes, and PCMU of now.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_BLOCKS", "RedFault", "RedundantPayloads", "parse_redundant"]

I64 = npt.NDArray[np.int64]

MAX_BLOCKS: Final = 8  # redundant ones of a packet; no sender makes more than four
_HEADER_BYTES: Final = 4


class RedFault(IntEnum):
    """Why a payload is not redundant audio data. ``label`` is the cause under which packets are dropped."""

    NONE = 0
    CUT = 1  # it ends within the headers
    LENGTH = 2  # the blocks are longer than the payload
    CHAIN = 3  # more than MAX_BLOCKS headers say that another one follows
    NESTED = 4  # the primary block is redundant audio data itself (told by who knows the payload types)

    @property
    def label(self) -> str:
        return f"red_{self.name.lower()}"


@dataclass(slots=True)
class RedundantPayloads:
    """What n payloads hold. Of those with a ``fault``, nothing else means anything, and they have no blocks.

    Columns (n,), of primary blocks: ``payload_type`` uint8; ``offset`` and ``length`` int32, in bytes, the offset from
    where the slab's row begins; ``fault`` uint8, a :class:`RedFault`.

    Columns (m,), of redundant blocks, by generation as they stand in their packets: ``packet`` int64, which of the n it
    is of; ``rank`` int64, 1 for the one before the primary block, 2 for the one before that; ``block_payload_type``
    uint8; ``block_offset`` and ``block_length`` int32; ``ticks`` uint32: how much earlier than its packet it is.
    """

    payload_type: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]
    fault: npt.NDArray[np.uint8]
    packet: I64
    rank: I64
    block_payload_type: npt.NDArray[np.uint8]
    block_offset: npt.NDArray[np.int32]
    block_length: npt.NDArray[np.int32]
    ticks: npt.NDArray[np.uint32]


def parse_redundant(
    slab: npt.NDArray[np.uint8], rows: I64, offset: npt.NDArray[np.int32], length: npt.NDArray[np.int32]
) -> RedundantPayloads:
    """Payload i is ``slab[rows[i], offset[i] : offset[i] + length[i]]``. Never raises for what stands in it, and reads
    nothing outside of it."""
    count, flat = len(rows), slab.reshape(-1)
    begin = rows * slab.shape[1]
    at = begin + offset
    end = at + length
    fault = np.zeros(count, np.uint8)
    payload_type = np.zeros(count, np.uint8)
    total = np.zeros(count, np.int64)  # bytes of the redundant blocks
    blocks = np.zeros(count, np.int64)
    live = np.arange(count)
    found: list[tuple[I64, npt.NDArray[np.uint8], I64, I64, I64]] = []  # by generation
    while live.size:
        here = at[live]
        there = here < end[live]
        fault[live[~there]] = RedFault.CUT
        live, here = live[there], here[there]
        first = flat[here]
        more = first >= 0x80
        payload_type[live[~more]] = first[~more]
        at[live[~more]] += 1
        live, here, first = live[more], here[more], first[more]
        if len(found) == MAX_BLOCKS:
            fault[live] = RedFault.CHAIN
            break
        whole = here + _HEADER_BYTES <= end[live]
        fault[live[~whole]] = RedFault.CUT
        live, here, first = live[whole], here[whole], first[whole]
        if not live.size:
            break
        middle = flat[here + 2].astype(np.int64)
        ticks = flat[here + 1].astype(np.int64) << 6 | middle >> 2
        size = (middle & 3) << 8 | flat[here + 3]
        found.append((live, first & np.uint8(0x7F), ticks, size, total[live]))
        total[live] += size
        blocks[live] += 1
        at[live] += _HEADER_BYTES
    primary = at + total
    fault[(fault == RedFault.NONE) & (primary > end)] = RedFault.LENGTH
    if found:
        packet = np.concatenate([part[0] for part in found])
        rank = blocks[packet] - np.repeat(np.arange(len(found)), [len(part[0]) for part in found])
        types = np.concatenate([part[1] for part in found])
        ticks, size, before = (np.concatenate([part[i] for part in found]) for i in (2, 3, 4))
    else:
        packet = rank = ticks = size = before = np.zeros(0, np.int64)
        types = np.zeros(0, np.uint8)
    sound = fault[packet] == RedFault.NONE
    packet = packet[sound]
    return RedundantPayloads(
        payload_type=payload_type,
        offset=(primary - begin).astype(np.int32),
        length=(end - primary).astype(np.int32),
        fault=fault,
        packet=packet,
        rank=rank[sound],
        block_payload_type=types[sound],
        block_offset=(at[packet] - begin[packet] + before[sound]).astype(np.int32),
        block_length=size[sound].astype(np.int32),
        ticks=ticks[sound].astype(np.uint32),
    )
