"""The three words by which streams and their sources are looked up.

    hi, lo   a call_leg_id, or what stands in its place (below)
    tag      bit 0: leg · bit 1: direction · bits 2-3: kind · bits 32-63: the SSRC, for the kinds AUTO and SHARED, where
             nothing but the SSRC tells streams apart; otherwise 0

A *source* of a stream, on probation, has the stream's ``hi`` and ``lo``, and a tag that always holds its SSRC, and in
bits 4-31 a hash of its transport address (``pinning``).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "KIND_AUTO",
    "KIND_BOUND",
    "KIND_CALL_LEG",
    "KIND_SHARED",
    "KIND_SHIFT",
    "SOURCE_BITS",
    "Key",
    "Keys",
    "kind_of",
    "kind_of_tag",
    "ssrc_of",
    "stream_tag",
]

U64 = npt.NDArray[np.uint64]

Key = tuple[int, int, int]  # hi, lo, tag
Keys = tuple[U64, U64, U64]  # columns of them

KIND_CALL_LEG: Final = 0  # hi, lo are a call_leg_id: STREP, or plain RTP on ports bound to a named leg
KIND_AUTO: Final = 1  # plain RTP on a listen port: lo is the local port; of traffic between others also a word for
# the address that it was sent to (bits 16-63)
KIND_BOUND: Final = 2  # plain RTP on an rx or tx port of an unnamed pair: lo is the pair's number
KIND_SHARED: Final = 3  # plain RTP on the one port of an rx+tx pair: lo is the pair's number

KIND_SHIFT: Final = 2  # of the kind within the tag

SOURCE_BITS: Final = np.uint64(0x0000_0000_FFFF_FFF0)
_SSRC_BITS: Final = np.uint64(0xFFFF_FFFF_0000_0000)
_STREAM_BITS: Final = np.uint64(0xF)
_KIND_SHIFT: Final = np.uint64(KIND_SHIFT)
_KIND_MASK: Final = np.uint64(3)
_SSRC_SHIFT: Final = np.uint64(32)


def kind_of(tag: U64) -> U64:
    """The kinds of keys, uint64 (n,)."""
    return (tag >> _KIND_SHIFT) & _KIND_MASK


def kind_of_tag(tag: int) -> int:
    """The kind of one key."""
    return (tag >> KIND_SHIFT) & KIND_SHARED


def ssrc_of(tag: U64) -> npt.NDArray[np.uint32]:
    """The SSRCs of sources, by their tags, uint32 (n,)."""
    return (tag >> _SSRC_SHIFT).astype(np.uint32)


def stream_tag(tag: U64) -> U64:
    """The tags of the streams that sources are of."""
    by_ssrc = (tag >> _KIND_SHIFT) & np.uint64(1)  # AUTO and SHARED
    return tag & np.where(by_ssrc == 1, _STREAM_BITS | _SSRC_BITS, _STREAM_BITS)
