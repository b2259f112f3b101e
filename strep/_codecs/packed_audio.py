"""Audio of packed codecs, and of packets whose codec is not their stream's: a decoder a stream.

Who decodes here keeps state from packet to packet. Batches must come in order, each once. A decoder begins anew with
each source, with each change of codec, and where audio passed it by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._model.types import Codec
from ..resample import Resampler
from .decoders import Decoder, make_decoder
from .g711 import decode

__all__ = ["PackedAudio", "PackedPacket"]

I16 = npt.NDArray[np.int16]


@dataclass(slots=True)
class PackedPacket:
    """A packet to decode. ``epoch`` changes with the source: then the decoder begins anew.

    ``own_frames``  at the codec's rate · ``frames`` at the stream's rate, ``trim`` at the start left out
    ``position``    of the first frame in the stream · ``gap`` frames missing directly before it, ``lost`` those of them
                    that a decoder may make up for, all at the stream's rate
    """

    serial: int
    epoch: int
    codec: int
    payload: bytes
    own_frames: int
    frames: int
    trim: int
    position: int
    gap: int
    lost: int
    rate: int  # of the stream
    channels: int


class _Track:
    """One stream's decoder of the codec that it has now. Raises what making a decoder raises."""

    def __init__(self, codec: Codec, packet: PackedPacket) -> None:
        self.codec = codec
        self._index = packet.codec
        self._epoch = packet.epoch
        self._end = packet.position - packet.gap
        self._decoder: Decoder | None = make_decoder(codec) if codec.packed else None
        self._resampler: Resampler | None = None
        self._ready = np.zeros((0, codec.channels), np.int16)
        rate = packet.rate
        if rate != codec.sample_rate:
            self._resampler = Resampler(codec.sample_rate, rate, codec.channels)
            # what the filter waits for comes late by that much, once, so that each packet gives all its frames
            self._ready = np.zeros(
                (-(-self._resampler.lookahead * rate // codec.sample_rate), codec.channels), np.int16
            )

    def goes_on(self, packet: PackedPacket) -> bool:
        """Whether this packet is the next of what is decoded here."""
        same = packet.codec == self._index and packet.epoch == self._epoch
        return same and packet.position - packet.gap == self._end

    def take(self, packet: PackedPacket, fresh: bool) -> tuple[I16, I16 | None]:
        """Frames of the packet, shape (frames, channels) of the codec, before trimming; and what conceals the loss. A
        ``fresh`` decoder knows nothing that could."""
        self._end = packet.position + packet.frames
        codec = self.codec
        concealed = None
        if self._decoder is not None:
            lost = 0 if fresh else packet.lost * codec.sample_rate // packet.rate
            samples, concealed = self._decoder.decode(packet.payload, packet.own_frames, lost)
        else:
            whole = packet.own_frames * codec.frame_bytes  # the rest of the payload is no frame
            samples = decode(codec, np.frombuffer(packet.payload, np.uint8, whole))
        shaped = samples.reshape(-1, codec.channels)
        if self._resampler is None:
            return shaped, None if concealed is None else concealed.reshape(-1, codec.channels)
        # the concealment is left to the caller: it would have to go through the filter as well
        out = self._resampler.process(shaped if codec.channels > 1 else shaped[:, 0])
        self._ready = np.concatenate([self._ready, out.reshape(-1, codec.channels)])
        frames = packet.frames + packet.trim
        done, self._ready = self._ready[:frames], self._ready[frames:]
        return done, None


class PackedAudio:
    def __init__(self, codecs: Sequence[Codec]) -> None:
        self._codecs = tuple(codecs)
        self._tracks: dict[int, _Track] = {}  # by serial

    def forget(self, serial: int) -> None:
        """A stream has ended, or its decoder is of no use any more."""
        self._tracks.pop(serial, None)

    def decode(self, packet: PackedPacket) -> tuple[I16, I16 | None]:
        """int16 (frames * channels,) of the stream, and what the decoder puts in place of the frames lost before.

        Raises what the decoder raises: then forget the stream, so that it begins anew.
        """
        track = self._tracks.get(packet.serial)
        fresh = track is None or not track.goes_on(packet)
        if track is None or fresh:
            track = self._tracks[packet.serial] = _Track(self._codecs[packet.codec], packet)
        samples, concealed = track.take(packet, fresh)
        samples = _as_channels(samples[packet.trim : packet.trim + packet.frames], packet.channels)
        if len(samples) < packet.frames:
            samples = np.concatenate([samples, np.zeros((packet.frames - len(samples), packet.channels), np.int16)])
        filled = None if concealed is None else _as_channels(concealed, packet.channels).reshape(-1)
        return samples.reshape(-1), filled


def _as_channels(samples: I16, channels: int) -> I16:
    if samples.shape[1] == channels:
        return samples
    if channels == 1:
        mean: I16 = (samples.astype(np.int32).sum(axis=1) // samples.shape[1]).astype(np.int16)
        return mean[:, None]
    return np.repeat(samples[:, :1], channels, axis=1)
