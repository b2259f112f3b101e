"""Datagrams of which only the begin is there, as in captures of headers alone: packets without audio."""

from __future__ import annotations

from typing import Final

import numpy as np

from .._model.datagrams import DatagramBatch
from .._model.types import DatagramKind
from .._parser import PacketColumns, Status, parse_batch

__all__ = ["any_cut", "parse_cut"]

_STREP_BYTES: Final = 24
_RTP_BYTES: Final = 12


def any_cut(batch: DatagramBatch) -> bool:
    """Whether datagrams are not each in its row and whole."""
    if batch.captured is not None or batch.first_row is not None:
        return True
    return len(batch) > 0 and int(batch.length.max()) > batch.slab.shape[1]


def parse_cut(batch: DatagramBatch) -> PacketColumns:
    """As :func:`parse_batch`; but datagrams that were cut behind a sound RTP header are packets, their payloads empty.
    They count for loss and jitter."""
    kept = batch.kept()
    columns = parse_batch(batch.slab, batch.length, kept, batch.first_row)
    rows = np.flatnonzero(columns.status == Status.TRUNCATED)
    if not rows.size:
        return columns
    strep = columns.kind[rows] == DatagramKind.STREP
    rtp = columns.kind[rows] == DatagramKind.RTP
    at = np.where(strep, _STREP_BYTES, 0)
    sound = (strep | rtp) & (kept[rows] >= at + _RTP_BYTES)
    sound &= ~strep | ((columns.version[rows] == 1) & (columns.header_length[rows] == _STREP_BYTES))
    slab = batch.slab.reshape(-1)
    begin = batch.begins()[rows] + at
    first, second = slab[begin], slab[begin + 1]
    sound &= (first >> 6 == 2) & ((second < 192) | (second > 223))  # RFC 5761: those are RTCP's
    rows, at = rows[sound], at[sound]
    columns.status[rows] = Status.OK
    columns.payload_offset[rows] = at + _RTP_BYTES
    return columns
