"""The layout of a message: what stands where, and which columns there are.

::

    0                   1                   2                   3
    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +---------------------------------------------------------------+
    |                     "s"  "t"  "r"  "w"                        |  0
    +---------------+---------------+-------------------------------+
    |     major     |     minor     |           zero                |  4
    +---------------+---------------+-------------------------------+
    |       bytes of the header, little-endian, a multiple of 8     |  8
    +---------------------------------------------------------------+
    |                            zero                               |  12
    +---------------------------------------------------------------+
    |        bytes of the body, little-endian, 64 bits,             |  16
    |                       a multiple of 8                         |  20
    +---------------------------------------------------------------+
    |  header: JSON (UTF-8), blanks at its end                      |  24
    |  body: the columns that the header names, one after the other,|
    |  little-endian, each from a multiple of 8 bytes on            |
    +---------------------------------------------------------------+

A reader ignores names that it does not know, of columns, of records and in JSON: a minor version adds some. A major
version changes what is there, and older readers refuse it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["ALIGN", "COLUMNS", "MAGIC", "MAJOR", "MINOR", "PREFERRED", "PRELUDE", "Column", "padded"]

MAGIC: Final = b"strw"
MAJOR: Final = 1
MINOR: Final = 0
PRELUDE: Final = struct.Struct("<4sBBHIIQ")
ALIGN: Final = 8
PREFERRED: Final = 900_000
"""Bytes of a message that fits with any server's usual bound of 1 MiB, headers included."""


@dataclass(frozen=True, slots=True)
class Column:
    """``per``: what there is one value of: of each stream, block, packet ("+": and one more, where the last one ends),
    or "" (as many as there are). ``optional``: a message may be without it."""

    dtype: str
    per: Literal["stream", "stream+", "block", "block+", "packet", "packet+", ""]
    optional: bool = False


COLUMNS: Final[dict[str, Column]] = {
    "stream_serial": Column("<i8", "stream"),
    "stream_info_offset": Column("<i8", "stream+"),
    "stream_info": Column("|u1", ""),
    "stream": Column("<i8", "block"),
    "position": Column("<i8", "block"),
    "frames": Column("<i8", "block"),
    "gap_frames": Column("<i8", "block"),
    "gap_cause": Column("|u1", "block"),
    "rtp_timestamp": Column("<u4", "block"),
    "arrival_ns": Column("<i8", "block"),
    "time_ns": Column("<i8", "block"),
    "offset": Column("<i8", "block+"),
    "payload_offset": Column("<i8", "block+"),
    "packet_first": Column("<i8", "block+"),
    "transcoded": Column("|u1", "block", optional=True),
    "decoded": Column("|u1", "block", optional=True),
    "packet_frames": Column("<i8", "packet"),
    "packet_arrival_ns": Column("<i8", "packet"),
    "packet_rtp_timestamp": Column("<u4", "packet"),
    "packet_offset": Column("<i8", "packet+", optional=True),
    "payload": Column("|u1", ""),
    "samples": Column("<i2", "", optional=True),
    "mask": Column("|u1", "", optional=True),
    "noise_block": Column("<i8", "", optional=True),
    "noise_offset": Column("<i8", "", optional=True),
    "noise": Column("|u1", "", optional=True),
    "fill_block": Column("<i8", "", optional=True),
    "fill_offset": Column("<i8", "", optional=True),
    "fill": Column("<i2", "", optional=True),
}
"""``stream`` is the index of a block's stream in the table of streams; ``decoded`` marks blocks whose samples stand in
``samples`` (end to end, those of other blocks left out), since no table decodes their payload. The others are columns
of ``strep.BlockBatch``, and mean the same."""


def padded(size: int) -> int:
    """A size in bytes, rounded up to where the next column may begin."""
    return -(-size // ALIGN) * ALIGN
