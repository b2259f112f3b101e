"""Traffic as arrays: every packet of every call with its send time, and the truth about what was done to it. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from typing import Final

import numpy as np
import numpy.typing as npt

from .._codecs.facts import FORMATS, is_packed
from .._codecs.g711 import parse_codec
from .._model.datagrams import DatagramBatch
from .._model.exceptions import ConfigurationError
from .._model.types import Codec, Direction, Leg
from .._parser import write_headers
from .dtmf import EVENT_BYTES, TELEPHONE_EVENT, KeyPress, plan_keys
from .impair import Impairments, impair
from .packets import Packets, decode_packets, encode_stream, uniform

__all__ = ["Impairments", "StreamTruth", "Traffic", "make_traffic", "wire_codec"]

I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

_LARGEST_UDP: Final = 65_507
_HEADERS: Final = 36  # STREP and RTP
_MASK_64: Final = 0xFFFF_FFFF_FFFF_FFFF
_DRIFT_MOST_PPM: Final = 100_000
_BEGINNINGS: Final = 8  # places of the dialogue where calls of a packed codec begin: encoding is slow


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


@dataclass(slots=True)
class Traffic:
    """Datagrams in order of sending. Columns int64 (n,): ``time_ns`` since the start, ``stream``, ``number`` (of the
    packet in its stream). Per stream: ``truth``, and what its packets hold. ``payload_type`` is that of the audio."""

    time_ns: I64
    stream: I64
    number: I64
    truth: list[StreamTruth]
    packets: Packets
    payload_type: int
    codec: Codec
    frames_a_packet: int  # RTP timestamp units between two packets of a stream
    first_timestamp: I64
    _hi: U64 = field(init=False)
    _lo: U64 = field(init=False)
    _columns: I64 = field(init=False)  # per stream: leg, direction, ssrc, first sequence number

    def __post_init__(self) -> None:
        self._hi = np.array([t.call_leg_id.int >> 64 for t in self.truth], np.uint64)
        self._lo = np.array([t.call_leg_id.int & _MASK_64 for t in self.truth], np.uint64)
        self._columns = np.array([(t.leg, t.direction, t.ssrc, t.first_sequence) for t in self.truth], np.int64).T

    def __len__(self) -> int:
        return len(self.time_ns)

    def direction(self, rows: slice | I64) -> I64:
        """0 inbound, 1 outbound, of each of the rows."""
        directions: I64 = self._columns[1][self.stream[rows]]
        return directions

    def lengths(self, rows: slice | I64, *, strep: bool) -> I64:
        """How long each of these datagrams is, int64 (k,)."""
        lengths: I64 = self.packets.length[self.stream[rows], self.number[rows]]
        return lengths + (_HEADERS if strep else 12)

    def datagrams(self, rows: slice | I64, *, strep: bool) -> U8:
        """The datagrams of some rows, uint8 (k, length of the longest there may be): see :meth:`lengths`."""
        stream, number = self.stream[rows], self.number[rows]
        packets = self.packets
        slab = np.empty((len(stream), (_HEADERS if strep else 12) + packets.payload.shape[2]), np.uint8)
        leg, direction, ssrc, first_sequence = self._columns[:, stream]
        header = write_headers(
            slab,
            strep=strep,
            call_leg_hi=self._hi[stream],
            call_leg_lo=self._lo[stream],
            leg=leg,
            direction=direction,
            payload_type=packets.payload_type[stream, number],
            sequence_number=(first_sequence + number) & 0xFFFF,
            rtp_timestamp=(self.first_timestamp[stream] + packets.timestamp[stream, number]) & 0xFFFF_FFFF,
            ssrc=ssrc,
            marker=packets.marker[stream, number],
        )
        slab[:, header:] = packets.payload[stream, number]
        return slab

    def batches(
        self, *, strep: bool = True, rx_port: int = 9000, tx_port: int | None = None, start_ns: int | None = None
    ) -> Iterator[DatagramBatch]:
        """What a socket would give of this traffic, arriving exactly when it is sent. See :func:`.recorded.batches`."""
        from .recorded import START_NS, batches

        return batches(
            self,
            strep=strep,
            rx_port=rx_port,
            tx_port=rx_port if tx_port is None else tx_port,
            start_ns=START_NS if start_ns is None else start_ns,
        )

    def write_pcap(
        self,
        path: str | PathLike[str],
        *,
        strep: bool = True,
        rx_port: int = 9000,
        tx_port: int | None = None,
        start_ns: int | None = None,
    ) -> int:
        """Write :meth:`batches` as a pcap file; returns how many datagrams it holds."""
        from .recorded import write_pcap

        return write_pcap(self.batches(strep=strep, rx_port=rx_port, tx_port=tx_port, start_ns=start_ns), path)


def wire_codec(codec: str | Codec) -> Codec:
    """The codec that is meant: as :func:`strep._codecs.g711.parse_codec`, but a bare "L16" is L16/16000.

    Raises ConfigurationError.
    """
    if isinstance(codec, Codec):
        return codec
    return parse_codec("L16/16000" if codec.strip().upper() == "L16" else codec)


def make_traffic(
    *,
    calls: int = 3,
    duration_s: float = 6.0,
    codec: str | Codec = "PCMU",
    payload_type: int | None = None,
    ptime_ms: float = 20,
    voices: tuple[I16, I16] | None = None,
    impairments: Impairments | None = None,
    drift_ppm: float = 0.0,
    in_phase: bool = False,
    legs: str = "a",
    dtmf: str = "",
    dtmf_at_s: float = 1.0,
    seed: int | None = None,
) -> Traffic:
    """Two-way calls with random sequence numbers, timestamps, SSRCs and call_leg_ids. Same seed, same packets.

    Streams stand call by call: leg A inbound, leg A outbound, and with ``legs="both"`` leg B inbound (the voice of A
    outbound) and outbound. Their packets are spread evenly over the packet time, unless ``in_phase``.
    ``voices``: int16 (n,) at the codec's rate (default: the bundled ones), repeated, begun elsewhere for each call.
    ``codec``: PCMU, PCMA, L16, or a packed one that can be encoded here (:mod:`strep._codecs.encoders`).
    ``payload_type``: default 0 for PCMU, 8 for PCMA, 9 for G722, 18 for G729, 3 for GSM; a receiver must be told of the
    others: 96 for L16, 97 AMR, 98 AMR-WB, 111 opus.
    ``drift_ppm``: how much faster than true the senders' clocks run.
    ``dtmf``: keys that the callers press, from ``dtmf_at_s`` on, as telephone-events of payload type 101 (RFC 4733)
    that replace the audio: 100 ms each, with 100 ms between them.

    Raises ConfigurationError, and MissingExtraError for a codec that needs what is not installed.
    """
    chosen = wire_codec(codec)
    frames, packets = _dimensions(chosen, calls, duration_s, ptime_ms)
    payload_type = _usual_type(chosen) if payload_type is None else payload_type
    if not 0 <= payload_type <= 127 or 64 <= payload_type <= 95:
        raise ConfigurationError(f"payload type {payload_type}: choose 0 to 63 or 96 to 127 (RFC 5761)")
    keys = plan_keys(dtmf, dtmf_at_s, ptime_ms=ptime_ms, packets=packets)
    if keys and payload_type == TELEPHONE_EVENT:
        raise ConfigurationError(f"payload type {payload_type} is that of telephone-events: choose another")
    if not abs(drift_ppm) <= _DRIFT_MOST_PPM:
        raise ConfigurationError(f"drift {drift_ppm} ppm: choose -{_DRIFT_MOST_PPM} to {_DRIFT_MOST_PPM}")
    if legs not in ("a", "both"):
        raise ConfigurationError(f'legs {legs!r}: "a" or "both"')
    if seed is not None and seed < 0:
        raise ConfigurationError(f"seed {seed}: 0 or more")
    if voices is None:
        from .speech import bundled_voices

        voices = bundled_voices(chosen.sample_rate)
    if not all(voice.size for voice in voices):
        raise ConfigurationError("a voice has no samples: give at least one")
    rng = np.random.default_rng(seed)
    per_call = 4 if legs == "both" else 2
    streams = per_call * calls
    least = EVENT_BYTES if keys else 1
    held = _speak(chosen, voices, calls, per_call, packets, frames, payload_type, least)
    first_timestamp = rng.integers(0, 1 << 32, streams)
    ssrc = rng.integers(1, 1 << 32, streams)
    first_sequence = rng.integers(0, 1 << 16, streams)
    ids = [uuid.UUID(bytes=rng.bytes(16), version=1) for _ in range(calls)]
    if keys:
        held.press([s for s in range(streams) if not _speaker(s, per_call)], keys, frames)
    truth = [
        StreamTruth(
            ids[s // per_call],
            Leg(s % per_call // 2),
            Direction(s % 2),
            int(ssrc[s]),
            int(first_sequence[s]),
            np.ones(packets, np.bool_),
            0,
            frames * chosen.sample_rate // chosen.clock_rate * chosen.channels,
            chosen,
            held.payload[s],
            held.length[s],
            first_timestamp=int(first_timestamp[s]),
            keys=() if _speaker(s, per_call) else keys,
        )
        for s in range(streams)
    ]
    ptime_ns = round(ptime_ms * 1e6)
    phase = np.zeros(streams, np.int64) if in_phase else np.arange(streams) * ptime_ns // streams
    within = np.rint(np.arange(packets) * (ptime_ns / (1 + drift_ppm * 1e-6))).astype(np.int64)
    done = impair(phase[:, None] + within, ptime_ns, impairments or Impairments(), rng)
    for s, t in enumerate(truth):
        t.sent = ~done.lost[s]
        t.duplicates = int(done.doubled[s].sum())
        t.reordered = int(done.reordered[s])
    return Traffic(done.time_ns, done.stream, done.number, truth, held, payload_type, chosen, frames, first_timestamp)


def _usual_type(codec: Codec) -> int:
    if is_packed(codec):
        return FORMATS[codec.name.upper()].habit
    return {"PCMU": 0, "PCMA": 8}.get(codec.name, 96)


def _speaker(stream: int, per_call: int) -> int:
    """Whose voice a stream has: 0 the caller (leg A inbound, leg B outbound), 1 the agent."""
    leg, direction = divmod(stream % per_call, 2)
    return leg ^ direction


def _speak(
    codec: Codec,
    voices: tuple[I16, I16],
    calls: int,
    per_call: int,
    packets: int,
    frames: int,
    payload_type: int,
    least: int,
) -> Packets:
    """What all streams say. Calls of a packed codec begin at a few places of the dialogue, others each at its own."""
    values = packets * frames * codec.sample_rate // codec.clock_rate
    beginnings = min(calls, _BEGINNINGS) if is_packed(codec) else calls
    said = []
    for beginning in range(beginnings):
        for voice in voices:
            samples = np.resize(np.roll(voice, -(beginning * voice.size // beginnings)), values)
            samples = np.repeat(samples, codec.channels) if codec.channels > 1 else samples
            said.append(encode_stream(codec, samples, packets))
    size = max(least, *(len(payload) for stream in said for payload in stream))
    payload = np.zeros((per_call * calls, packets, size), np.uint8)
    length = np.zeros((per_call * calls, packets), np.int64)
    for s in range(per_call * calls):
        stream = said[2 * (s // per_call % beginnings) + _speaker(s, per_call)]
        if isinstance(stream, np.ndarray):
            payload[s, :, : stream.shape[1]] = stream
            length[s] = stream.shape[1]
        else:
            length[s] = [len(data) for data in stream]
            payload[s] = np.frombuffer(b"".join(data.ljust(size, b"\0") for data in stream), np.uint8).reshape(-1, size)
    return uniform(payload, length, payload_type, frames)


def _dimensions(codec: Codec, calls: int, duration_s: float, ptime_ms: float) -> tuple[int, int]:
    """Sample frames of a packet, and packets of a stream."""
    if not (0 < ptime_ms < 10_000 and 0 < duration_s < 1e6):
        raise ConfigurationError(f"packets of {ptime_ms} ms for {duration_s} s: both are positive")
    frames = round(codec.clock_rate * ptime_ms / 1000)
    if frames < 1 or abs(frames * 1000 - codec.clock_rate * ptime_ms) > 1e-6:
        raise ConfigurationError(f"ptime {ptime_ms} ms is no whole number of samples at {codec.clock_rate} Hz")
    if frames * codec.frame_bytes + _HEADERS > _LARGEST_UDP:
        raise ConfigurationError(f"ptime {ptime_ms} ms of {codec} does not fit a datagram: choose a shorter one")
    packets = round(duration_s * 1000 / ptime_ms)
    if calls < 1 or packets < 1:
        raise ConfigurationError(f"{calls} calls of {duration_s} s: at least one call, at least one packet")
    return frames, packets
