"""From ring slots to bytes end to end, and to samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from .._codecs import decode, encode
from .._types import Codec
from .ring import JitterRing
from .timeline import Placed

__all__ = ["Decoder", "gather"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


def gather(ring: JitterRing, placed: Placed, frame_bytes: I64) -> tuple[U8, I64]:
    """The payloads of placed packets end to end, uint8, and where each begins, int64 (p+1,)."""
    bytes_a_frame = frame_bytes.take(placed.codec)
    length = placed.frames * bytes_a_frame
    begin = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=begin[1:])
    skip = None if placed.trim is None else placed.trim * bytes_a_frame
    if not ring.any_large or not (large := ring.large.take(placed.row)).any():
        return _gather(ring.payload_slab(False), placed.slot, skip, length, begin, None), begin
    out = np.empty(int(begin[-1]), np.uint8)
    for kind in (False, True):
        members = np.flatnonzero(large == kind)
        if members.size:
            part = None if skip is None else skip[members]
            slab = ring.payload_slab(kind)
            _gather(slab, placed.slot[members], part, length[members], begin[:-1][members], out)
    return out, begin


def _gather(slab: U8, slot: I64, skip: I64 | None, length: I64, begin: I64, out: U8 | None) -> U8:
    """``out[begin:begin+length] = slab[slot, skip:skip+length]`` for every packet; ``out`` None: end to end."""
    one = int(length[0])
    same = skip is None and bool((length == one).all())
    if same and out is None:
        return slab[slot, :one].reshape(-1)
    if out is None:
        out = np.empty(int(begin[-1]), np.uint8)
    distinct = np.unique(length)
    if skip is None and len(distinct) <= 16:
        # a handful of packet durations: one strided copy each
        for size in distinct.tolist():
            if size:
                members = np.flatnonzero(length == size)
                windows = np.ndarray((out.size - size + 1,), np.dtype((np.void, size)), out, 0, (1,))
                items = np.ndarray((len(slab),), np.dtype((np.void, size)), slab, 0, (slab.shape[1],))
                windows[begin[members]] = items[slot[members]]
        return out
    at = begin[: len(length)]
    source = slot * slab.shape[1] if skip is None else slot * slab.shape[1] + skip
    within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    out[np.repeat(at, length) + within] = slab.reshape(-1)[np.repeat(source, length) + within]
    return out


class Decoder:
    """Makes int16 samples and the payload in the stream's own codec from packets that may mix codecs."""

    def __init__(self, codecs: Sequence[Codec]) -> None:
        self.codecs = tuple(codecs)
        self.channels = np.array([c.channels for c in codecs] + [1], np.int64)
        self.frame_bytes = np.array([c.frame_bytes for c in codecs] + [1], np.int64)

    def prepare(
        self, payload: U8, begin: I64, packet_codec: npt.NDArray[np.int16], stream_codec: npt.NDArray[np.int16]
    ) -> tuple[Callable[[], npt.NDArray[np.int16]], U8, I64]:
        """(decode, payload, begin): ``decode()`` gives all samples; the payload is transcoded where a packet's codec
        is not its stream's (PCMU/PCMA switches), so that who keeps encoded bytes keeps one encoding a stream."""
        first = int(packet_codec[0])
        if (packet_codec == first).all() and (stream_codec == first).all():
            codec = self.codecs[first]
            return (lambda: decode(codec, payload)), payload, begin
        length = np.diff(begin)
        values = length // self.frame_bytes[packet_codec] * self.channels[packet_codec]
        ends = np.cumsum(values)
        samples = np.empty(int(ends[-1]), np.int16)
        for index in np.unique(packet_codec).tolist():
            members = packet_codec == index
            samples[np.repeat(members, values)] = decode(self.codecs[index], payload[np.repeat(members, length)])
        if (packet_codec != stream_codec).any():
            length = values * self.frame_bytes[stream_codec] // self.channels[stream_codec]
            payload = np.empty(int(length.sum()), np.uint8)
            for index in np.unique(stream_codec).tolist():
                members = stream_codec == index
                payload[np.repeat(members, length)] = encode(self.codecs[index], samples[np.repeat(members, values)])
            begin = np.append(0, np.cumsum(length))
        return (lambda: samples), payload, begin
