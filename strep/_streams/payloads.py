"""From ring slots to bytes end to end, and to samples. Floor 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._codecs import decode, encode
from .._types import Codec
from .packed_audio import PackedAudio, PackedPacket
from .ring import JitterRing
from .timeline import Placed

__all__ = ["Decoder", "Whose", "gather"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


def gather(ring: JitterRing, placed: Placed, frame_bytes: I64, whole: npt.NDArray[np.bool_] | None) -> tuple[U8, I64]:
    """The payloads of placed packets end to end, uint8, and where each begins, int64 (p+1,).

    Trimmed frames are left out, but of the packets that are ``whole`` (None: none), which a decoder needs entire."""
    bytes_a_frame = frame_bytes.take(placed.codec)
    length = placed.frames * bytes_a_frame
    skip = None if placed.trim is None else placed.trim * bytes_a_frame
    if whole is not None:
        length = np.where(whole, placed.length, length)
        skip = None if skip is None else np.where(whole, 0, skip)
    begin = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=begin[1:])
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
    distinct = np.bincount(length).nonzero()[0]
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


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose packets these are, columns (p,): what a decoder that keeps state must know beside the packets."""

    stream_codec: npt.NDArray[np.int16]
    serial: I64
    epoch: I64  # changes with the source
    lost: I64  # frames missing directly before the packet, at the stream's rate


Decoded = tuple[npt.NDArray[np.int16], dict[int, npt.NDArray[np.int16]]]


class Decoder:
    """Makes int16 samples and the payload in the stream's own codec from packets that may mix codecs."""

    def __init__(self, codecs: Sequence[Codec]) -> None:
        self.codecs = tuple(codecs)
        self.channels = np.array([c.channels for c in codecs] + [1], np.int64)
        self.frame_bytes = np.array([c.frame_bytes for c in codecs] + [1], np.int64)
        self._packed = np.array([c.packed for c in codecs] + [False])
        self._rate = np.array([c.sample_rate for c in codecs] + [0], np.int64)
        self.audio = PackedAudio(codecs)

    def careful(self, packet: npt.NDArray[np.int16], stream: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
        """Which packets need a decoder of their stream's: packed ones, and those of another rate or other channels."""
        needed: npt.NDArray[np.bool_] = self._packed.take(packet)
        for column in (self._rate, self.channels):
            needed = needed | (column.take(packet) != column.take(stream))
        return needed

    def is_plain(self, packet_codec: npt.NDArray[np.int16], stream_codec: npt.NDArray[np.int16]) -> bool:
        """All of one codec that numpy decodes: the usual case."""
        first = int(packet_codec[0])
        return not self._packed[first] and bool((packet_codec == first).all() and (stream_codec == first).all())

    def plain(self, codec: int, payload: U8) -> Callable[[], npt.NDArray[np.int16]]:
        one = self.codecs[codec]
        return lambda: decode(one, payload)

    def mixed(
        self, payload: U8, begin: I64, packet_codec: npt.NDArray[np.int16], stream_codec: npt.NDArray[np.int16]
    ) -> tuple[npt.NDArray[np.int16], U8, I64]:
        """(samples, payload, begin); the payload is transcoded where a packet's codec is not its stream's (PCMU/PCMA
        switches), so that who keeps encoded bytes keeps one encoding a stream."""
        length = np.diff(begin)
        values = length // self.frame_bytes[packet_codec] * self.channels[packet_codec]
        ends = np.cumsum(values)
        samples = np.empty(int(ends[-1]), np.int16)
        for index in np.unique(packet_codec).tolist():
            members = packet_codec == index
            samples[np.repeat(members, values)] = decode(self.codecs[index], payload[np.repeat(members, length)])
        other = packet_codec != stream_codec
        if other.any():
            came, before = payload, length
            length = values * self.frame_bytes[stream_codec] // self.channels[stream_codec]
            payload = np.empty(int(length.sum()), np.uint8)
            payload[np.repeat(~other, length)] = came[np.repeat(~other, before)]
            for index in np.unique(stream_codec[other]).tolist():
                members = other & (stream_codec == index)
                payload[np.repeat(members, length)] = encode(self.codecs[index], samples[np.repeat(members, values)])
            begin = np.append(0, np.cumsum(length))
        return samples, payload, begin

    def decode_all(
        self, payload: U8, begin: I64, placed: Placed, whose: Whose, careful: npt.NDArray[np.bool_]
    ) -> Decoded:
        """All samples, and by packet what decoders put in place of the frames lost before it. In order, once."""
        values = placed.frames * self.channels[whose.stream_codec]
        offset = np.append(0, np.cumsum(values))
        samples = np.empty(int(offset[-1]), np.int16)
        filled: dict[int, npt.NDArray[np.int16]] = {}
        easy = np.flatnonzero(~careful)
        for index in np.unique(placed.codec[easy]).tolist():
            members = np.zeros(len(careful), np.bool_)
            members[easy] = placed.codec[easy] == index
            mine = payload[np.repeat(members, np.diff(begin))]
            samples[np.repeat(members, values)] = decode(self.codecs[index], mine)
        trim = np.zeros(len(careful), np.int64) if placed.trim is None else placed.trim
        for i in np.flatnonzero(careful).tolist():
            stream_codec = int(whose.stream_codec[i])
            packet = PackedPacket(
                int(whose.serial[i]),
                int(whose.epoch[i]),
                int(placed.codec[i]),
                payload[begin[i] : begin[i + 1]].tobytes(),
                int(placed.own_frames[i]),
                int(placed.frames[i]),
                int(trim[i]),
                int(whose.lost[i]),
                int(self._rate[stream_codec]),
                int(self.channels[stream_codec]),
            )
            samples[offset[i] : offset[i + 1]], concealed = self.audio.decode(packet)
            if concealed is not None and concealed.size:
                filled[i] = concealed
        return samples, filled
