"""The nouns of the project: legs and directions, codecs, streams, gaps, events, kinds of datagrams."""

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
        """The letter: a or b."""
        return "ab"[self]


class Direction(enum.IntEnum):
    """STREP's D bit: what the platform received (inbound, ``rx``) or transmitted (outbound, ``tx``)."""

    INBOUND = 0
    OUTBOUND = 1

    @property
    def label(self) -> str:
        """inbound or outbound, as reports have it."""
        return ("inbound", "outbound")[self]


@dataclass(frozen=True, slots=True)
class Codec:
    """How payload bytes become samples.

    Plain codecs (G.711, L16) have ``frame_bytes``: payload bytes of a sample frame, that is one sample of each channel.
    Packed codecs have 0 there: a decoder must say how many samples a payload has.
    """

    name: str  # RTP encoding name, spelled as it is registered: PCMU, G722, opus
    clock_rate: int  # RTP timestamp units per second
    sample_rate: int  # audio sample frames per second
    channels: int
    frame_bytes: int
    parameters: str = ""  # what matters of SDP's fmtp line: "octet-align=1" of AMR

    @property
    def packed(self) -> bool:
        """Whether payloads need a decoder to tell their samples."""
        return not self.frame_bytes

    def __str__(self) -> str:
        text = f"{self.name}/{self.clock_rate}"
        text = text if self.channels == 1 else f"{text}/{self.channels}"
        return f"{text};{self.parameters}" if self.parameters else text


@dataclass(slots=True, eq=False)
class StreamInfo:
    """Which stream it is: one object for each admitted stream, shared by the engine, sinks and users.

    Most fields are set once, when the stream is admitted. The thread of the engine changes these later:

    ``codec, origin_ns``  once, before the first block is delivered; until then, that is until the first packet of a
                          payload type that is decoded here, ``codec`` is None (the outlet)
    ``codec_guessed``     to True, when an unnamed payload type is guessed (the sorter)
    ``encrypted``         to True, at admission or later (sources, the sorter)
    ``clock_rate``        once or more, when a sender's clock is found to be another than the codec's (the outlet)
    ``ssrcs, notes``      grow, up to a bound (sources, the sorter, ``Notice.noted``)

    If the engine is in a worker process, the parent fills a copy in before anybody sees it. Other threads, such as
    those of sinks, only read. A single field is always whole; of the lists, take a copy before you go through them.
    """

    index: int  # row in the engine's arrays while the stream lives; rows are reused
    serial: int  # unique within a run: counts admissions from 0
    call_leg_id: uuid.UUID | None
    leg: Leg
    direction: Direction
    name: str  # safe as a directory's name: the UUID's text, or "rtp-<port>-<ssrc as 8 hex digits>"
    leg_name: str  # as name, but the same for both directions of a leg: an unnamed rx/tx pair has that of its first one
    stem: str  # of file names: "a-inbound" …; "inbound"/"outbound" for plain RTP of known direction without a name
    local_port: int
    ssrc: int  # of the first source
    source: tuple[str, int]  # address and port the first packet came from
    payload_type: int  # of the first packet
    first_arrival_ns: int  # of the first packet, UTC nanoseconds
    origin_ns: int  # when sample 0 arrived, UTC nanoseconds: an estimate, the minimum over the probation packets
    codec: Codec | None = None
    ssrcs: list[int] = field(default_factory=list)  # of all sources so far, the first one's first
    codec_guessed: bool = False  # nobody said what the payload type is: the codec is a guess
    encrypted: bool = False  # looks like SRTP: not decoded
    clock_rate: int = 0  # of the sender's RTP clock, measured in Hz; 0: the codec's
    notes: list[str] = field(default_factory=list)  # what a user should know of the stream, a sentence each

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
        """The same for both directions of one call leg, and for no other leg."""
        return self.leg_name, self.leg


class Mask(enum.IntEnum):
    """Where a sample comes from. In arrays: uint8."""

    LOST = 0  # nothing is known of it: it is zero
    RECEIVED = 1
    CONCEALED = 2  # made up from what stands around it, or by the decoder (PLC, FEC)
    SILENCE = 3  # the sender suppressed it (DTX): comfort noise, or zero

    @property
    def label(self) -> str:
        """The name in lower case, as reports have it."""
        return self.name.lower()


class GapCause(enum.IntEnum):
    """Why samples are missing."""

    NONE = 0
    LOSS = 1  # sequence numbers are missing: lost on the network (or not forked: tx DTMF, comfort noise)
    SILENCE = 2  # the timestamp advanced, the sequence did not skip: silence suppression (DTX)
    HOLD = 3  # like SILENCE or RESTART, but 2 s or longer: hold, re-INVITE
    RESTART = 4  # SSRC change, sequence restart or timestamp jump: length from arrival times
    OVERRUN = 5  # dropped here: a consumer was too slow, or a bound was reached

    @property
    def label(self) -> str:
        """The name in lower case, as reports have it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Gap:
    """Missing samples: how many per channel, and why."""

    samples: int
    cause: GapCause


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Something that happened in a stream. The engine (telephone-events) or an analyzer tells it, once.

    ``kind``        what: "dtmf", "speech", "tone", "dead_air", ...
    ``position``    where it began on the stream's timeline, in sample frames
    ``time_ns``     when it began, in nanoseconds of UTC on the receiver's clock
    ``duration_s``  how long it lasted, in seconds; 0 if it has no duration or still goes on
    ``data``        more about it, ready for JSON
    """

    stream: StreamInfo
    kind: str
    position: int
    time_ns: int
    duration_s: float
    data: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints of it."""
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


class DatagramKind(enum.IntEnum):
    """What a datagram is, by its first bits and magic cookies (STREP; RFC 7983; RFC 5761)."""

    STREP = 0
    RTP = 1
    RTCP = 2
    SIP = 3
    T38 = 4  # T.38 UDPTL: first two bits 00, and none of those below
    DTLS = 5
    OTHER = 6
    STUN = 7  # also TURN; by its magic cookie (RFC 8489 section 5)
    ZRTP = 8  # by its magic cookie (RFC 6189 section 5)
    KEEPALIVE = 9  # empty, or up to four of CR, LF and NUL (RFC 5626 section 3.5.1, RFC 6263 section 4)

    @property
    def label(self) -> str:
        """The name in lower case, as reports have it."""
        return self.name.lower()
