"""Audio of packed codecs, and of packets whose codec is not their stream's: each stream has a decoder of its own.

Decoders keep state from packet to packet: batches must come in order, each once. A decoder is replaced when the source
or the codec changes, and where packets were decoded without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._model.types import Codec
from ..resample import Resampler
from .decoder import Decoder, make_decoder
from .g711 import decode

__all__ = ["PackedPacket", "StreamDecoders"]

I16 = npt.NDArray[np.int16]


@dataclass(slots=True, kw_only=True)
class PackedPacket:
    """A packet to decode. Frames are sample frames at the stream's rate, where nothing else is said."""

    serial: int  # of the stream
    epoch: int  # changes with the source: then another decoder is made
    codec: int  # its index
    payload: bytes
    own_frames: int  # that the payload stands for, at the codec's rate
    frames: int  # that are wanted of it
    trim: int  # left out at its start
    position: int  # of the first wanted frame in the stream
    gap: int  # frames missing directly before it
    lost: int  # those of them that a decoder may make up for
    rate: int  # of the stream, Hz
    channels: int  # of the stream


class _StreamDecoder:
    """One stream's decoder for the codec that it has now, and a resampler if its rate is not the stream's.

    Raises what making a decoder raises.
    """

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
            # The filter waits for some input. That much silence stands before the first packet, once, so that each
            # packet gives all its frames.
            self._ready = np.zeros(
                (-(-self._resampler.lookahead * rate // codec.sample_rate), codec.channels), np.int16
            )

    def goes_on(self, packet: PackedPacket) -> bool:
        """Whether this packet follows directly on the last one that was decoded here."""
        same = packet.codec == self._index and packet.epoch == self._epoch
        return same and packet.position - packet.gap == self._end

    def take(self, packet: PackedPacket, fresh: bool) -> tuple[I16, I16 | None]:
        """Frames of the packet before trimming, int16 (frames, channels of the codec), and what conceals the loss
        before it, of the same shape. A ``fresh`` decoder has nothing to conceal with: None."""
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


class StreamDecoders:
    """The decoders of all streams that need one."""

    def __init__(self, codecs: Sequence[Codec]) -> None:
        self._codecs = tuple(codecs)
        self._decoders: dict[int, _StreamDecoder] = {}  # by serial

    def forget(self, serial: int) -> None:
        """A stream has ended, or its decoder is of no use any more."""
        self._decoders.pop(serial, None)

    def decode(self, packet: PackedPacket) -> tuple[I16, I16 | None]:
        """int16 (frames * channels,) of the stream, and what the decoder puts in place of the frames lost before.

        Raises what the decoder raises: then forget the stream, so that it begins anew.
        """
        decoder = self._decoders.get(packet.serial)
        fresh = decoder is None or not decoder.goes_on(packet)
        if decoder is None or fresh:
            decoder = self._decoders[packet.serial] = _StreamDecoder(self._codecs[packet.codec], packet)
        samples, concealed = decoder.take(packet, fresh)
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
