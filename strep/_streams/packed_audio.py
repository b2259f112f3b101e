"""Audio of packed codecs, and of packets whose codec is not their stream's: a decoder a stream. Floor 2.

Who decodes here keeps state from packet to packet. Batches must come in order, each once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._codecs import decode
from .._exceptions import StrepError
from .._packed import Decoder, make_decoder
from .._types import Codec
from ..resample import Resampler

__all__ = ["PackedAudio", "PackedPacket"]

I16 = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class PackedPacket:
    """A packet to decode. ``epoch`` changes with the source: then the decoder begins anew.

    ``own_frames``  at the codec's rate · ``frames`` at the stream's rate, ``trim`` at the start left out
    ``lost``        frames at the stream's rate missing directly before
    """

    serial: int
    epoch: int
    codec: int
    payload: bytes
    own_frames: int
    frames: int
    trim: int
    lost: int
    rate: int  # of the stream
    channels: int


class _Track:
    """One stream's decoder of the codec that it has now."""

    def __init__(self, codec: Codec, index: int, epoch: int, rate: int) -> None:
        self.codec = codec
        self.index = index
        self.epoch = epoch
        self.decoder: Decoder | None = None
        self._mute = False
        if codec.packed:
            try:
                self.decoder = make_decoder(codec)
            except StrepError:
                self._mute = True  # a PyAV that was built without this codec
        self._resampler: Resampler | None = None
        self._ready = np.zeros((0, codec.channels), np.int16)
        if rate != codec.sample_rate:
            self._resampler = Resampler(codec.sample_rate, rate, codec.channels)
            # what the filter waits for comes late by that much, once, so that each packet gives all its frames
            self._ready = np.zeros(
                (-(-self._resampler.lookahead * rate // codec.sample_rate), codec.channels), np.int16
            )

    def take(self, packet: PackedPacket) -> tuple[I16, I16 | None]:
        """Frames of the packet, shape (frames, channels) of the codec, before trimming; and what conceals the loss."""
        lost = packet.lost * self.codec.sample_rate // packet.rate
        concealed = None
        if self.decoder is not None:
            samples, concealed = self.decoder.decode(packet.payload, packet.own_frames, lost)
        elif self._mute:
            samples = np.zeros(packet.own_frames * self.codec.channels, np.int16)
        else:
            samples = decode(self.codec, np.frombuffer(packet.payload, np.uint8))
        shaped = samples.reshape(-1, self.codec.channels)
        if self._resampler is None:
            return shaped, None if concealed is None else concealed.reshape(-1, self.codec.channels)
        # the concealment is left to the caller: it would have to go through the filter as well
        out = self._resampler.process(shaped if self.codec.channels > 1 else shaped[:, 0])
        self._ready = np.concatenate([self._ready, out.reshape(-1, self.codec.channels)])
        frames = packet.frames + packet.trim
        done, self._ready = self._ready[:frames], self._ready[frames:]
        return done, None


class PackedAudio:
    def __init__(self, codecs: Sequence[Codec]) -> None:
        self._codecs = tuple(codecs)
        self._tracks: dict[int, _Track] = {}  # by serial

    def forget(self, serial: int) -> None:
        self._tracks.pop(serial, None)

    def decode(self, packet: PackedPacket) -> tuple[I16, I16 | None]:
        """int16 (frames * channels,) of the stream, and what the decoder puts in place of the frames lost before."""
        track = self._tracks.get(packet.serial)
        if track is None or track.index != packet.codec or track.epoch != packet.epoch:
            codec = self._codecs[packet.codec]
            track = self._tracks[packet.serial] = _Track(codec, packet.codec, packet.epoch, packet.rate)
        samples, concealed = track.take(packet)
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
