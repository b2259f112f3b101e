"""What the packets of simulated streams hold: encoded audio, and key presses. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._codecs.encoder import make_encoder
from .._codecs.facts import CODECS, parse_codec
from .._codecs.g711 import encode
from .._model.types import Codec
from .dtmf import EVENT_BYTES, TELEPHONE_EVENT, KeyPress, event_payload

__all__ = ["Packets", "encode_stream", "uniform", "wire_codec"]

Bools = npt.NDArray[np.bool_]
I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


def wire_codec(codec: str | Codec) -> Codec:
    """The codec that is meant: as :func:`strep._codecs.facts.parse_codec`, but a bare "L16" is L16/16000.

    Raises ConfigurationError.
    """
    if isinstance(codec, Codec):
        return codec
    row = CODECS.get(codec.strip().upper())
    return parse_codec(row.simulated_as if row and row.simulated_as else codec)


@dataclass(slots=True)
class Packets:
    """What packets hold, shape (streams, packets).

    ``payload``       uint8 (streams, packets, bytes), zeros behind each one's length
    ``length``        int64, bytes of the payload
    ``payload_type``  uint8
    ``timestamp``     int64, RTP timestamp units since the stream's first packet
    ``marker``        bool
    """

    payload: U8
    length: I64
    payload_type: U8
    timestamp: I64
    marker: Bools

    def press(self, streams: Sequence[int], keys: Sequence[KeyPress], units: int) -> None:
        """Replace audio of these streams by telephone-events (RFC 4733 2.5.1): a key press has one timestamp, and its
        first packet the marker. ``units``: RTP timestamp units from packet to packet."""
        self.length, self.payload_type = self.length.copy(), self.payload_type.copy()
        self.timestamp, self.marker = self.timestamp.copy(), self.marker.copy()
        rows = np.asarray(streams)
        for key in keys:
            for packet in range(key.packets):
                at = key.first + packet
                data = np.frombuffer(event_payload(key, packet, units), np.uint8)
                self.payload[rows, at] = 0
                self.payload[rows, at, :EVENT_BYTES] = data
                self.length[rows, at] = EVENT_BYTES
                self.payload_type[rows, at] = TELEPHONE_EVENT
                self.timestamp[rows, at] = key.first * units
                self.marker[rows, at] = packet == 0


def uniform(payload: U8, length: I64 | int, payload_type: int, units: int) -> Packets:
    """Packets that follow each other every ``units`` RTP timestamp units; only the first has the marker."""
    shape = payload.shape[:2]
    return Packets(
        payload,
        np.broadcast_to(np.asarray(length, np.int64), shape),
        np.broadcast_to(np.uint8(payload_type), shape),
        np.broadcast_to(np.arange(shape[1], dtype=np.int64) * units, shape),
        np.broadcast_to(np.arange(shape[1]) == 0, shape),
    )


def encode_stream(codec: Codec, samples: I16, packets: int) -> list[bytes] | U8:
    """Payloads of a stream's int16 samples, channels interleaved: uint8 (packets, bytes), or of packed codecs a
    list."""
    if not codec.packed:
        return encode(codec, samples).reshape(packets, -1)
    encoder = make_encoder(codec, samples.size // packets // codec.channels)
    return [encoder.encode(part) for part in samples.reshape(packets, -1)]
