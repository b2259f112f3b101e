"""Blocks that are too long for a message, cut between packets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from .parts import Part

__all__ = ["block_bytes", "cut_long_blocks"]

I64 = npt.NDArray[np.int64]

_BLOCK_BYTES: Final = 104  # of a block's own columns
_PACKET_BYTES: Final = 28  # of a packet's


def block_bytes(part: Part) -> I64:
    """Bytes that each block takes in a message, int64 (m,)."""
    size: I64 = part.bytes_ + np.where(part.decoded, 2 * part.values, 0) + _BLOCK_BYTES + _PACKET_BYTES * part.packets
    if part.mask is not None:
        size = size + part.columns["frames"]
    for i, made in part.fill.items():
        size[i] += made.nbytes + 16
    for i, noise in part.noise.items():
        size[i] += len(noise) + 16
    return size


def cut_long_blocks(part: Part, most: int, rates: Callable[[I64], I64]) -> Part:
    """The same blocks, those of more than ``most`` bytes cut into such as are not, if their packets allow it. ``rates``
    tells the sample frames per second of slots."""
    size = block_bytes(part)
    if not len(size) or int(size.max()) <= most:
        return part
    columns, packets, rate = part.columns, part.packets, rates(part.slot)
    first = np.append(0, np.cumsum(packets))
    frames = np.append(0, np.cumsum(part.packet_columns["packet_frames"]))
    pieces = np.minimum(np.maximum(-(-size // max(most, 1)) * 2, 1), np.maximum(packets, 1))
    pieces[size <= most] = 1
    owner = np.repeat(np.arange(len(size)), pieces)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begins = first[:-1][owner] + nth * packets[owner] // pieces[owner]
    ends = np.append(begins[1:], first[-1])
    head, within = nth == 0, frames[begins] - frames[first[:-1]][owner]
    length = frames[ends] - frames[begins]
    channels = part.values // np.maximum(columns["frames"], 1)
    inner = ~head
    made = {name: column[owner] for name, column in columns.items()}
    made["position"] = made["position"] + within
    made["frames"] = length
    made["time_ns"] = made["time_ns"] + within * 1_000_000_000 // np.maximum(rate[owner], 1)
    for name in ("gap_frames", "gap_cause"):
        made[name] = np.where(inner, 0, made[name]).astype(columns[name].dtype)
    for name, packet_name in (("rtp_timestamp", "packet_rtp_timestamp"), ("arrival_ns", "packet_arrival_ns")):
        made[name] = np.where(inner, part.packet_columns[packet_name][begins], made[name]).astype(columns[name].dtype)
    if part.packet_bytes is not None:
        at = np.append(0, np.cumsum(part.packet_bytes))
        bytes_ = at[ends] - at[begins]
    else:
        bytes_ = length * (part.bytes_ // np.maximum(columns["frames"], 1))[owner]
    place = np.flatnonzero(head).tolist()
    return replace(
        part,
        slot=part.slot[owner],
        columns=made,
        values=length * channels[owner],
        bytes_=bytes_,
        packets=ends - begins,
        decoded=part.decoded[owner],
        transcoded=part.transcoded[owner],
        noise={place[i]: noise for i, noise in part.noise.items()},
        fill={place[i]: fill for i, fill in part.fill.items()},
    )
