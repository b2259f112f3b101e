"""What the packets of simulated streams hold, and what a decoder makes of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._codecs.decoder import make_decoder
from .._codecs.encoder import make_encoder
from .._codecs.g711 import decode, encode
from .._model.types import Codec
from .dtmf import EVENT_BYTES, TELEPHONE_EVENT, KeyPress, event_payload

__all__ = ["Packets", "decode_packets", "encode_stream", "uniform"]

Bools = npt.NDArray[np.bool_]
I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


@dataclass(slots=True)
class Packets:
    """Arrays (streams, packets): ``length`` int64 of the payload, ``payload_type`` uint8, ``timestamp`` int64 in RTP
    units since the stream's first packet, ``marker`` bool; ``payload`` uint8 (streams, packets, bytes), zeros behind
    each one's length."""

    payload: U8
    length: I64
    payload_type: U8
    timestamp: I64
    marker: Bools

    def press(self, streams: Sequence[int], keys: Sequence[KeyPress], units: int) -> None:
        """Put telephone-events in the place of audio (RFC 4733 2.5.1): one timestamp, the marker on the first."""
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
    """Payloads of a stream's samples (channels interleaved): uint8 (packets, bytes), or bytes of a packed codec."""
    if not codec.packed:
        return encode(codec, samples).reshape(packets, -1)
    encoder = make_encoder(codec, samples.size // packets // codec.channels)
    return [encoder.encode(part) for part in samples.reshape(packets, -1)]


def decode_packets(codec: Codec, payload: U8, length: I64, audible: Bools, sent: Bools, values: int) -> I16:
    """What a receiver makes of a stream's packets, int16 (packets * values,); zeros for what is no audio.

    Packed codecs: what one decoder makes of those that were ``sent``, in order, told of the others before each; packets
    that were not sent are zeros. Others are decoded whether sent or not.
    """
    if not codec.packed:
        samples = decode(codec, np.ascontiguousarray(payload).reshape(-1)).reshape(len(payload), values)
        return (samples * audible[:, None]).astype(np.int16).reshape(-1)
    decoder = make_decoder(codec)
    out = np.zeros((len(payload), values), np.int16)
    frames = values // codec.channels
    before = None
    for number in np.flatnonzero(audible & sent).tolist():
        lost = 0 if before is None else (number - before - 1) * frames
        out[number], _ = decoder.decode(payload[number, : length[number]].tobytes(), frames, lost)
        before = number
    return out.reshape(-1)
