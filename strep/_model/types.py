"""The nouns of the project: legs, directions, kinds of datagrams, gaps, codecs, streams."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Codec", "DatagramKind", "Direction", "Gap", "GapCause", "Leg", "Mask", "StreamEvent", "StreamInfo"]


class Leg(enum.IntEnum):
    """STREP's L bit."""

    A = 0
    B = 1

    @property
    def label(self) -> str:
        """ "a" or "b"."""
        return "ab"[self]


class Direction(enum.IntEnum):
    """STREP's D bit: what the platform received (inbound, ``rx``) or transmitted (outbound, ``tx``)."""

    INBOUND = 0
    OUTBOUND = 1

    @property
    def label(self) -> str:
        """ "inbound" or "outbound"."""
        return ("inbound", "outbound")[self]


class DatagramKind(enum.IntEnum):
    """What a datagram is by its first bits and magic cookies (STREP; RFC 7983; RFC 5761)."""

    STREP = 0
    RTP = 1
    RTCP = 2
    SIP = 3
    T38 = 4  # T.38 UDPTL: first two bits 00, and none of those below
    DTLS = 5
    OTHER = 6
    STUN = 7  # also TURN; by its magic cookie (RFC 8489 section 5)
    ZRTP = 8  # by its magic cookie (RFC 6189 section 5)
    KEEPALIVE = 9  # nothing, or up to four of CR, LF and NUL (RFC 5626 section 3.5.1, RFC 6263 section 4)

    @property
    def label(self) -> str:
        """The name in lower case, as reports have it."""
        return self.name.lower()


class GapCause(enum.IntEnum):
    """Why samples never came."""

    NONE = 0
    LOSS = 1  # sequence numbers are missing: lost on the network (or not forked: tx DTMF, comfort noise)
    SILENCE = 2  # the timestamp advanced, the sequence did not skip: silence suppression (DTX)
    HOLD = 3  # as SILENCE or RESTART, but 2 s or longer: hold, re-INVITE
    RESTART = 4  # SSRC change, sequence restart or timestamp jump: length from arrival times
    OVERRUN = 5  # our own drop: a consumer was too slow, or a bound was reached

    @property
    def label(self) -> str:
        """The name in lower case, as reports have it."""
        return self.name.lower()


class Mask(enum.IntEnum):
    """Where a sample comes from."""

    LOST = 0  # nothing is known of it: zero
    RECEIVED = 1
    CONCEALED = 2  # made up from what stands around it, or by the decoder (PLC, FEC)
    SILENCE = 3  # the sender suppressed it (DTX): comfort noise, or zero

    @property
    def label(self) -> str:
        """The name in lower case."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Gap:
    """Samples that never came: ``samples`` per channel, and why."""

    samples: int
    cause: GapCause


@dataclass(frozen=True, slots=True)
class Codec:
    """How payload bytes become samples.

    ``frame_bytes`` is the payload bytes of one sample frame (all channels); 0: a packed codec, whose payloads need a
    decoder to tell their samples. ``parameters`` is what of SDP's fmtp line matters: "octet-align=1" of AMR.
    """

    name: str  # RTP encoding name as it is registered: PCMU, PCMA, L16, G722, G729, opus, AMR, AMR-WB, GSM, iLBC
    clock_rate: int  # RTP timestamp units per second
    sample_rate: int  # audio sample frames per second
    channels: int
    frame_bytes: int
    parameters: str = ""

    @property
    def packed(self) -> bool:
        """Whether payloads are frames of a codec with state, of no fixed size for each sample frame."""
        return not self.frame_bytes

    def __str__(self) -> str:
        text = f"{self.name}/{self.clock_rate}"
        text = text if self.channels == 1 else f"{text}/{self.channels}"
        return f"{text};{self.parameters}" if self.parameters else text


@dataclass(slots=True, eq=False)
class StreamInfo:
    """Who a stream is. One per admitted stream, shared by the engine, sinks and users.

    ``index`` is the stream's row in the engine's arrays while it lives (rows are reused after a stream ended);
    ``serial`` is unique within a run and counts admissions from 0. ``codec`` is None until the first packet of a
    known payload type; it is set before the first block is delivered.
    """

    index: int
    serial: int
    call_leg_id: uuid.UUID | None
    leg: Leg
    direction: Direction
    name: str  # directory-safe: the UUID's text, or "rtp-<port>-<ssrc as 8 hex digits>"
    leg_name: str  # as name, but the same for both directions of a leg: an unnamed rx/tx pair shares its first one's
    stem: str  # "a-inbound" …; "inbound"/"outbound" for plain RTP of known direction without a name
    local_port: int
    ssrc: int  # of the first source
    source: tuple[str, int]  # address and port the first packet came from
    payload_type: int  # of the first packet
    first_arrival_ns: int  # first packet's arrival, UTC nanoseconds
    origin_ns: int  # estimated arrival of sample 0 (minimum over the probation packets)
    codec: Codec | None = None
    ssrcs: list[int] = field(default_factory=list)
    codec_guessed: bool = False  # nobody said what the payload type is
    encrypted: bool = False  # looks like SRTP: not decoded
    notes: list[str] = field(default_factory=list)  # what is worth knowing, a sentence each

    @property
    def sample_rate(self) -> int:
        """Sample frames per second of the blocks; 0 while the codec is unknown."""
        return self.codec.sample_rate if self.codec else 0

    @property
    def channels(self) -> int:
        """Channels of the blocks; 1 while the codec is unknown."""
        return self.codec.channels if self.codec else 1

    @property
    def pair(self) -> tuple[str, Leg]:
        """What two directions of one call leg have in common."""
        return self.leg_name, self.leg


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Something that happened in a stream, told once: by the engine (telephone-events) or by an analyzer.

    ``kind``        what: "dtmf", "speech", "tone", "dead_air", ...
    ``position``    where it began on the stream's timeline, in sample frames
    ``time_ns``     when it began, UTC nanoseconds on the receiver's clock
    ``duration_s``  how long it was, 0 for what has no duration or still goes on
    ``data``        more of it, JSON-ready
    """

    stream: StreamInfo
    kind: str
    position: int
    time_ns: int
    duration_s: float
    data: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        stream = self.stream
        return {
            "event": self.kind,
            "call_leg_id": str(stream.call_leg_id) if stream.call_leg_id else None,
            "name": stream.name,
            "leg": stream.leg.label,
            "direction": stream.direction.label,
            "position_s": round(self.position / stream.sample_rate, 4) if stream.sample_rate else 0.0,
            "time_ns": self.time_ns,
            "duration_s": round(self.duration_s, 4),
            **self.data,
        }
