"""Where redundant copies (RFC 2198) belong: they say when they are of, but not of which packet.

A copy belongs between the nearest packet that is not later than it, and the nearest that is. If one packet is missing
there, it is that one, however long the silence before it or behind it. If several are missing, its timestamp tells
which. Example, packets of 160 ticks, 5 and 6 missing, and packet 8 brings a copy of 480 ticks before:

    packet       4      5      6      7      8
    timestamp  640      .      .   1120   1280      the copy's: 800, a third of the way from 640 to 1120: packet 5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .ring import JitterRing
from .slots import SLOTS, Bodies

__all__ = ["Copies", "insert_copies"]

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

_BEHIND: Final = SLOTS - 1  # packets before its packet, among which a copy's place is looked for
_ONE = np.uint64(1)


@dataclass(slots=True)
class Copies:
    """Redundant blocks, columns (n,): as packets that did not come. ``timestamp`` and the rest of ``bodies`` are the
    block's own, but ``arrival_ns``, its packet's.

    ``row``, ``carrier_ext``, ``carrier_timestamp``  the stream, and of the packet that brought it
    ``rank``     1: its packet's last block, 2: the one before it
    ``lasts``    RTP ticks, where they are known from its size; else 0
    ``shared``   bool: several packets have one timestamp (key presses)
    """

    bodies: Bodies
    row: I64
    carrier_ext: I64
    carrier_timestamp: npt.NDArray[np.uint32]
    rank: I64
    lasts: I64
    shared: Bools

    def take(self, which: I64) -> Copies:
        return Copies(
            bodies=self.bodies.take(which),
            row=self.row[which],
            carrier_ext=self.carrier_ext[which],
            carrier_timestamp=self.carrier_timestamp[which],
            rank=self.rank[which],
            lasts=self.lasts[which],
            shared=self.shared[which],
        )


def insert_copies(ring: JitterRing, copies: Copies) -> int:
    """Put copies of what is missing into its slots, where they wait until it is given up. Returns how many are from
    before all that is remembered."""
    # in rows without a hole before the packet, which are nearly all, nothing is missing
    row = copies.row
    which = (copies.carrier_ext > ring.next.take(row) + ring.run(row)).nonzero()[0]
    if not which.size:
        return 0
    copies = copies.take(which)
    needed = (~_came(ring, copies)).nonzero()[0]
    if not needed.size:
        return 0
    copies = copies.take(needed)
    row = copies.row
    place = _places(ring, copies)
    target = copies.carrier_ext - place
    offset = target - ring.next.take(row)
    free = (place > 0) & (offset >= 0)
    bit = _ONE << np.where(free, offset, 0).view(np.uint64)
    free &= ((ring.present.take(row) | ring.spares.copies.take(row)) & bit) == 0
    free &= copies.bodies.length <= ring.room_in(row)
    chosen = free.nonzero()[0]
    # of several copies of one packet, the one that came first
    _, first = np.unique(row[chosen] << 40 | target[chosen] & 0xFF_FFFF_FFFF, return_index=True)
    chosen = chosen[np.sort(first)]
    if chosen.size:
        ring.spares.put(row[chosen], bit[chosen])
        ring.fill_slots(row[chosen], target[chosen], copies.bodies.take(chosen))
    return int(np.count_nonzero(place < 0))


def _came(ring: JitterRing, copies: Copies) -> Bools:
    """Which copies are of packets that came, where each packet brings those just before it: most senders do so, and
    most copies are of such packets. Bool (n,)."""
    row, ext = copies.row, copies.carrier_ext - copies.rank
    slot = ring.base.take(row) + (ext & (SLOTS - 1))
    timestamp = (ring.meta_of(row, slot)[:, 0] >> np.uint64(32)).astype(np.uint32)
    came: Bools = (timestamp == copies.bodies.timestamp) & (ext > ring.highest(row) - SLOTS) & ~copies.shared
    came &= ring.came(row, ext - ring.next.take(row))
    return came


def _places(ring: JitterRing, copies: Copies) -> I64:
    """How many packets before its packet each copy belongs, int64 (n,); 0: it has no place among what is missing (the
    packet came, or nothing is missing there); -1: it is from before all that is remembered."""
    row, own, one = copies.row, copies.bodies.timestamp, np.arange(len(copies.row))
    behind = np.arange(1, _BEHIND + 1)
    ext = copies.carrier_ext[:, None] - behind  # (n, _BEHIND), as all that follows: of the packets 1, 2, ... before
    rows = np.repeat(row, _BEHIND)
    known = ring.came(rows, (ext - ring.next.take(row)[:, None]).reshape(-1)).reshape(ext.shape)
    # what has left the ring is read from its slot, unless another one has it by now
    known &= ext > ring.highest(row)[:, None] - SLOTS
    slot = ring.base.take(row)[:, None] + (ext & (SLOTS - 1))
    timestamp = (ring.meta_of(rows, slot.reshape(-1))[:, 0] >> np.uint64(32)).astype(np.uint32).reshape(ext.shape)
    since = (timestamp - own[:, None]).view(np.int32).astype(np.int64)  # how much later than the copy
    not_later = known & (since <= 0)
    bounded = not_later.any(axis=1)
    below = np.where(bounded, not_later.argmax(axis=1), _BEHIND) + 1
    later = known & (since > 0) & (behind < below[:, None])
    above = np.where(later.any(axis=1), _BEHIND - later[:, ::-1].argmax(axis=1), 0)
    until = (copies.carrier_timestamp - own).view(np.int32).astype(np.int64)
    until = np.where(above > 0, since[one, above - 1], until)
    since_below = since[one, np.minimum(below, _BEHIND) - 1]
    part = until / np.maximum(until - since_below, 1)
    within = np.clip(np.rint(part * (below - above)).astype(np.int64), 1, np.maximum(below - above - 1, 1))
    # nothing is known before it: it is so many before as its length says, or the number of the block
    by_length = np.where(copies.lasts > 0, until // np.maximum(copies.lasts, 1), copies.rank - above)
    place = above + np.where(bounded, within, by_length)
    came = bounded & (since_below == 0) & ~copies.shared
    place[came | (bounded & (below - above < 2)) | (place <= above)] = 0
    place[place > _BEHIND] = -1
    return place
