"""The truth about a simulated stream: what was sent, and what a perfect receiver makes of it. Pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .._model.types import Codec, Direction, Leg
from .dtmf import KeyPress
from .packets import decode_packets

__all__ = ["StreamTruth"]

I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


@dataclass(slots=True)
class StreamTruth:
    """What a perfect receiver finds of one stream."""

    call_leg_id: uuid.UUID
    leg: Leg
    direction: Direction
    ssrc: int
    first_sequence: int  # sequence number of packet 0; it wraps
    sent: npt.NDArray[np.bool_]  # per packet: whether it was sent at all
    duplicates: int
    frames_a_packet: int  # values: sample frames times channels
    codec: Codec
    payloads: U8  # (packets, bytes)
    lengths: I64  # (packets,)
    reordered: int = 0  # packets that were sent after one of a higher sequence number
    first_timestamp: int = 0  # RTP timestamp of packet 0; it wraps
    keys: tuple[KeyPress, ...] = ()  # that were pressed (telephone-events)
    _samples: I16 | None = field(default=None, repr=False)

    @property
    def samples(self) -> I16:
        """Decoded, of all packets, int16 (packets * frames_a_packet,); zeros where events took the place of audio.

        Packed codecs: what the decoder makes of the packets that were sent, in order; the others are zeros.
        """
        if self._samples is None:
            audible = self.audible
            self._samples = decode_packets(
                self.codec, self.payloads, self.lengths, audible, self.sent, self.frames_a_packet
            )
        return self._samples

    @property
    def audible(self) -> npt.NDArray[np.bool_]:
        """Per packet: whether it is audio, sent or not; the others are telephone-events."""
        audible = np.ones(len(self.sent), np.bool_)
        for key in self.keys:
            audible[key.first : key.first + key.packets] = False
        return audible

    @property
    def key(self) -> tuple[uuid.UUID, Leg, Direction]:
        """What a STREP receiver tells streams apart by."""
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
        """Samples from the first to the last packet that was sent; lost packets are silence."""
        there = np.flatnonzero(self.sent)
        if not there.size:
            return self.samples[:0]
        samples = self.samples.reshape(-1, self.frames_a_packet) * self.sent[:, None]
        return samples[there[0] : there[-1] + 1].reshape(-1).astype(np.int16)
