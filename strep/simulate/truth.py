"""The truth about a simulated stream: what was sent, and what a perfect receiver makes of it. Pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .._codecs.decoder import make_decoder
from .._codecs.g711 import decode
from .._model.types import Codec, Direction, Leg
from .dtmf import KeyPress

__all__ = ["StreamTruth"]

I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
U8 = npt.NDArray[np.uint8]


@dataclass(slots=True)
class StreamTruth:
    """What a perfect receiver finds of one stream. ``ssrc``, ``codec`` and so on as in its packets."""

    call_leg_id: uuid.UUID
    leg: Leg
    direction: Direction
    ssrc: int
    first_sequence: int  # sequence number of packet 0; sequence numbers wrap
    sent: Bools  # (packets,): whether each was sent at all
    duplicates: int  # packets that were sent twice
    frames_a_packet: int  # values, int16: sample frames times channels
    codec: Codec
    payloads: U8  # (packets, bytes), zeros behind each one's length
    lengths: I64  # (packets,), bytes
    reordered: int = 0  # packets that were sent after one of a higher sequence number
    first_timestamp: int = 0  # RTP timestamp of packet 0; timestamps wrap
    keys: tuple[KeyPress, ...] = ()  # pressed in the stream (telephone-events)
    _samples: I16 | None = field(default=None, repr=False)

    @property
    def samples(self) -> I16:
        """Decoded, of all packets, int16 (packets * frames_a_packet,); zeros where events replace audio.

        Packed codecs: what the decoder makes of the packets that were sent, in order; the others are zeros.
        """
        if self._samples is None:
            audible = self.audible
            self._samples = _decode(self.codec, self.payloads, self.lengths, audible, self.sent, self.frames_a_packet)
        return self._samples

    @property
    def audible(self) -> Bools:
        """bool (packets,): which packets are audio, sent or not; the others are telephone-events."""
        audible = np.ones(len(self.sent), np.bool_)
        for key in self.keys:
            audible[key.first : key.first + key.packets] = False
        return audible

    @property
    def key(self) -> tuple[uuid.UUID, Leg, Direction]:
        """By what a STREP receiver distinguishes streams."""
        return self.call_leg_id, self.leg, self.direction

    @property
    def packets(self) -> int:
        """Packets that were sent, copies not counted."""
        return int(self.sent.sum())

    @property
    def expected(self) -> int:
        """Sequence numbers between the first and the last that were sent (RFC 3550 A.3)."""
        there = np.flatnonzero(self.sent)
        return int(there[-1] - there[0] + 1) if there.size else 0

    @property
    def lost(self) -> int:
        """Sequence numbers between the first and the last that were not sent."""
        return self.expected - self.packets

    @property
    def rfc3550_lost(self) -> int:
        """Expected minus received with copies: may be negative (RFC 3550 section 6.4.1)."""
        return self.lost - self.duplicates

    def audio(self) -> I16:
        """Samples from the first to the last packet that was sent, int16; lost packets are zeros."""
        there = np.flatnonzero(self.sent)
        if not there.size:
            return self.samples[:0]
        samples = self.samples.reshape(-1, self.frames_a_packet) * self.sent[:, None]
        return samples[there[0] : there[-1] + 1].reshape(-1).astype(np.int16)


def _decode(codec: Codec, payload: U8, length: I64, audible: Bools, sent: Bools, values: int) -> I16:
    """What a receiver makes of a stream's packets, int16 (packets * values,); zeros where a packet is no audio.

    Plain codecs: all packets are decoded, sent or not. Packed codecs: one decoder gets those that were ``sent``, in
    order, and is told what was lost before each; packets that were not sent are zeros.
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
