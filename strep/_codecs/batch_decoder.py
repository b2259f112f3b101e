"""From the payloads of many packets, end to end, to samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .._model.types import Codec
from .g711 import decode, transcode
from .packed_audio import PackedPacket, StreamDecoders

__all__ = ["AudioPackets", "BatchDecoder", "PacketContext", "PacketSamples"]

Bools = npt.NDArray[np.bool_]
I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


class AudioPackets(Protocol):
    """Packets with audio, columns (p,). Frames are at the stream's rate; ``own_frames`` are at the codec's."""

    @property
    def codec(self) -> npt.NDArray[np.int16]: ...
    @property
    def own_frames(self) -> I64: ...
    @property
    def frames(self) -> I64: ...
    @property
    def trim(self) -> I64 | None: ...


@dataclass(frozen=True, slots=True)
class PacketContext:
    """What a decoder that keeps state must know of packets beside their payloads, columns (p,). Frames are at the
    stream's rate."""

    stream_codec: npt.NDArray[np.int16]
    serial: I64  # of the stream
    epoch: I64  # changes with the source
    position: I64  # of a packet's first frame
    gap: I64  # frames missing directly before it
    lost: I64  # those of them that a decoder may make up for


@dataclass(frozen=True, slots=True)
class PacketSamples:
    """What was made of packets.

    ``samples``  int16, of all packets end to end, channels interleaved
    ``filled``   by packet: what its decoder puts in place of the frames lost before it, int16, channels interleaved
    ``failed``   by packet: what its decoding raised; its samples are zeros
    """

    samples: I16
    filled: dict[int, I16] = field(default_factory=dict)
    failed: dict[int, Exception] = field(default_factory=dict)


class BatchDecoder:
    """Makes int16 samples of many packets, which may be of different codecs. An exception costs the packet that it
    arose from, no other.

    Payloads come as ``payload`` uint8, end to end, and ``begin`` int64 (p+1,): where each begins.
    """

    def __init__(self, codecs: Sequence[Codec]) -> None:
        self.codecs = tuple(codecs)
        self.channels = np.array([c.channels for c in codecs] + [1], np.int64)
        self.frame_bytes = np.array([c.frame_bytes for c in codecs] + [1], np.int64)
        self._packed = np.array([c.packed for c in codecs] + [False])
        self._rate = np.array([c.sample_rate for c in codecs] + [0], np.int64)
        self.streams = StreamDecoders(codecs)

    def careful(self, packet: npt.NDArray[np.int16], stream: npt.NDArray[np.int16]) -> Bools:
        """Which packets need a decoder of their stream's: packed ones, and those of another rate or other channels."""
        needed: Bools = self._packed.take(packet)
        for column in (self._rate, self.channels):
            needed = needed | (column.take(packet) != column.take(stream))
        return needed

    def is_plain(self, packet_codec: npt.NDArray[np.int16], stream_codec: npt.NDArray[np.int16]) -> bool:
        """Whether all are of one codec that numpy decodes: the usual case."""
        first = int(packet_codec[0])
        return not self._packed[first] and bool((packet_codec == first).all() and (stream_codec == first).all())

    def decode_plain(self, codec: int, payload: U8, begin: I64) -> PacketSamples:
        """Samples of packets of one codec."""
        one = self.codecs[codec]
        try:
            return PacketSamples(decode(one, payload))
        except Exception:
            return self._one_by_one(one, payload, begin)

    def decode_mixed(self, payload: U8, begin: I64, placed: AudioPackets) -> PacketSamples:
        """Samples of packets that all are numpy's: none is careful."""
        values = placed.frames * self.channels[placed.codec]
        decoded = PacketSamples(np.empty(int(values.sum()), np.int16))
        self._decode_easy(payload, begin, placed.codec, values, np.ones(len(values), np.bool_), decoded)
        return decoded

    def decode_all(
        self, payload: U8, begin: I64, placed: AudioPackets, context: PacketContext, careful: Bools
    ) -> PacketSamples:
        """Samples of all packets. Decoders keep state: batches must come in order, each once."""
        values = placed.frames * self.channels[context.stream_codec]
        offset = np.append(0, np.cumsum(values))
        decoded = PacketSamples(np.empty(int(offset[-1]), np.int16))
        self._decode_easy(payload, begin, placed.codec, values, ~careful, decoded)
        trim = np.zeros(len(careful), np.int64) if placed.trim is None else placed.trim
        for i in np.flatnonzero(careful).tolist():
            stream_codec = int(context.stream_codec[i])
            packet = PackedPacket(
                serial=int(context.serial[i]),
                epoch=int(context.epoch[i]),
                codec=int(placed.codec[i]),
                payload=payload[begin[i] : begin[i + 1]].tobytes(),
                own_frames=int(placed.own_frames[i]),
                frames=int(placed.frames[i]),
                trim=int(trim[i]),
                position=int(context.position[i]),
                gap=int(context.gap[i]),
                lost=int(context.lost[i]),
                rate=int(self._rate[stream_codec]),
                channels=int(self.channels[stream_codec]),
            )
            try:
                decoded.samples[offset[i] : offset[i + 1]], concealed = self.streams.decode(packet)
            except Exception as error:
                decoded.samples[offset[i] : offset[i + 1]] = 0
                decoded.failed[i] = error
                self.streams.forget(packet.serial)  # nobody knows what state it is in
                continue
            if concealed is not None and concealed.size:
                decoded.filled[i] = concealed
        return decoded

    def _decode_easy(
        self, payload: U8, begin: I64, codec: npt.NDArray[np.int16], values: I64, easy: Bools, decoded: PacketSamples
    ) -> None:
        length = np.diff(begin)
        for index in np.unique(codec[easy]).tolist():
            members = easy & (codec == index)
            mine, where = payload[np.repeat(members, length)], np.repeat(members, values)
            one = self.codecs[index]
            try:
                decoded.samples[where] = decode(one, mine)
            except Exception:
                part = self._one_by_one(one, mine, np.append(0, np.cumsum(length[members])))
                decoded.samples[where] = part.samples
                which = np.flatnonzero(members).tolist()
                decoded.failed.update((which[i], error) for i, error in part.failed.items())

    @staticmethod
    def _one_by_one(codec: Codec, payload: U8, begin: I64) -> PacketSamples:
        """Packets of one codec, of which some cannot be decoded."""
        ends = begin // codec.frame_bytes * codec.channels
        decoded = PacketSamples(np.zeros(int(ends[-1]), np.int16))
        for i in range(len(begin) - 1):
            try:
                decoded.samples[ends[i] : ends[i + 1]] = decode(codec, payload[begin[i] : begin[i + 1]])
            except Exception as error:
                decoded.failed[i] = error
        return decoded

    def transcode(
        self, payload: U8, begin: I64, placed: AudioPackets, stream_codec: npt.NDArray[np.int16], careful: Bools
    ) -> tuple[U8, I64, Bools | None]:
        """(payload, begin, which packets are still not in their stream's codec; None: none).

        Where a sender switched between codecs that numpy knows (PCMU/PCMA), its payloads are put into its stream's
        codec, so that a sink that keeps encoded bytes has one encoding for each stream.
        """
        other = placed.codec != stream_codec
        if not other.any():
            return payload, begin, None
        chosen = other & ~careful & ~self._packed.take(stream_codec)
        if chosen.any():
            came, before = payload, np.diff(begin)
            length = np.where(chosen, placed.frames * self.frame_bytes.take(stream_codec), before)
            payload = np.empty(int(length.sum()), np.uint8)
            payload[np.repeat(~chosen, length)] = came[np.repeat(~chosen, before)]
            change = placed.codec.astype(np.int64) * len(self.codecs) + stream_codec
            for one in np.flatnonzero(np.bincount(change[chosen])).tolist():
                members = chosen & (change == one)
                index, target = divmod(one, len(self.codecs))
                mine = came[np.repeat(members, before)]
                payload[np.repeat(members, length)] = transcode(self.codecs[index], self.codecs[target], mine)
            begin = np.append(0, np.cumsum(length))
        left = other & ~chosen
        return payload, begin, left if left.any() else None
